"""What an engine does beside deciding: what a start finds, what is saved when, and when it must look again."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from gridmm.client_id import ClientId, encode
from gridmm.config import load
from gridmm.desk import Receipt
from gridmm.engine import PEAK_STEPS, Session, fit_rings, resume
from gridmm.engine_simple import SimpleEngine
from gridmm.errors import ExchangeUnreachable
from gridmm.exchange import Fill, OrderReport, OrderRequest, Outcome, Unknown
from gridmm.exchange_paper import PaperExchange
from gridmm.layout import (
    CLOSE,
    MAX_PLAN,
    OPEN,
    PAR_SIZE,
    Act,
    Col,
    Command,
    Ev,
    Kind,
    Leg,
    Par,
    Var,
    empty_core,
)
from gridmm.model import Meta, core_hash, from_state
from gridmm.paper_account import Row
from gridmm.paper_market import PaperRules
from gridmm.run import Signals, assemble
from gridmm.several import serve, unpaced
from gridmm.step import QUIET_MS, advance, copy_core
from gridmm.store import MemoryStore, SqliteStore, SqlStore
from gridmm.units import Instrument
from gridmm.vocabulary import Action, Mode, Order, Report, Risk, Stop, Trigger, Trip
from gridmm.words import Words, event, price_event, trade_key

COIN = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.001"))
STRAY = encode(ClientId(7, 3, 1, -1, 1, 0, 1))  # the number of the first order that this start will make


def parameters() -> np.ndarray:
    par = np.zeros(PAR_SIZE, dtype=np.int64)
    par[[Par.MODE, Par.BUYS, Par.SELLS, Par.BASE, Par.MAX_EPOCHS]] = Mode.LONG, 2, 2, 500, 3
    par[[Par.SCALE_PPM, Par.CAP_PPM, Par.CHANGE_PCT, Par.MAX_ORDERS]] = 10**6, 4 * 10**6, 20, 50
    par[[Par.HALF_ATOMS, Par.CELL_ATOMS]] = COIN.half_atoms, COIN.atoms(Decimal(600))
    par[[Par.MAX_LOTS, Par.GROSS_LOTS, Par.QUERY_AFTER_MS, Par.BASE_LOT_ATOMS]] = (
        99,
        99,
        5_000,
        COIN.base_lot_atoms,
    )
    par[[Par.LIMITS + Trigger.STRAY_ORDER, Par.LIMITS + len(Trigger) + Trigger.STRAY_ORDER]] = (
        1,
        Risk.REDUCE_ONLY,
    )
    return par


async def start_beside(*requests: OrderRequest) -> tuple[SimpleEngine, list[str]]:
    """Start on an exchange that holds these orders, show one price, and return what is open then."""
    paper, store = PaperExchange(COIN, PaperRules()), MemoryStore("BTC/USDT")
    paper.advance(Row.QUOTE, 1_000, 599_999, 600_001, 0, 0)
    await paper.place(list(requests))
    meta = Meta(COIN, instance=7, incarnation=store.acquire())
    engine = SimpleEngine(Session(empty_core(), parameters(), meta, store), paper)
    await engine.start()
    await engine.on_price_update(2_000, 599_999, 600_001, 600_000)
    await engine.settle()
    return engine, [said.client_id for said in await paper.open_orders()]


def test_a_stray_is_cancelled_by_its_own_id_and_holds_the_grid() -> None:
    request = OrderRequest(STRAY, 1, Decimal("59000.0"), Decimal("0.010"))
    engine, open_orders = asyncio.run(start_beside(request))
    assert open_orders == []
    assert engine.session.core.v[Var.RISK] == Risk.REDUCE_ONLY
    numbers = engine.session.core.slots[OPEN + Leg.SEQ, : engine.session.core.v[Var.SLOTS]]
    assert engine.session.core.v[Var.NEXT_SEQ] == 2 and (numbers == 0).all(), (
        "a stray's number is never used again"
    )


def test_an_order_of_somebody_else_is_never_touched() -> None:
    request = OrderRequest("BYHAND1", 1, Decimal("59000.0"), Decimal("0.010"))
    engine, open_orders = asyncio.run(start_beside(request))
    assert "BYHAND1" in open_orders and len(open_orders) == 3
    assert engine.session.core.v[Var.RISK] == Risk.NORMAL


def session(par: np.ndarray | None = None, symbol: str = "BTC/USDT") -> Session:
    """A session over a store in memory that has seen one price."""
    store = MemoryStore(symbol)
    meta = Meta(COIN, instance=7, incarnation=store.acquire())
    made = Session(empty_core(), parameters() if par is None else par, meta, store)
    made.take(price_event(1_000, 599_999, 600_001, 600_000))
    return made


def acknowledge(made: Session) -> None:
    """Let the exchange accept both orders of a session that has just begun."""
    for sequence in (1, 2):
        about = {"SEQ": sequence, "EPOCH": 1, "CELL": -sequence, "SIDE": 1, "LOTS": 10}
        made.take(event(Kind.ORDER, 1_100, REPORT=Report.ACCEPTED, **about))


def test_orders_are_saved_under_the_exchange_s_own_ids() -> None:
    engine, _ = asyncio.run(start_beside())
    engine.session.save()
    state = engine.session.store.load()
    assert state is not None
    assert [slot.open.exchange_id for slot in state.slots] == ["2", "1"]
    assert [slot.open.client_id != "" for slot in state.slots] == [True, True]


def test_a_position_that_no_fill_explains_halts_the_grid() -> None:
    async def world() -> tuple[int, int, int]:
        par = parameters()
        limits = int(Par.LIMITS) + Trigger.MISMATCH
        par[limits], par[limits + len(Trigger)] = 1, Risk.HALTED
        paper, store = (
            PaperExchange(COIN, PaperRules(latency_ms=500, response_ms=500)),
            MemoryStore("BTC/USDT"),
        )
        paper.advance(Row.QUOTE, 1_000, 599_999, 600_001, 0, 0)
        meta = Meta(COIN, instance=7, incarnation=store.acquire())
        engine = SimpleEngine(Session(empty_core(), par, meta, store), paper)
        await engine.start()
        await engine.on_price_update(2_000, 599_999, 600_001, 600_000)
        await engine.settle()
        paper.advance(Row.TIME, 4_000)
        paper.advance(Row.TRADE, 4_000, 599_400, 1_000, 0, 0)  # fills of which we hear half a second later
        await engine.compare()
        on_the_way = int(engine.session.core.v[Var.RISK])
        by_hand = asyncio.ensure_future(
            paper.place(
                [OrderRequest("BYHAND1", 1, Decimal("59995.0"), Decimal("0.007"), False, False, True)]
            )
        )
        for time_ms in (4_100, 4_700, 5_400):
            await asyncio.sleep(0)
            paper.advance(Row.QUOTE, time_ms, 599_898, 599_900, 100, 100)
        await by_hand
        await engine.compare()
        row = engine.session.core.risk[:, Trigger.MISMATCH]
        return on_the_way, int(engine.session.core.v[Var.RISK]), int(row[Trip.VALUE])

    on_the_way, after, atoms = asyncio.run(world())
    assert (on_the_way, after) == (Risk.NORMAL, Risk.HALTED)
    assert atoms == 7 * COIN.base_lot_atoms


class Silent(PaperExchange):
    """Carries out placements, but its first answers are lost."""

    lost = 0

    async def place(self, requests: Sequence[OrderRequest], deadline_ms: int | None = None) -> list[Outcome]:
        """Place orders and say nothing of it."""
        outcomes = await super().place(requests, deadline_ms)
        self.lost += len(outcomes)
        return [Unknown(request.client_id, "no answer") for request in requests]


def test_an_answer_that_was_lost_is_asked_for_and_never_sent_again() -> None:
    async def world() -> tuple[int, list[int], int]:
        paper, store = Silent(COIN, PaperRules()), MemoryStore("BTC/USDT")
        paper.advance(Row.QUOTE, 1_000, 599_999, 600_001, 0, 0)
        meta = Meta(COIN, instance=7, incarnation=store.acquire())
        engine = SimpleEngine(Session(empty_core(), parameters(), meta, store), paper)
        await engine.start()
        engine.take(price_event(1_000, 599_999, 600_001, 600_000))
        paper.drain()  # the stream is deaf as well
        await asyncio.sleep(0)
        paper.drain()
        await engine.settle()
        core = engine.session.core
        status = core.slots[OPEN + Leg.STATUS, : core.v[Var.SLOTS]].tolist()
        return paper.lost, status, len(await paper.open_orders())

    lost, status, standing = asyncio.run(world())
    assert (lost, status, standing) == (2, [Order.WORKING, Order.WORKING], 2)


def test_fees_in_other_assets() -> None:
    words = Words(COIN, 7)
    said = Fill("1", STRAY, "9", 1, Decimal("59000"), Decimal("0.01"), Decimal("0.000000001"), "BTC", True, 5)
    base = words.fill(said, 5)
    assert base is not None and base[Ev.FEE_BASE_ATOMS] == 1, "a fee is never rounded away"
    third = Fill(
        "2",
        STRAY,
        "9",
        1,
        Decimal("59000"),
        Decimal("0.01"),
        Decimal("0.001"),
        "BNB",
        True,
        5,
        Decimal("0.6"),
    )
    valued = words.fill(third, 5)
    assert valued is not None and valued[Ev.FEE] == COIN.atoms(Decimal("0.6"))
    assert valued[Ev.TRADE] == trade_key("2")


def test_what_a_price_may_change_is_saved_only_where_a_restart_would_miss_it() -> None:
    par = parameters()
    limits = int(Par.LIMITS) + Trigger.DRAWDOWN
    par[limits], par[limits + len(Trigger)] = PEAK_STEPS * 1_000, Risk.REDUCE_ONLY
    made = session(par)
    acknowledge(made)
    made.save()
    saved = made.meta.version
    made.take(price_event(9_000, 600_010, 600_012, 600_011))
    assert made.meta.version == saved
    made.core.v[Var.CASH] += 999  # a gain of less than a step of the peak
    made.take(price_event(19_000, 600_010, 600_012, 600_011))
    assert made.meta.version == saved
    made.core.v[Var.CASH] += 1
    made.take(price_event(29_000, 600_010, 600_012, 600_011))
    assert made.meta.version == saved + 1
    limits = int(Par.LIMITS) + Trigger.STALE_PRICE
    par[limits], par[limits + len(Trigger)] = 60_000, Risk.REDUCE_ONLY
    made.take(event(Kind.TIMER, 30_000))
    assert made.meta.version == saved + 1
    made.take(event(Kind.TIMER, 90_000))
    state = made.store.load()
    assert state is not None and state.risk.triggers[Trigger.STALE_PRICE].active == 1


def test_a_session_wakes_when_time_alone_matters() -> None:
    made = session()
    assert made.wake_ms() == 1_000 + 5_000, "an unanswered order is asked for"
    acknowledge(made)
    assert made.wake_ms() == 1_100 + QUIET_MS
    made.par[Par.LIMITS + Trigger.STALE_PRICE] = 2_000
    assert made.wake_ms() == 1_000 + 2_000


def test_rings_of_another_length_begin_anew() -> None:
    par = parameters()
    par[[Par.ATR_LENGTH, Par.REF_LENGTH, Par.SPIKE_LENGTH]] = 3, 4, 2
    core = empty_core()
    fit_rings(core, par)
    for number in range(1, 8):
        candle = {"OPEN": 600_000, "HIGH": 600_100, "LOW": 599_900, "CLOSE": 600_000, "VOLUME": 5}
        advance(core, par, event(Kind.CANDLE, 60_000 * number, **candle))
    assert core.v[Var.ATR] == 200 and core.v[Var.ATR_REF] == 200
    before = copy_core(core)
    fit_rings(core, par)
    assert core_hash(core) == core_hash(before)
    par[Par.ATR_LENGTH] = 5
    fit_rings(core, par)
    assert core.v[Var.ATR] == core.v[Var.CANDLES] == core.ranges.any() == core.refs.any() == 0
    assert core.watch.any()
    par[Par.SPIKE_LENGTH] = 3
    fit_rings(core, par)
    assert not core.watch.any()


def test_a_restart_with_another_atr_length_measures_anew() -> None:
    par = parameters()
    par[[Par.ATR_LENGTH, Par.REF_LENGTH]] = 2, 2
    made = session(par)
    fit_rings(made.core, par)
    for number in (1, 2, 3):
        candle = {"OPEN": 600_000, "HIGH": 600_100, "LOW": 599_900, "CLOSE": 600_000, "VOLUME": 5}
        made.take(event(Kind.CANDLE, 60_000 * number, **candle))
    assert made.core.v[Var.ATR] == 200
    made.save()
    par[Par.ATR_LENGTH] = 7
    again = resume(made.store, made.meta, par)
    assert again is not None
    assert again[0].v[[Var.ATR, Var.CANDLES, Var.ATR_LENGTH]].tolist() == [0, 0, 7]


def test_an_adoption_is_whole_or_not_at_all() -> None:
    made = session()
    before = copy_core(made.core)
    made.take(event(Kind.COMMAND, 2_000, CODE=Command.ADOPT, ARG=99, ARG2=1_200_000))
    assert made.core.v[Var.DEFECTS] == 1, "20 lots stand on the book: 99 more would breach the cap"
    assert made.core.v[Var.ADOPTED] == 0 and (made.core.slots[Col.OPENED] == before.slots[Col.OPENED]).all()
    made.take(event(Kind.COMMAND, 2_000, CODE=Command.ADOPT, ARG=60, ARG2=1_200_000))
    assert made.core.v[[Var.DEFECTS, Var.ADOPTED, Var.LEDGER_LOTS]].tolist() == [1, 60, 60]
    assert made.pnl().position_lots == 60
    assert made.base_atoms() == 0, "the account held it all the time"


def test_more_closes_than_a_plan_has_room_for_wait_their_turn() -> None:
    par = parameters()
    par[[Par.MAX_ORDERS, Par.MAX_LOTS, Par.GROSS_LOTS]] = 500, 10_000, 10_000
    core = empty_core()
    advance(core, par, price_event(1_000, 599_999, 600_001, 600_000))
    advance(core, par, event(Kind.COMMAND, 2_000, CODE=Command.STOP, ARG=Stop.DRAIN))
    cells = 400
    core.slots[:] = 0
    rows = core.slots[:, :cells]
    rows[[Col.EPOCH, Col.DIR, Col.LOTS, Col.OPENED]] = np.array([[1], [1], [10], [10]])
    rows[Col.CELL] = np.arange(-200, 200)
    rows[Col.LO], rows[Col.HI] = 600_000 + 500 * np.arange(cells), 600_500 + 500 * np.arange(cells)
    core.v[Var.SLOTS] = cells
    first = advance(core, par, event(Kind.TIMER, 3_000)).actions.copy()
    second = advance(core, par, event(Kind.TIMER, 4_000)).actions.copy()
    placed = [set(plan[Act.CELL, plan[Act.ACTION] == Action.PLACE].tolist()) for plan in (first, second)]
    assert len(placed[0]) == MAX_PLAN // 4 and len(placed[1]) == cells - MAX_PLAN // 4
    assert not placed[0] & placed[1]
    assert (core.slots[CLOSE + Leg.STATUS, :cells] == Order.PENDING).all()
    assert core.v[Var.DEFECTS] == 0


def test_a_continued_state_knows_what_the_account_began_with() -> None:
    engine, _ = asyncio.run(start_beside())
    state = engine.session.store.load()
    assert state is not None
    core, _ = from_state(state)
    rules = engine.exchange.rules
    assert core.v[Var.START_QUOTE] == COIN.atoms(rules.quote)


# -- a stop that was cut off ----------------------------------------------------------------------------


class Starts:
    """One grid in a database file, on one exchange, started again and again."""

    def __init__(self, db: Path, paper: PaperExchange | None = None) -> None:
        self.db, self.paper = db, paper or PaperExchange(COIN, PaperRules(quote=Decimal(10_000)))
        self.said: list[str] = []
        self.paper.advance(Row.QUOTE, 1_000, 599_999, 600_001, 0, 0)

    def make(self) -> SimpleEngine:
        """Put the next start together; the one before it is gone, however it ended."""
        store, par = SqliteStore(self.db, "BTC/USDT", synchronous="OFF"), parameters()
        meta = Meta(COIN, instance=7, incarnation=store.acquire())
        core, meta = resume(store, meta, par) or (empty_core(), meta)
        engine = SimpleEngine(Session(core, par, meta, store), self.paper)
        engine.say = self.said.append
        return engine

    async def begin(self, ticks: int = 600_000) -> SimpleEngine:
        """Start, and show the engine a price."""
        engine = self.make()
        await engine.start()
        await self.price(engine, ticks)
        return engine

    async def cut_off(self, engine: SimpleEngine, how: Stop) -> None:
        """Let an engine save that it stops, and be gone before it sends anything."""
        await engine.on_command(Command.STOP, how, 0, engine.now_ms)
        for task in engine._tasks:
            task.cancel()

    async def price(self, engine: SimpleEngine, ticks: int) -> None:
        """Let the market trade at a price, and the engine hear of it."""
        now_ms = self.paper.now_ms + 1_000
        self.paper.advance(Row.QUOTE, now_ms, ticks - 1, ticks + 1, 100, 100)
        self.paper.advance(Row.TRADE, now_ms, ticks, 1_000, 0, 0)
        await engine.settle()
        await engine.on_price_update(now_ms, ticks - 1, ticks + 1, ticks)
        await engine.settle()

    async def open_orders(self) -> list[OrderReport]:
        """Return what the exchange says is open."""
        return await self.paper.open_orders()


@pytest.mark.parametrize("how", [Stop.DRAIN, Stop.CANCEL, Stop.FLATTEN])
def test_a_stop_that_was_cut_off_is_finished_by_the_next_start(tmp_path: Path, how: Stop) -> None:
    async def world() -> None:
        grid = Starts(tmp_path / "grid.sqlite")
        first = await grid.begin()
        await grid.price(first, 599_499)  # one cell is filled, and its close stands
        assert len(await grid.open_orders()) == 3
        await grid.cut_off(first, how)
        assert len(await grid.open_orders()) == 3
        second = await grid.begin(599_700)
        assert second.asked == how and second.session.core.v[Var.STOP] == how
        assert grid.said == [
            f"the last start ended in the middle of a stop ({how.name.lower()}): this one finishes it and ends. "
            "Start again to trade"
        ]
        opens = [said for said in await grid.open_orders() if said.side > 0]
        assert opens == [], "what opens is withdrawn, and nothing opens"
        done = await second.stop(Stop.FLATTEN if how == Stop.FLATTEN else Stop.CANCEL)
        assert (done.open_orders, done.position) == (0, "0" if how == Stop.FLATTEN else "0.01")
        assert set(done.residual_exchange.values()) == {"0"}
        third = await grid.begin()
        assert third.asked is None and third.session.core.v[Var.STOP] == Stop.RUN and len(grid.said) == 1
        assert await grid.open_orders()

    asyncio.run(world())


def test_a_stop_that_sends_nothing_is_saved_as_well(tmp_path: Path) -> None:
    async def world() -> None:
        grid = Starts(tmp_path / "grid.sqlite")
        engine = grid.make()
        await engine.start()
        await engine.drain()
        assert grid.make().session.core.v[Var.STOP] == Stop.DRAIN

    asyncio.run(world())


class Away(PaperExchange):
    """An exchange that does not answer the questions of a start."""

    away = False

    async def open_orders(self) -> list[OrderReport]:
        """Answer, unless nobody is there."""
        if self.away:
            raise ExchangeUnreachable("the exchange does not answer", "it is away", "Try again")
        return await super().open_orders()


def test_a_start_that_dies_before_the_exchange_answers_was_not_stopping(tmp_path: Path) -> None:
    async def world() -> None:
        grid = Starts(tmp_path / "grid.sqlite", paper := Away(COIN, PaperRules(quote=Decimal(10_000))))
        await (await grid.begin()).stop(Stop.CANCEL)
        paper.away = True
        with pytest.raises(ExchangeUnreachable):
            await grid.make().start()
        paper.away = False
        third = await grid.begin()
        assert third.asked is None and grid.said == [] and len(await grid.open_orders()) == 2

    asyncio.run(world())


def test_what_an_operator_asked_this_start_for_comes_before_the_stop_of_the_last_one(tmp_path: Path) -> None:
    async def world() -> Stop | None:
        grid = Starts(tmp_path / "grid.sqlite")
        first = await grid.begin()
        await grid.cut_off(first, Stop.DRAIN)
        second = grid.make()
        second.asked = Stop.FLATTEN
        await second.start()
        return second.asked

    assert asyncio.run(world()) == Stop.FLATTEN


class Dies(Exception):
    """The process is gone."""


def serve_once(db: Path, durable: bool, minutes: str = "0", **options: str) -> tuple[Receipt, list[str], int]:
    """Run a session as `gridmm run` does; return receipt, what it said, and the row that the exchange reached."""
    given = {"feed.duration": minutes, **{name.replace("__", "."): said for name, said in options.items()}}
    config = load(None, environ={}, options={name: (said, "test") for name, said in given.items()})
    lines: list[str] = []
    with ExitStack() as stack:
        run = assemble(config, db, stack, durable=durable, synchronous="OFF")
        (done,) = asyncio.run(serve([(run, Signals())], unpaced, lines.append))
        return done, lines, run.paper.resume_row


@pytest.mark.parametrize("durable", [False, True], ids=["simple", "durable"])
def test_both_engines_finish_a_stop_that_was_cut_off(
    tmp_path: Path, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = tmp_path / "grid.sqlite"

    def dies(store: SqlStore) -> None:
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "release", dies)
        with pytest.raises(Dies):
            serve_once(db, durable, "10 min")
    done, lines, row = serve_once(db, durable, "10 min")
    assert sum("in the middle of a stop (cancel)" in line for line in lines) == 1
    assert done.open_orders == 0
    after, lines, later = serve_once(db, durable, "10 min")
    assert not any("in the middle" in line for line in lines)
    assert later > row and after.decisions > done.decisions, "it trades on"


def test_a_drain_that_leaves_orders_on_purpose_is_finished(tmp_path: Path) -> None:
    db, leave = tmp_path / "grid.sqlite", {"stop__on_signal": "drain", "stop__after_drain": "leave"}
    left, _, _ = serve_once(db, False, "90 min", stop__drain="1 s", **leave)
    after, lines, _ = serve_once(db, False, "90 min", stop__drain="1 s", **leave)
    assert left.open_orders > 0 and not any("in the middle" in line for line in lines)
    assert after.decisions > left.decisions
