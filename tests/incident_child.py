"""A Durable session on the demo market in a process of its own, which kills itself at a chosen commit.

    python tests/incident_child.py DB [--die-after-commit N | --die-before-commit N] [--pace MS] [--options JSON]

A paper market in which nobody waits is the same every time, and so is what a kill takes with it. `--die-before-commit`
lets the event log write the deciding event first, as it does when a second is over: the plan is then in no database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gridmm.config import load
from gridmm.feed import Pace
from gridmm.run import Run, Signals, assemble, play
from gridmm.store import SqlStore
from gridmm.tables import open_database
from gridmm.v1.decision_pb2 import DecisionRecord
from gridmm.v1.state_pb2 import State

OPTIONS = {"feed.duration": "90 min", "grid.price_interval": "10 bps", "instrument.maker_fee": "1 bps"}


def kill_at(before: int, after: int, runs: list[Run]) -> None:
    """End the process without warning, before or after the commit of a decision of this number."""
    save, seen = SqlStore.save, [0]

    def saved(self: SqlStore, state: State, decision: DecisionRecord | None = None, *about: Any) -> None:
        seen[0] += decision is not None
        if decision is not None and seen[0] == before:
            runs[0].log.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, state, decision, *about)
        if decision is not None and seen[0] == after:
            os.kill(os.getpid(), signal.SIGKILL)

    SqlStore.save = saved  # type: ignore[assignment, method-assign]


async def trade(run: Run, pause_s: float) -> None:
    """Trade to the end, resting after each moment in which something was decided."""
    seen = [0]

    async def rest(seconds: float) -> None:
        decisions = int(run.engine.session.meta.version)
        if decisions != seen[0]:
            seen[0] = decisions
            await asyncio.sleep(pause_s)

    pace = Pace("1000000000" if pause_s else "max", lambda: 0, rest)
    await play(run, Signals(), pace)


def main(given: argparse.Namespace) -> int:
    """Run the session."""
    options = {**OPTIONS, **json.loads(given.options)}
    config = load(options={name: (value, "test") for name, value in options.items()}, environ={})
    runs: list[Run] = []
    kill_at(given.die_before_commit, given.die_after_commit, runs)
    with ExitStack() as stack:
        server = open_database(given.server) if given.server else None
        runs.append(assemble(config, given.db, stack, server=server, durable=True, synchronous="OFF"))
        runs[0].begin()
        print("begun", flush=True)
        asyncio.run(trade(runs[0], given.pause))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A Durable session that kills itself.")
    parser.add_argument("db", type=Path)
    parser.add_argument("--server", default="", help="PostgreSQL for state and ledger")
    parser.add_argument("--die-before-commit", type=int, default=-1)
    parser.add_argument("--die-after-commit", type=int, default=-1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to rest after each save")
    parser.add_argument("--options", default="{}")
    sys.exit(main(parser.parse_args()))
