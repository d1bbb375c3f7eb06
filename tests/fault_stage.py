"""Where a fault stands: a real engine on a real database, an exchange in another process, and a look at both from outside.

Nothing here asks the engine. What is true is read in the exchange's own books and in the database, opened for reading.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from drill_exchange import KEY, SECRET, Exchange, Process
from gridmm.client_id import instance_of, is_ours
from gridmm.errors import GridmmError
from gridmm.model import unseal
from gridmm.schema import toml_value
from gridmm.v1.state_pb2 import SlotOrder, State
from gridmm.vocabulary import Order, Risk, Trigger
from postgres import Server, postgres_server
from remote_exchange import Control, RemoteExchange, exchange_process

HERE = Path(__file__).parent
SYMBOL = "BTC/USDT:USDT"
INSTANCE = instance_of(SYMBOL)
HAND = "by-hand-1"  # an order of somebody else, that nobody may touch
BOUND_S = 25.0
NEAREST = Decimal("59880.2")  # the buy of cell -1
CONFIG: dict[str, object] = {
    "account.name": "drill",
    "grid.mode": "long",
    "grid.price_interval": "20 bps",
    "grid.interval_mode": "fixed",
    "grid.grid_size": 3,
    "grid.order_notional": "300",
    "grid.max_position": "0.05",
    "grid.skew_factor": "0",
    "execution.query_after": "1 s",
    "execution.backoff": "100 ms",
    "execution.dead_man": "0 s",  # else the exchange mends by itself, after a minute, what nobody has seen
    "risk.rearm": "10 min",
    "risk.atr_spike.limit": "0",
    "stop.timeout": "3 s",
}


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str


@dataclass
class Fault:
    """Something that is wrong.

    Attributes:
        name: Its name.
        runbook: Which runbook an operator would open.
        symptom: What an operator sees first.
        truth: What is true.
        must_hold: What must be true after mending.
        plant: Plants it into a stage.
        harmless: Whether nothing has to be mended: the product did it, or must not touch it.
        by_itself: Why the product mends it before an operator can, where it does.
        killed: Whether it begins with a session that was killed while it held something, and with copies of its database.
        place: `wire` or `postgres`: what the engine trades on, and where its state is.
        why_not: Why nobody can mend it with what the product has, where that is so.
    """

    name: str
    runbook: str
    symptom: str
    truth: str
    must_hold: str
    plant: Callable[[Stage], None]
    harmless: bool = False
    by_itself: str = ""
    killed: bool = False
    place: str = "wire"
    why_not: str = ""
    _seen: Callable[[Stage], None] = lambda stage: None
    _gone: Callable[[Stage], None] = lambda stage: None
    _mend: Callable[[Stage], None] | None = None

    def seen(self, look: Callable[[Stage], None]) -> Callable[[Stage], None]:
        """Take the function that asserts from outside that the fault is there."""
        self._seen = look
        return look

    def gone(self, look: Callable[[Stage], None]) -> Callable[[Stage], None]:
        """Take the function that asserts from outside that it is gone; `Stage.mended` asserts the rest."""
        self._gone = look
        return look

    def seen_in(self, stage: Stage) -> None:
        """Assert that it is there."""
        self._seen(stage)

    @property
    def can_be_mended(self) -> bool:
        """Whether a person can mend it with what the product and the exchange's page have."""
        return self._mend is not None

    def mend(self, act: Callable[[Stage], None]) -> Callable[[Stage], None]:
        """Take the function that mends it as a person would, by the product's commands and the exchange's page."""
        self._mend = act
        return act


@dataclass
class Stage:
    """One planted fault.

    Attributes:
        fault: What was planted.
        folder: Holds everything.
        db: Path or URL of the database.
        config: The configuration.
        exchange: The exchange.
        process: The engine that runs; None where none does.
        truth: The answer: slots, client ids, whatever the fault is about.
        environ: Variables of the engine's environment, keys among them.
    """

    fault: Fault
    folder: Path
    db: str
    config: Path
    exchange: Exchange
    process: subprocess.Popen | None = None
    truth: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    package: Path = HERE.parent
    before: list[str] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)
    last_start: int = 0

    # -- what an operator does

    @property
    def address(self) -> str:
        """Endpoint of the exchange."""
        return self.exchange.endpoint

    @property
    def variables(self) -> dict[str, str]:
        """The environment of whatever is run."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GRIDMM_DRILL")}
        return clean | {"PYTHONPATH": str(self.package), "COLUMNS": "200"} | self.environ

    @property
    def run_command(self) -> list[str]:
        """The line that starts the engine."""
        options = ["--exchange", "binance", "--endpoint", self.address, "--ca", str(self.exchange.ca)]
        return [
            *self.before,
            sys.executable,
            "-m",
            "gridmm",
            "run",
            *options,
            "--config",
            str(self.config),
            "--db",
            self.db,
        ]

    def start(self, *options: str) -> None:
        """Start the engine in its terminal, and return at once."""
        assert self.process is None or self.process.poll() is not None, "one runs already"
        try:
            self.last_start = int(self.state().incarnation)
        except (sqlite3.Error, GridmmError, ValueError):
            self.last_start = 0
        with (self.folder / "terminal").open("ab") as out:
            self.process = subprocess.Popen(
                [*self.run_command, *options], cwd=self.folder, env=self.variables, stdout=out, stderr=out
            )

    def ended(self, seconds: float = 40.0) -> int:
        """Wait for the engine's end, and return its exit code."""
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        self.truth["code"] = code
        return code

    def kill(self) -> None:
        """End the engine without warning."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def terminate(self) -> None:
        """Send SIGTERM."""
        assert self.process is not None
        self.process.terminate()

    def gridmm(self, *words: str, seconds: float = 90.0) -> Done:
        """Run a command, as somebody in another terminal would."""
        done = subprocess.run(
            [sys.executable, "-m", "gridmm", *words], cwd=self.folder, env=self.variables, capture_output=True,
            text=True, timeout=seconds, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout + done.stderr)

    def ask(self, *words: str) -> Done:
        """Ask something of the grid, with a reason."""
        return self.gridmm(*words, "--db", self.db, "--why", "drill")

    def terminal(self) -> str:
        """Return what the engine's terminal shows."""
        path = self.folder / "terminal"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    # -- what is true

    def row(self, query: str, *about: object) -> list[tuple]:
        """Return rows of the database, opened for reading only."""
        path = Path(self.db).absolute().as_uri()
        with closing(sqlite3.connect(f"{path}?mode=ro", uri=True, timeout=0.2)) as db:
            return db.execute(query, about).fetchall()

    def state(self) -> State:
        """Return what was saved last."""
        found = self.row(f"SELECT state FROM gridmm_grids WHERE grid = '{SYMBOL}'")
        if not found or not found[0][0]:
            raise ValueError("nothing of this grid was saved")
        return unseal(found[0][0])

    def fills(self) -> list[tuple[str, str]]:
        """Return (trade, client id) of all trades in the database."""
        return [(str(a), str(b)) for a, b in self.row("SELECT trade_id, client_id FROM gridmm_fills")]

    def orders(self) -> dict[str, SlotOrder]:
        """Return what the state says of orders that have not ended, by client id."""
        state, found = self.state(), dict[str, SlotOrder]()
        for slot in state.slots:
            for one in (slot.open, slot.close):
                if 0 < one.status < Order.TERMINAL:
                    found[one.client_id] = one
        for loose in state.strays:
            if 0 < loose.status < Order.TERMINAL:
                found[loose.client_id] = loose  # type: ignore[assignment]
        return found

    def open_there(self) -> set[str]:
        """Return the client ids of our open orders at the exchange."""
        return {
            one["client_id"] for one in self.exchange.audit()["open"] if is_ours(one["client_id"], INSTANCE)
        }

    def position(self) -> Decimal:
        """Return what the state says that the grid holds, base."""
        return self.instrument_quantity(sum(slot.position_qty for slot in self.state().slots))

    @staticmethod
    def instrument_quantity(lots: int) -> Decimal:
        """Return lots of the drill's market as base."""
        return lots * Decimal("0.001")

    def tripped(self) -> set[str]:
        """Return the triggers that are active."""
        return {Trigger(one.trigger - 1).name for one in self.state().risk.triggers if one.active}

    def differences(self) -> list[str]:
        """Return everything in which books, orders and limits do not agree; empty where all is well."""
        found = []
        try:
            audit, state, orders = self.exchange.audit(), self.state(), self.orders()
            fills = self.fills()
        except (sqlite3.Error, GridmmError, ValueError) as error:
            return [f"the books cannot be read: {error}"]
        found += [f"the exchange's auditor: {one}" for one in audit["violations"]]
        there = {one["client_id"] for one in audit["open"]}
        ours = {one for one in there if is_ours(one, INSTANCE)}
        found += [f"at the exchange and in no slot: {one}" for one in sorted(ours - orders.keys())]
        found += [f"in a slot and not at the exchange: {one}" for one in sorted(orders.keys() - ours)]
        found += [f"its fate is not known: {name}" for name, one in orders.items() if one.status in (1, 2)]
        if self.truth.get("hand", False) and HAND not in there:
            found.append("the order of somebody else was touched")
        since_ms = self.truth.get("fresh_ms", 0)
        told = {
            one["trade_id"]
            for one in audit["fills"]
            if is_ours(one["client_id"], INSTANCE) and one["time_ms"] >= since_ms
        }
        known = [trade for trade, _ in fills]
        if len(known) != len(set(known)):
            found.append("a trade is written down twice")
        found += [f"a trade that was never written down: {one}" for one in sorted(told - set(known))]
        found += [
            f"a trade that the exchange does not have: {one}"
            for one in sorted(
                set(known) - {f["trade_id"] for f in audit["fills"]} - set(self.truth.get("busted", ()))
            )
        ]
        if Decimal(audit["position"]) != self.position():
            found.append(f"the exchange holds {audit['position']}, the state {self.position()}")
        if state.risk.mode != int(Risk.NORMAL) + 1 or self.tripped():
            found.append(f"the grid is not normal: {', '.join(sorted(self.tripped()))}")
        if self.process is not None and state.incarnation <= self.last_start:
            found.append("the engine has saved nothing since its start")
        if self.process is not None and self.process.poll() is not None:
            found.append(f"the engine ended with {self.process.returncode}")
        return found

    def check(self, wait_s: float = BOUND_S) -> None:
        """Assert from outside that the fault is there; it may take some time to show."""
        _insist(lambda: self.fault._seen(self), wait_s)

    def mended(self, wait_s: float = BOUND_S) -> None:
        """Assert from outside that it is gone, and that nothing else was harmed."""

        def look() -> None:
            found = self.differences()
            assert not found, f"{self.fault.name}: {'; '.join(found)}"
            self.fault._gone(self)

        _insist(look, wait_s)

    def mend(self) -> None:
        """Mend it as a person would."""
        assert self.fault._mend is not None, f"{self.fault.name} cannot be mended by what the product has"
        self.fault._mend(self)

    # -- what every stage needs

    def until(self, true: Callable[[], object], seconds: float = BOUND_S, what: str = "") -> None:
        """Wait until something is so."""

        def look() -> None:
            assert true(), f"{what or 'it'} never came: {self.terminal()[-1_500:]}"

        _insist(look, seconds)

    def quiet(self) -> None:
        """Wait until the engine has looked at the exchange a first time after its start, and saved all that it knows."""
        self.until(lambda: len(self.open_there()) >= 3, what="the ladder")
        self.until(
            lambda: self.exchange.audit()["asked"].get("GET /fapi/v1/openOrders", 0) >= 3,
            what="a second look",
        )
        self.until(lambda: not self.differences(), what="agreement")

    def by_hand(self) -> None:
        """Place the order that nobody may touch."""
        self.exchange("place", side=1, price="30000", quantity="0.001", client_id=HAND)
        self.truth["hand"] = True

    def fill_nearest(self) -> None:
        """Let the buy of cell -1 trade."""
        self.exchange("trade", price=str(NEAREST - 1))

    def configure(self, **options: object) -> None:
        """Write the configuration; `grid__mode` is `grid.mode`."""
        values = CONFIG | {name.replace("__", "."): value for name, value in options.items()}
        self.config.write_text("\n".join(f"{key} = {toml_value(value)}" for key, value in values.items()))

    def close(self) -> None:
        """End everything."""
        self.kill()
        for one in reversed(self.undo):
            with suppress(Exception):
                one()
        with suppress(Exception):
            self.exchange.close()


def _insist(look: Callable[[], None], wait_s: float) -> None:
    """Look until it holds, for a while; what it said last is raised."""
    end_s = time.monotonic() + wait_s
    while True:
        try:
            return look()
        except (AssertionError, sqlite3.Error, GridmmError, KeyError, ValueError) as error:
            if time.monotonic() >= end_s:
                raise AssertionError(str(error)) from error
        time.sleep(0.1)


class CannotPlant(Exception):
    """This machine does not let us; says why."""


_MADE = ExitStack()  # what is made once and ends with this process
atexit.register(_MADE.close)


@cache
def exchanges() -> Process:
    """Return the process of exchanges."""
    process = Process()
    _MADE.callback(process.close)
    return process


@cache
def database_server() -> Server:
    """Return a PostgreSQL."""
    return _MADE.enter_context(postgres_server())


@cache
def killed_session() -> Path:
    """Return the folder of a session that was killed: it had bought in one cell, and three orders rest at the exchange.

    Beside its files stand two copies that were made by the book: `older.sqlite` from before the trade, `newest.sqlite`
    from just before the kill.
    """
    folder = Path(_MADE.enter_context(tempfile.TemporaryDirectory(prefix="gridmm-drill-")))
    with opened(Fault("killed", "", "", "", "", lambda stage: None), folder) as s:
        s.start()
        s.quiet()
        s.by_hand()
        back_up(s.db, s.folder / "older.sqlite")
        s.exchange("snapshot", to=str(s.folder / "exchange-older.db"))
        with closing(
            sqlite3.connect(s.db)
        ) as db:  # from here on, what is saved is beside the file, in its -wal
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        s.fill_nearest()
        s.until(lambda: len(s.fills()) == 1 and len(s.open_there()) == 4 and not s.differences())
        back_up(s.db, s.folder / "newest.sqlite")
        s.kill()
    return folder / "killed"


def back_up(db: str, to: Path) -> None:
    """Copy a database while it is written to, as the page says."""
    with closing(sqlite3.connect(db)) as database:
        database.execute("VACUUM INTO ?", (str(to),))


@contextmanager
def opened(fault: Fault, folder: Path) -> Iterator[Stage]:
    """Yield an empty stage: a configuration, an exchange, no engine."""
    place = folder / fault.name
    if fault.killed:
        shutil.copytree(killed_session(), place, ignore=shutil.ignore_patterns("ca*", "terminal"))
    else:
        place.mkdir(parents=True)
    if fault.place == "postgres":
        stage: Stage = ServedStage.made(fault, place)
    else:
        exchange = exchanges().open(place / "exchange")
        stage = Stage(fault, place, str(place / "grid.sqlite"), place / "grid.toml", exchange)
    stage.environ = {"GRIDMM_DRILL_API_KEY": KEY, "GRIDMM_DRILL_API_SECRET": SECRET}
    if fault.killed:
        stage.truth["hand"] = True
    else:
        stage.configure()
    try:
        yield stage
    finally:
        stage.close()


@contextmanager
def staged(fault: Fault, folder: Path) -> Iterator[Stage]:
    """Yield a stage on which a fault stands."""
    with opened(fault, folder) as stage:
        fault.plant(stage)
        yield stage


# -- an engine on PostgreSQL


class Promised:
    """The exchange of `exchange_server`, looked at as the others are."""

    ca = Path()

    def __init__(self, address: str, control: Control) -> None:
        self.endpoint, self.control = address, control

    def __call__(self, what: str, **about: Any) -> Any:
        """Move the market on; nothing else is asked of it here."""
        assert what == "advance", what
        self.control.advance(**about)

    def audit(self) -> dict[str, Any]:
        """Return what the exchange has in its books."""

        async def look() -> tuple[list[Any], list[Any]]:
            client = RemoteExchange(self.endpoint)
            try:
                return await client.open_orders(), await client.fills(0)
            finally:
                await client.close()

        orders, fills = asyncio.run(look())
        audit = self.control.audit()
        return {
            "violations": [one.message for one in audit.violations],
            "open": [{"client_id": one.client_id} for one in orders],
            "fills": [
                {"client_id": f.client_id, "trade_id": f.trade_id, "time_ms": f.time_ms} for f in fills
            ],
            "position": audit.position,
            "orders": audit.orders,
        }

    def close(self) -> None:
        """It ends with its process."""


class ServedStage(Stage):
    """A stage whose state is in PostgreSQL, and whose engine is that of the kill tests."""

    @classmethod
    def made(cls, fault: Fault, folder: Path) -> ServedStage:
        """Make it, with a market that stands still until it is told to move."""
        stack = ExitStack()
        config = HERE / "configs" / "demo_fast.toml"
        about = ("--demo", "1", "--today", "--config", config)
        address, control = stack.enter_context(exchange_process(*about))
        control.advance(20)
        server = database_server()
        server.start()
        url = server.new_database()
        stage = cls(fault, folder, url, config, Promised(address, control))  # type: ignore[arg-type]
        stage.undo = [lambda: server.drop_database(url), stack.close, server.start]
        return stage

    @property
    def run_command(self) -> list[str]:
        """The line that starts the engine."""
        command = [
            sys.executable,
            str(HERE / "durable_child.py"),
            "--db",
            self.db,
            "--exchange",
            self.address,
        ]
        return [*command, "--config", str(self.config), "--send-ms", "400"]

    @property
    def variables(self) -> dict[str, str]:
        """The environment of whatever is run."""
        return super().variables | {"PYTHONPATH": os.pathsep.join((str(HERE), str(self.package)))}

    def configure(self, **options: object) -> None:
        """The configuration is the one of the kill tests."""

    def row(self, query: str, *about: object) -> list[tuple]:
        """Return rows of the database, opened for reading only."""
        import psycopg

        address = self.db.replace("+psycopg", "")
        with psycopg.connect(address, connect_timeout=2, options="-c default_transaction_read_only=on") as db:
            try:
                return db.execute(query.encode()).fetchall()
            except psycopg.Error as error:
                raise ValueError(str(error)) from error

    def state(self) -> State:
        """Return what was saved last."""
        import psycopg

        try:
            ((data,),) = self.row("SELECT state FROM gridmm_grids")
        except psycopg.Error as error:
            raise ValueError(str(error).splitlines()[0]) from error
        return unseal(bytes(data))
