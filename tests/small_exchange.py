"""A small server of an exchange's protocol over the paper exchange: only the calls that gridmm makes.

`okx_server` and `bybit_server` say what it is called there. Both list as their exchange does: cut, and the newest first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from aiohttp import WSMsgType, web

from gridmm.exchange import Accepted, Fill, OrderReport, OrderRequest, Outcome, Rejected, RejectReason
from gridmm.exchange_paper import PaperExchange
from gridmm.paper_account import Row
from gridmm.paper_market import PaperRules
from gridmm.units import Instrument
from gridmm.wire_door import certificate

KEY, SECRET, PASSWORD = "demo", "demo-secret", "demo-password"
GHOSTS = 10**9  # numbers of orders that were taken and then not wanted


def now_ms() -> int:
    """Return the time of day."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Known:
    """An order as the exchange tells of it."""

    request: OrderRequest
    order_id: str
    created_ms: int
    updated_ms: int
    state: str = "open"  # or `filled`, `canceled`
    filled: Decimal = Decimal(0)
    last: Fill | None = None

    @property
    def side(self) -> str:
        """`buy` or `sell`."""
        return "buy" if self.request.side > 0 else "sell"


class Refusal(Exception):
    """What is answered instead of doing it: a code and a sentence."""


class Line:
    """A socket and what is subscribed on it."""

    def __init__(self, socket: web.WebSocketResponse, path: str) -> None:
        self.socket, self.path = socket, path
        self.topics: dict[str, dict[str, Any]] = {}
        self.user = False

    async def say(self, said: Any) -> None:
        """Send a frame; a line that is gone is not told."""
        with contextlib.suppress(ConnectionError):
            await self.socket.send_str(said if isinstance(said, str) else json.dumps(said))


class Served:
    """Something that listens on loopback under an exchange's names, from `async with` to its end.

    Attributes:
        asked: How often each path was asked for.
        heads: Headers of the last request to each path.
    """

    hosts: Sequence[str]

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.heads: dict[str, dict[str, str]] = {}
        self.lines: list[Line] = []

    async def __aenter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.ca_file, chain = certificate(folder, self.hosts)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._arrive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        for line in list(self.lines):
            await line.socket.close()
        await self._runner.cleanup()
        self._stack.close()

    async def _arrive(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            self.asked[request.path] += 1
            self.heads[request.path] = dict(request.headers)
            return await self.rest(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        line = Line(socket, request.path)
        self.lines.append(line)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await self.heard(line, message.data)
        self.lines.remove(line)
        return socket

    async def rest(self, request: web.Request) -> web.Response:
        """Answer a request."""
        raise NotImplementedError

    async def heard(self, line: Line, text: str) -> None:
        """Take a frame from a client."""
        raise NotImplementedError


class Small(Served):
    """A server over the paper exchange.

    Attributes:
        paper: The matching behind it.
    """

    def __init__(self, instrument: Instrument, rules: PaperRules) -> None:
        super().__init__()
        self.instrument = instrument
        self.paper = PaperExchange(instrument, rules, synchronous="OFF")
        self.orders: dict[str, Known] = {}  # by the exchange's number, oldest first
        self.names: dict[str, str] = {}
        self.fills: list[Fill] = []
        self.touch = (Decimal(0), Decimal(0))
        self.armed_ms: int | None = None
        self._ghosts = 0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *about: object) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self.paper.close()
        await super().__aexit__(*about)

    def quote(self, bid: Decimal, ask: Decimal, *quantities: Decimal) -> None:
        """Move the touch."""
        i = self.instrument
        self.touch = (bid, ask)
        self.paper.advance(Row.QUOTE, now_ms(), i.price_ticks(bid), i.price_ticks(ask), 1_000, 1_000)
        self.later(self.tell_touch())

    def trade(self, price: Decimal, quantity: Decimal) -> None:
        """Print a trade of others."""
        i = self.instrument
        self.paper.advance(Row.TRADE, now_ms(), i.price_ticks(price), i.lots(quantity))
        self.later(self.tell_trade(price, quantity))

    def fund(self, rate: Decimal) -> None:
        """Settle funding."""
        self.paper.advance(Row.FUNDING, now_ms(), int(rate.scaleb(8)))

    def later(self, work: Any) -> None:
        """Do it when the loop comes round; keep a hold on it meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks = {*getattr(self, "_tasks", set()), task}
        task.add_done_callback(lambda done: self._tasks.discard(done))

    async def _follow(self) -> None:
        """Learn what happens in the matching, and tell who listens."""
        async for event in self.paper.stream():
            known = self.orders.get(event.exchange_id) if isinstance(event, Fill | OrderReport) else None
            if known is None:
                continue
            if isinstance(event, Fill):
                known.filled += event.quantity
                known.last, known.updated_ms = event, event.time_ms
                known.state = "filled" if known.filled == known.request.quantity else "open"
                self.fills.append(event)
                await self.tell_fill(known, event)
            elif isinstance(event, OrderReport) and event.status not in ("open", "filled", "rejected"):
                known.state, known.updated_ms = "canceled", event.time_ms
                await self.tell_order(known)

    async def place(self, requests: Sequence[OrderRequest]) -> list[tuple[OrderRequest, Outcome]]:
        """Hand orders to the matching, and note those that it takes.

        One that would take although it must not is accepted and cancelled at once, as these exchanges do.
        """
        found: list[tuple[OrderRequest, Outcome]] = []
        for request, outcome in zip(requests, await self.paper.place(requests), strict=True):
            said, ghost = outcome, False
            if isinstance(said, Rejected) and said.reason == RejectReason.POST_ONLY:
                self._ghosts += 1
                said, ghost = Accepted(request.client_id, str(GHOSTS + self._ghosts)), True
            if isinstance(said, Accepted):
                at_ms = now_ms()
                known = Known(request, said.exchange_id, at_ms, at_ms)
                self.orders[said.exchange_id], self.names[request.client_id] = known, said.exchange_id
                await self.tell_order(known)
                if ghost:
                    known.state = "canceled"
                    await self.tell_order(known)
            found.append((request, said))
        return found

    async def cancel(self, known: Known | None) -> bool:
        """Cancel an order, and tell whether there was anything to cancel."""
        if known is None or known.state != "open":
            return False
        (outcome,) = await self.paper.cancel([known.request.client_id])
        return isinstance(outcome, Accepted)

    def find(self, order_id: str | None, client_id: str | None) -> Known | None:
        """Return an order by either name."""
        return self.orders.get(order_id or self.names.get(client_id or "", ""))

    def resting(self) -> list[Known]:
        """Return open orders, the newest first."""
        return [one for one in reversed(self.orders.values()) if one.state == "open"]

    def listening(self, topic: str) -> Iterable[Line]:
        """Return who has subscribed to a topic."""
        return [line for line in self.lines if topic in line.topics]

    def candles(self, count: int) -> list[tuple[int, Decimal]]:
        """Return the begin and the price of the last minutes, the newest first: a market that stood still."""
        price = (self.touch[0] + self.touch[1]) / 2
        last_ms = now_ms() // 60_000 * 60_000
        return [(last_ms - 60_000 * k, price) for k in range(count)]

    async def tell_touch(self) -> None:
        """Tell who listens of the touch."""
        raise NotImplementedError

    async def tell_trade(self, price: Decimal, quantity: Decimal) -> None:
        """Tell who listens of a trade of others."""
        raise NotImplementedError

    async def tell_order(self, known: Known) -> None:
        """Tell the user of an order."""
        raise NotImplementedError

    async def tell_fill(self, known: Known, fill: Fill) -> None:
        """Tell the user of a trade."""
        raise NotImplementedError
