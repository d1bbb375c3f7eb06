"""The main job on real markets: every recording trades both sides, closes round trips, and adds up to the last atom."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from data import real

CONFIGS = Path(__file__).parent / "configs"
RECORDINGS = {
    "binance_spot_btcusdt": ("binance_spot_btcusdt_20240808_raw.ndjson.gz", 10),
    "binance_spot_ethusdt": ("binance_spot_ethusdt_20240808_raw.ndjson.gz", 10),
    "binance_usdm_btcusdt": ("binance_usdm_btcusdt_20240808_raw.ndjson.gz", 10),
    "xrpeth_201910": ("xrpeth_binance_aggtrades_20191011.csv.gz", 50),
    "btcperp_202201": ("btcperp_ftx_1m_202201.csv.gz", 100),
}
# What is played again is a piece of the tape, and its decisions begin those of the whole.
LONG = {"btcperp_202201": "3 d"}


def play(*words: str) -> tuple[list[dict], str]:
    """Run the command line and return its decisions and its last line, the receipt."""
    command = [sys.executable, "-m", "gridmm", "run", "--speed", "max", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    return [json.loads(line) for line in lines], last


@pytest.mark.parametrize("config", RECORDINGS)
def test_a_recording_trades_and_adds_up(config, note):
    file, least = RECORDINGS[config]
    words = ("--config", str(CONFIGS / f"{config}.toml"), "--feed", f"tape:{real(file)}")
    decisions, last = play(*words)
    receipt = json.loads(last)
    sides = {order["side"] for one in decisions for order in one["orders"] if order["action"] == "place"}

    assert receipt["fills"] >= least
    assert sides == {"buy", "sell"}
    assert receipt["round_trips"] >= 1
    assert Decimal(receipt["pnl"]["harvest"]) != 0
    assert Decimal(receipt["pnl"]["residual"]) == 0
    assert all(Decimal(left) == 0 for left in receipt["residual_exchange"].values())
    assert receipt["open_orders"] == 0
    total = Decimal(receipt["realized_pnl"]) + Decimal(receipt["unrealized_pnl"])
    assert sum(Decimal(receipt["pnl"][part]) for part in ("harvest", "trend", "fees", "funding")) == total
    note(f"{config}: {receipt['fills']} fills, {receipt['round_trips']} round trips, residuals 0")

    if config not in LONG:
        assert play(*words)[1] == last, "the same tape and configuration gave another receipt"
        return
    *again, _ = play(*words, "--duration", LONG[config])[0]  # the last decision is to stop
    assert len(again) > 100 and again == decisions[: len(again)], "the same tape was decided otherwise"
