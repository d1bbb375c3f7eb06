"""The demo market is the same bytes everywhere, goes on where it was, and has the day that it promises."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmm.demo_market import (
    BLOCK_ROWS,
    DAY_BLOCKS,
    DAY_MS,
    DAY_ROWS,
    DEMO,
    DemoMarket,
    _day,
    bell,
    below,
    demo_tape,
    draw,
    scenes,
    skeleton,
)
from gridmm.tape import Row, Tape
from gridmm.units import Instrument

MARKET = DemoMarket()
SHA_DAY = "ec5d0754d0d968fe489d6208c2fa6540"
SHA_HOURS = "9e9f9beb09316f6be48515253fc46a2c"


def test_the_first_day_is_these_bytes() -> None:
    tape = demo_tape(24)
    assert len(tape) == DAY_ROWS and tape.sha == SHA_DAY


def test_every_seed_is_a_market_of_its_own() -> None:
    assert demo_tape(2, seed=7).sha == SHA_HOURS
    shas = {DemoMarket(seed).sha for seed in range(20)} | {DemoMarket(price=Decimal(50_000)).sha}
    assert len(shas) == 21
    a, b = demo_tape(1, seed=1), demo_tape(1, seed=2)
    assert abs(np.corrcoef(np.diff(a.a[a.kind == 1][:2_000]), np.diff(b.a[b.kind == 1][:2_000]))[0, 1]) < 0.1


def test_splitmix64_is_the_published_one() -> None:
    # Sebastiano Vigna's reference program, started with 1234567, prints these.
    from gridmm.demo_market import _GOLDEN, _mix

    state = np.uint64(1_234_567) + np.arange(1, 6, dtype=np.uint64) * _GOLDEN
    assert _mix(state).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_chance_is_even() -> None:
    numbers = draw(3, 5, np.arange(200_000))
    assert abs(np.bincount(below(numbers, 10), minlength=10) - 20_000).max() < 800
    assert abs(bell(numbers).mean()) < 2 and abs(bell(numbers).std() - 209) < 2
    other = draw(3, 6, np.arange(200_000))
    assert abs(np.corrcoef(below(numbers, 2**20), below(other, 2**20))[0, 1]) < 0.01


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_a_jump_lands_where_a_walk_would(seed: int, day: int) -> None:
    walked = DemoMarket(seed)
    for earlier in range(day + 1):
        part = walked.part(earlier * DAY_ROWS)
    _day.cache_clear()
    jumped = DemoMarket(seed).part(day * DAY_ROWS + 17)
    assert jumped.first_row == day * DAY_ROWS and jumped.rows == (day + 1) * DAY_ROWS
    for a, b in zip(part.columns(), jumped.columns(), strict=True):
        assert (a == b).all()


def test_days_join_without_a_jump() -> None:
    for day in range(3):
        before, after = MARKET.part(day * DAY_ROWS), MARKET.part((day + 1) * DAY_ROWS)
        assert before.sha == after.sha == MARKET.sha
        assert before.time_ms[-1] < MARKET.start_ms + (day + 1) * DAY_MS <= after.time_ms[0]
        last, first = before.a[before.kind == Row.QUOTE][-1], after.a[after.kind == Row.QUOTE][0]
        assert abs(first - last) < 300


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rows_are_a_market(seed: int) -> None:
    tape = DemoMarket(seed).part(0)
    quote, trade = tape.kind == Row.QUOTE, tape.kind == Row.TRADE
    assert (np.diff(tape.time_ms) >= 0).all() and (quote | trade).all() and quote[0]
    assert (tape.a[quote] < tape.b[quote]).all() and (tape.a > 0).all()
    assert (tape.c[quote] > 0).all() and (tape.d[quote] > 0).all() and (tape.b[trade] > 0).all()
    assert set(tape.c[trade].tolist()) == {-1, 1} and (np.diff(tape.d[trade]) > 0).all()
    standing = np.maximum.accumulate(np.where(quote, np.arange(len(tape)), 0))[trade]
    at_touch = np.where(tape.c[trade] > 0, tape.b[standing], tape.a[standing])
    assert (tape.a[trade] == at_touch).all()


def returns_by_minute(tape: Tape) -> np.ndarray:
    quote = tape.kind == Row.QUOTE
    at = np.searchsorted(tape.time_ms[quote], tape.time_ms[0] + np.arange(1, 1_440) * 60_000) - 1
    return np.diff(np.log(tape.a[quote][at].astype(float)))


def test_the_first_day_has_a_burst_a_trend_a_crash_and_a_recovery() -> None:
    start = 600_000 * 1_024
    bones = skeleton(1, 0, start, start)
    price = bones.level / start
    hours = bones.time_ms / 3_600_000
    crash, end, recovered = 528, 624, 912
    assert -0.075 < price[end] / price[crash] - 1 < -0.045 and (hours[end] - hours[crash]) < 0.5
    assert price[recovered] - price[end] > 0.5 * (price[crash] - price[end])
    assert hours[recovered] - hours[end] > 2
    drift = scenes(1, 0, 0).drift_ppm
    assert abs(drift[208:464].sum()) >= 19_000 and (drift[208:464] != 0).all() and not drift[:208].any()
    moves = np.abs(returns_by_minute(MARKET.part(0)))
    burst = slice(int(hours[64] * 60), int(hours[96] * 60))
    quiet = slice(int(hours[464] * 60), int(hours[528] * 60))
    assert moves[burst].mean() > 5 * moves[quiet].mean()


def test_volatility_comes_in_bursts_and_returns_have_fat_tails() -> None:
    move = np.concatenate([returns_by_minute(DemoMarket(seed).part(0)) for seed in range(1, 6)])
    move -= move.mean()
    kurtosis = (move**4).mean() / (move**2).mean() ** 2
    size = np.abs(move)
    clustering = np.corrcoef(size[:-5], size[5:])[0, 1]
    direction = np.corrcoef(move[:-1], move[1:])[0, 1]
    assert kurtosis > 6 and clustering > 0.2 and abs(direction) < 0.2  # the crash alone has a direction


def test_rows_come_faster_when_it_matters() -> None:
    tape = MARKET.part(0)
    per_second = np.bincount((tape.time_ms - MARKET.start_ms) // 1_000, minlength=86_400)
    assert 1 < per_second.mean() < 5
    calm, panic = np.percentile(per_second.reshape(-1, 60).mean(axis=1), [10, 99])
    assert panic > 8 * calm
    ties = (np.diff(tape.time_ms) == 0).mean()
    assert 0.05 < ties < 0.5


def test_the_price_comes_home() -> None:
    for seed in (1, 2):
        level = home = 600_000 * 1_024
        for day in range(120):
            level = int(skeleton(seed, day, level, home).level[-1])
            assert home / 2 < level < home * 2


@pytest.mark.parametrize(
    "instrument",
    [
        Instrument("BTC/USDT", "spot", Decimal("0.01"), Decimal("0.00001")),
        Instrument("BTC/USDT", "spot", Decimal(1), Decimal(1)),
        Instrument("ETH/USDT:USDT", "perpetual", Decimal("0.0001"), Decimal("0.001")),
    ],
)
def test_any_steps_will_do(instrument: Instrument) -> None:
    tape = demo_tape(1, instrument=instrument)
    quote = tape.kind == Row.QUOTE
    first = instrument.price(tape.a[0])
    assert abs(first - 60_000) < 600 and (tape.a[quote] < tape.b[quote]).all()
    assert (np.unique(tape.a[quote]).size) > 20


def test_hours_are_cut_at_their_end() -> None:
    tape = demo_tape(30)
    assert tape.time_ms[-1] < MARKET.start_ms + 30 * 3_600_000 < tape.time_ms[-1] + 60_000
    day = MARKET.part(DAY_ROWS)
    assert tape.row(DAY_ROWS + 5) == day.row(DAY_ROWS + 5)
    assert BLOCK_ROWS * DAY_BLOCKS == DAY_ROWS and MARKET.rows > 10**18 and MARKET.name == "demo"


def test_what_makes_no_market_is_refused() -> None:
    with pytest.raises(ValueError, match="seed was -1"):
        DemoMarket(-1)
    with pytest.raises(ValueError, match="price was 1: must be"):
        DemoMarket(price=Decimal(1))
    with pytest.raises(ValueError, match="not a multiple of the tick"):
        DemoMarket(price=Decimal("60000.05"))
    with pytest.raises(IndexError, match="row -1 was asked"):
        MARKET.part(-1)
    with pytest.raises(ValueError, match="hours was 0"):
        demo_tape(0)
    assert DEMO.symbol == "BTC/USDT:USDT"
