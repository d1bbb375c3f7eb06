"""Bitget and Gate: what leaves us, and what we make of what comes back, by answers and frames that were written by hand.

They are after the exchanges' own descriptions, read 2026-11. Nothing of this shows that a grid can trade there: that is
what experimental means.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from gridmm.ccxt_client import Keys
from gridmm.cli import cli
from gridmm.errors import ExchangeUnreachable, Refused
from gridmm.exchange import Absent, Accepted, Balance, Fill, OrderReport, OrderRequest, Rejected, RejectReason
from gridmm.exchange_live import LiveExchange, live_exchange
from gridmm.run import wall_ms
from small_exchange import Line, Served, now_ms

D = Decimal
AT = 1_760_000_000_000
Answer = Any


@dataclass
class Said:
    """One request that came in."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    head: Mapping[str, str]


class Canned(Served):
    """Answers from a table, and notes what was asked."""

    def __init__(self, hosts: tuple[str, ...], answers: Mapping[str, Answer], missing: Answer) -> None:
        super().__init__()
        self.hosts, self.answers, self.missing = hosts, dict(answers), missing
        self.said: list[Said] = []
        self.frames: list[Any] = []

    async def rest(self, request: web.Request) -> web.Response:
        """Answer a request."""
        text = await request.text()
        body = json.loads(text) if text else None
        self.said.append(Said(request.method, request.path, dict(request.query), body, dict(request.headers)))
        found = self.answers.get(f"{request.method} {request.path}")
        if found is None:
            return web.json_response(self.missing, status=400)
        status, answer = found if isinstance(found, tuple) else (200, found)
        return web.json_response(answer(self.said[-1]) if callable(answer) else answer, status=status)

    async def heard(self, line: Line, text: str) -> None:
        """Take a frame, and say what fits it."""
        if text == "ping":
            await line.say("pong")
            return
        asked = json.loads(text)
        self.frames.append(asked)
        if asked.get("op") == "login":
            await line.say({"event": "login", "code": "0"})
        line.topics[str(asked.get("channel") or asked["args"][0].get("channel"))] = asked

    def last(self, path: str) -> Said:
        """Return the last request to a path."""
        return [one for one in self.said if one.path == path][-1]

    async def tell(self, topic: str, said: Any) -> None:
        """Say a frame to whoever has subscribed to a topic."""
        async with asyncio.timeout(5.0):
            while not (found := [line for line in self.lines if topic in line.topics]):
                await asyncio.sleep(0.01)
        await found[0].say(said)


@dataclass
class Case:
    """An exchange and a kind of market, as hand-made answers."""

    name: str
    symbol: str
    hosts: tuple[str, ...]
    missing: Answer
    answers: dict[str, Answer]
    place: str  # path of one order, of several, of a cancel and of a question
    batch: str
    cancel: str
    order: str
    placed: dict[str, Any]  # what must leave for one buy order
    batch_said: Answer
    row: dict[str, Any]  # an open order, partly filled
    fill: dict[str, Any]  # its trade
    refused: Answer
    told: Callable[[dict[str, Any], dict[str, Any]], list[tuple[str, Any]]]
    reduced: dict[str, Any] = field(default_factory=dict)


def ok(data: Any) -> Any:
    """Wrap an answer as Bitget does."""
    return {"code": "00000", "msg": "success", "requestTime": AT, "data": data}


def bitget(kind: str) -> Case:
    """Return Bitget."""
    spot = kind == "spot"
    base = "/api/v2/spot" if spot else "/api/v2/mix"
    trade = f"{base}/{'trade' if spot else 'order'}"
    market: dict[str, Any] = {"symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "minTradeUSDT": "5", "makerFeeRate": "0.0002", "takerFeeRate": "0.0006"}  # fmt: skip
    market |= (
        {"pricePrecision": "1", "quantityPrecision": "3", "status": "online", "minTradeAmount": "0"}
        if spot
        else {"symbolType": "perpetual", "supportMarginCoins": ["USDT"], "pricePlace": "1", "volumePlace": "3", "priceEndStep": "1",
              "sizeMultiplier": "0.001", "minTradeNum": "0.001", "symbolStatus": "normal", "minLever": "1", "maxLever": "125"}
    )  # fmt: skip
    row = {"symbol": "BTCUSDT", "orderId": "7", "clientOid": "G1AAAA", "price": "59990.0", "size": "0.010", "side": "buy",
           "orderType": "limit", "force": "post_only", "baseVolume": "0.004", "status": "partially_filled", "state": "partially_filled",
           "cTime": str(AT), "uTime": str(AT)}  # fmt: skip
    fee = {"feeCoin": "USDT", "totalFee": "-0.048", "deduction": "no"}
    fill: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "tradeId": "9",
        "orderId": "7",
        "side": "buy",
        "cTime": str(AT),
        "tradeScope": "maker",
    }
    fill |= (
        {"priceAvg": "59990.0", "size": "0.004", "feeDetail": fee}
        if spot
        else {"price": "59990.0", "baseVolume": "0.004", "feeDetail": [fee], "posMode": "one_way_mode"}
    )
    if not spot:
        row |= {"posMode": "one_way_mode", "posSide": "net", "reduceOnly": "NO"}
    symbols = f"GET {base}/{'public/symbols' if spot else 'market/contracts'}"
    listed: Any = [row] if spot else {"entrustedList": [row]}
    answers: dict[str, Answer] = {
        "GET /api/v2/public/time": ok({"serverTime": str(now_ms())}),
        symbols: lambda said: ok(
            [market] if said.query.get("productType", "USDT-FUTURES") == "USDT-FUTURES" else []
        ),
        "GET /api/v2/margin/currencies": ok([]),
        "GET /api/v2/common/trade-rate": ok({"makerFeeRate": "0.0003", "takerFeeRate": "0.0007"}),
        f"POST {trade}/place-order": ok({"orderId": "7", "clientOid": "G1AAAA"}),
        f"POST {trade}/cancel-order": ok({"orderId": "7", "clientOid": "G1AAAA"}),
        f"GET {trade}/{'orderInfo' if spot else 'detail'}": ok([row] if spot else row),
        f"GET {trade}/{'unfilled-orders' if spot else 'orders-pending'}": ok(listed),
        f"GET {trade}/fills": ok([fill] if spot else {"fillList": [fill]}),
    }
    both = {"successList": [{"orderId": "8", "clientOid": "G1BBBB"}],
            "failureList": [{"orderId": "", "clientOid": "G1AAAA", "errorCode": "43012", "errorMsg": "Insufficient balance"}]}  # fmt: skip
    placed = {"symbol": "BTCUSDT", "side": "buy", "orderType": "limit", "price": "59990", "size": "0.01", "force": "post_only", "clientOid": "G1AAAA"}  # fmt: skip
    if not spot:
        placed |= {"productType": "USDT-FUTURES", "marginCoin": "USDT", "marginMode": "crossed"}

    def told(order: dict[str, Any], trade: dict[str, Any]) -> list[tuple[str, Any]]:
        about = {"instType": "SPOT" if spot else "USDT-FUTURES", "instId": "BTCUSDT" if spot else "default"}
        said = order | {"instId": "BTCUSDT", "accBaseVolume": "0.004", "newSize": "0.010"}
        said.pop("baseVolume")
        of = trade | {"feeDetail": [fee], "uTime": str(AT)}
        return [
            ("orders", {"action": "snapshot", "arg": about | {"channel": "orders"}, "data": [said]}),
            (
                "fill",
                {"action": "snapshot", "arg": about | {"channel": "fill", "instId": "default"}, "data": [of]},
            ),
        ]

    return Case(
        "bitget", "BTC/USDT" if spot else "BTC/USDT:USDT", ("bitget.com", "*.bitget.com"),
        {"code": "40404", "msg": "Request URL NOT FOUND"}, answers,
        f"{trade}/place-order", f"{trade}/{'batch-orders' if spot else 'batch-place-order'}", f"{trade}/cancel-order",
        f"{trade}/{'orderInfo' if spot else 'detail'}", placed, ok(both), row, fill,
        {"code": "43012", "msg": "Insufficient balance", "requestTime": AT, "data": None}, told,
        {} if spot else {"reduceOnly": "YES"},
    )  # fmt: skip


def gate() -> Case:
    """Return Gate, spot."""
    pair = {"id": "BTC_USDT", "base": "BTC", "quote": "USDT", "fee": "0.2", "min_base_amount": "0.001", "min_quote_amount": "3",
            "amount_precision": 3, "precision": 1, "trade_status": "tradable"}  # fmt: skip
    row = {"id": "7", "text": "t-G1AAAA", "currency_pair": "BTC_USDT", "status": "open", "type": "limit", "account": "spot", "side": "buy",
           "amount": "0.010", "price": "59990.0", "time_in_force": "poc", "left": "0.006", "filled_total": "239.96",
           "create_time_ms": str(AT), "update_time_ms": str(AT)}  # fmt: skip
    fill = {"id": "9", "create_time_ms": f"{AT}.5", "currency_pair": "BTC_USDT", "side": "buy", "role": "maker", "amount": "0.004",
            "price": "59990.0", "order_id": "7", "fee": "0.048", "fee_currency": "USDT", "gt_fee": "0", "point_fee": "0", "text": "t-G1AAAA"}  # fmt: skip
    api = "/api/v4"
    answers: dict[str, Answer] = {
        f"GET {api}/spot/time": {"server_time": now_ms()},
        f"GET {api}/spot/currency_pairs": [pair],
        f"GET {api}/margin/currency_pairs": [],
        f"GET {api}/account/detail": {"user_id": 1, "key": {"mode": 1}},
        f"GET {api}/wallet/fee": {"maker_fee": "0.0003", "taker_fee": "0.0007", "gt_discount": False},
        f"POST {api}/spot/orders": row,
        f"DELETE {api}/spot/orders/t-G1AAAA": row | {"status": "cancelled"},
        f"GET {api}/spot/orders/t-G1AAAA": row,
        f"GET {api}/spot/orders/7": row,
        f"GET {api}/spot/open_orders": [{"currency_pair": "BTC_USDT", "total": 1, "orders": [row]}],
        f"GET {api}/spot/my_trades": [fill],
    }
    batch = [
        {
            "succeeded": False,
            "text": "t-G1AAAA",
            "label": "BALANCE_NOT_ENOUGH",
            "message": "Not enough balance",
        },
        row | {"succeeded": True, "id": "8", "text": "t-G1BBBB"},
    ]
    placed = {"currency_pair": "BTC_USDT", "side": "buy", "type": "limit", "price": "59990", "amount": "0.01", "time_in_force": "poc", "text": "t-G1AAAA"}  # fmt: skip

    def told(order: dict[str, Any], trade: dict[str, Any]) -> list[tuple[str, Any]]:
        same = {"time": AT // 1_000, "event": "update"}
        return [
            ("spot.orders", same | {"channel": "spot.orders", "result": [order | {"event": "update"}]}),
            ("spot.usertrades", same | {"channel": "spot.usertrades", "result": [trade]}),
        ]

    return Case(
        "gate", "BTC/USDT", ("gateio.ws", "*.gateio.ws"), {"label": "ORDER_NOT_FOUND", "message": "Order not found"}, answers,
        f"{api}/spot/orders", f"{api}/spot/batch_orders", f"{api}/spot/orders/t-G1AAAA", f"{api}/spot/orders/t-G1AAAA", placed, batch,
        row, fill, {"label": "BALANCE_NOT_ENOUGH", "message": "Not enough balance"}, told,
    )  # fmt: skip


CASES = {
    "bitget, spot": lambda: bitget("spot"),
    "bitget, perpetual": lambda: bitget("perpetual"),
    "gate, spot": gate,
}
cases = pytest.mark.parametrize("name", CASES)
BUY = OrderRequest("G1AAAA", 1, D("59990.0"), D("0.010"))


@asynccontextmanager
async def opened(name: str) -> AsyncIterator[tuple[Case, Canned, LiveExchange]]:
    """Reach an exchange of hand-made answers."""
    case = CASES[name]()
    async with Canned(case.hosts, case.answers, case.missing) as there:
        keys, at = Keys("demo", "demo-secret", "demo-password"), f"127.0.0.1:{there.port}"
        async with live_exchange(case.name, case.symbol, wall_ms, keys, at, there.ca_file) as exchange:
            yield case, there, exchange


@cases
def test_its_rules_and_the_account_s_fees_are_exact(name: str) -> None:
    async def work() -> None:
        async with opened(name) as (_, _, exchange):
            i = exchange.instrument
            assert (i.tick, i.lot, i.maker_fee_ppm, i.taker_fee_ppm) == (D("0.1"), D("0.001"), 300, 700)
            assert exchange.venue.experimental and not exchange.has_dead_man

    asyncio.run(work())


@cases
def test_an_order_leaves_as_it_is_meant(name: str) -> None:
    async def work() -> None:
        async with opened(name) as (case, there, exchange):
            assert await exchange.place([BUY]) == [Accepted("G1AAAA", "7")]
            body = there.last(case.place).body
            assert {key: str(value) for key, value in body.items() if key in case.placed} == case.placed
            if case.reduced:
                await exchange.place([OrderRequest("G1AAAA", -1, D("60010.0"), D("0.010"), reduce_only=True)])
                assert there.last(case.place).body.items() >= case.reduced.items()
            assert await exchange.cancel(["G1AAAA"]) == [Accepted("G1AAAA", "7")]

    asyncio.run(work())


@cases
def test_a_refusal_has_its_reason_and_is_matched_by_name(name: str) -> None:
    async def work() -> None:
        async with opened(name) as (case, there, exchange):
            there.answers[f"POST {case.place}"] = (400, case.refused)
            (one,) = await exchange.place([BUY])
            assert isinstance(one, Rejected) and one.reason == RejectReason.FUNDS
            there.answers[f"POST {case.batch}"] = case.batch_said
            second = OrderRequest("G1BBBB", 1, D("59980.0"), D("0.010"))
            first, other = await exchange.place([BUY, second])
            assert isinstance(first, Rejected) and first.reason == RejectReason.FUNDS
            assert other == Accepted("G1BBBB", "8")

    asyncio.run(work())


@cases
def test_what_it_knows_of_an_order_is_read(name: str) -> None:
    async def work() -> None:
        async with opened(name) as (case, there, exchange):
            found = await exchange.order("G1AAAA")
            assert isinstance(found, OrderReport)
            assert (found.client_id, found.exchange_id, found.side) == ("G1AAAA", "7", 1)
            assert (found.price, found.quantity, found.cumulative, found.status) == (
                D("59990.0"),
                D("0.010"),
                D("0.004"),
                "open",
            )
            assert [one.client_id for one in await exchange.open_orders()] == ["G1AAAA"]
            (fill,) = await recent(case, exchange)
            assert (fill.trade_id, fill.client_id, fill.price, fill.quantity) == (
                "9",
                "G1AAAA",
                D("59990.0"),
                D("0.004"),
            )
            assert (fill.fee, fill.fee_asset, fill.maker) == (D("0.048"), "USDT", True)
            del there.answers[f"GET {case.order}"]
            if case.name == "bitget":
                there.missing = {"code": "43001", "msg": "The order does not exist"}
            assert await exchange.order("G1AAAA") == Absent("G1AAAA", final=True)

    asyncio.run(work())


async def recent(case: Case, exchange: LiveExchange) -> list[Fill]:
    """Return trades, of which the one there is was a moment ago."""
    at_ms = str(now_ms() - 1_000)
    case.fill |= {"cTime": at_ms} if case.name == "bitget" else {"create_time_ms": f"{at_ms}.5"}
    return await exchange.fills(now_ms() - 60_000)


@cases
def test_its_frames_are_read(name: str) -> None:
    async def work() -> None:
        async with opened(name) as (case, there, exchange):
            heard: list[Any] = []

            async def listen() -> None:
                async for one in exchange.stream():
                    heard.append(one)

            listening = asyncio.create_task(listen())
            for topic, frame in case.told(case.row, case.fill):
                await there.tell(topic, frame)
            async with asyncio.timeout(5.0):
                while len(heard) < 2:
                    await asyncio.sleep(0.01)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            order = next(one for one in heard if isinstance(one, OrderReport))
            fill = next(one for one in heard if isinstance(one, Fill))
            assert (order.client_id, order.cumulative, order.quantity, order.status) == (
                "G1AAAA",
                D("0.004"),
                D("0.010"),
                "open",
            )
            assert (fill.client_id, fill.quantity, fill.fee, fill.fee_asset) == (
                "G1AAAA",
                D("0.004"),
                D("0.048"),
                "USDT",
            )

    asyncio.run(work())


def test_the_wallet_of_a_bitget_perpetual_counts_no_gain_that_is_not_made() -> None:
    async def work() -> None:
        async with opened("bitget, perpetual") as (_, there, exchange):
            held = {"marginCoin": "USDT", "accountEquity": "1007", "unrealizedPL": "7", "available": "880"}
            there.answers["GET /api/v2/mix/account/accounts"] = ok([held])
            assert await exchange.balances() == [Balance("USDT", D(1000), D(880))]

    asyncio.run(work())


def test_a_list_that_was_cut_is_refused_where_the_rest_cannot_be_asked_for() -> None:
    async def work() -> None:
        async with opened("gate, spot") as (case, there, exchange):
            many = [case.row | {"id": str(n), "text": f"t-G1A{n:03d}"} for n in range(100)]
            there.answers["GET /api/v4/spot/open_orders"] = [
                {"currency_pair": "BTC_USDT", "total": 130, "orders": many}
            ]
            with pytest.raises(ExchangeUnreachable, match="there may be more"):
                await exchange.open_orders()

    asyncio.run(work())


@pytest.mark.parametrize("name", ["bitget", "gate"])
def test_real_money_needs_a_word_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDMM_INSTRUMENT__MARKET", "spot")
    monkeypatch.setenv("GRIDMM_INSTRUMENT__SYMBOL", "BTC/USDT")
    done = CliRunner().invoke(cli, ["run", "--exchange", name, "--live"])
    assert isinstance(done.exception, Refused) and "is experimental" in str(done.exception)
    assert "--experimental" in done.exception.problem.todo
    more = CliRunner().invoke(cli, ["run", "--exchange", name, "--live", "--experimental"])
    assert isinstance(more.exception, Refused) and "the account paper" in str(more.exception)
