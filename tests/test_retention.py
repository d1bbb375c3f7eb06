"""What is over is removed when its time has come; what is young, unfinished or a trade stays."""

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

import gridmm.host
from gridmm.commands import DAY_MS, KEEP_COMMANDS_DAYS, Ask, Mailbox, Request
from gridmm.host import KEEP_WORKFLOWS_DAYS, Host, queue_of
from gridmm.tables import sqlite_engine, tables

NOW_MS = 1_800_000_000_000
OLD_MS = NOW_MS - KEEP_COMMANDS_DAYS * DAY_MS - 1


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return sqlite_engine(tmp_path / "grid.sqlite", synchronous="OFF")


def command(name: str, grid: str, state: str, done_ms: int) -> Request:
    return Request(
        name, grid, Ask.PAUSE, "", "ann", "why", 1, 2**60, state=state, result="r", done_ms=done_ms
    )


def names(box: Mailbox) -> set[str]:
    return {request.id for request in box.listed()}


def test_answered_commands_are_removed_after_a_year(engine: Engine) -> None:
    box = Mailbox(engine)
    for name, grid, state, done_ms in (
        ("old", "a", "done", OLD_MS),
        ("old refused", "a", "refused", OLD_MS),
        ("young", "a", "done", OLD_MS + 1),
        ("old but waiting", "a", "waiting", 0),
        ("another grid's", "b", "expired", OLD_MS),
    ):
        box.send(command(name, grid, state, done_ms))
    kept = {"young", "old but waiting", "another grid's"}
    assert [request.id for request in box.waiting("a", NOW_MS)] == ["old but waiting"]
    assert names(box) == kept
    # it is looked for once a day, not at every poll
    box.waiting("a", NOW_MS + DAY_MS - 1)
    assert names(box) == kept
    box.waiting("a", NOW_MS + DAY_MS)
    assert names(box) == kept - {"young"}
    Mailbox(engine).waiting("b", NOW_MS)
    assert names(box) == {"old but waiting"}


def rows(engine: Engine) -> dict[str, int]:
    """Return how many rows each table of DBOS has for workflows that ran."""
    with engine.connect() as connection:
        return {
            table: int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())
            for table in ("workflow_status", "workflow_input", "workflow_output")
        }


async def session(engine: Engine, grid: str, seconds: float = 0) -> str:
    async def body() -> str:
        await asyncio.sleep(seconds)
        return "over"

    async with Host(engine, "here", {queue_of(grid): 1}) as host:
        return await host.serve(grid, body)


def age(engine: Engine, days: float, where: str = "") -> None:
    """Let workflows have ended so long ago."""
    at_ms = int((time.time() - days * 86_400) * 1_000)
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE workflow_status SET completed_at = {at_ms}, created_at = {at_ms} {where}")
        )


def ids(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(text("SELECT workflow_uuid FROM workflow_status")).scalars())


def test_finished_sessions_are_removed_with_all_their_rows(engine: Engine) -> None:
    asyncio.run(session(engine, "a"))
    (old,) = ids(engine)
    asyncio.run(session(engine, "a"))
    young = (ids(engine) - {old}).pop()
    asyncio.run(session(engine, "b"))
    unfinished = (ids(engine) - {old, young}).pop()
    age(engine, KEEP_WORKFLOWS_DAYS + 0.1, f"WHERE workflow_uuid <> '{young}'")
    age(engine, KEEP_WORKFLOWS_DAYS - 0.1, f"WHERE workflow_uuid = '{young}'")
    with engine.begin() as connection:
        connection.execute(
            text(
                f"UPDATE workflow_status SET status = 'PENDING', executor_id = 'elsewhere' WHERE workflow_uuid = '{unfinished}'"
            )
        )
    before = rows(engine)
    asyncio.run(session(engine, "a", seconds=1))
    assert old not in ids(engine) and {young, unfinished} < ids(engine)
    assert rows(engine) == before, "one gone, one new, in every table"


def test_a_session_of_many_days_removes_meanwhile(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(session(engine, "a"))
    (old,) = ids(engine)
    monkeypatch.setattr(gridmm.host, "PRUNE_EVERY_S", 0.05)

    async def live() -> None:
        running = asyncio.create_task(session(engine, "a", seconds=2))
        while len(ids(engine)) < 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        assert old in ids(engine)
        age(engine, KEEP_WORKFLOWS_DAYS + 1, f"WHERE workflow_uuid = '{old}'")
        assert await running == "over"

    asyncio.run(live())
    assert old not in ids(engine)


def test_trades_are_removed_by_nothing() -> None:
    assert "fills" in vars(tables())
    package = Path(gridmm.host.__file__).parent
    asked = [path.name for path in package.glob("*.py") if "delete(" in path.read_text(encoding="utf-8")]
    assert sorted(asked) == ["accounts.py", "commands.py", "fleet.py", "paper_ledger.py", "tables.py"], (
        "another module removes rows: which ones?"
    )
    assert "delete(fills" not in (package / "tables.py").read_text(encoding="utf-8")
