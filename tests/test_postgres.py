"""A store on PostgreSQL keeps its promise, says so while the server is away, and goes on when it is back."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import OperationalError
from sqlalchemy import Engine, create_engine, event, text

from gridmm.commands import Ask, Mailbox, Request
from gridmm.errors import Fenced, StoreUnreachable
from gridmm.store import PRUNE_EVERY, Answer, FillRow, SqlStore, Store
from gridmm.tables import open_database
from gridmm.v1.decision_pb2 import DecisionRecord
from gridmm.v1.state_pb2 import State
from postgres import Server

OUTAGE_S = 2.0


def state(version: int, incarnation: int, last_price: str = "1") -> State:
    return State(
        schema_version=1, symbol="BTC/USDT", version=version, incarnation=incarnation, last_price=last_price
    )


def decision(sequence: int) -> DecisionRecord:
    return DecisionRecord(sequence=sequence, symbol="BTC/USDT", hash_after=f"h{sequence}")


def loaded(store: Store) -> State:
    """Return what is saved, which must be something."""
    found = store.load()
    assert found is not None
    return found


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    made = create_engine(database, connect_args={"connect_timeout": 5})
    yield made
    made.dispose()


def test_a_database_of_its_own_is_empty(postgres: Server, database: str, engine: Engine) -> None:
    other = postgres.new_database()
    assert other != database
    SqlStore(engine, "BTC/USDT").acquire()
    second = create_engine(other)
    with second.connect() as connection:
        assert (
            connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar()
            == 0
        )
    second.dispose()
    postgres.drop_database(other)


def test_state_and_decision_are_kept_together(engine: Engine) -> None:
    store = SqlStore(engine, "BTC/USDT", "first")
    assert store.load() is None
    owner = store.acquire()
    assert owner == 1 and store.load() is None
    store.save(state(1, owner, "1.5"), decision(1))
    store.save(state(2, owner, "2.5"))
    again = SqlStore(engine, "BTC/USDT", "first")
    assert (loaded(again).version, loaded(again).last_price) == (2, "2.5")
    assert [record.sequence for record in again.decisions()] == [1]
    assert SqlStore(engine, "BTC/USDT", "second").load() is None


def test_of_two_owners_the_later_one_saves(engine: Engine, database: str) -> None:
    elsewhere = create_engine(database)
    first, second = SqlStore(engine, "BTC/USDT"), SqlStore(elsewhere, "BTC/USDT")
    older = first.acquire()
    first.save(state(1, older), decision(1))
    newer = second.acquire()
    assert newer == older + 1
    with pytest.raises(Fenced, match=f"start {newer} took it over"):
        first.save(state(2, older), decision(2))
    assert (loaded(first).version, [record.sequence for record in first.decisions()]) == (1, [1])
    second.save(state(2, newer), decision(2))
    assert (loaded(first).incarnation, loaded(first).version) == (newer, 2)
    elsewhere.dispose()


@pytest.mark.parametrize("gently", [True, False], ids=["stopped", "killed"])
def test_an_outage_is_said_and_survived(postgres: Server, engine: Engine, gently: bool) -> None:
    store, port = SqlStore(engine, "BTC/USDT"), postgres.port
    owner = store.acquire()
    store.save(state(1, owner), decision(1))
    postgres.stop(gently=gently)
    end = time.monotonic() + OUTAGE_S
    refused = 0
    while time.monotonic() < end:
        for call in (store.load, store.acquire, lambda: store.save(state(2, owner), decision(2))):
            with pytest.raises(StoreUnreachable, match="does not answer") as caught:
                call()
            assert "\n" not in str(caught.value) and str(postgres.port) in str(caught.value)
            refused += 1
        time.sleep(0.2)
    assert refused >= 6 and not postgres.running
    postgres.start()
    assert postgres.port == port
    # The calls of the outage changed nothing: the same owner saves the same next version.
    store.save(state(2, owner), decision(2))
    assert loaded(store).version == 2
    assert [record.sequence for record in store.decisions()] == [1, 2]


def test_a_server_that_cannot_start_shows_its_log(postgres: Server) -> None:
    twin = Server(postgres.folder, postgres.programs, postgres.owner, postgres.port)
    with pytest.raises(RuntimeError, match=r"postmaster\.pid"):
        twin.start()
    assert postgres.running


def fill(number: int, price: str = "1.5", trade_id: str = "t") -> FillRow:
    return FillRow(
        number, 0, "buy", price, "2", "0.003", "USDT", "A", "x" * 190, f"{trade_id}{number}", "-0.003"
    )


def transactions(engine: Engine) -> int:
    """Return how many writing transactions the server has begun; asking is none."""
    with engine.connect() as connection:
        return int(
            connection.execute(
                text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
            ).scalar_one()
        )


def test_a_save_with_all_that_belongs_to_it_is_one_transaction_and_one_statement(engine: Engine) -> None:
    store, mailbox = SqlStore(engine, "BTC/USDT", "all", keep_decisions=1_000), Mailbox(engine)
    for name in ("one", "two", "other"):
        mailbox.send(Request(name, "all", Ask.PAUSE, "", "me", "why", 1, 2**50))
    owner, statements = store.acquire(), []
    store.save(state(1, owner), decision(1))
    listened = lambda *about: statements.append(about[2])  # noqa: E731
    event.listen(engine, "before_cursor_execute", listened)
    before = transactions(engine)
    statements.clear()
    fills = [fill(1), fill(2, price="0.00000001")]
    store.save(state(2, owner), decision(2), [Answer(name, "done", "r", 9) for name in ("one", "two")], fills)
    event.remove(engine, "before_cursor_execute", listened)
    assert len(statements) == 1
    assert transactions(engine) == before + 1
    assert list(store.fills()) == fills
    assert {command.id: command.state for command in mailbox.listed("all")} == {
        "one": "done", "two": "done", "other": "waiting",
    }  # fmt: skip


def test_a_refused_save_changes_nothing_at_all(engine: Engine) -> None:
    store, mailbox = SqlStore(engine, "BTC/USDT", "refused", keep_decisions=1), Mailbox(engine)
    mailbox.send(Request("r", "refused", Ask.PAUSE, "", "me", "why", 1, 2**50))
    owner = store.acquire()
    store.save(state(1, owner), decision(1))
    with pytest.raises(Fenced, match="version 1 is stored"):
        store.save(state(PRUNE_EVERY, owner), decision(2), [Answer("r", "done", "", 9)], [fill(1)])
    assert [record.sequence for record in store.decisions()] == [1]
    assert list(store.fills()) == []
    found = mailbox.find("r")
    assert found is not None and found.state == "waiting"


def test_old_decisions_are_removed(engine: Engine) -> None:
    store = SqlStore(engine, "BTC/USDT", "old", keep_decisions=500)
    owner = store.acquire()
    for version in range(1, PRUNE_EVERY + 1):
        store.save(state(version, owner), decision(version) if version % 100 == 0 else None)
    assert [record.sequence for record in store.decisions()] == [600, 700, 800, 900, 1_000]


def test_what_is_too_long_is_refused_and_not_cut(engine: Engine) -> None:
    store = SqlStore(engine, "BTC/USDT", "long")
    owner = store.acquire()
    with pytest.raises(StoreUnreachable, match="too long"):
        store.save(state(1, owner), decision(1), fills=[fill(1, trade_id="t" * 201)])
    assert store.load() is None and list(store.decisions()) == []


def test_a_server_that_was_away_while_nobody_asked_is_not_noticed(postgres: Server, database: str) -> None:
    engine = open_database(database)
    store = SqlStore(engine, "BTC/USDT", "rest")
    owner = store.acquire()
    for version, gently in ((1, True), (2, False)):
        store.save(state(version, owner), decision(version))
        postgres.stop(gently=gently)
        postgres.start()
    store.save(state(3, owner), decision(3))
    assert [record.sequence for record in store.decisions()] == [1, 2, 3]
    engine.dispose()


def test_a_save_whose_answer_was_lost_is_not_repeated(postgres: Server, database: str) -> None:
    engine = open_database(database)
    store = SqlStore(engine, "BTC/USDT", "lost")
    owner = store.acquire()
    store.save(state(1, owner), decision(1))

    def lose(connection: object, cursor: Any, *_: object) -> None:
        cursor.connection.close()
        raise OperationalError("the connection was lost")

    event.listen(engine, "after_cursor_execute", lose)
    with pytest.raises((StoreUnreachable, OperationalError)):
        store.save(state(2, owner), decision(2))
    event.remove(engine, "after_cursor_execute", lose)
    assert loaded(store).version == 2, "it had been saved"
    with pytest.raises(Fenced, match="version 2 is stored"):
        store.save(state(2, owner), decision(2))
    engine.dispose()
