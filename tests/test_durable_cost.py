"""A plan costs one commit, an event that changes nothing durable costs none; times are for `make benchmark`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.database_size import sizes, trade
from benchmarks.durable_cost import CONFIG, RAW, TAKE, WARM_UP, Flow, Tally, World, flow, measure, record
from gridmm.engine import Session

PLANS = WARM_UP + 20


@pytest.fixture(scope="module")
def world() -> World:
    """A recorded session."""
    return record(PLANS)


def databases(folder: Path) -> dict[str, str]:
    """A file for each variant."""
    return {name: str(folder / f"{name}.sqlite") for name in (RAW, TAKE)}


def test_a_plan_costs_one_commit_and_a_quiet_event_none(world: World, tmp_path: Path) -> None:
    tally = measure(world, databases(tmp_path))
    assert tally.broken() == []
    assert tally.plan_commits == tally.plans >= PLANS
    assert tally.quiet_commits == 0 and tally.quiet > 100
    assert tally.other_commits > 0, "no trade or report was saved: nothing tells a quiet event from another"


def test_prices_without_a_plan_cost_no_commit(world: World, tmp_path: Path) -> None:
    flowed = flow(world, str(tmp_path / "ticks.sqlite"), 2_000, warm_up=100)
    assert (flowed.ticks, flowed.commits) == (2_000, 0)


def test_a_session_that_saves_every_event_is_found_out(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Session.take

    def eager(self: Session, *about: object) -> object:
        orders = honest(self, *about)  # type: ignore[arg-type]
        self.save()
        return orders

    monkeypatch.setattr(Session, "take", eager)
    broken = measure(world, databases(tmp_path)).broken()
    assert len(broken) == 2 and "plans" in broken[0] and "quiet events" in broken[1]
    assert flow(world, str(tmp_path / "ticks.sqlite"), 50, warm_up=0).commits == 50


def test_growth_and_an_empty_run_are_found_out() -> None:
    assert Flow(10, 0, 100_000, 100_500, 1.0).broken() == []
    assert Flow(10, 0, 100_000, 110_000, 1.0).broken() == ["memory grew by 10,000 KiB over the ticks"]
    assert len(Tally().broken()) == 2, "a run that saw no plan and no quiet event shows nothing"


def test_the_size_of_every_file_of_a_grid_is_measured(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    traded = trade(CONFIG, db, 1_000)
    found = sizes(db)
    assert traded["ticks"] == 1_000 and traded["market_seconds"] > 100
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(found[f"{name}_bytes"] for name in ("state_file", "paper_ledger", "event_log")) == sum(
        path.stat().st_size for path in files
    )
    assert min(found["gridmm_decisions"], found["gridmm_fills"], found["workflow_status"]) > 0
