"""A notebook sees what the process knows, beside it or after it, and whatever it tries, it cannot write."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import gridmm
from gridmm.connect import Session, Table, connect, moment
from gridmm.errors import GridmmError, StateError, UsageError
from gridmm.look import open_books, open_orders, status
from gridmm.model import from_state
from gridmm.read_only import read_only
from gridmm.replay import replay
from gridmm.store import SqliteStore
from test_capsule import CHILD, child, killed, session


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session that has ended."""
    db = tmp_path_factory.mktemp("connect") / "grid.sqlite"
    session(db)
    return db


@pytest.fixture
def looked(traded: Path) -> Iterator[Session]:
    with connect(traded) as found:
        yield found


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file."""
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def everything(looked: Session) -> list[Table]:
    """Ask for every table there is."""
    tables = [
        looked.slots(),
        looked.orders(),
        looked.decisions(),
        looked.fills(),
        looked.ladder(),
        looked.pnl(),
    ]
    return [*tables, looked.commands()]


def test_tables_say_what_the_books_say(looked: Session, traded: Path) -> None:
    books = open_books(str(traded))
    state, now = books.state(), 0
    said = status(books, now)
    assert looked.state() == state and looked.grid == books.grid
    assert looked.pnl().rows[0] == ("realized", said.realized_pnl)
    assert len(looked.slots()) == len(state.slots) > 0
    assert sum(Decimal(one) for one in looked.slots().column("held")) == Decimal(said.position)
    fills, instrument = list(books.store.fills()), from_state(state)[1].instrument
    assert looked.fills().column("client_id") == [one.client_id for one in fills] and len(fills) > 10
    assert len(looked.orders()) == len(open_orders(state, instrument))
    records = list(books.store.decisions())
    assert looked.decisions(5).column("number") == [one.sequence for one in records[:-6:-1]]
    assert looked.decisions(10**6).column("number") == [one.sequence for one in reversed(records)]
    books.close()


def test_the_ladder_knows_every_order_and_how_it_ended(looked: Session) -> None:
    ladder = looked.ladder("1 d")
    placed = [row for one in looked.records() for row in one.rows if row.action == 2]
    assert ladder.column("client id") == [row.client_id for row in placed]
    ends = {name: ladder.column("end").count(name) for name in ("filled", "withdrawn", "open", "ended")}
    assert ends["filled"] == len(looked.fills()) and ends["open"] == 0 and ends["withdrawn"] > 10
    assert all(row["from_ms"] <= row["to_ms"] for row in ladder)
    late = looked.ladder("20 min")
    assert (
        0 < len(late) < len(ladder)
        and min(late.column("from_ms")) >= looked.state().market.now_ms - 20 * 60_000
    )


def test_open_orders_of_a_killed_session_have_no_end(tmp_path: Path) -> None:
    killed(tmp_path / "grid.sqlite", "--die-after-commit", "15")
    with connect(tmp_path / "grid.sqlite") as looked:
        still = [row["client id"] for row in looked.ladder("1 d") if row["to_ms"] is None]
        assert sorted(still) == sorted(looked.orders().column("client_id")) and len(still) > 5
        assert "not released: runs, or was killed" in repr(looked)


def test_figures_hold_what_tables_hold(looked: Session) -> None:
    slots, ladder, decisions, pnl = (
        looked.plot_slots(), looked.plot_ladder("1 d"), looked.plot_decisions("1 d"), looked.plot_pnl(),
    )  # fmt: skip
    assert [str(value) for value in slots.data[0].x] == [
        str(float(one)) for one in looked.slots().column("held")
    ]
    trades = sum(len(one.x) for one in ladder.data if "trades" in one.name)
    assert trades == len(looked.fills())
    assert sum(decisions.data[0].y) == len(looked.ladder("1 d"))
    assert pnl.data[0].y[-1] == pytest.approx(float(looked.pnl().rows[0][1]))
    for figure in (slots, ladder, decisions, pnl):
        assert figure.layout.title.text and figure.layout.xaxis.title.text and figure.layout.yaxis.title.text


def test_a_finished_session_is_read_without_a_trace(traded: Path) -> None:
    before = files(traded.parent)
    with connect(traded) as looked:
        everything(looked)
        replay(looked.capsule("30 min"))
        assert looked.plot_ladder() and repr(looked)
    assert files(traded.parent) == before


def test_it_can_be_called_by_its_short_name(traded: Path) -> None:
    code = (
        "import sys, gridmm\n"
        "assert not [name for name in sys.modules if name.startswith('gridmm.')], 'import gridmm loads something'\n"
        f"first = gridmm.connect({str(traded)!r})\n"
        "from gridmm.connect import Session\n"
        f"again = gridmm.connect({str(traded)!r}, 'BTC/USDT:USDT')\n"
        "assert isinstance(first, Session) and isinstance(again, Session)\n"
        "try:\n    gridmm.nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "module 'gridmm' has no attribute 'nothing'\n"


def test_tables_need_no_plotly(traded: Path) -> None:
    code = (
        "import sys\nsys.modules['plotly'] = None\nimport gridmm\n"
        f"looked = gridmm.connect({str(traded)!r})\nlooked.slots()._repr_html_(), looked.ladder()\n"
        "try:\n    looked.plot_pnl()\nexcept Exception as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "pip install 'gridmm[ops]'" in done.stdout, done.stderr


def test_cells_are_drawn_as_text() -> None:
    assert "&lt;script&gt;" in Table(("why",), [("<script>",)])._repr_html_()


# ---- it cannot write


def attempts(looked: Session) -> dict[str, Callable[[], object]]:
    """Return ways of writing."""

    def run(*statements: str) -> Callable[[], object]:
        def write() -> None:
            with looked.engine.connect() as connection:
                for statement in statements:
                    connection.execute(text(statement))
                connection.commit()

        return write

    def raw() -> None:
        connection = looked.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("UPDATE gridmm_grids SET version = 0")
            connection.commit()
        finally:
            connection.close()

    books = looked.books
    ways: dict[str, Callable[[], object]] = {
        "update": run("UPDATE gridmm_grids SET incarnation = incarnation + 1"),
        "delete": run("DELETE FROM gridmm_fills"),
        "drop": run("DROP TABLE gridmm_commands"),
        "create": run("CREATE TABLE mine (a int)"),
        "raw": raw,
        "acquire": lambda: books.store.acquire("a notebook"),
        "release": lambda: books.store.release(),
        "save": lambda: books.store.save(looked.state()),
        "prune": lambda: books.mailbox.prune(looked.grid, 2**60),
    }
    if looked.engine.dialect.name == "sqlite":
        ways["pragma"] = run("PRAGMA query_only=OFF", "DELETE FROM gridmm_fills")
        ways["journal"] = run("PRAGMA journal_mode=DELETE", "DELETE FROM gridmm_fills")
    return ways


def refuse_all(looked: Session) -> None:
    ways = attempts(looked)
    assert len(ways) >= 9
    for name, write in ways.items():
        try:
            write()
            said = "it was written"
        except (DBAPIError, GridmmError, sqlite3.Error, psycopg.Error) as refused:
            said = str(refused).lower()
        assert "readonly" in said or "read-only" in said, (name, said)


def test_sqlite_refuses_every_way_of_writing(traded: Path) -> None:
    before = files(traded.parent)
    with connect(traded) as looked:
        refuse_all(looked)
    assert files(traded.parent) == before


def test_postgresql_refuses_every_way_of_writing(tmp_path: Path, database: str) -> None:
    session(tmp_path / "fleet", database)
    with connect(database) as looked:
        before = [repr(one) for one in everything(looked)]
        refuse_all(looked)
        assert [repr(one) for one in everything(looked)] == before
        assert "gridmm@" in looked.where or "127.0.0.1" in looked.where


# ---- beside a running process

EARLY = (
    "was ever started",
    "saved nothing",
    "no such database",
    "is empty",
    "no event log",
    "nothing happened",
)


@contextmanager
def looking(db: str, say: Callable[[], Session]) -> Iterator[list[int]]:
    """Ask for everything, again and again, from another thread; counts the looks, and raises what went wrong."""
    looks, over, failed = [0], threading.Event(), list[BaseException]()

    def look() -> None:
        with suppress(StopIteration):
            while not over.is_set():
                try:
                    with say() as found:
                        everything(found)
                        replay(found.capsule("10 min")) if found.events is not None else None
                    looks[0] += 1
                except UsageError as error:
                    if not any(word in str(error) for word in EARLY):
                        failed.append(error)
                        return
                except BaseException as error:
                    failed.append(error)
                    return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join(60)
    if failed:
        raise failed[0]


def decided(db: str) -> list[bytes]:
    with connect(db) as found:
        return [one.SerializeToString() for one in found.records()]


def test_beside_a_running_process_nothing_changes_for_it(traded: Path, tmp_path: Path) -> None:
    """The same market is traded while somebody looks at everything: the same decisions, byte for byte."""
    db = tmp_path / "grid.sqlite"
    with child(db, "--pause", "0.05") as process, looking(str(db), lambda: connect(db)) as looks:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        began = looks[0]
        while process.poll() is None:
            time.sleep(0.05)
        during = looks[0] - began
    assert process.returncode == 0 and during >= 3, during
    assert decided(str(db)) == decided(str(traded))


def test_beside_a_process_on_postgresql(traded: Path, tmp_path: Path, database: str) -> None:
    db = tmp_path / "fleet"
    options = (str(db), "--pause", "0.05", "--server", database)
    session(tmp_path / "first", database, feed__duration="1 min")  # so that tables are there
    drop = "DELETE FROM gridmm_grids"
    from gridmm.tables import open_database

    server = open_database(database)
    with server.begin() as connection:
        for name in ("gridmm_decisions", "gridmm_fills", "gridmm_owners"):
            connection.execute(text(f"DELETE FROM {name}"))
        connection.execute(text(drop))
        connection.execute(text('DROP SCHEMA "paper_BTC/USDT:USDT" CASCADE'))
    server.dispose()
    with child(*options) as process, looking(database, lambda: connect(database)) as looks:  # type: ignore[arg-type]
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        while process.poll() is None:
            time.sleep(0.05)
    assert process.returncode == 0 and looks[0] >= 3
    assert decided(database) == decided(str(traded))


# ---- slips


def test_slips_say_what_to_do(tmp_path: Path, traded: Path) -> None:
    for name, said in (
        ("no.sqlite", "there is no such database"),
        ("", "it is a folder"),
        ("empty", "it is empty"),
    ):
        (tmp_path / "empty").touch()
        with pytest.raises(UsageError, match=said):
            connect(tmp_path / name)
    with pytest.raises(UsageError, match="does not hold it"):
        connect(traded, "another")
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE a (b int)")
        other.commit()
    with pytest.raises(StateError, match="not a database of gridmm"):
        connect(tmp_path / "other.sqlite")
    (tmp_path / "text").write_text("no database at all, but more than a page of it" * 100)
    with pytest.raises(StateError, match="damaged"):
        connect(tmp_path / "text")


def test_a_database_of_an_older_gridmm_is_not_brought_up_to_date_by_a_look(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    SqliteStore(db, "BTC/USDT").acquire("test")
    with closing(sqlite3.connect(db)) as other:
        other.execute("INSERT OR IGNORE INTO gridmm_grids VALUES ('BTC/USDT', 'BTC/USDT', 0, 1, 0, NULL)")
        other.execute("DROP TABLE gridmm_workers")
        other.commit()
    with pytest.raises(StateError, match="older gridmm wrote it: it has no gridmm_workers"):
        connect(db)


def test_passwords_are_not_shown() -> None:
    with pytest.raises(GridmmError) as refused:
        connect("postgresql://ann:hunter2@127.0.0.1:1/grids")
    assert "hunter2" not in str(refused.value)
    engine, where = read_only("postgresql://ann:hunter2@127.0.0.1:1/grids")
    assert "hunter2" not in where
    engine.dispose()


def test_a_time_of_day_is_that_of_last_night() -> None:
    saved = 1_767_236_400_000  # 2026-01-01 03:00
    assert moment("02:30", saved) == saved - 30 * 60_000
    assert moment("3:00:00", saved) == saved
    assert moment("03:01", saved) == saved + 60_000 - 86_400_000
    assert moment("2 h", saved) == saved - 2 * 3_600_000
    with pytest.raises(UsageError):
        moment("25:00", saved)


assert CHILD.is_file() and gridmm.__version__
