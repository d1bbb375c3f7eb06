"""A piece of `make fuzz`: nonsense neither ends a session nor is believed."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz_wire import fuzz, spoilt
from gridmm.ccxt_client import Hooks
from gridmm.errors import ExchangeUnreachable
from gridmm.exchange import Fill, OrderReport
from gridmm.limiter import Limiter, Limits, budgets
from gridmm.live_questions import LiveQuestions
from gridmm.live_streams import fill_of, order_report
from gridmm.units import Instrument
from gridmm.venues import VENUES

ORDER = (
    '{"id":"7","clientOrderId":"G1","side":"buy","price":"60000","amount":"0.010","filled":"0.004","status":"open",'
    '"timestamp":1700000000000}'
)
TRADE = (
    '{"id":"9","order":"7","side":"sell","price":"60000.1","amount":"0.004","timestamp":1700000000000,'
    '"takerOrMaker":"maker","fee":{"cost":"0.048","currency":"USDT"}}'
)


@pytest.mark.timeout(200)
def test_nonsense_is_survived_and_not_believed(tmp_path: Path, note: Callable[[str], None]) -> None:
    counts = asyncio.run(fuzz(120, 1, tmp_path, 150.0))
    assert counts["inputs"] >= 120 and counts["answer"] > 5
    note(f"nonsense: {counts}")


@pytest.mark.parametrize("number", ["0", 0, "", None])
def test_a_trade_without_a_number_would_be_counted_twice(number: object) -> None:
    with pytest.raises(ValueError, match="a trade without a number"):
        fill_of(json.loads(TRADE) | {"id": number}, "G1")


@pytest.mark.parametrize(
    ("cost", "currency"), [("１２", "USDT"), ("12", "USDT"), ("-1", "USDT"), ("0.001", "BTC"), ("0.048", "")]
)
def test_a_fee_that_cannot_be_is_not_believed(cost: str, currency: str) -> None:
    """Digits of another script, a twentieth of the trade, a gift, a quarter of what was bought."""
    entry = json.loads(TRADE) | {"symbol": "BTC/USDT:USDT", "fee": {"cost": cost, "currency": currency}}
    with pytest.raises(ValueError, match="fee"):
        fill_of(entry, "G1")


def test_a_fee_in_a_third_asset_is_judged_by_its_worth() -> None:
    entry = json.loads(TRADE) | {"symbol": "BTC/USDT:USDT", "fee": {"cost": "50", "currency": "PEPE"}}
    assert fill_of(entry, "G1", Decimal("0.048")).fee == 50
    with pytest.raises(ValueError, match="that cannot be"):
        fill_of(entry, "G1", Decimal(30))


class Forgetful:
    """A client of an exchange that tells the one order first without its name, then with it, then with another's."""

    id = "binance"
    names: ClassVar = ["", "GM1", "GM2"]

    async def fetch_open_orders(self, *_: object) -> list[dict[str, object]]:
        """Return the order."""
        return [json.loads(ORDER) | {"clientOrderId": self.names.pop(0)}]


def test_an_order_told_without_its_name_is_believed_when_it_has_one() -> None:
    async def told() -> list[str]:
        about = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.001"))
        limiter = Limiter(Limits(budgets("binance")), lambda: 0)
        hooks = Hooks(lambda: 0, VENUES["binance"])
        asked = LiveQuestions(VENUES["binance"], about, Forgetful(), limiter, hooks)
        names = [one.client_id for _ in range(2) for one in await asked.open_orders()]
        with pytest.raises(ExchangeUnreachable, match="called order 7 GM1, and now GM2"):
            await asked.open_orders()
        return names

    assert asyncio.run(told()) == ["", "GM1"]


@settings(max_examples=300)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(order_report, ORDER), (lambda entry: fill_of(entry, "G1"), TRADE)]),
)
def test_an_entry_is_believed_whole_or_not_at_all(
    seed: int, about: tuple[Callable[..., object], str]
) -> None:
    read, text = about
    try:
        entry = json.loads(spoilt(random.Random(seed), text))
        said = read(entry)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return
    assert isinstance(said, OrderReport | Fill)
    assert said.side in (1, -1) and said.quantity > 0 and said.quantity.is_finite() and said.price.is_finite()
    if isinstance(said, OrderReport):
        assert 0 <= said.cumulative <= said.quantity and said.exchange_id
    else:
        assert said.price > 0 and said.fee.is_finite() and said.trade_id and said.exchange_id
