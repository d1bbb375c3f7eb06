"""A piece of `make load`: twenty seconds of a market that sends a thousand frames a second, to two hundred slots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from load_wire import verdict, weigh


@pytest.mark.timeout(150)
def test_nothing_grows_under_load(tmp_path: Path, note: Callable[[str], None]) -> None:
    counts = asyncio.run(weigh(20.0, 1_000, tmp_path, 1))
    assert counts["orders_open_at_most"] >= 190
    assert counts["frames"] > 5_000 and counts["prices_used"] > 500
    assert "the memory grew" not in verdict(counts)
    # what is behind stays behind by more and more: where frames pile up, the last ones are seconds late
    assert counts["last third"]["delay_median_ms"] < 1_000
    note(f"under load: {counts}")


def test_growth_is_noticed() -> None:
    small = {"delay_median_ms": 2.0, "memory_mib": 300.0}
    late = {"delay_median_ms": 15.0, "memory_mib": 300.0}
    large = {"delay_median_ms": 2.0, "memory_mib": 330.0}
    assert verdict({"first third": small, "last third": small}) == []
    assert verdict({"first third": small, "last third": late}) == ["the delay grew"]
    assert verdict({"first third": small, "last third": large}) == ["the memory grew"]
