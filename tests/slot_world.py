"""A true little exchange beside the real core: what each knows, and what each may tell the other.

`Grid` runs the real core for one event, from a state without times and counters to the next one.
`Sent` is one order in truth. What happens between them is tried by `slot_search`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from core_source import Functions
from gridmm.layout import (
    CLOSE,
    EVENT_SIZE,
    OPEN,
    PAR_SIZE,
    Book,
    Col,
    Ev,
    Kind,
    Leg,
    Par,
    Ret,
    Var,
    empty_core,
)
from gridmm.vocabulary import Mode, Order, Reason, Report, Risk, Stop, Trigger, Trip

NOW_MS = 1_000_000
QUERY_AFTER_MS = 5_000
MARK2 = 120_000
FEE = 3
KEYS_PER_ORDER = 8
LOTS = 2
NORMAL, REDUCE_ONLY, HALTED, FLATTEN = range(4)  # what risk or the operator may ask for

Row = tuple[int, ...]  # a column of the state, or an event
Bounds = tuple[Row, ...]  # (cell, lowest, highest) of each slot


class Local(NamedTuple):
    """What the grid knows, its times and counters taken out."""

    mode: int
    bases: tuple[int, int, int]
    next_seq: int
    slots: tuple[Row, ...]
    retired: tuple[Row, ...]
    book: tuple[Row, ...]
    trades: Row
    bounds: Bounds


class Sent(NamedTuple):
    """One order in truth."""

    seq: int
    cell: int
    leg: int
    side: int
    price: int
    lots: int
    direction: int
    placing: int = 1  # 1 its request is on its way
    status: int = 0  # 0 never arrived, 1 on the book, 2 ended
    trades: Row = ()
    end: tuple[int, int] = (0, 0)  # (report, cumulative lots that it tells)
    cancelling: int = 0
    asking: int = 0
    answers: tuple[tuple[int, int], ...] = ()

    @property
    def cum(self) -> int:
        """Lots filled."""
        return sum(self.trades)

    @property
    def may_fill(self) -> int:
        """Lots that may still fill, on the book or on the way to it."""
        return self.lots - self.cum if self.placing or self.status == 1 else 0


def parameters(direction: int) -> np.ndarray:
    """Return a grid of one cell a side, two lots a cell, and a cap of two lots."""
    par = np.zeros(PAR_SIZE, dtype=np.int64)
    million = 10**6
    par[[Par.MODE, Par.BUYS, Par.SELLS, Par.BASE]] = Mode.LONG if direction > 0 else Mode.SHORT, 1, 1, 50
    par[[Par.SCALE_PPM, Par.CAP_PPM, Par.CHANGE_PCT]] = million, 4 * million, 20
    par[[Par.HALF_ATOMS, Par.CELL_ATOMS]] = 1, 2 * 60_500 * LOTS  # two lots at every price near
    par[[Par.MAX_LOTS, Par.GROSS_LOTS, Par.MIN_LOTS]] = LOTS, LOTS, 1
    par[[Par.MAX_ORDERS, Par.MAX_EPOCHS, Par.QUERY_AFTER_MS]] = 100, 3, QUERY_AFTER_MS
    par[Par.SLIPPAGE_TICKS] = 5
    for trigger, mode in ((Trigger.STALE_USER, Risk.REDUCE_ONLY), (Trigger.CLOCK_SKEW, Risk.HALTED)):
        par[Par.LIMITS + trigger], par[Par.LIMITS + len(Trigger) + trigger] = 1, mode
    return par


def event(kind: int, time_ms: int = NOW_MS, **cells: int) -> np.ndarray:
    """Return an event by the names of its cells."""
    ev = np.zeros(EVENT_SIZE, dtype=np.int64)
    ev[Ev.KIND], ev[Ev.TIME_MS] = kind, time_ms
    for name, value in cells.items():
        ev[Ev[name]] = value
    return ev


class Outcome(NamedTuple):
    """What one event made of the grid: its state, its plan, and the promises that it broke."""

    local: Local
    plan: tuple[Row, ...]
    broken: tuple[tuple[str, str], ...]


class Grid:
    """The real core on one working state, loaded and unloaded for each event; answers are remembered."""

    def __init__(self, functions: Functions, direction: int = 1) -> None:
        self.functions = functions
        self.par = parameters(direction)
        self.core = empty_core()
        self.calls = 0
        price = event(Kind.PRICE, BID=59_999, ASK=60_001, LAST=60_000)
        plan = functions.advance(self.core, self.par, price)
        self.first_plan = rows(plan.actions)
        self.template = self.core.v.copy()
        self.template[Var.PLANS] = 0
        self.risks = {mode: self._risk(mode) for mode in (NORMAL, REDUCE_ONLY, HALTED, FLATTEN)}
        self.first = self._unload(NORMAL)

    def _risk(self, mode: int) -> np.ndarray:
        table = self.core.risk.copy()
        for trigger, asked in (
            (Trigger.STALE_USER, mode == REDUCE_ONLY),
            (Trigger.CLOCK_SKEW, mode == HALTED),
        ):
            table[Trip.VALUE, trigger] = table[Trip.ACTIVE, trigger] = int(asked)
        return table

    def take(self, local: Local, cells: Row) -> Outcome:
        """Return what one event makes of the grid."""
        self.calls += 1
        self.load(local)
        ev = np.array(cells + (0,) * (EVENT_SIZE - len(cells)), dtype=np.int64)
        try:
            plan = rows(self.functions.advance(self.core, self.par, ev).actions)
            mode = local.mode if ev[Ev.KIND] not in (Kind.RISK, Kind.COMMAND) else self._mode()
            after = self._unload(mode)
        except (IndexError, ZeroDivisionError) as error:  # a mutant may run into a wall
            return Outcome(local, (), (("runs", repr(error)),))
        broken = (*self._broken(local, after), *_forgotten(cells, local, after))
        return Outcome(after, plan, broken)

    def _mode(self) -> int:
        if self.core.v[Var.STOP] == Stop.FLATTEN:
            return FLATTEN
        return int(self.core.v[Var.RISK])

    def load(self, local: Local) -> None:
        """Make the working state the one that knows `local`, at a fixed time, with every residual at zero."""
        core, v = self.core, self.core.v
        v[:] = self.template
        v[Var.BUY_BASE], v[Var.SELL_BASE], v[Var.PIVOT] = local.bases
        v[Var.NOW_MS], v[Var.NEXT_SEQ] = NOW_MS, local.next_seq
        v[Var.RISK] = local.mode if local.mode < FLATTEN else 0
        v[Var.STOP] = Stop.FLATTEN if local.mode == FLATTEN else Stop.RUN
        core.risk[:] = self.risks[local.mode]
        for array, count, columns in (
            (core.slots, Var.SLOTS, local.slots),
            (core.retired, Var.RETIRED, local.retired),
            (core.book, Var.BOOK, local.book),
        ):
            v[count] = len(columns)
            if columns:
                array[:, : len(columns)] = np.array(columns, dtype=np.int64).T
        v[Var.TRADES] = len(local.trades)
        core.trades[: len(local.trades)] = local.trades
        lots = sum(position(row) for row in local.slots)
        debts = sum(row[Book.SIDE] * max(row[Book.CUM] - row[Book.TRADED], 0) for row in local.book)
        v[Var.LEDGER_LOTS] = lots - debts
        v[Var.CASH] = v[Var.HARVEST] = v[Var.EXECUTION] = v[Var.EXIT] = v[Var.FEES] = v[Var.LEDGER_FEES] = 0
        v[Var.CASH] = -self.functions.residual(core, self.par, MARK2)

    def _unload(self, mode: int) -> Local:
        core, v = self.core, self.core.v.tolist()
        slots = tuple(_calm(row, v[Var.NOW_MS]) for row in rows(core.slots[:, : v[Var.SLOTS]]))
        return Local(
            mode=mode,
            bases=(v[Var.BUY_BASE], v[Var.SELL_BASE], v[Var.PIVOT]),
            next_seq=v[Var.NEXT_SEQ],
            slots=slots,
            retired=tuple(sorted(rows(core.retired[:, : v[Var.RETIRED]]))),
            book=tuple(sorted(map(_settle_debt, rows(core.book[:, : v[Var.BOOK]])))),
            trades=tuple(sorted(core.trades[: v[Var.TRADES]].tolist())),
            bounds=tuple(
                (row[Col.CELL], *map(int, self.functions.bounds(core.slots, i)))
                for i, row in enumerate(slots)
            ),
        )

    def _broken(self, before: Local, after: Local) -> Iterator[tuple[str, str]]:
        """Yield the promises that the core broke in one event, by its own numbers."""
        core, v = self.core, self.core.v
        left = int(self.functions.residual(core, self.par, MARK2))
        if left:
            yield "residual 1", f"{left} atoms"
        lots = sum(position(row) for row in after.slots)
        if int(self.functions.ledger_position(core)) != lots:
            yield "residual 1", f"slots hold {lots} lots, the ledger {self.functions.ledger_position(core)}"
        for name in (Var.DEFECTS, Var.LATE, Var.STRAYS):
            if v[name]:
                yield "no defect", f"{name.name} counts {v[name]}"
        for trigger in (Trigger.LATE_FILL, Trigger.STRAY_ORDER, Trigger.MISMATCH):
            if core.risk[Trip.COUNT, trigger]:
                yield "no defect", f"{trigger.name} trips"
        if core.risk[Trip.COUNT, Trigger.ABSENT_ORDER]:
            yield "no false alarm", "ABSENT_ORDER trips"
        before_of = {seq: (status, cum) for seq, status, cum in known(before)}
        for seq, status, cum in known(after):
            old = before_of.get(seq, (0, 0))
            if status < old[0] or cum < old[1]:
                yield "status rises", f"order {seq} fell from {old} to {(status, cum)}"
        net, upper, lower, _ = map(int, self.functions.exposure(core))
        top = sum(max(high, 0) for _, _, high in after.bounds)
        bottom = sum(min(low, 0) for _, low, _ in after.bounds)
        sums = (lots, top, bottom)
        if (net, upper, lower) != sums:
            yield "bounds", f"exposure {(net, upper, lower)} is not the sum of its slots {sums}"


def rows(array: np.ndarray) -> tuple[Row, ...]:
    """Return the columns of an array as tuples."""
    return tuple(map(tuple, array.T.tolist()))


def _forgotten(cells: Row, before: Local, after: Local) -> Iterator[tuple[str, str]]:
    """Yield the questions about working orders that a report closes: it is no answer, it may be old."""
    if cells[0] == Kind.ORDER and cells[Ev.REPORT] not in (Report.ACCEPTED, Report.PARTIAL):
        return
    asked = _questions(before) - _questions(after)
    working = {seq for seq, status, _ in known(after) if status == Order.WORKING}
    for seq in asked & working & {seq for seq, status, _ in known(before) if status == Order.WORKING}:
        yield "questions stay", f"the one about order {seq} is gone"


def _questions(local: Local) -> set[int]:
    """Return the orders about which a question is open."""
    return {row[base + Leg.SEQ] for row in local.slots for base in (OPEN, CLOSE) if row[base + Leg.QUERY_MS]}


def difference(before: Local, after: Local) -> str:
    """Return which parts of what the grid knows differ."""
    return "; ".join(
        f"{name} from {old} to {new}"
        for name, old, new in zip(Local._fields, before, after, strict=True)
        if old != new
    )


def _settle_debt(row: Row) -> Row:
    """Return a row of the ledger without a quantity and a price that tell nothing: no debt is left."""
    cells = list(row)
    if cells[Book.CUM] <= cells[Book.TRADED]:
        cells[Book.CUM], cells[Book.PRICE] = cells[Book.TRADED], 0
    return tuple(cells)


def position(row: Row) -> int:
    """Return the signed lots of a slot, by arithmetic of our own."""
    closed = row[Col.CLOSED] + row[Col.EXITED] + row[CLOSE + Leg.CUM]
    return row[Col.DIR] * (row[Col.OPENED] + row[OPEN + Leg.CUM] - closed)


def known(local: Local) -> Iterator[tuple[int, int, int]]:
    """Yield (seq, status, cumulative lots) of every order that the grid knows."""
    for row in local.slots:
        for base in (OPEN, CLOSE):
            if row[base + Leg.SEQ]:
                yield row[base + Leg.SEQ], row[base + Leg.STATUS], row[base + Leg.CUM]
    for row in local.retired:
        yield row[Ret.SEQ], row[Ret.STATUS], row[Ret.CUM]


def _calm(row: Row, now_ms: int) -> Row:
    """Return a slot without what only tells and never decides; times are due, not due, or none."""
    cells = list(row)
    cells[Col.OPENED] -= cells[Col.CLOSED] + cells[Col.EXITED]
    cells[Col.CLOSED] = cells[Col.EXITED] = cells[Col.WHY] = cells[Col.WHY_CLOSE] = 0
    for base in (OPEN, CLOSE):
        cells[base + Leg.REJECTS] = min(cells[base + Leg.REJECTS], 1)
        cells[base + Leg.WHY] = cells[base + Leg.TOUCH] = 0
        cells[base + Leg.TIME_MS] = cells[base + Leg.RETRY_MS] = 0
        asked = cells[base + Leg.QUERY_MS] if 0 < cells[base + Leg.STATUS] < Order.TERMINAL else 0
        if asked:
            asked = NOW_MS if asked <= now_ms else NOW_MS + QUERY_AFTER_MS
        cells[base + Leg.QUERY_MS] = asked
    return tuple(cells)


# ---------------------------------------------------------------------------------------------------
# What the exchange may tell


def report(order: Sent, says: int, cum: int) -> Row:
    """Return an order event."""
    return (
        Kind.ORDER, NOW_MS, order.seq, 1, order.cell, order.leg, order.side, order.price, order.lots,
        says, cum, Reason.OTHER if says == Report.REJECTED else 0, order.direction,
    )  # fmt: skip


def trade(order: Sent, index: int) -> Row:
    """Return a fill event."""
    key = order.seq * KEYS_PER_ORDER + index
    price = order.price - order.side  # one tick better than its limit: an error of sign shows
    return (
        Kind.FILL, NOW_MS, order.seq, 1, order.cell, order.leg, order.side, price, order.trades[index],
        key, FEE, 0, order.direction,
    )  # fmt: skip


def reports(order: Sent) -> list[Row]:
    """Return everything that the exchange has ever told of an order by itself, in the order of its making."""
    told = []
    if order.status and order.end[0] != Report.REJECTED:
        told.append(report(order, Report.ACCEPTED, 0))
    cum = 0
    for index, lots in enumerate(order.trades):
        cum += lots
        if cum < order.lots:
            told.append(report(order, Report.PARTIAL, cum))
        else:
            told.append(report(order, Report.FILLED, cum))
        told.append(trade(order, index))
    if order.status == 2 and order.end[0] != Report.FILLED:
        told.append(report(order, *order.end))
    return told


TIMER: Row = (Kind.TIMER, NOW_MS)
DUE: Row = (Kind.TIMER, NOW_MS + 2 * QUERY_AFTER_MS)
