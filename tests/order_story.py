"""The life of one order as events, in any order, and what the grid makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from core_source import Functions
from gridmm.layout import CLOSE, OPEN, TIME_LEGS, Act, Book, Core, Kind, Par, Var, empty_core
from gridmm.vocabulary import Report, Trigger, Trip
from slot_world import event, parameters

LOTS = 10
MARKS2 = (119_990, 120_000, 120_013)
NAMED = ("SEQ", "EPOCH", "CELL", "LEG", "SIDE", "PRICE", "LOTS", "DIRECTION")


class Trade(NamedTuple):
    """A fill: lots, ticks better than the order's limit, fee in atoms."""

    lots: int
    better: int
    fee: int


class Story(NamedTuple):
    """What truly happened to an order: its trades, and how it ended if they did not fill it."""

    trades: tuple[Trade, ...]
    end: Report

    @property
    def cum(self) -> int:
        """Lots filled."""
        return sum(trade.lots for trade in self.trades)


class Grid:
    """A grid of one cell of ten lots a side, and the order that it placed first."""

    def __init__(self, functions: Functions, direction: int = 1) -> None:
        self.functions = functions
        self.par = parameters(direction)
        self.par[Par.CELL_ATOMS] = 2 * 60_050 * LOTS
        self.par[[Par.MAX_LOTS, Par.GROSS_LOTS]] = LOTS
        self.core: Core = empty_core()
        self.order = self.placed(event(Kind.PRICE, BID=59_999, ASK=60_001, LAST=60_000))

    def placed(self, ev: np.ndarray) -> dict[str, int]:
        """Give the grid an event and return the last order that it wants placed."""
        row = self.functions.advance(self.core, self.par, ev).actions[:, -1]
        return {name: int(row[Act[name]]) for name in NAMED}

    def told(self, events: Iterable[np.ndarray], *, decides: bool) -> Iterator[str]:
        """Give the grid events, and yield every promise that one of them breaks."""
        for ev in events:
            if decides:
                self.functions.advance(self.core, self.par, ev)
            else:
                self.functions.fold(self.core, self.par, ev)
            for mark2 in MARKS2:
                if left := int(self.functions.residual(self.core, self.par, mark2)):
                    yield f"residual 1 is {left} at {mark2}"

    def seen(self) -> dict[str, object]:
        """Return what may not depend on the order in which reports came: all but times and scratch."""
        core, v = self.core, self.core.v
        slots = core.slots[:, : v[Var.SLOTS]].copy()
        for leg in TIME_LEGS:
            slots[[OPEN + leg, CLOSE + leg]] = 0
        book = core.book[[Book.SEQ, Book.SIDE, Book.TRADED], : v[Var.BOOK]]
        return {
            "slots": slots.tolist(),
            "retired": core.retired[:, : v[Var.RETIRED]].tolist(),
            "ledger": (book.tolist(), int(v[Var.CASH]), int(self.functions.ledger_position(core))),
            "alarms": core.risk[Trip.COUNT, [Trigger.STRAY_ORDER, Trigger.MISMATCH]].tolist(),
            **self.worth(),
        }

    def worth(self) -> dict[str, object]:
        """Return position and profit at several marks."""
        worth: dict[str, object] = {}
        for mark2 in MARKS2:
            self.core.v[Var.MARK2] = mark2
            worth[f"profit at {mark2}"] = tuple(map(int, self.functions.pnl(self.core, self.par)))
        parts = (Var.HARVEST, Var.EXECUTION, Var.EXIT, Var.FEES, Var.FILLS, Var.ROUND_TRIPS, Var.DEFECTS)
        worth["parts"] = {part.name: int(self.core.v[part]) for part in parts}
        worth["bases"] = self.core.v[[Var.PIVOT, Var.BUY_BASE, Var.SELL_BASE]].tolist()
        return worth


def events(order: dict[str, int], story: Story, first_key: int = 100) -> list[np.ndarray]:
    """Return the reports and the trades of an order, as they happened."""
    cum, made = 0, [event(Kind.ORDER, REPORT=Report.ACCEPTED, CUM=0, **order)]
    for at, trade in enumerate(story.trades):
        cum += trade.lots
        says = Report.FILLED if cum == order["LOTS"] else Report.PARTIAL
        made.append(event(Kind.ORDER, REPORT=says, CUM=cum, **order))
        price = order["PRICE"] - order["SIDE"] * trade.better
        cells = {**order, "PRICE": price, "LOTS": trade.lots}
        made.append(event(Kind.FILL, TRADE=first_key + at, FEE=trade.fee, **cells))
    if cum < order["LOTS"]:
        made.append(event(Kind.ORDER, REPORT=story.end, CUM=cum, **order))
    return made


def retire(grid: Grid, cum: int) -> None:
    """Fill `cum` lots of the first order, cancel its rest, and close what it holds: its slot is free again."""
    order = grid.order
    tell = grid.functions.advance
    tell(grid.core, grid.par, event(Kind.ORDER, REPORT=Report.ACCEPTED, CUM=0, **order))
    tell(grid.core, grid.par, event(Kind.RISK, CODE=Trigger.STALE_USER, ARG=1))
    done = event(Kind.ORDER, REPORT=Report.CANCELED, CUM=cum, **order)
    if cum:
        close = grid.placed(done)
        tell(grid.core, grid.par, event(Kind.ORDER, REPORT=Report.FILLED, CUM=cum, **close))
    else:
        tell(grid.core, grid.par, done)
    assert grid.core.v[Var.SLOTS] == 0
    assert grid.core.v[Var.RETIRED] == (2 if cum else 1)
