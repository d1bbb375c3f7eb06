"""Our own exchange speaks Binance's wire: the real ccxt client trades on it and cannot tell."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import ccxt
import pytest

from gridmm.cli import run_command
from gridmm.demo_market import DemoMarket
from gridmm.exchange_paper import PaperExchange
from gridmm.paper_account import Row
from gridmm.paper_market import PaperRules
from gridmm.units import Instrument
from gridmm.wire_account import News, WireAccount, WireBook
from gridmm.wire_server import Wire, kept_certificate
from gridmm.wire_words import WireError, WireLimits, WireOrder
from loopback import OPTIONS, client, client_at

SPOT = Instrument(
    "BTC/USDT", "spot", Decimal("0.01"), Decimal("0.00001"), Decimal("0.00001"), Decimal(5), 1_000, 1_000
)
PERPETUAL = Instrument(
    "BTC/USDT:USDT", "perpetual", Decimal("0.1"), Decimal("0.001"), Decimal("0.001"), Decimal(100), 200, 500
)
RICH = PaperRules(quote=Decimal(100_000), base=Decimal(2))
BIG = PaperRules(quote=Decimal(100_000))

Test = Callable[[Wire, Any], Awaitable[None]]


def on(instrument: Instrument, test: Test, rules: PaperRules | None = None, **config: Any) -> None:
    """Run a test on an exchange of one market at 60 000, with a client that knows the market."""

    async def run() -> None:
        known = {
            name: config.pop(name) for name in ("limits", "feed", "history_ms", "speed") if name in config
        }
        rich = RICH if instrument.market == "spot" else BIG
        async with Wire(instrument, rules or rich, synchronous="OFF", **known) as wire:
            if "feed" not in known:
                wire.quote(Decimal(59_999), Decimal(60_001), Decimal(5), Decimal(5))
            async with client(wire, **config) as x:
                await x.load_markets()
                await asyncio.wait_for(test(wire, x), 60)

    asyncio.run(run())


async def soon(what: Awaitable[Any]) -> Any:
    """Wait for something that must come now."""
    return await asyncio.wait_for(what, 10)


async def until(fact: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(1_000):
        if fact():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about in 10 s")


def waits(x: Any, name: str) -> bool:
    """Return whether the client waits for news of a name."""
    return any(name in future for one in x.clients.values() for future in one.futures)


async def refused(what: Awaitable[Any], kind: type[Exception], words: str) -> None:
    """Expect a refusal of a kind, with words of the exchange in it."""
    with pytest.raises(kind) as caught:
        await what
    assert type(caught.value) is kind
    assert words in str(caught.value)


# -- spot


def test_a_client_learns_the_market() -> None:
    async def test(wire: Wire, x: Any) -> None:
        market = x.market("BTC/USDT")
        steps = market["precision"]["price"], market["precision"]["amount"], market["limits"]["cost"]["min"]
        assert [Decimal(step) for step in steps] == [SPOT.tick, SPOT.lot, SPOT.min_notional]
        assert abs(await x.fetch_time() - x.milliseconds()) < 2_000
        assert wire.asked["GET /api/v3/exchangeInfo"] == 1
        assert set(wire.hosts) == {"api.binance.com"}

    on(SPOT, test)


def test_without_options_every_kind_of_market_is_asked_for() -> None:
    async def test(wire: Wire, x: Any) -> None:
        assert list(x.markets) == ["BTC/USDT"]
        assert await x.fetch_currencies() is not None

    options = {
        "fetchMarkets": {"types": ["spot", "linear", "inverse"]},
        "fetchMargins": True,
        "fetchCurrencies": True,
    }
    on(SPOT, test, options=options)


def test_a_post_only_order_lives_and_ends_by_its_client_id() -> None:
    async def test(wire: Wire, x: Any) -> None:
        new = await x.create_order(
            "BTC/USDT", "LIMIT_MAKER", "buy", "0.01", "59000", {"newClientOrderId": "GRID1"}
        )
        assert (new["clientOrderId"], new["status"], new["postOnly"]) == ("GRID1", "open", True)
        by_id = await x.fetch_order(None, "BTC/USDT", {"origClientOrderId": "GRID1"})
        assert (by_id["id"], by_id["price"], by_id["amount"]) == (new["id"], "59000.00000000", "0.01000000")
        assert [one["id"] for one in await x.fetch_open_orders("BTC/USDT")] == [new["id"]]
        held = await x.fetch_balance()
        assert held["USDT"]["used"] == "590.59000000"  # with the fee that it may pay
        gone = await x.cancel_order(None, "BTC/USDT", {"origClientOrderId": "GRID1"})
        assert gone["status"] == "canceled"
        assert (await x.fetch_order(new["id"], "BTC/USDT"))["status"] == "canceled"
        assert await x.fetch_open_orders("BTC/USDT") == []

    on(SPOT, test)


def test_fills_and_fees_are_listed() -> None:
    async def test(wire: Wire, x: Any) -> None:
        await x.create_order(
            "BTC/USDT", "LIMIT_MAKER", "sell", "0.02", "60100", {"newClientOrderId": "GRID1"}
        )
        wire.trade(Decimal("60200"), Decimal("0.5"), 1)
        (trade,) = await x.fetch_my_trades("BTC/USDT")
        assert (trade["side"], trade["price"], trade["amount"], trade["takerOrMaker"]) == (
            "sell", "60100.00000000", "0.02000000", "maker",
        )  # fmt: skip
        assert (trade["fee"]["cost"], trade["fee"]["currency"]) == ("1.20200000", "USDT")
        assert (await x.fetch_order(trade["order"], "BTC/USDT"))["status"] == "closed"
        assert (await x.fetch_balance())["BTC"]["total"] == "1.98"
        assert [one["id"] for one in await x.fetch_orders("BTC/USDT")] == [trade["order"]]

    on(SPOT, test)


def test_an_order_that_takes_answers_with_its_trades() -> None:
    async def test(wire: Wire, x: Any) -> None:
        bought = await x.create_order("BTC/USDT", "market", "buy", "0.5")
        assert (bought["status"], bought["filled"]) == ("closed", "0.50000000")
        wire.quote(Decimal(59_999), Decimal(60_001), Decimal(1), Decimal(5))
        partly = await x.create_order("BTC/USDT", "limit", "sell", "1.5", "59999", {"timeInForce": "IOC"})
        assert (partly["status"], partly["filled"]) == ("expired", "1.00000000")

    on(SPOT, test)


def test_prices_and_candles_are_shown() -> None:
    async def test(wire: Wire, x: Any) -> None:
        wire.trade(Decimal(60_001), Decimal("0.25"), 1)
        wire.trade(Decimal(59_999), Decimal("0.5"), -1)
        best = (await x.fetch_bids_asks(["BTC/USDT"]))["BTC/USDT"]
        assert (best["bid"], best["bidVolume"], best["ask"]) == (
            "59999.00000000",
            "5.00000000",
            "60001.00000000",
        )
        book = await x.fetch_order_book("BTC/USDT")
        assert book["bids"] == [[59999.0, 5.0]]
        candle = (await x.fetch_ohlcv("BTC/USDT", "1m"))[-1]
        assert candle[4] == "59999.00000000"
        assert sum(Decimal(row[5]) for row in await x.fetch_ohlcv("BTC/USDT", "1m")) == Decimal("0.75")
        assert [one["side"] for one in await x.fetch_trades("BTC/USDT")] == ["buy", "sell"]
        assert (await x.fetch_ticker("BTC/USDT"))["last"] == "59999.00000000"
        assert (await x.fetch_trading_fee("BTC/USDT"))["maker"] == "0.00100000"

    on(SPOT, test)


# -- spot streams


def test_the_touch_and_the_candles_are_streamed() -> None:
    async def test(wire: Wire, x: Any) -> None:
        seen = asyncio.create_task(x.watch_bids_asks(["BTC/USDT"]))
        await until(lambda: any("bookTicker" in name for line in wire.lines.open for name in line.names))
        wire.quote(Decimal(60_010), Decimal("60012.50"), Decimal("0.5"), Decimal(2))
        touch = (await soon(seen))["BTC/USDT"]
        assert (touch["bid"], touch["bidVolume"], touch["ask"]) == (
            "60010.00000000",
            "0.50000000",
            "60012.50000000",
        )
        seen = asyncio.create_task(x.watch_ohlcv("BTC/USDT", "1m"))
        await until(lambda: any("kline_1m" in name for line in wire.lines.open for name in line.names))
        wire.trade(Decimal(60_012), Decimal("0.125"), 1)
        candle = (await soon(seen))[-1]
        assert (candle[4], candle[5]) == (60_012.0, 0.125)
        seen = asyncio.create_task(x.watch_trades("BTC/USDT"))
        await until(lambda: any("trade" in name.lower() for line in wire.lines.open for name in line.names))
        wire.trade(Decimal(60_011), Decimal("0.25"), -1)
        assert [(one["side"], one["amount"]) for one in await soon(seen)] == [("sell", "0.25000000")]
        assert {"stream.binance.com", "api.binance.com"} == set(wire.hosts)

    on(SPOT, test)


def test_the_book_follows_its_changes_without_a_gap() -> None:
    async def test(wire: Wire, x: Any) -> None:
        seen = asyncio.create_task(x.watch_order_book("BTC/USDT"))
        await until(lambda: any("depth" in name for line in wire.lines.open for name in line.names))
        for step in range(100):
            wire.quote(Decimal(60_000 + step), Decimal(60_010 + step), Decimal(1), Decimal(2))
            await asyncio.sleep(0.01)
            if seen.done():
                book = seen.result()
                if book["bids"] and book["bids"][0][0] == 60_099:
                    break
                seen = asyncio.create_task(x.watch_order_book("BTC/USDT"))
        book = x.orderbooks["BTC/USDT"]
        await until(lambda: bool(book["bids"]) and book["bids"][0][0] == 60_099)
        assert (len(book["bids"]), len(book["asks"]), book["asks"][0]) == (1, 1, [60_109, 2])
        seen.cancel()

    on(SPOT, test)


def test_an_account_hears_its_orders_its_trades_and_its_money() -> None:
    async def test(wire: Wire, x: Any) -> None:
        orders = asyncio.create_task(x.watch_orders("BTC/USDT"))
        trades = asyncio.create_task(x.watch_my_trades("BTC/USDT"))
        await until(lambda: any(line.key == "account" for line in wire.lines.open))
        new = await x.create_order(
            "BTC/USDT", "LIMIT_MAKER", "buy", "0.02", "59000", {"newClientOrderId": "GRID1"}
        )
        (order,) = await soon(orders)
        assert (order["id"], order["clientOrderId"], order["status"]) == (new["id"], "GRID1", "open")
        wire.quote(Decimal(59_000), Decimal(60_001), Decimal("0.001"), Decimal(5))
        wire.trade(Decimal(59_000), Decimal("0.006"), -1)
        (trade,) = await soon(trades)
        assert (trade["order"], trade["amount"], trade["fee"]["cost"]) == (
            new["id"],
            "0.00500000",
            "0.29500000",
        )
        trades = asyncio.create_task(x.watch_my_trades("BTC/USDT"))
        await until(lambda: waits(x, "myTrades"))
        wire.trade(Decimal(58_999), Decimal(9), -1)
        (trade,) = await soon(trades)
        assert (trade["amount"], trade["takerOrMaker"]) == ("0.01500000", "maker")
        await until(lambda: x.orders.hashmap["BTC/USDT"][new["id"]]["status"] == "closed")
        money = asyncio.create_task(x.watch_balance())
        await until(lambda: waits(x, "spot:balance"))
        await x.create_order("BTC/USDT", "LIMIT_MAKER", "sell", "1", "70000", {"newClientOrderId": "GRID2"})
        assert (await soon(money))["BTC"]["used"] == "1.00000000"
        orders = asyncio.create_task(x.watch_orders("BTC/USDT"))
        await asyncio.sleep(0)
        await x.cancel_order(None, "BTC/USDT", {"origClientOrderId": "GRID2"})
        await until(
            lambda: any(one["clientOrderId"] == "GRID2" and one["status"] == "canceled" for one in x.orders)
        )
        orders.cancel()

    on(SPOT, test)


# -- USDT-M


def test_a_perpetual_is_learnt_and_its_account_checked() -> None:
    async def test(wire: Wire, x: Any) -> None:
        market = x.market("BTC/USDT:USDT")
        steps = market["precision"]["price"], market["precision"]["amount"], market["limits"]["cost"]["min"]
        assert [Decimal(step) for step in steps] == [PERPETUAL.tick, PERPETUAL.lot, PERPETUAL.min_notional]
        assert (market["linear"], market["swap"], market["contractSize"]) == (True, True, "1")
        assert (await x.fetch_position_mode("BTC/USDT:USDT"))["hedged"] is False
        assert (await x.fetch_balance())["USDT"]["free"] == "100000.00000000"
        await x.set_leverage(20, "BTC/USDT:USDT")
        assert Decimal((await x.fetch_leverages(["BTC/USDT:USDT"]))["BTC/USDT:USDT"]["longLeverage"]) == 20
        assert (await x.fetch_trading_fee("BTC/USDT:USDT"))["maker"] == "0.00020000"
        assert (await x.fetch_funding_rate("BTC/USDT:USDT"))["fundingRate"] == "0.00010000"
        assert Decimal((await x.fetch_ohlcv("BTC/USDT:USDT", "1m"))[-1][4]) == 60_000
        assert (await x.fetch_bids_asks(["BTC/USDT:USDT"]))["BTC/USDT:USDT"]["bid"] == "59999.0"
        assert await x.fetch_positions(["BTC/USDT:USDT"]) == []
        assert set(wire.hosts) == {"fapi.binance.com"}

    on(PERPETUAL, test)


def test_a_short_is_opened_reduced_and_funded() -> None:
    async def test(wire: Wire, x: Any) -> None:
        symbol = "BTC/USDT:USDT"
        await x.create_order(
            symbol, "limit", "sell", "0.5", "60100", {"postOnly": True, "newClientOrderId": "S1"}
        )
        wire.trade(Decimal(60_200), Decimal(1), 1)
        wire.fund(Decimal("0.0001"))
        (position,) = await x.fetch_positions([symbol])
        assert position["side"] == "short"
        assert (position["contracts"], position["entryPrice"]) == ("0.5", "60100.00000")
        (paid,) = await x.fetch_funding_history(symbol)
        assert Decimal(paid["amount"]) == Decimal("3")  # the short is paid 0.01 % of 30 000
        close = {"postOnly": True, "reduceOnly": True, "newClientOrderId": "B1"}
        await x.create_order(symbol, "limit", "buy", "0.5", "59900", close)
        wire.trade(Decimal(59_800), Decimal(1), -1)
        opened, closed = await x.fetch_my_trades(symbol)
        assert (opened["info"]["realizedPnl"], closed["info"]["realizedPnl"]) == (
            "0.00000000",
            "100.00000000",
        )
        fees = Decimal("60100") * Decimal("0.0001") + Decimal("59900") * Decimal("0.0001")
        assert Decimal((await x.fetch_balance())["USDT"]["total"]) == 100_000 + 3 + 100 - fees
        kinds = [one["incomeType"] for one in await x.fapiprivate_get_income()]
        assert sorted(kinds) == ["COMMISSION", "COMMISSION", "FUNDING_FEE", "REALIZED_PNL"]

    on(PERPETUAL, test)


def test_a_batch_is_answered_for_each_order() -> None:
    async def test(wire: Wire, x: Any) -> None:
        symbol = "BTC/USDT:USDT"
        wanted = [
            {"symbol": symbol, "type": "limit", "side": "buy", "amount": "0.01", "price": price,
             "params": {"newClientOrderId": f"G{price}", "postOnly": True}}
            for price in ("59000", "60500", "58000")
        ]  # fmt: skip
        placed = await x.create_orders(wanted)
        assert sorted(str(one["clientOrderId"]) for one in placed) == ["G58000", "G59000", "None"]
        assert [one["info"]["code"] for one in placed if one["clientOrderId"] is None] == [-5022]
        assert len(await x.fetch_open_orders(symbol)) == 2
        await x.cancel_orders([], symbol, {"origClientOrderIdList": ["G59000"]})
        assert [one["clientOrderId"] for one in await x.fetch_open_orders(symbol)] == ["G58000"]
        await x.cancel_all_orders(symbol)
        assert await x.fetch_open_orders(symbol) == []

    on(PERPETUAL, test)


def test_an_amend_keeps_the_order_and_its_trades() -> None:
    async def test(wire: Wire, x: Any) -> None:
        symbol = "BTC/USDT:USDT"
        heard = asyncio.create_task(x.watch_orders(symbol))
        await until(lambda: any(line.key for line in wire.lines.open))
        new = await x.create_order(
            symbol, "limit", "buy", "0.02", "59000", {"postOnly": True, "newClientOrderId": "A1"}
        )
        wire.quote(Decimal(59_000), Decimal(60_001), Decimal("0.001"), Decimal(5))
        wire.trade(Decimal(59_000), Decimal("0.006"), -1)
        changed = await x.edit_order(new["id"], symbol, "limit", "buy", "0.03", "59000.1")
        assert (changed["id"], changed["clientOrderId"], changed["price"]) == (new["id"], "A1", "59000.1")
        assert (changed["filled"], changed["remaining"], changed["status"]) == ("0.005", "0.025", "open")
        wire.trade(Decimal(58_900), Decimal(1), -1)
        done = await x.fetch_order(new["id"], symbol)
        assert (done["status"], done["filled"]) == ("closed", "0.030")
        assert [one["id"] for one in await x.fetch_orders(symbol)] == [new["id"]]
        assert wire.paper.position_lots == 30
        await soon(heard)
        await until(lambda: x.orders.hashmap[symbol][new["id"]]["status"] == "closed")
        again = await x.create_order(
            symbol, "limit", "buy", "0.02", "58000", {"postOnly": True, "newClientOrderId": "A2"}
        )
        await refused(
            x.edit_order(again["id"], symbol, "limit", "buy", "0.02", "60500"), ccxt.OrderNotFillable, "-5022"
        )
        assert (await x.fetch_order(again["id"], symbol))["status"] == "canceled"
        await refused(
            x.edit_order(again["id"], symbol, "limit", "buy", "0.02", "57000"), ccxt.OrderNotFound, "-2013"
        )

    on(PERPETUAL, test)


def test_a_dead_client_has_its_orders_cancelled() -> None:
    async def test(wire: Wire, x: Any) -> None:
        symbol, market = "BTC/USDT:USDT", {"symbol": "BTCUSDT"}
        await x.create_order(symbol, "limit", "buy", "0.02", "59000", {"postOnly": True})
        await x.fapiprivate_post_countdowncancelall(market | {"countdownTime": 600})
        await asyncio.sleep(0.3)
        await x.fapiprivate_post_countdowncancelall(market | {"countdownTime": 600})
        await asyncio.sleep(0.4)
        assert len(await x.fetch_open_orders(symbol)) == 1  # it was still alive 0.4 s ago
        await until(lambda: wire.account.open_orders() == [])
        await x.create_order(symbol, "limit", "buy", "0.02", "59000", {"postOnly": True})
        await x.fapiprivate_post_countdowncancelall(market | {"countdownTime": 200})
        await x.fapiprivate_post_countdowncancelall(market | {"countdownTime": 0})
        await asyncio.sleep(0.5)
        assert len(await x.fetch_open_orders(symbol)) == 1

    on(PERPETUAL, test)


def test_a_perpetual_streams_prices_and_its_account() -> None:
    async def test(wire: Wire, x: Any) -> None:
        symbol = "BTC/USDT:USDT"
        touch, bars = (
            asyncio.create_task(x.watch_bids_asks([symbol])),
            asyncio.create_task(x.watch_ohlcv(symbol, "1m")),
        )
        mine, held = (
            asyncio.create_task(x.watch_my_trades(symbol)),
            asyncio.create_task(x.watch_positions([symbol])),
        )
        await until(lambda: sum(bool(line.names or line.key) for line in wire.lines.open) == 3)
        await until(lambda: waits(x, "positions"))
        wire.quote(Decimal(60_010), Decimal(60_020), Decimal(1), Decimal(2))
        assert (await soon(touch))[symbol]["ask"] == "60020.0"
        await x.create_order(
            symbol, "limit", "sell", "0.02", "60100", {"postOnly": True, "newClientOrderId": "S1"}
        )
        wire.trade(Decimal(60_150), Decimal(1), 1)
        assert (await soon(bars))[-1][4] in (60_015.0, 60_150.0)
        (trade,) = await soon(mine)
        assert (trade["price"], trade["amount"], trade["fee"]["cost"]) == ("60100.0", "0.020", "0.24040000")
        assert [(one["side"], Decimal(one["contracts"])) for one in await soon(held)] == [
            ("short", Decimal("0.02"))
        ]
        assert set(wire.hosts) == {"fapi.binance.com", "fstream.binance.com"}

    on(PERPETUAL, test, options={"watchPositions": {"fetchPositionsSnapshot": False}})


def test_a_listen_key_that_is_not_kept_alive_expires() -> None:
    async def test(wire: Wire, x: Any) -> None:
        heard = asyncio.create_task(x.watch_orders("BTC/USDT:USDT"))
        await until(lambda: any(line.key for line in wire.lines.open))
        frames: list[Any] = []
        original = x.handle_message

        def heed(client: Any, message: Any) -> None:
            frames.append(message)
            original(client, message)

        x.handle_message = heed
        for one in x.clients.values():
            one.on_message_callback = x.handle_message
        await x.fapiprivate_put_listenkey()
        wire.keys.cut_short()
        await until(lambda: any(one.get("e") == "listenKeyExpired" for one in frames))
        await refused(x.fapiprivate_put_listenkey(), ccxt.AuthenticationError, "-1125")
        await x.create_order("BTC/USDT:USDT", "limit", "buy", "0.02", "59000", {"postOnly": True})
        await asyncio.sleep(0.3)
        assert not heard.done()
        heard.cancel()

    on(PERPETUAL, test)


# -- refusals: spot, then USDT-M

ORDER = ("BTC/USDT", "limit", "buy", "0.01", "59000")
SPOT_REFUSALS = {
    "off the tick": ({"price": "59000.001"}, ccxt.InvalidOrder, "PRICE_FILTER"),
    "off the lot": ({"quantity": "0.000011"}, ccxt.InvalidOrder, "LOT_SIZE"),
    "too small": ({"quantity": "0.00001"}, ccxt.BadRequest, "NOTIONAL"),
    "too dear": ({"quantity": "20"}, ccxt.InsufficientFunds, "insufficient balance"),
    "would take": ({"price": "60500"}, ccxt.OrderImmediatelyFillable, "immediately match"),
    "an id that is open": ({"newClientOrderId": "TAKEN"}, ccxt.InvalidOrder, "Duplicate order sent."),
    "an id of strange letters": ({"newClientOrderId": "A B"}, ccxt.BadRequest, "-1100"),
    "an unknown market": ({"symbol": "ETHUSDT"}, ccxt.BadSymbol, "-1121"),
    "an unknown type": ({"type": "STOP_LOSS"}, ccxt.BadRequest, "-1116"),
    "no quantity": ({"quantity": ""}, ccxt.BadRequest, "-1102"),
    "another self-trade prevention": ({"selfTradePreventionMode": "DECREMENT"}, ccxt.BadRequest, "-1130"),
}


@pytest.mark.parametrize("name", SPOT_REFUSALS)
def test_spot_refuses(name: str) -> None:
    changed, kind, words = SPOT_REFUSALS[name]

    async def test(wire: Wire, x: Any) -> None:
        order = {
            "symbol": "BTCUSDT",
            "side": "BUY",
            "type": "LIMIT_MAKER",
            "quantity": "0.01",
            "price": "59000",
        }
        await x.private_post_order(order | {"newClientOrderId": "TAKEN"})
        await refused(x.private_post_order(order | changed), kind, words)
        assert len(wire.account.open_orders()) == 1

    on(SPOT, test)


FUTURES_REFUSALS = {
    "off the tick": ({"price": "59000.01"}, ccxt.BadRequest, "-4014"),
    "off the lot": ({"quantity": "0.0101"}, ccxt.BadRequest, "-1111"),
    "too small": ({"quantity": "0.001"}, ccxt.InvalidOrder, "-4164"),
    "too dear": ({"quantity": "50"}, ccxt.InsufficientFunds, "-2019"),
    "would take": ({"price": "60500"}, ccxt.OrderNotFillable, "-5022"),
    "nothing to reduce": ({"reduceOnly": "true"}, ccxt.InvalidOrder, "-2022"),
    "an id that is open": ({"newClientOrderId": "TAKEN"}, ccxt.InvalidOrder, "-4116"),
    "a side of a hedge": ({"positionSide": "LONG"}, ccxt.OperationRejected, "-4061"),
}


@pytest.mark.parametrize("name", FUTURES_REFUSALS)
def test_a_perpetual_refuses(name: str) -> None:
    changed, kind, words = FUTURES_REFUSALS[name]

    async def test(wire: Wire, x: Any) -> None:
        order = {
            "symbol": "BTCUSDT",
            "side": "BUY",
            "type": "LIMIT",
            "timeInForce": "GTX",
            "quantity": "0.01",
            "price": "59000",
        }
        await x.fapiprivate_post_order(order | {"newClientOrderId": "TAKEN"})
        await refused(x.fapiprivate_post_order(order | changed), kind, words)
        assert len(wire.account.open_orders()) == 1

    on(PERPETUAL, test)


@pytest.mark.parametrize("instrument", [SPOT, PERPETUAL], ids=["spot", "perpetual"])
def test_what_is_not_open_can_be_neither_cancelled_nor_found(instrument: Instrument) -> None:
    async def test(wire: Wire, x: Any) -> None:
        unknown = {"origClientOrderId": "NOBODY"}
        await refused(x.cancel_order(None, instrument.symbol, unknown), ccxt.OrderNotFound, "-2011")
        await refused(x.fetch_order(None, instrument.symbol, unknown), ccxt.OrderNotFound, "-2013")

    on(instrument, test)


def test_an_account_in_hedge_mode_takes_no_order() -> None:
    async def test(wire: Wire, x: Any) -> None:
        await x.set_position_mode(True, "BTC/USDT:USDT")
        assert (await x.fetch_position_mode("BTC/USDT:USDT"))["hedged"] is True
        await refused(
            x.create_order("BTC/USDT:USDT", "limit", "buy", "0.02", "59000"), ccxt.OperationRejected, "-4061"
        )

    on(PERPETUAL, test)


def test_the_door_checks_time_key_and_signature() -> None:
    async def test(wire: Wire, x: Any) -> None:
        wire.faults.skew_ms = 20_000
        await refused(x.fetch_balance(), ccxt.InvalidNonce, "-1021")
        wire.faults.skew_ms = -20_000
        await refused(x.fetch_balance(), ccxt.InvalidNonce, "ahead of the server")
        await x.load_time_difference()
        x.nonce = lambda: x.milliseconds() - x.options["timeDifference"]
        assert (await x.fetch_balance())["USDT"]["free"] == "100000.00000000"
        x.secret = "wrong"
        await refused(x.fetch_balance(), ccxt.AuthenticationError, "-1022")
        x.apiKey = "stranger"
        x.options["hasAlreadyAuthenticatedSuccessfully"] = False  # else the client takes it for a ban
        await refused(x.fetch_balance(), ccxt.AuthenticationError, "-2015")

    on(SPOT, test)


def test_weights_and_counts_come_in_headers_and_end_in_refusals() -> None:
    limits = WireLimits(weight_1m=200, orders_10s=3, orders_long=100, forgiven=1, ban_s=2)

    async def test(wire: Wire, x: Any) -> None:
        clock = 1_900_000_000_000
        wire.account.clock_ms = lambda: clock
        x.nonce = lambda: clock
        before = wire.meter._used.get("weight", (0, 0))[1]
        await x.fetch_balance()
        assert x.last_response_headers["X-MBX-USED-WEIGHT-1M"] == "20", before
        for _ in range(3):
            await x.create_order(*ORDER)
        assert x.last_response_headers["X-MBX-ORDER-COUNT-10S"] == "3"
        await refused(x.create_order(*ORDER), ccxt.DDoSProtection, "-1015")
        clock += 10_000
        await x.create_order(*ORDER)
        for _ in range(8):
            await x.fetch_balance()
        await refused(x.fetch_balance(), ccxt.DDoSProtection, "-1003")
        assert 0 < int(x.last_response_headers["Retry-After"]) <= 60
        await refused(x.fetch_balance(), ccxt.DDoSProtection, "418")
        clock += 1_000
        await refused(x.fetch_balance(), ccxt.DDoSProtection, "banned")
        clock += 61_000
        await x.fetch_balance()

    on(SPOT, test, limits=limits)


# -- faults


LOST = {
    "drop_after": (ccxt.ExchangeNotAvailable, True),
    "drop_before": (ccxt.ExchangeNotAvailable, False),
    "hang_after": (ccxt.RequestTimeout, True),
    "hang_before": (ccxt.RequestTimeout, False),
    "timeout_after": (ccxt.RequestTimeout, True),
    "timeout_before": (ccxt.RequestTimeout, False),
    "unknown_after": (ccxt.OperationFailed, True),
    "unknown_before": (ccxt.OperationFailed, False),
    "html_after": (ccxt.ExchangeNotAvailable, True),
    "html_before": (ccxt.ExchangeNotAvailable, False),
    "rate_limit": (ccxt.DDoSProtection, False),
    "banned": (ccxt.DDoSProtection, False),
    "clock": (ccxt.InvalidNonce, False),
    "funds": (ccxt.InsufficientFunds, False),
}


@pytest.mark.parametrize("fault", LOST)
def test_a_fault_says_one_thing_and_did_another(fault: str) -> None:
    kind, done = LOST[fault]

    async def test(wire: Wire, x: Any) -> None:
        wire.faults.once(**{f"place__{fault}": 1})
        await refused(x.create_order(*ORDER, {"newClientOrderId": "GRID1"}), kind, "")
        assert [one.client_id for one in wire.account.open_orders()] == (["GRID1"] if done else [])
        assert wire.faults.struck[fault] == 1
        if not done:
            await x.create_order(*ORDER, {"newClientOrderId": "GRID1"})

    on(SPOT, test, timeout=700)


def test_streams_fail_in_their_own_ways() -> None:
    async def test(wire: Wire, x: Any) -> None:
        url = f"https://127.0.0.1:{wire.port}/ws/btcusdt@bookTicker"
        frames: list[str] = []

        async def read(client: aiohttp.ClientSession) -> None:
            async with client.ws_connect(url, ssl=False) as socket:
                async for message in socket:
                    frames.append(message.data)

        async def after(**faults: int) -> list[str]:
            frames.clear()
            wire.faults.once(**faults)
            for step in (1, 2):
                wire.quote(wire.market.touch[0] + step, Decimal(70_000))  # type: ignore[index]
            await asyncio.sleep(0.1)
            return [json.loads(one)["b"][:5] if one.endswith("}") else "torn" for one in frames]

        async with aiohttp.ClientSession() as client:
            reading = asyncio.create_task(read(client))
            await until(lambda: bool(wire.lines.open))
            assert await after() == ["60000", "60002"]
            assert await after(prices__bad_frame=1) == ["torn", "60003", "60005"]
            assert await after(prices__lost_frame=1) == ["60008"]
            assert await after(prices__double_frame=1) == ["60009", "60009", "60011"]
            assert await after(prices__mute=1) == []
            assert not reading.done()
            reading.cancel()
            reading = asyncio.create_task(read(client))
            await until(lambda: any(not line.mute for line in wire.lines.open))
            assert await after(prices__cut=1) == []
            await until(reading.done)

    on(SPOT, test)


def test_faults_come_from_a_seed() -> None:
    async def test(wire: Wire, x: Any) -> None:
        async def play() -> list[bool]:
            wire.faults.rates(seed=7, per_mille={"place.html_before": 500})
            placed = []
            for _ in range(12):
                try:
                    await x.create_order(*ORDER)
                    placed.append(True)
                except ccxt.ExchangeNotAvailable:
                    placed.append(False)
            return placed

        first = await play()
        assert await play() == first
        assert 2 < sum(first) < 10
        with pytest.raises(ValueError, match="is not known"):
            wire.faults.rates(seed=1, per_mille={"place.nonsense": 1})

    on(SPOT, test)


def test_the_control_asks_for_its_token() -> None:
    async def test(wire: Wire, x: Any) -> None:
        url = f"https://127.0.0.1:{wire.port}/gridmm/faults"
        async with aiohttp.ClientSession() as client:
            asked = {
                "seed": 1,
                "per_mille": {"query.html_before": 1_000},
                "skew_ms": 1,
                "once": {"place.funds": 1},
            }
            async with client.post(url, json=asked, ssl=False) as answer:
                assert answer.status == 401
            own = {"Authorization": f"Bearer {wire.token}"}
            async with client.post(url, json=asked, ssl=False, headers=own) as answer:
                assert (await answer.json())["struck"] == {}
            await refused(x.fetch_balance(), ccxt.ExchangeNotAvailable, "502")
            await refused(x.create_order(*ORDER), ccxt.InsufficientFunds, "insufficient balance")
            async with client.post(
                url, json={"per_mille": {"nonsense": 1}}, ssl=False, headers=own
            ) as answer:
                assert answer.status == 400

    on(SPOT, test)


def test_no_other_host_is_reached() -> None:
    async def test(wire: Wire, x: Any) -> None:
        with pytest.raises(aiohttp.ClientConnectorError):
            await x.session.get("https://example.com/")
        assert x.session.connector._resolver.refused == ["example.com"]

    on(SPOT, test)


# -- the account behind it


def test_an_exchange_that_is_started_again_knows_its_orders(tmp_path: Path) -> None:
    ledger = tmp_path / "exchange.db"

    async def run() -> None:
        async with Wire(SPOT, RICH, ledger=ledger) as wire:
            wire.quote(Decimal(59_999), Decimal(60_001), Decimal(5), Decimal(5))
            async with client(wire) as x:
                await x.create_order(*ORDER, {"newClientOrderId": "GRID1"})
                await x.create_order("BTC/USDT", "market", "sell", "0.5", None, {"newClientOrderId": "M1"})
                before = await x.fetch_my_trades("BTC/USDT"), await x.fetch_balance()
        async with Wire(SPOT, RICH, ledger=ledger) as wire, client(wire) as x:
            (order,) = await x.fetch_open_orders("BTC/USDT")
            assert (order["clientOrderId"], order["amount"]) == ("GRID1", "0.01000000")
            trades, held = await x.fetch_my_trades("BTC/USDT"), await x.fetch_balance()
            assert [one["info"] for one in trades] == [one["info"] for one in before[0]]
            assert held["total"] == before[1]["total"]
            await x.cancel_order(None, "BTC/USDT", {"origClientOrderId": "GRID1"})

    asyncio.run(run())


def test_latency_keeps_a_client_waiting() -> None:
    async def test(wire: Wire, x: Any) -> None:
        start = asyncio.get_running_loop().time()
        new = await x.create_order(*ORDER, {"newClientOrderId": "GRID1"})
        assert asyncio.get_running_loop().time() - start >= 0.2
        assert new["status"] == "open"
        assert (await x.cancel_order(None, "BTC/USDT", {"origClientOrderId": "GRID1"}))[
            "status"
        ] == "canceled"

    on(SPOT, test, rules=PaperRules(quote=Decimal(10_000), latency_ms=100, response_ms=100))


def test_orders_that_would_trade_with_each_other_expire_as_declared() -> None:
    async def test(wire: Wire, x: Any) -> None:
        await x.create_order("BTC/USDT", "LIMIT_MAKER", "buy", "0.5", "60000")
        met = await x.create_order("BTC/USDT", "limit", "sell", "0.5", "60000")
        assert (met["info"]["status"], met["filled"]) == ("EXPIRED_IN_MATCH", "0.00000000")
        assert x.market("BTC/USDT")["info"]["allowedSelfTradePreventionModes"] == ["EXPIRE_TAKER"]

    on(SPOT, test)


def test_a_feed_is_played_with_the_time_of_day_and_candles_of_the_past() -> None:
    demo = DemoMarket(1)

    async def test(wire: Wire, x: Any) -> None:
        symbol = demo.instrument.symbol
        bars = await x.fetch_ohlcv(symbol, "1m", limit=1_000)
        assert len(bars) >= 118
        now_ms = x.milliseconds()
        assert 0 <= now_ms - bars[-1][0] < 61_000
        assert {b[0] - a[0] for a, b in pairwise(bars)} == {60_000}
        assert sum(float(bar[5]) for bar in bars) > 0
        first = asyncio.create_task(x.watch_bids_asks([symbol]))
        touch = (await soon(first))[symbol]
        assert Decimal(touch["bid"]) < Decimal(touch["ask"])
        assert wire.paper.resume_row > 0

    on(demo.instrument, test, rules=RICH, feed=demo, history_ms=7_200_000, speed="20")


def test_the_websocket_api_places_and_cancels() -> None:
    async def test(wire: Wire, x: Any) -> None:
        new = await x.create_order_ws(*ORDER, {"newClientOrderId": "GRID1"})
        assert (new["clientOrderId"], new["status"]) == ("GRID1", "open")
        gone = await x.cancel_order_ws(new["id"], "BTC/USDT")
        assert gone["status"] == "canceled"
        with pytest.raises(ccxt.InsufficientFunds):
            await x.create_order_ws("BTC/USDT", "limit", "buy", "20", "59000")

    on(SPOT, test)


def test_plain_http_serves_a_client_with_other_urls() -> None:
    async def run() -> None:
        async with Wire(SPOT, RICH, tls=False, synchronous="OFF") as wire:
            wire.quote(Decimal(59_999), Decimal(60_001), Decimal(5), Decimal(5))
            at = f"127.0.0.1:{wire.port}"
            x = ccxt.pro.binance({"apiKey": "demo", "secret": "demo-secret", "options": {
                **OPTIONS, "fetchMarkets": {"types": ["spot"]}}})  # fmt: skip
            x.urls["api"] |= {"public": f"http://{at}/api/v3", "private": f"http://{at}/api/v3"}
            x.urls["api"]["ws"] |= {"spot": f"ws://{at}/stream", "ws-api": {"spot": f"ws://{at}/ws-api/v3"}}
            try:
                new = await x.create_order(*ORDER)
                assert new["status"] == "open"
                seen = asyncio.create_task(x.watch_bids_asks(["BTC/USDT"]))
                await until(
                    lambda: any("bookTicker" in name for line in wire.lines.open for name in line.names)
                )
                wire.quote(Decimal(60_010), Decimal(60_011), Decimal(1), Decimal(1))
                assert (await soon(seen))["BTC/USDT"]["bid"] == 60_010
            finally:
                await x.close()

    asyncio.run(run())


NONSENSE = ("", "1e999", "-1", "NaN", "\ud83d", "null", "[]", "0" * 40, "\x00", "'\"")


@pytest.mark.parametrize("instrument", [SPOT, PERPETUAL], ids=["spot", "perpetual"])
def test_nonsense_is_refused_and_breaks_nothing(instrument: Instrument) -> None:
    async def test(wire: Wire, x: Any) -> None:
        sane = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
        sane |= {
            "price": "59000",
            "orderId": "1",
            "interval": "1m",
            "limit": "5",
            "countdownTime": "0",
            "leverage": "3",
        }
        sane |= {
            "batchOrders": "[{}]",
            "origClientOrderIdList": "[1]",
            "dualSidePosition": "false",
            "startTime": "1",
        }
        wire.door.admits = lambda signed, params: None  # type: ignore[method-assign]
        wire.door.knows = lambda key: None  # type: ignore[method-assign]
        wire.meter.limits = WireLimits(10**9, 10**9, 10**9)
        base = f"https://127.0.0.1:{wire.port}"
        asked = 0
        async with aiohttp.ClientSession() as session:
            for method, path in wire.routes:
                for name in sane:
                    for value in NONSENSE:
                        said = {
                            k: v.encode(errors="replace").decode() for k, v in (sane | {name: value}).items()
                        }
                        async with session.request(method, base + path, params=said, ssl=False) as answer:
                            body = await answer.json()
                            assert answer.status in (200, 400), (method, path, name, value, body)
                            asked += 1
            async with session.ws_connect(base + "/ws-api/v3", ssl=False) as socket:
                for frame in (
                    "{",
                    "[]",
                    "1",
                    '{"params": []}',
                    '{"method": {}}',
                    '{"method": "order.place", "params": {"a": [1]}}',
                ):
                    await socket.send_str(frame)
                    assert (await socket.receive(5)).type == aiohttp.WSMsgType.TEXT
            async with session.ws_connect(base + "/ws/0", ssl=False) as socket:
                for frame in (
                    "{",
                    '{"method": "SUBSCRIBE", "params": 5}',
                    '{"method": "SUBSCRIBE", "params": [[], 5]}',
                ):
                    await socket.send_str(frame)
                    assert (await socket.receive(5)).type == aiohttp.WSMsgType.TEXT
        assert asked > 1_000

    on(instrument, test)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("instrument", [SPOT, PERPETUAL], ids=["spot", "perpetual"])
def test_what_was_told_is_what_the_ledger_says(instrument: Instrument, seed: int) -> None:
    """Random orders, amends and cancels under latency; then memory, news, ledger and money agree."""
    chance, clock = random.Random(seed), 1_700_000_000_000
    latency = chance.choice([0, 3])
    start = RICH if instrument.market == "spot" else BIG
    rules = replace(start, latency_ms=latency, response_ms=latency)
    heard: list[News] = []

    async def run() -> WireAccount:
        nonlocal clock
        paper = PaperExchange(instrument, rules)
        account = WireAccount(paper, heard.append, lambda: clock)
        middle, waiting = 60_000, set[asyncio.Task[Any]]()

        async def act() -> None:
            mine = account.open_orders()
            price = Decimal(middle + chance.randrange(-40, 41))
            size = instrument.lot * 10 * chance.randrange(1, 50)
            try:
                match chance.randrange(6):
                    case 0 if mine:
                        await account.cancel(chance.choice(mine))
                    case 1 if mine:
                        await account.amend(chance.choice(mine), price, size)
                    case 2:
                        await account.place(
                            [WireOrder(0, "", chance.choice([1, -1]), Decimal(0), size, "MARKET")]
                        )
                    case 3 if chance.random() < 0.1:
                        await account.cancel_all()
                    case _:
                        good = chance.choice(["GTC", "IOC"])
                        orders = [
                            WireOrder(0, "", chance.choice([1, -1]), price, size, good=good) for _ in range(2)
                        ]
                        await account.place(orders)
            except WireError:
                pass

        for _ in range(400):
            clock += chance.randrange(3)
            middle += chance.randrange(-6, 7)
            i = instrument
            ticks = [i.price_ticks(Decimal(middle + step)) for step in (-1, 1)]
            sizes = [chance.randrange(1, 400), chance.randrange(1, 400)]
            account.move(Row.QUOTE, *ticks, *sizes)
            if chance.random() < 0.3:
                price = i.price_ticks(Decimal(middle + chance.randrange(-9, 10)))
                account.move(Row.TRADE, price, chance.randrange(1, 300), chance.choice([1, -1]))
            waiting.add(asyncio.create_task(act()))
            await asyncio.sleep(0)
        while any(not task.done() for task in waiting):
            clock += 1
            account.move()
            await asyncio.sleep(0)
        for task in waiting:
            task.result()
        return account

    account = asyncio.run(run())
    paper = account.paper
    again = WireBook(paper)
    assert [trade for trade, _, _ in again.trades] == [trade for trade, _, _ in account.trades]
    assert [news.fill for news in heard if news.what == "TRADE"] == [trade for trade, _, _ in account.trades]
    assert len(account.trades) > 50
    open_now = {order.client_id: (order.price, order.status) for order in account.open_orders()}
    assert open_now.keys() == {order.client_id for order in again.open_orders()}
    last: dict[int, WireOrder] = {}
    for news in heard:
        if news.order is not None:
            assert news.order.order_id not in last or last[news.order.order_id].open
            last[news.order.order_id] = news.order
    assert {number: (one.status, one.done) for number, one in last.items()} == {
        number: (one.status, one.done) for number, one in account.orders.items()
    }
    if instrument.market == "spot":
        moved = sum((fill.side * fill.quantity for fill, _, _ in account.trades), Decimal(0))
        paid = sum(
            (fill.side * fill.quantity * fill.price + fill.fee for fill, _, _ in account.trades), Decimal(0)
        )
        assert [one.total for one in account.balances()] == [rules.quote - paid, rules.base + moved]
    else:
        earned = sum((realised - fill.fee for fill, _, realised in account.trades), Decimal(0))
        assert account.margin().wallet == rules.quote + earned


# -- the command


def test_the_command_serves_and_says_how(tmp_path: Path) -> None:
    words = "exchange serve --market spot --ledger exchange.db --speed 50 --ca".split()
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "gridmm", *words, "our ca.pem"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        market, _, _, line, control = (
            server.stdout.readline() for _ in range(5)
        )  # the third: what to configure
        assert "BTC/USDT spot" in market
        assert "token" in control
        found = re.fullmatch(
            r"gridmm run --exchange binance --endpoint 127\.0\.0\.1:(\d+) --ca 'our ca\.pem'\n", line
        )
        assert found is not None

        async def trade() -> None:
            async with client_at(int(found[1]), tmp_path / "our ca.pem", spot=True) as x:
                bars = await x.fetch_ohlcv("BTC/USDT", "1m", limit=1_000)
                assert len(bars) > 350
                touch = (await x.fetch_bids_asks(["BTC/USDT"]))["BTC/USDT"]
                low = str(int(float(touch["bid"]) * 0.99))
                await x.create_order("BTC/USDT", "LIMIT_MAKER", "buy", "0.01", low)
                assert (await soon(x.watch_bids_asks(["BTC/USDT"])))["BTC/USDT"]["bid"] is not None

        asyncio.run(trade())
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()
    assert (tmp_path / "exchange.db").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--host 0.0.0.0", "--allow-remote"),
        ("--host example.com", "--allow-remote"),
        ("--speed fast", "--speed fast: it is neither max nor a number above 0"),
        ("--history long", "--history long"),
        ("--feed nowhere", "no such source of prices"),
        ("--ca nowhere/ca.pem", "it cannot be written"),
    ],
)
def test_the_command_refuses(
    words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["exchange", "serve", *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_certificate_outlasts_a_restart_of_the_server(tmp_path: Path) -> None:
    ca, chain = kept_certificate(tmp_path / "ca.pem")
    first = ca.read_bytes(), chain.read_bytes()
    assert kept_certificate(ca) == (ca, chain) and (ca.read_bytes(), chain.read_bytes()) == first
    assert chain.stat().st_mode & 0o777 == 0o600
    ca.write_text("no certificate")
    kept_certificate(ca)
    assert chain.read_bytes() != first[1], "what cannot be read is made anew"
