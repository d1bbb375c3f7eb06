"""The exchange in another process keeps the promise, goes wrong as told, and its auditor sees what is planted."""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gridmm.exchange
from exchange_faults import COMMANDS, Fault, Faults
from exchange_server import BACKLOG_FRAMES, ExchangeServer, Line, warm_up
from exchange_wire import CLASSES, opened, thing, wire
from gridmm.client_id import ClientId, encode
from gridmm.errors import ExchangeUnreachable
from gridmm.exchange import (
    Absent,
    Accepted,
    Exchange,
    Fill,
    NotSent,
    OrderReport,
    OrderRequest,
    Rejected,
    RejectReason,
    Unknown,
)
from gridmm.exchange_paper import PaperExchange, PaperRules
from gridmm.feed import Candle, Moment
from gridmm.tape import Row, Tape, sealed
from paper_world import COIN, PERP
from remote_exchange import Control, RemoteExchange, exchange_process, wall_ms

D = Decimal
START_MS = 1_000_000


def tape_of(*rows: tuple[int, int, int, int, int], instrument: Any = PERP) -> Tape:
    """A market of (kind, a, b, c, d), a row a second."""
    table = np.zeros((7, len(rows)), dtype=np.int64)
    table[0] = START_MS + 1_000 * np.arange(len(rows))
    table[1:6] = np.array(rows).T
    return sealed(Tape.of(instrument, "planted", list(table)))


QUIET = tape_of(*[(Row.QUOTE, 999, 1_001, 300, 300)] * 200)


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    asyncio.run(warm_up())


@asynccontextmanager
async def world(
    tape: Tape = QUIET, *, cap: Decimal | None = None, shown: int = 1, timeout_s: float = 2.0, **rules: Any
) -> AsyncIterator[tuple[ExchangeServer, RemoteExchange]]:
    """An exchange that has shown its first moments, and a client of it; in one loop, over real sockets."""
    paper = PaperExchange(tape.instrument, PaperRules(**rules), tape=tape.sha, synchronous="OFF")
    server = ExchangeServer(paper, tape, cap=cap)
    await server.start()
    client = RemoteExchange(server.address, timeout_s=timeout_s)
    try:
        await server.pass_moments(shown)
        yield server, client
    finally:
        await client.close()
        await server.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def name(cell: int, sequence: int, leg: int = 0, epoch: int = 1) -> str:
    """A client id of a grid."""
    return encode(ClientId(7, 1, epoch, cell, 1, leg, sequence))


def buy(client_id: str, price: str = "9.90", quantity: str = "1.0", **flags: bool) -> OrderRequest:
    return OrderRequest(client_id, +1, D(price), D(quantity), **flags)


def sell(client_id: str, price: str = "10.10", quantity: str = "1.0", **flags: bool) -> OrderRequest:
    return OrderRequest(client_id, -1, D(price), D(quantity), **flags)


async def listening(client: RemoteExchange) -> tuple[list[Any], asyncio.Task[None]]:
    """Begin to listen to the user stream; return what is heard, and the task that hears it."""
    heard: list[Any] = []

    async def listen() -> None:
        async for event in client.stream():
            heard.append(event)

    task = asyncio.create_task(listen())
    await asyncio.wait_for(client.streaming.wait(), 5)
    return heard, task


async def until(heard: list[Any], count: int) -> list[Any]:
    """Wait until so many events were heard."""
    async with asyncio.timeout(5):
        while len(heard) < count:
            await asyncio.sleep(0.005)
    return heard


# -- the wire


def test_every_class_of_the_promise_has_its_message() -> None:
    promise = {
        cls
        for cls in vars(gridmm.exchange).values()
        if dataclasses.is_dataclass(cls) and cls.__module__ in ("gridmm.exchange", "gridmm.units")
    }
    assert promise <= set(CLASSES)
    for cls in (*CLASSES, Candle):
        names = (
            [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else list(cls._fields)
        )
        assert [f.name for f in getattr(wire(), cls.__name__).DESCRIPTOR.fields] == names
    assert {f.message_type.name for f in wire().Thing.DESCRIPTOR.fields} == {cls.__name__ for cls in CLASSES}


@pytest.mark.parametrize(
    "one",
    [
        PERP,
        buy("A", "0.0000001", "1E+3", post_only=False, immediate=True),
        Accepted("A", "17"),
        Rejected("A", RejectReason.POST_ONLY, "it would have taken"),
        OrderReport("A", "17", -1, D("1.10"), D("2"), D("0.5"), "open", "", 5),
        Absent("A", final=False),
        Fill("1", "A", "17", -1, D("1.10"), D("0.5"), D("-0.00001"), "USDT", True, 5),
        gridmm.exchange.Funding("3", D("-0.25"), 5),
        Moment(1, 2, 3, 4, 5, 6, 7, 8, 9, (Candle(1, 2, 3, 4, 5, 6), Candle(2, 2, 3, 4, 5, 6))),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_is_packed_is_unpacked(one: Any) -> None:
    again = opened(wire().Thing.FromString(thing(one).SerializeToString()))
    assert type(again) is type(one) and again == one


# -- the promise


def test_it_says_what_the_paper_exchange_says() -> None:
    async def work() -> None:
        async with world() as (server, client):
            exchange: Exchange = client
            paper = server.paper
            ids = [name(cell, cell + 10) for cell in range(4)]
            outcomes = await exchange.place([buy(ids[0]), buy(ids[1], "10.05"), sell(ids[2], "10.20")])
            outcomes += await exchange.place([buy(ids[0])])
            assert [type(outcome) for outcome in outcomes] == [Accepted, Rejected, Accepted, Rejected]
            refused = [outcome.reason for outcome in outcomes if isinstance(outcome, Rejected)]
            assert refused == [RejectReason.POST_ONLY, RejectReason.DUPLICATE]
            taken = (await exchange.place([buy(ids[3], "10.01", "2.0", post_only=False)]))[0]
            assert isinstance(taken, Accepted)
            assert await exchange.instruments() == [PERP]
            assert await exchange.balances() == await paper.balances()
            assert await exchange.positions() == await paper.positions() != []
            assert await exchange.open_orders() == await paper.open_orders()
            assert await exchange.fills(0) == await paper.fills(0) != []
            assert await exchange.fills(paper.now_ms + 1) == []
            assert [await exchange.order(one) for one in ids] == [await paper.order(one) for one in ids]
            cancelled = await exchange.cancel([ids[0], ids[3]])
            assert isinstance(cancelled[0], Accepted) and isinstance(cancelled[1], Rejected)
            (left,) = await exchange.cancel_all()
            assert left.client_id == ids[2] and await exchange.open_orders() == []

    run(work())


def test_the_user_stream_says_all_of_it_in_order() -> None:
    async def work() -> None:
        falling = tape_of(
            (Row.QUOTE, 999, 1_001, 300, 300), (Row.TRADE, 989, 4, -1, 1), (Row.TRADE, 988, 50, -1, 2)
        )
        async with world(falling) as (server, client):
            before = name(0, 1)
            await client.place([sell(before)])
            heard, task = await listening(client)
            await client.place([buy(name(1, 2))])
            await client.cancel([before])
            assert await server.pass_moments(2) == 2
            await until(heard, 4)
            reports = [(e.client_id, e.status) for e in heard if isinstance(e, OrderReport)]
            assert reports == [(name(1, 2), "open"), (before, "canceled"), (name(1, 2), "filled")]
            fills = [event for event in heard if isinstance(event, Fill)]
            assert fills == await client.fills(0) and sum(fill.quantity for fill in fills) == D(1)
            assert client.missed == 0
            await client.close()
            await task  # ends in order

    run(work())


def test_a_client_sees_the_market_as_it_stands_and_as_it_moves() -> None:
    async def work() -> None:
        rows = [(Row.QUOTE, 990 + i, 992 + i, 5, 6) for i in range(130)]
        async with world(tape_of(*rows), shown=100) as (server, client):
            seen: list[Moment] = []

            async def watch() -> None:
                async for moment in client.moments():
                    seen.append(moment)

            task = asyncio.create_task(watch())
            await until(seen, 1)
            assert (seen[0].bid, seen[0].ask, seen[0].bid_lots, seen[0].ask_lots) == (
                990 + 99,
                992 + 99,
                5,
                6,
            )
            assert await server.pass_moments(100) == 30 and server.ended
            await asyncio.wait_for(task, 5)  # the market is over, and the stream with it
            assert [moment.bid for moment in seen[1:]] == [990 + i for i in range(100, 130)]
            assert [candle.time_ms for moment in seen for candle in moment.candles] == [1_080_000]
            late = [moment async for moment in client.moments()]
            assert [moment.bid for moment in late] == [990 + 129]

    run(work())


def test_with_latency_the_answer_comes_with_market_time() -> None:
    async def work() -> None:
        async with world(latency_ms=500, response_ms=500, timeout_s=5) as (server, client):
            call = asyncio.create_task(client.place([buy(name(0, 1))]))
            while not server.paper.waiting:
                await asyncio.sleep(0.005)
            assert await client.order(name(0, 1)) == Absent(name(0, 1), final=False)
            assert not call.done()
            await server.pass_moments(2)
            assert isinstance((await call)[0], Accepted)

    run(work())


def test_an_exchange_that_is_not_there() -> None:
    async def work() -> None:
        async with world() as (server, _):
            address = server.address
        client = RemoteExchange(address)
        outcomes = [*await client.place([buy("A")]), *await client.cancel(["B"]), *await client.cancel_all()]
        assert [type(outcome) for outcome in outcomes] == [NotSent] * 3
        assert [outcome.client_id for outcome in outcomes] == ["A", "B", ""]
        with pytest.raises(ExchangeUnreachable, match="open_orders was not answered"):
            await client.open_orders()
        with pytest.raises(ExchangeUnreachable, match="the stream stream was lost"):
            await anext(aiter(client.stream()))
        await client.close()

    run(work())


def test_after_its_deadline_nothing_is_sent() -> None:
    async def work() -> None:
        async with world() as (server, client):
            past, future = wall_ms() - 1, wall_ms() + 60_000
            late = [
                *await client.place([buy("A"), buy("B")], deadline_ms=past),
                *await client.cancel(["A"], deadline_ms=past),
                *await client.cancel_all(deadline_ms=past),
            ]
            assert [type(outcome) for outcome in late] == [NotSent] * 4
            assert "deadline" in str(late[0])
            assert not server._calls, "something was sent"
            assert isinstance((await client.place([buy("A")], deadline_ms=future))[0], Accepted)

    run(work())


def test_the_deadline_is_read_when_the_order_could_go_out(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, now_ms = asyncio.open_connection, [10]

    async def slow_connect(*at: Any) -> Any:
        found = await connect(*at)
        now_ms[0] += 10
        return found

    async def work() -> None:
        async with world() as (server, _):
            client = RemoteExchange(server.address, clock_ms=lambda: now_ms[0])
            monkeypatch.setattr(asyncio, "open_connection", slow_connect)
            (on_time,) = await client.place([buy("A")], deadline_ms=21)
            (late,) = await client.place(
                [buy("B")], deadline_ms=25
            )  # it was 20 when it was called, 30 in the end
            assert isinstance(on_time, Accepted) and isinstance(late, NotSent)
            assert server._calls == {"place": 1}
            await client.close()

    run(work())


def test_calls_that_wait_when_the_client_closes_are_unknown() -> None:
    async def work() -> None:
        async with world(latency_ms=500, timeout_s=30) as (server, client):
            call = asyncio.create_task(client.place([buy("A"), buy("B")]))
            while server.paper.waiting < 2:
                await asyncio.sleep(0.005)
            await client.close()
            assert [type(outcome) for outcome in await call] == [Unknown, Unknown]
            assert [type(outcome) for outcome in await client.place([buy("C")])] == [NotSent]

    run(work())


# -- faults


@pytest.mark.parametrize("fault", [Fault.REQUEST_LOST, Fault.ANSWER_LOST, Fault.LATE_ANSWER])
def test_a_lost_command_is_unknown_and_its_fate_can_be_asked(fault: Fault) -> None:
    async def work() -> None:
        async with world(timeout_s=0.5) as (server, client):
            server.faults.delay_s = 1.0
            server.faults.once({fault: 1})
            first, second = name(0, 1), name(1, 2)
            (outcome,) = await client.place([buy(first)])
            assert isinstance(outcome, Unknown)
            said = await client.order(first)
            if fault == Fault.REQUEST_LOST:
                assert said == Absent(first, final=True)
            else:
                assert isinstance(said, OrderReport) and said.status == "open"
                again = (await client.place([buy(first)]))[0]
                assert isinstance(again, Rejected) and again.reason == RejectReason.DUPLICATE
            assert isinstance((await client.place([buy(second)]))[0], Accepted), "only one was to be struck"
            assert server.faults.struck[fault] == 1
            server.faults.once({fault: 1})
            assert isinstance((await client.cancel([second]))[0], Unknown)
            open_now = [order.client_id for order in await client.open_orders()]
            assert (second in open_now) == (fault == Fault.REQUEST_LOST)

    run(work())


def test_a_fault_of_one_call_strikes_no_other() -> None:
    async def work() -> None:
        async with world() as (server, client):
            server.faults.once({"order.answer_lost": 1, "cancel.request_lost": 1})
            assert isinstance((await client.place([buy("A")]))[0], Accepted)
            with pytest.raises(ExchangeUnreachable, match="order was not answered"):
                await client.order("A")
            assert isinstance(await client.order("A"), OrderReport)
            assert isinstance((await client.cancel(["A"]))[0], Unknown)
            assert isinstance((await client.cancel(["A"]))[0], Accepted)

    run(work())


@pytest.mark.parametrize(
    ("fault", "reason"), [(Fault.RATE_LIMIT, RejectReason.RATE_LIMIT), (Fault.FUNDS, RejectReason.FUNDS)]
)
def test_a_refusal_changes_nothing(fault: Fault, reason: RejectReason) -> None:
    async def work() -> None:
        async with world() as (server, client):
            server.faults.once({fault: 1})
            (outcome,) = await client.place([buy("A")])
            assert isinstance(outcome, Rejected) and outcome.reason == reason
            assert await client.order("A") == Absent("A", final=True)
            assert isinstance((await client.place([buy("A")]))[0], Accepted)
            if fault == Fault.RATE_LIMIT:
                server.faults.once({fault: 1})
                (kept,) = await client.cancel(["A"])
                assert isinstance(kept, Rejected) and len(await client.open_orders()) == 1

    run(work())


def test_a_late_cancel_comes_after_a_partial_fill() -> None:
    async def work() -> None:
        # Two lots wait before ours at the bid, so of six that are sold into it four are ours.
        falling = tape_of(
            (Row.QUOTE, 990, 1_001, 2, 300), (Row.TRADE, 990, 6, -1, 1), (Row.TRADE, 990, 9, -1, 2)
        )
        async with world(falling, timeout_s=5) as (server, client):
            await client.place([buy("A")])
            server.faults.once({Fault.LATE_CANCEL: 1})
            call = asyncio.create_task(client.cancel(["A"]))
            while not server.faults.struck[Fault.LATE_CANCEL]:
                await asyncio.sleep(0.005)
            assert not call.done()
            await server.pass_moments(1)
            assert isinstance((await call)[0], Accepted)
            report = await client.order("A")
            assert isinstance(report, OrderReport)
            assert (report.status, report.cumulative) == ("canceled", D("0.4"))

    run(work())


def test_an_event_that_is_said_twice() -> None:
    async def work() -> None:
        async with world() as (server, client):
            heard, _ = await listening(client)
            server.faults.once({Fault.DUPLICATED_EVENT: 1})
            await client.place([buy("A")])
            await client.place([buy("B")])
            assert [event.client_id for event in await until(heard, 3)] == ["A", "A", "B"]

    run(work())


def test_events_that_change_places() -> None:
    async def work() -> None:
        async with world() as (server, client):
            heard, _ = await listening(client)
            server.faults.once({Fault.REORDERED_EVENT: 1})
            for one in "ABC":
                await client.place([buy(one)])
            assert [event.client_id for event in await until(heard, 3)] == ["B", "A", "C"]
            server.faults.once({Fault.REORDERED_EVENT: 1})
            await client.place([buy("D")])
            await server.pass_moments(1)  # nothing came after it: it is let go with the next moment
            assert (await until(heard, 4))[3].client_id == "D"
            assert client.missed == 0

    run(work())


def test_a_cut_stream_says_so_and_the_next_one_how_much_was_missed() -> None:
    async def work() -> None:
        async with world() as (server, client):
            heard, task = await listening(client)
            await client.place([buy("A")])
            await until(heard, 1)
            server.faults.once({Fault.STREAM_CUT: 1})
            await client.place([buy("B")])
            with pytest.raises(ExchangeUnreachable, match="the stream stream was lost"):
                await asyncio.wait_for(task, 5)
            assert not client.streaming.is_set()
            await client.place([buy("C")])
            heard, _ = await listening(client)
            assert client.missed == 2 and heard == []
            await client.place([buy("D")])
            assert [event.client_id for event in await until(heard, 1)] == ["D"]
            assert [order.client_id for order in await client.open_orders()] == ["A", "B", "C", "D"]

    run(work())


def test_an_exchange_that_is_down_and_comes_back() -> None:
    async def work() -> None:
        async with world() as (server, client):
            control = Control(server.control)
            heard, task = await listening(client)
            await client.place([buy("A")])
            await until(heard, 1)
            await asyncio.to_thread(control.faults, down_ms=1_500)
            with pytest.raises(ExchangeUnreachable):
                await asyncio.wait_for(task, 5)
            assert isinstance((await client.place([buy("B")]))[0], NotSent)
            with pytest.raises(ValueError, match="down already"):
                await asyncio.to_thread(control.faults, down_ms=1_500)
            await server.pass_moments(1)  # the market does not wait for it
            async with asyncio.timeout(5):
                while isinstance((await client.place([buy("B")]))[0], NotSent):
                    await asyncio.sleep(0.05)
            assert [order.client_id for order in await client.open_orders()] == ["A", "B"]
            await listening(client)
            assert server.faults.struck["down"] == 1

    run(work())


def test_an_exchange_that_says_nothing() -> None:
    async def work() -> None:
        async with world(timeout_s=0.3) as (server, client):
            await asyncio.to_thread(Control(server.control).faults, silent_ms=1_500)
            assert isinstance((await client.place([buy("A")]))[0], Unknown)
            with pytest.raises(ExchangeUnreachable, match="no answer within"):
                await client.order("A")
            await asyncio.sleep(1.5)
            assert await client.order("A") == Absent("A", final=True)

    run(work())


def test_chance_is_the_same_from_the_same_seed() -> None:
    def pattern(seed: int) -> list[bool]:
        faults = Faults()
        faults.rates(seed, {"answer_lost": 100, "place.funds": 200})
        calls = [(Fault.ANSWER_LOST, "cancel"), (Fault.FUNDS, "place"), (Fault.FUNDS, "order")]
        return [faults.strikes(*call) for _ in range(500) for call in calls]

    assert pattern(1) == pattern(1)
    assert pattern(1) != pattern(2)
    share = np.array(pattern(3)).reshape(-1, 3).mean(axis=0)
    assert 0.05 < share[0] < 0.15 and 0.14 < share[1] < 0.26 and share[2] == 0


@pytest.mark.parametrize(
    "asked", [{"once": {"anwser_lost": 1}}, {"seed": 1, "per_mille": {"plaice.funds": 5}}]
)
def test_a_fault_that_is_not_known_is_refused(asked: dict[str, Any]) -> None:
    async def work() -> None:
        async with world() as (server, _):
            with pytest.raises(ValueError, match=r"is not known. Use one of request_lost, answer_lost"):
                await asyncio.to_thread(lambda: Control(server.control).faults(**asked))

    run(work())


def test_a_client_that_does_not_listen_is_cut_off() -> None:
    class Transport:
        aborted = 0

        def abort(self) -> None:
            self.aborted += 1

    async def work() -> None:
        transport = Transport()
        line = Line(transport)  # type: ignore[arg-type]
        for _ in range(BACKLOG_FRAMES):
            line.say(b"x")
        before = transport.aborted
        line.say(b"x")
        assert (before, transport.aborted) == (0, 1)

    run(work())


def test_no_answer_is_a_lie_whatever_goes_wrong(note: Any) -> None:
    async def work() -> None:
        async with world(timeout_s=0.15, shown=1, quote=D(100_000)) as (server, client):
            everywhere = {fault.value: 60 for fault in Fault if fault != Fault.LATE_CANCEL}
            server.faults.rates(5, everywhere | {"cancel.rate_limit": 200})
            server.faults.delay_s = 0.3
            paper, chance = server.paper, np.random.default_rng(5)
            ends: Counter[str] = Counter()
            placed: list[str] = []
            for number in range(60):
                if number in (20, 40):
                    await asyncio.to_thread(Control(server.control).faults, down_ms=200)
                if number in (30, 50):
                    await asyncio.sleep(0.3)  # refused calls take no time: let it come back
                ids = [f"N{number}X{index}" for index in range(3)]
                orders = [buy(one, f"{9.9 - chance.integers(50) / 100:.2f}", "0.1") for one in ids]
                for outcome in await client.place(orders):
                    truth = await paper.order(outcome.client_id)
                    ends["place " + type(outcome).__name__] += 1
                    if isinstance(outcome, Accepted):
                        assert isinstance(truth, OrderReport) and truth.exchange_id == outcome.exchange_id
                        placed.append(outcome.client_id)
                    elif not isinstance(outcome, Unknown):
                        assert truth == Absent(outcome.client_id, final=True)
                if placed:
                    (done,) = await client.cancel([placed.pop(0)])
                    said = await paper.order(done.client_id)
                    assert isinstance(said, OrderReport)
                    ends["cancel " + type(done).__name__] += 1
                    if not isinstance(done, Unknown):
                        assert (said.status == "canceled") == isinstance(done, Accepted)
                await server.pass_moments(1)
            ways = ("Accepted", "Rejected", "NotSent", "Unknown")
            assert all(ends[f"{call} {way}"] for call in ("place", "cancel") for way in ways), ends
            for fault in (
                Fault.REQUEST_LOST,
                Fault.ANSWER_LOST,
                Fault.LATE_ANSWER,
                Fault.FUNDS,
                Fault.RATE_LIMIT,
            ):
                assert server.faults.struck[fault]
            note(f"remote exchange: {sum(ends.values())} commands under faults, {dict(ends)}, none untrue")

    run(work())


# -- the auditor


def rules(server: ExchangeServer) -> list[str]:
    return [violation.rule for violation in server.auditor.violations()]


def test_a_well_behaved_grid_is_not_accused() -> None:
    async def work() -> None:
        dip = tape_of(
            (Row.QUOTE, 999, 1_001, 300, 300), (Row.TRADE, 989, 90, -1, 1), *[(Row.QUOTE, 985, 987, 9, 9)] * 3
        )
        async with world(dip, cap=D("3.0")) as (server, client):
            await client.place([buy(name(cell, cell + 1), f"{9.9 - cell / 10:.2f}") for cell in range(3)])
            await server.pass_moments(1)  # cell 0 is bought
            await client.place([sell(name(0, 9, leg=1), "10.00")])
            await client.cancel([name(2, 3)])
            await client.place([buy(name(2, 10), "9.60")])
            await client.place([buy(name(2, 11, epoch=2), "9.60", "0.0")])  # refused: nothing lives of it
            await server.pass_moments(1)
            assert rules(server) == []
            assert server.auditor.exposure_max == D("3.0") and server.auditor.position == D("1.0")
            assert server.auditor.checks >= 7

    run(work())


def test_two_live_orders_of_one_leg_are_seen_once() -> None:
    async def work() -> None:
        async with world() as (server, client):
            first, second = name(5, 1), name(5, 2)
            await client.place([buy(first)])
            await client.place([sell(name(5, 3, leg=1)), buy(name(6, 4)), buy(name(5, 5, epoch=2))])
            assert rules(server) == []
            await client.place([buy(second, "9.80")])
            await client.place([buy(name(8, 9))])  # it lasts, and is not noted again
            (violation,) = server.auditor.violations()
            assert violation.rule == "two_live" and set(violation.client_ids) == {first, second}
            assert violation.message == "slot (epoch 1, cell 5) has 2 live opening orders"
            assert violation.time_ms == server.paper.now_ms
            await client.cancel([second])
            await client.place([buy(name(5, 20), "9.70")])
            assert rules(server) == ["two_live"] * 2

    run(work())


@pytest.mark.parametrize("side", [+1, -1])
def test_exposure_beyond_the_cap_is_seen(side: int) -> None:
    async def work() -> None:
        async with world(cap=D("3.0"), position=D(side), entry_price=D(10)) as (server, client):
            order = buy if side > 0 else sell
            other = sell if side > 0 else buy
            await client.place([order("A"), order("B"), other("C", quantity="4.0")])
            assert rules(server) == [] and server.auditor.exposure_max == D(3)
            await client.place([order("D", quantity="0.1")])
            (violation,) = server.auditor.violations()
            assert violation.rule == "exposure" and "exposure 3.1 is above the cap 3.0" in violation.message
            assert set(violation.client_ids) == {"A", "B", "D"}

    run(work())


def test_on_spot_the_exposure_is_what_was_traded() -> None:
    async def work() -> None:
        quiet = tape_of(*[(Row.QUOTE, 999, 1_001, 300, 300)] * 5, instrument=COIN)
        async with world(quiet, cap=D("2.0"), base=D(50)) as (server, client):
            await client.place([buy("A", "10.01", "1.5", post_only=False)])
            assert server.auditor.position == D("1.5") and rules(server) == []
            await client.place([buy("B", quantity="0.6")])
            assert rules(server) == ["exposure"]

    run(work())


def test_a_fill_between_two_checks_hides_nothing() -> None:
    async def work() -> None:
        falling = tape_of((Row.QUOTE, 999, 1_001, 300, 300), (Row.TRADE, 980, 90, -1, 1))
        async with world(falling, cap=D("1.0")) as (server, client):
            await client.place([buy("A")])
            await server.pass_moments(1)
            assert server.auditor.position == D("1.0") and rules(server) == []
            await client.place([buy("B", "9.70", "0.6")])
            assert rules(server) == ["exposure"]

    run(work())


def test_one_intention_that_is_carried_out_twice_is_seen() -> None:
    async def work() -> None:
        async with world() as (server, client):
            await client.place([buy(name(0, 1))])
            await client.place([buy(name(0, 1))])  # refused while it is open: no harm
            assert rules(server) == []
            await client.cancel([name(0, 1)])
            await client.place([buy(name(0, 1))])
            (violation,) = server.auditor.violations()
            assert violation.rule == "twice" and "taken 2 times" in violation.message

    run(work())


# -- a process of its own


ENGINE = """
import asyncio, sys
from test_exchange_server import buy, name
from remote_exchange import RemoteExchange

async def trade():
    client, number = RemoteExchange(sys.argv[1]), 0
    while True:
        number += 1
        await client.place([buy(name(cell, number * 10 + cell), "50000", "0.001") for cell in range(3)])
        print(number, flush=True)
        await client.cancel_all()

asyncio.run(trade())
"""


def test_the_exchange_outlives_a_killed_engine(tmp_path: Path, note: Any) -> None:
    ledger = tmp_path / "exchange.ledger"
    options = ("--demo", "3", "--ledger", ledger, "--cap", "0.003")
    with exchange_process(*options, "--pace", "5") as (address, control):
        here = str(Path(__file__).parent)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, str(Path(here).parent)])}
        command = [sys.executable, "-c", ENGINE, address]
        engine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert engine.stdout is not None
        for _ in range(20):
            assert engine.stdout.readline()
        os.kill(engine.pid, signal.SIGKILL)
        engine.communicate()
        audit = control.audit()
        assert audit.orders >= 60 and audit.calls["place"] >= 60 and audit.calls["cancel_all"] >= 19
        assert not audit.violations and audit.checks > 60
        assert Decimal(audit.exposure_max) == Decimal(audit.cap) == Decimal("0.003")
        earlier = control.advance(1)
        assert earlier.row > 0 and not earlier.ended

        async def look() -> list[Any]:
            client = RemoteExchange(address)
            await client.cancel_all()
            await client.place([buy(name(9, 10**6), "40000", "0.001")])
            async for moment in client.moments():
                assert moment.bid > 0
                break
            found = await client.open_orders()
            await client.close()
            return found

        (left,) = asyncio.run(look())
        orders = control.audit().orders
    with exchange_process(*options) as (address, control):  # its ledger goes on, its market too
        audit = control.audit()
        assert (audit.orders, audit.open_orders) == (orders, 1)
        assert control.advance(3, pause_ms=1).row > earlier.row
        found = asyncio.run(RemoteExchange(address).order(left.client_id))
        assert found == left
    note(
        f"an engine that was killed left {orders} orders, {audit.fills} fills and no violation at the exchange"
    )


def test_faults_are_set_from_another_process() -> None:
    with exchange_process("--demo", "1") as (address, control):
        control.advance(5)
        control.faults(seed=1, per_mille={f"{call}.answer_lost": 1_000 for call in COMMANDS})

        async def place() -> Any:
            client = RemoteExchange(address)
            return (await client.place([buy("A", "50000", "0.001")]))[0]

        assert isinstance(asyncio.run(place()), Unknown)
        assert control.audit().faults == {"answer_lost": 1} and control.audit().open_orders == 1
        control.faults(seed=2)
        assert isinstance(asyncio.run(place()), Rejected)
        audit = control.audit()
        assert audit.refused == {"DUPLICATE": 1} and audit.orders == 1
        assert Decimal(audit.cap) > 0  # of the configuration
