"""A small server of Bybit's protocol, version 5: a unified account, spot and USDT perpetuals, one-way mode.

Written after Bybit's own description of these calls, read 2026-11.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from gridmm.exchange import Accepted, Fill, OrderRequest, Outcome, Rejected, RejectReason
from small_exchange import KEY, SECRET, Known, Line, Refusal, Small, now_ms

CLOSED_IN_REAL_TIME = 3  # of orders that have ended; all others are history
REFUSALS = {
    "linear": {
        RejectReason.FUNDS: (110007, "ab not enough for new order"),
        RejectReason.FILTER: (110003, "Order price exceeds the allowable range."),
        RejectReason.DUPLICATE: (110072, "OrderLinkedID is duplicate"),
        RejectReason.REDUCE_ONLY: (110017, "current position is zero, cannot fix reduce-only order qty"),
        RejectReason.NOTIONAL: (110094, "Order does not meet minimum order value"),
        RejectReason.UNKNOWN_ORDER: (110001, "order not exists or too late to cancel"),
    },
    "spot": {
        RejectReason.FUNDS: (170131, "Insufficient balance."),
        RejectReason.FILTER: (170124, "Order amount too large."),
        RejectReason.DUPLICATE: (170141, "Duplicate clientOrderId"),
        RejectReason.NOTIONAL: (170140, "Order value exceeded lower limit."),
        RejectReason.UNKNOWN_ORDER: (170213, "Order does not exist."),
    },
}
STATES = {"open": "New", "filled": "Filled", "canceled": "Cancelled"}


def signed(secret: str, text: str) -> str:
    """Return Bybit's signature of a text."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


class Bybit(Small):
    """Bybit, as far as gridmm asks."""

    hosts = ("bybit.com", "*.bybit.com")

    @property
    def market_id(self) -> str:
        """The market's name there."""
        return self.instrument.base + self.instrument.quote

    @property
    def kind(self) -> str:
        """The kind of market there."""
        return "spot" if self.instrument.market == "spot" else "linear"

    async def rest(self, request: web.Request) -> web.Response:
        """Answer a request."""
        body = await request.text()
        more: dict[str, Any] = {}
        try:
            path = request.path.removeprefix("/v5/")
            if not path.startswith("market/"):
                self._admit(request, body)
            asked = json.loads(body) if body else dict(parse_qsl(request.query_string))
            assert asked.get("category", self.kind) == self.kind or path.startswith("market/")
            result = await getattr(self, "_" + path.replace("/", "_").replace("-", "_"))(asked)
            if "_codes" in result:
                more = {"retExtInfo": {"list": result.pop("_codes")}}
            said = {"retCode": 0, "retMsg": "OK", "result": result}
        except Refusal as refusal:
            said = {"retCode": refusal.args[0], "retMsg": refusal.args[1], "result": {}}
        return web.json_response({"retExtInfo": {}, "time": now_ms()} | said | more)

    def _admit(self, request: web.Request, body: str) -> None:
        """Check who asks."""
        head = request.headers
        if head.get("X-BAPI-API-KEY") != KEY:
            raise Refusal(10003, "API key is invalid.")
        stamp, window = head["X-BAPI-TIMESTAMP"], head["X-BAPI-RECV-WINDOW"]
        if not -1_000 < now_ms() - int(stamp) < int(window):
            raise Refusal(10002, "invalid request, please check your server timestamp or recv_window param.")
        query = request.path_qs.partition("?")[2]
        if head.get("X-BAPI-SIGN") != signed(SECRET, stamp + KEY + window + (body or query)):
            raise Refusal(10004, "error sign! origin_string[]")

    async def _market_time(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"timeSecond": str(now_ms() // 1_000), "timeNano": str(now_ms() * 1_000_000)}

    async def _market_instruments_info(self, asked: dict[str, Any]) -> dict[str, Any]:
        i = self.instrument
        about: dict[str, Any] = {
            "symbol": self.market_id,
            "baseCoin": i.base,
            "quoteCoin": i.quote,
            "status": "Trading",
        }
        price, least = (
            {"tickSize": f"{i.tick}"},
            {"minOrderQty": f"{i.min_quantity}", "maxOrderQty": "1000000"},
        )
        if self.kind == "spot":
            size = least | {
                "basePrecision": f"{i.lot}",
                "quotePrecision": "0.01",
                "minOrderAmt": f"{i.min_notional}",
            }
        else:
            size = least | {"qtyStep": f"{i.lot}", "minNotionalValue": f"{i.min_notional}"}
            about |= {
                "contractType": "LinearPerpetual",
                "settleCoin": i.quote,
                "deliveryTime": "0",
                "launchTime": "1",
            }
            about["leverageFilter"] = {"minLeverage": "1", "maxLeverage": "100"}
        listed = [about | {"priceFilter": price, "lotSizeFilter": size}]
        offered = asked["category"] == self.kind and asked.get("status") != "PreLaunch"
        return {"category": asked["category"], "list": listed if offered else [], "nextPageCursor": ""}

    async def _market_tickers(self, asked: dict[str, Any]) -> dict[str, Any]:
        bid, ask = (f"{price}" for price in self.touch)
        about = {"symbol": self.market_id, "lastPrice": bid, "bid1Price": bid, "bid1Size": "1"}
        return {"category": self.kind, "list": [about | {"ask1Price": ask, "ask1Size": "1"}]}

    async def _market_kline(self, asked: dict[str, Any]) -> dict[str, Any]:
        rows = self.candles(min(int(asked["limit"]), 1_000))
        return {
            "category": self.kind,
            "list": [[str(at_ms), *[f"{price}"] * 4, "3", "3"] for at_ms, price in rows],
        }

    async def _user_query_api(self, asked: dict[str, Any]) -> dict[str, Any]:
        may = {"ContractTrade": ["Order", "Position"], "Spot": ["SpotTrade"], "Wallet": []}
        return {"readOnly": 0, "permissions": may, "ips": ["*"], "uta": 1, "unified": 0}

    async def _account_info(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"unifiedMarginStatus": 6, "marginMode": "REGULAR_MARGIN"}

    async def _account_fee_rate(self, asked: dict[str, Any]) -> dict[str, Any]:
        maker, taker = (
            f"{Decimal(ppm).scaleb(-6):f}"
            for ppm in (self.instrument.maker_fee_ppm, self.instrument.taker_fee_ppm)
        )
        return {"list": [{"symbol": self.market_id, "makerFeeRate": maker, "takerFeeRate": taker}]}

    async def _account_wallet_balance(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["accountType"] == "UNIFIED"
        coins = [
            {"coin": one.asset, "walletBalance": f"{one.total}", "equity": f"{one.total + 9}", "locked": f"{one.total - one.free}",
             "totalPositionIM": "0", "totalOrderIM": "0"}
            for one in await self.paper.balances()
        ]  # fmt: skip
        return {"list": [{"accountType": "UNIFIED", "coin": coins}]}

    async def _position_list(self, asked: dict[str, Any]) -> dict[str, Any]:
        same = {
            "symbol": self.market_id,
            "positionIdx": 0,
            "leverage": str(self.paper.rules.leverage),
            "tradeMode": 0,
        }
        held = await self.paper.positions()
        listed = [
            same | {"side": "Buy" if one.quantity > 0 else "Sell", "size": f"{abs(one.quantity)}", "avgPrice": f"{one.entry_price}",
                    "positionValue": "1", "createdTime": str(now_ms()), "updatedTime": str(now_ms())}
            for one in held
        ]  # fmt: skip
        return {
            "category": self.kind,
            "list": listed or [same | {"side": "", "size": "0", "avgPrice": "0"}],
            "nextPageCursor": "",
        }

    async def _order_create(self, asked: dict[str, Any]) -> dict[str, Any]:
        ((request, outcome),) = await self.place([self._request(asked)])
        if isinstance(outcome, Accepted):
            return {"orderId": outcome.exchange_id, "orderLinkId": request.client_id}
        raise self._refusal(outcome)

    async def _order_create_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert len(asked["request"]) <= (10 if self.kind == "spot" else 20)
        listed, codes = [], []
        for request, outcome in await self.place([self._request(one) for one in asked["request"]]):
            taken = isinstance(outcome, Accepted)
            code, message = (0, "OK") if taken else self._refusal(outcome).args
            same = {
                "category": self.kind,
                "symbol": self.market_id,
                "orderLinkId": request.client_id,
                "createAt": str(now_ms()),
            }
            listed.append(same | {"orderId": outcome.exchange_id if isinstance(outcome, Accepted) else ""})
            codes.append({"code": code, "msg": message})
        return {"list": listed, "_codes": codes}

    def _refusal(self, outcome: Outcome) -> Refusal:
        assert isinstance(outcome, Rejected)
        return Refusal(*REFUSALS[self.kind].get(outcome.reason, (10001, "params error")))

    def _request(self, one: dict[str, Any]) -> OrderRequest:
        assert (
            one["symbol"] == self.market_id and one["orderType"] == "Limit" and len(one["orderLinkId"]) <= 36
        )
        side, good = 1 if one["side"] == "Buy" else -1, one.get("timeInForce", "GTC")
        return OrderRequest(
            one["orderLinkId"], side, Decimal(one["price"]), Decimal(one["qty"]),
            post_only=good == "PostOnly", immediate=good == "IOC", reduce_only=one.get("reduceOnly") is True,
        )  # fmt: skip

    async def _order_cancel(self, asked: dict[str, Any]) -> dict[str, Any]:
        known = self.find(asked.get("orderId"), asked.get("orderLinkId"))
        if known is None or not await self.cancel(known):
            raise Refusal(*REFUSALS[self.kind][RejectReason.UNKNOWN_ORDER])
        return {"orderId": known.order_id, "orderLinkId": known.request.client_id}

    async def _order_cancel_all(self, asked: dict[str, Any]) -> dict[str, Any]:
        gone = [one for one in self.resting() if await self.cancel(one)]
        return {
            "list": [{"orderId": one.order_id, "orderLinkId": one.request.client_id} for one in gone],
            "success": "1",
        }

    async def _order_realtime(self, asked: dict[str, Any]) -> dict[str, Any]:
        ended = [one for one in reversed(self.orders.values()) if one.state != "open"][:CLOSED_IN_REAL_TIME]
        named = "orderId" in asked or "orderLinkId" in asked
        return self._page(self.resting() + (ended if named else []), asked, 20, 50)

    async def _order_history(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._page(
            [one for one in reversed(self.orders.values()) if one.state != "open"], asked, 20, 50
        )

    def _page(self, orders: list[Known], asked: dict[str, Any], usual: int, most: int) -> dict[str, Any]:
        """Return a part of a list, and where the next one begins."""
        wanted = [
            one
            for one in orders
            if asked.get("orderId", one.order_id) == one.order_id
            and asked.get("orderLinkId", one.request.client_id) == one.request.client_id
        ]
        return self._cut([self._row(one) for one in wanted], asked, usual, most)

    def _cut(
        self, rows: list[dict[str, Any]], asked: dict[str, Any], usual: int, most: int
    ) -> dict[str, Any]:
        begin, size = int(asked.get("cursor", 0)), int(asked.get("limit", usual))
        if size > most:
            raise Refusal(10001, f"limit was {size}, at most {most}")
        following = str(begin + size) if begin + size < len(rows) else ""
        return {"category": self.kind, "list": rows[begin : begin + size], "nextPageCursor": following}

    async def _execution_list(self, asked: dict[str, Any]) -> dict[str, Any]:
        since_ms = int(asked.get("startTime", now_ms() - 7 * 86_400_000))
        until_ms = min(int(asked.get("endTime", 10**18)), since_ms + 7 * 86_400_000)
        if asked["execType"] == "Funding":
            paid = [
                {"symbol": self.market_id, "execId": one.id, "execFee": f"{-one.amount}", "execTime": str(one.time_ms), "execType": "Funding"}
                for one in reversed(await self.paper.fundings(0))
            ]  # fmt: skip
            return self._cut(
                [one for one in paid if since_ms <= int(one["execTime"]) <= until_ms], asked, 50, 100
            )
        found = [self._trade(one) for one in reversed(self.fills) if since_ms <= one.time_ms <= until_ms]
        return self._cut(found, asked, 50, 100)

    def _trade(self, fill: Fill) -> dict[str, Any]:
        return {"category": self.kind, "symbol": self.market_id, "execId": fill.trade_id, "orderId": fill.exchange_id,
                "orderLinkId": fill.client_id, "side": "Buy" if fill.side > 0 else "Sell", "execPrice": f"{fill.price}",
                "execQty": f"{fill.quantity}", "execFee": f"{fill.fee}", "feeCurrency": fill.fee_asset, "feeCoin": fill.fee_asset,
                "isMaker": fill.maker, "execType": "Trade", "execTime": str(fill.time_ms)}  # fmt: skip

    def _row(self, known: Known) -> dict[str, Any]:
        """Return an order as lists and the stream tell of it."""
        r = known.request
        state = "PartiallyFilled" if known.state == "open" and known.filled else STATES[known.state]
        if known.state == "canceled" and known.filled and self.kind == "spot":
            state = "PartiallyFilledCanceled"
        good = "PostOnly" if r.post_only else "IOC" if r.immediate else "GTC"
        contract = {} if self.kind == "spot" else {"tpslMode": "UNKNOWN", "positionIdx": 0}
        return contract | {
            "category": self.kind, "symbol": self.market_id, "orderId": known.order_id, "orderLinkId": r.client_id,
            "side": known.side.capitalize(), "orderType": "Limit", "price": f"{r.price}", "qty": f"{r.quantity}",
            "cumExecQty": f"{known.filled}", "cumExecValue": f"{known.filled * r.price}", "leavesQty": "0", "timeInForce": good,
            "orderStatus": state, "avgPrice": f"{r.price}" if known.filled else "", "reduceOnly": r.reduce_only,
            "createdTime": str(known.created_ms), "updatedTime": str(known.updated_ms),
        }  # fmt: skip

    async def heard(self, line: Line, text: str) -> None:
        """Take a frame from a client."""
        asked = json.loads(text)
        same = {
            "success": True,
            "ret_msg": "",
            "conn_id": "1",
            "req_id": asked.get("req_id", ""),
            "op": asked["op"],
        }
        if asked["op"] == "ping":
            await line.say(same | {"ret_msg": "pong"})
        elif asked["op"] == "auth":
            key, expires, signature = asked["args"]
            line.user = key == KEY and signature == signed(SECRET, f"GET/realtime{expires}")
            await line.say(same | {"success": line.user})
        elif asked["op"] == "subscribe":
            for topic in asked["args"]:
                assert topic not in ("order", "execution") or line.user
                line.topics[topic] = asked
            await line.say(same)
            if f"orderbook.1.{self.market_id}" in asked["args"] and self.touch[0]:
                await self.tell_touch()
            if f"kline.1.{self.market_id}" in asked["args"]:
                ((at_ms, price),) = self.candles(1)
                row = {
                    "start": at_ms,
                    "end": at_ms + 59_999,
                    "interval": "1",
                    "volume": "3",
                    "confirm": False,
                }
                await self._tell(
                    f"kline.1.{self.market_id}",
                    [row | dict.fromkeys(("open", "close", "high", "low"), f"{price}")],
                )

    async def _tell(self, topic: str, data: Any) -> None:
        about = {"topic": topic, "type": "snapshot", "ts": now_ms(), "creationTime": now_ms(), "data": data}
        for line in self.listening(topic):
            await line.say(about)

    async def tell_touch(self) -> None:
        """Tell who listens of the touch."""
        bid, ask = ([f"{price}", "1"] for price in self.touch)
        await self._tell(
            f"orderbook.1.{self.market_id}", {"s": self.market_id, "b": [bid], "a": [ask], "u": 1, "seq": 1}
        )

    async def tell_trade(self, price: Decimal, quantity: Decimal) -> None:
        """Tell who listens of a trade of others."""
        about = {
            "T": now_ms(),
            "s": self.market_id,
            "S": "Buy",
            "v": f"{quantity}",
            "p": f"{price}",
            "i": str(now_ms()),
        }
        await self._tell(f"publicTrade.{self.market_id}", [about])

    async def tell_order(self, known: Known) -> None:
        """Tell the user of an order."""
        await self._tell("order", [self._row(known)])

    async def tell_fill(self, known: Known, fill: Fill) -> None:
        """Tell the user of a trade, and then of its order."""
        await self._tell("execution", [self._trade(fill)])
        await self.tell_order(known)
