"""A worker of a fleet in a process of its own, whose grids trade on an exchange in another one.

    python tests/fleet_child.py --db URL --exchange ADDRESS --name NAME [--accounts A,B]

It prints what a test waits for: `taken` and `placed` with the machine's monotonic time, what the worker says, and the
receipt of a grid that has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from durable_child import ticks_of
from gridmm.commands import Mailbox
from gridmm.desk import Receipt
from gridmm.engine_durable import DurableEngine
from gridmm.errors import Fenced
from gridmm.exchange import OrderRequest, Outcome
from gridmm.feed import Price
from gridmm.fleet import Fleet
from gridmm.run import open_session, utc_clock, wall_ms
from gridmm.store import SqlStore
from gridmm.tables import open_database
from gridmm.worker import Part, Worker
from remote_exchange import RemoteExchange

TICKS = 600_000  # price at which sizes are measured


def tell(what: str, grid: str) -> None:
    """Print that something happened now."""
    print(f"{what} {time.monotonic()} {grid}", flush=True)


class WatchedExchange(RemoteExchange):
    """An exchange that says when an order goes out."""

    grid = ""

    async def place(self, requests: Sequence[OrderRequest], deadline_ms: int | None = None) -> list[Outcome]:
        """Place; see `RemoteExchange.place`."""
        tell("placed", self.grid)
        return await super().place(requests, deadline_ms)


def session_on(address: str) -> Callable[[Part], Awaitable[Receipt]]:
    """Return what plays a grid on the exchange at `address`."""

    async def play(part: Part) -> Receipt:
        clock = utc_clock()
        exchange = WatchedExchange(address, timeout_s=1.0, clock_ms=clock)
        exchange.grid = part.grid

        def prices() -> AsyncIterator[Price]:
            return ticks_of(exchange, part.config)

        try:
            instrument = (await exchange.instruments())[0]
            store = SqlStore(part.fleet.engine, instrument.symbol, part.grid)
            session, _ = open_session(part.config, TICKS, store, owner=part.owner, now_ms=wall_ms())
            if not await part.mine():
                raise Fenced(f"grid {part.grid}", "it is another worker's", "Nothing is to be done")
            tell("taken", part.grid)
            mailbox = Mailbox(part.fleet.engine, part.fleet.where)
            engine = DurableEngine(session, exchange, prices, mailbox, clock)
            engine.say = part.say
            if part.stop is not None:
                engine.ask(part.stop)
            receipt = await engine.run()
            print(f"receipt {json.dumps(receipt._asdict())}", flush=True)
            return receipt
        finally:
            await exchange.close()

    return play


async def main(given: argparse.Namespace) -> int:
    """Work until SIGTERM."""
    fleet = Fleet(open_database(given.db))
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)

    def say(line: str) -> None:
        print(f"says {line}", flush=True)

    accounts = given.accounts.split(",")
    worker = Worker(fleet, given.name, accounts, Path(given.folder), say, session=session_on(given.exchange))
    print("up", flush=True)
    handed = await worker.run(end)
    print(f"handed {','.join(handed)}", flush=True)
    return 0


def arguments() -> argparse.Namespace:
    """Return what the test asks for."""
    parser = argparse.ArgumentParser(description="A worker that tests may kill.")
    parser.add_argument("--db", required=True)
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--accounts", default="paper")
    parser.add_argument("--folder", default=".")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
