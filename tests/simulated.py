"""One invented world around the Durable engine, drawn from a seed: network, database, clocks, operators, accidents.

The engine in it is the product, whole: `endure`, `DurableEngine.run`, its session and its reconciliation. What it
trades on is the paper exchange. Between the two stand a `Link` for each start of the engine, which loses, delays,
doubles and refuses, and a `Disk`, which fails, is slow, or saves without saying so. `World` lets time pass, breaks
things, and holds every event against the rules that must never be broken.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any

import numpy as np

from exchange_audit import Auditor
from gridmm.client_id import decode, is_ours
from gridmm.commands import Ask, Request
from gridmm.config import Config, load
from gridmm.desk import Receipt, holdings
from gridmm.engine import Orders, Session
from gridmm.engine_durable import SEND_MS, DurableEngine, endure
from gridmm.errors import ExchangeUnreachable, Fenced, StoreUnreachable
from gridmm.exchange import (
    Absent,
    Accepted,
    Balance,
    Fill,
    Funding,
    NotSent,
    OrderReport,
    OrderRequest,
    Outcome,
    Position,
    Rejected,
    RejectReason,
    StreamEvent,
    Unknown,
    UtcClock,
)
from gridmm.exchange_paper import PaperExchange
from gridmm.feed import Candle, Price
from gridmm.layout import CLOSE, OPEN, Book, Col, Command, Ev, Hole, Kind, Leg, Par, Var
from gridmm.paper_account import Row
from gridmm.parameters import instrument_of
from gridmm.pnl import residual
from gridmm.run import open_session, paper_rules
from gridmm.slots import exposure, live, position
from gridmm.step import advance, copy_core
from gridmm.store import Answer, FillRow, MemoryStore
from gridmm.units import Instrument
from gridmm.v1.decision_pb2 import DecisionRecord
from gridmm.v1.state_pb2 import State
from gridmm.vocabulary import Reason, Report, Risk, Stop, Trigger, Trip
from gridmm.words import price_event
from virtual_time import VirtualLoop

START_MS = 1_700_000_000_000
TIMEOUT_S = 1.0  # of a call, in the engine's process
NETWORK_MS = 1_500  # the slowest way of a request that is not lost
ABSENT_MS = 2_000  # what the exchange promises: NETWORK_MS, and some room
CALM_S = 120.0  # with the faults over, the grid must be whole again within
HEARD_S = 15.0  # with the faults over, one start has heard of every fill within
PRICE = 10_000  # ticks


class Fault(StrEnum):
    """What can go wrong. Each has a chance of its own, so that leaving one out does not change the others."""

    ANSWER_LOST = "answer_lost"  # all was done, and nobody is told
    REQUEST_LOST = "request_lost"  # nothing was done, and nobody is told
    REFUSED = "refused"  # the connection could not be opened: not sent
    SLOW = "slow"  # request and answer take their time
    RATE_LIMIT = "rate_limit"
    FUNDS = "funds"
    DUPLICATE = "duplicate"  # the stream says it twice
    REORDER = "reorder"  # the stream says it later than what came after
    RACE = "race"  # a partial fill just before a cancel arrives
    CUT = "cut"  # both streams end
    DOWN = "down"  # the exchange answers nothing for a while
    CLOCK = "clock"  # the machine's clock is set
    STORE_DOWN = "store_down"
    STORE_SLOW = "store_slow"
    COMMIT_LOST = "commit_lost"  # saved, and the answer is lost
    CRASH = "crash"  # at any await, before a save, after a save
    PAUSE = "pause"  # the owner stands still, another start takes over, the first one goes on
    COMMAND = "command"  # an operator asks for something
    FOREIGN = "foreign"  # somebody else has an order in the same account


RATES = {
    Fault.ANSWER_LOST: 0.06, Fault.REQUEST_LOST: 0.06, Fault.REFUSED: 0.05, Fault.SLOW: 0.15, Fault.RATE_LIMIT: 0.04,
    Fault.FUNDS: 0.03, Fault.DUPLICATE: 0.2, Fault.REORDER: 0.2, Fault.RACE: 0.3, Fault.CUT: 0.03, Fault.DOWN: 0.02,
    Fault.CLOCK: 0.02, Fault.STORE_DOWN: 0.015, Fault.STORE_SLOW: 0.05, Fault.COMMIT_LOST: 0.02, Fault.CRASH: 0.03,
    Fault.PAUSE: 0.025, Fault.COMMAND: 0.04, Fault.FOREIGN: 0.02,
}  # fmt: skip

MARKETS: tuple[dict[str, object], ...] = (
    {"grid.mode": "neutral", "grid.flip_dwell": "1 s"},
    {"grid.mode": "long"},
    {"grid.mode": "short", "grid.skew_factor": "0"},
    {"grid.mode": "long", "instrument.market": "spot", "instrument.symbol": "SIM/USDT"},
    {
        "grid.mode": "long",
        "instrument.market": "spot",
        "instrument.symbol": "SIM/USDT",
        "instrument.lot": "0.00001",
        "instrument.min_quantity": "0.00001",
        "paper.fee_asset": "base",
        "paper.base": "0.02",
        "grid.seed": "0.02",
    },
    {
        "grid.mode": "neutral",
        "grid.interval_mode": "atr",
        "grid.interval_cap": "8",
        "atr.length": "2",
        "atr.reference": "2",
        "atr.dwell": "2 s",
        "atr.change_pct": "20",
        "grid.flip_dwell": "1 s",
        "risk.atr_spike.limit": "0",
    },
)
COMMON: dict[str, object] = {
    "grid.price_interval": "20 bps",
    "grid.interval_mode": "fixed",
    "grid.grid_size": "3",
    "grid.order_notional": "20",
    "grid.max_position": "0.1",
    "instrument.symbol": "SIM/USDT:USDT",
    "instrument.tick": "0.1",
    "instrument.lot": "0.001",
    "execution.query_after": "1 s",
    "execution.backoff": "200 ms",
    "execution.backoff_max": "3 s",
    "execution.reprice_dwell": "1 s",
    "execution.actions_per_second": "20",
    "risk.rearm": "1 s",
    "risk.window": "10 s",
    "risk.clock_skew.limit": "0 s",
}
# Why a cell of a grid that is whole may be without an opening order.
CALM_HOLES = {
    Reason.OUTSIDE, Reason.SKEW, Reason.TREND, Reason.PRICE_BOUNDS, Reason.SIDE, Reason.NOTIONAL, Reason.OCCUPIED,
    Reason.CAP, Reason.TOUCHED, Reason.WOULD_CROSS, Reason.SELF_CROSS, Reason.CAP_WAIT, Reason.FUNDS,
}  # fmt: skip
# What an exchange that forgets nothing and invents nothing never gives a reason for.
FALSE_ALARMS = (
    Trigger.MISMATCH, Trigger.STRAY_ORDER, Trigger.LATE_FILL, Trigger.ABSENT_ORDER, Trigger.RESIDUAL
)  # fmt: skip
CALM_CLOSES = {Reason.NONE, Reason.DUST, Reason.FEE_DUST, Reason.PARKED, Reason.SELF_CROSS}


@cache
def config_of(market: int) -> Config:
    """Return the configuration of a kind of market."""
    options = {name: (value, "world") for name, value in (COMMON | MARKETS[market]).items()}
    return load(None, environ={}, options=options)


class Killed(BaseException):
    """The process is gone: not an error that anything in it could handle."""


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


def now_or_never(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise AssertionError("the paper exchange was to answer at once, and it waits")


@dataclass
class Mutant:
    """What of the product is replaced, to see whether a world notices.

    Attributes:
        opened: Changes a session as it is opened.
        engine: The engine.
    """

    opened: Callable[[Session], None] = lambda session: None
    engine: type[DurableEngine] = DurableEngine


@dataclass
class Life:
    """One process: from its start to its end, however that comes.

    Attributes:
        skew_ms: Its machine's clock less true time.
        frozen: Whether it stands still; what it would have done is in `held`.
        steps_left: Callbacks until it is killed.
    """

    world: World
    number: int
    skew_ms: int
    context: Context = field(default_factory=Context)
    frozen: bool = False
    dead: bool = False
    held: deque[Any] = field(default_factory=deque)
    steps_left: int | None = None
    incarnation: int = 0
    task: asyncio.Task[Receipt] | None = None
    engine: DurableEngine | None = None
    session: Session | None = None

    def __post_init__(self) -> None:
        self.link, self.disk = Link(self), Disk(self)
        world = self.world
        # a machine that stands still sleeps: no clock of its own tells
        self.clock_ms = UtcClock(lambda: world.now_ms + self.skew_ms, lambda: world.now_ms)

    def begin(self) -> DurableEngine:
        """Take ownership, load, and put an engine together, as a host does."""
        world = self.world
        session, _ = open_session(world.config, PRICE, self.disk, owner=f"life {self.number}")  # type: ignore[arg-type]
        world.mutant.opened(session)
        self._listen_in(session)
        self.session, self.incarnation = session, session.meta.incarnation
        self.engine = world.mutant.engine(session, self.link, self.prices, Desk(self), self.clock_ms)  # type: ignore[arg-type]
        world.note(
            f"life {self.number} owns the grid as start {self.incarnation}, version {session.meta.version}"
        )
        return self.engine

    def _listen_in(self, session: Session) -> None:
        """Write into the trace what the session is told of its orders."""
        take = session.take

        def heard(
            ev: np.ndarray, client_id: str = "", exchange_id: str = "", trade: Fill | None = None
        ) -> Orders:
            if ev[Ev.KIND] == Kind.ORDER:
                cum = f", {ev[Ev.CUM]} lots" if ev[Ev.CUM] >= 0 else ""
                self.world.note(
                    f"life {self.number} hears of {ev[Ev.SEQ]}: {Report(ev[Ev.REPORT]).name}{cum}"
                )
            elif ev[Ev.KIND] == Kind.COMMAND and not ev[Ev.QUIET]:
                self.world.note(f"life {self.number} obeys {Command(ev[Ev.CODE]).name} {ev[Ev.ARG]}")
            return take(ev, client_id, exchange_id, trade)

        session.take = heard  # type: ignore[method-assign]

    def say(self, line: str) -> None:
        """Write down what is said to people."""
        self.world.note(f"life {self.number} says: {line}")

    async def live(self) -> Receipt:
        """Run to the end."""
        return await endure(self.begin, self.say)

    async def prices(self) -> AsyncIterator[Price]:
        """Yield prices."""
        async for price in self.link.listen("prices"):
            yield price

    def alive(self) -> None:
        """Go on only where this process still is."""
        if self.dead:
            raise Killed


class Desk:
    """The operators' commands, as one life reads them."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def waiting(self, grid: str, now_ms: int) -> list[Request]:
        """Return the commands to carry out now."""
        life, world = self._life, self._life.world
        life.alive()
        world.database(life)
        return [
            one for one in world.requests if one.id not in world.disk.answers and one.expires_ms >= now_ms
        ]


class Disk:
    """The store, as one life reaches it."""

    grid = "sim"

    def __init__(self, life: Life) -> None:
        self._life, self.symbol, self.left_cleanly = life, life.world.instrument.symbol, True

    def acquire(self, owner: str = "", least: int = 1) -> int:
        """Take ownership."""
        world = self._reached()
        token = world.disk.acquire(owner, least)
        self.left_cleanly = world.disk.left_cleanly
        return token

    def load(self) -> State | None:
        """Return the saved state."""
        return self._reached().disk.load()

    def release(self) -> None:
        """Give the grid back, if it is still ours."""
        world = self._reached()
        if world.owner == self._life.incarnation:
            world.disk.release()
            world.stopping = Stop.RUN

    def save(
        self,
        state: State,
        decision: DecisionRecord | None = None,
        answers: Sequence[Answer] = (),
        fills: Sequence[FillRow] = (),
    ) -> None:
        """Save, if nothing goes wrong."""
        life, world = self._life, self._reached()
        slow = (
            [world.luck[Fault.STORE_SLOW].uniform(0, 2.5) for _ in (0, 1)]
            if world.strikes(Fault.STORE_SLOW)
            else [0, 0]
        )
        world.loop.now_s += slow[0]
        if world.strikes(Fault.CRASH, 0.02):
            world.kill(life, "before a save")
            raise Killed
        world.disk.save(state, decision, answers, fills)
        world.saved(life, state)
        world.loop.now_s += slow[1]
        if world.strikes(Fault.CRASH, 0.02):
            world.kill(life, "after a save")
            raise Killed
        if world.strikes(Fault.COMMIT_LOST):
            world.note(f"life {life.number}: version {state.version} is saved, the answer is lost")
            raise StoreUnreachable("the database does not answer", "its answer was lost", "Try again")

    def decisions(self, first: int = 1, last: int | None = None) -> Any:
        """Yield decisions."""
        return self._reached().disk.decisions(first, last)

    def close(self) -> None:
        """Do nothing."""

    def _reached(self) -> World:
        """Return the world, if this process is there and the database is."""
        self._life.alive()
        self._life.world.database(self._life)
        return self._life.world


@dataclass(eq=False)
class Line:
    """One open stream."""

    kind: str
    life: Life
    queue: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    last_s: float = 0.0
    cut: bool = False

    def bring(self, said: Any) -> None:
        """Let something arrive."""
        if not self.cut:
            self.queue.put_nowait(said)


class Link:
    """The exchange, as one life reaches it: the promise of `gridmm.exchange.Exchange` over a bad network."""

    name = "simulated"
    absent_after_ms = ABSENT_MS

    def __init__(self, life: Life) -> None:
        self._life, self._world = life, life.world
        self.waiting: set[asyncio.Future[Any]] = set()

    async def instruments(self) -> list[Instrument]:
        """Return the market."""
        return [self._world.instrument]

    async def place(self, requests: Sequence[OrderRequest], deadline_ms: int | None = None) -> list[Outcome]:
        """Place orders, each in a call of its own."""
        calls = (self._place(one, deadline_ms) for one in requests)
        return [outcome for outcomes in await asyncio.gather(*calls) for outcome in outcomes]

    async def _place(self, request: OrderRequest, deadline_ms: int | None) -> list[Outcome]:
        world = self._world
        refused = (Fault.RATE_LIMIT, RejectReason.RATE_LIMIT), (Fault.FUNDS, RejectReason.FUNDS)
        for fault, reason in refused:
            if world.strikes(fault):
                said: list[Outcome] = [Rejected(request.client_id, reason)]
                return await self._command(request.client_id, said.copy, deadline_ms)
        return await self._command(request.client_id, lambda: world.placed(self._life, request), deadline_ms)

    async def cancel(self, client_ids: Sequence[str]) -> list[Outcome]:
        """Cancel orders, each in a call of its own."""
        calls = (self._cancel(one) for one in client_ids)
        return [outcome for outcomes in await asyncio.gather(*calls) for outcome in outcomes]

    async def _cancel(self, client_id: str) -> list[Outcome]:
        world = self._world
        if world.strikes(Fault.RATE_LIMIT):
            return await self._command(client_id, lambda: [Rejected(client_id, RejectReason.RATE_LIMIT)])
        return await self._command(client_id, lambda: world.cancelled(client_id))

    async def cancel_all(self) -> list[Outcome]:
        """Cancel everything, which no engine may do: others trade in this account too."""
        raise AssertionError("an engine cancelled orders that are not its own")

    async def order(self, client_id: str) -> OrderReport | Absent:
        """Return one order."""
        return await self._query(lambda: now_or_never(self._world.paper.order(client_id)))

    async def open_orders(self) -> list[OrderReport]:
        """Return open orders."""
        return await self._query(lambda: now_or_never(self._world.paper.open_orders()))

    async def fills(self, since_ms: int) -> list[Fill]:
        """Return trades."""
        return await self._query(lambda: now_or_never(self._world.paper.fills(since_ms)))

    async def fundings(self, since_ms: int) -> list[Funding]:
        """Return funding payments."""
        return await self._query(lambda: now_or_never(self._world.paper.fundings(since_ms)))

    async def balances(self) -> list[Balance]:
        """Return what the account holds."""
        return await self._query(lambda: now_or_never(self._world.paper.balances()))

    async def positions(self) -> list[Position]:
        """Return positions."""
        return await self._query(lambda: now_or_never(self._world.paper.positions()))

    async def stream(self) -> AsyncIterator[StreamEvent]:
        """Yield what happens to orders."""
        async for said in self.listen("orders"):
            yield said

    async def close(self) -> None:
        """Do nothing."""

    async def listen(self, kind: str) -> AsyncIterator[Any]:
        """Yield what comes over one stream until it is cut."""
        world = self._world
        await asyncio.sleep(world.way_s())
        self._life.alive()
        if world.down:
            raise ExchangeUnreachable(f"the stream {kind} was refused", "nobody listens", "Try again")
        line = Line(kind, self._life)
        world.lines.append(line)
        try:
            while (said := await line.queue.get()) is not None:
                yield said
        finally:
            line.cut = True
            if line in world.lines:
                world.lines.remove(line)
        raise ExchangeUnreachable(f"the stream {kind} was lost", "it was cut", "Try again")

    async def _command(
        self, client_id: str, work: Callable[[], list[Outcome]], deadline_ms: int | None = None
    ) -> list[Outcome]:
        """Send a command and say honestly what came of it."""
        world, life = self._world, self._life
        await asyncio.sleep(world.network.uniform(0, 0.004))  # signing
        life.alive()
        if deadline_ms is not None and life.clock_ms() > deadline_ms:
            world.note(f"life {life.number} does not send {world.short(client_id)}: too late")
            return [NotSent(client_id, "its deadline has passed")]
        if world.down or world.strikes(Fault.REFUSED):
            return [NotSent(client_id, "no connection")]
        if deadline_ms is not None:
            world.leaves(life, client_id)
        try:
            return await self._ask(work)
        except TimeoutError:
            return [Unknown(client_id, "no answer")]

    async def _query(self, work: Callable[[], Any]) -> Any:
        """Ask, or say that there is no answer."""
        self._life.alive()
        if not self._world.down and not self._world.strikes(Fault.REFUSED):
            try:
                return await self._ask(work)
            except TimeoutError:
                pass
        raise ExchangeUnreachable("a question was not answered", "no answer in time", "Try again")

    async def _ask(self, work: Callable[[], Any]) -> Any:
        """Send, and wait for the answer."""
        world = self._world
        answer: asyncio.Future[Any] = world.loop.create_future()
        self.waiting.add(answer)
        if not world.strikes(Fault.REQUEST_LOST):
            world.later(world.way_s(), self._arrive, work, answer)
        world.later(TIMEOUT_S, self._end, answer, TimeoutError)
        try:
            return await answer
        finally:
            self.waiting.discard(answer)

    def _arrive(self, work: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        """Let a request arrive at the exchange."""
        world = self._world
        if world.down or world.over:
            return
        world.pass_time()
        said = work()
        world.look()
        if not world.strikes(Fault.ANSWER_LOST):
            world.later(world.way_s(), self._say, answer, said)

    def _say(self, answer: asyncio.Future[Any], said: Any) -> None:
        if not answer.done():
            answer.set_result(said)

    def _end(self, answer: asyncio.Future[Any], error: type[BaseException]) -> None:
        if not answer.done():
            answer.set_exception(error())

    def die(self) -> None:
        """End every call of a process that is gone."""
        for answer in list(self.waiting):
            self._end(answer, Killed)


class OurAuditor(Auditor):
    """Looks at the orders of the grid alone: others may trade in the same account."""

    async def check(self) -> None:
        """Check the rules; see `Auditor.check`."""
        if self.paper.ledger.commits == self._commits:
            return
        self._commits, self.checks = self.paper.ledger.commits, self.checks + 1
        ours = [order for order in await self.paper.open_orders() if order.client_id.startswith("GM")]
        self._lasting = self._two_live(ours) | self._exposure(ours)


class Broken(Exception):
    """A rule was broken; the world ends."""


class World:
    """Everything around the engine, and the judge of it.

    Attributes:
        seed: What it is drawn from.
        moments: Price moves until the faults end.
        faults: What may go wrong.
        trace: (seconds, what happened), newest last.
        broken: (rule, message) of the first rule that was broken; None while none is.
        struck: How often each fault struck.
    """

    def __init__(
        self,
        seed: int,
        moments: int | None = None,
        faults: Sequence[Fault] | None = None,
        mutant: Mutant | None = None,
    ) -> None:
        draw = random.Random(f"world {seed}")
        self.seed, self.mutant = seed, mutant or Mutant()
        drawn = draw.randint(60, 160)
        self.moments = drawn if moments is None else moments
        self.config = config_of(draw.randrange(len(MARKETS)))
        self.luck = {fault: random.Random(f"{seed} {fault}") for fault in Fault}
        allowed = set(Fault) if faults is None else set(faults)
        self.rates = {
            fault: rate * self.luck[fault].choice((0, 0.5, 1, 1, 2)) * (fault in allowed)
            for fault, rate in RATES.items()
        }
        self.network, self.market = random.Random(f"{seed} network"), random.Random(f"{seed} market")
        self.instrument = instrument_of(self.config.settings)
        self.loop = VirtualLoop()
        self.loop.admits = self._admits
        self.loop.set_exception_handler(lambda loop, context: None)
        self.paper = PaperExchange(self.instrument, paper_rules(self.config), None, synchronous="OFF")
        self.disk = MemoryStore(self.instrument.symbol, "sim")
        self.auditor = OurAuditor(self.paper)
        self.lines: list[Line] = []
        self.lives: list[Life] = []
        self.requests: list[Request] = []
        self.receipts: list[Receipt] = []
        self.committed: dict[str, int] = {}  # client id to when it was saved first, world time
        self.foreign: list[str] = []
        self.calm = self.over = False
        self.down, self.store_down_s = False, 0.0
        self.stopping = Stop.RUN  # what was saved and is not finished
        self.mid, self.spread = PRICE, 1
        self.broken: tuple[str, str] | None = None
        self.trace: deque[tuple[float, str]] = deque(maxlen=4_000)
        self.struck: Counter[str] = Counter()
        self.healed_s, self._asked = 0.0, 0
        self._par: np.ndarray | None = None

    # -- running

    def run(self) -> World:
        """Let this world be from its beginning to its end."""
        main = self.loop.create_task(self._play())
        main.add_done_callback(lambda _: self.loop.stop())
        try:
            self.loop.run_forever()
            if self.broken is None and main.done() and not main.cancelled() and main.exception() is not None:
                raise main.exception()  # type: ignore[misc]
        except Broken:
            pass
        finally:
            self.over = True
            self._bury()
        return self

    def _bury(self) -> None:
        """End everything that is still there."""
        self.loop.admits = lambda handle: True
        for life in self.lives:
            life.dead = True
            life.link.die()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for _ in range(6):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.paper.ledger.close()

    async def _play(self) -> None:
        self.quote()
        self.start()
        for number in range(self.moments):
            await asyncio.sleep(self.market.choice((0.05, 0.2, 0.5, 1.0)))
            self._moment(number)
        await self._become_whole()
        await self._stop()

    def note(self, text: str) -> None:
        """Write something into the trace."""
        self.trace.append((self.loop.now_s, text))

    def short(self, client_id: str) -> str:
        """Return a client id as people can compare it: the part that differs."""
        if not is_ours(client_id):
            return client_id
        at = decode(client_id)
        return f"{at.sequence} ({'close' if at.leg else 'open'} of cell {at.epoch}/{at.cell})"

    def fail(self, rule: str, message: str) -> None:
        """Note the first rule that was broken, and end this world."""
        if self.broken is None:
            self.broken = (rule, message)
            self.note(f"BROKEN {rule}: {message}")
            self.loop.stop()

    @property
    def now_ms(self) -> int:
        """True time."""
        return START_MS + int(self.loop.now_s * 1_000)

    @property
    def owner(self) -> int:
        """The start that owns the grid."""
        return self.disk._incarnation

    def later(self, delay_s: float, call: Callable[..., None], *values: Any) -> None:
        """Let something happen outside of any process."""
        self.loop.call_later(delay_s, call, *values, context=Context())

    def strikes(self, fault: Fault, rate: float | None = None) -> bool:
        """Return whether something goes wrong now, and count it."""
        if self.calm or self.rates[fault] == 0:
            return False
        hit = self.luck[fault].random() < (self.rates[fault] if rate is None else rate)
        self.struck[fault] += hit
        return hit

    def way_s(self) -> float:
        """Return how long a message takes one way."""
        if self.strikes(Fault.SLOW):
            return self.luck[Fault.SLOW].uniform(0.1, NETWORK_MS / 1_000)
        return self.network.uniform(0.001, 0.03)

    # -- processes

    def start(self) -> None:
        """Start a process, unless one is at work."""
        if self.over or any(not (life.dead or life.frozen) for life in self.lives):
            return
        self.launch()

    def launch(self) -> None:
        """Start a process."""
        skew = self.luck[Fault.CLOCK].randint(-300, 300) if self.rates[Fault.CLOCK] else 0
        life = Life(self, len(self.lives) + 1, skew)
        self.lives.append(life)
        life.context.run(LIFE.set, life)
        life.task = self.loop.create_task(life.live(), context=life.context)
        life.task.add_done_callback(lambda task: self._ended(life, task), context=Context())

    def _ended(self, life: Life, task: asyncio.Task[Receipt]) -> None:
        """Look at how a process ended, and start the next one after a while."""
        killed, life.dead = life.dead, True
        for line in [line for line in self.lines if line.life is life]:
            self.lines.remove(line)
        if self.over:
            return
        error = None if task.cancelled() else task.exception()
        if not killed and error is not None:
            self.note(f"life {life.number} ends: {error}")
            if isinstance(error, Fenced) and life.incarnation == self.owner:
                self.fail("fenced", f"life {life.number} owns the grid and was fenced off: {error}")
            elif isinstance(error, ExchangeUnreachable) and "since the stop" in str(error):
                pass  # a stop does not wait for ever; the next start finishes it
            elif not isinstance(error, Fenced | StoreUnreachable):
                self.fail("no crash", f"life {life.number} ended with {type(error).__name__}: {error}")
        elif not killed and not task.cancelled():
            self.receipts.append(task.result())
            self.note(f"life {life.number} stopped: {task.result().open_orders} orders are left")
        self.later(self.network.uniform(0.1, 3.0), self.start)

    def kill(self, life: Life, when: str) -> None:
        """Kill a process."""
        if life.dead:
            return
        self.note(f"life {life.number} is killed {when}")
        life.dead, life.frozen = True, False
        for handle in life.held:
            self.loop.again(handle)
        life.held.clear()
        life.link.die()
        if life.task is not None:
            life.task.cancel()

    def _admits(self, handle: Any) -> bool:
        """Hold back what a frozen process would do, and count down to a crash."""
        life = handle._context.get(LIFE)
        if life is None:
            return True
        if life.frozen:
            life.held.append(handle)
            return False
        if life.steps_left is not None and not life.dead:
            life.steps_left -= 1
            if life.steps_left < 0:
                self.struck[Fault.CRASH] += 1
                self.kill(life, "at an await")
        return True

    def _thaw(self, life: Life) -> None:
        """Let a frozen process go on."""
        if life.frozen and not life.dead:
            self.note(f"life {life.number} goes on")
            life.frozen = False
            for handle in life.held:
                self.loop.again(handle)
            life.held.clear()

    def database(self, life: Life) -> None:
        """Raise where the database does not answer."""
        if self.loop.now_s < self.store_down_s:
            raise StoreUnreachable("the database does not answer", "it is down", "Try again")

    # -- accidents that belong to a moment

    def _moment(self, number: int) -> None:
        """Let the market move once, and perhaps something else happen."""
        self._move()
        luck, life = self.luck, next((one for one in reversed(self.lives) if not one.dead), None)
        if self.strikes(Fault.CUT):
            self.later(luck[Fault.CUT].uniform(0, 0.3), self._cut)
        if self.strikes(Fault.DOWN):
            self._go_down(luck[Fault.DOWN].uniform(0.3, 9.0))
        if self.strikes(Fault.STORE_DOWN):
            self.store_down_s = self.loop.now_s + luck[Fault.STORE_DOWN].uniform(0.1, 6.0)
            self.note("the database is down")
        if self.strikes(Fault.FOREIGN):
            self._somebody_else()
        if self.strikes(Fault.COMMAND):
            self._ask_something()
        if life is None or life.frozen:
            return
        if self.strikes(Fault.CLOCK):
            wrong = luck[Fault.CLOCK].choice((-15_000, -3_000, -700, 0, 700, 3_000, 15_000))
            jump, life.skew_ms = wrong - life.skew_ms, wrong
            self.note(f"the clock of life {life.number} is set by {jump} ms")
        if self.strikes(Fault.CRASH) and life.steps_left is None:
            self.struck[Fault.CRASH] -= 1  # counted when it comes
            life.steps_left = luck[Fault.CRASH].randrange(80)
        if self.strikes(Fault.PAUSE):
            life.frozen = True
            self.note(f"life {life.number} stands still")
            self.later(luck[Fault.PAUSE].uniform(0, 1.5), self.start)
            self.later(luck[Fault.PAUSE].choice((0.5, 2.5, 6.0, 12.0)), self._thaw, life)

    def _cut(self) -> None:
        """End all streams; what is on its way is lost."""
        self.note("the streams are cut")
        for line in self.lines:
            line.cut = True
            line.queue.put_nowait(None)
        self.lines.clear()

    def _go_down(self, seconds: float) -> None:
        """Take the exchange from the network."""
        self.note(f"the exchange is down for {seconds:.1f} s")
        self.down = True
        self._cut()
        self.later(seconds, self._come_back)

    def _come_back(self) -> None:
        self.down = False
        self.note("the exchange is back")

    def _somebody_else(self) -> None:
        """Place an order of somebody else, far from the market, where it touches nobody."""
        self.pass_time()
        luck = self.luck[Fault.FOREIGN]
        client_id = f"SOMEBODY{len(self.foreign)}"
        price = self.instrument.price(PRICE // 2 - len(self.foreign))
        request = OrderRequest(client_id, 1, price, self.instrument.lot * 20 * luck.randint(1, 3))
        if isinstance(now_or_never(self.paper.place([request]))[0], Accepted):
            self.foreign.append(client_id)
        self.look()

    def ask(self, kind: Ask, argument: str, delay_s: float = 0.0) -> None:
        """Send a command as an operator does."""
        self._asked += 1
        number = f"command {self._asked}"
        sent = self.now_ms + int(delay_s * 1_000)
        request = Request(
            number, "sim", kind, argument, "operator", "as the world wants", sent, sent + 60_000
        )
        self.later(delay_s, self.requests.append, request)
        self.note(f"an operator asks for {kind} {argument} in {delay_s:.1f} s")

    def _ask_something(self) -> None:
        luck = self.luck[Fault.COMMAND]
        kind = luck.choice((Ask.PAUSE, Ask.PAUSE, Ask.RESET_RISK, Ask.RESET_RISK, Ask.STOP))
        if kind == Ask.STOP:
            self.ask(kind, luck.choice(("cancel", "flatten", "drain")))
        elif kind == Ask.PAUSE:
            self.ask(kind, "")
            self.ask(Ask.RESET_RISK, "all", luck.uniform(0.5, 6.0))
        else:
            self.ask(kind, "all")

    # -- the exchange

    def pass_time(self) -> None:
        """Let the exchange know the time."""
        if self.paper.now_ms < self.now_ms:
            self.paper.advance(Row.TIME, self.now_ms)

    def _move(self) -> None:
        """Let the market move, and trade in part at our best orders."""
        draw = self.market
        self.pass_time()
        if draw.random() < 0.3:
            self._trade_near(draw.choice((1, -1)), draw.randint(1, 15))
        gap = draw.random() < 0.04
        self.mid = max(9_000, min(11_000, self.mid + draw.randint(-9, 9) * (8 if gap else 1)))
        self.spread = draw.randint(1, 3)
        if draw.random() < 0.02:
            self.paper.advance(Row.FUNDING, self.now_ms, draw.randint(-9_000, 9_000), self.mid)
        self.quote()

    def quote(self, *, candle: bool | None = None) -> None:
        """Show the touch to everybody."""
        self.paper.advance(Row.QUOTE, self.now_ms, self.mid, self.mid + self.spread)
        self.look()
        candles: tuple[Candle, ...] = ()
        if self.market.random() < 0.08 if candle is None else candle:
            span = self.market.randint(2, 60)
            candles = (Candle(self.now_ms, self.mid, self.mid + span, self.mid - span, self.mid, 100),)
        price = Price(self.mid, self.mid + self.spread, self.mid, candles=candles)
        for line in self.lines:
            if line.kind == "prices":
                self.later(self.network.uniform(0.001, 0.02), line.bring, price)

    def _trade_near(self, side: int, lots: int, near: int = 15) -> None:
        """Print a trade at our best order of a side, if it is near."""
        self.pass_time()
        ours = [one for one in self.paper._live.values() if one.status == "open" and one.side == side]
        if not ours:
            return
        best = max(ours, key=lambda one: side * one.price)
        ticks = self.instrument.price_ticks(best.price)
        if abs(ticks - self.mid) <= near:
            self.paper.advance(Row.TRADE, self.now_ms, ticks, lots, -side)
            self.look()

    def placed(self, life: Life, request: OrderRequest) -> list[Outcome]:
        """Carry out a placement."""
        outcomes: list[Outcome] = now_or_never(self.paper.place([request]))
        said = outcomes[0]
        word = "accepted" if isinstance(said, Accepted) else getattr(said, "reason", "")
        self.note(
            f"exchange: place {self.short(request.client_id)} of life {life.number} {request.side:+d} "
            f"{request.quantity} at {request.price}: {word}"
        )
        return outcomes

    def cancelled(self, client_id: str) -> list[Outcome]:
        """Carry out a cancel, perhaps just after a trade."""
        if self.strikes(Fault.RACE):
            entry = self.paper._live.get(self.paper._keys.get(client_id, 0))
            if entry is not None and entry.status == "open":
                ticks, lots = self.instrument.price_ticks(entry.price), self.luck[Fault.RACE].randint(1, 25)
                if abs(ticks - self.mid) <= 60:
                    self.paper.advance(Row.TRADE, self.now_ms, ticks, lots, -entry.side)
                    self.look()
        outcomes: list[Outcome] = now_or_never(self.paper.cancel([client_id]))
        self.note(f"exchange: cancel {self.short(client_id)}: {type(outcomes[0]).__name__}")
        return outcomes

    def look(self) -> None:
        """Say what the exchange has to say, and let the auditor look at it."""
        for said in self.paper.drain():
            self._publish(said)
        now_or_never(self.auditor.check())
        found = self.auditor.violations() if self.auditor._found else []
        if found:
            self.fail(found[0].rule, found[0].message + " " + " ".join(map(self.short, found[0].client_ids)))

    def _publish(self, said: StreamEvent) -> None:
        """Send an event over every stream of orders, as the faults will have it."""
        if isinstance(said, Fill):
            self.note(f"exchange: {said.quantity} of {self.short(said.client_id)} trade at {said.price}")
        for line in self.lines:
            if line.kind != "orders":
                continue
            for _ in range(2 if self.strikes(Fault.DUPLICATE) else 1):
                due = self.loop.now_s + self.way_s()
                if self.strikes(Fault.REORDER):
                    due += self.luck[Fault.REORDER].uniform(0, 1.0)
                else:
                    due = line.last_s = max(due, line.last_s)
                self.later(due - self.loop.now_s, line.bring, said)

    # -- rules

    def leaves(self, life: Life, client_id: str) -> None:
        """Judge an order that leaves a process: it is saved, and its deadline has not passed."""
        saved = self.committed.get(client_id)
        if saved is None:
            self.fail(
                "saved before sent", f"life {life.number} sends {self.short(client_id)}, which nobody saved"
            )
        elif self.now_ms - saved > SEND_MS:
            late = self.now_ms - saved
            self.fail(
                "deadline", f"life {life.number} sends {self.short(client_id)} {late} ms after its commit"
            )

    def saved(self, life: Life, state: State) -> None:
        """Judge a state that was just saved."""
        stop = Stop(state.risk.stop - 1)
        if stop == Stop.RUN != self.stopping:
            self.fail("stop", f"life {life.number} trades on: a {self.stopping.name} was not finished")
        self.stopping = stop
        session = life.session
        if session is None:
            return
        for slot in state.slots:
            for client_id in (slot.open.client_id, slot.close.client_id):
                if client_id and client_id not in self.committed:
                    self.committed[client_id] = self.now_ms
                    self.note(f"life {life.number} saves {self.short(client_id)} in version {state.version}")
        core, v = session.core, session.core.v
        if self.auditor.cap is None:
            self.auditor.cap = self.instrument.quantity(int(session.par[Par.MAX_LOTS]))
        if v[Var.DEFECTS]:
            self.fail("no defect", f"admit refused what the strategy wanted: {v[Var.DEFECTS]}")
        for trigger in FALSE_ALARMS:
            if core.risk[Trip.ACTIVE, trigger]:
                self.fail("no false alarm", f"{trigger.name} tripped, and nothing of that kind happened")
        for i in range(v[Var.SLOTS]):
            if position(core.slots, i) * core.slots[Col.DIR, i] < 0:
                self.fail("no flip", f"cell {core.slots[Col.CELL, i]} holds {position(core.slots, i)} lots")
        if not in_debt(session) and (left := int(residual(core, session.par, v[Var.MARK2]))):
            self.fail("residual 1", f"parts and ledger differ by {left} atoms")
        self._against_truth(session)

    def _against_truth(self, session: Session) -> None:
        """Hold what a state believes against what is true: it may only believe in more than there is."""
        i, known = self.instrument, set(session.open_ids())
        lots = {1: 0, -1: 0}
        for entry in self.paper._live.values():
            if entry.status == "open" and is_ours(entry.client_id):
                lots[entry.side] += i.lots(entry.quantity) - entry.cumulative_lots
                if entry.client_id not in known:
                    self.fail(
                        "known", f"{self.short(entry.client_id)} is open at the exchange and not in the state"
                    )
        _, upper, lower, _ = exposure(session.core)
        true = self.position_lots
        if upper < true + lots[1] or lower > true - lots[-1]:
            reach = f"{true - lots[-1]} to {true + lots[1]} lots"
            self.fail("exposure", f"the state counts {lower} to {upper} lots, the truth can reach {reach}")

    @property
    def position_lots(self) -> int:
        """What the grid bought less what it sold, by the exchange."""
        return self.paper.ledger_position_lots

    # -- the end

    async def _become_whole(self) -> None:
        """End all faults, and wait until the grid is whole again."""
        self.calm, self.down, self.store_down_s = True, False, 0.0
        self.note("the faults are over")
        if self.rates[
            Fault.CUT
        ]:  # the last of them: what happens until the stream is open again, it does not tell
            self._cut()
            self.later(0.25, self._trade_near, 1, 9, 60)
        for life in self.lives:
            life.steps_left = None
            self._thaw(life)
        began, asked_s, whole, why = self.loop.now_s, 0.0, 0, "nothing was looked at"
        heard_by, heard_s = self._session(), began
        while self.loop.now_s - began < CALM_S:
            await asyncio.sleep(0.5)
            self.pass_time()
            self.spread = 3 - self.spread if self.spread in (1, 2) else 1
            self.quote(candle=False)
            session = self._session()
            if (
                session is not None
                and session.core.v[Var.RISK] != Risk.NORMAL
                and self.loop.now_s - asked_s > 5
            ):
                asked_s = self.loop.now_s
                self.ask(Ask.RESET_RISK, "all")
            if session is not heard_by:
                heard_by, heard_s = session, self.loop.now_s
            if session is not None and self.loop.now_s - heard_s > HEARD_S and session.core.v[Var.PLANS]:
                held = sum(int(position(session.core.slots, i)) for i in range(session.core.v[Var.SLOTS]))
                if held != self.position_lots:
                    late = self.loop.now_s - heard_s
                    self.fail(
                        "heard",
                        f"{late:.0f} quiet seconds, and the state holds {held} of {self.position_lots} lots",
                    )
            why = self.not_whole()
            whole = 0 if why else whole + 1
            if whole == 3:
                self.healed_s = self.loop.now_s - began
                self.note(f"the grid is whole {self.healed_s:.1f} s after the faults")
                return
        rule = "local is truth" if why.startswith("truth") else "liveness"
        self.fail(rule, f"after {CALM_S:.0f} quiet seconds {why}")
        await asyncio.sleep(0)

    def _session(self) -> Session | None:
        """Return the session of the owner, if it lives."""
        for life in self.lives:
            if not life.dead and life.incarnation == self.owner and life.session is not None:
                return life.session
        return None

    def not_whole(self) -> str:
        """Return why the grid is not whole, or nothing."""
        session = self._session()
        engine = next((life.engine for life in self.lives if life.session is session), None)
        if session is None or engine is None or not engine.began_ms:
            return "nobody runs the grid"
        if engine._tasks or engine.inbox:
            return "the engine is still busy"
        if session.unresolved():
            return "the fate of an order is not known"
        v = session.core.v
        if v[Var.RISK] != Risk.NORMAL or v[Var.STOP] != Stop.RUN:
            active = [int(row) for row in np.flatnonzero(session.core.risk[Trip.ACTIVE])]
            return f"risk is {v[Var.RISK]} (triggers {active}), stop is {v[Var.STOP]}"
        if wrong := self.not_true(session):
            return f"truth: {wrong}"
        core = copy_core(session.core)
        plan = advance(
            core,
            session.par,
            price_event(int(v[Var.NOW_MS]), int(v[Var.BID]), int(v[Var.ASK]), int(v[Var.LAST])),
        )
        if plan.actions.shape[1]:
            return f"a fresh plan wants {plan.actions.T[:3].tolist()}"
        waits = {Reason(why).name for why in plan.holes[Hole.WHY].tolist() if why not in CALM_HOLES}
        s, count = core.slots, int(v[Var.SLOTS])
        for i in range(count):
            if position(s, i) and not live(s, CLOSE, i) and s[Col.WHY_CLOSE, i] not in CALM_CLOSES:
                return f"cell {s[Col.CELL, i]} has no close because of {Reason(s[Col.WHY_CLOSE, i]).name}"
        return f"cells are empty because of {', '.join(sorted(waits))}" if waits else ""

    def not_true(self, session: Session) -> str:
        """Return where the quiescent state differs from the exchange, or nothing."""
        core, s, v = session.core, session.core.slots, session.core.v
        ours = {
            e.client_id: e for e in self.paper._live.values() if e.status == "open" and is_ours(e.client_id)
        }
        if set(session.open_ids()) != set(ours):
            return f"open orders differ: {sorted(map(self.short, set(session.open_ids()) ^ set(ours)))}"
        for i in range(v[Var.SLOTS]):
            for base in (OPEN, CLOSE):
                if live(s, base, i):
                    entry = ours[session.meta.ids[int(s[base + Leg.SEQ, i])].client_id]
                    if s[base + Leg.CUM, i] != entry.cumulative_lots:
                        return f"{self.short(entry.client_id)} has {entry.cumulative_lots} lots, state says {s[base + Leg.CUM, i]}"
        held = sum(int(position(s, i)) for i in range(v[Var.SLOTS]))
        if held != self.position_lots:
            return f"the position is {self.position_lots} lots, the state holds {held}"
        if in_debt(session):
            return "a trade never came"
        if residual(core, session.par, v[Var.MARK2]):
            return "residual 1 is not zero"
        money, base_atoms = now_or_never(holdings(self.paper, self.instrument))
        booked = int(v[[Var.START_QUOTE, Var.CASH, Var.LEDGER_FEES, Var.LEDGER_FUNDING, Var.TRANSFERS]].sum())
        if (money, base_atoms) != (booked, session.base_atoms()):
            return f"residual 2 is {money - booked} atoms and {base_atoms - session.base_atoms()} base atoms"
        return ""

    async def _stop(self) -> None:
        """Stop the grid as an operator does, and hold its receipt against the exchange."""
        if self.broken is not None:
            return
        before, asked = (
            len(self.receipts),
            [one for one in self.requests if one.expires_ms - 20_000 > self.now_ms],
        )
        self.ask(Ask.STOP, "cancel")
        began = self.loop.now_s
        while len(self.receipts) == before:
            await asyncio.sleep(0.2)
            if self.loop.now_s - began > 60:
                return self.fail("stop", "a stop took more than a minute")
        receipt = self.receipts[-1]
        left = [e for e in self.paper._live.values() if e.status == "open" and is_ours(e.client_id)]
        wrong = {name: value for name, value in receipt.residual_exchange.items() if Decimal(value)}
        if receipt.open_orders or left or receipt.defects or wrong or Decimal(receipt.pnl["residual"]):
            self.fail(
                "receipt",
                f"it says {receipt.open_orders} orders, {receipt.defects} defects, {wrong}; {len(left)} are open",
            )
        if twice := self.auditor.violations():
            self.fail(twice[0].rule, twice[0].message)
        gone = [one for one in self.foreign if self.paper._keys.get(one) is None]
        if gone:
            self.fail("foreign", f"orders of somebody else were cancelled: {gone}")
        late = [one for one in asked if one.id not in self.disk.answers]
        if late:
            self.fail("commands", f"{late[0].kind} was never answered")


def in_debt(session: Session) -> bool:
    """Return whether a quantity is known whose trade is not."""
    core = session.core
    book = core.book[:, : core.v[Var.BOOK]]
    return bool((book[Book.CUM] > book[Book.TRADED]).any())
