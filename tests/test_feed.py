"""Moments are all rows, once, in order; candles are those of a stream; a session goes on where it was."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import real
from gridmm import paper_matching
from gridmm.demo_market import DAY_ROWS, DemoMarket, demo_tape
from gridmm.feed import (
    Candle,
    Candles,
    Market,
    Moment,
    Pace,
    candle_table,
    conflate,
    moments,
    standing,
)
from gridmm.tape import Row, Tape, load
from gridmm.units import Instrument

BTC = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.001"))


def tape_of(*rows: tuple[int, ...], first_row: int = 0) -> Tape:
    table = np.array([(*row, *(0,) * (7 - len(row))) for row in rows], np.int64).reshape(-1, 7).T
    return Tape.of(BTC, "test", list(table), first_row=first_row)


class Parts:
    """A market that comes in pieces."""

    def __init__(self, tape: Tape, *cuts: int) -> None:
        borders = [0, *sorted({cut for cut in cuts if 0 < cut < len(tape)}), len(tape)]
        self.parts = [
            Tape.of(BTC, "part", [column[a:b] for column in tape.columns()], first_row=a)
            for a, b in pairwise(borders)
            if a < b
        ]
        self.rows, self.sha = len(tape), "parts"

    def part(self, row: int) -> Tape:
        """Return the part that holds `row`."""
        return next(part for part in self.parts if part.first_row <= row < part.rows)


PRICES = st.integers(2, 200)
ROWS = st.one_of(
    st.tuples(st.just(Row.TRADE), PRICES, st.integers(0, 50), st.sampled_from([-1, 0, 1])),
    st.tuples(st.just(Row.QUOTE), PRICES, st.integers(201, 300), st.integers(0, 9), st.integers(0, 9)),
)
STEPS = st.sampled_from([0, 0, 1, 700, 5_000, 61_000, 130_000])


@st.composite
def markets(draw: st.DrawFn, kinds: st.SearchStrategy[tuple[int, ...]] = ROWS) -> Tape:
    now, rows = draw(st.integers(0, 200_000)), []
    for row in draw(st.lists(kinds, min_size=1, max_size=40)):
        rows.append((now, *row))
        now += draw(STEPS)
    return tape_of(*rows)


def streamed(tape: Tape, period_ms: int) -> tuple[list[Candle], Candle | None]:
    """Build candles one row at a time."""
    candles, done = Candles(period_ms), []
    trades = (tape.kind == Row.TRADE).any()
    for index in range(len(tape)):
        time_ms, kind, a, b, *_ = tape.row(index)
        if kind == Row.TRADE:
            done.append(candles.add(time_ms, a, b))
        elif kind == Row.QUOTE and not trades:
            done.append(candles.add(time_ms, (a + b) // 2))
        else:
            done.append(candles.until(time_ms))
    return [candle for candle in done if candle], candles.open


def test_row_kinds_are_those_of_the_exchange() -> None:
    assert {kind.name: int(kind) for kind in Row}.items() <= {
        k.name: int(k) for k in paper_matching.Row
    }.items()


# --- moments ---------------------------------------------------------------------------------------------------------


@given(markets())
def test_moments_are_all_rows_once_and_in_order(tape: Tape) -> None:
    seen = list(moments(tape))
    assert [row for m in seen for row in range(m.first, m.end)] == list(range(len(tape)))
    assert all(a.time_ms < b.time_ms for a, b in pairwise(seen))
    for moment in seen:
        assert set(tape.time_ms[moment.first : moment.end].tolist()) == {moment.time_ms}


@given(markets())
def test_the_price_of_a_moment_is_that_of_its_last_rows(tape: Tape) -> None:
    quotes = (tape.kind == Row.QUOTE).any()
    for moment in moments(tape):
        touch, last = (0, 0, 0, 0), 0
        for index in range(moment.end):
            _, kind, a, b, c, d, _ = tape.row(index)
            if kind == Row.QUOTE:
                touch = (a, b, c, d)
            else:
                last = a
        if not quotes:
            touch = (last - 1, last + 1, 0, 0)
        assert (moment.bid, moment.ask, moment.bid_lots, moment.ask_lots) == touch
        assert moment.last == (last or (touch[0] + touch[1]) // 2) and moment.fresh == 1


@given(markets(), st.sampled_from([1_000, 60_000, 420_000]))
def test_candles_are_those_of_a_stream(tape: Tape, period_ms: int) -> None:
    told, open = streamed(tape, period_ms)
    seen = list(moments(tape, period_ms=period_ms))
    assert [candle for moment in seen for candle in moment.candles] == told
    table = [Candle(*values) for values in candle_table(tape, period_ms).T.tolist()]
    assert table == told + ([open] if open else [])
    for before, moment in zip([None, *seen], seen, strict=False):
        for candle in moment.candles:
            assert candle.time_ms <= moment.time_ms and (before is None or before.time_ms < candle.time_ms)


@given(markets(), st.data(), st.sampled_from([1_000, 60_000]))
def test_a_session_goes_on_at_any_row(tape: Tape, data: st.DataObject, period_ms: int) -> None:
    row = data.draw(st.integers(0, len(tape) - 1))
    whole = [m for m in moments(tape, 0, period_ms) if m.end > row]
    assert list(moments(tape, row, period_ms)) == [whole[0]._replace(first=row), *whole[1:]]


TRADES = st.tuples(st.just(Row.TRADE), PRICES, st.integers(0, 50), st.just(1))


@given(markets(TRADES), st.data())
def test_a_market_in_parts_is_the_same_market(tape: Tape, data: st.DataObject) -> None:
    borders = np.flatnonzero(np.diff(tape.time_ms)) + 1  # a part ends where time moves on
    cuts = data.draw(st.sets(st.sampled_from(borders.tolist()), max_size=1)) if len(borders) else set()
    market, whole = Parts(tape, *cuts), list(moments(tape))
    assert list(moments(market)) == whole
    row = data.draw(st.integers(0, len(tape) - 1))
    assert list(moments(market, row)) == list(moments(tape, row))


def test_nothing_is_known_before_the_first_quote() -> None:
    tape = tape_of(
        (0, Row.TRADE, 100, 5, 1), (1, Row.QUOTE, 99, 101, 3, 4), (2, Row.CANDLE, 100, 100, 100, 100, 5)
    )
    first, second, third = moments(tape)
    assert (first.bid, first.ask, first.last, first.fresh) == (0, 0, 100, 1)
    assert (second.bid, second.ask, second.last, second.bid_lots, second.ask_lots) == (99, 101, 100, 3, 4)
    assert third.fresh == 0 and third.candles == (Candle(2, 100, 100, 100, 100, 5),)
    assert [m.bid for m in moments(tape_of((0, Row.CANDLE, 9, 9, 9, 9, 0), (1, Row.PATH, 1, 2)))] == [0, 1]


def test_a_candle_comes_before_the_price_of_its_moment() -> None:
    bars = tape_of(
        (0, Row.PATH, 100, 5), (60_000, Row.CANDLE, 100, 104, 98, 98, 15), (60_000, Row.PATH, 97, 1)
    )
    first, second = moments(bars)
    assert first.candles == () and second.candles == (Candle(60_000, 100, 104, 98, 98, 15),)
    assert (second.first, second.end, second.bid, second.last, second.ask) == (1, 3, 96, 97, 98)


def test_an_empty_tape_has_no_moments() -> None:
    assert list(moments(tape_of())) == [] and standing(tape_of(), 0) is None


def test_silence_has_no_candle() -> None:
    tape = tape_of((10, Row.TRADE, 5, 1, 1), (300_000, Row.TRADE, 7, 2, 1), (360_000, Row.QUOTE, 6, 8, 1, 1))
    assert [candle for m in moments(tape) for candle in m.candles] == [
        Candle(60_000, 5, 5, 5, 5, 1),
        Candle(360_000, 7, 7, 7, 7, 2),
    ]
    with pytest.raises(ValueError, match="period_ms was 0"):
        Candles(0)


# --- where it stands -------------------------------------------------------------------------------------------------


@given(markets(), st.data(), st.integers(0, 3))
def test_the_standing_price_is_that_of_the_rows_before(tape: Tape, data: st.DataObject, candles: int) -> None:
    row = data.draw(st.integers(1, len(tape)))
    shown = standing(tape, row, candles=candles)
    before = [m for m in moments(tape) if m.first < row]
    assert shown is not None and (shown.first, shown.end) == (row, row)
    assert shown[3:9] == before[-1][3:9] and shown.time_ms == before[-1].time_ms
    told = [candle for moment in before for candle in moment.candles]
    assert list(shown.candles) == (told[-candles:] if candles else [])


def test_the_demo_market_stands_anywhere() -> None:
    market = DemoMarket()
    shown = standing(market, DAY_ROWS + 3)
    assert shown is not None and len(shown.candles) == 1 and shown.bid > 0
    following = next(moments(market, DAY_ROWS + 3))
    assert following.time_ms >= shown.time_ms and abs(following.bid - shown.bid) < 100


def take(market: Market, row: int, count: int) -> list[Moment]:
    return [moment for moment, _ in zip(moments(market, row), range(count), strict=False)]


def test_the_demo_market_goes_on_over_midnight() -> None:
    market = DemoMarket(seed=4)
    walked = take(market, DAY_ROWS - 3_000, 6_000)
    middle = next(i for i, moment in enumerate(walked) if moment.first > DAY_ROWS + 500)
    assert take(market, walked[middle].first, 1_000) == walked[middle : middle + 1_000]
    midnight = next(moment for moment in walked if moment.end > DAY_ROWS)
    assert [candle.time_ms for candle in midnight.candles] == [market.start_ms + 86_400_000]


@pytest.mark.parametrize("row", [0, 1, 30_000, 37_796])
def test_a_real_recording_goes_on_at_any_row(row: int) -> None:
    tape = load(real("binance_spot_btcusdt_20240808_raw.ndjson.gz"))
    whole = list(moments(tape))
    assert len(whole) < 0.8 * len(tape)
    left = [moment for moment in whole if moment.end > row]
    assert list(moments(tape, row)) == [left[0]._replace(first=row), *left[1:]]


def test_a_real_month_has_a_candle_a_minute() -> None:
    tape = load(real("btcusdt_perp_1m_202506.csv.gz"))
    candles = [candle for moment in moments(tape) for candle in moment.candles]
    assert len(candles) == 43_165 and candles[0][1:5] == (1_045_661, 1_046_114, 1_045_660, 1_046_114)


def test_conflating_costs_little() -> None:
    prices = conflate(demo_tape(24))
    assert 0.6 * DAY_ROWS < len(prices.time_ms) < 0.95 * DAY_ROWS
    assert (prices.first[1:] == prices.end[:-1]).all() and prices.fresh.all()


# --- speed -----------------------------------------------------------------------------------------------------------


class World:
    """A clock that moves only in sleep, and by what a test adds."""

    def __init__(self) -> None:
        self.now_ms = 5_000_000.0
        self.slept: list[float] = []

    def clock_ms(self) -> int:
        """Return the time."""
        return round(self.now_ms)

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now_ms += seconds * 1_000


def pauses(
    speed: str, times_ms: list[int], late_ms: dict[int, int] | None = None, longest_ms: int = 5_000
) -> list[float]:
    world = World()
    pace = Pace(speed, world.clock_ms, world.sleep, longest_ms)

    async def play() -> None:
        for time_ms in times_ms:
            world.now_ms += (late_ms or {}).get(time_ms, 0)
            await pace.until(time_ms)

    asyncio.run(play())
    return [round(seconds, 6) for seconds in world.slept]


def test_time_passes_as_fast_as_asked() -> None:
    assert pauses("1", [0, 1_000, 1_500]) == [0, 1, 0.5]
    assert pauses("60", [0, 60_000, 120_000]) == [0, 1, 1]
    assert pauses("0.5", [0, 1_000]) == [0, 2]


def test_small_delays_are_caught_up() -> None:
    assert pauses("1", [0, 1_000, 2_000], late_ms={1_000: 1_600}) == [0, 0, 0.4]


def test_gaps_are_cut_and_long_delays_forgiven() -> None:
    assert pauses("1", [0, 9_999_999, 10_000_999]) == [0, 5, 1]
    assert pauses("1", [0, 1_000, 2_000], late_ms={1_000: 3_600_000}) == [0, 0, 1]


def test_at_full_speed_others_get_a_turn_now_and_then() -> None:
    assert pauses("max", list(range(1_000))) == [0, 0, 0]


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "", "1/0", "nan", "inf"])
def test_a_speed_is_a_number_above_zero(speed: str) -> None:
    with pytest.raises(ValueError, match="must be 'max' or a number above 0"):
        Pace(speed, World().clock_ms, World().sleep)


def test_moments_are_held_back() -> None:
    tape = tape_of((0, Row.TRADE, 5, 1, 1), (2_000, Row.TRADE, 6, 1, 1))
    world = World()

    async def play() -> list[tuple[int, float]]:
        start = world.now_ms
        pace = Pace("2", world.clock_ms, world.sleep)
        told = []
        for moment in moments(tape):
            await pace.until(moment.time_ms)
            told.append((moment.last, world.now_ms - start))
        return told

    assert asyncio.run(play()) == [(5, 0.0), (6, 1_000.0)]


@settings(max_examples=20)
@given(st.lists(st.integers(0, 4_000), min_size=1, max_size=20), st.integers(1, 500))
def test_a_market_is_never_ahead_of_its_time(steps: list[int], speed: int) -> None:
    times = np.cumsum(steps).tolist()
    total = sum(pauses(str(speed), times))
    assert abs(total - (times[-1] - times[0]) / speed / 1_000) < 0.002 * len(times)
