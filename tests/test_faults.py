"""Every fault for drills is really there when it was planted, is seen from outside, and can be told from a healthy session.

What mends it is what the product has: its commands, a start, or a hand at the exchange's own page. Where nothing does,
the fault says so.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fault_stage import HAND, CannotPlant, Stage, staged
from faults import FAULTS, NO_FUNDING, plant
from gridmm.client_id import decode, encode

RUNBOOKS = {
    "risk_mode", "stuck_slots", "graceful_shutdown", "exchange_down", "mismatch", "database_down", "restore",
    "bad_fills", "rotate_keys", "upgrade",
}  # fmt: skip
SPREAD = {"stuck_deaf_fill", "mismatch_hand_trade", "database_locked", "fills_while_down"}
PLANTED = [name for name in FAULTS if not name.startswith("healthy")]
# Each takes ten seconds and more of waiting for real processes: `make drills` plants all of them.
TRIED = PLANTED if os.environ.get("GRIDMM_ALL_FAULTS") else sorted(SPREAD)
MENDED_ELSEWHERE = {"upgrade_cold": "it compiles for a minute; `test_cli` holds the warm-up"}


@contextmanager
def standing(name: str, folder: Path) -> Iterator[Stage]:
    """Plant a fault, or say why it cannot be planted here."""
    try:
        with plant(name, folder) as stage:
            yield stage
    except CannotPlant as reason:
        pytest.skip(str(reason))


def sees(name: str, stage: Stage) -> bool:
    """Return whether the check of a fault sees it."""
    try:
        FAULTS[name].seen_in(stage)
    except AssertionError:
        return False
    return True


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", TRIED)
def test_a_fault_is_there_until_it_is_mended(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    with standing(name, tmp_path) as stage:
        stage.check()
        if fault.harmless:
            stage.mended()
            return
        with pytest.raises(AssertionError):
            stage.mended(0.3)
        if not fault.can_be_mended or name in MENDED_ELSEWHERE:
            return
        stage.mend()
        stage.mended()
        with pytest.raises(AssertionError):
            stage.check(0)


@pytest.mark.timeout(180)
def test_a_healthy_session_has_none_of_them(tmp_path: Path) -> None:
    """A check that sees its fault where all is well would let a diagnosis pass that names it always."""
    with plant("healthy", tmp_path) as stage:
        stage.mended()
        assert not [name for name in PLANTED if sees(name, stage)]
        stage.mended()


@pytest.mark.timeout(180)
def test_a_session_that_is_started_again_after_a_kill_has_none_of_them(tmp_path: Path) -> None:
    with plant("healthy_again", tmp_path) as stage:
        stage.mended()
        assert not [name for name in PLANTED if sees(name, stage)]


@pytest.mark.timeout(180)
def test_harm_is_noticed(tmp_path: Path) -> None:
    """A mending that touched a stranger's order, or doubled one of ours, must not pass as one."""
    with plant("healthy", tmp_path) as stage:
        twin = decode(next(name for name in stage.open_there() if decode(name).cell == -2))
        doubled = encode(twin._replace(incarnation=5, sequence=4_000))
        stage.exchange("silence", patterns=[NO_FUNDING])
        stage.exchange("swallow", patterns=["."])
        stage.exchange("place", side=1, price="59000", quantity="0.005", client_id=doubled)
        stage.exchange("cancel", client_id=HAND)
        found = "; ".join(stage.differences())
        assert "the order of somebody else was touched" in found
        assert "has 2 live opening orders" in found
        assert f"at the exchange and in no slot: {doubled}" in found
        stage.kill()
        with closing(sqlite3.connect(stage.db)) as db, db:
            db.execute("UPDATE gridmm_fills SET trade_id = 'another'")
        found = "; ".join(stage.differences())
        assert "a trade that was never written down: 1" in found
        assert "a trade that the exchange does not have: another" in found


def test_each_runbook_has_at_least_three_that_look_alike() -> None:
    found = Counter(FAULTS[name].runbook for name in PLANTED)
    assert set(found) - {""} == RUNBOOKS and min(found[one] for one in RUNBOOKS) >= 3
    for name in PLANTED:
        fault = FAULTS[name]
        assert fault.plant.__doc__ and fault.symptom and fault.truth and fault.must_hold, name
        assert fault.harmless or fault.can_be_mended or fault.why_not, f"{name}: who mends it?"


def test_a_stage_ends_with_its_processes(tmp_path: Path) -> None:
    with staged(FAULTS["healthy"], tmp_path) as stage:
        process = stage.process
        assert process is not None and process.poll() is None
    assert process.poll() is not None
