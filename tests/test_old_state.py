"""A session that an earlier program left in the middle of its work is taken up, with its orders and its names, and trades on.

`tests/fixtures/session_vN` is a database and the paper exchange's ledger as SQL, written by the first program of State
version N, which was killed. The files never change. For a new State version add new ones: `python tests/test_old_state.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from gridmm.config import load
from gridmm.layout import Var
from gridmm.model import SCHEMA_VERSION
from gridmm.run import Run, Signals, assemble, exit_code, files_of
from gridmm.several import serve, unpaced
from gridmm.store import SqliteStore
from gridmm.vocabulary import Stop
from tools.notebooks import ROOT

FIXTURES = ROOT / "tests" / "fixtures"
CONFIG = ROOT / "tests" / "configs" / "demo_fast.toml"
OLD = sorted(path.name for path in FIXTURES.glob("session_v*.sql"))
SYMBOL = "BTC/USDT:USDT"


class Killed(Exception):
    """Stands for the end of the process."""


def play(db: Path, moments: int, *, durable: bool, kill: bool) -> Run:
    """Trade for so many prices; then die or stop."""
    seen, signals = 0, Signals()

    def moment(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen >= moments and kill:
            raise Killed
        signals.stop = Stop.CANCEL if seen >= moments else None

    signals.on_moment = moment
    with ExitStack() as stack:
        config = load(CONFIG, environ={}, options={"feed.speed": ("max", "test")})
        run = assemble(config, db, stack, durable=durable, synchronous="OFF")
        receipt = asyncio.run(serve([(run, signals)], unpaced, lambda line: None))[0]
        assert exit_code(run.engine, receipt) == 0
        assert set(receipt.residual_exchange.values()) == {"0"}
        return run


def both(db: Path, name: str) -> tuple[tuple[Path, Path], ...]:
    """Return each file of a session with its fixture."""
    return (db, FIXTURES / name), (files_of(db)[0], FIXTURES / name.replace("session", "ledger"))


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("durable", [True, False], ids=["durable", "simple"])
def test_a_session_of_an_earlier_program_trades_on(tmp_path: Path, name: str, durable: bool) -> None:
    db = tmp_path / "grid.sqlite"
    for path, fixture in both(db, name):
        with closing(sqlite3.connect(path)) as database:
            database.executescript(fixture.read_text(encoding="utf-8"))
    store = SqliteStore(db, SYMBOL)
    old, fills = store.load(), len(list(store.fills()))
    store.close()
    assert old is not None and f"_v{old.schema_version}" in name and fills > 0
    names = {order.client_id for slot in old.slots for order in (slot.open, slot.close) if order.client_id}
    assert names, "the fixture must have orders at the exchange"
    run = play(db, 1_500, durable=durable, kill=False)
    session = run.engine.session
    assert run.resumed and session.meta.version > old.version
    assert session.core.v[Var.TRADES] > fills and not session.core.v[Var.DEFECTS]
    again = SqliteStore(db, SYMBOL)
    traded = list(again.fills())
    again.close()
    assert [fill.number for fill in traded] == list(range(1, len(traded) + 1)) and len(traded) > fills
    assert names & {fill.client_id for fill in traded[fills:]}, (
        "an order of the earlier program must be filled later"
    )


def test_there_is_a_session_for_this_version() -> None:
    assert f"session_v{SCHEMA_VERSION}.sql" in OLD


def write_fixture(folder: Path) -> None:
    """Write a session of this program that was killed."""
    db = folder / "grid.sqlite"
    with suppress(Killed):
        play(db, 250, durable=False, kill=True)
    for path, fixture in both(db, f"session_v{SCHEMA_VERSION}.sql"):
        if fixture.exists():
            raise SystemExit(f"{fixture.name} is there already and never changes: raise SCHEMA_VERSION first")
        with closing(sqlite3.connect(path)) as database:
            settings = [
                f"PRAGMA {name} = {database.execute(f'PRAGMA {name}').fetchone()[0]};"
                for name in ("user_version", "application_id")
            ]
            fixture.write_text("\n".join([*settings, *database.iterdump()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        write_fixture(Path(made))
