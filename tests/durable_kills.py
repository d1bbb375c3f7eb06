"""Kill a Durable engine, over and over, and hold its memory against the exchange's: `make crash-test`.

Engine, exchange and database are three processes. The engine is killed at random times and at named moments; the
exchange's auditor looks at every event there; at the end ledger and State must agree on every order, fill and
position.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from durable_child import MOMENTS
from gridmm.layout import CLOSE, OPEN, Leg, Ret, Var
from gridmm.model import from_state
from gridmm.store import SqlStore
from gridmm.tables import open_database
from gridmm.vocabulary import Trigger, Trip
from postgres import postgres_server
from remote_exchange import Control, exchange_process

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program finds only its own folder there

from tools.results import code_hash, write

HERE = Path(__file__).parent
CONFIG = HERE / "configs" / "demo_fast.toml"
SYMBOL = "BTC/USDT:USDT"
PACE_MS = 2
A_WORLD = 25  # kills on one market, one grid and one database
SEND_MS = 400  # a start after a kill waits so long; production waits 2 s


@dataclass
class Tally:
    """What a run of kills did.

    Attributes:
        kills: Kills by the moment that they fell on; `at random` where they fell in between.
        restarts: Starts after a kill.
        orders: Orders that the exchange accepted.
        fills: Trades.
        looks: How often the auditor looked.
        peaceful: Stops that were over before the moment at which they were to be killed.
    """

    kills: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    orders: int = 0
    fills: int = 0
    looks: int = 0
    peaceful: int = 0

    def __str__(self) -> str:
        fell = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return f"{sum(self.kills.values())} kills ({fell}); {self.orders} orders, {self.fills} fills, {self.looks} looks"


def start(db: str, address: str, *options: str, config: Path = CONFIG) -> subprocess.Popen:
    """Start an engine."""
    command = [sys.executable, str(HERE / "durable_child.py"), "--db", db, "--exchange", *address.split()]
    command += ["--config", str(config), "--send-ms", str(SEND_MS), *options]
    paths = os.pathsep.join((str(HERE), str(HERE.parent)))
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def first_line(process: subprocess.Popen, beginning: str) -> str:
    """Wait for a line that begins so; the process's own complaint where it never comes."""
    assert process.stdout is not None and process.stderr is not None
    patience = threading.Timer(90, process.kill)  # an engine that waits for ever must not be waited for
    patience.start()
    try:
        for line in process.stdout:
            if line.startswith(beginning):
                return line
    finally:
        patience.cancel()
    raise AssertionError(
        f"no line {beginning!r}; exit code {process.wait()}: {process.stderr.read()[-2_000:]}"
    )


@contextmanager
def market(*, still: bool = False, number: int = 1) -> Iterator[tuple[str, Control]]:
    """An exchange whose market moves by itself, or stands still after its first moments; `number` tells which market."""
    moves = [] if still else ["--pace", str(PACE_MS)]
    with exchange_process("--demo", str(number), *moves, "--today", "--config", CONFIG) as (address, control):
        if still:
            control.advance(20)
        yield address, control


def kill(process: subprocess.Popen, draw: random.Random, tally: Tally) -> bool:
    """Kill an engine at a random time after it has begun; return that it died."""
    first_line(process, "at after commit")
    time.sleep(draw.random() * 1.2)
    process.kill()
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err[-2_000:]
    tally.kills["at random"] += 1
    return True


def die(process: subprocess.Popen, moment: str, tally: Tally) -> bool:
    """Wait until an engine has died at the moment that it was told; kill it where its market asks for nothing.

    Returns:
        Whether it died: a stop can be over in fewer steps than the one that it was to die at.
    """
    if moment == "stop":
        first_line(process, "at after commit")
        process.terminate()
    try:
        _, err = process.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        tally.kills["at random"] += 1
        return True
    if moment == "stop" and process.returncode == 0:
        return False
    assert process.returncode == -signal.SIGKILL, f"{moment} was never reached: {err[-2_000:]}"
    tally.kills[moment] += 1
    return True


@dataclass(frozen=True)
class Ground:
    """Where engines are killed.

    Attributes:
        market: Opens the market of a number; yields what an engine is told of the exchange, and its control.
        config: What the engines trade by.
        symbol: What they trade.
        latest: The last time that a moment is come to at which an engine dies, by the moment's name.
        later: The same of all other moments.
        calm: Lets the exchange fail no more.
        entry_step: See `agree`.
    """

    market: Callable[[int], AbstractContextManager[tuple[str, Any]]] = lambda number: market(number=number)
    config: Path = CONFIG
    symbol: str = SYMBOL
    latest: Mapping[str, int] = field(default_factory=lambda: {"reconcile": 1, "stop": 3})
    later: int = 12
    calm: Callable[[Any], None] = lambda control: None
    entry_step: Decimal = Decimal(0)


def end_of_stop(db: str, address: str, config: Path = CONFIG) -> dict[str, Any]:
    """Start after a kill in the middle of a stop; return the receipt of a start that nobody asks to stop."""
    process = start(db, address, config=config)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err[-2_000:] + out[-2_000:]
    assert out.count("in the middle of a stop (cancel)") == 1, out[-2_000:]
    assert "at before send" not in out, "an order was placed by a start that only finishes a stop"
    return dict(json.loads(out.splitlines()[-1]))


def run_kills(
    db: str,
    kills: int,
    seed: int,
    say: Any = lambda line: None,
    tally: Tally | None = None,
    world: int = 1,
    ground: Ground | None = None,
) -> Tally:
    """Kill `kills` engines of one grid, then let one stop in peace, and check everything.

    Args:
        db: Database of the grid, empty.
        kills: How many; every second one at a named moment, each of those in turn.
        seed: Of the random times.
        say: Told after each kill.
        tally: What to add to.
        world: Which market.
        ground: Where; the exchange of the promise by default.
    """
    draw, tally, ground = random.Random(seed), tally or Tally(), ground or Ground()
    before, config = sum(tally.kills.values()), ground.config
    with ground.market(world) as (address, control):
        for number in range(before, before + kills):
            named = number % 2 == 0
            moment = MOMENTS[(number // 2) % len(MOMENTS)]
            count = draw.randint(1, ground.latest.get(moment, ground.later))
            options = ["--die", f"{moment.replace(' ', '_')}:{count}"] if named else []
            process = start(db, address, *options, config=config)
            try:
                died = die(process, moment, tally) if named else kill(process, draw, tally)
                tally.peaceful += not died
            except AssertionError as error:
                raise AssertionError(
                    f"kill {number}: {error}\nthe State: {standing(db, ground.symbol)}"
                ) from error
            finally:
                process.kill()
            tally.restarts += 1
            audit = control.audit()
            assert not audit.violations, f"after kill {number}: {audit.violations}"
            if died and moment == "stop" and named:
                receipt = end_of_stop(db, address, config)
                assert receipt["open_orders"] == 0 == control.audit().open_orders, receipt
                tally.restarts += 1
            say(str(tally))
        ground.calm(control)
        process = start(db, address, config=config)
        first_line(process, "at after commit")
        time.sleep(1.0)
        process.terminate()
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err[-2_000:] + out[-2_000:]
        receipt = json.loads(out.splitlines()[-1])
        audit = control.audit()
        tally.orders += audit.orders
        tally.fills += audit.fills
        tally.looks += audit.checks
        agree(db, receipt, audit, symbol=ground.symbol, entry_step=ground.entry_step)
    return tally


def standing(db: str, symbol: str = SYMBOL) -> dict[str, Any]:
    """Return what the State says that could keep a grid from sending."""
    database = open_database(db)
    state = SqlStore(database, symbol).load()
    database.dispose()
    if state is None:
        return {}
    core, _ = from_state(state)
    v, trips = core.v, core.risk[Trip.ACTIVE].nonzero()[0]
    said = {
        name: int(v[getattr(Var, name)])
        for name in ("RISK", "STOP", "SLOTS", "STRAYS", "PIVOT", "LAST", "ANCHOR")
    }
    return {**said, "triggers": [Trigger(int(trip)).name for trip in trips], "lots": int(v[Var.LEDGER_LOTS])}


def agree(
    db: str,
    receipt: dict[str, Any],
    audit: Any,
    grid: str = "",
    symbol: str = SYMBOL,
    entry_step: Decimal = Decimal(0),
) -> None:
    """Hold the State against the exchange: violations, open orders, fills, position, money.

    Args:
        db: Database of the grid.
        receipt: The engine's.
        audit: The exchange's.
        grid: The grid's name.
        symbol: What it trades.
        entry_step: Last digit of the average entry price that the exchange states; what an open position cost is known
            no better than that, and a wallet to its eighth digit. 0 is exact.
    """
    assert not audit.violations, audit.violations
    assert audit.open_orders == 0 == receipt["open_orders"]
    assert audit.fills == receipt["fills"], "a fill was lost or doubled"
    assert Decimal(audit.position) == Decimal(receipt["position"])
    assert Decimal(receipt["pnl"]["residual"]) == 0
    unknown = abs(Decimal(audit.position)) * entry_step + (Decimal("1e-8") if entry_step else 0)
    assert all(abs(Decimal(left)) <= unknown for left in receipt["residual_exchange"].values()), receipt
    assert receipt["defects"] == 0
    database = open_database(db)
    state = SqlStore(database, symbol, grid).load()
    database.dispose()
    assert state is not None, "the checksum was verified by load"
    core, _ = from_state(state)
    v = core.v
    assert audit.orders <= v[Var.NEXT_SEQ] - 1, "an order that the State never numbered"
    assert v[Var.STRAYS] == 0 or (core.strays[Ret.STATUS, : v[Var.STRAYS]] >= 4).all()
    legs = core.slots[[OPEN + Leg.STATUS, CLOSE + Leg.STATUS], : v[Var.SLOTS]]
    assert not ((legs > 0) & (legs < 4)).any(), "an order that is still open or unresolved"


def missed(tally: Tally) -> list[str]:
    """Return the named moments on which no kill fell."""
    return [moment for moment in MOMENTS if not tally.kills[moment]]


def crash_test(kind: str, kills: int, seed: int) -> dict[str, Any]:
    """Run on one kind of database and return the counts."""
    began = time.monotonic()
    tally = Tally()
    with ExitStack() as stack:
        if kind == "postgres":
            new = stack.enter_context(postgres_server()).new_database
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            names = itertools.count()

            def new() -> str:
                return f"{folder}/grid{next(names)}.sqlite"

        for world in range(1, -(-kills // A_WORLD) + 1):
            # a market goes its way, and after some hours of it a full grid would only wait
            now = min(A_WORLD, kills - (world - 1) * A_WORLD)
            run_kills(
                new(), now, seed + world, lambda line: print(f"{kind}: {line}", flush=True), tally, world
            )
    print(f"{kind}: {tally}", flush=True)
    if never := missed(tally):
        raise SystemExit(
            f"{kind}: no kill fell on {', '.join(never)}. Every second kill takes the next of {len(MOMENTS)} "
            f"moments: ask for at least {2 * len(MOMENTS) - 1} kills."
        )
    return {
        "kills": sum(tally.kills.values()),
        "kills_by_moment": dict(sorted(tally.kills.items())),
        "orders": tally.orders,
        "fills": tally.fills,
        "auditor_looks": tally.looks,
        "worlds": -(-kills // A_WORLD),
        "seconds": round(time.monotonic() - began),
    }


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Kill a Durable engine and check all that is left.")
    parser.add_argument("--kills", type=int, default=500, help="on each database")
    parser.add_argument("--db", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seed", type=int, default=1, help="of the random times")
    given = parser.parse_args()
    code = code_hash()
    kinds = ("sqlite", "postgres") if given.db == "both" else (given.db,)
    with ThreadPoolExecutor(len(kinds)) as pool:  # each waits for its own processes most of the time
        ran = pool.map(lambda kind: crash_test(kind, given.kills, given.seed), kinds)
        counts = dict(zip(kinds, ran, strict=True))
    write(
        "crash_test",
        "A Durable engine was killed again and again, half of the times at a named moment, and its memory held "
        f"against the exchange's; a start waits {SEND_MS} ms before it sends, where production waits 2 s.",
        f"make crash-test N={given.kills} DB={given.db}" + (f" SEED={given.seed}" if given.seed != 1 else ""),
        counts,
        code=code,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
