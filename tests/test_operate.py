"""What an operator asks of a running grid is done as it was meant, answered with what it changed, or refused."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exchange_server import server_of, warm_up
from gridmm.client_id import decode
from gridmm.commands import Ask, Mailbox, Request, SlotSeen
from gridmm.config import config_hash, load
from gridmm.engine_durable import AGAIN_MS, DurableEngine, DurableMarket
from gridmm.errors import ConfigError, ExchangeUnreachable, UsageError
from gridmm.event_log import EventLog, read_log
from gridmm.exchange import Absent, OrderReport, OrderRequest, Outcome, Unknown
from gridmm.exchange_paper import PaperExchange
from gridmm.feed import Price
from gridmm.layout import CLOSE, OPEN, Col, Leg, Par, Var
from gridmm.model import core_hash, from_state, unseal
from gridmm.paper_account import Row
from gridmm.parameters import as_values, changes, instrument_of, reloaded
from gridmm.run import first_price, open_market, open_session, paper_rules, wall_ms
from gridmm.schema import catalogue, toml_value
from gridmm.settings import Settings
from gridmm.slots import position
from gridmm.step import advance
from gridmm.store import SqliteStore
from gridmm.vocabulary import Order, Stop, Trigger, Trip
from remote_exchange import RemoteExchange

TICKS = 600_000  # 60 000.0
BASE: dict[str, object] = {
    "grid.max_position": "0.05",
    "grid.order_notional": "300",
    "grid.grid_size": 3,
    "grid.price_interval": "20 bps",
    "grid.interval_mode": "fixed",
    "grid.skew_factor": "0",
    "execution.query_after": "1 h",  # nothing but a clear asks
}
SPOT: dict[str, object] = {
    "instrument.symbol": "BTC/USDT",
    "instrument.market": "spot",
    "paper.base": "0.04",
    "paper.equity": "20000",
}


class Moody(PaperExchange):
    """A paper exchange that loses placements, does not answer questions, or forgets."""

    swallows = deaf = forgets = doubts = False

    async def place(self, requests: Sequence[OrderRequest], deadline_ms: int | None = None) -> list[Outcome]:
        """Place orders, or lose them on the way."""
        if self.swallows:
            return [Unknown(request.client_id, "no answer") for request in requests]
        return await super().place(requests, deadline_ms)

    async def order(self, client_id: str) -> OrderReport | Absent:
        """Say what is known of an order, if anything is said at all."""
        if self.deaf:
            raise ExchangeUnreachable("the exchange", "it is deaf", "Wait")
        if self.doubts or self.forgets:
            return Absent(client_id, final=self.forgets)
        return await super().order(client_id)


class World:
    """One grid on a moody exchange, whose market and clock a test moves."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder, self.clock_ms, self.sent = folder, 1_000_000, 0
        self.config = file_of(folder, **options)
        self.store = SqliteStore(
            folder / "grid.sqlite", instrument_of(self.config.settings).symbol, synchronous="OFF"
        )
        self.log = EventLog(folder / "events")
        session, _ = open_session(self.config, TICKS, self.store, self.log)
        self.paper = Moody(session.meta.instrument, paper_rules(self.config))
        self.mailbox = Mailbox(self.store.engine)
        self.engine = DurableMarket(session, self.paper, self.mailbox, clock_ms=lambda: self.clock_ms)

    @property
    def core(self) -> Any:
        """The state."""
        return self.engine.session.core

    async def start(self) -> None:
        """Start, and show the first price."""
        self.paper.advance(Row.QUOTE, 1_000, TICKS - 1, TICKS + 1, 0, 0)
        await self.engine.start()
        await self.price(2_000, TICKS)

    async def price(self, time_ms: int, ticks: int) -> None:
        """Show a price."""
        self.paper.advance(Row.QUOTE, time_ms, ticks - 1, ticks + 1, 100, 100)
        await self.engine.settle()
        await self.engine.on_price_update(time_ms, ticks - 1, ticks + 1, ticks)
        await self.engine.settle()

    async def ask(self, kind: Ask, argument: str, lasts_ms: int = 60_000) -> Request:
        """Send a command, let the engine look, and return it as it is stored then."""
        self.sent += 1
        now_ms = self.clock_ms
        request = Request(
            f"c{self.sent}", self.store.grid, kind, argument, "ann", "test", now_ms, now_ms + lasts_ms
        )
        self.mailbox.send(request)
        return await self.again(request.id)

    async def again(self, name: str, wait_ms: int = AGAIN_MS) -> Request:
        """Let the engine look at the mailbox after a while, and return a command."""
        self.clock_ms += wait_ms
        await self.engine.attend()
        found = self.mailbox.find(name)
        assert found is not None
        return found

    def slot(self, cell: int) -> int:
        """Return the column of a cell of the first epoch."""
        cells = self.core.slots[Col.CELL, : self.core.v[Var.SLOTS]].tolist()
        return cells.index(cell)

    def seen(self, cell: int) -> str:
        """Return a slot as somebody sees it now."""
        s, i = self.core.slots, self.slot(cell)
        return str(SlotSeen(1, cell, max(int(s[base + Leg.SEQ, i]) for base in (OPEN, CLOSE))))


def file_of(folder: Path, **options: object) -> Any:
    """Write a configuration file and load it."""
    values = BASE | options
    path = folder / f"grid-{len(list(folder.glob('*.toml')))}.toml"
    path.write_text("\n".join(f"{key} = {toml_value(value)}" for key, value in values.items()))
    return load(path, environ={})


def values_of(folder: Path, **options: object) -> str:
    """Return what `gridmm reload` would send for a file."""
    return as_values(file_of(folder, **options))


def in_a_world(**options: object) -> Callable:
    """Run an async test in a world of its own."""

    def decorated(test: Callable) -> Callable:
        def run(tmp_path: Path) -> None:
            asyncio.run(test(World(tmp_path, **options)))

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorated


# -- clear


@in_a_world()
async def test_a_slot_whose_order_never_arrived_becomes_free_by_the_table(world: World) -> None:
    world.paper.swallows = world.paper.deaf = True
    await world.start()
    assert world.core.slots[OPEN + Leg.STATUS, world.slot(-1)] == Order.UNKNOWN
    world.paper.swallows = world.paper.deaf = False
    before, number = world.seen(-1), int(world.core.v[Var.NEXT_SEQ])
    said = await world.ask(Ask.CLEAR, before)
    assert said.state == "done", said
    assert said.result == "1 order asked for, none is open at the exchange; the slot is free"
    i = world.slot(-1)
    assert world.core.slots[OPEN + Leg.STATUS, i] == Order.WORKING, "it is wanted, and so it is placed anew"
    assert world.core.slots[OPEN + Leg.SEQ, i] >= number
    assert [decode(one.client_id).cell for one in await world.paper.open_orders()] == [-1]
    again = await world.ask(Ask.CLEAR, before)
    assert again.state == "refused" and "the slot has moved on: its newest order is number" in again.result


@in_a_world()
async def test_a_slot_with_a_live_order_is_reported_and_left_alone(world: World) -> None:
    await world.start()
    before, numbers = core_hash(world.core), world.core.v[Var.NEXT_SEQ]
    said = await world.ask(Ask.CLEAR, world.seen(-2))
    assert said.state == "refused" and "is open at the exchange (0 of 0.005 filled, price 59" in said.result
    assert "nothing was changed" in said.result
    assert (core_hash(world.core), world.core.v[Var.NEXT_SEQ]) == (before, numbers)


@in_a_world()
async def test_a_clear_waits_for_an_exchange_that_does_not_answer_and_then_expires(world: World) -> None:
    world.paper.swallows = world.paper.deaf = True
    await world.start()
    before = core_hash(world.core)
    assert (await world.ask(Ask.CLEAR, world.seen(-1))).state == "waiting"
    assert (await world.again("c1")).state == "waiting"
    world.paper.deaf, world.paper.doubts = False, True
    assert (await world.again("c1")).state == "waiting", "an order that may still appear proves nothing"
    assert core_hash(world.core) == before
    world.paper.swallows = world.paper.doubts = False
    late = await world.ask(Ask.CLEAR, world.seen(-2), lasts_ms=1)
    assert (late.state, late.result) == ("expired", "nothing was done")
    assert world.core.slots[OPEN + Leg.STATUS, world.slot(-2)] == Order.UNKNOWN
    done = await world.again("c1")
    assert done.state == "done"


@in_a_world()
async def test_a_clear_finds_the_fill_that_was_missed_and_never_deletes_what_is_held(world: World) -> None:
    await world.start()
    i = world.slot(-1)
    edge = int(world.core.slots[OPEN + Leg.PRICE, i])
    world.paper.advance(Row.TRADE, 3_000, edge - 5, 1_000, 0, 0)
    world.paper.drain()  # nobody heard of it
    assert position(world.core.slots, i) == 0
    said = await world.ask(Ask.CLEAR, world.seen(-1))
    assert said.state == "done" and "it holds 0.005 BTC" in said.result
    assert "a clear never deletes a holding" in said.result
    i = world.slot(-1)
    assert position(world.core.slots, i) == 5
    assert world.core.slots[CLOSE + Leg.STATUS, i] == Order.WORKING, "its close is placed"
    assert world.core.slots[OPEN + Leg.TRADED, i] == 5, "with the trade itself"
    assert await world.engine.residual2() == {"USDT": "0", "BTC": "0"}


@in_a_world()
async def test_an_order_that_was_working_and_is_forgotten_ends_by_the_word_of_an_operator(
    world: World,
) -> None:
    await world.start()
    i, number = world.slot(-1), int(world.core.v[Var.NEXT_SEQ])
    world.paper.forgets = True
    before = world.seen(-1)
    told = world.engine.session.words.absent(
        Absent(world.engine.session.meta.ids[int(world.core.slots[OPEN + Leg.SEQ, i])].client_id, final=True),
        3_000,
    )
    assert told is not None
    advance(world.core, world.engine.session.par, told)
    assert world.core.slots[OPEN + Leg.STATUS, i] == Order.WORKING, "by itself the grid goes on counting it"
    assert world.core.risk[Trip.ACTIVE, Trigger.ABSENT_ORDER] == 1, "and an alarm withdraws the others"
    said = await world.ask(Ask.CLEAR, before)
    assert (
        said.state == "done"
        and "1 that it had and knows no more given up with what is known of it" in said.result
    )
    assert said.result.endswith("the slot is free")
    assert -1 not in world.core.slots[Col.CELL, : world.core.v[Var.SLOTS]].tolist()
    assert world.core.v[Var.NEXT_SEQ] == number, "nothing opens while the alarm stands"


@in_a_world()
async def test_a_slot_that_is_not_there_or_has_no_order_is_refused(world: World) -> None:
    await world.start()
    said = await world.ask(Ask.CLEAR, "1/40#7")
    assert (said.state, said.result) == (
        "refused",
        "there is no such slot any more: it is free; nothing was changed",
    )


# -- reload


@in_a_world()
async def test_a_smaller_cap_works_at_once_and_is_saved_with_its_answer(world: World) -> None:
    await world.start()
    assert len(await world.paper.open_orders()) == 3
    kept: list[tuple[str, list[str]]] = []
    save = world.store.save

    def saving(state: Any, decision: Any = None, answers: Any = (), fills: Any = ()) -> None:
        kept.append((state.config_hash, [answer.id for answer in answers]))
        save(state, decision, answers, fills)

    world.store.save = saving  # type: ignore[method-assign]
    other = file_of(world.folder, **{"grid.max_position": "0.01"})
    said = await world.ask(Ask.RELOAD, as_values(other))
    new, old = config_hash(other.settings), config_hash(world.config.settings)
    assert said.state == "done"
    assert said.result == f'config {new} in place of {old}: grid.max_position = "0.01" now (was "0.05")'
    assert kept[0] == (new, ["c1"])
    assert world.engine.session.par[Par.MAX_LOTS] == 10
    assert len(await world.paper.open_orders()) == 2, "what no longer fits is withdrawn"
    state = world.store.load()
    assert state is not None and state.terms.max_position_lots == 10
    same = await world.ask(Ask.RELOAD, as_values(other))
    assert (same.state, same.result) == ("done", f"nothing differs from config {new}")


@in_a_world()
async def test_an_interval_waits_for_the_next_lattice(world: World) -> None:
    await world.start()
    before = [one.price for one in await world.paper.open_orders()]
    said = await world.ask(
        Ask.RELOAD, values_of(world.folder, **{"grid.price_interval": "40 bps", "atr.dwell": "0 s"})
    )
    assert 'grid.price_interval = "40 bps" with the next lattice (was "20 bps")' in said.result
    await world.price(3_000, TICKS + 2)
    assert [one.price for one in await world.paper.open_orders()] == before
    await world.engine.on_candle_update(60_000, TICKS, TICKS, TICKS, TICKS, 1)
    await world.engine.settle()
    await world.price(61_000, TICKS + 2)
    assert world.core.v[Var.EPOCH] == 2 and world.core.v[Var.INTERVAL] == 4_000


@in_a_world()
async def test_another_spacing_withdraws_the_lattice_first(world: World) -> None:
    await world.start()
    said = await world.ask(Ask.RELOAD, values_of(world.folder, **{"grid.spacing": "arithmetic"}))
    assert said.state == "done"
    await world.price(3_000, TICKS + 2)
    assert world.core.v[Var.EPOCH] == 2 and world.engine.session.meta.geometric is not True
    assert world.core.v[Var.INTERVAL] == 1_200, "ticks, not parts per million"


@in_a_world()
async def test_a_file_that_needs_a_start_or_is_wrong_changes_nothing(world: World) -> None:
    await world.start()
    before = (core_hash(world.core), world.engine.session.par.tolist(), world.engine.session.meta.config_hash)
    for options, words in (
        ({"grid.mode": "short", "grid.max_position": "0.01"}, "grid.mode: only a start changes this"),
        ({"atr.length": 7, "stop.drain": "9 s"}, "atr.length, stop.drain: only a start changes this"),
        ({"grid.order_notional": "50"}, "Nothing was changed"),
    ):
        said = await world.ask(Ask.RELOAD, values_of(world.folder, **options))
        assert said.state == "refused" and words in said.result and "\n" not in said.result
    session = world.engine.session
    assert (core_hash(world.core), session.par.tolist(), session.meta.config_hash) == before
    with pytest.raises(ConfigError, match="not TOML"):
        await world.ask(Ask.RELOAD, "grid.max_position = = 4")


@in_a_world()
async def test_a_replay_follows_a_reload_from_segment_to_segment(world: World) -> None:
    await world.start()
    pars = {world.engine.session.meta.config_hash: world.engine.session.par}
    await world.ask(Ask.RELOAD, values_of(world.folder, **{"grid.max_position": "0.01"}))
    pars[world.engine.session.meta.config_hash] = world.engine.session.par
    for step in range(4):
        await world.price(10_000 + 1_000 * step, TICKS - 700 * step)
    await world.engine.stop(Stop.CANCEL)
    world.log.close()
    decided = {one.event_sequence: one.hash_after for one in world.store.decisions()}
    segments = list(read_log(world.folder / "events"))
    assert [one.header.config_hash for one in segments] == list(pars) and len(decided) > 3
    replayed: dict[int, str] = {}
    for segment in segments:
        core, _ = from_state(unseal(segment.header.state))
        for number, ev in enumerate(segment.events, segment.first):
            if advance(core, pars[segment.header.config_hash], ev).actions.shape[1]:
                replayed[number] = core_hash(core)
    assert replayed == decided


def test_another_file_replaces_the_file_and_nothing_else(tmp_path: Path) -> None:
    """As a restart with it would: the environment and the command line go on, and what is gone is the default again."""
    path = tmp_path / "old.toml"
    path.write_text('grid.max_position = "0.05"\ngrid.skew_factor = "0.25"\nfeed.speed = "9"')
    environ, options = {"GRIDMM_GRID__GRID_SIZE": "4"}, {"feed.speed": ("60", "--speed")}
    _, old, _ = open_market(load(path, environ=environ, options=options))
    text = 'grid.max_position = "0.02"\ngrid.grid_size = 9\nfeed.speed = "7"'
    new = reloaded(old, text, "new.toml")
    path.write_text(text)
    _, restarted, _ = open_market(load(path, environ=environ, options=options))
    assert new.settings == restarted.settings
    assert [p.key for p in changes(old.settings, new.settings)] == ["grid.max_position", "grid.skew_factor"]
    again = reloaded(new, 'grid.max_position = "0.02"', "third.toml")
    assert (again.settings.grid.grid_size, again.settings.feed.speed) == (4, "60")


def test_a_reload_holds_over_a_restart_until_another_file(tmp_path: Path) -> None:
    world = World(tmp_path)
    tighter = file_of(tmp_path, **{"grid.max_position": "0.02"})
    tightest = file_of(tmp_path, **{"grid.max_position": "0.01"})
    third = file_of(tmp_path, **{"grid.max_position": "0.03"})

    async def reload() -> None:
        await world.start()
        assert (await world.ask(Ask.RELOAD, as_values(tighter))).state == "done"
        assert (await world.ask(Ask.RELOAD, as_values(tightest))).state == "done"

    asyncio.run(reload())
    world.log.close()
    hashes = [config_hash(one.settings) for one in (world.config, tightest, third)]
    for config, lots, note in (
        (
            world.config,
            10,
            f"config {hashes[1]}, reloaded by ann (test), stays in force in place of {hashes[0]}",
        ),
        (tightest, 10, None),
        (third, 30, f"config {hashes[2]} is in force from now on; the state was saved under {hashes[1]}"),
        (
            world.config,
            50,
            f"config {hashes[0]} is in force from now on; the state was saved under {hashes[2]}",
        ),
    ):
        session, resumed = open_session(config, TICKS, world.store)
        session.save()
        assert resumed and session.par[Par.MAX_LOTS] == lots
        assert session.notes == ([note] if note else [])


OTHERS: dict[str, object] = {
    "true or false": "true", "count": "7", "factor": '"0.7"', "time": '"7 s"', "share": '"7 bps"', "decimal": '"0.007"',
    "price, or share of it": '"70 bps"', "quote, or % of equity": '"700"', "base, or % of equity": '"0.07"',
    "price": '"70000"',
}  # fmt: skip
CHOICES = {
    "grid.spacing": "arithmetic",
    "grid.interval_mode": "max",
    "grid.on_stop": "flatten",
    "risk.volume_spike.require": "all",
}
IN_PAIRS = {
    "grid.interval_cap": '"7"',
    "grid.fee_floor": '"3"',
    "trend.enter_ratio": '"7"',
    "grid.price_min": '"50000"',
    "trend.leave_ratio": '"0.7"',
    "execution.burst": '"7"',
    "execution.backoff": '"7 s"',
}


@pytest.mark.parametrize("key", [p.key for p in catalogue(Settings) if p.change != "start"])
def test_what_is_said_to_change_while_it_runs_reaches_the_parameters(tmp_path: Path, key: str) -> None:
    """Word and deed: a parameter that a reload takes must be one that the core reads."""
    p = next(one for one in catalogue(Settings) if one.key == key)
    value = (
        IN_PAIRS.get(key)
        or OTHERS.get(p.unit)
        or f'"{CHOICES.get(key, "halt" if "reduce" in p.default else "reduce_only")}"'
    )
    options: dict[str, object] = {"grid.interval_mode": "atr"}
    if key.startswith("trend."):
        options["trend.enabled"], value = True, "false" if key == "trend.enabled" else value
    world, path = World(tmp_path, **options), tmp_path / "other.toml"
    base = (line for line in as_values(world.config).splitlines() if not line.startswith(f"{key} "))
    path.write_text("\n".join([*base, f"{key} = {value}"]))

    async def reload() -> Request:
        await world.start()
        return await world.ask(Ask.RELOAD, as_values(load(path, environ={})))

    before = world.engine.session.par.copy()
    said = asyncio.run(reload())
    assert said.state == "done" and key in said.result, said.result
    assert (world.engine.session.par != before).any()


# -- adopt


@in_a_world(**SPOT)
async def test_an_adoption_is_planned_on_a_copy_and_then_done(world: World) -> None:
    await world.start()
    before, version = core_hash(world.core), world.engine.session.meta.version
    plan = await world.ask(Ask.PLAN_ADOPT, "0.012 at 59000")
    assert plan.state == "done" and plan.result.startswith(
        "would adopt 0.012 BTC at 59000: 0.005 in cell 1/0 (60000 to "
    )
    assert core_hash(world.core) == before and world.engine.session.meta.version == version + 1
    kept: list[tuple[int, list[str]]] = []
    save = world.store.save

    def saving(state: Any, decision: Any = None, answers: Any = (), fills: Any = ()) -> None:
        kept.append((int(from_state(state)[0].v[Var.ADOPTED]), [answer.id for answer in answers]))
        save(state, decision, answers, fills)

    world.store.save = saving  # type: ignore[method-assign]
    said = await world.ask(Ask.ADOPT, "0.012 at 59000")
    assert kept[0] == (12, ["c2"]), "a crash would adopt it twice, or answer for nothing"
    assert said.result == plan.result.replace("would adopt", "adopted")
    assert world.engine.session.pnl().position_lots == 12
    closing = [one for one in await world.paper.open_orders() if one.side < 0]
    assert sum(one.quantity for one in closing) * 1_000 == 12
    await world.engine.compare()
    assert not world.core.risk[Trip.ACTIVE].any() and world.core.v[Var.DEFECTS] == 0
    assert await world.engine.residual2() == {"USDT": "0", "BTC": "0"}


@in_a_world(**SPOT)
async def test_what_cannot_be_adopted_is_refused_with_the_reason(world: World) -> None:
    await world.start()
    before = core_hash(world.core)
    for argument, words in (
        ("0.036 at 59000", "with open orders the position could reach 0.051 of at most 0.05"),
        ("0.041 at 59000", "only 0.04 BTC of what the account held when the grid began is left to adopt"),
        ("0.0005 at 59000", "only whole lots of 0.001 can be adopted"),
        ("-0.01 at 59000", "a grid of mode long does not hold it"),
    ):
        for kind in (Ask.PLAN_ADOPT, Ask.ADOPT):
            said = await world.ask(kind, argument)
            assert said.state == "refused" and words in said.result, said.result
    assert core_hash(world.core) == before and world.core.v[Var.DEFECTS] == 0
    assert (await world.ask(Ask.ADOPT, "0.03 at 59000")).state == "done"
    more = await world.ask(Ask.ADOPT, "0.02 at 59000")
    assert more.state == "refused" and "only 0.01 BTC of what" in more.result


@pytest.mark.parametrize(
    ("kind", "argument", "words"),
    [
        (Ask.CLEAR, "-3", "it is not EPOCH/CELL#NUMBER"),
        (Ask.ADOPT, "0.05", "it is not QUANTITY at COST"),
        (Ask.ADOPT, "0 at 60000", "the quantity is 0"),
        (Ask.ADOPT, "1 at -5", "a cost is above zero"),
        (Ask.RELOAD, "[grid", "not TOML"),
        (Ask.RELOAD, "x = 1\n" * 4_000, "more than 20000"),
    ],
)
def test_a_message_that_cannot_be_understood_is_not_written(kind: Ask, argument: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Request("id", "grid", kind, argument, "ann", "test", 0, 1)


def test_a_long_answer_is_cut_where_the_table_ends(tmp_path: Path) -> None:
    world = World(
        tmp_path, **SPOT | {"grid.order_notional": "70", "paper.base": "1", "grid.max_position": "0.9"}
    )

    async def adopt() -> Request:
        await world.start()
        return await world.ask(Ask.ADOPT, "0.1 at 59000")

    said = asyncio.run(adopt())
    assert said.state == "done" and len(said.result) <= 1_000 and said.result.endswith(" more cells")
    assert np.count_nonzero(world.core.slots[Col.OPENED]) == 100


# -- on an exchange in another place


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def test_over_a_network_a_clear_waits_its_turn_and_trading_goes_on(tmp_path: Path) -> None:
    """While the exchange is silent the worker goes on; once it speaks, the answers free the slot."""

    async def world() -> None:
        await warm_up()
        file = file_of(tmp_path)
        server = server_of(file, None, today=True)
        await server.start()
        await server.pass_moments(5)
        client = RemoteExchange(server.address, timeout_s=0.5)
        market, config, _ = open_market(file)
        store = SqliteStore(
            tmp_path / "grid.sqlite", instrument_of(config.settings).symbol, synchronous="OFF"
        )
        session, _ = open_session(config, first_price(market), store)
        mailbox = Mailbox(store.engine)

        async def prices() -> AsyncIterator[Price]:
            async for moment in client.moments():
                yield Price(moment.bid, moment.ask, moment.last)

        def send(name: str, kind: Ask, argument: str, lasts_ms: int = 60_000) -> None:
            now_ms = wall_ms()
            mailbox.send(Request(name, store.grid, kind, argument, "ann", "test", now_ms, now_ms + lasts_ms))

        def state(name: str) -> str:
            found = mailbox.find(name)
            assert found is not None
            return found.state

        engine = DurableEngine(session, client, prices, mailbox, wall_ms)
        engine.send_ms = 300
        server.faults.rates(1, dict.fromkeys(("place.request_lost", "order.request_lost"), 1_000))
        running = asyncio.create_task(engine.run())
        v, s = session.core.v, session.core.slots
        await until(lambda: v[Var.SLOTS] == 3 and (s[OPEN + Leg.STATUS, :3] == Order.UNKNOWN).all())
        server.faults.rates(1, dict.fromkeys(("fills.request_lost", "order.request_lost"), 1_000))
        cell, number = int(s[Col.CELL, 0]), int(s[OPEN + Leg.SEQ, 0])
        send("stuck", Ask.CLEAR, str(SlotSeen(1, cell, number)))
        send("short", Ask.CLEAR, str(SlotSeen(1, cell, number)), lasts_ms=400)
        send("tight", Ask.RELOAD, values_of(tmp_path, **{"grid.grid_size": 2}))
        await until(lambda: state("tight") == "done")
        assert state("stuck") == "waiting" and session.par[Par.BUYS] == 2
        await until(lambda: state("short") == "expired")
        server.faults.rates(
            1, {"fills.request_lost": 1_000}
        )  # what else would ask for orders asks for trades first
        await until(lambda: state("stuck") != "waiting")
        found = mailbox.find("stuck")
        assert found is not None and found.state == "done" and found.result.endswith("the slot is free")
        server.faults.rates(1, {})
        send("end", Ask.STOP, "cancel")
        receipt = await asyncio.wait_for(running, 30)
        assert receipt.open_orders == 0 and receipt.defects == 0
        assert session.core.risk[Trip.ACTIVE, Trigger.ABSENT_ORDER] == 0
        await client.close()
        await server.close()

    asyncio.run(world())
