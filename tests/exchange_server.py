"""The paper exchange in a process of its own: what an engine trades on while it is killed and started again.

    python tests/exchange_server.py --config grid.toml --tape PATH --ledger FILE
    python tests/exchange_server.py --demo 1 --pace 20

It prints two addresses, a line each: of the exchange, for `remote_exchange.RemoteExchange`, and of its
control, for `remote_exchange.Control`. Market, rules and account are those that `gridmm run` would use with
the same configuration; the market moves on command, or by itself with --pace. It listens on the loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiohttp import web

from exchange_audit import Auditor
from exchange_faults import CALLS, Fault, Faults
from exchange_wire import opened, thing, wire
from gridmm.config import Config, load
from gridmm.demo_market import DemoMarket
from gridmm.exchange import OrderRequest, Outcome, Rejected, RejectReason
from gridmm.exchange_paper import PaperExchange
from gridmm.feed import Market, Moment, moments, standing
from gridmm.layout import Par
from gridmm.paper_market import PaperRules
from gridmm.parameters import instrument_of, par_vector
from gridmm.run import Rows, first_price, open_market, paper_rules

HOST = "127.0.0.1"
BACKLOG_FRAMES = 10_000  # a client that is further behind is cut off: it must not hold up the exchange


class Line:
    """One open stream to one client."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG_FRAMES)

    def say(self, frame: bytes | None) -> None:
        """Send a frame when the client takes it; None ends the stream in order."""
        try:
            self._frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.cut()

    def cut(self) -> None:
        """Drop the connection without a word."""
        self._transport.abort()

    async def serve(self, socket: web.WebSocketResponse) -> None:
        """Send frames until the stream ends or is cut."""
        with contextlib.suppress(ConnectionError):
            while (frame := await self._frames.get()) is not None:
                await socket.send_bytes(frame)
            await socket.close()


class ExchangeServer:
    """The exchange, its market, its faults and its auditor.

    Attributes:
        paper: The paper exchange.
        faults: What goes wrong.
        auditor: What it finds.
        address: Of the exchange, once started.
        control: Of the control, once started.
    """

    def __init__(
        self,
        paper: PaperExchange,
        market: Market,
        *,
        cap: Decimal | None = None,
        candle_ms: int = 60_000,
        today: bool = False,
    ) -> None:
        self.paper, self.faults, self.auditor = paper, Faults(), Auditor(paper, cap)
        self.address = self.control = ""
        self.ended, self._today = False, today
        self._calls: Counter[str] = Counter()
        self._moments = moments(market, paper.resume_row, candle_ms)
        self._rows, self._shown = Rows(market), standing(market, paper.resume_row, candle_ms)
        self._passed = asyncio.Event()
        self._sequence = 0
        self._held: list[bytes] = []
        self._lines: set[Line] = set()
        self._watchers: set[Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Lock()
        self._silent_until_s = 0.0
        self._down = asyncio.Lock()

    # -- listening

    async def start(self, port: int = 0, control_port: int = 0) -> None:
        """Listen; ports are chosen where they are 0."""
        exchange, control = web.Application(), web.Application()
        exchange.add_routes(
            [
                web.get("/stream", self._stream),
                web.get("/moments", self._watch),
                web.post("/{call}", self._call),
            ]
        )
        control.add_routes(
            [
                web.post("/advance", self._advance),
                web.post("/faults", self._set_faults),
                web.get("/audit", self._audit),
            ]
        )
        self._runner, self._controller = (
            web.AppRunner(app, access_log=None, shutdown_timeout=0.1) for app in (exchange, control)
        )
        await self._runner.setup()
        await self._controller.setup()
        self._site = web.TCPSite(self._runner, HOST, port)
        await self._site.start()
        await web.TCPSite(self._controller, HOST, control_port).start()
        self._port = int(self._runner.addresses[0][1])
        self.address = f"http://{HOST}:{self._port}"
        self.control = f"http://{HOST}:{self._controller.addresses[0][1]}"

    async def close(self) -> None:
        """Stop listening, cut everybody off and close the ledger."""
        for task in list(self._tasks):
            task.cancel()
        self._cut_all()
        await self.paper.close()
        await self._runner.cleanup()
        await self._controller.cleanup()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cut_all(self) -> None:
        """Drop every connection to the exchange."""
        server = self._runner.server
        assert server is not None
        for connection in server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _be_down(self, down_s: float) -> None:
        """Refuse connections for a while."""
        async with self._down:
            await asyncio.sleep(down_s)
            self._site = web.TCPSite(self._runner, HOST, self._port)
            await self._site.start()

    # -- the promise

    async def _call(self, request: web.Request) -> web.Response:
        """Answer one call of the promise, if nothing goes wrong."""
        call = request.match_info["call"]
        if call not in CALLS - {"stream"}:
            raise web.HTTPNotFound(text=f"there is no call {call!r}: use one of {', '.join(sorted(CALLS))}")
        question = wire().Question.FromString(await request.read())
        self._calls[call] += 1
        silent_s = self._silent_until_s - asyncio.get_running_loop().time()
        if silent_s > 0:
            await asyncio.sleep(silent_s)
            return _drop(request)
        if self.faults.strikes(Fault.REQUEST_LOST, call):
            return _drop(request)
        answer = wire().Answer(things=[thing(one) for one in await self._carry_out(call, question)])
        await self._look()
        if self.faults.strikes(Fault.ANSWER_LOST, call):
            return _drop(request)
        if self.faults.strikes(Fault.LATE_ANSWER, call):
            await asyncio.sleep(self.faults.delay_s)
        return web.Response(body=answer.SerializeToString())

    async def _carry_out(self, call: str, question: Any) -> list[Any]:
        """Do what is asked."""
        paper = self.paper
        match call:
            case "place":
                orders = [opened(box) for box in question.things]
                for fault, reason in (
                    (Fault.RATE_LIMIT, RejectReason.RATE_LIMIT),
                    (Fault.FUNDS, RejectReason.FUNDS),
                ):
                    if self.faults.strikes(fault, call):
                        return [
                            Rejected(order.client_id, reason, "refused by the fault switch")
                            for order in orders
                        ]
                return list[Any](await paper.place(orders))
            case "cancel" | "cancel_all":
                return list[Any](await self._cancel(call, list(question.client_ids)))
            case "order":
                return [await paper.order(client_id) for client_id in question.client_ids]
            case "fills" | "fundings":
                return list[Any](await getattr(paper, call)(question.since_ms))
            case _:
                return list[Any](await getattr(paper, call)())

    async def _cancel(self, call: str, client_ids: list[str]) -> list[Outcome]:
        """Cancel, now or after the next moment."""
        if self.faults.strikes(Fault.RATE_LIMIT, call):
            return [
                Rejected(one, RejectReason.RATE_LIMIT, "refused by the fault switch") for one in client_ids
            ]
        if self.faults.strikes(Fault.LATE_CANCEL, call):
            await self._passed.wait()
        return await (self.paper.cancel_all() if call == "cancel_all" else self.paper.cancel(client_ids))

    # -- streams

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        """Say what happens to orders from now on."""
        return await self._serve(
            request, self._lines, wire().Frame(sequence=self._sequence).SerializeToString()
        )

    async def _watch(self, request: web.Request) -> web.WebSocketResponse:
        """Show the market as it stands, then every moment."""
        first = [] if self._shown is None else [_frame(self._shown)]
        return await self._serve(request, self._watchers, *first, *([None] if self.ended else []))

    async def _serve(
        self, request: web.Request, lines: set[Line], *first: bytes | None
    ) -> web.WebSocketResponse:
        """Keep a client's stream until either side ends it."""
        # Registered before the handshake is answered: what happens after it, the client hears.
        transport = request.transport
        assert transport is not None
        line = Line(transport)
        for frame in first:
            line.say(frame)
        lines.add(line)
        socket = web.WebSocketResponse()
        try:
            await socket.prepare(request)
            sending = asyncio.create_task(line.serve(socket))
            try:
                async for _ in socket:
                    pass
            finally:
                sending.cancel()
        finally:
            lines.discard(line)
        return socket

    async def _look(self) -> None:
        """Say what the exchange has to say, and let the auditor look at it."""
        for event in self.paper.drain():
            self._publish(event)
        await self.auditor.check()

    def _publish(self, event: Any) -> None:
        """Number an event and say it, as the faults will have it."""
        self._sequence += 1
        frame = _frame(event, self._sequence)
        if self.faults.strikes(Fault.STREAM_CUT, "stream"):
            for line in list(self._lines):
                line.cut()
            self._lines.clear()
        elif not self._held and self.faults.strikes(Fault.REORDERED_EVENT, "stream"):
            self._held.append(frame)
            return
        for _ in range(2 if self.faults.strikes(Fault.DUPLICATED_EVENT, "stream") else 1):
            self._say(frame)
        self._let_go()

    def _let_go(self) -> None:
        """Say what was held back."""
        for frame in self._held:
            self._say(frame)
        self._held.clear()

    def _say(self, frame: bytes) -> None:
        for line in self._lines:
            line.say(frame)

    # -- the market

    async def pass_moments(self, count: int, pause_s: float = 0.0) -> int:
        """Let the market move on; return by how many moments, fewer than asked where it ends."""
        async with self._moving:
            for done in range(count):
                moment = next(self._moments, None)
                if moment is None:
                    self._end()
                    return done
                await self._apply(moment)
                await asyncio.sleep(pause_s)
        return count

    async def _apply(self, moment: Moment) -> None:
        """Let one moment happen."""
        if self._today:
            now_ms = max(time.time_ns() // 1_000_000, self.paper.now_ms)
            candles = tuple(candle._replace(time_ms=now_ms) for candle in moment.candles)
            moment = moment._replace(time_ms=now_ms, candles=candles)
        for index, time_ms, kind, a, b, c, d in self._rows(moment.first, moment.end):
            self.paper.advance(kind, moment.time_ms if self._today else time_ms, a, b, c, d, index)
        self._let_go()
        await self._look()
        # Whoever comes later is told the last candle again, as after a restart of `gridmm run`.
        known = self._shown.candles[-1:] if self._shown is not None else ()
        self._shown = moment if moment.candles else moment._replace(candles=known)
        frame = _frame(moment)
        for line in self._watchers:
            line.say(frame)
        self._passed.set()
        self._passed = asyncio.Event()

    def _end(self) -> None:
        """Tell those who watch that the market is over."""
        self.ended = True
        for line in self._watchers:
            line.say(None)

    async def keep_pace(self, pace_ms: int) -> None:
        """Let the market move by itself, a moment every `pace_ms` of wall-clock time, until it ends."""
        while not self.ended:
            await self.pass_moments(1, pace_ms / 1_000)

    # -- control

    async def _advance(self, request: web.Request) -> web.Response:
        asked = wire().Advance.FromString(await request.read())
        done = await self.pass_moments(asked.moments, asked.pause_ms / 1_000)
        about = {"time_ms": self.paper.now_ms, "row": self.paper.resume_row, "ended": self.ended}
        return web.Response(body=wire().Advanced(moments=done, **about).SerializeToString())

    async def _set_faults(self, request: web.Request) -> web.Response:
        """Change what goes wrong."""
        asked = wire().Faults.FromString(await request.read())
        try:
            if asked.HasField("seed"):
                self.faults.rates(asked.seed, asked.per_mille)
            self.faults.once(asked.once)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        if asked.delay_ms:
            self.faults.delay_s = asked.delay_ms / 1_000
        if asked.silent_ms:
            self.faults.struck["silent"] += 1
            self._silent_until_s = asyncio.get_running_loop().time() + asked.silent_ms / 1_000
        if asked.down_ms:
            if self._down.locked():
                raise web.HTTPBadRequest(text="the exchange is down already: wait until it is back")
            self.faults.struck["down"] += 1
            await self._site.stop()
            self._cut_all()
            self._begin(self._be_down(asked.down_ms / 1_000))
        return web.Response()

    async def _audit(self, _: web.Request) -> web.Response:
        """Say what the auditor found."""
        auditor = self.auditor
        orders, fills, refused = auditor.counts()
        found = [wire().Violation(**asdict(violation)) for violation in auditor.violations()]
        audit = wire().Audit(
            violations=found,
            checks=auditor.checks,
            orders=orders,
            fills=fills,
            refused=refused,
            faults={name: count for name, count in self.faults.struck.items() if count},
            calls=self._calls,
            position=f"{auditor.position:f}",
            open_orders=len(await self.paper.open_orders()),
            time_ms=self.paper.now_ms,
            exposure_max=f"{auditor.exposure_max:f}",
            cap="" if auditor.cap is None else f"{auditor.cap:f}",
        )
        return web.Response(body=audit.SerializeToString())


def _drop(request: web.Request) -> web.Response:
    """Drop the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _frame(one: Any, sequence: int = 0) -> bytes:
    return bytes(wire().Frame(sequence=sequence, thing=thing(one)).SerializeToString())


def server_of(
    config: Config,
    ledger: Path | None,
    *,
    cap: Decimal | None = None,
    today: bool = False,
    synchronous: str = "OFF",
) -> ExchangeServer:
    """Return the exchange that `gridmm run` would trade on with this configuration.

    Args:
        config: Names the market and describes the account.
        ledger: Its file, which is continued if it is there; None keeps it in memory.
        cap: Largest exposure that the auditor allows, base; None takes the configuration's max_position.
        today: Whether the market's times are those of the wall's clock, whenever it was recorded.
        synchronous: How surely the ledger is written; `OFF` outlives a killed process, but no power cut.
    """
    market, config, _ = open_market(config)
    instrument, settings = instrument_of(config.settings), config.settings
    price = instrument.price(first_price(market))
    if cap is None:
        equity = settings.paper.equity + settings.paper.base * price
        par = par_vector(settings, instrument, equity=equity, price=price)
        cap = instrument.quantity(int(par[Par.MAX_LOTS]))
    paper = PaperExchange(instrument, paper_rules(config), ledger, tape=market.sha, synchronous=synchronous)
    return ExchangeServer(paper, market, cap=cap, candle_ms=settings.atr.candle, today=today)


async def warm_up() -> None:
    """Load, or compile, the matching on a throwaway exchange: else the first calls of a test would run late."""
    market = DemoMarket()
    paper = PaperExchange(market.instrument, PaperRules(), synchronous="OFF")
    rows = Rows(market)
    for index, time_ms, kind, a, b, c, d in rows(0, 10):
        paper.advance(kind, time_ms, a, b, c, d, index)
    order = OrderRequest("WARM", +1, Decimal(50_000), market.instrument.lot)
    await paper.place([order])
    await paper.balances()
    await paper.cancel_all()
    await paper.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The paper exchange in a process of its own, for tests.")
    parser.add_argument("--config", type=Path, help="configuration of the grid that trades here")
    market = parser.add_mutually_exclusive_group()
    market.add_argument("--tape", help="play this recording")
    market.add_argument("--demo", type=int, help="play the demo market of this number")
    parser.add_argument("--latency", help="from the engine to the exchange and back, such as '40 ms'")
    parser.add_argument("--ledger", type=Path, help="the exchange's own file; in memory where left out")
    parser.add_argument(
        "--cap", type=Decimal, help="largest exposure, base; the grid's max_position where left out"
    )
    parser.add_argument(
        "--pace", type=int, metavar="MS", help="a moment every MS milliseconds; else on command"
    )
    parser.add_argument("--today", action="store_true", help="show the wall's clock instead of the market's")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    return parser.parse_args()


def _config(given: argparse.Namespace) -> Config:
    options: dict[str, tuple[object, str]] = {}
    if given.tape is not None:
        options["feed.source"] = (f"tape:{given.tape}", "--tape")
    if given.demo is not None:
        options |= {"feed.source": ("demo", "--demo"), "feed.market": (given.demo, "--demo")}
    if given.latency is not None:
        options["paper.latency"] = (given.latency, "--latency")
    return load(given.config, environ={}, options=options)


async def _main(given: argparse.Namespace) -> None:
    """Serve until a signal or the end of standard input."""
    await warm_up()
    server = server_of(_config(given), given.ledger, cap=given.cap, today=given.today)
    await server.start(given.port, given.control_port)
    print(server.address, server.control, sep="\n", flush=True)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if given.until_eof:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    pace = loop.create_task(server.keep_pace(given.pace)) if given.pace is not None else None
    if pace is not None:
        # A defect of the exchange must end the process rather than leave a market that stands still.
        pace.add_done_callback(lambda task: stop.set() if not task.cancelled() and task.exception() else None)
    await stop.wait()
    if pace is not None and not pace.cancel():
        pace.result()
    await server.close()


if __name__ == "__main__":
    asyncio.run(_main(_arguments()))
