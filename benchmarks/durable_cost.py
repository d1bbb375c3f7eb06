"""What a Durable plan costs: one commit, held against a bare commit of the same machine in the same run.

The demo market is traded once and every event written down. The same events then go, in turns, through a session
on a database (Durable) and a session in memory (Simple). A bare UPDATE of as many bytes as the State has is what both
are compared with. Turns, because a disk is not the same disk a minute later.

    python -m benchmarks.durable_cost [--plans 400] [--ticks 1000000] [--postgres] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Engine, event, text

from gridmm.config import load
from gridmm.engine import DURABLE, VOLATILE, Orders, Session
from gridmm.engine_simple import SimpleEngine
from gridmm.exchange import Accepted, Fill
from gridmm.feed import Moment, moments
from gridmm.layout import Core, Ev, Var
from gridmm.model import Meta, seal, to_state
from gridmm.run import Run, Signals, assemble
from gridmm.several import serve, unpaced
from gridmm.store import MemoryStore, SqlStore, Store
from gridmm.tables import open_database
from gridmm.vocabulary import Stop, Trip
from gridmm.words import price_event
from tools.notebooks import ROOT
from tools.results import code_hash, write

sys.path.insert(0, str(ROOT / "tests"))  # the private server that tests use

from postgres import postgres_server

CONFIG = ROOT / "tests" / "configs" / "demo_fast.toml"
# As many levels as a person would trade: the State is then about 11 kB.
GRID = {"grid.grid_size": 10, "grid.max_position": "40 %", "feed.duration": "30 d"}
RAW, TAKE, MEMORY = "raw commit", "Durable", "Simple"
GOAL = 1.3  # of a Durable plan to a raw commit, at p50
WARM_UP = 10  # plans that are played and not counted: statements are compiled, pages are allocated
WARM_TICKS = 20_000
FLAT_KIB = (
    4_096  # growth of the resident memory that is allowed: a page here or there, not something per tick
)


class Taken(NamedTuple):
    """An event that a session took, and what it sent then."""

    ev: np.ndarray
    client_id: str
    exchange_id: str
    trade: Fill | None
    orders: Orders


class Recorder(Session):
    """A session that writes down what it takes."""

    tape: list[Taken]
    plans = 0

    def take(
        self, ev: np.ndarray, client_id: str = "", exchange_id: str = "", trade: Fill | None = None
    ) -> Orders:
        """Take and write down; see `Session.take`."""
        kept = ev.copy()
        orders = super().take(ev, client_id, exchange_id, trade)
        self.tape.append(Taken(kept, client_id, exchange_id, trade, orders))
        self.plans += not orders.empty
        return orders


@dataclass
class World:
    """A recorded session, and what is needed to play it again.

    Attributes:
        core: The core before its first event.
        par: Parameters.
        meta: Identity before the first event.
        tape: Every event.
        quote: The market's first moment with a price.
    """

    core: Core
    par: np.ndarray
    meta: Meta
    tape: list[Taken]
    quote: Moment

    def session(self, store: Store) -> Session:
        """Return the session as it was before its first event, over another store."""
        core, par, meta = deepcopy((self.core, self.par, self.meta))
        return Session(core, par, replace(meta, incarnation=store.acquire()), store)


def record(plans: int) -> World:
    """Trade the demo market until so many plans were made."""
    options = {key: (value, "benchmark") for key, value in GRID.items()}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        db = Path(folder) / "recorded.sqlite"
        run = assemble(load(CONFIG, environ={}, options=options), db, stack, synchronous="OFF")
        first = run.engine.session
        before = deepcopy((first.core, first.par, first.meta))
        session = Recorder(first.core, first.par, first.meta, first.store)
        session.tape = []
        run.engine = SimpleEngine(session, run.paper)
        signals = Signals()

        def enough(_: object) -> None:
            signals.stop = Stop.CANCEL if session.plans >= plans else None

        signals.on_moment = enough
        asyncio.run(serve([(run, signals)], unpaced, lambda line: None))
        return World(*before, session.tape, _first_quote(run))


def _first_quote(run: Run) -> Moment:
    return next(moment for moment in moments(run.market) if moment.bid > 0 and moment.ask > 0)


class Commits:
    """Counts the commits of a database."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        event.listen(engine, "commit", self._committed)

    def _committed(self, _: object) -> None:
        self.count += 1


class Bare:
    """A row with a blob, written over with nothing but the driver between us and the disk."""

    def __init__(self, engine: Engine) -> None:
        blob = "BYTEA" if engine.dialect.name == "postgresql" else "BLOB"
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE bare (id INTEGER PRIMARY KEY, state {blob})"))
            connection.execute(text("INSERT INTO bare (id) VALUES (1)"))
        mark = "%s" if engine.dialect.name == "postgresql" else "?"
        self._connection, self._update = (
            engine.raw_connection(),
            f"UPDATE bare SET state = {mark} WHERE id = 1",
        )

    def write(self, blob: bytes) -> None:
        """Write the row and wait until it is safe."""
        cursor = self._connection.cursor()
        cursor.execute(self._update, (blob,))
        self._connection.commit()
        cursor.close()

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


@dataclass
class Tally:
    """Counts of one playing.

    Attributes:
        plans: Events that sent something.
        plan_commits: Commits at them, which must be one each.
        quiet: Events that changed nothing that a restart must not lose, while nothing was owed.
        quiet_commits: Commits at them, which must be none.
        others: What is left: reports and trades without a plan, and what follows until they are saved.
        other_commits: Commits at them: at most one a second of market time.
        differing: Events at which a session sent something else than the recorded one.
        state_bytes: Size of the largest State.
        ns: Times of each variant's plans.
    """

    plans: int = 0
    plan_commits: int = 0
    quiet: int = 0
    quiet_commits: int = 0
    others: int = 0
    other_commits: int = 0
    differing: int = 0
    state_bytes: int = 0
    ns: dict[str, list[int]] = field(default_factory=dict)

    def broken(self) -> list[str]:
        """Return the promises that were not kept."""
        promises = {
            f"{self.plan_commits} commits for {self.plans} plans": self.plan_commits == self.plans > 0,
            f"{self.quiet_commits} commits for {self.quiet} quiet events": self.quiet_commits
            == 0
            < self.quiet,
            f"{self.differing} events were answered otherwise than recorded": self.differing == 0,
        }
        return [text for text, kept in promises.items() if not kept]


def _durable(core: Core) -> tuple[int, ...]:
    """Return what prices and time may change that a restart must not lose, more finely than the session asks."""
    return *core.v[DURABLE].tolist(), int(core.v[Var.PEAK]), *core.risk[Trip.ACTIVE].tolist()


def measure(world: World, urls: dict[str, str], seconds: float = 60.0) -> Tally:
    """Play a recorded session through all variants in turns.

    Args:
        world: What was recorded.
        urls: An empty database for each of `RAW` and `TAKE`.
        seconds: Time after which no further plan is begun.
    """
    tally = Tally()
    with ExitStack() as stack:
        engines = {name: open_database(url) for name, url in urls.items()}
        for engine in engines.values():
            stack.callback(engine.dispose)
        symbol = world.meta.instrument.symbol
        sessions = {
            TAKE: world.session(SqlStore(engines[TAKE], symbol)),
            MEMORY: world.session(MemoryStore(symbol)),
        }
        bare, commits = Bare(engines[RAW]), Commits(engines[TAKE])
        stack.callback(bare.close)
        names = [RAW, *sessions]
        tally.ns = {name: [] for name in names}
        session, owed, end = sessions[TAKE], False, time.monotonic() + seconds
        for taken in world.tape:
            if time.monotonic() > end:
                break
            expected = taken.orders
            before, kept = commits.count, _durable(session.core)
            blob = b"" if expected.empty else seal(to_state(session.core, session.meta))
            turn = tally.plans % len(names)
            for name in names[turn:] + names[:turn] if not expected.empty else sessions:
                begun = time.perf_counter_ns()
                if name == RAW:
                    bare.write(blob)
                else:
                    orders = sessions[name].take(*taken[:4])
                passed = time.perf_counter_ns() - begun
                if name != RAW and orders != expected:
                    tally.differing += 1
                if not expected.empty and tally.plans >= WARM_UP:
                    tally.ns[name].append(passed)
            made = commits.count - before
            owed = owed or taken.ev[Ev.KIND] not in VOLATILE or _durable(session.core) != kept
            if not expected.empty:
                tally.plans, tally.plan_commits = tally.plans + 1, tally.plan_commits + made
                tally.state_bytes = max(tally.state_bytes, len(blob))
            elif owed:
                tally.others, tally.other_commits = tally.others + 1, tally.other_commits + made
            else:
                tally.quiet, tally.quiet_commits = tally.quiet + 1, tally.quiet_commits + made
            owed = owed and not made
    return tally


class Flow(NamedTuple):
    """What ticks without a plan left behind.

    Attributes:
        ticks: How many.
        commits: Of the database; must be none.
        before_kib: Resident memory after the warm-up.
        after_kib: Resident memory at the end.
        seconds: How long it took.
    """

    ticks: int
    commits: int
    before_kib: int
    after_kib: int
    seconds: float

    def broken(self) -> list[str]:
        """Return the promises that were not kept."""
        grown = self.after_kib - self.before_kib
        found = [f"{self.commits} commits for {self.ticks:,} ticks without a plan"] if self.commits else []
        return found + ([f"memory grew by {grown:,} KiB over the ticks"] if grown > FLAT_KIB else [])


def resident_kib() -> int:
    """Return how much of this process is in memory now."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_024
    done = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def _prices(first: Moment, count: int) -> Iterator[np.ndarray]:
    """Yield prices of a tenth of a second each that stay within a cell."""
    for number in range(1, count + 1):
        off = number * 7 % 41 - 20
        yield price_event(
            first.time_ms + 1_000 + number * 100, first.bid + off, first.ask + off, first.bid + off
        )


def flow(world: World, url: str, ticks: int, warm_up: int = WARM_TICKS) -> Flow:
    """Let a session with a full set of open orders see many prices that give no reason to do anything.

    Args:
        world: Whose grid.
        url: An empty database.
        ticks: How many prices.
        warm_up: Prices before the first look at the memory.

    Raises:
        RuntimeError: A tick sent an order, so that this measures something else.
    """
    engine = open_database(url)
    try:
        session = world.session(SqlStore(engine, world.meta.instrument.symbol))
        quote = world.quote
        orders = session.take(price_event(quote.time_ms, quote.bid, quote.ask, quote.bid))
        for number, request in enumerate(orders.place):
            ev = session.words.placed(
                request, Accepted(request.client_id, str(number)), quote.time_ms + number
            )
            assert ev is not None
            session.take(ev, request.client_id, str(number))
        if not session.open_ids():
            raise RuntimeError("the session has no open orders: its first price did not open a grid")
        session.save()
        commits, before_kib, begun = Commits(engine), 0, time.monotonic()
        for number, ev in enumerate(_prices(quote, warm_up + ticks)):
            if number == warm_up:
                before_kib, begun = resident_kib(), time.monotonic()
            if not session.take(ev).empty:
                raise RuntimeError(f"tick {number} sent orders: the prices left their cell")
        return Flow(ticks, commits.count, before_kib, resident_kib(), time.monotonic() - begun)
    finally:
        engine.dispose()


def figures(tally: Tally) -> dict[str, dict[str, float]]:
    """Return p50 and p99 of each variant, microseconds, and as ratios to the bare commit."""
    found = {name: np.percentile(ns, (50, 99)) / 1_000 for name, ns in tally.ns.items()}
    return {
        name: {
            "p50_us": round(p50),
            "p99_us": round(p99),
            "p50_ratio": round(p50 / found[RAW][0], 2),
            "p99_ratio": round(p99 / found[RAW][1], 2),
        }
        for name, (p50, p99) in found.items()
    }


def report(where: str, tally: Tally) -> dict[str, Any]:
    """Print the table of one database and return it as counts."""
    rows, measured = figures(tally), len(tally.ns[RAW])
    print(f"\n{where}: {measured} plans each in turns, State up to {tally.state_bytes:,} bytes")
    print(f"{'':<20}{'p50 µs':>10}{'p99 µs':>10}{'p50 / raw':>12}{'p99 / raw':>12}")
    for name, row in rows.items():
        print(
            f"{name:<20}{row['p50_us']:>10,}{row['p99_us']:>10,}{row['p50_ratio']:>12.2f}{row['p99_ratio']:>12.2f}"
        )
    print(f"commits: {tally.plan_commits} for {tally.plans} plans, {tally.quiet_commits} for {tally.quiet:,}")
    print(
        f"         quiet events, {tally.other_commits} for {tally.others:,} reports, trades and what follows"
    )
    ratio = float(rows[TAKE]["p50_ratio"])
    added = round((rows[TAKE]["p50_us"] - rows[MEMORY]["p50_us"]) / rows[RAW]["p50_us"], 2)
    print(f"Durable adds {added:.2f} raw commits to Simple at p50; the rest is work of both engines")
    print(f"goal: a Durable plan at most {GOAL} raw commits at p50: {ratio:.2f}, {_met(ratio)}")
    return {
        **rows,
        "plans_measured": measured,
        "state_bytes": tally.state_bytes,
        "commits": {
            "plans": tally.plans,
            "at_plans": tally.plan_commits,
            "quiet_events": tally.quiet,
            "at_quiet_events": tally.quiet_commits,
            "other_events": tally.others,
            "at_other_events": tally.other_commits,
        },
        "durable_less_simple_p50_ratio": added,
        "goal_p50_ratio": GOAL,
        "goal_met": ratio <= GOAL,
    }


def _met(ratio: float) -> str:
    return "met" if ratio <= GOAL else "NOT met"


def save(counts: dict[str, Any], command: str, code: str) -> Path:
    """Write the result where the site shows it."""
    about = (
        "Time from an event to the moment its orders may go out, in turns with a bare commit of as many bytes; "
        "commits counted; and memory over price ticks without a plan."
    )
    return write("durable_cost", about, command, counts, code=code)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure what a Durable plan costs.")
    parser.add_argument("--plans", type=int, default=400, help="plans a variant (400)")
    parser.add_argument("--seconds", type=float, default=45.0, help="longest time for the plans (45)")
    parser.add_argument(
        "--ticks", type=int, default=1_000_000, help="prices for the look at memory (1000000)"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache", help="disk that is measured (.cache)")
    parser.add_argument("--postgres", action="store_true", help="measure a private PostgreSQL too")
    parser.add_argument("--save", action="store_true", help="write results/durable_cost.json")
    given = parser.parse_args(argv)
    if given.plans <= WARM_UP or given.ticks < 1:
        parser.error(
            f"--plans must be above {WARM_UP}, which are the warm-up, and --ticks above 0; choose more"
        )
    return given


def main() -> int:
    """Measure, print, and save where asked; return 1 where a count is not what was promised."""
    given, code = arguments(), code_hash()
    counts: dict[str, Any] = {}
    world = record(given.plans)
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="durable_cost-") as name:
        files = {variant: str(Path(name) / f"{variant}.sqlite") for variant in (RAW, TAKE)}
        tallies = {"SQLite, WAL, synchronous FULL": measure(world, files, given.seconds)}
        flowed = flow(world, str(Path(name) / "ticks.sqlite"), given.ticks)
    if given.postgres:
        with postgres_server(synced=True) as server:
            urls = {variant: server.new_database() for variant in (RAW, TAKE)}
            tallies["PostgreSQL, fsync on"] = measure(world, urls, given.seconds)
    broken = flowed.broken()
    for where, tally in tallies.items():
        counts[where] = report(where, tally)
        broken += [f"{where}: {one}" for one in tally.broken()]
    print(
        f"\nmemory: {flowed.before_kib:,} KiB before and {flowed.after_kib:,} KiB after {flowed.ticks:,} ticks"
    )
    print(f"        without a plan, in {flowed.seconds:.0f} s, with {flowed.commits} commits")
    counts["ticks"] = {**flowed._asdict(), "seconds": round(flowed.seconds, 1)}
    for one in broken:
        print(f"BROKEN: {one}", file=sys.stderr)
    if given.save and not broken:
        asked = " ".join(word for word in sys.argv[1:] if word != "--save")
        command = f'make benchmark ARGS="{asked}"' if asked else "make benchmark"
        print(f"written: {save(counts, command, code).relative_to(ROOT)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
