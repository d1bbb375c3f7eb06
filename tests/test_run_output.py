"""What a run prints can be read by a program, and by people."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from gridmm.desk import Receipt
from gridmm.run_output import RUNBOOK, decision_line, receipt_line, receipt_table
from gridmm.units import Instrument
from gridmm.v1.decision_pb2 import DecisionRecord, PlanRow
from gridmm.v1.vocabulary_pb2 import Action, LegName, Reason, RiskMode, Side
from tools.notebooks import ROOT

BTC = Instrument("BTC/USDT", "spot", Decimal("0.01"), Decimal("0.00001"))


def receipt(**values: Any) -> Receipt:
    """Return a receipt with some values of the test's own."""
    rest: dict[str, Any] = dict.fromkeys(Receipt._fields, 0)
    return Receipt(**{**rest, **values})


def test_a_decision_isone_line_with_decimal_strings() -> None:
    row = PlanRow(
        action=Action.ACTION_CANCEL,
        side=Side.SIDE_SELL,
        leg=LegName.LEG_NAME_CLOSE,
        cell=-3,
        price_ticks=5_988_012,
        quantity_lots=167,
        client_id="G0",
        reason=Reason.REASON_CAP,
    )
    record = DecisionRecord(
        sequence=7,
        symbol="BTC/USDT",
        time_ms=5,
        rows=[row],
        bid_ticks=1,
        ask_ticks=2,
        risk_mode=RiskMode.RISK_MODE_REDUCE_ONLY,
        hash_after="a1",
    )
    line = decision_line(record, BTC)
    assert "\n" not in line
    assert json.loads(line) == {
        "event": "decision",
        "sequence": 7,
        "time_ms": 5,
        "symbol": "BTC/USDT",
        "bid": "0.01",
        "ask": "0.02",
        "risk": "reduce_only",
        "orders": [
            {
                "action": "cancel",
                "leg": "close",
                "side": "sell",
                "cell": -3,
                "price": "59880.12",
                "quantity": "0.00167",
                "client_id": "G0",
                "reason": "cap",
            }
        ],
        "hash_after": "a1",
        "runbook": "operations/risk_mode",
    }


def test_only_a_grid_that_is_held_back_names_its_runbook() -> None:
    page = ROOT / "nbs" / RUNBOOK.replace("/", "/140_")
    assert page.with_suffix(".ipynb").is_file()
    for name, mode in RiskMode.items():
        line = json.loads(decision_line(DecisionRecord(risk_mode=name), BTC))
        assert ("runbook" in line) == (mode > RiskMode.RISK_MODE_NORMAL), line


def test_a_receipt_reads_back() -> None:
    made = receipt(realized_pnl="12.5", pnl={"harvest": "1"})
    assert json.loads(receipt_line({"": made})) == made._asdict()
    assert "\n" not in receipt_line({"": made})


def test_a_receipt_is_a_table_for_people() -> None:
    lines = receipt_table({"": receipt(symbol="BTC/USDT", pnl={"harvest": "1", "fees": "-2"})}).splitlines()
    assert len(lines) == len(Receipt._fields)
    assert lines[0].split() == ["symbol", "BTC/USDT"]
    assert any(line.endswith("harvest 1, fees -2") for line in lines)


def test_the_table_shows_times_and_the_json_keeps_milliseconds() -> None:
    made = receipt(market_from_ms=1_767_225_600_003, market_to_ms=1_767_229_200_000)
    table = receipt_table({"": made})
    assert "market from        2026-01-01 00:00:00.003 UTC" in table
    assert "market to          2026-01-01 01:00:00 UTC" in table
    assert json.loads(receipt_line({"": made}))["market_from_ms"] == 1_767_225_600_003
    assert "market from        never" in receipt_table({"": receipt()})
