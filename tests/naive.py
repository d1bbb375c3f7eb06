"""The strategy a second time, slow and plain: Decimal prices, a dict of cells, orders searched by brute force.

Written from the description of the strategy alone. It imports nothing of `gridmm`, so that a mistake in the core is
not a mistake here too; `test_naive_model.py` holds the two against each other, decision by decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction
from math import ceil, floor, isqrt
from typing import NamedTuple

LONG, SHORT = +1, -1
BUY, SELL = +1, -1
OPEN, CLOSE = 0, 1
ZERO = Decimal(0)
PPM = Decimal("0.000001")


@dataclass(frozen=True)
class Settings:
    """What a person configures; prices in quote, quantities in base, ratios as plain numbers."""

    tick: Decimal
    lot: Decimal
    mode: str  # long, short or neutral
    spot: bool
    buys: int
    sells: int
    geometric: bool
    base: Decimal  # price_interval: a price, or a ratio
    base_is_ratio: bool
    scale: Decimal
    max_mode: bool
    cap: Decimal
    fee_floor: Decimal
    maker: Decimal
    change: Decimal
    dwell_ms: int
    atr_length: int
    ref_length: int
    skew: Decimal
    max_position: Decimal
    gross: Decimal
    notional: Decimal
    min_quantity: Decimal
    min_notional: Decimal
    price_min: Decimal  # 0: none
    price_max: Decimal  # 0: none
    trend_factor: Decimal
    trend_window: int
    trend_enter: Decimal
    trend_leave: Decimal
    flip_dwell_ms: int
    reprice_dwell_ms: int
    slippage: Decimal
    max_orders: int
    max_epochs: int
    backoff_ms: int
    backoff_max_ms: int
    query_after_ms: int
    allow_losing: bool
    short_cover: bool
    target: Decimal
    seed: Decimal
    rate: Decimal = ZERO  # actions per second, 0: unlimited
    burst: Decimal = ZERO
    pause_mode: str = "REDUCE_ONLY"


# What happens.


class Price(NamedTuple):
    """The touch, and the last trade (0: unknown)."""

    time: int
    bid: Decimal
    ask: Decimal
    last: Decimal


class Candle(NamedTuple):
    """A closed bar of the traded symbol."""

    time: int
    high: Decimal
    low: Decimal
    close: Decimal


class Report(NamedTuple):
    """The exchange tells of an order; `cum` None where it does not say how much was filled."""

    time: int
    seq: int
    what: str
    cum: Decimal | None
    reason: str


class Trade(NamedTuple):
    """One fill of an order."""

    time: int
    seq: int
    trade: int
    quantity: Decimal
    fee: Decimal = ZERO  # paid in base


class Timer(NamedTuple):
    """Time passes."""

    time: int


class Command(NamedTuple):
    """An operator asks: `pause`, `reset`, or to stop by DRAIN, CANCEL or FLATTEN."""

    time: int
    what: str


Event = Price | Candle | Report | Trade | Timer | Command


# What is decided.


class Row(NamedTuple):
    """One action of a plan."""

    action: str
    seq: int
    epoch: int
    cell: int
    leg: int
    side: int
    price: Decimal
    quantity: Decimal
    immediate: bool
    why: str


class Hole(NamedTuple):
    """A cell that could hold an opening leg and does not."""

    cell: int
    direction: int
    why: str


# What is remembered.


@dataclass
class Order:
    """One order, from its intent on."""

    seq: int
    leg: int
    side: int
    price: Decimal
    quantity: Decimal
    exit: bool = False
    cum: Decimal = ZERO
    traded: Decimal = ZERO
    status: str = "PENDING"
    cancel: bool = False  # a cancel was requested
    again: bool = False  # and must be requested again
    due: int | None = None  # when to ask the exchange what became of it
    asked: bool = False

    @property
    def live(self) -> bool:
        """Whether it may still fill."""
        return self.status != "TERMINAL"

    @property
    def rest(self) -> Decimal:
        """What may still fill."""
        return self.quantity - self.cum if self.live else ZERO

    @property
    def partly(self) -> bool:
        """Whether some of it is filled."""
        return self.cum > 0


@dataclass
class Trouble:
    """How often a leg was refused, and how long it waits."""

    rejects: int = 0
    why: str = ""
    touch: int = 0
    retry: int = 0


@dataclass
class Cell:
    """A cell in use."""

    epoch: int
    k: int
    lo: Decimal
    hi: Decimal
    direction: int = 0
    orders: list[Order] = field(default_factory=list)
    trouble: list[Trouble] = field(default_factory=lambda: [Trouble(), Trouble()])
    astray: int | None = None  # since when the closing price is an interval off

    @property
    def position(self) -> Decimal:
        """What the fills of all its orders left."""
        return sum((o.side * o.cum for o in self.orders), ZERO)

    def live(self, leg: int) -> Order | None:
        """Return the order that may still fill on a leg."""
        found = [o for o in self.orders if o.leg == leg and o.live]
        assert len(found) <= 1
        return found[0] if found else None

    @property
    def goal(self) -> Decimal:
        """The closing leg's promise."""
        return self.hi if self.direction == LONG else self.lo

    @property
    def up(self) -> Decimal:
        """The most that its orders can make of its position."""
        return self.position + sum((o.rest for o in self.orders if o.side == BUY), ZERO)

    @property
    def down(self) -> Decimal:
        """The least."""
        return self.position - sum((o.rest for o in self.orders if o.side == SELL), ZERO)


@dataclass
class Lattice:
    """The levels of an epoch."""

    epoch: int
    anchor: Decimal
    interval: Decimal  # a price, or a ratio
    geometric: bool
    start: int
    edges: dict[int, tuple[Decimal, Decimal]] = field(default_factory=dict)

    def level(self, k: int) -> Fraction:
        """Return the exact price of level k."""
        if self.geometric:
            return Fraction(self.anchor) * (1 + Fraction(self.interval)) ** k
        return Fraction(self.anchor) + k * Fraction(self.interval)


def floored(value: Decimal, step: Decimal) -> Decimal:
    """Round down to a multiple of `step`."""
    return (value / step).to_integral_value(ROUND_FLOOR) * step


def raised(value: Decimal, step: Decimal) -> Decimal:
    """Round up to a multiple of `step`."""
    return (value / step).to_integral_value(ROUND_CEILING) * step


def clip(value: int, low: int, high: int) -> int:
    """Return `value`, or the bound that it passes."""
    return max(low, min(value, high))


class Grid:
    """A grid market maker that takes its time."""

    def __init__(self, settings: Settings) -> None:
        self.set = settings
        self.now = 0
        self.bid = self.ask = self.mid = self.mark = ZERO
        self.touches = 0
        self.lattice: Lattice | None = None
        self.pivot = self.buy_base = self.sell_base = 0
        self.withdrawing = False
        self.candidate = ZERO
        self.candles = 0
        self.candle_time = -1
        self.previous_close = ZERO
        self.ranges: list[Decimal] = []
        self.atr = ZERO
        self.atrs: list[Decimal] = []
        self.moves: list[int] = []
        self.trend_on = False
        self.trend = 0
        self.risk = "NORMAL"
        self.stop = "RUN"
        self.sign = 0
        self.sign_time = 0
        self.tokens = settings.burst
        self.tokens_time: int | None = None
        self.next_seq = 1
        self.cells: dict[tuple[int, int], Cell] = {}
        self.orders: dict[int, tuple[Cell, Order]] = {}
        self.trades: set[int] = set()
        self.fees = ZERO  # in base
        self.late = 0
        self.shift = 0, 0  # levels by which the skew moves buys and sells away
        self.window: dict[int, range] = {}
        self.plan: list[Row] = []
        self.holes: list[Hole] = []

    def take(self, event: Event) -> list[Row]:
        """Take one event and return the plan: cancels and questions, closes, opens."""
        with localcontext() as context:
            context.prec = 60  # so that only what we round is rounded
            self.now = max(self.now, event.time)
            self.fold(event)
            self.keep_epoch(isinstance(event, Candle))
            self.decide()
            self.apply()
        return self.plan

    # Folding what happened.

    def fold(self, event: Event) -> None:
        """Fold one event in."""
        if isinstance(event, Price):
            self.fold_price(event)
        elif isinstance(event, Candle):
            self.fold_candle(event)
        elif isinstance(event, Report):
            self.fold_report(event)
        elif isinstance(event, Trade):
            self.fold_trade(event)
        elif isinstance(event, Command):
            self.fold_command(event)

    def fold_command(self, event: Command) -> None:
        """Do as the operator says."""
        if event.what == "pause":
            self.risk = self.set.pause_mode
        elif event.what == "reset":
            self.risk = "NORMAL"
        else:
            self.stop = event.what

    def fold_price(self, event: Price) -> None:
        """Move the touch, the mark, the pivot and what trails it."""
        if (event.bid, event.ask) != (self.bid, self.ask):
            self.touches += 1
        self.bid, self.ask, last = event.bid, event.ask, event.last
        two_sided = self.bid > 0 and self.ask > 0
        if two_sided:
            self.mid = (self.bid + self.ask) / 2
        self.mark = last or floored(self.mid, self.set.tick)
        if two_sided:
            self.mark = max(self.bid, min(self.mark, self.ask))
        if self.lattice is None or self.mark == 0:
            return
        edges, before = self.lattice.edges, self.pivot
        while self.pivot in edges and self.mark >= edges[self.pivot][1]:
            self.pivot += 1
            self.moves.append(+1)
        while self.pivot - 1 in edges and self.mark <= edges[self.pivot - 1][0]:
            self.pivot -= 1
            self.moves.append(-1)
        if self.pivot > before:
            self.buy_base = max(self.buy_base, self.pivot)
        if self.pivot < before:
            self.sell_base = min(self.sell_base, self.pivot)
        if self.pivot != before:
            self.measure_trend()

    def measure_trend(self) -> None:
        """Decide from the last level moves whether there is a trend, and how many levels it withholds."""
        if self.set.trend_factor == 0:
            return
        moves = self.moves[-self.set.trend_window :]
        net, count = sum(moves), len(moves)
        ratio = Decimal(net * net) / count
        if count == self.set.trend_window and ratio >= self.set.trend_enter:
            self.trend_on = True
        elif ratio <= self.set.trend_leave:
            self.trend_on = False
        self.trend = 0
        if self.trend_on and net:
            size = int(self.set.trend_factor / PPM) * abs(net) // isqrt(count * 10**12)
            self.trend = size if net > 0 else -size

    def fold_candle(self, event: Candle) -> None:
        """Update ATR and its reference, unless the candle is an old one."""
        if event.time <= self.candle_time:
            return
        high, low = event.high, event.low
        if self.candles:
            high, low = max(high, self.previous_close), min(low, self.previous_close)
        self.candles += 1
        self.candle_time, self.previous_close = event.time, event.close
        n = self.set.atr_length
        self.ranges = [*self.ranges, high - low][-n:]
        if self.candles >= n:
            self.atr = floored(sum(self.ranges, ZERO) / n, self.set.tick)
        if self.candles % n == 0:
            self.atrs = [*self.atrs, self.atr][-self.set.ref_length :]

    @property
    def atr_ref(self) -> Decimal:
        """The lower median of the sampled ATRs."""
        return sorted(self.atrs)[(len(self.atrs) - 1) // 2] if self.atrs else ZERO

    # Folding what the exchange says of an order.

    def fold_report(self, event: Report) -> None:
        """Fold a report by the table of the slot machine."""
        if event.seq not in self.orders:
            return
        cell, o = self.orders[event.seq]
        if o.status == "TERMINAL":
            if event.cum is not None and event.cum > o.cum:
                self.late += 1
                self.fill(cell, o, event.cum)
            return
        if event.cum is not None and event.cum > o.cum:
            self.fill(cell, o, event.cum)
        requested = o.cancel
        if o.cum >= o.quantity:
            self.end(cell, o)
            return
        match event.what:
            case "ACCEPTED" | "PARTIAL":
                self.works(o)
            case "LIVE":
                o.status = "WORKING"
                o.again, o.due = o.cancel, None
            case "FILLED":
                self.end(cell, o)
            case "REJECTED":
                self.end(cell, o)
                self.back_off(cell, o, event.reason)
            case "NOT_SENT":
                if o.status in ("PENDING", "UNKNOWN"):
                    self.end(cell, o)
                    self.back_off(cell, o, event.reason)
            case "TIMEOUT":
                self.doubt(o)
            case "CANCELED" | "EXPIRED" if event.cum is None:
                self.doubt(o)
            case "CANCELED" | "EXPIRED":
                self.end(cell, o)
                if o.cum < o.quantity and not requested:
                    self.back_off(cell, o, event.reason)
            case "ENDED":
                self.end(cell, o)
            case "CANCEL_REJECTED":
                if o.due is None:
                    o.due = self.now
            case "ABSENT":
                if o.status == "PENDING":
                    o.status = "UNKNOWN"
            case "ABSENT_FINAL":
                self.end(cell, o)

    def fold_trade(self, event: Trade) -> None:
        """Count a trade once; trades and reports raise the same cumulative quantity."""
        if event.trade in self.trades or event.seq not in self.orders:
            return
        self.trades.add(event.trade)
        cell, o = self.orders[event.seq]
        self.fees += event.fee
        o.traded += event.quantity
        raised = o.traded > o.cum
        if raised:
            self.late += not o.live
            self.fill(cell, o, o.traded)
        if o.live:
            self.works(o)
            if raised and o.cum >= o.quantity:
                self.end(cell, o)

    def works(self, o: Order) -> None:
        """The exchange has it; only its first word closes the question of its arrival."""
        if o.status == "PENDING":
            o.due = None
        o.status = "WORKING"

    def doubt(self, o: Order) -> None:
        """Something went wrong: an order that was never acknowledged is asked for at once."""
        if o.status == "PENDING":
            o.status = "UNKNOWN"
            o.due = self.now
        if o.due is None:
            o.due = self.now

    def fill(self, cell: Cell, o: Order, cum: Decimal) -> None:
        """Raise what an order has filled, and move the bases with it."""
        o.cum = cum
        if o.exit or self.lattice is None or cell.epoch != self.lattice.epoch:
            return
        k, x = cell.k, self.pivot
        if o.side == BUY:
            self.buy_base = k
            self.sell_base = min(self.sell_base, max(k, x))
        else:
            self.sell_base = k + 1
            self.buy_base = max(self.buy_base, min(k + 1, x))

    def end(self, cell: Cell, o: Order) -> None:
        """Nothing more comes of this order."""
        o.status = "TERMINAL"
        if o.cum >= o.quantity or o.cancel or (o.exit and o.cum > 0):
            cell.trouble[o.leg].rejects = 0

    def back_off(self, cell: Cell, o: Order, reason: str) -> None:
        """Wait longer after each refusal."""
        trouble = cell.trouble[o.leg]
        if o.exit and o.cum > 0:
            return  # it sold something: the next one may follow at once
        trouble.rejects += 1
        trouble.why = reason
        trouble.touch = self.touches
        wait = self.set.backoff_ms * 2 ** (trouble.rejects - 1)
        trouble.retry = self.now + min(wait, self.set.backoff_max_ms)

    # The interval and its epochs.

    def interval_now(self) -> Decimal:
        """Return the interval that would be adopted now; 0 where the floor is above the cap."""
        s, p = self.set, self.mark
        unit = PPM if s.geometric else s.tick
        base = s.base
        if s.base_is_ratio and not s.geometric:
            base = floored(s.base * p, s.tick)
        if not s.base_is_ratio and s.geometric:
            base = floored(s.base / p, PPM)
        fees = raised(max(s.maker, ZERO) * s.fee_floor, PPM)
        least = (
            max(raised(2 * s.tick / p, PPM), fees)
            if s.geometric
            else max(2 * s.tick, raised(fees * p, s.tick))
        )
        both = ZERO if s.allow_losing else 2 * max(s.maker, ZERO)
        if both and s.geometric:
            loss = min(both + raised(s.tick / p, PPM) + PPM, 1 - PPM)
            least = max(least, raised(loss / (1 - loss), PPM))
        if 0 < both < 1 and not s.geometric:
            least = max(least, raised((both * p + s.tick) / (1 - both), s.tick))
        most = floored(s.cap * base, unit)
        if least > most:
            return ZERO
        if s.max_mode:
            reach = floored(self.atr / p, PPM) if s.geometric else self.atr
            wanted = max(base, floored(s.scale * reach, unit))
        elif self.atr > 0 and self.atr_ref > 0:
            wanted = floored(base * s.scale * self.atr / self.atr_ref, unit)
        else:
            wanted = floored(base * s.scale, unit)
        return max(least, min(wanted, most))

    def keep_epoch(self, candle: bool) -> None:
        """Open the first epoch, or end this one and open the next."""
        if not (self.bid > 0 and self.ask > 0 and self.mark > 0):
            return
        if self.lattice is None or candle or self.candidate == 0 or self.withdrawing:
            self.candidate = self.interval_now()
        if self.candidate == 0 or self.stop != "RUN":
            return
        if self.lattice is None:
            self.open_epoch(1)
            return
        running = self.lattice
        if not self.withdrawing:
            apart = abs(self.candidate - running.interval)
            changed = apart >= self.set.change * min(self.candidate, running.interval)
            rested = self.now - running.start >= self.set.dwell_ms
            if (changed or self.near_edge()) and rested and self.epochs_in_use() < self.set.max_epochs:
                self.withdrawing = True
                self.candidate = self.interval_now()
        if self.withdrawing and self.candidate > 0:
            standing = [
                o
                for cell in self.cells.values()
                for o in cell.orders
                if o.leg == OPEN and o.status in ("PENDING", "WORKING")
            ]
            if not standing:
                self.open_epoch(running.epoch + 1)

    def open_epoch(self, number: int) -> None:
        """Anchor a new lattice at the mark."""
        s = self.set
        lattice = Lattice(number, self.mark, self.candidate, s.geometric, self.now)
        fees = ZERO if s.allow_losing else 2 * max(s.maker, ZERO)
        for cells in (range(0, 256), range(-1, -257, -1)):
            for k in cells:
                lo = floor(lattice.level(k) / Fraction(s.tick)) * s.tick
                hi = ceil(lattice.level(k + 1) / Fraction(s.tick)) * s.tick
                wide = hi - lo >= max(2 * s.tick, raised(fees * hi, s.tick))
                if lo < s.tick or hi > 1_000 * self.mark or not wide:
                    break
                lattice.edges[k] = lo, hi
        if not {-1, 0} <= set(lattice.edges):
            self.candidate = ZERO
            return
        self.lattice = lattice
        self.pivot = self.buy_base = self.sell_base = 0
        self.withdrawing = False

    def epochs_in_use(self) -> int:
        """Count epochs that run or still hold a live order or a position."""
        assert self.lattice is not None
        held = {c.epoch for c in self.cells.values() if c.position != 0 or c.live(OPEN) or c.live(CLOSE)}
        return len(held | {self.lattice.epoch})

    def near_edge(self) -> bool:
        """Whether the pivot comes so near to the end of the table that windows would leave it."""
        assert self.lattice is not None
        edges, x = self.lattice.edges, self.pivot
        if self.lattice.anchor == self.mark:
            return False
        if x not in edges or x - 1 not in edges:
            return True
        margin = 2 * max(self.set.buys, self.set.sells) + 2
        below = self.set.mode != "short" and x - min(edges) < margin and min(edges) == -256
        above = self.set.mode != "long" and max(edges) + 1 - x < margin and max(edges) == 255
        return below or above

    # Deciding.

    def in_order(self) -> list[Cell]:
        """Return the cells in use by epoch and number."""
        return [self.cells[key] for key in sorted(self.cells)]

    def live_orders(self) -> list[Order]:
        """Return every order that may still fill."""
        return [o for c in self.in_order() for o in c.orders if o.live]

    def crosses_own(self, side: int, price: Decimal) -> bool:
        """Whether an order would meet one of ours, standing or planned."""
        own = [(o.side, o.price) for o in self.live_orders()]
        own += [(r.side, r.price) for r in self.plan if r.action == "PLACE"]
        if side == BUY:
            return any(price >= p for s, p in own if s == SELL)
        return any(price <= p for s, p in own if s == BUY)

    def too_small(self, price: Decimal, quantity: Decimal) -> bool:
        """Whether the exchange refuses an order of this size."""
        return quantity <= 0 or quantity < self.set.min_quantity or price * quantity < self.set.min_notional

    def decide(self) -> None:
        """Make the plan and name the holes."""
        self.plan, self.holes = [], []
        self.refill()
        self.watch_sign()
        self.shift = self.shifts()
        self.leave_passed_windows()
        self.window = self.windows()
        keep: dict[int, str] = {}  # by sequence number: why an order is to be cancelled
        self.judge_closes(keep)
        kept_opens = self.judge_opens(keep)
        for cell in self.in_order():
            for leg in (OPEN, CLOSE):
                o = cell.live(leg)
                if o is not None:
                    self.cancel_or_ask(cell, o, keep.get(o.seq, ""))
        self.place_closes()
        self.place_opens(kept_opens)

    def refill(self) -> None:
        """Let time refill the budget of actions."""
        if self.tokens_time is not None:
            self.tokens += self.set.rate * (self.now - self.tokens_time) / 1_000
            self.tokens = min(self.tokens, self.set.burst)
        self.tokens_time = self.now

    def watch_sign(self) -> None:
        """Neutral holds one sign at a time; it forgets it some time after the last filled cell."""
        signs = {LONG if c.position > 0 else SHORT for c in self.cells.values() if c.position != 0}
        if signs:
            self.sign_time = self.now
            if len(signs) == 1:
                self.sign = signs.pop()
        elif self.now - self.sign_time >= self.set.flip_dwell_ms:
            self.sign = 0

    # Closing legs.

    def closing_price(self, cell: Cell) -> Decimal:
        """Return the promise, or one tick behind the touch where the market is through it."""
        if cell.direction == LONG:
            return cell.hi if cell.hi > self.bid else self.bid + self.set.tick
        return cell.lo if cell.lo < self.ask else max(self.ask - self.set.tick, self.set.tick)

    def unwanted_close(self, cell: Cell) -> str:
        """Return why no closing leg should stand in this cell."""
        if self.stop in ("CANCEL", "FLATTEN"):
            return "STOPPING"
        if self.risk == "HALTED":
            return "RISK"
        if (
            self.risk == "REDUCE_ONLY"
            and self.set.spot
            and cell.direction == SHORT
            and not self.set.short_cover
        ):
            return "RISK"
        if not (self.bid > 0 and self.ask > 0):
            return "NO_PRICE"
        if self.parked(cell):
            return "PARKED"
        return ""

    def parked(self, cell: Cell) -> bool:
        """Whether enough closes of the same direction are nearer."""
        room = max(1, self.set.max_orders - self.set.buys - self.set.sells)
        mine = (cell.goal * cell.direction, cell.epoch, cell.k)
        nearer = [
            c
            for c in self.cells.values()
            if c.position != 0
            and c.direction == cell.direction
            and (c.goal * c.direction, c.epoch, c.k) < mine
        ]
        return len(nearer) >= room

    def judge_closes(self, keep: dict[int, str]) -> None:
        """Name the standing closing legs that must go."""
        for cell in self.in_order():
            o = cell.live(CLOSE)
            if o is None or o.exit:
                continue
            why = self.unwanted_close(cell)
            if why:
                keep[o.seq] = why
                continue
            wanted = self.closing_price(cell)
            if o.status != "WORKING":
                continue
            if o.price in (cell.goal, wanted):
                cell.astray = None
            elif wanted == cell.goal:
                keep[o.seq] = "REPRICE"
            elif abs(o.price - wanted) < cell.hi - cell.lo:
                cell.astray = None
            else:
                if cell.astray is None:
                    cell.astray = self.now
                if self.now - cell.astray >= self.set.reprice_dwell_ms:
                    keep[o.seq] = "REPRICE"

    def place_closes(self) -> None:
        """Plan the closing legs that are missing."""
        for cell in self.in_order():
            position = cell.position
            if position == 0 or cell.live(CLOSE):
                continue
            side = SELL if position > 0 else BUY
            quantity = abs(position)
            if self.set.spot and side == SELL:
                quantity = min(quantity, floored(self.free_base(), self.set.lot))
            if self.stop == "FLATTEN":
                if not cell.live(OPEN) and self.bid > 0 and self.ask > 0:
                    price = (
                        max(self.bid - self.set.slippage, self.set.tick)
                        if side == SELL
                        else self.ask + self.set.slippage
                    )
                    if not self.crosses_own(side, price):
                        self.try_place(cell, CLOSE, side, price, quantity, exit=True)
                continue
            if not self.unwanted_close(cell):
                price = self.closing_price(cell)
                if not self.crosses_own(side, price):
                    self.try_place(cell, CLOSE, side, price, quantity, exit=False)

    def try_place(
        self, cell: Cell, leg: int, side: int, price: Decimal, quantity: Decimal, exit: bool
    ) -> None:
        """Plan a closing order unless it is dust or must wait."""
        if self.too_small(price, quantity) or self.waits(cell.trouble[leg]):
            return
        if self.no_room() or self.no_budget():
            return
        self.add_place(cell.epoch, cell.k, leg, side, price, quantity, exit)

    def waits(self, trouble: Trouble) -> str:
        """Return why a leg that was refused waits."""
        if trouble.rejects > 0 and trouble.why == "POST_ONLY_BACKOFF":
            if self.now < trouble.retry or self.touches <= trouble.touch:
                return "POST_ONLY_BACKOFF"
        return "BACKOFF" if self.now < trouble.retry else ""

    def no_room(self) -> bool:
        """Whether the exchange would hold more orders than it allows."""
        planned = [r for r in self.plan if r.action == "PLACE"]
        return len(self.live_orders()) + len(planned) >= self.set.max_orders

    def no_budget(self) -> bool:
        """Whether the rate limit forbids one more action."""
        return self.set.rate > 0 and self.tokens < 1

    def add_place(
        self, epoch: int, k: int, leg: int, side: int, price: Decimal, quantity: Decimal, exit: bool = False
    ) -> None:
        """Plan an order; it gets its number when the plan is applied."""
        self.tokens -= 1
        self.plan.append(Row("PLACE", 0, epoch, k, leg, side, price, quantity, exit, ""))

    def cancel_or_ask(self, cell: Cell, o: Order, why: str) -> None:
        """Plan the cancel of a working order that must go, or the question what became of an order."""
        what = ""
        if o.status == "WORKING" and ((why and not o.cancel) or o.again):
            what = "CANCEL"
        if self.question_due(o) and not what:
            what = "QUERY"
        if what:
            self.plan.append(
                Row(what, o.seq, cell.epoch, cell.k, o.leg, o.side, o.price, o.quantity, False, why)
            )

    def question_due(self, o: Order) -> bool:
        """Whether to ask the exchange for this order."""
        return o.due is not None and self.now >= o.due

    # Opening legs.

    def shifts(self) -> tuple[int, int]:
        """Return by how many levels the skew moves the buys and the sells away."""
        s = self.set
        net = sum((c.position for c in self.cells.values()), ZERO) - s.target
        buy = sell = 0
        if net > 0:
            buy = int(abs(s.skew) * min(net, s.max_position) * s.buys / (2 * s.max_position))
        if net < 0:
            sell = int(abs(s.skew) * min(-net, s.max_position) * s.sells / (2 * s.max_position))
        return buy, sell

    def leave_passed_windows(self) -> None:
        """Start again at the pivot where the market is beyond all cells of a side and none of its orders stands."""
        if self.lattice is None:
            return
        epoch = self.lattice.epoch
        opens = [c.live(OPEN) for c in self.cells.values() if c.epoch == epoch]
        sides = {o.side for o in opens if o is not None}
        walk = [*self.walk("both")]
        if BUY not in sides and all(k >= self.pivot for side, k in walk if side == BUY):
            self.buy_base = self.pivot
        if SELL not in sides and all(k < self.pivot for side, k in walk if side == SELL):
            self.sell_base = self.pivot

    def windows(self) -> dict[int, range]:
        """Return by side the cells that may open."""
        (sb, ss), b, a = self.shift, self.buy_base, self.sell_base
        B, A = self.set.buys, self.set.sells
        tb = clip(self.trend, -(B // 2 - min(sb, B // 2)), B // 2 + sb)
        ts = clip(self.trend, -(A // 2 + ss), A // 2 - min(ss, A // 2))
        return {
            BUY: range(b - sb - B + max(0, tb), b - sb + min(0, tb)),
            SELL: range(a + ss + max(0, ts), a + ss + A + min(0, ts)),
        }

    def walk(self, mode: str = "") -> Iterator[tuple[int, int]]:
        """Yield side and cell, nearest first, as the mode has it."""
        if self.lattice is None:
            return
        sb, ss = self.shift
        mode = mode or self.set.mode
        for j in range(max(self.set.buys + sb, self.set.sells + ss)):
            if j < self.set.buys + sb and mode != "short":
                yield BUY, self.buy_base - 1 - j
            if j < self.set.sells + ss and mode != "long":
                yield SELL, self.sell_base + j

    def stopped(self) -> str:
        """Return why nothing at all opens."""
        if self.stop != "RUN":
            return "STOPPING"
        if self.risk != "NORMAL":
            return "RISK"
        if self.lattice is None or self.bid <= 0 or self.ask <= 0:
            return "NO_PRICE"
        if self.candidate == 0:
            return "FEE_FLOOR"
        if self.withdrawing:
            return "EPOCH"
        return ""

    def outside_window(self, side: int, k: int) -> str:
        """Return what withholds a cell of the walk from the window."""
        (sb, ss), window = self.shift, self.window[side]
        if k in window:
            return ""
        if side == BUY and k >= window.stop:
            return "SKEW" if k >= self.buy_base - sb else "TREND"
        if side == SELL and k < window.start:
            return "SKEW" if k < self.sell_base + ss else "TREND"
        return "TREND"

    def held(self) -> tuple[Decimal, Decimal, Decimal]:
        """Return what the target counts as held before it adds a cell: up, down and gross."""
        up = down = gross = ZERO
        for c in self.cells.values():
            u, d = max(c.position, ZERO), max(-c.position, ZERO)
            o = c.live(OPEN)
            if o is not None and o.partly:
                if o.side == BUY:
                    u += o.rest
                else:
                    d += o.rest
            up, down, gross = up + u, down + d, gross + max(u, d)
        return up, down, gross

    def fixed(self, o: Order) -> bool:
        """Whether an opening order is there to stay for now: unresolved, being cancelled or partly filled."""
        return o.status in ("PENDING", "UNKNOWN") or o.cancel or o.partly

    def caps(self) -> dict[int, Decimal]:
        """Return by side how much may be held."""
        most = self.set.max_position
        return {BUY: most, SELL: min(most, self.set.seed) if self.set.spot else most}

    def judge_opens(self, keep: dict[int, str]) -> list[tuple[int, int, Decimal, Decimal]]:
        """Walk the cells: name the standing opening legs that must go, and return side, cell, price, size to place."""
        wanted: list[tuple[int, int, Decimal, Decimal]] = []
        stopped = self.stopped()
        walked: set[int] = set()
        epoch = self.lattice.epoch if self.lattice else 0
        up, down, gross = self.held()
        held = {BUY: up, SELL: down}
        for side, k in self.walk():
            cell = self.cells.get((epoch, k))
            o = cell.live(OPEN) if cell else None
            standing = o if o is not None and o.side == side else None
            why = self.not_in_target(side, k, cell, standing, stopped)
            if not why and not (standing and standing.partly):
                _price, size = self.offer(side, k)
                need = standing.rest if standing else size
                full = held[side] + need > self.caps()[side] or gross + need > self.set.gross
                stays = standing and self.fixed(standing) and not standing.cancel
                if full and not stays:
                    why = "CAP"
                else:
                    held[side] += need
                    gross += need
            if standing:
                walked.add(standing.seq)
                if why:
                    keep[standing.seq] = why
            if standing:
                continue
            if why:
                self.holes.append(Hole(k, side, why))
            else:
                wanted.append((side, k, *self.offer(side, k)))
                self.holes.append(Hole(k, side, ""))  # named when it is placed or not
        for cell in self.in_order():
            o = cell.live(OPEN)
            if o is None or o.seq in walked:
                continue
            if cell.epoch != epoch:
                keep[o.seq] = "EPOCH"
            elif stopped:
                keep[o.seq] = stopped
            elif not o.partly:
                keep[o.seq] = "OUTSIDE"
        return wanted

    def offer(self, side: int, k: int) -> tuple[Decimal, Decimal]:
        """Return price and quantity of a cell's opening leg."""
        assert self.lattice is not None
        lo, hi = self.lattice.edges[k]
        price = lo if side == BUY else hi
        return price, floored(self.set.notional / price, self.set.lot)

    def not_in_target(
        self, side: int, k: int, cell: Cell | None, standing: Order | None, stopped: str
    ) -> str:
        """Return the first reason that withholds a cell, but for the cap."""
        s = self.set
        window = self.outside_window(side, k)
        if window and not (standing and standing.partly):
            return window
        if stopped:
            return stopped
        assert self.lattice is not None
        if k not in self.lattice.edges:
            return "PRICE_BOUNDS"
        price, size = self.offer(side, k)
        if price < s.price_min or 0 < s.price_max < price:
            return "PRICE_BOUNDS"
        if s.mode == "neutral" and self.sign == -side:
            return "SIDE"
        if self.too_small(price, size):
            return "NOTIONAL"
        if cell is not None and not standing:
            if cell.live(OPEN) or cell.live(CLOSE) or cell.position != 0:
                return "OCCUPIED"
        if not standing and (k >= self.pivot if side == BUY else k < self.pivot):
            return "TOUCHED"
        return ""

    def place_opens(self, wanted: list[tuple[int, int, Decimal, Decimal]]) -> None:
        """Plan the opening legs that are missing, or name what keeps each from being placed now."""
        for side, k, price, size in wanted:
            why = self.not_now(side, k, price, size)
            if not why:
                assert self.lattice is not None
                self.add_place(self.lattice.epoch, k, OPEN, side, price, size)
            at = self.holes.index(Hole(k, side, ""))
            self.holes[at : at + 1] = [Hole(k, side, why)] if why else []

    def not_now(self, side: int, k: int, price: Decimal, size: Decimal) -> str:
        """Return what keeps an opening leg of the target from being placed now."""
        assert self.lattice is not None
        cell = self.cells.get((self.lattice.epoch, k))
        if cell and (why := self.waits(cell.trouble[OPEN])):
            return why
        if price >= self.ask if side == BUY else price <= self.bid:
            return "WOULD_CROSS"
        if self.crosses_own(side, price):
            return "SELF_CROSS"
        if self.no_room():
            return "ORDER_LIMIT"
        planned = [r for r in self.plan if r.action == "PLACE" and r.leg == OPEN]
        reach = sum((max(c.up if side == BUY else -c.down, ZERO) for c in self.cells.values()), ZERO)
        reach += sum((r.quantity for r in planned if r.side == side), ZERO)
        gross = sum((max(abs(c.up), abs(c.down)) for c in self.cells.values()), ZERO)
        gross += sum((r.quantity for r in planned), ZERO)
        if reach + size > self.set.max_position or gross + size > self.set.gross:
            return "CAP_WAIT"
        if self.set.spot and side == SELL and self.free_base() < size:
            return "FUNDS"
        if self.no_budget():
            return "BUDGET"
        return ""

    def free_base(self) -> Decimal:
        """Return the base that no sell order holds."""
        owned = self.set.seed + sum((c.position for c in self.cells.values()), ZERO)
        selling = sum((o.rest for o in self.live_orders() if o.side == SELL), ZERO)
        planned = sum((r.quantity for r in self.plan if r.action == "PLACE" and r.side == SELL), ZERO)
        return owned - self.fees - selling - planned

    # Applying.

    def apply(self) -> None:
        """Turn the plan into orders, and forget the cells that hold nothing."""
        for at, row in enumerate(self.plan):
            if row.action == "PLACE":
                self.plan[at] = self.begin(row)
                continue
            o = self.orders[row.seq][1]
            o.due, o.asked = self.now + self.set.query_after_ms, True
            if row.action == "CANCEL":
                o.cancel, o.again = True, False
        for key, cell in list(self.cells.items()):
            if (
                cell.position == 0
                and not cell.live(OPEN)
                and not cell.live(CLOSE)
                and not self.remembered(cell)
            ):
                del self.cells[key]

    def begin(self, row: Row) -> Row:
        """Make the order of a row, with the next number."""
        row = row._replace(seq=self.next_seq)
        self.next_seq += 1
        key = row.epoch, row.cell
        if key not in self.cells:
            assert self.lattice is not None
            self.cells[key] = Cell(*key, *self.lattice.edges[row.cell])
        cell = self.cells[key]
        if row.leg == OPEN:
            cell.direction = row.side
        cell.astray = None
        o = Order(row.seq, row.leg, row.side, row.price, row.quantity, exit=row.immediate)
        o.due = self.now + self.set.query_after_ms
        cell.orders.append(o)
        self.orders[o.seq] = cell, o
        return row

    def remembered(self, cell: Cell) -> bool:
        """Whether an empty cell's opening leg is in a backoff among the cells of the walk: the next refusal waits longer."""
        if self.lattice is None or cell.epoch != self.lattice.epoch or not cell.direction:
            return False
        return cell.trouble[OPEN].rejects > 0 and (cell.direction, cell.k) in self.walk()
