"""Production survives kill -9, a database that goes away, and an owner that wakes up after it was replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from durable_child import MOMENTS
from durable_kills import agree, first_line, market, run_kills, start
from gridmm.model import from_state
from gridmm.store import SqlStore
from gridmm.tables import open_database
from gridmm.vocabulary import Trigger, Trip
from postgres import Server

KILLS = 25
SYMBOL = "BTC/USDT:USDT"


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: a file, or one of a real PostgreSQL."""
    if request.param == "sqlite":
        return str(tmp_path / "grid.sqlite")
    return str(request.getfixturevalue("database"))


@pytest.mark.timeout(600)
def test_killed_at_any_moment_it_knows_every_order(place: str, note: Callable[[str], None]) -> None:
    tally = run_kills(place, KILLS, seed=7)
    assert set(tally.kills) == {*MOMENTS, "at random"}, "a moment was never hit"
    assert sum(tally.kills.values()) + tally.peaceful == KILLS and tally.fills > 20
    note(f"{place.partition(':')[0].partition('/')[0] or 'sqlite'}: {tally}")


def finish(process: subprocess.Popen) -> dict:
    """Ask an engine to stop and return its receipt."""
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err[-2_000:] + out[-2_000:]
    return dict(json.loads(out.splitlines()[-1]))


@pytest.mark.timeout(300)
def test_a_database_that_is_gone_for_ten_seconds_costs_nothing(
    postgres: Server, database: str, note: Callable[[str], None]
) -> None:
    with market() as (address, control):
        process = start(database, address)
        try:
            first_line(process, "at after send")
            time.sleep(1.0)
            postgres.stop(gently=False)
            first_line(process, "says")  # that it is gone, in words
            time.sleep(0.5)
            before = control.audit()
            time.sleep(9.0)
            during = control.audit()
            postgres.start()
            began = time.monotonic()
            line = first_line(process, "says the database is back")
            back_s = time.monotonic() - began
            first_line(process, "at after send")
            time.sleep(1.0)
            receipt = finish(process)
            after = control.audit()
        finally:
            process.kill()
        assert "starting again" in line
        assert during.orders == before.orders, "an order was placed without a commit"
        assert during.fills >= before.fills and after.orders > during.orders, "trading did not go on"
        agree(database, receipt, after)
    note(f"10 s without PostgreSQL: back after {back_s:.1f} s, {after.orders - during.orders} orders since")


def test_an_owner_that_wakes_up_too_late_sends_nothing(place: str) -> None:
    with market() as (address, control):
        old = start(place, address, "--pause", "before_send:4")
        try:
            for _ in range(4):
                first_line(old, "at before send")
            new = start(place, address)
            try:
                first_line(new, "at after send")
                os.kill(old.pid, signal.SIGCONT)
                out, err = old.communicate(timeout=30)
                assert old.returncode == 3, out[-500:] + err[-2_000:]
                assert "took it over" in out and "at after commit" not in out
                receipt = finish(new)
                agree(place, receipt, control.audit())
            finally:
                new.kill()
        finally:
            old.kill()


def test_what_slips_through_between_check_and_send_is_known_and_withdrawn(place: str) -> None:
    """The residual window: paused after its last look at the clock, an owner sends one order too late."""
    with market(still=True) as (address, control):
        old = start(place, address, "--pause", "deadline_read:5")
        try:
            for _ in range(5):
                first_line(old, "at deadline read")
            new = start(place, address)
            try:
                first_line(new, "at after send")
                os.kill(old.pid, signal.SIGCONT)
                old.communicate(timeout=30)
                assert old.returncode == 3
                time.sleep(2.0)
                receipt = finish(new)
            finally:
                new.kill()
        finally:
            old.kill()
        audit = control.audit()
        assert receipt["open_orders"] == 0 == audit.open_orders, "it was withdrawn by the new owner"
        assert audit.fills == receipt["fills"]
        database = open_database(place)
        state = SqlStore(database, SYMBOL).load()
        database.dispose()
        assert state is not None
        core, _ = from_state(state)
        alarms = core.risk[Trip.COUNT, [Trigger.ABSENT_ORDER, Trigger.STRAY_ORDER, Trigger.LATE_FILL]]
        assert alarms.any(), "somebody must be told"


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
