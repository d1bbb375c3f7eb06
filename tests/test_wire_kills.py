"""A piece of `make wire-kill`: what trades through ccxt survives being killed, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from durable_kills import run_kills
from gridmm.demo_market import DEMO
from gridmm.units import Instrument
from wire_kills import SPOT, ground_of


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("instrument", "kills"), [(DEMO, 5), (SPOT, 3)], ids=["perpetual", "spot"])
def test_killed_on_the_wire_it_knows_every_order(
    instrument: Instrument, kills: int, tmp_path: Path, note: Callable[[str], None]
) -> None:
    struck: list[int] = []
    ground = ground_of(instrument, struck)
    tally = run_kills(str(tmp_path / "grid.sqlite"), kills, seed=3, ground=ground)
    assert sum(tally.kills.values()) + tally.peaceful == kills
    assert tally.orders > 5
    note(f"killed on the wire, {ground.symbol}: {tally}, {sum(struck)} faults")
