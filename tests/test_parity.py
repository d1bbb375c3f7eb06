"""Durable and Simple decide the same, byte for byte: one market through both, on the market's clock."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from gridmm.config import load
from gridmm.desk import Receipt
from gridmm.layout import Var
from gridmm.run import Signals, assemble, files_of
from gridmm.several import serve, unpaced
from gridmm.v1.vocabulary_pb2 import RiskMode

CONFIG = Path(__file__).parent / "configs" / "demo_fast.toml"
LIVELY = {
    "grid.interval_mode": "atr",
    "grid.order_notional": "60 %",
    "grid.max_position": "360 %",
    "risk.quote_exposure.limit": "0",
    "atr.length": 5,
    "atr.reference": 5,
    "atr.change_pct": 10,
    "atr.dwell": "10 min",
    "paper.latency": "120 ms",
    "feed.duration": "3 h",
    "risk.rearm": "5 min",
    "risk.atr_spike.limit": "1.6",
}


class Played(NamedTuple):
    """What one engine did.

    Attributes:
        decisions: The records, as they were saved.
        receipt: Its end.
        modes: Risk modes that decisions were made in.
        epochs: Lattices.
        partial: Orders at the exchange that filled in part before anything else.
        refused: Orders that the exchange refused.
    """

    decisions: list[bytes]
    receipt: Receipt
    modes: set[RiskMode]
    epochs: int
    partial: int
    refused: int


def play_on(db: Path, seed: int, durable: bool) -> Played:
    """Play the demo market with one engine."""
    options = {key: (value, "test") for key, value in LIVELY.items()} | {"feed.market": (seed, "test")}
    with ExitStack() as stack:
        run = assemble(
            load(CONFIG, environ={}, options=options), db, stack, durable=durable, synchronous="OFF"
        )
        (receipt,) = asyncio.run(serve([(run, Signals())], unpaced, lambda line: None))
        records = list(run.store.decisions())
        epochs = int(run.engine.session.core.v[Var.EPOCH])
    with sqlite3.connect(files_of(db)[0]) as ledger:
        (refused,) = ledger.execute("SELECT count(*) FROM orders WHERE status = 'rejected'").fetchone()
        (partial,) = ledger.execute(
            "SELECT count(*) FROM (SELECT 1 FROM fills GROUP BY key HAVING count(*) > 1)"
        ).fetchone()
    modes = {record.risk_mode for record in records}
    return Played([r.SerializeToString() for r in records], receipt, modes, epochs, partial, refused)


@pytest.mark.timeout(300)
def test_both_engines_decide_alike(tmp_path: Path, note: Callable[[str], None]) -> None:
    plans = partial = refused = 0
    for seed in (1, 2):
        simple = play_on(tmp_path / f"simple{seed}.sqlite", seed, durable=False)
        durable = play_on(tmp_path / f"durable{seed}.sqlite", seed, durable=True)
        assert durable.decisions == simple.decisions
        assert durable.receipt._replace(engine="") == simple.receipt._replace(engine="")
        assert simple.epochs > 1, "no new lattice was opened"
        assert RiskMode.RISK_MODE_REDUCE_ONLY in simple.modes, "no risk mode was entered"
        plans += len(simple.decisions)
        partial, refused = partial + simple.partial, refused + simple.refused
    assert plans >= 100 and partial > 0 and refused > 0, (plans, partial, refused)
    note(f"parity: {plans} plans equal byte for byte, {partial} orders filled in parts, {refused} refused")
