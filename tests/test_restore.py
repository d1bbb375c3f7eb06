"""A state restored from an old copy trades on: no order's name is used twice, and what it missed is found at the exchange.

The exchange is the one that has gone on: only the database is put back, as after a disk was lost.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from gridmm.client_id import START_S, decode
from gridmm.config import load
from gridmm.desk import Receipt
from gridmm.event_log import read_log
from gridmm.exchange import OrderRequest, Outcome
from gridmm.exchange_paper import PaperExchange
from gridmm.run import Signals, assemble, files_of
from gridmm.several import serve, unpaced
from gridmm.store import SqliteStore
from gridmm.vocabulary import Stop, Trigger
from tools.notebooks import ROOT

CONFIG = ROOT / "tests" / "configs" / "demo_fast.toml"
DAY_MS = 86_400_000
QUIET = 3  # prices: too few for a trade


class Killed(Exception):
    """Stands for the end of the process."""


class World:
    """A grid and its exchange, and a calendar that goes on a day with every start."""

    def __init__(self, db: Path, monkeypatch: pytest.MonkeyPatch, counted: bool = False) -> None:
        self.db, self.day, self.placed = db, 0, Counter[str]()
        honest = PaperExchange.place

        async def place(
            exchange: PaperExchange, requests: Sequence[OrderRequest], deadline_ms: int | None = None
        ) -> list[Outcome]:
            self.placed.update(request.client_id for request in requests)
            return await honest(exchange, requests, deadline_ms)

        monkeypatch.setattr(PaperExchange, "place", place)
        self._counted = counted

    def start(
        self, moments: int, at: Callable[[int], None] = lambda number: None, *, kill: bool = True
    ) -> Any:
        """Trade for so many prices; then die, or stop and return the receipt."""
        self.day += 1
        seen, signals = 0, Signals()

        def moment(_: object) -> None:
            nonlocal seen
            seen += 1
            at(seen)
            if seen >= moments and kill:
                raise Killed
            if seen >= moments:
                signals.stop = Stop.CANCEL

        signals.on_moment = moment
        with ExitStack() as stack:
            config = load(CONFIG, environ={}, options={"feed.speed": ("max", "test")})
            run = assemble(config, self.db, stack, durable=True, synchronous="OFF")
            run.start_ms = 0 if self._counted else START_S * 1_000 + self.day * DAY_MS
            return asyncio.run(serve([(run, signals)], unpaced, lambda line: None))[0]

    def backup(self, to: Path) -> None:
        """Copy the database while it is written to, as the page says."""
        with closing(sqlite3.connect(self.db)) as database:
            database.execute("VACUUM INTO ?", (str(to),))

    def restore(self, copy: Path) -> None:
        """Put the copy in the database's place, as the page says."""
        for path in self.db.parent.glob(f"{self.db.name}-*"):
            path.unlink()
        self.db.write_bytes(copy.read_bytes())

    def die(self, moments: int, at: Callable[[int], None] = lambda number: None) -> None:
        """Trade for so many prices, then die."""
        with pytest.raises(Killed):
            self.start(moments, at)

    def through_without_trades(self, folder: Path) -> Receipt:
        """Put back a state from before a start whose orders were all withdrawn."""
        self.start(QUIET, kill=False)
        self.backup(folder / "copy.sqlite")
        self.start(QUIET, kill=False)
        self.restore(folder / "copy.sqlite")
        before = self.placed.total()
        receipt: Receipt = self.start(QUIET, kill=False)
        assert self.placed.total() > before, "the restored grid must trade"
        return receipt


def test_no_name_is_used_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "grid.sqlite", monkeypatch)
    receipt = world.through_without_trades(tmp_path)
    assert max(world.placed.values()) == 1
    assert len({decode(name).incarnation for name in world.placed}) == 3
    assert (receipt.open_orders, receipt.fills) == (0, 0)


def test_starts_that_were_counted_would_use_names_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "grid.sqlite", monkeypatch, counted=True)
    world.through_without_trades(tmp_path)
    assert max(world.placed.values()) > 1


def test_a_state_that_missed_trades_halts_withdraws_what_it_finds_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, copy = World(tmp_path / "grid.sqlite", monkeypatch), tmp_path / "copy.sqlite"
    world.die(900, lambda number: world.backup(copy) if number == 500 else None)
    world.die(900)
    world.restore(copy)
    before = world.placed.total()
    receipt = world.start(900, kill=False)
    assert world.placed.total() == before, "it must not trade before somebody has looked"
    assert receipt.open_orders == 0
    store = SqliteStore(world.db, receipt.symbol)
    state = store.load()
    assert state is not None
    store.close()
    tripped = {Trigger(one.trigger - 1) for one in state.risk.triggers if one.active}
    assert {Trigger.STRAY_ORDER, Trigger.MISMATCH} <= tripped
    # the log stands beside, and its numbers go on behind the events that the copy did not see
    firsts = [segment.first for segment in read_log(files_of(world.db)[1])]
    assert firsts == sorted(set(firsts)) and len(firsts) == 3
