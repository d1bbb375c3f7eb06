"""Each way in which a stream or an answer of a real client fails, and what the gateway makes of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal, getcontext
from functools import partial
from typing import Any

import pytest

from gridmm import exchange_live, live_streams
from gridmm.ccxt_client import Keys
from gridmm.errors import ExchangeUnreachable, UnsafeAccount
from gridmm.exchange import (
    Absent,
    Accepted,
    Fill,
    NotSent,
    OrderReport,
    OrderRequest,
    Rejected,
    RejectReason,
    Unknown,
)
from gridmm.exchange_live import LiveExchange, live_exchange
from gridmm.feed import Price
from gridmm.live_desk import refusals
from gridmm.paper_market import PaperRules
from gridmm.run import wall_ms
from gridmm.units import Instrument
from gridmm.wire_server import Wire

D = Decimal
SPOT = Instrument("BTC/USDT", "spot", D("0.1"), D("0.001"), D("0.001"), D(5))
PERPETUAL = Instrument("BTC/USDT:USDT", "perpetual", D("0.1"), D("0.001"), D("0.001"), D(5))
KINDS = pytest.mark.parametrize("instrument", [SPOT, PERPETUAL], ids=["spot", "perpetual"])


@dataclass
class Bench:
    """A gateway, the server behind it, and what its streams have said; a lost stream is opened again, as the engine does."""

    exchange: LiveExchange
    wire: Wire
    heard: list[Any] = field(default_factory=list)
    prices: list[Price] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    asked: int = 0

    async def listen(self) -> None:
        """Take down what is said of our orders."""
        while True:
            try:
                async for one in self.exchange.stream():
                    self.heard.append(one)
            except ExchangeUnreachable as error:
                self.lost.append(str(error))
            await asyncio.sleep(0.05)

    async def watch(self) -> None:
        """Take down prices, from streams of one source as the engine does."""
        source = self.exchange.prices(60_000, 3)
        while True:
            try:
                async for one in source.stream():
                    self.prices.append(one)
            except ExchangeUnreachable as error:
                self.lost.append(str(error))
            await asyncio.sleep(0.05)

    def fills(self) -> list[Fill]:
        """Return the trades that were heard of."""
        return [one for one in self.heard if isinstance(one, Fill)]

    def status(self, client_id: str) -> str:
        """Return what was heard last of an order."""
        said = [one for one in self.heard if isinstance(one, OrderReport) and one.client_id == client_id]
        return said[-1].status if said else ""

    async def until(self, true: Callable[[], Any], seconds: float = 15.0) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.01)

    async def opened(self) -> None:
        """Wait until the user stream hears."""
        for _ in range(100):
            self.asked += 1
            name = f"OPEN{self.asked}"
            await self.exchange.place([order(name, "50000.0")])
            with suppress(TimeoutError):
                await self.until(partial(self.status, name), 0.3)
            await self.exchange.cancel([name])
            if self.status(name):
                return
        raise AssertionError(f"the user stream never heard anything: {self.lost}")


@asynccontextmanager
async def bench(instrument: Instrument, *, secret: str = "demo-secret") -> AsyncIterator[Bench]:
    rules = PaperRules(quote=D(20_000), base=D("0.2") if instrument.market == "spot" else D(0))
    async with Wire(instrument, rules, synchronous="OFF") as wire:
        wire.quote(D("59999.9"), D("60000.1"), D(1), D(1))
        keys = Keys("demo", "demo-secret")
        reached = live_exchange(
            "binance", instrument.symbol, wall_ms, keys, f"127.0.0.1:{wire.port}", wire.ca_file
        )
        async with reached as exchange:
            exchange.client.secret = secret
            yield Bench(exchange, wire)


def run(instrument: Instrument, test: Callable[[Bench], Awaitable[None]], *, listens: bool = True) -> None:
    """Run a test on a gateway that listens."""

    async def main() -> None:
        async with bench(instrument) as made:
            tasks = [asyncio.create_task(made.listen())] if listens else []
            try:
                if listens:
                    await made.opened()
                await test(made)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def order(client_id: str, price: str, quantity: str = "0.010", side: int = 1, **flags: bool) -> OrderRequest:
    return OrderRequest(client_id, side, D(price), D(quantity), **flags)


# -- streams


@KINDS
def test_partial_fills_within_one_turn_of_the_loop_are_all_heard(instrument: Instrument) -> None:
    async def test(b: Bench) -> None:
        await b.exchange.place([order("G1AAAA", "59990.0")])
        b.wire.quote(D("59989.9"), D("59990.1"), D(1), D(1))
        for _ in range(5):
            b.wire.trade(D("59990.0"), D("0.002"))
        await b.until(lambda: b.status("G1AAAA") == "filled")
        assert [one.quantity for one in b.fills()] == [D("0.002")] * 5
        assert not b.lost

    run(instrument, test)


@KINDS
def test_a_frame_that_cannot_be_read_ends_our_own_stream_and_it_is_opened_again(
    instrument: Instrument,
) -> None:
    async def test(b: Bench) -> None:
        b.wire.faults.once(account__bad_frame=1)
        await b.exchange.place([order("G1AAAA", "59990.0")])
        await b.until(lambda: b.lost)
        assert "a frame could not be read" in b.lost[0]
        await b.opened()
        assert b.exchange.health.bad_frames == 1
        await b.exchange.cancel(["G1AAAA"])
        await b.until(lambda: b.status("G1AAAA") == "canceled")

    run(instrument, test)


@KINDS
def test_a_frame_of_the_market_that_cannot_be_read_costs_nothing(instrument: Instrument) -> None:
    async def test(b: Bench) -> None:
        watching = asyncio.create_task(b.watch())
        await b.until(lambda: b.prices)
        await asyncio.sleep(0.5)
        b.wire.faults.once(prices__bad_frame=1)
        for cents in range(5):
            b.wire.quote(D("59998.0") - cents, D("60001.0"), D(1), D(1))
            await asyncio.sleep(0.05)
        await b.until(lambda: b.prices[-1].bid == 599_940)
        assert b.exchange.health.bad_frames == 1 and not b.lost
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    run(instrument, test, listens=False)


@KINDS
def test_what_happened_while_the_stream_was_cut_is_found_by_asking(instrument: Instrument) -> None:
    async def test(b: Bench) -> None:
        since_ms = wall_ms() - 60_000
        await b.exchange.place([order("G1AAAA", "59990.0")])
        b.wire.quote(D("59989.9"), D("59990.1"), D(1), D(1))
        b.wire.faults.once(account__cut=1)
        b.wire.trade(D("59990.0"), D("0.004"))
        await b.until(lambda: b.lost)
        b.wire.trade(D("59990.0"), D("0.006"))
        await b.opened()
        asked = await b.exchange.fills(since_ms)
        assert sum(one.quantity for one in asked if one.client_id == "G1AAAA") == D("0.010")
        found = await b.exchange.order("G1AAAA")
        assert isinstance(found, OrderReport) and found.status == "filled"

    run(instrument, test)


def test_a_key_that_expired_ends_the_stream_and_the_next_has_a_new_one() -> None:
    async def test(b: Bench) -> None:
        b.wire.keys.cut_short()
        await b.until(lambda: b.lost)
        assert "the key of the user stream has expired" in b.lost[0]
        await b.opened()

    run(PERPETUAL, test)


def test_the_key_is_renewed_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_live, "KEEP_S", 0.2)

    async def test(b: Bench) -> None:
        renewed: list[float] = []
        ask = b.exchange.client.fapiPrivatePutListenKey

        async def counted(*given: Any) -> Any:
            renewed.append(asyncio.get_running_loop().time())
            return await ask(*given)

        b.exchange.client.fapiPrivatePutListenKey = counted
        await b.until(lambda: len(renewed) >= 3)
        assert not b.lost

    run(PERPETUAL, test)


@KINDS
def test_a_socket_from_which_nothing_comes_is_ended(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_live, "DEAD_S", 1.5)

    async def test(b: Bench) -> None:
        for socket in b.exchange.client.clients.values():
            if b.exchange.client.is_private(socket):
                socket.handle_message = lambda message: None  # the wire is cut without a word
        await b.until(lambda: b.lost)
        assert "not even the answer to a ping" in b.lost[0]
        monkeypatch.setattr(exchange_live, "DEAD_S", 60.0)
        await b.opened()

    run(instrument, test)


def test_prices_that_stand_still_are_asked_for_and_a_dead_stream_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_streams, "SILENT_S", 0.5)

    async def test(b: Bench) -> None:
        watching = asyncio.create_task(b.watch())
        await b.until(lambda: b.prices)
        await asyncio.sleep(1.5)
        assert not b.lost, "nothing moved: the stream is fine"
        for socket in b.exchange.client.clients.values():
            socket.handle_message = lambda message: None
        b.wire.quote(D("59000.0"), D("59001.0"), D(1), D(1))
        await b.until(lambda: b.lost)
        assert "the price has moved meanwhile" in b.lost[0]
        await b.until(lambda: b.prices[-1].bid == 590_000)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    run(SPOT, test, listens=False)


@KINDS
def test_prices_come_back_after_a_cut_although_the_market_has_moved(instrument: Instrument) -> None:
    async def test(b: Bench) -> None:
        async def moving() -> None:
            for step in itertools.count():
                b.wire.quote(D(50_000 + step), D(50_001 + step), D(1), D(1))
                await asyncio.sleep(0.02)

        tasks = [asyncio.create_task(work) for work in (moving(), b.watch())]
        await b.until(lambda: b.prices)
        b.wire.faults.once(prices__cut=1)
        await b.until(lambda: b.lost)
        seen = len(b.prices)
        await b.until(lambda: len(b.prices) > seen + 20)
        assert len(b.lost) == 1, b.lost
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(instrument, test, listens=False)


def test_a_secret_that_is_wrong_is_said_and_not_a_key_error() -> None:
    async def main() -> None:
        async with bench(SPOT, secret="another") as b:
            with pytest.raises(UnsafeAccount, match=r"signature is wrong.*Whoever holds the key must act"):
                await b.exchange.balances()
            with pytest.raises(ExchangeUnreachable, match="our orders was lost"):
                async for _ in b.exchange.stream():
                    pass

    asyncio.run(main())


# -- answers


@KINDS
@pytest.mark.parametrize("fault", ["drop_after", "timeout_after", "unknown_after", "html_after"])
def test_an_order_whose_answer_was_lost_is_unknown_and_found_by_its_name(
    instrument: Instrument, fault: str
) -> None:
    async def test(b: Bench) -> None:
        b.wire.faults.once(**{f"place__{fault}": 1})
        (outcome,) = await b.exchange.place([order("G1AAAA", "59990.0")])
        assert isinstance(outcome, Unknown), outcome
        found = await b.exchange.order("G1AAAA")
        assert isinstance(found, OrderReport) and found.status == "open"

    run(instrument, test, listens=False)


@KINDS
@pytest.mark.parametrize("fault", ["drop_before", "timeout_before", "unknown_before", "html_before"])
def test_an_order_that_was_lost_on_its_way_is_unknown_and_absent(instrument: Instrument, fault: str) -> None:
    async def test(b: Bench) -> None:
        b.wire.faults.once(**{f"place__{fault}": 1})
        (outcome,) = await b.exchange.place([order("G1AAAA", "59990.0")])
        assert isinstance(outcome, Unknown), outcome
        assert await b.exchange.order("G1AAAA") == Absent("G1AAAA", final=True)

    run(instrument, test, listens=False)


def test_an_exchange_that_is_not_there_was_sent_nothing() -> None:
    async def main() -> None:
        async with bench(SPOT) as b:
            await b.wire.__aexit__(None, None, None)
            (outcome,) = await b.exchange.place([order("G1AAAA", "59990.0")])
            assert isinstance(outcome, NotSent), outcome
            with pytest.raises(ExchangeUnreachable):
                await b.exchange.open_orders()

    asyncio.run(main())


@KINDS
def test_too_many_requests_are_followed_by_silence(instrument: Instrument) -> None:
    async def test(b: Bench) -> None:
        b.wire.faults.once(place__rate_limit=1)
        (outcome,) = await b.exchange.place([order("G1AAAA", "59990.0")])
        assert isinstance(outcome, Rejected) and outcome.reason == RejectReason.RATE_LIMIT
        limiter = b.exchange.limiter
        assert limiter.limits.metrics(limiter.clock()).stopped_ms > 0
        late = await b.exchange.place([order("G1BBBB", "59990.0")], wall_ms() + 200)
        assert isinstance(late[0], NotSent) and limiter.limits.metrics(limiter.clock()).late == 1

    run(instrument, test, listens=False)


@KINDS
def test_a_cancel_whose_answer_was_lost_ends_as_a_question(instrument: Instrument) -> None:
    async def test(b: Bench) -> None:
        await b.exchange.place([order("G1AAAA", "59990.0")])
        b.wire.faults.once(cancel__drop_after=1)
        (outcome,) = await b.exchange.cancel(["G1AAAA"])
        assert not isinstance(outcome, Accepted | NotSent), outcome
        found = await b.exchange.order("G1AAAA")
        assert isinstance(found, OrderReport) and found.status == "canceled"

    run(instrument, test, listens=False)


def test_refusals_of_one_call_are_matched_by_name() -> None:
    async def test(b: Bench) -> None:
        asked = [order("G1AAAA", "59990.0"), order("G1BBBB", "60000.1"), order("G1CCCC", "59980.0")]
        answers = await b.exchange.place(asked)
        assert [type(one) for one in answers] == [Accepted, Rejected, Accepted]
        two = [order("G2AAAA", "60000.1"), order("G2BBBB", "59970.0", "90.000"), order("G2CCCC", "59960.0")]
        answers = await b.exchange.place(two)
        assert [type(one) for one in answers] == [Unknown, Unknown, Accepted], "two reasons, and no names"

    run(PERPETUAL, test, listens=False)


def test_the_dead_man_switch_fires_when_nobody_speaks_and_not_before() -> None:
    async def test(b: Bench) -> None:
        said: list[str] = []
        await b.exchange.place([order("G1AAAA", "59990.0")])
        alive = asyncio.create_task(b.exchange.stay_alive(1_000, said.append))
        await asyncio.sleep(2.5)
        assert len(await b.exchange.open_orders()) == 1
        alive.cancel()
        await b.until(lambda: b.status("G1AAAA") == "canceled")
        await b.exchange.place([order("G1BBBB", "59990.0")])
        alive = asyncio.create_task(b.exchange.stay_alive(1_000, said.append))
        await asyncio.sleep(0.3)
        alive.cancel()
        await b.exchange.disarm()
        await asyncio.sleep(2.0)
        assert len(await b.exchange.open_orders()) == 1, "somebody decided that it stays"
        assert said == []

    run(PERPETUAL, test)


@KINDS
def test_the_client_leaves_our_arithmetic_alone(instrument: Instrument) -> None:
    """To write a price ccxt changes the rounding and the traps of the context that it finds."""

    async def test(b: Bench) -> None:
        before = getcontext().copy()
        await b.exchange.place([order("G1AAAA", "59990.0")])
        after = getcontext()
        assert (after.rounding, after.traps, after.prec) == (before.rounding, before.traps, before.prec)
        assert str(D("0.125").quantize(D("0.01"))) == "0.12"

    run(instrument, test)


@KINDS
def test_a_start_asks_again_where_an_answer_was_lost(instrument: Instrument) -> None:
    async def work() -> None:
        async with Wire(instrument, PaperRules(quote=D(10_000)), synchronous="OFF") as server:
            server.quote(D("59999.9"), D("60000.1"), D(1), D(1))
            server.faults.once(**{"query.drop_before": 2})
            keys, at = Keys("demo", "demo-secret"), f"127.0.0.1:{server.port}"
            async with live_exchange(
                "binance", instrument.symbol, wall_ms, keys, at, server.ca_file
            ) as exchange:
                assert exchange.instrument.tick == instrument.tick
            assert server.faults.struck["drop_before"] == 2

    asyncio.run(work())


@pytest.mark.parametrize(
    "body", ["", "<html>", "7", "[]", '{"data": 7}', '{"data": [7]}', '{"data": [{}]}', "[" * 100_000]
)
def test_an_answer_that_says_nothing_of_single_orders_says_nothing(body: str) -> None:
    assert refusals(body) == []
