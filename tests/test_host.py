"""DBOS starts a session, starts it again after a crash, keeps a handful of rows for it, and runs nothing from a table."""

from __future__ import annotations

import asyncio
import base64
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from sqlalchemy import Engine, inspect, text

from gridmm.commands import Ask, Mailbox, Request
from gridmm.config import load
from gridmm.errors import Refused, StateError
from gridmm.event_log import EventLog, read_segment
from gridmm.host import Host, _dbos, queue_of
from gridmm.run import Signals, assemble, wall_ms
from gridmm.several import serve, unpaced
from gridmm.store import SqlStore
from gridmm.tables import open_database, tables
from gridmm.v1.decision_pb2 import DecisionRecord
from gridmm.v1.event_log_pb2 import SegmentHeader
from gridmm.v1.state_pb2 import State

GRID = "BTC/USDT"
PATIENCE_S = 8.0

pytestmark = pytest.mark.timeout(120)

Body = Callable[[], Coroutine[Any, Any, str]]


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database: a file, or one of a real PostgreSQL."""
    postgres = request.param == "postgres"
    made = open_database(
        str(request.getfixturevalue("database")) if postgres else str(tmp_path / "grid.sqlite")
    )
    yield made
    made.dispose()


def host(engine: Engine, body: Body) -> str:
    """Run a session of the grid in a host of its own, as a process would."""

    async def run() -> str:
        async with Host(engine, "test", {queue_of(GRID): 1}) as one:
            return await asyncio.wait_for(one.serve(GRID, body), PATIENCE_S)

    return asyncio.run(run())


async def fails() -> str:
    raise RuntimeError("the database is gone")


async def ends() -> str:
    return "receipt"


def held(engine: Engine) -> dict[str, str]:
    """Return DBOS's own tables with their names in SQL, as far as they are there."""
    schema = "dbos" if engine.dialect.name == "postgresql" else None
    names = [name for name in inspect(engine).get_table_names(schema) if not name.startswith("gridmm_")]
    return {name: f"{schema}.{name}" if schema else name for name in names}


def rows(engine: Engine, query: str, **values: Any) -> list[tuple[Any, ...]]:
    """Return what a query finds, `{name}` standing for a table of DBOS."""
    with engine.begin() as connection:
        found = connection.execute(text(query.format(**held(engine))), values)
        return [tuple(row) for row in found] if found.returns_rows else []


def workflows(engine: Engine) -> list[tuple[Any, ...]]:
    """Return identity and status of all workflows, oldest first."""
    return rows(engine, "SELECT workflow_uuid, status FROM {workflow_status} ORDER BY created_at")


# -- one session, one workflow ----------------------------------------------------------------------------


def test_a_session_that_failed_is_taken_up_under_the_same_workflow(engine: Engine) -> None:
    with pytest.raises(RuntimeError, match="the database is gone"):
        host(engine, fails)
    ((first, status),) = workflows(engine)
    assert first.startswith(f"grid/{GRID}/") and status == "PENDING"
    assert host(engine, ends) == "receipt"
    assert workflows(engine) == [(first, "SUCCESS")]


CUT_OFF = """
import asyncio, sys
from gridmm.host import Host, queue_of
from gridmm.tables import open_database

async def works():
    print("works", flush=True)
    await asyncio.Event().wait()

async def main():
    async with Host(open_database(sys.argv[1]), "test", {queue_of(sys.argv[2]): 1}) as one:
        await one.serve(sys.argv[2], works)

asyncio.run(main())
"""


def test_a_session_that_was_cut_off_is_taken_up_under_the_same_workflow(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    where = url if engine.dialect.name == "postgresql" else str(engine.url.database)
    command = [sys.executable, "-c", CUT_OFF, where, GRID]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "works\n"
        finally:
            process.kill()
    ((first, status),) = workflows(engine)
    assert status == "PENDING"
    assert host(engine, ends) == "receipt"
    assert workflows(engine) == [(first, "SUCCESS")]


def test_a_session_that_ended_is_over_and_the_next_start_is_a_new_one(engine: Engine) -> None:
    ran: list[str] = []

    def session(name: str) -> Body:
        async def body() -> str:
            ran.append(name)
            return name

        return body

    assert [host(engine, session(name)) for name in ("first", "second")] == ["first", "second"]
    assert ran == ["first", "second"], "each ran once"
    names, states = zip(*workflows(engine), strict=True)
    assert len(set(names)) == 2 and set(states) == {"SUCCESS"}


# -- what DBOS keeps --------------------------------------------------------------------------------------


def played(db: Path, minutes: int, commands: int) -> tuple[dict[str, int], int]:
    """Trade on the demo market; return how many rows each of DBOS's tables holds, and how many decisions there were."""
    options = {"feed.duration": (f"{minutes} min", "test")}
    with ExitStack() as stack:
        run = assemble(load(None, environ={}, options=options), db, stack, durable=True, synchronous="OFF")
        mailbox, now_ms = Mailbox(run.store.engine), wall_ms()
        for number in range(commands):
            about = ("ann", "to see what is kept", now_ms + number, now_ms + 600_000)
            mailbox.send(Request(f"ann-{number}", run.store.grid, Ask.RESET_RISK, "all", *about))
        asyncio.run(serve([(run, Signals())], unpaced, lambda line: None))
        answered = [one.state for one in mailbox.listed()]
        assert answered == ["done"] * commands
        engine = run.store.engine
        counts = {name: rows(engine, f"SELECT count(*) FROM {at}")[0][0] for name, at in held(engine).items()}
        return counts, len(list(run.store.decisions()))


def test_what_dbos_keeps_does_not_grow_with_prices_or_commands(
    tmp_path: Path, note: Callable[[str], None]
) -> None:
    short, few = played(tmp_path / "short.sqlite", 12, 0)
    long, many = played(tmp_path / "long.sqlite", 120, 20)
    assert long == short and many > few
    of_session = {name: count for name, count in long.items() if name.startswith("workflow_") and count}
    assert of_session == {"workflow_status": 1, "workflow_input": 1, "workflow_output": 1}
    note(f"rows of DBOS: {sum(long.values())} after 12 minutes and after 120 with 20 commands")


# -- nothing in a table is run ----------------------------------------------------------------------------


class Program:
    """What a pickle can be: to read it is to run it. This one makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that a program makes if it is run."""
    return tmp_path / "it was run"


def planted(mark: Path) -> bytes:
    """Return a pickle that makes a file when it is read; that it would is tried out."""
    program = pickle.dumps({"args": (Program(mark),), "kwargs": {}})
    pickle.loads(program)
    assert mark.exists(), "what is planted must be able to bite"
    mark.unlink()
    return program


def plant_input(engine: Engine, mark: Path, says: str) -> str:
    """Put a pickle in the place of the input of a session that failed; return its workflow's name."""
    with pytest.raises(RuntimeError):
        host(engine, fails)
    blob = base64.b64encode(planted(mark)).decode()
    rows(engine, "UPDATE {workflow_input} SET inputs = :blob", blob=blob)
    rows(engine, "UPDATE {workflow_status} SET serialization = :says", says=says)
    return str(workflows(engine)[0][0])


@pytest.mark.parametrize("says", ["py_pickle", "gridmm_json"])
def test_a_pickle_in_a_workflow_is_never_run(engine: Engine, mark: Path, says: str) -> None:
    name = plant_input(engine, mark, says)
    with pytest.raises((Refused, TimeoutError)):
        host(engine, ends)
    assert not mark.exists()
    assert dict(workflows(engine))[name] == "ERROR", "DBOS has put it aside for good"
    assert host(engine, ends) == "receipt", "the next start is a session of its own"
    assert not mark.exists()


@pytest.mark.parametrize("says", ["py_pickle", "gridmm_json"])
def test_a_start_that_finds_a_pickle_says_so(tmp_path: Path, mark: Path, says: str) -> None:
    engine = open_database(str(tmp_path / "grid.sqlite"))
    try:
        plant_input(engine, mark, says)
        with pytest.raises(Refused, match="pickle"):
            host(engine, ends)
    finally:
        engine.dispose()


# DBOS's scheduler, which nothing here uses, gives up on a schedule that it cannot read
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_pickle_anywhere_else_in_the_tables_of_dbos_is_never_run(engine: Engine, mark: Path) -> None:
    with pytest.raises(RuntimeError):
        host(engine, fails)
    ((name, _),) = workflows(engine)
    blob, now_ms = base64.b64encode(planted(mark)).decode(), int(time.time() * 1_000)
    cells = {
        "workflow_uuid": name, "destination_uuid": name, "function_id": 0, "function_name": "step", "output": blob,
        "message": blob, "key": "k", "value": blob, "offset": 0, "schedule_id": "s", "schedule_name": "s",
        "workflow_name": "grid_session", "schedule": "* * * * * *", "context": blob, "created_at": now_ms,
        "created_at_epoch_ms": now_ms, "message_uuid": "m", "topic": "t", "status": "ACTIVE",
        "serialization": "py_pickle",
    }  # fmt: skip
    planted_in = []
    for table in ("operation_outputs", "notifications", "workflow_events", "streams", "workflow_schedules"):
        schema = "dbos" if engine.dialect.name == "postgresql" else None
        columns = [one["name"] for one in inspect(engine).get_columns(table, schema)]
        used = {column: cells[column] for column in columns if column in cells}
        names, values = (", ".join(form.format(one) for one in used) for form in ('"{}"', ":{}"))
        rows(engine, f"INSERT INTO {held(engine)[table]} ({names}) VALUES ({values})", **used)
        planted_in.append(table)
    assert len(planted_in) == 5
    assert host(engine, ends) == "receipt"
    time.sleep(0.3)
    assert not mark.exists()


def test_dbos_would_have_run_it(mark: Path) -> None:
    """Without our refusal, the serialiser that a row may ask for runs what it reads."""
    from dbos import _serialization

    _dbos()
    blob = base64.b64encode(planted(mark)).decode()
    with pytest.raises(Refused, match="it holds a pickle"):
        _serialization.deserialize_value(blob, "py_pickle", _serialization.DBOSPortableJSON)
    assert not mark.exists()
    type(_serialization.DBOSDefaultSerializer).deserialize(_serialization.DBOSDefaultSerializer, blob)
    assert mark.exists()


def test_a_pickle_in_our_own_tables_is_never_run(engine: Engine, mark: Path) -> None:
    store = SqlStore(engine, GRID)
    owner = store.acquire()
    store.save(State(schema_version=1, symbol=GRID, version=1, incarnation=owner), DecisionRecord(sequence=1))
    program, ours = planted(mark), tables()
    with engine.begin() as connection:
        connection.execute(ours.grids.update().values(state=program))
        connection.execute(ours.decisions.update().values(record=program))
    with pytest.raises(StateError) as caught:
        SqlStore(engine, GRID).load()
    with pytest.raises(DecodeError):
        list(store.decisions())
    assert GRID in str(caught.value) or str(engine.url.database) in str(caught.value)
    assert not mark.exists()


def test_a_pickle_in_an_event_log_is_never_run(tmp_path: Path, mark: Path) -> None:
    log = EventLog(tmp_path / "log")
    log.begin(SegmentHeader(symbol=GRID, first_sequence=1))
    log.close()
    (path,) = (tmp_path / "log").glob("*.events")
    program, whole = planted(mark), path.read_bytes()
    path.write_bytes(whole + program)
    assert read_segment(path).torn
    path.write_bytes(program)
    with pytest.raises(ValueError, match=path.name):
        read_segment(path)
    assert not mark.exists()


# -- two starts on one file -------------------------------------------------------------------------------


def gridmm_run(db: Path, *words: str) -> subprocess.Popen[str]:
    """Start `gridmm run` on a file."""
    command = [sys.executable, "-m", "gridmm", "run", "--json", "--db", str(db), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_start_on_a_file_is_refused(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    first = gridmm_run(db, "--speed", "600")
    try:
        assert first.stdout is not None and first.stdout.readline(), "it trades"
        _, said = (second := gridmm_run(db, "--speed", "max")).communicate(timeout=60)
        assert second.returncode == 3 and f"is in use: process {first.pid} trades on it" in said
        assert first.poll() is None, "the first one is not disturbed"
    finally:
        first.kill()
        first.communicate()


@pytest.mark.parametrize(
    "engine",
    [
        "simple",
        "durable",
    ],
)
def test_a_start_that_takes_over_displaces_the_first(tmp_path: Path, engine: str) -> None:
    db, words = tmp_path / "grid.sqlite", ("--engine", engine)
    first = gridmm_run(db, "--speed", "600", *words)
    second = None
    try:
        assert first.stdout is not None and first.stdout.readline(), "it trades"
        second = gridmm_run(db, "--speed", "max", "--duration", "1 min", "--take-over", *words)
        _, said = second.communicate(timeout=20)
        assert second.returncode == 0, said
        _, said = first.communicate(timeout=20)
        assert first.returncode == 3 and "took it over" in said
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate()
