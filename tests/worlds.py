"""Worlds around the pure core: an exchange that does what it is told, its own wallet, and an audit.

The exchange knows requests and tickets, never slots. It fills what a test asks it to fill, at any time,
in parts, at better prices than the limit; its reports can be delayed, doubled and shuffled. `World.feed`
takes one event through the core and then audits the state: every rule there holds after *every* step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from gridmm.center import buy_window, sell_window
from gridmm.layout import (
    CLOSE,
    EVENT_SIZE,
    OPEN,
    PAR_SIZE,
    Account,
    Col,
    Command,
    Core,
    Ev,
    Hole,
    Kind,
    Leg,
    Par,
    Var,
    empty_core,
)
from gridmm.model import core_hash
from gridmm.pnl import PnL, pnl, residual
from gridmm.step import advance, copy_core
from gridmm.vocabulary import Action, Mode, Order, Reason, Report, Risk, Stop, Trigger

MILLION = 10**6
TAKER_PPM = 500
LIMIT = 20_000  # events until a world must have come to rest


def event(kind: Kind, time_ms: int, **cells: int) -> np.ndarray:
    """Return one event, its cells by the names of `Ev`."""
    ev = np.zeros(EVENT_SIZE, dtype=np.int64)
    ev[Ev.KIND], ev[Ev.TIME_MS] = kind, time_ms
    for name, value in cells.items():
        ev[Ev[name]] = value
    return ev


DEFAULTS = {
    "MODE": Mode.LONG, "BUYS": 5, "SELLS": 5, "BASE": 10, "SCALE_PPM": MILLION, "CAP_PPM": 4 * MILLION,
    "CHANGE_PCT": 20, "DWELL_MS": 0, "ATR_LENGTH": 2, "REF_LENGTH": 9, "MAX_LOTS": 10**6,
    "GROSS_LOTS": 2 * 10**6, "MIN_LOTS": 1, "HALF_ATOMS": 5, "MAX_ORDERS": 200, "MAX_EPOCHS": 3,
    "BACKOFF_MS": 1_000, "BACKOFF_MAX_MS": 60_000, "QUERY_AFTER_MS": 5_000, "SLIPPAGE_TICKS": 5,
    "BASE_LOT_ATOMS": 10**5, "STREAK_WINDOW_MS": 60_000, "TREND_WINDOW": 9, "TREND_ENTER_PPM": 2 * MILLION,
    "TREND_LEAVE_PPM": MILLION, "REARM_MS": 60_000, "SPIKE_LENGTH": 3, "MONITORED": 1,
}  # fmt: skip


def parameters(price: int, lots: int, **cells: int) -> np.ndarray:
    """Return parameters of a plain grid: cells of `lots` at `price` ticks, the rest by the names of `Par`."""
    par = np.zeros(PAR_SIZE, dtype=np.int64)
    for name, value in {**DEFAULTS, **cells}.items():
        par[Par[name]] = value
    if "CELL_ATOMS" not in cells:
        par[Par.CELL_ATOMS] = lots * 2 * par[Par.HALF_ATOMS] * price
    return par


def limit(par: np.ndarray, trigger: Trigger, value: int, mode: Risk) -> np.ndarray:
    """Arm a trigger and return the parameters."""
    par[Par.LIMITS + trigger], par[Par.LIMITS + len(Trigger) + trigger] = value, mode
    return par


class Row(NamedTuple):
    """One action of a plan, by the names of `Act`."""

    action: int
    seq: int
    epoch: int
    cell: int
    leg: int
    side: int
    price: int
    lots: int
    post_only: int
    reduce_only: int
    immediate: int
    why: int
    direction: int


@dataclass
class Ticket:
    """An order as the exchange has it."""

    row: Row
    cum: int = 0
    state: str = "flight"  # flight, open, done, lost (never arrived)
    final: Report = Report.ACCEPTED


@dataclass
class Exchange:
    """Tickets, reports on their way, and a wallet: quote and base on spot, average cost on perpetuals."""

    par: np.ndarray
    base_fees: bool = False
    seed_lots: int = 0
    tickets: dict[int, Ticket] = field(default_factory=dict)
    requests: list[tuple[Action, int]] = field(default_factory=list)
    outbox: list[np.ndarray] = field(default_factory=list)
    quote: int = 0  # spot: quote atoms since the start
    base_atoms: int = 0
    lots: int = 0
    entry: Fraction = Fraction(0)  # perpetual: average entry, ticks
    wallet: Fraction = Fraction(0)  # perpetual: realised, fees and funding, atoms
    trades: int = 0
    fills: list[tuple[Row, int, int]] = field(default_factory=list)
    fees: int = 0  # quote atoms, all fills
    bid: int = 0
    ask: int = 0

    def take(self, row: Row) -> None:
        """Receive a request; nothing has happened yet."""
        if row.action == Action.PLACE:
            assert row.seq not in self.tickets, "a sequence number was used twice"
            self.tickets[row.seq] = Ticket(row)
        self.requests.append((Action(row.action), row.seq))

    def serve(self, at: int, told: bool = True) -> None:
        """Handle the waiting request number `at`; a cancel with `told` off hides its quantity."""
        action, seq = self.requests.pop(at)
        ticket = self.tickets[seq]
        if action == Action.PLACE:
            self.arrive(ticket)
        elif action == Action.QUERY:
            self.answer(ticket)
        elif ticket.state == "open":
            ticket.state, ticket.final = "done", Report.CANCELED
            self.report(ticket, Report.CANCELED, ticket.cum if told else -1)
        else:
            self.report(ticket, Report.CANCEL_REJECTED, -1)

    def arrive(self, ticket: Ticket) -> None:
        """Accept a placement that reaches the exchange, or refuse what would cross."""
        row = ticket.row
        crosses = row.price >= self.ask if row.side > 0 else row.price <= self.bid
        if row.immediate:
            ticket.state = "open"
            if crosses:
                self.fill(row.seq, self.ask if row.side > 0 else self.bid, row.lots, maker=False)
            if ticket.cum < row.lots:
                self.end(row.seq, Report.EXPIRED)
        elif row.post_only and crosses:
            ticket.state, ticket.final = "done", Report.REJECTED
            self.report(ticket, Report.REJECTED, 0, Reason.POST_ONLY_BACKOFF)
        else:
            ticket.state = "open"
            self.report(ticket, Report.ACCEPTED, 0)

    def answer(self, ticket: Ticket) -> None:
        """Say what is known by client id."""
        kind = {"flight": Report.ABSENT, "open": Report.LIVE, "done": Report.ENDED}.get(
            ticket.state, Report.ABSENT_FINAL
        )
        self.report(ticket, kind, ticket.cum)

    def lose(self, seq: int) -> None:
        """Drop a placement on its way; the caller only sees a timeout."""
        ticket = self.tickets[seq]
        ticket.state = "lost"
        self.requests.remove((Action.PLACE, seq))
        self.report(ticket, Report.TIMEOUT, -1)

    def refuse(self, seq: int, reason: Reason) -> None:
        """Reject a placement on its way."""
        ticket = self.tickets[seq]
        ticket.state, ticket.final = "done", Report.REJECTED
        self.requests.remove((Action.PLACE, seq))
        self.report(ticket, Report.REJECTED, 0, reason)

    def withhold(self, seq: int) -> None:
        """Keep a placement back, and say so."""
        ticket = self.tickets[seq]
        ticket.state = "lost"
        self.requests.remove((Action.PLACE, seq))
        self.report(ticket, Report.NOT_SENT, 0)

    def end(self, seq: int, final: Report) -> None:
        """End an open order without being asked."""
        ticket = self.tickets[seq]
        ticket.state, ticket.final = "done", final
        self.report(ticket, final, ticket.cum)

    def fill(self, seq: int, price: int, lots: int, *, maker: bool = True) -> None:
        """Fill `lots` of an open order at `price`: wallet, trade and order report."""
        ticket, half = self.tickets[seq], int(self.par[Par.HALF_ATOMS])
        row = ticket.row
        assert ticket.state == "open" and 0 < lots <= row.lots - ticket.cum
        assert (price - row.price) * row.side <= 0, "worse than the limit"
        ticket.cum += lots
        self.trades += 1
        self.fills.append((row, price, lots))
        rate = int(self.par[Par.MAKER_PPM]) if maker else TAKER_PPM
        fee = -(-price * lots * 2 * half * rate // MILLION)
        fee_base = 0
        if self.base_fees and row.side > 0 and rate > 0:
            fee, fee_base = 0, -(-lots * int(self.par[Par.BASE_LOT_ATOMS]) * rate // MILLION)
        self.settle(row.side, price, lots, fee, fee_base)
        if ticket.cum == row.lots:
            ticket.state, ticket.final = "done", Report.FILLED
        self.outbox.append(
            self.about(
                row, Kind.FILL, PRICE=price, LOTS=lots, TRADE=self.trades, FEE=fee, FEE_BASE_ATOMS=fee_base
            )
        )
        self.report(ticket, Report.FILLED if ticket.state == "done" else Report.PARTIAL, ticket.cum)

    def settle(self, side: int, price: int, lots: int, fee: int, fee_base: int) -> None:
        """Move money; a perpetual realises against its average entry."""
        value = 2 * int(self.par[Par.HALF_ATOMS])
        self.quote -= side * price * lots * value + fee
        self.base_atoms += side * lots * int(self.par[Par.BASE_LOT_ATOMS]) - fee_base
        self.wallet -= fee
        self.fees += fee
        if self.lots * side < 0:
            closed = min(abs(self.lots), lots)
            self.wallet += -side * closed * (price - self.entry) * value
            self.lots += side * closed
            lots -= closed
        if lots:
            held = abs(self.lots)
            self.entry = (self.entry * held + price * lots) / (held + lots)
            self.lots += side * lots

    def fund(self, amount: int) -> None:
        """Charge or pay funding."""
        self.trades += 1
        self.quote += amount
        self.wallet += amount
        self.outbox.append(event(Kind.ACCOUNT, 0, CODE=Account.FUNDING, ARG=self.trades, ARG2=amount))

    def equity(self, mark2: int) -> Fraction:
        """Return a perpetual account's equity change: wallet and unrealised."""
        open_ = self.lots * (Fraction(mark2, 2) - self.entry) * 2 * int(self.par[Par.HALF_ATOMS])
        return self.wallet + open_

    def about(self, row: Row, kind: Kind, **cells: int) -> np.ndarray:
        """Return an event about an order, with what its client id and the exchange know."""
        known = {"SEQ": row.seq, "EPOCH": row.epoch, "CELL": row.cell, "LEG": row.leg, "SIDE": row.side}
        known |= {"PRICE": row.price, "LOTS": row.lots, "DIRECTION": row.direction}
        return event(kind, 0, **(known | cells))

    def report(self, ticket: Ticket, report: Report, cum: int, reason: int = 0) -> None:
        """Send an order report."""
        self.outbox.append(self.about(ticket.row, Kind.ORDER, REPORT=report, CUM=cum, REASON=reason))

    def open_tickets(self) -> list[int]:
        """Return the sequence numbers of what can fill."""
        return [seq for seq, ticket in self.tickets.items() if ticket.state == "open"]

    def flying(self) -> list[int]:
        """Return the sequence numbers of placements on their way."""
        return [seq for seq, ticket in self.tickets.items() if ticket.state == "flight"]


class World:
    """A core, an exchange, and a clock that only a test moves."""

    def __init__(
        self, par: np.ndarray, price: int, *, seed_lots: int = 0, base_fees: bool = False, audit: bool = True
    ) -> None:
        self.par, self.core = par, empty_core()
        self.exchange = Exchange(par, base_fees, seed_lots)
        self.core.v[Var.SEED_LOTS], self.core.v[Var.SEED_MARK2] = seed_lots, 2 * price
        self.now, self.last, self.audits = 1_000, price, audit
        self.edges: dict[tuple[int, int], tuple[int, int]] = {}
        self.steps = 0
        self.epoch = 0

    # -- the core

    def feed(self, ev: np.ndarray) -> list[Row]:
        """Take one event through the core, audit, and hand the plan to the exchange."""
        ev[Ev.TIME_MS] = ev[Ev.TIME_MS] or self.now
        plan = advance(self.core, self.par, ev)
        rows = [Row(*map(int, column)) for column in plan.actions.T]
        self.steps += 1
        if self.audits:
            audit(self, rows, plan.holes)
        for row in rows:
            self.exchange.take(row)
        return rows

    def quote(self, last: int, below: int = 1, above: int = 1) -> np.ndarray:
        """Return a price event and tell the exchange the new touch."""
        self.last = last
        self.exchange.bid, self.exchange.ask = last - below, last + above
        return event(Kind.PRICE, self.now, BID=last - below, ASK=last + above, LAST=last)

    def deliver(self, at: int = 0) -> list[Row]:
        """Let the report number `at` arrive."""
        return self.feed(self.exchange.outbox.pop(at))

    # -- without latency

    def settle(self) -> None:
        """Serve every request and deliver every report, until nothing is left."""
        for _ in range(LIMIT):
            if self.exchange.requests:
                self.exchange.serve(0)
            elif self.exchange.outbox:
                self.deliver()
            else:
                return
        raise AssertionError("the core and the exchange never come to rest")

    def move(self, last: int, *, fills_first: bool = True, below: int = 1, above: int = 1) -> int:
        """Move the market; what it touches fills at its limit, without latency. Return the number of fills."""
        ev, before = self.quote(last, below, above), self.exchange.trades
        for seq in self.exchange.open_tickets():
            row = self.exchange.tickets[seq].row
            if (row.price >= last) if row.side > 0 else (row.price <= last):
                self.exchange.fill(seq, row.price, row.lots - self.exchange.tickets[seq].cum)
        if fills_first:
            self.settle()
            self.feed(ev)
        else:
            self.feed(ev)
        self.settle()
        return self.exchange.trades - before

    def rest(self, ms: int = 86_400_000) -> None:
        """Let so much time pass that every wait is over, and settle."""
        for turn in range(40):  # a rate budget may let only a few orders pass each time
            self.now += ms
            rows = self.feed(self.quote(self.last))
            self.settle()
            if turn > 1 and not rows:
                return

    def candle(self, high: int, low: int) -> list[Row]:
        """Feed a candle of the traded symbol."""
        close = self.last
        return self.feed(
            event(Kind.CANDLE, self.now, OPEN=close, HIGH=max(high, close), LOW=min(low, close), CLOSE=close)
        )

    def command(self, code: Command, arg: int = 0, arg2: int = 0) -> list[Row]:
        """Feed an operator's command."""
        return self.feed(event(Kind.COMMAND, self.now, CODE=code, ARG=arg, ARG2=arg2))

    # -- what is true

    def again(self, ev: np.ndarray) -> tuple[list[Row], str]:
        """Return the plan that the same event gives on a copy of the state, and the hash after it."""
        copy = copy_core(self.core)
        plan = advance(copy, self.par, ev.copy())
        return [Row(*map(int, column)) for column in plan.actions.T], core_hash(copy)

    @property
    def pnl(self) -> PnL:
        """Profit and loss by the core."""
        return pnl(self.core, self.par)

    def var(self, name: Var) -> int:
        """Return a scalar of the state."""
        return int(self.core.v[name])

    def live_legs(self) -> dict[int, tuple[int, int]]:
        """Return sequence number -> (lots, cum) of every order that the core believes alive."""
        s, n = self.core.slots, self.var(Var.SLOTS)
        found = {}
        for base in (OPEN, CLOSE):
            for i in range(n):
                if 0 < s[base + Leg.STATUS, i] < Order.TERMINAL:
                    found[int(s[base + Leg.SEQ, i])] = (int(s[base + Leg.LOTS, i]), int(s[base + Leg.CUM, i]))
        return found

    def standing(self, leg: int) -> list[tuple[int, int]]:
        """Return (price, lots) of the open tickets of a leg, sorted."""
        tickets = (self.exchange.tickets[seq] for seq in self.exchange.open_tickets())
        return sorted((t.row.price, t.row.lots) for t in tickets if t.row.leg == leg)

    def position(self) -> int:
        """Return the position by the slots, lots."""
        pos, _, _ = positions(self.core)
        return int(pos.sum())


def positions(core: Core) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return position, lowest and highest reachable position of every slot, by arithmetic of its own."""
    s = core.slots[:, : core.v[Var.SLOTS]]
    d = s[Col.DIR]
    rests = []
    for base in (OPEN, CLOSE):
        alive = (s[base + Leg.STATUS] > 0) & (s[base + Leg.STATUS] < Order.TERMINAL)
        rests.append(np.where(alive, s[base + Leg.LOTS] - s[base + Leg.CUM], 0))
    opened = s[Col.OPENED] + s[OPEN + Leg.CUM]
    pos = d * (opened - s[Col.CLOSED] - s[Col.EXITED] - s[CLOSE + Leg.CUM])
    ahead, back = pos + d * rests[0], pos - d * rests[1]
    return pos, np.minimum(ahead, back), np.maximum(ahead, back)


def audit(world: World, rows: list[Row], holes: np.ndarray) -> None:
    """Check everything that must hold after every step, whatever happened."""
    core, par = world.core, world.par
    v, s = core.v, core.slots[:, : core.v[Var.SLOTS]]
    assert v[Var.DEFECTS] == 0, "a plan of the strategy was refused"
    assert residual(core, par, v[Var.MARK2]) == 0
    audit_exposure(world)
    audit_slots(world, s)
    audit_rows(world, s, rows)
    audit_holes(core, par, s, holes)


def audit_exposure(world: World) -> None:
    """No fill of what is alive can breach a cap, whatever else never fills; nor by the exchange's own tickets."""
    par, (_, low, high) = world.par, positions(world.core)
    cap, gross = par[Par.MAX_LOTS], par[Par.GROSS_LOTS]
    assert np.maximum(abs(low), abs(high)).sum() <= gross
    upper, lower = np.maximum(high, 0).sum(), np.minimum(low, 0).sum()
    assert upper <= cap and -lower <= cap, f"exposure {lower}..{upper} beyond {cap}"
    tickets = [t for t in world.exchange.tickets.values() if t.state in ("open", "flight")]
    up = sum(t.row.lots - t.cum for t in tickets if t.row.side > 0)
    down = sum(t.row.lots - t.cum for t in tickets if t.row.side < 0)
    assert -cap <= world.exchange.lots - down and world.exchange.lots + up <= cap


def audit_slots(world: World, s: np.ndarray) -> None:
    """No slot flips its sign, slots are sorted, and cells keep their edges."""
    pos, low, high = positions(world.core)
    d = s[Col.DIR]
    assert (d * pos >= 0).all() and (d * np.where(d > 0, low, high) >= 0).all(), "a slot can flip its sign"
    keys = list(zip(s[Col.EPOCH].tolist(), s[Col.CELL].tolist(), strict=True))
    assert keys == sorted(set(keys))
    for key, lo, hi in zip(keys, s[Col.LO].tolist(), s[Col.HI].tolist(), strict=True):
        assert world.edges.setdefault(key, (lo, hi)) == (lo, hi), "a cell changed its edges"
        assert hi - lo >= 2
    best = {1: 0, -1: 2**62}
    for base in (OPEN, CLOSE):
        alive = (s[base + Leg.STATUS] > 0) & (s[base + Leg.STATUS] < Order.TERMINAL)
        assert (s[base + Leg.CUM] <= s[base + Leg.LOTS])[alive].all()
        for side, price in zip(
            s[base + Leg.SIDE][alive].tolist(), s[base + Leg.PRICE][alive].tolist(), strict=True
        ):
            best[side] = max(best[1], price) if side > 0 else min(best[-1], price)
    assert best[1] < best[-1], f"own orders meet: buy {best[1]}, sell {best[-1]}"


def audit_rows(world: World, s: np.ndarray, rows: list[Row]) -> None:
    """Placements never cross, closes keep their promise, nothing unresolved is cancelled, epochs wait."""
    v, exchange = world.core.v, world.exchange
    order = [0 if r.action != Action.PLACE else 1 if r.leg == 1 else 2 for r in rows]
    assert order == sorted(order), "cancels, then closes, then opens"
    for row in rows:
        if row.action == Action.PLACE:
            if row.post_only:
                assert row.price < v[Var.ASK] if row.side > 0 else row.price > v[Var.BID], "crosses the touch"
            lo, hi = world.edges.get((row.epoch, row.cell), (0, 0))
            if row.leg == 0:
                assert row.epoch == v[Var.EPOCH] and row.price == (lo if row.side > 0 else hi)
                assert v[Var.RISK] == Risk.NORMAL and v[Var.STOP] == Stop.RUN
            elif not row.immediate:
                assert row.price >= hi if row.side < 0 else row.price <= lo, (
                    "a close is worse than its promise"
                )
            same = [t for t in exchange.tickets.values() if t.row[2:5] == row[2:5]]
            assert all(t.state in ("done", "lost") for t in same), "two live orders on one leg"
        elif row.action == Action.CANCEL:
            base = OPEN if row.leg == 0 else CLOSE
            at = np.flatnonzero(s[base + Leg.SEQ] == row.seq)
            if len(at) and s[base + Leg.STATUS, at[0]] != Order.TERMINAL:
                assert s[base + Leg.STATUS, at[0]] == Order.WORKING, "cancelled before it was resolved"
    old = s[Col.EPOCH] != v[Var.EPOCH]
    works = old & (s[OPEN + Leg.STATUS] == Order.WORKING)
    assert (s[OPEN + Leg.CANCEL][works] > 0).all(), "an old epoch's opening order is left alone"
    if v[Var.EPOCH] != world.epoch:
        # an unknown one may be found working later; it counts in full from the start
        waits = works | (old & (s[OPEN + Leg.STATUS] == Order.PENDING))
        assert not waits.any(), "opened before the old epoch was withdrawn"
        world.epoch = int(v[Var.EPOCH])


def audit_holes(core: Core, par: np.ndarray, s: np.ndarray, holes: np.ndarray) -> None:
    """Every level that the windows walk has an order, or exactly one reason why not."""
    v = core.v
    if v[Var.EPOCH] == 0:
        return
    net = int(positions(core)[0].sum()) - int(par[Par.TARGET_LOTS])
    walked = set()
    if par[Par.MODE] != Mode.SHORT:
        skew = int(buy_window(core, par, net)[2])
        walked |= {(int(v[Var.BUY_BASE]) - 1 - j, 1) for j in range(int(par[Par.BUYS]) + skew)}
    if par[Par.MODE] != Mode.LONG:
        skew = int(sell_window(core, par, net)[2])
        walked |= {(int(v[Var.SELL_BASE]) + j, -1) for j in range(int(par[Par.SELLS]) + skew)}
    alive = (
        (s[OPEN + Leg.STATUS] > 0) & (s[OPEN + Leg.STATUS] < Order.TERMINAL) & (s[Col.EPOCH] == v[Var.EPOCH])
    )
    stands = set(zip(s[Col.CELL][alive].tolist(), s[Col.DIR][alive].tolist(), strict=True))
    absent = list(zip(holes[Hole.CELL].tolist(), holes[Hole.DIR].tolist(), strict=True))
    assert (holes[Hole.WHY] != Reason.NONE).all()
    assert len(absent) == len(set(absent)), "two reasons for one level"
    for side in (1, -1):
        cells = {k for k, direction in walked if direction == side}
        waits = any(direction == side for _, direction in stands)
        touched = all((k >= v[Var.PIVOT]) == (side > 0) for k in cells)
        assert not cells or waits or not touched, "the market has passed a window, and it hangs there still"
    missing = walked - stands - set(absent)
    assert set(absent) <= walked - stands, f"a reason for what stands: {set(absent) - walked | stands}"
    assert not missing, f"without a reason: {missing}"


def adversary(world: World, moves: list[tuple[int, int]]) -> None:
    """Let an exchange and a market do their worst, one command a pair (what, how much)."""
    x, exchange = world, world.exchange
    width = max(2, int(x.par[Par.BASE]))
    x.feed(x.quote(x.last))
    for what, much in moves:
        x.now += 1 + much % 7 * 300
        if what <= 2:  # the market moves; the touch is narrow or wide
            step = (much % 31 - 15) * width // 6 + much // 128
            x.feed(
                x.quote(max(3, x.last + step), 1 + (much % 5 == 0) * width // 2, 1 + (much % 7 == 0) * width)
            )
        elif what == 3 and much > 128:
            x.settle()
        elif what <= 4 and exchange.requests:
            exchange.serve(much % len(exchange.requests), told=much < 200)
        elif what <= 7 and exchange.open_tickets():  # any live order fills, in part, at its limit or better
            alive = exchange.open_tickets()
            ticket = exchange.tickets[alive[much % len(alive)]]
            left = ticket.row.lots - ticket.cum
            price = max(1, ticket.row.price - ticket.row.side * (much % 3))
            exchange.fill(ticket.row.seq, price, left if much % 2 else 1 + much % left)
        elif what <= 9 and exchange.outbox:
            x.deliver(much % len(exchange.outbox))
        elif what == 10 and exchange.outbox:
            exchange.outbox.append(exchange.outbox[much % len(exchange.outbox)].copy())
        elif what == 11 and exchange.flying():
            seq = exchange.flying()[much % len(exchange.flying())]
            if much % 4 == 2:
                exchange.withhold(seq)
            else:
                exchange.lose(seq) if much % 2 else exchange.refuse(seq, Reason.OTHER)
        elif what == 12 and exchange.open_tickets():
            exchange.end(exchange.open_tickets()[much % len(exchange.open_tickets())], Report.EXPIRED)
        elif what == 13:
            x.candle(x.last + much * width // 64, max(1, x.last - much * width // 64))
        elif what == 14:
            x.now += much * 100
            x.feed(event(Kind.TIMER, x.now))
        elif what == 15 and much < 60:
            x.command(Command.PAUSE if much % 2 else Command.RESET_RISK, -1)
        elif what == 15 and much < 90:
            x.command(Command.STOP, (Stop.RUN, Stop.DRAIN, Stop.CANCEL, Stop.FLATTEN)[much % 4])
        elif what == 15 and not x.par[Par.SPOT]:
            exchange.fund(much - 128)
