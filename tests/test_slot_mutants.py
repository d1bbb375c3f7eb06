"""Every mistake that a prototype once made is caught, by the check that is there for it.

A mutant is the real source with one thought changed. Each row names the check that must see it; the
real source must pass the same check, or it would prove nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import pytest

from core_source import Edit, Functions, plain
from gridmm.layout import Account, Act, Kind, Par, empty_core
from gridmm.vocabulary import Action, Mode, Report
from order_story import NAMED, Grid, Story, Trade, events, retire
from slot_search import HALTED, NORMAL, NOT_KEPT, Limits, Search
from slot_world import event, parameters

MARKS2 = (119_000, 120_001)
FUNDING = 1_234

# -- the checks: each returns what broke, or nothing --------------------------------------------------


def search(functions: Functions, *ignored: str) -> tuple[str, int]:
    """Return the first promise that breaks in a small search, and in how many steps."""
    limits = Limits(modes=(NORMAL, HALTED), states_max=3_000, ignore=NOT_KEPT | set(ignored))
    found = Search(functions, limits).run()
    return found.check, len(found.path)


def orders(functions: Functions) -> tuple[str, int]:
    """Return what breaks in a search that overlooks a question which was dropped."""
    return search(functions, "questions stay")


def liveness(functions: Functions) -> tuple[str, int]:
    """Return whether a fair continuation comes to rest, in a search that overlooks the fall of a status."""
    limits = Limits(states_max=5_000, ignore=NOT_KEPT | {"status rises", "twice"})
    return Search(functions, limits).run().check, 0


def permutations(functions: Functions) -> tuple[str, int]:
    """Return what depends on the order of an order's reports, over some stories and shuffles."""
    luck = random.Random(7)
    for _ in range(30):
        trades: list[Trade] = []
        while sum(trade.lots for trade in trades) < 7:
            trades.append(Trade(luck.randint(1, 3), luck.randint(-4, 4), luck.randint(-9, 9)))
        story = Story(tuple(trades), Report.EXPIRED)
        for settled in (None, luck.randint(0, story.cum)):
            straight, mixed = Grid(functions), Grid(functions)
            told = events(straight.order, story)
            for grid in (straight, mixed):
                if settled is not None:
                    retire(grid, settled)
            broken = list(straight.told(told, decides=False))
            broken += mixed.told(luck.sample([*told, *told], 2 * len(told)), decides=False)
            if broken:
                return "residual 1", 0
            if straight.seen() != mixed.seen():
                return "the order matters", 0
    return "", 0


class Day:
    """A market day on a grid of three levels, and a wallet that knows the truth and nothing else."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.core, self.par = empty_core(), parameters(1)
        self.par[Par.BUYS] = self.par[Par.SELLS] = 3
        self.par[Par.CELL_ATOMS], self.par[[Par.MAX_LOTS, Par.GROSS_LOTS]] = 2 * 60_050 * 10, 100
        self.cash = self.lots = self.trades = 0
        self.orders: dict[int, dict[str, int]] = {}
        self.broken = ""
        self.tell(Kind.PRICE, BID=59_999, ASK=60_001, LAST=60_000)
        self.live()

    def tell(self, kind: int, **cells: int) -> None:
        """Give the grid an event, and look at the first residual."""
        plan = self.functions.advance(self.core, self.par, event(kind, **cells))
        for row in plan.actions.T:
            if row[Act.ACTION] == Action.PLACE:
                self.orders[int(row[Act.SEQ])] = {name: int(row[Act[name]]) for name in NAMED}
        if any(self.functions.residual(self.core, self.par, mark2) for mark2 in MARKS2):
            self.broken = self.broken or "residual 1"

    def report(self, seq: int, says: Report, cum: int) -> None:
        """Tell of an order."""
        self.tell(Kind.ORDER, REPORT=says, CUM=cum, **self.orders[seq])

    def fill(self, seq: int, lots: int, *, better: int = 1, fee: int = 7) -> None:
        """Fill an order in truth, and tell of the trade, twice."""
        order = self.orders[seq]
        price = order["PRICE"] - order["SIDE"] * better
        self.cash -= order["SIDE"] * price * lots * 2 + fee
        self.lots += order["SIDE"] * lots
        self.trades += 1
        for _ in range(2):
            self.tell(Kind.FILL, TRADE=self.trades, FEE=fee, **{**order, "PRICE": price, "LOTS": lots})

    def live(self) -> None:
        """Trade: by trades and by reports, in part and in full, off the lattice, with fees and funding."""
        for seq in (1, 2, 3):
            self.report(seq, Report.ACCEPTED, 0)
        self.fill(1, 4)
        self.report(1, Report.FILLED, 10)
        self.fill(1, 6, better=3)
        close = max(self.orders)
        self.report(close, Report.ACCEPTED, 0)
        self.tell(Kind.ACCOUNT, CODE=Account.FUNDING, ARG=1, ARG2=FUNDING)
        self.cash += FUNDING
        self.fill(2, 10, better=-2, fee=-5)
        self.fill(close, 4, better=2)
        self.tell(Kind.PRICE, BID=59_890, ASK=59_892, LAST=59_891)

    def residual_2(self) -> str:
        """Return whether the ledger differs from the wallet, once every trade was told."""
        lots = self.functions.ledger_position(self.core)
        gains = [self.functions.ledger_gain(self.core, self.par, mark2) for mark2 in MARKS2]
        truth = [self.cash + self.lots * mark2 for mark2 in MARKS2]
        return "" if (lots, gains) == (self.lots, truth) else "residual 2"


def residual_1(functions: Functions) -> tuple[str, int]:
    """Return whether the parts and the ledger differ on a market day."""
    return Day(functions).broken, 0


def residual_2(functions: Functions) -> tuple[str, int]:
    """Return whether the ledger and the wallet differ after a market day that the parts agree on."""
    day = Day(functions)
    return day.broken or day.residual_2(), 0


def pivot(functions: Functions) -> tuple[str, int]:
    """Return whether a price that stays between two levels moves any order."""
    core, par = empty_core(), parameters(1)
    par[[Par.MODE, Par.BUYS, Par.SELLS]] = Mode.NEUTRAL, 3, 3
    par[[Par.MAX_LOTS, Par.GROSS_LOTS]] = 100

    def wanted(price: int) -> int:
        plan = functions.advance(core, par, event(Kind.PRICE, BID=price - 1, ASK=price + 1, LAST=price))
        placed = [row for row in plan.actions.T.tolist() if row[Act.ACTION] == Action.PLACE]
        for row in placed:
            order = {name: row[Act[name]] for name in NAMED}
            functions.advance(core, par, event(Kind.ORDER, REPORT=Report.ACCEPTED, CUM=0, **order))
        return int(plan.actions.shape[1])

    assert wanted(60_000) == 6
    moved = sum(wanted(60_024 + tick % 2) for tick in range(60))
    moved += sum(wanted(59_951 + 7 * tick % 98) for tick in range(60))
    return "empty plan" if moved else "", 0


def passed(functions: Functions) -> tuple[str, int]:
    """Return whether a market that has left all refused orders above it is quoted no more."""
    core, par = empty_core(), parameters(1)
    par[[Par.MODE, Par.BUYS]] = Mode.LONG, 3
    par[[Par.MAX_LOTS, Par.GROSS_LOTS]] = 100
    par[[Par.BACKOFF_MS, Par.BACKOFF_MAX_MS]] = 1_000
    quote = event(Kind.PRICE, 0, BID=59_999, ASK=60_001, LAST=60_000)
    for row in functions.advance(core, par, quote).actions.T.tolist():
        order = {name: row[Act[name]] for name in NAMED}
        functions.advance(core, par, event(Kind.ORDER, 0, REPORT=Report.NOT_SENT, CUM=0, **order))
    quote = event(Kind.PRICE, 100_000, BID=59_499, ASK=59_501, LAST=59_500)
    return "" if functions.advance(core, par, quote).actions.shape[1] == 3 else "silent for ever", 0


# -- the mutants -------------------------------------------------------------------------------------

Check = Callable[[Functions], tuple[str, int]]
MUTANTS: dict[str, tuple[Check, str, int, list[Edit]]] = {
    "the fee of a fill has the wrong sign": (
        residual_1, "residual 1", 0,
        [Edit("slots", "core.v[Var.FEES] -= ev[Ev.FEE]", "core.v[Var.FEES] += ev[Ev.FEE]")],
    ),
    "both ledgers agree on the wrong sign of fees": (
        residual_2, "residual 2", 0,
        [
            Edit("slots", "core.v[Var.FEES] -= ev[Ev.FEE]", "core.v[Var.FEES] += ev[Ev.FEE]"),
            Edit("pnl", "v[Var.LEDGER_FEES] -= ev[Ev.FEE]", "v[Var.LEDGER_FEES] += ev[Ev.FEE]"),
        ],
    ),
    "the parts forget funding": (
        residual_1, "residual 1", 0,
        [Edit("pnl", "        v[Var.FUNDING] += ev[Ev.ARG2]\n", "")],
    ),
    "a funding event is dropped": (
        residual_2, "residual 2", 0,
        [Edit("step", "        fold_account(core, ev)\n", "        pass\n")],
    ),
    "the slots lose a fill": (
        residual_1, "residual 1", 0,
        [Edit("step", "            fold_trade(core, par, ev)\n", "")],
    ),
    "everybody loses a fill": (
        residual_2, "residual 2", 0,
        [Edit("step", "elif kind == Kind.FILL:", "elif kind == Kind.FILL and ev[Ev.TRADE] % 2:")],
    ),
    "a fill counts twice: wallet": (
        residual_2, "residual 2", 0,
        [Edit("step", "if is_new(core.trades, v[Var.TRADES], ev[Ev.TRADE]):", "if True:")],
    ),
    "a fill counts twice: order of reports": (
        permutations, "the order matters", 0,
        [Edit("step", "if is_new(core.trades, v[Var.TRADES], ev[Ev.TRADE]):", "if True:")],
    ),
    "a fill counts twice: search": (
        search, "twice", 3,
        [Edit("step", "if is_new(core.trades, v[Var.TRADES], ev[Ev.TRADE]):", "if True:")],
    ),
    "a fill is credited to the slot beside": (
        residual_1, "residual 1", 0,
        [
            Edit("slots", "core.slots[base + Leg.SEQ, i] == ev[Ev.SEQ]:\n        return 0, i, base",
                 "core.slots[base + Leg.SEQ, i] == ev[Ev.SEQ]:\n        return 0, max(i - 1, 0), base"),
        ],
    ),
    "a better price counts against us": (
        residual_1, "residual 1", 0,
        [Edit("slots", "        core.v[Var.EXECUTION] -= change\n", "        core.v[Var.EXECUTION] += change\n")],
    ),
    "a fill after the slot was freed is lost": (
        permutations, "residual 1", 0,
        [Edit("slots", "delta = cum - r[Ret.CUM, j]\n", "delta = 0\n")],
    ),
    "the last quantity wins": (
        permutations, "residual 1", 0,
        [Edit("slots", "delta = cum - s[base + Leg.CUM, i]\n    if delta <= 0:",
              "delta = cum - s[base + Leg.CUM, i]\n    if cum < 0 or delta == 0:")],
    ),
    "absent once is absent for ever": (
        search, "one order a leg", 3,
        [Edit("slots", '"ABSENT": ("UNKNOWN ask", "UNKNOWN ask",', '"ABSENT": ("TERMINAL", "TERMINAL",')],
    ),
    "an end without its quantity is an end": (
        search, "bounds", 4,
        [Edit("slots", 'not told": ("UNKNOWN ask", "UNKNOWN ask", "= ask", "= ask",',
              'not told": ("TERMINAL", "TERMINAL", "TERMINAL", "TERMINAL",')],
    ),
    "the last report wins": (
        search, "status rises", 5,
        [
            Edit("slots", '"ACCEPTED": ("WORKING", "WORKING", "=", "=", "=", "= alarm again")',
                 '"ACCEPTED": ("WORKING", "WORKING", "=", "=", "WORKING", "= alarm again")'),
            Edit("slots", '"PARTIAL": ("WORKING", "WORKING", "=", "=", "=", "= alarm again")',
                 '"PARTIAL": ("WORKING", "WORKING", "=", "=", "WORKING", "= alarm again")'),
        ],
    ),
    "the last report wins: liveness": (
        liveness, "comes to rest", 0,
        [
            Edit("slots", '"ACCEPTED": ("WORKING", "WORKING", "=", "=", "=", "= alarm again")',
                 '"ACCEPTED": ("WORKING", "WORKING", "=", "=", "WORKING", "= alarm again")'),
            Edit("slots", '"PARTIAL": ("WORKING", "WORKING", "=", "=", "=", "= alarm again")',
                 '"PARTIAL": ("WORKING", "WORKING", "=", "=", "WORKING", "= alarm again")'),
        ],
    ),
    "a timeout frees the slot": (
        search, "one order a leg", 1,
        [Edit("slots", '"TIMEOUT": ("UNKNOWN ask", "UNKNOWN ask",', '"TIMEOUT": ("TERMINAL", "TERMINAL",')],
    ),
    "a refused cancel is an end": (
        search, "bounds", 7,
        [Edit("slots", '"CANCEL_REJECTED": ("=", "= ask", "= ask", "= ask",',
              '"CANCEL_REJECTED": ("=", "= ask", "= ask", "TERMINAL",')],
    ),
    "a close beside a cancelling one, refused by admit": (
        search, "no defect", 7,
        [Edit("closing", "if why == Reason.NONE and not live(s, CLOSE, i):",
              "if why == Reason.NONE and (not live(s, CLOSE, i) or s[CLOSE + Leg.CANCEL, i]):")],
    ),
    "a close beside a cancelling one": (
        orders, "one order a leg", 7,
        [
            Edit("closing", "if why == Reason.NONE and not live(s, CLOSE, i):",
                 "if why == Reason.NONE and (not live(s, CLOSE, i) or s[CLOSE + Leg.CANCEL, i]):"),
            Edit("risk", "if i < 0 or live(s, CLOSE, i) or", "if i < 0 or"),
        ],
    ),
    "a requested cancel gives the cap back": (
        search, "bounds", 3,
        [Edit("slots", "s[base + Leg.CUM, i] if live(s, base, i) else 0",
              "s[base + Leg.CUM, i] if live(s, base, i) and not s[base + Leg.CANCEL, i] else 0")],
    ),
    "a window that the market has passed stays there": (
        passed, "silent for ever", 0,
        [Edit("strategy", "    rehang(core, par, net, buys_stand, sells_stand)\n", "")],
    ),
    "the centre follows the rounded price": (
        pivot, "empty plan", 0,
        [
            Edit("center", "mark >= hi(core, x):", "2 * mark >= lo(core, x) + hi(core, x):"),
            Edit("center", "mark <= lo(core, x - 1):", "2 * mark < lo(core, x - 1) + hi(core, x - 1):"),
        ],
    ),
}  # fmt: skip


@cache
def whole(check: Check) -> tuple[str, int]:
    """Return what a check says of the real source."""
    return check(plain())


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_its_check(name: str) -> None:
    check, broken, steps, edits = MUTANTS[name]
    assert whole(check)[0] == ""
    found = check(plain(*edits))
    assert found[0] == broken
    assert found[1] <= steps


def test_a_mutant_whose_line_is_gone_is_an_error() -> None:
    with pytest.raises(AssertionError, match="stands 0 times in slots"):
        plain(Edit("slots", "a line that nobody wrote", ""))


def test_a_mutant_does_not_reach_the_package() -> None:
    import gridmm.slots

    before = gridmm.slots.TABLE["TIMEOUT"]
    plain(Edit("slots", '"TIMEOUT": ("UNKNOWN ask", "UNKNOWN ask",', '"TIMEOUT": ("TERMINAL", "TERMINAL",'))
    assert gridmm.slots.TABLE["TIMEOUT"] == before
