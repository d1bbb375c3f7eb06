"""The core's parameters are the configuration, in integers, with nothing lost on the way."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmm.errors import ConfigError
from gridmm.layout import PAR_SIZE, Par
from gridmm.parameters import instrument_of, par_vector
from gridmm.rules import findings
from gridmm.settings import Settings
from gridmm.units import Instrument
from gridmm.vocabulary import Mode, Risk, Trigger

PRICE, EQUITY = Decimal(60_000), Decimal(10_000)
COARSE = {"tick": "0.1", "lot": "0.001", "min_quantity": "0.001"}


def par_of(price: Decimal = PRICE, equity: Decimal = EQUITY, **tables: dict[str, Any]) -> dict[str, int]:
    """Return the parameters of some tables by name."""
    settings = Settings.read(tables)
    par = par_vector(settings, instrument_of(settings), equity=equity, price=price)
    assert par.dtype == np.int64 and par.shape == (PAR_SIZE,)
    return {p.name: int(par[p]) for p in Par if p != Par.LIMITS}


def limits_of(**tables: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return (limit, mode) of every trigger by name."""
    settings = Settings.read(tables)
    par = par_vector(settings, instrument_of(settings), equity=EQUITY, price=PRICE)
    return {t.name: (int(par[Par.LIMITS + t]), int(par[Par.LIMITS + len(Trigger) + t])) for t in Trigger}


def test_the_instrument_is_the_section() -> None:
    market = instrument_of(
        Settings.read({"instrument": {"maker_fee": "-0.5 bps", "multiplier": "10", **COARSE}})
    )
    assert market == Instrument(
        "BTC/USDT:USDT",
        "perpetual",
        Decimal("0.1"),
        Decimal("0.001"),
        Decimal("0.001"),
        Decimal(5),
        maker_fee_ppm=-50,
        taker_fee_ppm=500,
        multiplier=Decimal(10),
    )


def test_shares_are_resolved_against_equity_and_price() -> None:
    par = par_of(
        grid={"max_position": "30 %", "order_notional": "1 %", "stop_loss": "5 %"}, instrument=COARSE
    )
    assert par["MAX_LOTS"] == 50 and par["GROSS_LOTS"] == 100  # 3 000 at 60 000 in lots of 0.001
    assert par["CELL_ATOMS"] == 100 * 10**8 and par["STOP_LOSS"] == 500 * 10**8


def test_amounts_are_themselves() -> None:
    par = par_of(
        grid={"max_position": "0.25", "gross_limit": "0.3", "order_notional": 250}, instrument=COARSE
    )
    assert (par["MAX_LOTS"], par["GROSS_LOTS"], par["CELL_ATOMS"]) == (250, 300, 250 * 10**8)


def test_a_multiplier_counts_coins_not_contracts() -> None:
    par = par_of(grid={"max_position": "10", "order_notional": 1200}, instrument={**COARSE, "multiplier": 10})
    assert par["MAX_LOTS"] == 1_000  # 10 coins are one unit of 10 coins, in lots of 0.001 units


@pytest.mark.parametrize(
    ("interval", "spacing", "expected"),
    [
        ("20 bps", "geometric", {"BASE": 2_000, "BASE_PPM": 1, "GEOMETRIC": 1}),
        ("20 bps", "arithmetic", {"BASE": 2_000, "BASE_PPM": 1, "GEOMETRIC": 0}),
        ("120", "geometric", {"BASE": 1_200, "BASE_PPM": 0, "GEOMETRIC": 1}),
        ("120", "arithmetic", {"BASE": 1_200, "BASE_PPM": 0, "GEOMETRIC": 0}),
    ],
)
def test_the_interval_keeps_its_unit(interval: str, spacing: str, expected: dict[str, int]) -> None:
    par = par_of(grid={"price_interval": interval, "spacing": spacing}, instrument=COARSE)
    assert {name: par[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("mode", "expected"), [("atr", (0, 2_000_000)), ("max", (1, 2_000_000)), ("fixed", (1, 0))]
)
def test_the_mode_of_the_interval(mode: str, expected: tuple[int, int]) -> None:
    par = par_of(grid={"interval_mode": mode, "volatility_scale": 2})
    assert (par["MAX_MODE"], par["SCALE_PPM"]) == expected


@pytest.mark.parametrize("mode", list(Mode))
def test_the_mode_of_the_grid(mode: Mode) -> None:
    par = par_of(grid={"mode": mode.name.lower(), "sell_levels": 7})
    assert (par["MODE"], par["SPOT"], par["BUYS"], par["SELLS"]) == (mode, 0, 10, 7)


def test_bounds_are_never_wider_than_written_and_absent_where_not_written() -> None:
    par = par_of(grid={"price_min": "50000.05", "price_max": "70000.05"}, instrument=COARSE)
    assert (par["PRICE_MIN"], par["PRICE_MAX"]) == (500_001, 700_000)
    par = par_of()
    assert (par["PRICE_MIN"], par["PRICE_MAX"]) == (0, 0)


def test_trend_is_off_unless_enabled() -> None:
    assert par_of(trend={"factor": 2})["TREND_PPM"] == 0
    assert par_of(trend={"factor": 2, "enabled": True})["TREND_PPM"] == 2_000_000


def test_every_limit_has_the_unit_of_its_value() -> None:
    limits = limits_of(
        grid={"stop_loss": "500", "take_profit": "10 %"},
        risk={
            "volume_spike": {"limit": "5.5", "symbols": ["ETH/USDT"]},
            "drawdown": {"limit": "8 %", "action": "reduce_only"},
            "stale_price": {"limit": "9 s"},
            "mismatch": {"limit": "0.00000001"},
            "rejects": {"limit": 3, "action": "halt"},
            "liquidation": {"limit": "12.5 %"},
            "quote_exposure": {"limit": 0},
        },
    )
    assert limits["STOP_LOSS"] == (500 * 10**8, Risk.HALTED)
    assert limits["TAKE_PROFIT"] == (1_000 * 10**8, Risk.HALTED)
    assert limits["VOLUME_SPIKE"] == (5_500_000, Risk.REDUCE_ONLY)
    assert limits["DRAWDOWN"] == (800 * 10**8, Risk.REDUCE_ONLY)
    assert limits["STALE_PRICE"] == (9_000, Risk.REDUCE_ONLY)
    assert limits["MISMATCH"] == (1, Risk.HALTED)
    assert limits["REJECTS"] == (3, Risk.HALTED)
    assert limits["LIQUIDATION"] == (125_000, Risk.REDUCE_ONLY)
    assert limits["QUOTE_EXPOSURE"] == (0, Risk.REDUCE_ONLY)


def test_watched_symbols_are_counted_with_the_traded_one() -> None:
    assert par_of()["MONITORED"] == 1
    assert par_of(risk={"volume_spike": {"symbols": ["ETH/USDT", "SOL/USDT"]}})["MONITORED"] == 3


def test_every_parameter_of_the_core_is_written() -> None:
    """With no default at zero, no cell is zero: none was forgotten."""
    settings = Settings.read(
        {
            "grid": {
                "mode": "long",
                "target_position": "0.01",
                "price_min": 1,
                "price_max": 10**6,
                "stop_loss": 1,
                "take_profit": 1,
                "on_stop": "flatten",
                "allow_losing_interval": True,
            },
            "instrument": {"symbol": "BTC/USDT", "market": "spot"},
            "trend": {"enabled": True},
            "risk": {"cover_spot_shorts": True, "losing_cells": {"limit": 1}, "losing_exits": {"limit": 1}},
            "execution": {"close_may_take": True},
        }
    )
    par = par_vector(settings, instrument_of(settings), equity=EQUITY, price=PRICE)
    zero = {p.name for p in Par if not par[p]} - {"MAX_MODE", "ALLOWANCE"}  # the last is the account's to say
    assert zero == set()
    assert par[Par.LIMITS :].all()


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (
            {"grid": {"order_notional": "40"}, "instrument": COARSE},
            "0 lots, and the smallest order is 1 .60.. Set order_not",
        ),
        (
            {"grid": {"max_position": "0.001", "order_notional": 180}},
            'max_position = "0.001": at 60000 it is 1 lots, less than one cell of 3',
        ),
        (
            {"grid": {"price_interval": "3"}},
            "two maker fees at 60000 cost 24 .2 bps each.. Set price_interval to at least 24",
        ),
        ({"grid": {"price_interval": "100.05"}, "instrument": COARSE}, "is not a multiple of the tick 0.1"),
        ({"grid": {"max_position": "10000000000"}}, "limit of 64 bits"),
        ({"grid": {"stop_loss": "999999999999999"}}, "beyond the range of the core"),
        ({"instrument": {"symbol": "BTC"}}, "must look like BTC/USDT"),
    ],
)
def test_what_comes_to_nothing_or_does_not_fit_is_refused(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        par_of(**tables)


@pytest.mark.parametrize(
    ("tables", "lots"),
    [
        ({"instrument": {**COARSE, "min_quantity": "0.0015"}, "grid": {"order_notional": 150}}, 2),
        ({"instrument": {**COARSE, "min_quantity": "0.002"}, "grid": {"order_notional": 150}}, 2),
        ({"instrument": {**COARSE, "min_quantity": 0}}, 1),
    ],
)
def test_the_smallest_order_is_rounded_up_to_lots(tables: dict[str, Any], lots: int) -> None:
    assert par_of(**tables)["MIN_LOTS"] == lots


def test_a_mismatch_below_one_atom_is_one_atom_and_not_off() -> None:
    assert limits_of(risk={"mismatch": {"limit": "0.0000000015"}})["MISMATCH"][0] == 1
    assert limits_of(risk={"mismatch": {"limit": "0"}})["MISMATCH"][0] == 0


@given(
    price=st.decimals("0.5", 10**5, places=1),
    cell=st.integers(1, 400),
    cap=st.decimals("0.001", "0.5", places=4),
    least=st.integers(0, 200),
    interval=st.decimals("0.1", 500, places=2),
)
def test_what_the_rules_pass_at_a_price_a_start_does_not_refuse(
    price: Decimal, cell: int, cap: Decimal, least: int, interval: Decimal
) -> None:
    settings = Settings.read(
        {
            "grid": {"order_notional": cell, "max_position": cap, "price_interval": interval},
            "instrument": {"min_notional": least},
        }
    )
    refused = [found.problem for found in findings(settings, price) if not found.warning]
    try:
        par_vector(settings, instrument_of(settings), equity=EQUITY, price=price)
    except ConfigError as error:
        assert set(error.problems) <= set(refused)
        return
    assert refused == []


@pytest.mark.parametrize(("price", "equity"), [(0, 1), (1, 0), (-1, 1)])
def test_no_price_and_no_equity_are_refused(price: int, equity: int) -> None:
    with pytest.raises(ConfigError, match="both must be above zero"):
        par_of(Decimal(price), Decimal(equity))


@given(
    price=st.decimals("0.01", 10**7, places=2),
    equity=st.decimals(1, 10**7, places=2),
    cap=st.integers(1, 1_000),
    cell=st.integers(1, 100),
)
def test_a_cap_is_never_rounded_up(price: Decimal, equity: Decimal, cap: int, cell: int) -> None:
    try:
        par = par_of(price, equity, grid={"max_position": f"{cap} %", "order_notional": f"{cell} %"})
    except ConfigError:
        return
    lot = Decimal("0.001")
    assert par["MAX_LOTS"] * lot * price <= equity * cap / 100 < (par["MAX_LOTS"] + 1) * lot * price
    assert par["CELL_ATOMS"] <= equity * cell / 100 * 10**8
