"""Each trigger of the risk table once: value, trip, what happens to the orders, and how it arms again.

The scene is the same: a long grid on a perpetual with one filled cell, its closing order, and three opening orders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from gridmm.layout import Command, Kind, Par, Var
from gridmm.risk import MANUAL
from gridmm.vocabulary import Mode, Reason, Report, Risk, Stop, Trigger, Trip
from worlds import MILLION, World, event, limit, parameters

PRICE, SPACING, LOTS = 60_000, 50, 10
POINT = 2 * 5  # atoms of one tick of one lot
REARM_MS = 60_000
OPENS = [(59_800, LOTS), (59_850, LOTS), (59_900, LOTS)]
CLOSES = [(60_000, LOTS)]


def scene(trigger: Trigger, bound: int, mode: Risk, **cells: int) -> World:
    """Return the world of the scene with one trigger armed."""
    cells = {
        "BASE": SPACING,
        "BUYS": 3,
        "SELLS": 3,
        "CHANGE_PCT": 10**6,
        "SPIKE_DROP_PPM": 500,
        "SPIKE_ANY": 1,
    } | cells
    world = World(limit(parameters(PRICE + 500, LOTS, **cells), trigger, bound, mode), PRICE)
    world.move(PRICE)
    world.now += 1_000
    world.move(PRICE - SPACING, fills_first=False)
    assert world.standing(0) == OPENS and world.standing(1) == CLOSES
    assert world.var(Var.RISK) == Risk.NORMAL
    return world


def tell(world: World, trigger: Trigger, value: int) -> None:
    """Report a measured value, as the shell does."""
    world.feed(event(Kind.RISK, world.now, CODE=trigger, ARG=value))


def candles(world: World, volume: int, reach: int = 10) -> None:
    """Feed one candle that closes at the last price."""
    world.now += 1_000
    last = world.last
    world.feed(
        event(
            Kind.CANDLE, world.now, OPEN=last, HIGH=last + reach, LOW=last - reach, CLOSE=last, VOLUME=volume
        )
    )


def move(world: World, price: int) -> None:
    """Move the market a second later, without touching what stands."""
    world.now += 1_000
    world.feed(world.quote(price))


def first_open(world: World) -> int:
    """Return the sequence number of the nearest opening order."""
    tickets = world.exchange.tickets
    return max(
        (s for s in world.exchange.open_tickets() if tickets[s].row.leg == 0),
        key=lambda s: tickets[s].row.price,
    )


def say(world: World, seq: int, report: Report, cum: int, reason: int = 0) -> None:
    """Deliver a report about an order that the exchange did not make."""
    row = world.exchange.tickets[seq].row
    world.feed(world.exchange.about(row, Kind.ORDER, REPORT=report, CUM=cum, REASON=reason))


def wild_candles(world: World) -> None:
    for reach in (10, 10, 10, 10, 10, 200, 200):
        candles(world, 1, reach)


def calm_candles(world: World) -> None:
    for _ in range(3):
        candles(world, 1)


def silence(world: World) -> None:
    world.now += 9_000
    world.feed(event(Kind.TIMER, world.now))


def spike(world: World) -> None:
    for _ in range(3):
        candles(world, 10)
    move(world, PRICE - 90)
    candles(world, 60)


def sink(world: World) -> None:
    move(world, PRICE - 90)
    world.now += 5_000
    move(world, PRICE - 90)


def refuse(world: World) -> None:
    for _ in range(2):
        seq = first_open(world)
        world.exchange.tickets[seq].state = "done"
        say(world, seq, Report.REJECTED, 0, Reason.OTHER)
        world.settle()


def unanswered(world: World) -> None:
    for _ in range(3):
        say(world, first_open(world), Report.TIMEOUT, -1)


def stray(world: World) -> None:
    row = world.exchange.tickets[1].row._replace(seq=777, cell=-9, price=59_550)
    world.feed(world.exchange.about(row, Kind.ORDER, REPORT=Report.LIVE, CUM=0))


def end_stray(world: World) -> None:
    row = world.exchange.tickets[1].row._replace(seq=777, cell=-9, price=59_550)
    world.exchange.requests.clear()
    world.feed(world.exchange.about(row, Kind.ORDER, REPORT=Report.CANCELED, CUM=0))


def late(world: World) -> None:
    # the exchange ends an order and only later admits that it was filled
    seq = first_open(world)
    world.exchange.end(seq, Report.EXPIRED)
    world.deliver()
    world.exchange.tickets[seq].state = "open"
    world.exchange.fill(seq, world.exchange.tickets[seq].row.price, LOTS)


def sold_at_a_loss(world: World) -> None:
    move(world, PRICE - 70)
    world.command(Command.STOP, Stop.FLATTEN)
    world.settle()
    world.command(Command.STOP, Stop.RUN)


@dataclass(frozen=True)
class Scenario:
    """What trips a trigger, the value it must show, and what ends its cause.

    Attributes:
        trigger: The row of the table.
        bound: Its limit.
        cause: Makes the value reach the limit.
        value: What the table must show then; None where the scenario has no round number.
        cure: Ends the cause.
        by_hand: As the page's table says.
        cells: Parameters of this scenario.
        moved: The scene's orders are not the ones to expect back.
    """

    trigger: Trigger
    bound: int
    cause: Callable[[World], object]
    value: int | None
    cure: Callable[[World], object]
    by_hand: bool
    cells: tuple[tuple[str, int], ...] = ()
    moved: bool = False


def back(world: World) -> None:
    move(world, PRICE - SPACING)


def nothing(world: World) -> None:
    del world


def told(trigger: Trigger, value: int) -> Callable[[World], object]:
    return lambda world: tell(world, trigger, value)


SCENARIOS = [
    Scenario(Trigger.OPERATOR, 1, lambda w: w.command(Command.PAUSE), 1, nothing, True),
    Scenario(Trigger.VOLUME_SPIKE, 5 * MILLION, spike, 6 * MILLION, lambda w: candles(w, 10), False, moved=True),
    Scenario(Trigger.ATR_SPIKE, 4 * MILLION, wild_candles, 20 * MILLION, calm_candles, False),
    Scenario(Trigger.DRAWDOWN, 40 * LOTS * POINT, sink, 40 * LOTS * POINT, back, True, (("DRAWDOWN_HOLD_MS", 5_000),)),
    Scenario(Trigger.STOP_LOSS, 40 * LOTS * POINT, sink, 40 * LOTS * POINT, back, True),
    Scenario(Trigger.TAKE_PROFIT, 30 * LOTS * POINT, lambda w: move(w, PRICE - 20), 30 * LOTS * POINT, back, True),
    Scenario(Trigger.LOSING_CELLS, 1, lambda w: move(w, PRICE - 51), 1, back, False),
    Scenario(Trigger.LOSING_EXITS, 1, sold_at_a_loss, 1, nothing, True, moved=True),
    Scenario(
        Trigger.QUOTE_EXPOSURE, (PRICE - 40) * LOTS * POINT, lambda w: move(w, PRICE - 40),
        (PRICE - 40) * LOTS * POINT, back, False,
    ),
    Scenario(Trigger.STALE_PRICE, 9_000, silence, 9_000, back, False),
    Scenario(Trigger.STALE_USER, 9_000, told(Trigger.STALE_USER, 9_000), 9_000, told(Trigger.STALE_USER, 0), False),
    Scenario(Trigger.MISMATCH, 7, told(Trigger.MISMATCH, 8), 8, told(Trigger.MISMATCH, 0), True),
    Scenario(Trigger.REJECTS, 2, refuse, 2, nothing, False, (("BACKOFF_MS", 1), ("STREAK_WINDOW_MS", 30_000))),
    Scenario(Trigger.ERRORS, 3, unanswered, 3, nothing, False, (("STREAK_WINDOW_MS", 30_000),)),
    Scenario(Trigger.CLOCK_SKEW, 500, told(Trigger.CLOCK_SKEW, 500), 500, told(Trigger.CLOCK_SKEW, 0), False),
    Scenario(Trigger.LIQUIDATION, 100_000, told(Trigger.LIQUIDATION, 99_000), 99_000, told(Trigger.LIQUIDATION, 300_000), False),
    Scenario(Trigger.STRAY_ORDER, 1, stray, 1, end_stray, True),
    Scenario(Trigger.LATE_FILL, 1, late, 1, nothing, True, moved=True),
    Scenario(Trigger.ABSENT_ORDER, 1, lambda w: say(w, first_open(w), Report.ABSENT_FINAL, 0), 1, nothing, True),
    Scenario(Trigger.RESIDUAL, 1, lambda w: w.core.v.__setitem__(Var.HARVEST, 9), 9, lambda w: w.core.v.__setitem__(Var.HARVEST, 0), True),
]  # fmt: skip


def test_every_trigger_has_a_scenario() -> None:
    assert [scenario.trigger for scenario in SCENARIOS] == list(Trigger)
    assert [scenario.by_hand for scenario in SCENARIOS] == MANUAL.tolist()


def wait(world: World, ms: int) -> None:
    """Let time pass with fresh prices."""
    for _ in range(4):
        world.now += ms // 4
        world.feed(world.quote(world.last))
        if world.exchange.tickets.get(777) is None:
            world.exchange.requests = [r for r in world.exchange.requests if r[1] != 777]
        world.settle()


@pytest.mark.parametrize("mode", [Risk.REDUCE_ONLY, Risk.HALTED], ids=lambda mode: mode.name)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.trigger.name)
def test_trigger(scenario: Scenario, mode: Risk) -> None:
    world = scene(scenario.trigger, scenario.bound, mode, **dict(scenario.cells))
    world.audits = scenario.trigger != Trigger.RESIDUAL
    row = world.core.risk[:, scenario.trigger]
    before = row[Trip.ACTIVE]
    scenario.cause(world)
    if scenario.trigger == Trigger.RESIDUAL:
        back(world)
    world.exchange.requests = [r for r in world.exchange.requests if r[1] != 777]
    world.settle()
    assert (before, row[Trip.ACTIVE], row[Trip.VALUE], row[Trip.LIMIT]) == (
        0,
        1,
        scenario.value,
        scenario.bound,
    )
    assert world.var(Var.RISK) == mode
    assert world.standing(0) == [], "every opening order is cancelled"
    if mode == Risk.HALTED:
        assert world.standing(1) == [], "nothing is quoted"
    elif not scenario.moved:
        assert world.standing(1) == CLOSES, "closing orders keep working"

    scenario.cure(world)
    wait(world, REARM_MS - 10_000)
    assert world.var(Var.RISK) == mode, "not before the re-arm time"
    wait(world, 86_400_000)
    if scenario.by_hand:
        assert world.var(Var.RISK) == mode, "only by hand"
        world.command(Command.RESET_RISK, scenario.trigger)
        world.settle()
    assert world.var(Var.RISK) == Risk.NORMAL
    wait(world, 86_400_000)
    if not scenario.moved:
        assert world.standing(1) == CLOSES
        assert world.standing(0) == OPENS
    assert world.standing(0) != []


def test_a_drawdown_must_be_held() -> None:
    world = scene(Trigger.DRAWDOWN, 40 * LOTS * POINT, Risk.HALTED, DRAWDOWN_HOLD_MS=5_000)
    for price in (PRICE - 90, PRICE - 85, PRICE - 91, PRICE - 60):
        move(world, price)
    world.now += 9_000
    move(world, PRICE - 60)
    assert world.var(Var.RISK) == Risk.NORMAL


def test_a_drawdown_reset_by_hand_counts_from_there() -> None:
    world = scene(Trigger.DRAWDOWN, 40 * LOTS * POINT, Risk.REDUCE_ONLY, DRAWDOWN_HOLD_MS=5_000)
    sink(world)
    assert world.var(Var.RISK) == Risk.REDUCE_ONLY
    world.command(Command.RESET_RISK, Trigger.DRAWDOWN)
    world.settle()
    assert world.var(Var.RISK) == Risk.NORMAL
    assert world.var(Var.PEAK) == -40 * LOTS * POINT


def test_a_take_profit_that_holds_sells_nothing() -> None:
    world = scene(Trigger.TAKE_PROFIT, 30 * LOTS * POINT, Risk.HALTED, EXIT_FLATTEN=0)
    world.move(PRICE - 20)
    assert world.position() == LOTS and world.exchange.open_tickets() == []


@pytest.mark.parametrize("trigger", [Trigger.STOP_LOSS, Trigger.TAKE_PROFIT], ids=lambda t: t.name)
def test_flatten_on_exit_sells_everything_and_stays_out(trigger: Trigger) -> None:
    world = scene(trigger, 30 * LOTS * POINT, Risk.HALTED, EXIT_FLATTEN=1)
    price = PRICE - 80 if trigger == Trigger.STOP_LOSS else PRICE - 20
    world.move(price)
    assert world.position() == 0 and world.exchange.open_tickets() == []
    assert world.var(Var.EXIT) == (price - 1 - (PRICE - SPACING)) * LOTS * POINT
    wait(world, 86_400_000)
    assert world.var(Var.RISK) == Risk.HALTED and world.exchange.open_tickets() == []
    world.par[Par.LIMITS + trigger] *= 10
    world.command(Command.RESET_RISK, trigger)
    world.settle()
    assert world.standing(0) != []


@pytest.mark.parametrize("covers", [0, 1])
def test_reduce_only_on_spot_buys_back_only_if_configured(covers: int) -> None:
    cells = {
        "MODE": Mode.SHORT,
        "SPOT": 1,
        "BASE": SPACING,
        "BUYS": 3,
        "SELLS": 3,
        "SPOT_SHORT_COVER": covers,
    }
    par = limit(parameters(PRICE + 500, LOTS, **cells), Trigger.OPERATOR, 1, Risk.REDUCE_ONLY)
    world = World(par, PRICE, seed_lots=100)
    world.move(PRICE)
    world.move(PRICE + SPACING)
    assert world.standing(1) == [(PRICE, LOTS)]
    world.command(Command.PAUSE)
    world.settle()
    assert world.standing(0) == []
    assert world.standing(1) == ([(PRICE, LOTS)] if covers else [])


@pytest.mark.parametrize(("any_", "spikes"), [(1, True), (0, False)])
def test_a_volume_spike_of_any_or_of_all_symbols(any_: int, spikes: bool) -> None:
    world = scene(Trigger.VOLUME_SPIKE, 5 * MILLION, Risk.REDUCE_ONLY, SPIKE_ANY=any_, MONITORED=2)
    for symbol in (0, 1):
        for n in range(3):
            world.feed(
                event(
                    Kind.CANDLE, world.now + n, SYMBOL=symbol, OPEN=99, HIGH=99, LOW=99, CLOSE=99, VOLUME=10
                )
            )
    crash = {"OPEN": 99, "HIGH": 99, "LOW": 90, "CLOSE": 90, "VOLUME": 60}
    world.feed(event(Kind.CANDLE, world.now + 9, SYMBOL=1, **crash))
    assert (world.var(Var.RISK) == Risk.REDUCE_ONLY) == spikes
    world.feed(event(Kind.CANDLE, world.now + 9, SYMBOL=0, **crash))
    assert world.var(Var.RISK) == Risk.REDUCE_ONLY


def test_a_trigger_without_limit_is_off() -> None:
    world = scene(Trigger.STOP_LOSS, 0, Risk.HALTED)
    sink(world)
    assert world.var(Var.RISK) == Risk.NORMAL and world.standing(0) == OPENS


@pytest.mark.parametrize("trigger", [Trigger.TAKE_PROFIT, Trigger.DRAWDOWN], ids=lambda t: t.name)
def test_a_fill_before_its_price_is_no_gain(trigger: Trigger) -> None:
    # ten lots are bought at 59 950, and the last price known is still 60 000; then the market is at 59 930
    world = World(
        limit(parameters(PRICE + 500, LOTS, BASE=SPACING), trigger, 30 * LOTS * POINT, Risk.HALTED), PRICE
    )
    world.move(PRICE)
    world.now += 1_000
    world.move(PRICE - SPACING, fills_first=True)
    move(world, PRICE - SPACING - 20)
    assert world.var(Var.RISK) == Risk.NORMAL


def test_a_fill_in_the_millisecond_of_the_price_before_it_is_no_gain() -> None:
    world = World(
        limit(
            parameters(PRICE + 500, LOTS, BASE=SPACING), Trigger.TAKE_PROFIT, 30 * LOTS * POINT, Risk.HALTED
        ),
        PRICE,
    )
    world.move(PRICE)
    world.move(PRICE - SPACING, fills_first=True)
    move(world, PRICE - SPACING - 20)
    assert world.var(Var.RISK) == Risk.NORMAL
