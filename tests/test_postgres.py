"""A store on PostgreSQL keeps its promise, says so while the server is away, and goes on when it is back."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text

from gridmm.errors import Fenced, StoreUnreachable
from gridmm.store import SqlStore, Store
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
