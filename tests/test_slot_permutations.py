"""The grid comes to the same slots, position and profit, whatever order an order's reports come in."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core_source import shipped
from gridmm.layout import Kind, Var
from gridmm.vocabulary import Report
from order_story import LOTS, Grid, Story, Trade, events, retire

ENDS = (Report.CANCELED, Report.EXPIRED)
CORE = shipped()

# compiling the core, where no cache holds it, takes longer than any deadline
patient = settings(deadline=None, max_examples=150, derandomize=True)


@st.composite
def stories(draw: st.DrawFn, lots_max: int = LOTS) -> Story:
    """Draw trades off the lattice, with fees and rebates, and an end."""
    trades: list[Trade] = []
    left = draw(st.integers(0, lots_max))
    while left:
        lots = draw(st.integers(1, left))
        trades.append(Trade(lots, draw(st.integers(-4, 4)), draw(st.integers(-9, 9))))
        left -= lots
    return Story(tuple(trades), draw(st.sampled_from(ENDS)))


@st.composite
def shuffled(draw: st.DrawFn, told: list[np.ndarray]) -> list[np.ndarray]:
    """Draw an order of events, some of them more than once."""
    again = draw(st.lists(st.integers(0, len(told) - 1), max_size=len(told)))
    order = draw(st.permutations([*range(len(told)), *again]))
    return [told[at] for at in order]


@patient
@given(data=st.data(), direction=st.sampled_from((1, -1)), story=stories())
def test_every_order_of_reports_folds_to_the_same_state(data: Any, direction: int, story: Story) -> None:
    straight, mixed = Grid(CORE, direction), Grid(CORE, direction)
    told = events(straight.order, story)
    assert list(straight.told(told, decides=False)) == []
    assert list(mixed.told(data.draw(shuffled(told)), decides=False)) == []
    assert mixed.seen() == straight.seen()
    assert mixed.core.v[[Var.EXECUTION, Var.FEES]].tolist() == [
        sum(2 * trade.better * trade.lots for trade in story.trades),
        -sum(trade.fee for trade in story.trades),
    ]
    assert CORE.ledger_position(mixed.core) == direction * story.cum


@patient
@given(data=st.data(), direction=st.sampled_from((1, -1)), story=stories())
def test_every_order_of_reports_earns_the_same_while_the_grid_trades(
    data: Any, direction: int, story: Story
) -> None:
    straight, mixed = Grid(CORE, direction), Grid(CORE, direction)
    told = events(straight.order, story)
    assert list(straight.told(told, decides=True)) == []
    assert list(mixed.told(data.draw(shuffled(told)), decides=True)) == []
    assert mixed.worth() == straight.worth()


@patient
@given(story=stories())
def test_trades_may_all_come_before_or_all_after_the_reports(story: Story) -> None:
    first, last = Grid(CORE), Grid(CORE)
    told = events(first.order, story)
    trades = [ev for ev in told if ev[0] == Kind.FILL]
    reports = [ev for ev in told if ev[0] == Kind.ORDER]
    assert list(first.told([*trades, *reports], decides=False)) == []
    assert list(last.told([*reports, *trades], decides=False)) == []
    assert first.seen() == last.seen()


@patient
@given(data=st.data(), direction=st.sampled_from((1, -1)), story=stories(), settled=st.integers(0, LOTS))
def test_fills_that_come_after_their_slot_was_freed_find_their_cell(
    data: Any, direction: int, story: Story, settled: int
) -> None:
    """The exchange told of `settled` lots, the slot closed them, and then more of the truth arrives."""
    straight, mixed = Grid(CORE, direction), Grid(CORE, direction)
    told = events(straight.order, story)
    for grid in (straight, mixed):
        retire(grid, min(settled, story.cum))
    assert list(straight.told(told, decides=False)) == []
    assert list(mixed.told(data.draw(shuffled(told)), decides=False)) == []
    seen = mixed.seen()
    assert seen == straight.seen()
    assert CORE.ledger_position(mixed.core) == direction * (story.cum - min(settled, story.cum))
