"""Worlds that break in every way they can: no rule is broken meanwhile, and the grid is whole again afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from gridmm.client_id import decode
from gridmm.engine import Orders, Session
from gridmm.engine_durable import SEND_MS, DurableEngine
from gridmm.exchange import OrderRequest
from gridmm.layout import Ev, Kind
from gridmm.run import open_session
from gridmm.store import MemoryStore
from gridmm.vocabulary import Report
from gridmm.words import price_event
from simulated import PRICE, Disk, Fault, Life, World, config_of
from simulation import outcome, shrink

SEEDS, SLICE = 300, 25


@pytest.mark.parametrize("first", range(0, SEEDS, SLICE))
def test_no_world_breaks_a_rule(first: int) -> None:
    for seed in range(first, first + SLICE):
        assert not outcome(seed).rule, "\n" + shrink(seed).story


def test_every_fault_strikes(note: Callable[[str], None]) -> None:
    struck: Counter[str] = Counter()
    for seed in range(30):
        struck.update(outcome(seed).struck)
    assert {fault.value for fault in Fault} == {name for name, count in struck.items() if count}
    note("faults in 30 worlds: " + ", ".join(f"{name} {count}" for name, count in sorted(struck.items())))


def test_one_seed_is_one_world() -> None:
    first, second = (World(7).run() for _ in range(2))
    assert list(first.trace) == list(second.trace)
    assert first.disk._data == second.disk._data
    assert list(World(8).run().trace) != list(first.trace)


def test_without_faults_nothing_is_refused_or_asked_twice() -> None:
    world = World(11, faults=()).run()
    assert world.broken is None
    assert len(world.lives) == 1 and sum(world.struck.values()) == 0
    assert len(world.receipts) == 1 and world.receipts[0].open_orders == 0


# -- what the simulation found ------------------------------------------------------------------------


def test_time_goes_on_when_the_clock_is_set_back() -> None:
    """With the clock an hour back, no question fell due and no command was read for that hour."""
    world = World(0, 0, ())
    session, _ = open_session(world.config, PRICE, Disk(Life(world, 1, 0)))  # type: ignore[arg-type]
    clock = [1_700_000_000_000]
    engine = DurableEngine(session, world, lambda: None, None, lambda: clock[0])  # type: ignore[arg-type, return-value]

    async def watch() -> tuple[int, int]:
        before = engine.now_ms
        clock[0] -= 3_600_000
        await asyncio.sleep(5)
        return engine.now_ms - before, engine.deadline_ms() - clock[0]

    try:
        passed_ms, send_ms = world.loop.run_until_complete(watch())
    finally:
        world.loop.close()
        world.paper.ledger.close()
    assert passed_ms == 5_000
    assert send_ms == SEND_MS


def test_an_order_does_not_leave_late_because_the_clock_was_set_back() -> None:
    """Its deadline was read on a clock that could be set: it left seconds after it had been declared absent."""
    assert not outcome(5_729).rule, "\n" + shrink(5_729).story


class Told:
    """A neutral perpetual grid that is told of its orders by hand."""

    def __init__(self) -> None:
        self.session: Session
        self.session, _ = open_session(config_of(0), PRICE, MemoryStore("SIM/USDT:USDT", "told"))  # type: ignore[arg-type]
        self.placed: dict[str, OrderRequest] = {}
        self.time_ms = 1_700_000_000_000
        self.take(price_event(self.time_ms, PRICE - 1, PRICE + 1, PRICE))

    def take(self, ev: np.ndarray) -> Orders:
        """Take an event and remember what it places."""
        orders = self.session.take(ev)
        self.placed |= {one.client_id: one for one in orders.place}
        return orders

    def report(self, client_id: str, report: Report) -> Orders:
        """Tell of an order that it was accepted or is filled."""
        request, words = self.placed[client_id], self.session.words
        lots = words.instrument.lots(request.quantity)
        cells = {"PRICE": words.instrument.price_ticks(request.price), "LOTS": lots, "REPORT": report}
        ev = words._about(client_id, self.time_ms, Kind.ORDER, CUM=lots * (report == Report.FILLED), **cells)
        assert ev is not None and ev[Ev.SEQ] > 0
        return self.take(ev)


def test_a_grid_that_holds_both_signs_can_close_both() -> None:
    """Both sides of a neutral grid fill before either is heard of: the net position is 0 and no close reduces it.

    As reduce-only the exchange would refuse one close after the other, and the grid would hold both cells for ever.
    """
    grid = Told()
    for client_id in list(grid.placed):
        grid.report(client_id, Report.ACCEPTED)
    buy = max((one for one in grid.placed.values() if one.side == 1), key=lambda one: one.price)
    sell = max((one for one in grid.placed.values() if one.side == -1), key=lambda one: one.price)
    (closes_long,) = closing(grid.report(buy.client_id, Report.FILLED))
    assert closing(grid.report(sell.client_id, Report.FILLED)) == []  # it would meet the other one
    (closes_short,) = closing(grid.report(closes_long.client_id, Report.REJECTED))
    assert (closes_long.side, closes_short.side) == (-1, 1)
    assert not closes_short.reduce_only


def closing(orders: Orders) -> list[OrderRequest]:
    """Return the closing orders among those that go out."""
    return [one for one in orders.place if decode(one.client_id).leg == 1]
