"""A store keeps State and decision together, for its owner alone; what cannot be opened says so in one line."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from gridmm.errors import BadChecksum, Fenced, GridmmError, StateError, StoreUnreachable, WrongSymbol
from gridmm.store import PRUNE_EVERY, FillRow, MemoryStore, SqliteStore, Store
from gridmm.v1.decision_pb2 import DecisionRecord
from gridmm.v1.state_pb2 import State


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "grid.db"


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    if request.param == "memory":
        made: Store = MemoryStore("BTC/USDT", keep_decisions=1_500)
    else:
        made = SqliteStore(path, "BTC/USDT", synchronous="OFF", keep_decisions=1_500)
    yield made
    made.close()


def state(version: int, incarnation: int, **fields: Any) -> State:
    return State(schema_version=1, symbol="BTC/USDT", version=version, incarnation=incarnation, **fields)


def decision(sequence: int) -> DecisionRecord:
    return DecisionRecord(sequence=sequence, symbol="BTC/USDT", hash_after=f"h{sequence}")


def fill(number: int, time_ms: int = 0) -> FillRow:
    return FillRow(number, time_ms, "buy", "1.5", "2", "0.003", "USDT", "A", "x", f"t{number}", "-0.003")


def loaded(store: Store) -> State:
    """Return what is saved, which must be something."""
    state = store.load()
    assert state is not None
    return state


def sequences(store: Store, *limits: int) -> list[int]:
    return [record.sequence for record in store.decisions(*limits)]


def test_both_keep_the_promise(store):
    assert isinstance(store, Store)


def test_a_new_store_is_empty(store):
    assert store.load() is None
    assert store.acquire() == 1
    assert store.load() is None
    assert sequences(store) == []


def test_what_was_saved_is_loaded(store):
    owner = store.acquire()
    for version in (1, 2, 3):
        store.save(
            state(version, owner, last_price=f"{version}.5"), decision(version) if version != 2 else None
        )
    state_read = loaded(store)
    assert (state_read.version, state_read.last_price) == (3, "3.5")
    assert state_read.checksum != 0
    assert sequences(store) == [1, 3]
    assert sequences(store, 2) == [3]
    assert sequences(store, 1, 2) == [1]


def test_a_saved_state_cannot_be_changed_from_outside(store):
    mine = state(1, store.acquire(), last_price="1")
    store.save(mine)
    mine.last_price = "2"
    loaded(store).last_price = "3"
    assert loaded(store).last_price == "1"


@pytest.mark.parametrize("version", [0, 1, 2, 4, 2**62])
def test_only_the_next_version_is_saved(store, version):
    owner = store.acquire()
    store.save(state(1, owner), decision(1))
    store.save(state(2, owner), decision(2))
    with pytest.raises(Fenced, match="version 2 is stored") as caught:
        store.save(state(version, owner), decision(9))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3
    assert loaded(store).version == 2
    assert sequences(store) == [1, 2]


def test_a_displaced_owner_cannot_save(store):
    first = store.acquire()
    store.save(state(1, first))
    second = store.acquire()
    assert second == first + 1
    with pytest.raises(Fenced, match=f"start {second} took it over"):
        store.save(state(2, first), decision(2))
    assert sequences(store) == []
    store.save(state(2, second), decision(2))
    assert loaded(store).incarnation == second


def test_a_token_is_at_least_what_was_asked_for_and_always_higher(store):
    tokens = [store.acquire(), store.acquire(least=50), store.acquire(least=50), store.acquire(least=7)]
    assert tokens == [1, 50, 51, 52]


def test_a_first_token_may_be_high_and_nobody_was_there_before(store):
    assert (store.acquire(least=50), store.left_cleanly) == (50, True)
    store.save(state(1, 50))
    assert (store.acquire(least=90), store.left_cleanly) == (90, False)


def test_nobody_saves_before_owning(store):
    for incarnation in (0, 1):
        with pytest.raises(Fenced, match="nobody owns"):
            store.save(state(1, incarnation))


def test_old_decisions_are_removed(store):
    owner = store.acquire()
    for version in range(1, 3 * PRUNE_EVERY + 1):
        store.save(state(version, owner), decision(version) if version % 100 == 0 else None)
    assert sequences(store) == list(range(1_600, 3_001, 100))


def test_fills_are_kept_in_order_and_never_removed(store):
    owner = store.acquire()
    store.save(state(1, owner), fills=[fill(1, 500), fill(2, 400)])
    for version in range(2, 3 * PRUNE_EVERY + 1):
        store.save(state(version, owner), decision(version), fills=[fill(3, 600)] if version == 2 else ())
    assert list(store.fills()) == [fill(1, 500), fill(2, 400), fill(3, 600)]
    assert [row.number for row in store.fills(500)] == [1, 3]


def test_a_refused_save_keeps_no_fills(store):
    first, second = store.acquire(), store.acquire()
    with pytest.raises(Fenced):
        store.save(state(1, first), fills=[fill(1)])
    assert list(store.fills()) == []
    store.save(state(1, second), fills=[fill(1)])
    assert list(store.fills()) == [fill(1)]


def test_a_file_survives_the_process(path):
    code = (
        "import os, sys\n"
        "from gridmm.store import SqliteStore\n"
        "from gridmm.v1.state_pb2 import State\n"
        "store = SqliteStore(sys.argv[1], 'BTC/USDT')\n"
        "store.save(State(schema_version=1, symbol='BTC/USDT', version=1, incarnation=store.acquire()))\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    again = SqliteStore(path, "BTC/USDT")
    assert (loaded(again).version, again.acquire()) == (1, 2)
    again.close()


class Killed(Exception):
    """Stands for the end of the process between two statements."""


@pytest.mark.parametrize("when", ["gridmm_grids", "gridmm_decisions", "gridmm_fills"])
def test_state_decision_and_fills_are_saved_together_or_not_at_all(path, when):
    store = SqliteStore(path, "BTC/USDT", synchronous="OFF")
    owner = store.acquire()
    store.save(state(1, owner), decision(1))

    def die(connection, cursor, statement, *_):
        if when in statement and statement.startswith(("UPDATE", "INSERT")):
            raise Killed

    event.listen(store.engine, "after_cursor_execute", die)
    with pytest.raises(Killed):
        store.save(state(2, owner), decision(2), fills=[fill(1)])
    store.close()
    again = SqliteStore(path, "BTC/USDT", synchronous="OFF")
    assert loaded(again).version == 1
    assert (sequences(again), list(again.fills())) == ([1], [])
    again.save(state(2, owner), decision(2), fills=[fill(1)])
    assert (loaded(again).version, sequences(again), list(again.fills())) == (2, [1, 2], [fill(1)])
    again.close()


def test_the_file_is_private_and_durable(path):
    store = SqliteStore(path, "BTC/USDT")
    store.save(state(1, store.acquire()))
    modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in path.parent.iterdir()}
    assert modes == dict.fromkeys(("grid.db", "grid.db-wal", "grid.db-shm"), 0o600)
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_an_empty_file_made_beforehand_becomes_private_and_a_used_one_keeps_its_rights(path, umask):
    before = os.umask(umask)
    try:
        path.touch(0o666)
        saved(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o640)
        saved_version = SqliteStore(path, "BTC/USDT", synchronous="OFF")
        saved_version.close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, "what its owner decided stands"
    finally:
        os.umask(before)


def test_a_reader_sees_the_last_commit_while_the_owner_writes(path):
    owner, reader = (SqliteStore(path, "BTC/USDT", synchronous="OFF") for _ in range(2))
    number = owner.acquire()
    for version in (1, 2):
        owner.save(state(version, number), decision(version))
        assert loaded(reader).version == version
    assert sequences(reader) == [1, 2]
    for store in (owner, reader):
        store.close()


def test_a_shared_file_keeps_grids_apart(path):
    one, two = (SqliteStore(path, "BTC/USDT", grid, shared=True, synchronous="OFF") for grid in ("a", "b"))
    for store, price in ((one, "1"), (two, "2")):
        store.save(state(1, store.acquire(), last_price=price), decision(1))
    assert (loaded(one).last_price, loaded(two).last_price) == ("1", "2")
    for store in (one, two):
        store.close()
    with pytest.raises(WrongSymbol):
        SqliteStore(path, "BTC/USDT", "a")


def refusal(path: Path, kind: type[GridmmError], symbol: str = "BTC/USDT") -> str:
    with pytest.raises(kind) as caught:
        SqliteStore(path, symbol).acquire()
    text = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in text and str(path) in text
    return text


def test_another_symbols_file_is_refused(path):
    store = SqliteStore(path, "ETH/USDT", synchronous="OFF")
    store.acquire()
    store.close()
    before = path.read_bytes()
    assert "belongs to ETH/USDT: this grid trades BTC/USDT" in refusal(path, WrongSymbol)
    assert path.read_bytes() == before


def test_another_symbol_under_the_grids_name_is_refused(path):
    store = SqliteStore(path, "ETH/USDT", "main", shared=True, synchronous="OFF")
    store.acquire()
    store.close()
    other = SqliteStore(path, "BTC/USDT", "main", shared=True, synchronous="OFF")
    with pytest.raises(WrongSymbol, match="ETH/USDT"):
        other.acquire()
    other.close()


def test_a_folder_is_refused(tmp_path):
    assert "is a folder" in refusal(tmp_path, StoreUnreachable)


def test_a_missing_folder_is_refused(tmp_path):
    assert "No such file or directory" in refusal(tmp_path / "missing" / "grid.db", StoreUnreachable)


def test_a_file_of_another_kind_is_refused_and_kept(path):
    path.write_text("dear diary, " * 100)
    before = path.read_bytes()
    assert "not a database" in refusal(path, StateError)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_kept(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE pictures (name TEXT)")
    before = path.read_bytes()
    assert "tables of another program (pictures)" in refusal(path, StateError)
    assert path.read_bytes() == before


def test_an_empty_file_is_a_new_store(path):
    path.touch()
    store = SqliteStore(path, "BTC/USDT", synchronous="OFF")
    assert store.acquire() == 1
    store.close()


def saved(path: Path) -> None:
    store = SqliteStore(path, "BTC/USDT", synchronous="OFF")
    owner = store.acquire()
    for version in range(1, 30):
        store.save(state(version, owner, code_version="x" * 5_000), decision(version))
    store.close()


def test_a_damaged_database_is_refused(path):
    saved(path)
    data = bytearray(path.read_bytes())
    data[100:2_000] = os.urandom(1_900)
    path.write_bytes(data)
    text = refusal(path, StateError)
    assert f"{path} is damaged" in text
    assert "put a good copy in its place, or start again with --fresh" in text
    assert "cancel by hand what may still be open at the exchange" in text


def test_a_damaged_state_is_refused(path):
    saved(path)
    with closing(sqlite3.connect(path)) as database, database:
        (data,) = database.execute("SELECT state FROM gridmm_grids").fetchone()
        database.execute("UPDATE gridmm_grids SET state = ?", (data[:50] + b"?" + data[51:],))
    store = SqliteStore(path, "BTC/USDT", synchronous="OFF")
    with pytest.raises(BadChecksum, match="start again with --fresh") as caught:
        store.load()
    assert str(caught.value).startswith(f"{path}: ")
    store.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_cannot_be_written_is_refused(path):
    saved(path)
    path.chmod(0o400)
    refusal(path, StoreUnreachable)


def test_a_locked_database_is_refused_in_time(path, monkeypatch):
    store = SqliteStore(path, "BTC/USDT", synchronous="OFF")
    owner = store.acquire()
    event.listen(
        store.engine, "checkout", lambda connection, *_: connection.execute("PRAGMA busy_timeout=10")
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnreachable, match="locked"):
            store.save(state(1, owner), decision(1))
        other.execute("ROLLBACK")
    store.save(state(1, owner), decision(1))
    assert loaded(store).version == 1
    store.close()


def test_the_module_does_not_load_sqlalchemy():
    code = "import gridmm.store, sys; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_grid_stays_given_back_until_its_next_owner_has_saved(store):
    store.save(state(1, store.acquire()))
    store.release()
    store.acquire()
    assert store.left_cleanly
    owner = store.acquire()  # the start before died and had saved nothing
    assert store.left_cleanly
    store.save(state(2, owner))
    store.acquire()
    assert not store.left_cleanly
