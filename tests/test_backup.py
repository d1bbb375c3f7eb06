"""A copy that is taken while a grid trades, put back, and traded on; and every way in which a copy is not whole."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from gridmm.backup import MANIFEST, look_at, prune, put_back, take
from gridmm.cli import run_command
from gridmm.errors import Fenced, GridmmError, Refused, StateError, StoreUnreachable, UsageError
from gridmm.look import open_books
from test_monitor import GRID, ask, eventually, receipt_of, running

NOW_MS = 1_767_225_600_000


def version(db: Path) -> int:
    """Return the version of the State that a database holds."""
    books = open_books(str(db))
    try:
        return int(books.state().version)
    finally:
        books.close()


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database of a grid that has traded, and was stopped."""
    folder = tmp_path_factory.mktemp("traded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = [
            "run",
            "--engine",
            "simple",
            "--db",
            "grid.sqlite",
            "--duration",
            "3 h",
            "--speed",
            "max",
            "--json",
        ]
        assert run_command(words) == 0
    return folder


@pytest.mark.timeout(300)
def test_copies_of_a_running_grid_are_whole_and_the_grid_does_not_notice(tmp_path: Path) -> None:
    with running(tmp_path, "--speed", "2000") as (address, process):
        eventually(lambda: any(one["fills"] > 2 for one in ask(address, "/status").data["grids"]))
        versions = []
        for number in range(8):
            copied = take(tmp_path / "gridmm.sqlite", tmp_path / "copies", NOW_MS + number * 1_000)
            versions.append(copied.versions[GRID])
            time.sleep(0.2)
        process.terminate()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    receipt = receipt_of(tmp_path)
    assert versions == sorted(versions) and versions[-1] > versions[0], "it traded on between the copies"
    assert receipt["defects"] == 0 and set(receipt["residual_exchange"].values()) == {"0"}


@pytest.mark.timeout(300)
def test_a_grid_goes_on_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    play = [
        "run",
        "--db",
        "gridmm.sqlite",
        "--duration",
        "2 h",
        "--speed",
        "max",
        "--monitor",
        "off",
        "--json",
    ]
    assert run_command(play) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert run_command(["backup", "copies", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["versions"] == {GRID: version(Path("gridmm.sqlite"))}
    assert run_command(play) == 0
    second = json.loads(capsys.readouterr().out.splitlines()[-1])
    for path in Path().glob("gridmm.sqlite*"):  # the disk is gone
        if path.is_file():
            path.unlink()
    assert run_command(["restore", told["folder"]]) == 0
    assert "what was there is kept in" in capsys.readouterr().out, "the event log was still there"
    assert run_command(play) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["fills"] > first["fills"] and again["residual_exchange"] == second["residual_exchange"]
    assert again["state_hash"] == second["state_hash"], "the same two hours again, from the same State"


def test_a_copy_is_private(traded: Path, tmp_path: Path) -> None:
    os.umask(0o022)
    copied = take(traded / "grid.sqlite", tmp_path / "copies", NOW_MS)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in copied.folder.rglob("*") if path.is_file()}
    assert modes == {0o600} and stat.S_IMODE(copied.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("harm", ["flip", "cut", "lose", "manifest", "swap"])
def test_a_copy_that_is_not_whole_is_refused_and_nothing_changes(
    traded: Path, tmp_path: Path, harm: str
) -> None:
    copied = take(traded / "grid.sqlite", tmp_path / "copies", NOW_MS)
    other = take(traded / "grid.sqlite", tmp_path / "copies", NOW_MS + 1_000)
    file = copied.folder / "grid.sqlite"
    data = bytearray(file.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif harm == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif harm == "lose":
        (copied.folder / "grid.sqlite.paper").unlink()
    elif harm == "manifest":
        (copied.folder / MANIFEST).write_text("{")
    else:
        with closing(sqlite3.connect(other.folder / "grid.sqlite")) as database:
            database.execute("UPDATE gridmm_grids SET state = zeroblob(100)")
            database.commit()
        about = json.loads((other.folder / MANIFEST).read_text())
        from gridmm.backup import _hash

        about["files"]["grid.sqlite"] = _hash(other.folder / "grid.sqlite")
        (other.folder / MANIFEST).write_text(json.dumps(about))
        copied = other
    target = tmp_path / "here" / "grid.sqlite"
    target.parent.mkdir()
    target.write_text("what is there")
    with pytest.raises((StateError, UsageError)) as refused:
        put_back(copied.folder, target)
    assert refused.value.problem.todo and target.read_text() == "what is there"
    assert sorted(path.name for path in target.parent.iterdir() if path.suffix != ".lock") == ["grid.sqlite"]


def test_a_damaged_database_gives_no_copy(traded: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "grid.sqlite"
    data = bytearray((traded / "grid.sqlite").read_bytes())
    with closing(sqlite3.connect(traded / "grid.sqlite")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray((traded / "grid.sqlite").read_bytes())
    data[100:3_000] = bytes(2_900)
    damaged.write_bytes(data)
    with pytest.raises(GridmmError):
        take(damaged, tmp_path / "copies", NOW_MS)
    assert list((tmp_path / "copies").iterdir()) == [], "half a copy would be taken for a whole one"


def test_a_file_in_use_is_not_replaced(traded: Path, tmp_path: Path) -> None:
    copied = take(traded / "grid.sqlite", tmp_path / "copies", NOW_MS)
    with running(tmp_path, "--speed", "60") as (address, _):
        eventually(lambda: ask(address, "/readyz").code == 200)
        with pytest.raises(Fenced, match="trades on it"):
            put_back(copied.folder, tmp_path / "gridmm.sqlite")


def test_no_room_leaves_nothing_half(traded: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        with pytest.raises(StoreUnreachable):
            take(traded / "grid.sqlite", small / "copies", NOW_MS)
        assert list((small / "copies").iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_old_copies_go_and_one_always_stays(traded: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    for number in range(4):
        take(traded / "grid.sqlite", copies, NOW_MS + number * 1_000)
    (copies / "mine").mkdir()
    assert prune(copies, 2) == ["20260101T000000Z", "20260101T000001Z"]
    assert sorted(path.name for path in copies.iterdir()) == ["20260101T000002Z", "20260101T000003Z", "mine"]
    with pytest.raises(Refused, match="no copy would be left"):
        prune(copies, 0)
    with pytest.raises(UsageError, match="there is a copy of this second already"):
        take(traded / "grid.sqlite", copies, NOW_MS + 3_000)


@pytest.mark.parametrize("db", ["none.sqlite", "postgresql://bot@localhost/grids"])
def test_what_is_no_file_is_refused_with_what_to_do(
    tmp_path: Path, db: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["backup", str(tmp_path / "copies"), "--db", db]) == 2
    assert "for PostgreSQL use pg_dump" in capsys.readouterr().err
    assert run_command(["restore", str(tmp_path)]) == 2
    assert "Name a folder that gridmm backup made" in capsys.readouterr().err
    assert not (tmp_path / "copies").exists()


def test_a_copy_looks_the_same_each_time(traded: Path, tmp_path: Path) -> None:
    copied = take(traded / "grid.sqlite", tmp_path / "copies", NOW_MS)
    assert look_at(copied.folder) == copied == look_at(copied.folder)
