"""A piece of `make wire-trade`: the Durable engine on the real ccxt client, with faults, agrees with the exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from data import real
from gridmm.tape import load
from wire_trade import FAULTS, trade


@pytest.mark.timeout(300)
def test_a_recording_traded_over_the_wire_with_faults_adds_up(
    tmp_path: Path, note: Callable[[str], None]
) -> None:
    market = load(real("btcusdt_perp_1m_202506.csv.gz"))
    often = {name: rate * 3 for name, rate in FAULTS.items()}
    counts = asyncio.run(trade(market, tmp_path, seed=1, speed="1200", seconds=20.0, rates=often))
    assert counts["fills"] >= 3 and counts["faults_in_all"] >= 5
    note(f"over the wire: {counts}")
