"""Killed at twenty random moments and started again, a session ends with its ledger and its state in agreement."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from data import real
from gridmm.layout import Book, Ret, Var
from gridmm.model import from_state
from gridmm.store import SqliteStore

KILLS = 20
CONFIG = Path(__file__).parent / "configs" / "xrpeth_201910.toml"
FILE = "xrpeth_binance_aggtrades_20191011.csv.gz"


def start(db: Path, tape: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "gridmm", "run", "--config", str(CONFIG), "--feed", f"tape:{tape}"]
    command += ["--speed", "max", "--db", str(db), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)


def kill_after(process: subprocess.Popen, lines: int) -> int:
    """Read so many lines, then kill without warning; return how many were read before the end."""
    read = 0
    assert process.stdout is not None
    for _ in process.stdout:
        read += 1
        if read == lines:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.communicate()
    return read


@pytest.mark.parametrize("seed", [1])
def test_a_killed_session_goes_on_and_agrees(tmp_path, seed, note):
    tape, db, draw, kills = real(FILE), tmp_path / "grid.sqlite", random.Random(seed), 0
    for _ in range(KILLS):
        process = start(db, tape)
        lines = draw.randint(1, 40)
        assert kill_after(process, lines) == lines, "the tape ended before all kills"
        assert process.returncode == -signal.SIGKILL
        kills += 1
    process = start(db, tape)
    out, err = process.communicate()
    assert process.returncode == 0, err
    receipt = json.loads(out.splitlines()[-1])

    assert "goes on" in err and "row" in err, "where the tape resumes was not said"
    assert Decimal(receipt["pnl"]["residual"]) == 0
    assert all(Decimal(left) == 0 for left in receipt["residual_exchange"].values())
    assert receipt["open_orders"] == 0
    agree(db, receipt)
    note(
        f"{kills} kills on {FILE}: {receipt['fills']} fills, ledger and state agree on every order, fill and position"
    )


def agree(db: Path, receipt: dict) -> None:
    """Hold State against the paper exchange's ledger, order by order."""
    store = SqliteStore(db, "XRP/ETH")
    state = store.load()
    assert state is not None
    core, meta = from_state(state)
    store.close()
    with sqlite3.connect(f"{db}.paper") as ledger:
        orders = {
            row[0]: row[1:]
            for row in ledger.execute("SELECT client_id, cumulative_lots, status, reason FROM orders")
        }
        fills = list(ledger.execute("SELECT client_id, side, lots FROM fills"))
    v = core.v
    assert len(fills) == v[Var.TRADES] == receipt["fills"]
    assert sum(side * lots for _, side, lots in fills) == v[Var.LEDGER_LOTS]
    assert meta.instrument.quantity(int(v[Var.LEDGER_LOTS])) == Decimal(receipt["position"])
    filled: dict[str, int] = {}
    for client_id, _, lots in fills:
        filled[client_id] = filled.get(client_id, 0) + lots
    assert all(orders[client_id][0] == lots for client_id, lots in filled.items())
    assert all(status not in ("open", "sent") for _, status, _ in orders.values())
    retired = core.retired[:, : v[Var.RETIRED]]
    for sequence, cum in zip(retired[Ret.SEQ].tolist(), retired[Ret.CUM].tolist(), strict=True):
        assert orders.get(meta.ids[sequence].client_id, (0,))[0] == cum
    book = core.book[:, : v[Var.BOOK]]
    assert (book[Book.CUM] <= book[Book.TRADED]).all(), "a fill was reported and its trade never came"
    assert len(orders) < v[Var.NEXT_SEQ]
