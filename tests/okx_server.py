"""A small server of OKX's protocol, version 5: spot and swaps in one account, one-way mode.

Written after OKX's own description of these calls, read 2026-11.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from gridmm.exchange import Accepted, Fill, OrderRequest, Outcome, Rejected, RejectReason
from small_exchange import KEY, PASSWORD, SECRET, Known, Line, Refusal, Small, now_ms

PAGE = 100
REFUSALS = {
    RejectReason.FUNDS: ("51008", "Order failed. Insufficient account balance."),
    RejectReason.FILTER: ("51121", "Order quantity must be a multiple of the lot size."),
    RejectReason.DUPLICATE: ("51016", "Duplicated client order ID."),
    RejectReason.REDUCE_ONLY: ("51169", "Order failed because you don't have any positions to reduce."),
    RejectReason.NOTIONAL: ("51020", "Your order should meet or exceed the minimum order amount."),
}
STATES = {"open": "live", "filled": "filled", "canceled": "canceled"}


def signed(secret: str, text: str) -> str:
    """Return OKX's signature of a text."""
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()


class Okx(Small):
    """OKX, as far as gridmm asks."""

    hosts = ("okx.com", "*.okx.com")

    @property
    def market_id(self) -> str:
        """The market's name there."""
        i = self.instrument
        return f"{i.base}-{i.quote}" + ("" if i.market == "spot" else "-SWAP")

    @property
    def kind(self) -> str:
        """The kind of market there."""
        return "SPOT" if self.instrument.market == "spot" else "SWAP"

    async def rest(self, request: web.Request) -> web.Response:
        """Answer a request."""
        body = await request.text()
        try:
            path = request.path.removeprefix("/api/v5/")
            if not path.startswith(("public/", "market/")):
                self._admit(request, body)
            asked = json.loads(body) if body else dict(parse_qsl(request.query_string))
            data = await getattr(self, "_" + path.replace("/", "_").replace("-", "_"))(asked)
        except Refusal as refusal:
            code, message = refusal.args
            return web.json_response({"code": code, "data": [], "msg": message})
        bad = [one for one in data if one.get("sCode", "0") != "0"]
        code = "0" if not bad else "1" if len(bad) == len(data) else "2"
        return web.json_response({"code": code, "data": data, "msg": ""})

    def _admit(self, request: web.Request, body: str) -> None:
        """Check who asks."""
        head = request.headers
        if head.get("OK-ACCESS-KEY") != KEY:
            raise Refusal("50111", "Invalid OK-ACCESS-KEY")
        if head.get("OK-ACCESS-PASSPHRASE") != PASSWORD:
            raise Refusal("50105", "OK-ACCESS-PASSPHRASE incorrect")
        text = head["OK-ACCESS-TIMESTAMP"] + request.method + request.path_qs + body
        if head.get("OK-ACCESS-SIGN") != signed(SECRET, text):
            raise Refusal("50113", "Invalid signature")
        if int(head.get("expTime", now_ms() + 1)) < now_ms():
            raise Refusal("51149", "Order timed out. Please try again later.")

    async def _public_time(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"ts": str(now_ms())}]

    async def _public_instruments(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        i, swap = self.instrument, self.kind == "SWAP"
        about = {
            "instType": self.kind,
            "instId": self.market_id,
            "state": "live",
            "lever": "100" if swap else "",
        }
        about |= {"baseCcy": "" if swap else i.base, "quoteCcy": "" if swap else i.quote}
        about |= {"uly": f"{i.base}-{i.quote}" if swap else "", "settleCcy": i.quote if swap else ""}
        about |= {"ctVal": f"{i.multiplier}" if swap else "", "ctType": "linear" if swap else ""}
        about |= {
            "tickSz": f"{i.tick}",
            "lotSz": f"{i.lot}",
            "minSz": f"{i.min_quantity}",
            "maxLmtSz": "1000000",
        }
        return [about] if asked["instType"] == self.kind else []

    async def _market_ticker(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        bid, ask = (f"{price}" for price in self.touch)
        return [{"instType": self.kind, "instId": self.market_id, "last": bid, "bidPx": bid, "bidSz": "1", "askPx": ask, "askSz": "1", "ts": str(now_ms())}]  # fmt: skip

    async def _market_candles(self, asked: dict[str, Any]) -> list[Any]:
        rows = self.candles(min(int(asked["limit"]), 300))
        return [Row([str(at_ms), *[f"{price}"] * 4, "3", "3", "3", "1"]) for at_ms, price in rows]

    async def _account_config(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"uid": "1", "acctLv": "2", "posMode": "net_mode", "perm": "read_only,trade", "ip": ""}]

    async def _account_leverage_info(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        lever = str(self.paper.rules.leverage)
        return [{"instId": asked["instId"], "mgnMode": asked["mgnMode"], "posSide": "net", "lever": lever}]

    async def _account_trade_fee(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        maker, taker = (
            f"{Decimal(-ppm).scaleb(-6):f}"
            for ppm in (self.instrument.maker_fee_ppm, self.instrument.taker_fee_ppm)
        )
        coins = {"maker": "-0.009", "taker": "-0.009"}
        usual = {"maker": maker, "taker": taker, "makerU": "", "takerU": ""}
        return [coins | {"makerU": maker, "takerU": taker} if self.kind == "SWAP" else usual]

    async def _account_balance(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        gained = Decimal(0)
        for one in await self.paper.positions():
            gained += one.quantity * self.instrument.multiplier * (self.touch[0] - one.entry_price)
        details = [
            {"ccy": one.asset, "cashBal": f"{one.total}", "eq": f"{one.total + gained}", "availBal": f"{one.free}",
             "availEq": f"{one.free}", "frozenBal": f"{one.total - one.free}", "uTime": str(now_ms())}
            for one in await self.paper.balances()
        ]  # fmt: skip
        return [{"uTime": str(now_ms()), "totalEq": "1", "details": details}]

    async def _account_positions(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"instType": "SWAP", "instId": self.market_id, "pos": f"{one.quantity}", "posSide": "net", "mgnMode": "cross",
             "avgPx": f"{one.entry_price}", "lever": "10", "upl": "0", "imr": "1", "mmr": "1", "notionalUsd": "1",
             "markPx": f"{self.touch[0]}", "cTime": str(now_ms()), "uTime": str(now_ms())}
            for one in await self.paper.positions()
        ]  # fmt: skip

    async def _account_bills_archive(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        assert asked["type"] == "8"
        before = int(asked.get("after", 10**18))
        paid = [one for one in await self.paper.fundings(0) if int(one.id) < before]
        return [
            {"billId": one.id, "instId": self.market_id, "instType": "SWAP", "ccy": self.instrument.quote,
             "balChg": f"{one.amount}", "posBalChg": "0", "ts": str(one.time_ms), "type": "8"}
            for one in reversed(paid)
        ][:PAGE]  # fmt: skip

    async def _trade_batch_orders(self, asked: Any) -> list[dict[str, Any]]:
        assert isinstance(asked, list) and len(asked) <= 20
        return [self._answer(*one) for one in await self.place([self._request(one) for one in asked])]

    def _request(self, one: dict[str, Any]) -> OrderRequest:
        assert one["instId"] == self.market_id and one["ordType"] in ("limit", "post_only", "ioc")
        assert one["tdMode"] == ("cash" if self.kind == "SPOT" else "cross")
        assert one["clOrdId"].isalnum() and len(one["clOrdId"]) <= 32
        side = 1 if one["side"] == "buy" else -1
        return OrderRequest(
            one["clOrdId"], side, Decimal(one["px"]), Decimal(one["sz"]),
            post_only=one["ordType"] == "post_only", immediate=one["ordType"] == "ioc", reduce_only=one.get("reduceOnly") is True,
        )  # fmt: skip

    def _answer(self, request: OrderRequest, outcome: Outcome) -> dict[str, Any]:
        same = {"clOrdId": request.client_id, "tag": "", "ts": str(now_ms())}
        if isinstance(outcome, Accepted):
            return same | {"ordId": outcome.exchange_id, "sCode": "0", "sMsg": "Order placed"}
        assert isinstance(outcome, Rejected)
        code, message = REFUSALS.get(outcome.reason, ("51000", "Parameter error."))
        return same | {"ordId": "", "sCode": code, "sMsg": message}

    async def _trade_cancel_order(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        return [await self._cancelled(asked)]

    async def _trade_cancel_batch_orders(self, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert len(asked) <= 20
        return [await self._cancelled(one) for one in asked]

    async def _cancelled(self, one: dict[str, Any]) -> dict[str, Any]:
        known = self.find(one.get("ordId"), one.get("clOrdId"))
        same = {
            "clOrdId": known.request.client_id if known else one.get("clOrdId", ""),
            "ordId": known.order_id if known else "",
        }
        if await self.cancel(known):
            return same | {"sCode": "0", "sMsg": ""}
        return same | {
            "sCode": "51400",
            "sMsg": "Cancellation failed as the order has been filled, canceled or does not exist.",
        }

    async def _trade_cancel_all_after(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        seconds = int(asked["timeOut"])
        assert seconds == 0 or 10 <= seconds <= 120
        self.armed_ms = now_ms() + 1_000 * seconds if seconds else None
        return [{"triggerTime": str(self.armed_ms or 0), "ts": str(now_ms())}]

    async def _trade_order(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        known = self.find(asked.get("ordId"), asked.get("clOrdId"))
        if known is None:
            raise Refusal("51603", "Order does not exist")
        return [self._row(known)]

    async def _trade_orders_pending(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        before = int(asked.get("after", 10**18))
        return [self._row(one) for one in self.resting() if int(one.order_id) < before][:PAGE]

    async def _trade_fills_history(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        since_ms, before = int(asked.get("begin", 0)), int(asked.get("after", 10**18))
        i, found = self.instrument, []
        for fill in reversed(self.fills):
            if fill.time_ms >= since_ms and int(fill.trade_id) < before:
                found.append(
                    {"instType": self.kind, "instId": self.market_id, "tradeId": fill.trade_id, "billId": fill.trade_id,
                     "ordId": fill.exchange_id, "clOrdId": fill.client_id, "side": "buy" if fill.side > 0 else "sell",
                     "fillPx": f"{fill.price}", "fillSz": f"{fill.quantity}", "fee": f"{-fill.fee}",
                     "feeCcy": fill.fee_asset or i.quote, "execType": "M" if fill.maker else "T", "ts": str(fill.time_ms)}
                )  # fmt: skip
        return found[:PAGE]

    def _row(self, known: Known) -> dict[str, Any]:
        """Return an order as lists and the stream tell of it."""
        r = known.request
        kind = "post_only" if r.post_only else "ioc" if r.immediate else "limit"
        state = "partially_filled" if known.state == "open" and known.filled else STATES[known.state]
        return {"instType": self.kind, "instId": self.market_id, "ordId": known.order_id, "clOrdId": r.client_id, "px": f"{r.price}",
                "sz": f"{r.quantity}", "side": known.side, "ordType": kind, "state": state, "accFillSz": f"{known.filled}",
                "avgPx": f"{r.price}", "reduceOnly": "true" if r.reduce_only else "false", "cTime": str(known.created_ms),
                "uTime": str(known.updated_ms), "fee": "0", "feeCcy": self.instrument.quote, "tdMode": "cross"}  # fmt: skip

    async def heard(self, line: Line, text: str) -> None:
        """Take a frame from a client."""
        if text == "ping":
            await line.say("pong")
            return
        asked = json.loads(text)
        if asked["op"] == "login":
            (one,) = asked["args"]
            right = one["sign"] == signed(SECRET, one["timestamp"] + "GET/users/self/verify")
            line.user = right and one["apiKey"] == KEY and one["passphrase"] == PASSWORD
            wrong = {"event": "error", "code": "60009", "msg": "Login failed."}
            await line.say({"event": "login", "code": "0", "msg": ""} if line.user else wrong)
            return
        for arg in asked["args"]:
            assert arg["channel"] != "orders" or line.user
            line.topics[arg["channel"]] = arg
            await line.say({"event": "subscribe", "arg": arg})
            if arg["channel"] == "bbo-tbt" and self.touch[0]:
                await self.tell_touch()
            if arg["channel"].startswith("candle"):
                ((at_ms, price),) = self.candles(1)
                row = [str(at_ms), *[f"{price}"] * 4, "3", "3", "3", "0"]
                await line.say({"arg": arg, "data": [row]})

    async def _tell(self, channel: str, *data: Any) -> None:
        for line in self.listening(channel):
            await line.say({"arg": line.topics[channel], "data": list(data)})

    async def tell_touch(self) -> None:
        """Tell who listens of the touch."""
        bid, ask = ([f"{price}", "1", "0", "1"] for price in self.touch)
        await self._tell("bbo-tbt", {"bids": [bid], "asks": [ask], "ts": str(now_ms()), "seqId": now_ms()})

    async def tell_trade(self, price: Decimal, quantity: Decimal) -> None:
        """Tell who listens of a trade of others."""
        about = {
            "instId": self.market_id,
            "tradeId": str(now_ms()),
            "px": f"{price}",
            "sz": f"{quantity}",
            "side": "buy",
        }
        await self._tell("trades", about | {"ts": str(now_ms())})

    async def tell_order(self, known: Known) -> None:
        """Tell the user of an order; its end repeats the last trade, without a quantity."""
        nothing = {
            "tradeId": "",
            "fillPx": "",
            "fillSz": "0",
            "fillFee": "0",
            "fillFeeCcy": "",
            "fillTime": "",
        }
        last = {"tradeId": known.last.trade_id, "fillPx": f"{known.last.price}"} if known.last else {}
        await self._tell("orders", self._row(known) | nothing | last)

    async def tell_fill(self, known: Known, fill: Fill) -> None:
        """Tell the user of a trade."""
        trade = {
            "tradeId": fill.trade_id,
            "fillPx": f"{fill.price}",
            "fillSz": f"{fill.quantity}",
            "fillFee": f"{-fill.fee}",
        }
        trade |= {
            "fillFeeCcy": fill.fee_asset,
            "execType": "M" if fill.maker else "T",
            "fillTime": str(fill.time_ms),
        }
        await self._tell("orders", self._row(known) | trade)


class Row(list):
    """A row of a table that is no object: it has no codes."""

    def get(self, name: str, default: str) -> str:
        """Return the default."""
        return default
