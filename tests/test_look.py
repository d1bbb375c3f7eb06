"""What a grid's database says of it agrees with what the session itself knew, and looking changes nothing."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gridmm.client_id import decode
from gridmm.commands import Ask, Request
from gridmm.config import load
from gridmm.desk import Receipt
from gridmm.engine import Session
from gridmm.errors import GridmmError, StateError, StoreUnreachable, UsageError
from gridmm.exchange import Fill
from gridmm.feed import Pace
from gridmm.layout import PAR_SIZE, Kind, Par, Var, empty_core
from gridmm.look import (
    OrderRow,
    Status,
    alarm,
    commands,
    open_books,
    open_orders,
    reading_parameters,
    since,
    status,
)
from gridmm.model import from_state, to_state
from gridmm.names import Meta
from gridmm.pnl import PnL, pnl, trade_gain
from gridmm.run import Run, Signals, assemble, play
from gridmm.store import MemoryStore, SqliteStore
from gridmm.units import Instrument
from gridmm.v1.state_pb2 import RiskTrigger
from gridmm.vocabulary import Mode, Report, Trigger
from gridmm.words import event, price_event

NOW = 1_800_000_000_000
BTC = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.001"))


class Played(NamedTuple):
    """A session that has ended."""

    db: Path
    run: Run
    receipt: Receipt


def trade(db: Path, minutes: int = 90, during: Callable[[Run], None] = lambda run: None) -> Played:
    """Trade so many minutes of the demo market with the Durable engine; `during` is called after each moment."""
    options = {
        "feed.duration": f"{minutes} min",
        "grid.price_interval": "10 bps",
        "instrument.maker_fee": "1 bps",
    }
    config = load(options={name: (value, "test") for name, value in options.items()}, environ={})
    with ExitStack() as stack:
        run = assemble(config, db, stack, durable=True, synchronous="OFF")
        run.begin()
        signals = Signals(on_moment=lambda engine: during(run))
        receipt = asyncio.run(play(run, signals, Pace("max", lambda: 0, asyncio.sleep)))
        return Played(db, run, receipt)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return trade(tmp_path_factory.mktemp("look") / "grid.sqlite")


def rows(db: Path) -> list[tuple]:
    """Return every row of every table of ours."""
    with closing(sqlite3.connect(db)) as found:
        names = [
            name for (name,) in found.execute("SELECT name FROM sqlite_master WHERE name LIKE 'gridmm%'")
        ]
        return [(name, *row) for name in sorted(names) for row in found.execute(f"SELECT * FROM {name}")]


def test_status_says_what_the_receipt_said(played: Played) -> None:
    books, receipt = open_books(str(played.db)), played.receipt
    before = rows(played.db)
    seen = status(books, NOW)
    assert receipt.fills > 4 and receipt.round_trips > 0
    for name in ("symbol", "version", "realized_pnl", "unrealized_pnl", "inventory_skew", "active_slots"):
        assert getattr(seen, name) == getattr(receipt, name), name
    for name in ("position", "pnl", "defects", "fills", "round_trips"):
        assert getattr(seen, name) == getattr(receipt, name), name
    assert (seen.risk, seen.stop, seen.triggers, seen.waiting) == ("NORMAL", "CANCEL", [], [])
    assert seen.start == 1, "on the paper exchange, starts are counted"
    assert seen.released and seen.owner.startswith("process ")
    assert seen.price_age_ms == NOW - seen.price_ms > 0
    assert sum(seen.open_orders.values()) == receipt.open_orders == 0
    assert rows(played.db) == before, "a look has changed something"
    books.close()


def test_a_running_grid_is_seen_as_its_process_sees_it(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    seen: list[tuple[Status, list[OrderRow], list[str], PnL]] = []

    def look(run: Run) -> None:
        session = run.engine.session
        if not seen and session.core.v[Var.TRADES] and session.meta.version > 3:
            session.save()
            books = open_books(str(db))
            orders = open_orders(books.state(), session.meta.instrument)
            seen.append((status(books, NOW), orders, session.open_ids(), pnl(session.core, session.par)))
            books.close()

    trade(db, 40, look)
    said, orders, ids, sums = seen[0]
    assert not said.released and said.stop == "RUN"
    assert sorted(order.client_id for order in orders) == sorted(ids) and len(ids) > 1
    assert said.open_orders == {"pending": 0, "unknown": 0, "working": len(ids)}
    assert all(order.exchange_id and order.age_ms is not None and order.age_ms >= 0 for order in orders)
    assert [Decimal(order.price) for order in orders] == sorted(
        (Decimal(one.price) for one in orders), reverse=True
    )
    assert Decimal(said.inventory_skew or 0) == Decimal(sums.inventory_skew_ppm).scaleb(-6)


def test_profit_is_read_with_four_parameters_only(played: Played) -> None:
    """Whatever else `pnl` would ask its parameters for, a look could not answer."""
    session = played.run.engine.session
    core, meta = from_state(to_state(session.core, session.meta))
    par = reading_parameters(meta)
    used = [Par.HALF_ATOMS, Par.BASE_LOT_ATOMS, Par.MAX_LOTS, Par.TARGET_LOTS]
    assert par[used].tolist() == session.par[used].tolist()
    assert pnl(core, par) == pnl(session.core, session.par)


def test_a_state_of_before_the_terms_does_not_pretend_to_know_the_lean(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    store = SqliteStore(db, "BTC/USDT", synchronous="OFF")
    store.save(to_state(empty_core(), Meta(BTC, incarnation=store.acquire("ann"), version=1)))
    store.close()
    books = open_books(str(db))
    assert not books.state().HasField("terms")
    assert status(books, NOW).inventory_skew is None
    books.close()


def test_every_trade_is_written_once_with_what_it_realized(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    first = trade(db, 60)
    second = trade(db, 60)  # goes on: what was asked for again at the start is not written again
    books = open_books(str(db))
    found = list(books.store.fills())
    assert len(found) == second.receipt.fills > first.receipt.fills > 0
    assert [row.number for row in found] == list(range(1, len(found) + 1))
    assert len({row.trade_id for row in found}) == len(found)
    assert sum(Decimal(row.pnl) for row in found) == Decimal(second.receipt.realized_pnl)
    assert -sum(Decimal(row.fee) for row in found) == Decimal(second.receipt.pnl["fees"])
    cut = found[len(found) // 2].time_ms
    assert list(books.store.fills(cut)) == [row for row in found if row.time_ms >= cut]
    books.close()


def test_one_commit_a_plan_carries_the_fills_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[bool, int]] = []
    save = SqliteStore.save

    def counted(self, state, decision=None, answers=(), fills=()):
        kept.append((decision is not None, len(fills)))
        save(self, state, decision, answers, fills)

    monkeypatch.setattr(SqliteStore, "save", counted)
    done = trade(tmp_path / "grid.sqlite", 60)
    assert sum(decided for decided, _ in kept) == done.receipt.decisions
    assert len(kept) == done.receipt.version, "a save that was not counted as a version"
    assert sum(count for _, count in kept) == done.receipt.fills


def filled(
    session: Session, client_id: str, trade_id: str, side: int, price: str, lots: int, fee: str
) -> None:
    """Let a session hear a trade."""
    said = Fill(
        trade_id, client_id, "x1", side, Decimal(price), BTC.quantity(lots), Decimal(fee), "USDT", True, 5_000
    )
    news = session.words.news(said, 5_000)
    assert news is not None
    session.take(*news)


@pytest.mark.parametrize("told_first", [False, True], ids=["trade first", "order first"])
def test_a_trade_is_worth_the_same_whatever_was_heard_before_it(told_first: bool) -> None:
    """An order's report moves the profit of its lots to before their trade: the row must not depend on it."""
    store = MemoryStore("BTC/USDT")
    session = Session(empty_core(), parameters(), Meta(BTC, instance=7, incarnation=store.acquire()), store)
    buy = session.take(price_event(1_000, 599_999, 600_001, 600_000)).place[0]
    lots = BTC.lots(buy.quantity)
    if told_first:
        session.take(about(session, buy.client_id, Report.FILLED, lots))
    filled(session, buy.client_id, "t1", 1, "59949.5", lots, "0.1")
    filled(session, buy.client_id, "t1", 1, "59949.5", lots, "0.1")
    session.save()
    (row,) = store.fills()
    # half a unit better than its edge of 59950.0, on ten lots of 0.001, less the fee
    assert (row.trade_id, row.side, row.price, Decimal(row.pnl)) == (
        "t1",
        "buy",
        "59949.5",
        Decimal("-0.095"),
    )
    assert Decimal(row.pnl) == BTC.money(session.pnl().realized)
    assert session.fills == []


def parameters() -> np.ndarray:
    """Parameters of two buys below 60 000, ten lots each."""
    par = np.zeros(PAR_SIZE, dtype=np.int64)
    par[[Par.MODE, Par.BUYS, Par.SELLS, Par.BASE, Par.MAX_EPOCHS]] = Mode.LONG, 2, 2, 500, 3
    par[[Par.SCALE_PPM, Par.CAP_PPM, Par.CHANGE_PCT, Par.MAX_ORDERS]] = 10**6, 4 * 10**6, 20, 50
    par[[Par.HALF_ATOMS, Par.CELL_ATOMS]] = BTC.half_atoms, BTC.atoms(Decimal(600))
    par[[Par.MAX_LOTS, Par.GROSS_LOTS, Par.QUERY_AFTER_MS]] = 99, 99, 5_000
    par[Par.BASE_LOT_ATOMS] = BTC.base_lot_atoms
    return par


def about(session: Session, client_id: str, report: Report, cum: int) -> np.ndarray:
    """Return an order event of the session's own order."""
    at = decode(client_id)
    place = {"SEQ": at.sequence, "EPOCH": at.epoch, "CELL": at.cell, "LEG": at.leg, "DIRECTION": at.direction}
    return event(Kind.ORDER, 4_000, **place, SIDE=1, PRICE=599_500, LOTS=cum, REPORT=report, CUM=cum)


def test_a_trade_of_an_unknown_order_costs_its_fee() -> None:
    ev = event(Kind.FILL, 1, SEQ=99, SIDE=1, PRICE=600_000, LOTS=5, TRADE=1, FEE=300)
    assert trade_gain(empty_core(), parameters(), ev) == -300
    paid_in_base = event(Kind.FILL, 1, SEQ=99, SIDE=1, PRICE=600_000, LOTS=5, TRADE=1, FEE_BASE_ATOMS=500)
    # 0.000005 BTC at 60 000.0
    assert BTC.money(trade_gain(empty_core(), parameters(), paid_in_base)) == Decimal("-0.3")


@pytest.mark.parametrize(
    ("trigger", "value", "limit", "said"),
    [
        (Trigger.DRAWDOWN, 61_250_000_000, 50_000_000_000, ("612.5", "500", "USDT")),
        (Trigger.ATR_SPIKE, 3_250_000, 3_000_000, ("3.25", "3", "ratio")),
        (Trigger.STALE_PRICE, 61_500, 60_000, ("61.5", "60", "s")),
        (Trigger.MISMATCH, 100_000, 1, ("0.001", "0.00000001", "BTC")),
        (Trigger.OPERATOR, 1, 1, ("1", "1", "times")),
    ],
)
def test_triggers_speak_in_their_units(
    trigger: Trigger, value: int, limit: int, said: tuple[str, ...]
) -> None:
    message = RiskTrigger(value=value, limit=limit, active=1)
    message.trigger = trigger + 1  # type: ignore[assignment]
    assert alarm(message, BTC)[:4] == (trigger.name, *said)


def test_since_is_a_time_or_a_span() -> None:
    assert since("1970-01-02", 0) == 86_400_000
    assert since("1970-01-01 00:00:01Z", 0) == 1_000
    assert since("90 min", 10**8) == 10**8 - 5_400_000
    for wrong in ("", "soon", "12", "2026-13-01", "3 fortnights"):
        with pytest.raises(UsageError, match="it is not a time"):
            since(wrong, 0)


@pytest.fixture
def several(tmp_path: Path) -> Iterator[str]:
    """A database of two grids, of which one has saved nothing."""
    db = tmp_path / "grids.sqlite"
    for name in ("a", "b"):
        store = SqliteStore(db, "BTC/USDT", name, shared=True, synchronous="OFF")
        meta = Meta(BTC, incarnation=store.acquire(name), version=1)
        if name == "a":
            store.save(to_state(empty_core(), meta))
        store.close()
    yield str(db)


def test_of_several_grids_one_must_be_named(several: str) -> None:
    with pytest.raises(UsageError, match=r"it holds 2 grids. Choose one of a, b with --grid"):
        open_books(several)
    with pytest.raises(UsageError, match=r"grid c: .* does not hold it. Choose one of a, b"):
        open_books(several, "c")
    books = open_books(several, "a")
    assert (books.grid, books.owner()) == ("a", ("a", 1, False))
    books.close()
    with pytest.raises(UsageError, match=r"grid b in .*: it was started and has saved nothing yet"):
        open_books(several, "b").state()


def test_what_is_not_a_database_of_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    missing = tmp_path / "no.sqlite"
    refused(str(missing), UsageError, "there is no such database")
    assert not missing.exists(), "a slip has created a database"
    (tmp_path / "empty").touch()
    refused(str(tmp_path / "empty"), UsageError, "the file is empty")
    refused(str(tmp_path), StoreUnreachable, "is a folder")
    text = tmp_path / "text"
    text.write_text("dear diary, " * 100)
    refused(str(text), StateError, "is damaged")
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE pictures (name TEXT)")
    before = other.read_bytes()
    refused(f"sqlite:///{other}", StateError, "is not a database of gridmm")
    assert other.read_bytes() == before
    refused("mysql://x/y", UsageError, "it is not supported")


def refused(db: str, kind: type[GridmmError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        open_books(db)
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_a_command_that_nobody_took_in_time_is_shown_as_expired(played: Played) -> None:
    books = open_books(str(played.db))
    books.mailbox.send(Request("late", books.grid, Ask.PAUSE, "", "ann", "news", NOW, NOW + 1_000))
    assert [one.state for one in commands(books, NOW + 1_000)] == ["waiting"]
    assert [one.id for one in status(books, NOW).waiting] == ["late"]
    assert [(one.state, one.result) for one in commands(books, NOW + 1_001)] == [
        ("expired", "nothing was done")
    ]
    books.close()
