"""What every exchange promises, asked of each of them in the same words.

A bench is an exchange and the market behind it. What an exchange cannot do is declared in `lacks` and asserted to be
refused, never skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

from bybit_server import Bybit
from gridmm.ccxt_client import Keys
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
    StreamEvent,
)
from gridmm.exchange_live import LiveExchange, live_exchange
from gridmm.exchange_paper import PaperExchange
from gridmm.feed import Price
from gridmm.paper_account import Row
from gridmm.paper_market import PaperRules
from gridmm.run import wall_ms
from gridmm.units import Instrument
from gridmm.wire_server import Wire
from okx_server import Okx
from small_exchange import KEY, PASSWORD, SECRET, Small

D = Decimal
SPOT = Instrument("BTC/USDT", "spot", D("0.1"), D("0.001"), D("0.001"), D(5))
PERPETUAL = Instrument("BTC/USDT:USDT", "perpetual", D("0.1"), D("0.001"), D("0.001"), D(5))
RULES = {
    "spot": PaperRules(quote=D(10_000), base=D("0.1")),
    "perpetual": PaperRules(quote=D(10_000), leverage=10),
}


@dataclass
class Bench:
    """An exchange, and the hand that moves its market.

    Attributes:
        exchange: What keeps the promise.
        paper: The matching behind it.
        now_ms: The market's clock.
        server: What stands between the two, where anything does.
        began_ms: A moment before anything happened.
        heard: What its stream has said so far.
    """

    exchange: Exchange
    paper: PaperExchange
    now_ms: Callable[[], int]
    server: Wire | Small | None = None
    began_ms: int = 0
    lacks: frozenset[str] = frozenset()
    many: int = 25
    heard: list[StreamEvent] = field(default_factory=list)

    def quote(self, bid: str, ask: str) -> None:
        """Show a touch."""
        if self.server is not None:
            self.server.quote(D(bid), D(ask), D(1), D(1))
            return
        low, high = (self.paper.instrument.price_ticks(D(one)) for one in (bid, ask))
        self.paper.advance(Row.QUOTE, self.now_ms(), low, high, 1_000, 1_000)

    def trade(self, price: str, quantity: str) -> None:
        """Let others trade."""
        if self.server is not None:
            self.server.trade(D(price), D(quantity))
            return
        i = self.paper.instrument
        ticks, lots = i.price_ticks(D(price)), i.lots(D(quantity))
        self.paper.advance(Row.TRADE, self.now_ms(), ticks, lots)

    def fund(self, rate: str) -> None:
        """Settle funding."""
        if self.server is not None:
            self.server.fund(D(rate))
        else:
            self.paper.advance(Row.FUNDING, self.now_ms(), int(D(rate).scaleb(8)))

    def listens(self) -> bool:
        """Return whether the exchange would tell our stream of an order now; the one in this process always does."""
        if isinstance(self.server, Wire):
            return any(line.key for line in self.server.lines.open)
        if isinstance(self.server, Small):
            wanted = {"order", "execution"} if "bybit" in self.exchange.name else {"orders"}
            topics = {topic for line in self.server.lines if line.user for topic in line.topics}
            return all(any(topic.startswith(name) for topic in topics) for name in wanted)
        return True

    async def listen(self) -> None:
        """Take down what the stream says."""
        async for said in self.exchange.stream():
            self.heard.append(said)

    async def until(self, true: Callable[[], Any], seconds: float = 5.0) -> None:
        """Wait until something has been heard."""
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.005)


def _clock() -> Callable[[], int]:
    """Return a market clock that goes on by a millisecond whenever it is read."""
    now = [1_700_000_000_000]

    def read() -> int:
        now[0] += 1
        return now[0]

    return read


@asynccontextmanager
async def paper(instrument: Instrument) -> AsyncIterator[Bench]:
    """The paper exchange in this process."""
    exchange = PaperExchange(instrument, RULES[instrument.market])
    yield Bench(exchange, exchange, _clock())
    await exchange.close()


@asynccontextmanager
async def wire(instrument: Instrument) -> AsyncIterator[Bench]:
    """A real exchange's gateway, on our own server of that exchange's protocol."""
    async with Wire(instrument, RULES[instrument.market], synchronous="OFF") as server:
        server.quote(D("59999.9"), D("60000.1"), D(1), D(1))
        reached = live_exchange(
            "binance", instrument.symbol, wall_ms, Keys("demo", "demo-secret"),
            f"127.0.0.1:{server.port}", server.ca_file,
        )  # fmt: skip
        async with reached as exchange:
            yield Bench(exchange, server.paper, wall_ms, server, wall_ms() - 60_000)


def small(
    name: str, server: type[Small], instrument: Instrument, many: int
) -> AbstractAsyncContextManager[Bench]:
    """A real exchange's gateway, on a small server of that exchange's protocol."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Bench]:
        async with server(instrument, RULES[instrument.market]) as there:
            there.quote(D("59999.9"), D("60000.1"))
            keys, at = Keys(KEY, SECRET, PASSWORD), f"127.0.0.1:{there.port}"
            async with live_exchange(name, instrument.symbol, wall_ms, keys, at, there.ca_file) as exchange:
                lacks = frozenset({"a refusal of what would take"})
                yield Bench(exchange, there.paper, wall_ms, there, wall_ms() - 60_000, lacks, many)

    return opened()


OKX_SPOT = replace(SPOT, min_notional=D(0))
OKX_SWAP = replace(PERPETUAL, min_notional=D(0), multiplier=D("0.1"))
BENCHES: dict[str, Callable[[], AbstractAsyncContextManager[Bench]]] = {
    "paper, spot": lambda: paper(SPOT),
    "paper, perpetual": lambda: paper(PERPETUAL),
    "binance on the wire, spot": lambda: wire(SPOT),
    "binance on the wire, perpetual": lambda: wire(PERPETUAL),
    "okx on the wire, spot": lambda: small("okx", Okx, OKX_SPOT, 105),
    "okx on the wire, perpetual": lambda: small("okx", Okx, OKX_SWAP, 105),
    "bybit on the wire, spot": lambda: small("bybit", Bybit, SPOT, 55),
    "bybit on the wire, perpetual": lambda: small("bybit", Bybit, PERPETUAL, 55),
}
Check = Callable[[Bench], Awaitable[None]]


def promised(check: Check) -> Callable[[str], None]:
    """Ask every exchange for the same."""

    @pytest.mark.parametrize("name", BENCHES)
    def asked(name: str) -> None:
        async def work() -> None:
            async with BENCHES[name]() as bench:
                bench.quote("59999.9", "60000.1")
                listening = asyncio.create_task(bench.listen())
                try:
                    await bench.until(bench.listens, 20.0)
                    await asyncio.sleep(
                        0.02
                    )  # the stream in this process is asked for with the next turn of the loop
                    await check(bench)
                finally:
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)

        asyncio.run(work())

    asked.__name__, asked.__doc__ = check.__name__, check.__doc__
    return asked


def buy(client_id: str, price: str, quantity: str = "0.010", **flags: bool) -> OrderRequest:
    """A buy order."""
    return OrderRequest(client_id, +1, D(price), D(quantity), **flags)


def sell(client_id: str, price: str, quantity: str = "0.010", **flags: bool) -> OrderRequest:
    """A sell order."""
    return OrderRequest(client_id, -1, D(price), D(quantity), **flags)


def fills_of(bench: Bench) -> list[Fill]:
    """Return the trades that the stream has told of."""
    return [one for one in bench.heard if isinstance(one, Fill)]


def last_of(bench: Bench, client_id: str) -> OrderReport | None:
    """Return the newest report of an order that the stream has told of."""
    said = [one for one in bench.heard if isinstance(one, OrderReport) and one.client_id == client_id]
    return said[-1] if said else None


@promised
async def test_its_market_has_exact_rules(bench: Bench) -> None:
    (found,) = await bench.exchange.instruments()
    asked = bench.paper.instrument
    assert (found.symbol, found.market) == (asked.symbol, asked.market)
    assert (found.tick, found.lot, found.min_notional) == (asked.tick, asked.lot, asked.min_notional)


@promised
async def test_an_order_rests_under_our_name_at_our_price(bench: Bench) -> None:
    (outcome,) = await bench.exchange.place([buy("G1AAAA", "59990.3", "0.011")])
    assert isinstance(outcome, Accepted) and outcome.client_id == "G1AAAA"
    (resting,) = await bench.exchange.open_orders()
    assert (resting.client_id, resting.exchange_id) == ("G1AAAA", outcome.exchange_id)
    assert (resting.side, resting.price, resting.quantity) == (1, D("59990.3"), D("0.011"))
    found = await bench.exchange.order("G1AAAA")
    assert isinstance(found, OrderReport) and (found.status, found.cumulative) == ("open", D(0))
    await bench.until(lambda: last_of(bench, "G1AAAA"))


@promised
async def test_a_name_is_taken_once(bench: Bench) -> None:
    await bench.exchange.place([buy("G1AAAA", "59990.0")])
    (again,) = await bench.exchange.place([buy("G1AAAA", "59980.0")])
    assert isinstance(again, Rejected) and again.reason == RejectReason.DUPLICATE
    assert len(await bench.exchange.open_orders()) == 1


@promised
async def test_post_only_never_takes(bench: Bench) -> None:
    (outcome,) = await bench.exchange.place([buy("G1AAAA", "60000.1")])
    if "a refusal of what would take" in bench.lacks:
        assert isinstance(outcome, Accepted), "it is taken, and cancelled at once"
        await bench.until(lambda: (said := last_of(bench, "G1AAAA")) and said.status == "canceled")
    else:
        assert isinstance(outcome, Rejected) and outcome.reason == RejectReason.POST_ONLY
    assert await bench.exchange.open_orders() == []
    assert await bench.exchange.fills(bench.began_ms) == []


@promised
async def test_what_breaks_a_rule_is_refused_by_its_reason(bench: Bench) -> None:
    asked = [
        buy("G1TICK", "59990.05"),
        buy("G1LOTS", "59990.0", "0.0105"),
        buy("G1RICH", "59990.0", "90.000"),
    ]
    answers = [(await bench.exchange.place([one]))[0] for one in asked]
    reasons = [one.reason if isinstance(one, Rejected) else one for one in answers]
    assert reasons == [RejectReason.FILTER, RejectReason.FILTER, RejectReason.FUNDS]
    assert await bench.exchange.open_orders() == []


@promised
async def test_one_bad_order_among_several_spoils_no_other(bench: Bench) -> None:
    asked = [
        buy("G1AAAA", "59990.0"),
        buy("G1BBBB", "60000.1"),
        buy("G1CCCC", "59980.0"),
        sell("G1DDDD", "60010.0"),
    ]
    answers = await bench.exchange.place(asked)
    assert [one.client_id for one in answers] == [one.client_id for one in asked]
    bad = Accepted if "a refusal of what would take" in bench.lacks else Rejected
    assert [type(one) for one in answers] == [Accepted, bad, Accepted, Accepted]
    resting = {one.client_id for one in await bench.exchange.open_orders()}
    assert resting == {"G1AAAA", "G1CCCC", "G1DDDD"}


@promised
async def test_a_cancel_is_by_our_name_and_told(bench: Bench) -> None:
    await bench.exchange.place([buy("G1AAAA", "59990.0")])
    (outcome,) = await bench.exchange.cancel(["G1AAAA"])
    assert isinstance(outcome, Accepted) and outcome.client_id == "G1AAAA"
    await bench.until(lambda: (said := last_of(bench, "G1AAAA")) and said.status == "canceled")
    found = await bench.exchange.order("G1AAAA")
    assert isinstance(found, OrderReport) and (found.status, found.cumulative) == ("canceled", D(0))
    (again,) = await bench.exchange.cancel(["G1AAAA"])
    assert isinstance(again, Rejected) and again.reason == RejectReason.UNKNOWN_ORDER


@promised
async def test_an_order_that_never_was_is_absent(bench: Bench) -> None:
    assert await bench.exchange.order("G1NONE") == Absent("G1NONE", final=True)


@promised
async def test_every_part_of_a_fill_is_told_once_by_both_ways(bench: Bench) -> None:
    await bench.exchange.place([buy("G1AAAA", "59990.0")])
    bench.quote("59989.9", "59990.1")
    for part in ("0.002", "0.003", "0.004"):
        bench.trade("59990.0", part)
    await bench.until(lambda: len(fills_of(bench)) == 3)
    told, asked = fills_of(bench), await bench.exchange.fills(bench.began_ms)
    assert [one.quantity for one in told] == [D("0.002"), D("0.003"), D("0.004")]
    assert told == asked
    assert {(one.client_id, one.side, one.price, one.maker) for one in told} == {
        ("G1AAAA", 1, D("59990.0"), True)
    }
    assert len({one.trade_id for one in told}) == 3
    assert all(one.fee > 0 and one.fee_asset == "USDT" for one in told)
    await bench.exchange.cancel(["G1AAAA"])
    found = await bench.exchange.order("G1AAAA")
    assert isinstance(found, OrderReport)
    assert (found.status, found.cumulative, found.quantity) == ("canceled", D("0.009"), D("0.010"))


@promised
async def test_a_whole_fill_ends_the_order(bench: Bench) -> None:
    await bench.exchange.place([sell("G1AAAA", "60010.0")])
    bench.trade("60020.0", "0.500")
    await bench.until(lambda: (said := last_of(bench, "G1AAAA")) and said.status == "filled")
    assert sum(one.quantity for one in fills_of(bench)) == D("0.010")
    assert await bench.exchange.open_orders() == []


@promised
async def test_trades_are_told_from_a_moment_on(bench: Bench) -> None:
    await bench.exchange.place([buy("G1AAAA", "59990.0"), buy("G1BBBB", "59980.0")])
    bench.trade("59985.0", "0.500")
    await bench.until(lambda: len(fills_of(bench)) == 1)
    await asyncio.sleep(0.05)
    bench.trade("59975.0", "0.500")
    await bench.until(lambda: len(fills_of(bench)) == 2)
    first, second = fills_of(bench)
    assert [one.client_id for one in await bench.exchange.fills(second.time_ms)] == ["G1BBBB"]
    assert [one.client_id for one in await bench.exchange.fills(first.time_ms)] == ["G1AAAA", "G1BBBB"]


@promised
async def test_after_its_deadline_nothing_leaves(bench: Bench) -> None:
    (outcome,) = await bench.exchange.place([buy("G1AAAA", "59990.0")], deadline_ms=1)
    assert isinstance(outcome, NotSent)
    assert await bench.exchange.order("G1AAAA") == Absent("G1AAAA", final=True)


@promised
async def test_an_immediate_order_takes_and_leaves_nothing(bench: Bench) -> None:
    (outcome,) = await bench.exchange.place([sell("G1AAAA", "59999.9", post_only=False, immediate=True)])
    assert isinstance(outcome, Accepted)
    await bench.until(lambda: fills_of(bench))
    assert not fills_of(bench)[0].maker
    assert await bench.exchange.open_orders() == []


@promised
async def test_reduce_only_opens_nothing(bench: Bench) -> None:
    (outcome,) = await bench.exchange.place([sell("G1AAAA", "60010.0", reduce_only=True)])
    if bench.paper.instrument.market == "spot":
        assert isinstance(outcome, Accepted), "spot has no such thing, and ignores it"
        return
    assert isinstance(outcome, Rejected) and outcome.reason == RejectReason.REDUCE_ONLY


@promised
async def test_cancel_all_leaves_nothing(bench: Bench) -> None:
    await bench.exchange.place([buy(f"G1AAA{i}", f"599{i}0.0") for i in range(7)])
    assert len(await bench.exchange.open_orders()) == 7
    answers = await bench.exchange.cancel_all()
    assert answers and all(isinstance(one, Accepted) for one in answers)
    assert await bench.exchange.open_orders() == []


@promised
async def test_the_account_shows_what_orders_hold_back(bench: Bench) -> None:
    before = {one.asset: one for one in await bench.exchange.balances()}
    await bench.exchange.place([buy("G1AAAA", "59990.0", "0.100")])
    after = {one.asset: one for one in await bench.exchange.balances()}
    assert after["USDT"].total == before["USDT"].total
    assert after["USDT"].free < before["USDT"].free


@promised
async def test_a_perpetual_has_a_position_and_spot_has_none(bench: Bench) -> None:
    await bench.exchange.place([sell("G1AAAA", "60010.0")])
    bench.trade("60020.0", "0.500")
    await bench.until(lambda: fills_of(bench))
    found = [(one.quantity, one.entry_price) for one in await bench.exchange.positions()]
    assert found == ([] if bench.paper.instrument.market == "spot" else [(D("-0.010"), D("60010.0"))])


@promised
async def test_the_wallet_counts_no_gain_that_is_not_made(bench: Bench) -> None:
    if bench.paper.instrument.market == "spot":
        return
    await bench.exchange.place([sell("G1AAAA", "60010.0")])
    bench.trade("60020.0", "0.500")
    await bench.until(lambda: fills_of(bench))
    (fill,) = fills_of(bench)
    bench.quote("50000.0", "50000.1")
    held = {one.asset: one.total for one in await bench.exchange.balances()}
    assert held["USDT"] == RULES["perpetual"].quote - fill.fee


@promised
async def test_a_long_list_is_read_to_its_end(bench: Bench) -> None:
    rows = range(bench.many)
    asked = [buy(f"G1M{row:03d}", f"{59_900 - row}.0", "0.001") for row in rows]
    answers = await bench.exchange.place(asked)
    assert {type(one) for one in answers} == {Accepted}
    resting = await bench.exchange.open_orders()
    assert {one.client_id for one in resting} == {one.client_id for one in asked}
    bench.trade("59000.0", "100.000")
    await bench.until(lambda: len(fills_of(bench)) == bench.many)
    found = await bench.exchange.fills(bench.began_ms)
    assert [one.client_id for one in found] == [one.client_id for one in fills_of(bench)]
    assert len({one.trade_id for one in found}) == bench.many


@promised
async def test_funding_is_told_as_what_we_receive(bench: Bench) -> None:
    if bench.paper.instrument.market == "spot":
        assert await bench.exchange.fundings(bench.began_ms) == []
        return
    await bench.exchange.place([sell("G1AAAA", "60010.0")])
    bench.trade("60020.0", "0.500")
    bench.fund("0.0001")
    (paid,) = await bench.exchange.fundings(bench.began_ms)
    assert paid.amount > 0, "who is short receives a positive rate"
    assert [paid] == await bench.paper.fundings(0)


@promised
async def test_the_touch_and_the_market_come_as_a_stream(bench: Bench) -> None:
    exchange, heard = bench.exchange, list[Price]()
    if not isinstance(exchange, LiveExchange):
        return

    async def follow() -> None:
        async for one in exchange.prices(60_000, 5).stream():
            heard.append(one)

    following = asyncio.create_task(follow())
    try:
        await bench.until(lambda: heard)
        i = bench.paper.instrument
        assert (heard[0].bid, heard[0].ask) == (i.price_ticks(D("59999.9")), i.price_ticks(D("60000.1")))
        wanted = i.price_ticks(D("59000.0")), i.price_ticks(D("59000.1"))
        async with asyncio.timeout(10.0):
            while (heard[-1].bid, heard[-1].last) != wanted:  # what is said before we listen is not repeated
                bench.quote("58990.0", "58990.1")
                bench.quote("59000.0", "59000.1")
                bench.trade("59000.1", "0.100")
                await asyncio.sleep(0.2)
        assert await exchange.touch() == (i.price_ticks(D("59000.0")), i.price_ticks(D("59000.1")))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
