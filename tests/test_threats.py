"""What the threat model says is defended and no other test holds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import pickle
from pathlib import Path

import pytest
from sqlalchemy import text

from gridmm.errors import Refused, UsageError
from gridmm.host import Host, queue_of
from gridmm.store import SqlStore
from gridmm.tables import open_database, sqlite_engine
from gridmm.v1.state_pb2 import State
from tools.notebooks import ROOT

NASTY = """x'; DROP TABLE gridmm_grids; --"""


class Program:
    """Runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


async def run(engine: object, grid: str) -> str:
    async def body() -> str:
        return "over"

    async with Host(engine, "here", {queue_of(grid): 1}) as host:  # type: ignore[arg-type]
        return await host.serve(grid, body)


@pytest.mark.parametrize("name", ["DBOS_pickle", "py_pickle", "gridmm_json"])
def test_a_pickle_in_the_database_is_not_run(tmp_path: Path, name: str) -> None:
    from dbos import DBOS

    mark, engine = tmp_path / "was run", sqlite_engine(tmp_path / "grid.sqlite", synchronous="OFF")
    asyncio.run(run(engine, "a"))
    planted = base64.b64encode(pickle.dumps(Program(mark))).decode()
    with engine.begin() as connection:
        values = {"planted": planted, "name": name}
        connection.execute(text("UPDATE workflow_output SET output = :planted"), values)
        connection.execute(text("UPDATE workflow_input SET inputs = :planted"), values)
        connection.execute(text("UPDATE workflow_status SET serialization = :name"), values)

    async def look() -> None:
        async with Host(engine, "here", {}) as host:
            assert host.executor == "here"
            await DBOS.list_workflows_async()

    with contextlib.suppress(Refused, ValueError):
        asyncio.run(look())
    assert not mark.exists()
    pickle.loads(base64.b64decode(planted))
    assert mark.exists(), "the planted program does nothing: this test shows nothing"


def test_a_grid_may_be_called_like_a_statement(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "grid.sqlite", synchronous="OFF")
    store, other = SqlStore(engine, "BTC/USDT", NASTY), SqlStore(engine, "BTC/USDT", "x")
    other.save(State(schema_version=1, symbol="BTC/USDT", version=1, incarnation=other.acquire()))
    store.save(State(schema_version=1, symbol="BTC/USDT", version=1, incarnation=store.acquire()))
    for one in (store, other):
        found = one.load()
        assert found is not None and found.version == 1


@pytest.mark.parametrize("mode", ["", "?sslmode=disable", "?sslmode=prefer", "?sslmode=allow"])
def test_a_database_elsewhere_needs_encryption(mode: str) -> None:
    with pytest.raises(UsageError, match="cross the network in the open"):
        open_database(f"postgresql://bot@db.example/grids{mode}")
    open_database(f"postgresql://bot@db.example/grids{mode}", allow_plain=True).dispose()


def test_every_test_that_the_threat_model_names_exists() -> None:
    import json
    import re

    page = json.loads((ROOT / "nbs" / "operations" / "138_threat_model.ipynb").read_text(encoding="utf-8"))
    said = "".join("".join(cell["source"]) for cell in page["cells"])
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", said)
    assert len(named) > 15
    for file, function in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, f"{file} has no {function}"
