"""A copy that is taken while a grid trades, put back, and traded on; and every way in which a copy is not whole."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from gridmm.backup import MANIFEST, look_at, prune, put_back, take
from gridmm.cli import run_command
from gridmm.errors import Fenced, GridmmError, Refused, StateError, StoreUnreachable, UsageError
from gridmm.look import open_books
from postgres import Server
from test_monitor import GRID, ask, eventually, receipt_of, running
from tools.notebooks import ROOT

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


def test_a_copy_without_events_is_smaller_and_is_traded_on(
    traded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = take(traded / "grid.sqlite", tmp_path / "copies", NOW_MS)
    bare = take(traded / "grid.sqlite", tmp_path / "copies", NOW_MS + 1_000, events=False)
    assert (whole.folder / "grid.sqlite.events").is_dir() and not (
        bare.folder / "grid.sqlite.events"
    ).exists()
    assert bare.size < whole.size
    monkeypatch.chdir(tmp_path)
    put_back(bare.folder, tmp_path / "grid.sqlite")
    play = [
        "run",
        "--engine",
        "simple",
        "--db",
        "grid.sqlite",
        "--duration",
        "1 h",
        "--speed",
        "max",
        "--json",
    ]
    assert run_command(play) == 0
    assert version(tmp_path / "grid.sqlite") > bare.versions[GRID]


@pytest.mark.parametrize("name", ["../grid.sqlite.paper", "/tmp/grid.sqlite.paper", "a/../../b"])
def test_a_copy_that_would_be_written_elsewhere_is_refused(traded: Path, tmp_path: Path, name: str) -> None:
    copied = take(traded / "grid.sqlite", tmp_path / "copies", NOW_MS)
    about = json.loads((copied.folder / MANIFEST).read_text())
    about["files"][name] = about["files"]["grid.sqlite.paper"]
    (copied.folder / MANIFEST).write_text(json.dumps(about))
    with pytest.raises(StateError, match="written somewhere else"):
        put_back(copied.folder, tmp_path / "here" / "grid.sqlite")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root works for another user")
@pytest.mark.timeout(300)
def test_root_copies_and_restores_for_the_user_who_trades(tmp_path: Path) -> None:
    """As under systemd: the grid's user is another one, and everything it needs stays its own."""
    folder = Path(tempfile.mkdtemp(prefix="gridmm-owner-"))  # pytest's own are for root alone
    owner, environment = 65_534, {**os.environ, "NUMBA_DISABLE_JIT": "1", "HOME": str(folder)}
    os.chown(folder, owner, owner)
    words = [
        "run",
        "--engine",
        "simple",
        "--db",
        "grid.sqlite",
        "--duration",
        "10 min",
        "--speed",
        "max",
        "--json",
    ]

    # It may read everything, since this Python may be root's own; but it writes only what is its own.
    become = (
        "setpriv", f"--reuid={owner}", f"--regid={owner}", "--clear-groups", "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    )  # fmt: skip

    def as_owner() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*become, sys.executable, "-m", "gridmm", *words), cwd=folder, env=environment, umask=0o077,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def strangers() -> list[str]:
        return [str(path) for path in folder.rglob("*") if path.lstat().st_uid != owner]

    try:
        done = as_owner()
        assert done.returncode == 0, done.stderr
        copied = take(folder / "grid.sqlite", tmp_path / "copies", NOW_MS)
        assert strangers() == [], "a copy left something of root's beside the database"
        (folder / "grid.sqlite.lock").unlink()
        put_back(copied.folder, folder / "grid.sqlite")
        assert strangers() == [] and (folder / "grid.sqlite.1").exists()
        before = version(folder / "grid.sqlite")
        done = as_owner()
        assert done.returncode == 0, done.stderr
        assert version(folder / "grid.sqlite") > before
    finally:
        shutil.rmtree(folder)


def command_of(page: str, program: str) -> list[str]:
    """Return the command of a page's text that begins with a program."""
    cells = json.loads((ROOT / "nbs" / "operations" / page).read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    (found,) = re.findall(rf"{program} -[^`\n]+", text)
    return shlex.split(found)


@pytest.mark.timeout(300)
def test_a_fleet_goes_on_from_a_dump(postgres: Server, tmp_path: Path) -> None:
    """The commands of the page, with this machine's addresses: dumped while a worker trades, and put into a new database."""
    dump = command_of("146_restore.ipynb", "pg_dump")
    restore = command_of("146_restore.ipynb", "pg_restore")
    clean = {name: text for name, text in os.environ.items() if not name.startswith("GRIDMM_")}
    (tmp_path / "grids.toml").write_text(
        '[[grid]]\nname = "btc"\nmax_position = "10 %"\n[grid.feed]\nspeed = "2000"\n'
    )

    def gridmm(*words: str, url: str) -> str:
        done = subprocess.run(
            (sys.executable, "-m", "gridmm", *words, "--db", url), cwd=tmp_path, env=clean, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def saved(url: str) -> int:
        said = json.loads(gridmm("status", "--json", url=url))
        return int(said["version"])

    def tool(words: list[str], url: str) -> None:
        address = url.replace("+psycopg", "")
        mine = [word.replace("postgresql://bot@db.example/grids", address) for word in words]
        assert mine != words, "the page's address is another one"
        mine[0] = str(postgres.programs / words[0])
        subprocess.run(mine, cwd=tmp_path, check=True, capture_output=True)

    @contextmanager
    def working(url: str) -> Iterator[None]:
        command = (sys.executable, "-m", "gridmm", "worker", "--db", url, "--monitor", "off")
        with (tmp_path / "said").open("a") as said:
            process = subprocess.Popen(command, cwd=tmp_path, env=clean, stderr=said)
            try:
                yield
            finally:
                process.terminate()
                assert process.wait(timeout=60) == 0, (tmp_path / "said").read_text()

    old, new = postgres.new_database(), postgres.new_database()
    try:
        gridmm("fleet", "add", "grids.toml", url=old)
        with working(old):
            eventually(lambda: "btc" in (tmp_path / "said").read_text())
            time.sleep(3)
            tool(dump, old)
            at_dump = saved(old)
        postgres.drop_database(old)  # the disk is gone
        tool(restore, new)
        restored = saved(new)
        assert 0 < restored <= at_dump
        with working(new):
            eventually(lambda: saved(new) > restored + 3)
            eventually(lambda: json.loads(gridmm("status", "--json", url=new))["risk"] == "NORMAL")
        (row,) = json.loads(gridmm("fleet", "list", "--json", url=new))["grids"]
        assert (row["grid"], row["note"]) == ("btc", "")
    finally:
        postgres.drop_database(old)
        postgres.drop_database(new)
