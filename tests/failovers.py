"""Take a grid away from its worker, in every way that it can happen, and time what follows: `make failover`.

Two workers at a time, an exchange and a PostgreSQL, each a process of its own. The worker that has the grid is killed,
paused until another one has it and then woken, cut off from database and exchange until then, or asked to hand over;
the exchange's auditor looks at every event, and at the end ledger and State must agree on every order, fill and position.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from durable_kills import CONFIG, HERE, agree, market
from gridmm.cli import rehearse
from gridmm.commands import Mailbox, Request
from gridmm.config import load
from gridmm.fleet import Fleet
from gridmm.run import wall_ms
from gridmm.tables import open_database
from postgres import postgres_server
from relay import Relay

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program finds only its own folder there

from tools.results import code_hash, write

GRID = "btc"
WAYS = ("killed", "paused", "cut off", "handed over")
PATIENCE_S = 60.0
QUIET_S = 20.0
A_WORLD = 2  # rounds on one market, one grid and one database


class Child:
    """A worker in a process of its own, on wires of its own."""

    def __init__(self, db: str, address: str, name: str, folder: Path) -> None:
        self.wires, ends = list[Relay](), list[str]()
        for url in (db, address):
            port = urlsplit(url).port
            assert port is not None
            self.wires.append(Relay(port))
            ends.append(url.replace(f":{port}", f":{self.wires[-1].port}"))
        command = [sys.executable, str(HERE / "fleet_child.py"), "--db", ends[0], "--exchange", ends[1]]
        command += ["--name", name, "--folder", str(folder)]
        paths = os.pathsep.join((str(HERE), str(HERE.parent)))
        self.name, self.lines = name, list[str]()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        self._queue: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip())
        self._queue.put("")  # it has ended

    def wait(self, beginning: str) -> str:
        """Return the next line that begins so."""
        end = time.monotonic() + PATIENCE_S
        while (left := end - time.monotonic()) > 0:
            try:
                line = self._queue.get(timeout=left)
            except queue.Empty:
                break
            self.lines.append(line)
            if line.startswith(beginning):
                return line
            if not line and self.process.poll() is not None:
                break
        self.process.kill()
        _, complaint = self.process.communicate()
        raise AssertionError(f"{self.name} never said {beginning!r}: {self.lines[-5:]}\n{complaint[-2_000:]}")

    def at(self, what: str) -> float:
        """Return when the next thing of this kind happened, seconds of the machine's monotonic clock."""
        return float(self.wait(what).split()[1])

    def placed_s(self) -> float | None:
        """Return when the next order went out; None where a quiet market asks for none in the next `QUIET_S` seconds."""
        end = time.monotonic() + QUIET_S
        while (left := end - time.monotonic()) > 0:
            try:
                line = self._queue.get(timeout=left)
            except queue.Empty:
                return None
            self.lines.append(line)
            if line.startswith("placed"):
                return float(line.split()[1])
        return None

    def said(self) -> list[str]:
        """Return what it has said since the last question."""
        found = list[str]()
        while not self._queue.empty():
            found.append(self._queue.get())
        self.lines += found
        return found


@dataclass
class Tally:
    """What was seen; times in seconds from the moment that the worker was killed, paused or asked.

    Attributes:
        taken_s: Until the next worker had taken State and grid, by way.
        opened_s: Until it sent its first order.
        orders: Orders that the exchange accepted.
        fills: Trades.
        looks: How often the auditor looked.
    """

    taken_s: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    opened_s: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    orders: int = 0
    fills: int = 0
    looks: int = 0

    def __str__(self) -> str:
        told = [
            f"{way} {len(times)}: taken after {_span(times)} s, first order after {_span(self.opened_s[way])} s"
            for way, times in self.taken_s.items()
            if times
        ]
        return "; ".join([*told, f"{self.orders} orders, {self.fills} fills, {self.looks} looks"])


def _span(times: list[float]) -> str:
    if not times:
        return "none"
    low, high = min(times), max(times)
    return f"{low:.1f}" if len(times) == 1 else f"{low:.1f} to {high:.1f}"


def run_failovers(
    db: str,
    rounds: int,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
    tally: Tally | None = None,
    world: int = 1,
) -> Tally:
    """Take the grid away `rounds` times in each way, then end it in peace, and check everything.

    Args:
        db: Database, empty.
        rounds: How often each way is tried.
        folder: For event logs.
        say: Told after each.
        tally: What to add to.
        world: Which market.
    """
    tally, engine = tally or Tally(), open_database(db)
    fleet = Fleet(engine)
    config = load(CONFIG, environ={}, options={"feed.source": ("demo", "test")})
    with market(number=world) as (address, control):
        fleet.add(GRID, config, "test", wall_ms())
        number = 0

        def child() -> Child:
            nonlocal number
            number += 1
            made = Child(db, address, f"worker-{number}", folder)
            made.wait("up")
            return made

        owner = child()
        owner.wait("taken")
        owner.wait("placed")
        children = [owner]
        try:
            for turn in range(rounds * len(WAYS)):
                way, heir = WAYS[turn % len(WAYS)], child()
                children.append(heir)
                time.sleep(1.5)  # it has looked around once
                began_s = take_away(way, owner)
                tally.taken_s[way].append(heir.at("taken") - began_s)
                if (placed_s := heir.placed_s()) is not None:
                    tally.opened_s[way].append(placed_s - began_s)
                let_go(way, owner)
                owner = heir
                audit = control.audit()
                assert not audit.violations, audit.violations
                say(str(tally))
            fleet.remove(GRID)
            now_ms = wall_ms()
            Mailbox(engine).send(
                Request("end", GRID, "stop", "cancel", "test", "over", now_ms, now_ms + 60_000)
            )
            receipt = json.loads(owner.wait("receipt").partition(" ")[2])
            owner.process.terminate()
            owner.wait("handed")
        finally:
            for one in children:
                one.process.kill()
                one.process.communicate()
                for wire in one.wires:
                    wire.close()
        audit = control.audit()
        tally.orders += audit.orders
        tally.fills += audit.fills
        tally.looks += audit.checks
        agree(db, receipt, audit, GRID)
    fleet.close()
    engine.dispose()
    return tally


def take_away(way: str, owner: Child) -> float:
    """Take the grid from its worker; return when."""
    owner.said()
    began_s = time.monotonic()
    if way == "cut off":
        for wire in owner.wires:
            wire.cut()
        return began_s
    how = {"killed": signal.SIGKILL, "paused": signal.SIGSTOP, "handed over": signal.SIGTERM}
    os.kill(owner.process.pid, how[way])
    return began_s


def let_go(way: str, owner: Child) -> None:
    """Check that a worker that has lost its grid does nothing with it any more; end it."""
    if way in ("paused", "cut off"):
        owner.said()
        if way == "paused":
            os.kill(owner.process.pid, signal.SIGCONT)
        for wire in owner.wires:
            wire.mend()
        owner.wait(f"says {GRID}: another worker has it")
        time.sleep(1.0)
        later = owner.said()
        assert not [line for line in later if line.startswith(("taken", "placed"))], later
        owner.process.kill()
    if way == "handed over":
        owner.wait(f"handed {GRID}")


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Take a grid away from its workers and check all that is left."
    )
    parser.add_argument("--rounds", type=int, default=20, help="of each way")
    given = parser.parse_args()
    code = code_hash()
    rehearse()  # a worker that has to compile first would be taken for one that hangs
    with postgres_server() as server:
        tally = Tally()
        for world in range(1, -(-given.rounds // A_WORLD) + 1):
            # a market goes its way, and after some hours of it a full grid would only wait
            now = min(A_WORLD, given.rounds - (world - 1) * A_WORLD)
            db = server.new_database()
            run_failovers(db, now, server.folder, lambda line: print(line, flush=True), tally, world)
    print(tally, flush=True)
    counts: dict[str, Any] = {"orders": tally.orders, "fills": tally.fills, "auditor_looks": tally.looks}
    for way in WAYS:
        times = {"taken_s": tally.taken_s[way], "first_order_s": tally.opened_s[way]}
        counts[way] = {"times": len(tally.taken_s[way]), "first_orders": len(tally.opened_s[way])}
        for name, seen in times.items():
            counts[way] |= {
                f"{name}_median": round(statistics.median(seen), 2),
                f"{name}_longest": round(max(seen), 2),
            }
    about = "A grid was taken away from its worker again and again; times are from that moment until the next worker had its state, and sent its first order."
    write("failover", about, f"make failover N={given.rounds}", counts, code=code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
