"""An exchange in another process: the promise of `gridmm.exchange` kept over a socket, and the control of its server.

Every command ends in one of four ways, and none of them is a guess: what could not be connected, or came after
its deadline, was not sent; what was sent and not answered is unknown.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from exchange_wire import opened, thing, wire
from gridmm.errors import ExchangeUnreachable
from gridmm.exchange import (
    Absent,
    Balance,
    Fill,
    Funding,
    NotSent,
    OrderReport,
    OrderRequest,
    Outcome,
    Position,
    StreamEvent,
    Unknown,
)
from gridmm.feed import Moment
from gridmm.units import Instrument

HERE = Path(__file__).parent


def wall_ms() -> int:
    """Return the time of day, milliseconds of the Unix epoch."""
    return time.time_ns() // 1_000_000


class Unsent(Exception):
    """The call did not leave this process."""


class Unanswered(Exception):
    """The call left this process, and no whole answer came back."""


class RemoteExchange:
    """Keeps the promise of `gridmm.exchange.Exchange` over the server of `exchange_server`.

    Attributes:
        name: What exchanges are called in messages.
        timeout_s: How long to wait for a connection, and again for an answer.
        streaming: Set while the user stream is open: what happens from then on is heard, so reconcile after it.
        missed: Events that happened between two streams of this client, so far.
    """

    name = "remote paper"
    absent_after_ms = 500

    def __init__(
        self, address: str, *, timeout_s: float = 2.0, clock_ms: Callable[[], int] = wall_ms
    ) -> None:
        """Remember where the exchange is; nothing is connected yet.

        Args:
            address: First line that the server prints.
            timeout_s: How long to wait for a connection, and again for an answer.
            clock_ms: The clock that deadlines are read against.
        """
        self._address, self._clock_ms, self.timeout_s = address, clock_ms, timeout_s
        self.streaming = asyncio.Event()
        self.missed = 0
        self._last_sequence: int | None = None
        self._session: aiohttp.ClientSession | None = None
        self._closing = asyncio.Event()
        self._waiting: set[asyncio.Task[bytes]] = set()

    # -- commands

    async def place(self, requests: Sequence[OrderRequest], deadline_ms: int | None = None) -> list[Outcome]:
        """Place orders, each in a call of its own; one answer each, in order.

        Args:
            requests: The orders.
            deadline_ms: Wall-clock time from which on nothing is sent any more.
        """
        calls = (
            self._command(request.client_id, "place", deadline_ms, things=[thing(request)])
            for request in requests
        )
        return [outcome for outcomes in await asyncio.gather(*calls) for outcome in outcomes]

    async def cancel(self, client_ids: Sequence[str], *, deadline_ms: int | None = None) -> list[Outcome]:
        """Cancel orders by client id, each in a call of its own; one answer each, in order."""
        calls = (self._command(one, "cancel", deadline_ms, client_ids=[one]) for one in client_ids)
        return [outcome for outcomes in await asyncio.gather(*calls) for outcome in outcomes]

    async def cancel_all(self, *, deadline_ms: int | None = None) -> list[Outcome]:
        """Cancel every open order; one answer for each, or a single one without an id where none came."""
        return await self._command("", "cancel_all", deadline_ms)

    async def _command(
        self, client_id: str, call: str, deadline_ms: int | None, **question: Any
    ) -> list[Outcome]:
        """Send a command and say honestly what came of it."""
        try:
            return await self._ask(call, deadline_ms, **question)
        except Unsent as error:
            return [NotSent(client_id, str(error))]
        except Unanswered as error:
            return [Unknown(client_id, str(error))]

    # -- questions

    async def instruments(self) -> list[Instrument]:
        """Return the one market."""
        return await self._query("instruments")

    async def balances(self) -> list[Balance]:
        """Return what the account holds."""
        return await self._query("balances")

    async def positions(self) -> list[Position]:
        """Return open positions; empty on spot."""
        return await self._query("positions")

    async def order(self, client_id: str) -> OrderReport | Absent:
        """Return what the exchange knows of one order, open or ended."""
        (said,) = await self._query("order", client_ids=[client_id])
        return said

    async def open_orders(self) -> list[OrderReport]:
        """Return all open orders of the account."""
        return await self._query("open_orders")

    async def fills(self, since_ms: int) -> list[Fill]:
        """Return our trades from `since_ms` on, oldest first."""
        return await self._query("fills", since_ms=since_ms)

    async def fundings(self, since_ms: int) -> list[Funding]:
        """Return funding payments from `since_ms` on, oldest first."""
        return await self._query("fundings", since_ms=since_ms)

    async def _query(self, call: str, **question: Any) -> list[Any]:
        """Ask, or say that there is no answer.

        Raises:
            ExchangeUnreachable: No answer came.
        """
        try:
            return await self._ask(call, None, **question)
        except (Unsent, Unanswered) as error:
            raise self._unreachable(f"{call} was not answered", str(error)) from error

    def _unreachable(self, what: str, why: str) -> ExchangeUnreachable:
        return ExchangeUnreachable(what, why, "Try again; it may be back", self._address)

    # -- the socket

    async def _ask(self, call: str, deadline_ms: int | None, **question: Any) -> list[Any]:
        """Send a question and return what is answered; `close` ends the wait."""
        if self._closing.is_set():
            raise Unsent("this client is closed")
        body = wire().Question(**question).SerializeToString()
        task = asyncio.create_task(self._post(call, body, deadline_ms))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        try:
            answer = await task
        except asyncio.CancelledError:
            if not self._closing.is_set():
                task.cancel()  # the caller was cancelled, and the call with it
                raise
            raise Unanswered("the client was closed before an answer came") from None
        return [opened(box) for box in wire().Answer.FromString(answer).things]

    async def _post(self, call: str, body: bytes, deadline_ms: int | None) -> bytes:
        """Send one request over a connection of its own; what happens before the first byte is known not to count.

        Raises:
            Unsent: Not a byte was sent.
            Unanswered: Something was sent, and no whole answer came.
            RuntimeError: The server does not understand us: a defect of the tests.
        """
        at = urlsplit(self._address)
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await asyncio.open_connection(at.hostname, at.port)
        except (OSError, TimeoutError) as error:
            raise Unsent(f"no connection to {self._address}: {error or 'no answer in time'}") from error
        try:
            if deadline_ms is not None and self._clock_ms() >= deadline_ms:
                raise Unsent(
                    f"its deadline was {deadline_ms}, it was {self._clock_ms()} when it could be sent"
                )
            head = f"POST /{call} HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            try:
                async with asyncio.timeout(self.timeout_s):
                    raw = await reader.read()
            except TimeoutError as error:
                raise Unanswered(f"no answer within {self.timeout_s} s") from error
            except OSError as error:
                raise Unanswered(f"the connection was lost: {error}") from error
        finally:
            writer.close()
        return _answer_in(raw)

    # -- streams

    async def stream(self) -> AsyncIterator[StreamEvent]:
        """Yield reports, fills and funding as they come, until this client is closed.

        Raises:
            ExchangeUnreachable: There is no stream, or it was cut: open a new one, then reconcile.
        """
        try:
            async for frame in self._frames("stream"):
                if frame.HasField("thing"):
                    self._last_sequence = max(self._last_sequence or 0, frame.sequence)
                    yield opened(frame.thing)
                else:
                    if self._last_sequence is not None:
                        self.missed += max(0, frame.sequence - self._last_sequence)
                    self._last_sequence = frame.sequence
                    self.streaming.set()
        finally:
            self.streaming.clear()

    async def moments(self) -> AsyncIterator[Moment]:
        """Yield the market as it stands, then each moment as it passes, until the market ends.

        Raises:
            ExchangeUnreachable: There is no connection, or it was cut.
        """
        async for frame in self._frames("moments"):
            yield opened(frame.thing)

    async def _frames(self, path: str) -> AsyncIterator[Any]:
        """Yield frames until the server ends the stream in order, or this client is closed."""
        if self._closing.is_set():
            return
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            timeout = aiohttp.ClientWSTimeout(ws_close=self.timeout_s)
            async with self._session.ws_connect(f"{self._address}/{path}", timeout=timeout) as socket:
                async for message in socket:
                    yield wire().Frame.FromString(message.data)
                if self._closing.is_set() or socket.close_code == aiohttp.WSCloseCode.OK:
                    return
        except (aiohttp.ClientError, OSError) as error:
            if self._closing.is_set():
                return
            raise self._unreachable(
                f"the stream {path} was lost", str(error) or type(error).__name__
            ) from error
        raise self._unreachable(f"the stream {path} was lost", "the connection was cut")

    async def close(self) -> None:
        """Give back connections; calls still waiting end as `Unknown`, streams end."""
        self._closing.set()
        for task in list(self._waiting):
            task.cancel()
        if self._session is not None:
            await self._session.close()


def _answer_in(raw: bytes) -> bytes:
    """Return the body of an HTTP answer.

    Raises:
        Unanswered: It is not whole.
        RuntimeError: It is a refusal.
    """
    head, end, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if not end or len(body) != int(fields.get("content-length", "-1")):
        raise Unanswered(f"the connection was lost after {len(raw)} bytes of the answer")
    if first.split(" ")[1] != "200":
        raise RuntimeError(f"the exchange refused to understand: {first}: {body.decode()}")
    return body


class Control:
    """What a test does to the exchange; blocking, so not for the loop that the server runs in.

    Attributes:
        address: Second line that the server prints.
    """

    def __init__(self, address: str, timeout_s: float = 60.0) -> None:
        self.address, self._timeout_s = address, timeout_s

    def advance(self, moments: int = 1, pause_ms: int = 0) -> Any:
        """Let the market move on and return `Advanced`."""
        asked = wire().Advance(moments=moments, pause_ms=pause_ms)
        return wire().Advanced.FromString(self._send("advance", asked.SerializeToString()))

    def faults(self, **asked: Any) -> None:
        """Change what goes wrong; arguments are the fields of `Faults`."""
        self._send("faults", wire().Faults(**asked).SerializeToString())

    def audit(self) -> Any:
        """Return the auditor's `Audit`."""
        return wire().Audit.FromString(self._send("audit", None))

    def _send(self, path: str, body: bytes | None) -> bytes:
        """Send; a refusal is a ValueError with the server's words."""
        request = urllib.request.Request(f"{self.address}/{path}", data=body)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from error


@contextmanager
def exchange_process(*options: str | Path) -> Iterator[tuple[str, Control]]:
    """Run `exchange_server.py` with these options; yields the exchange's address and its control.

    The process ends with the block, and also with this process, however that ends.
    """
    command = [sys.executable, str(HERE / "exchange_server.py"), "--until-eof", *map(str, options)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        address, control = (process.stdout.readline().strip() for _ in range(2))
        if not control:
            raise RuntimeError(f"the exchange did not start: it exited {process.wait(timeout=30)}")
        yield address, Control(control)
        assert process.poll() is None, f"the exchange ended on its own with {process.returncode}"
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        process.kill()
        process.stdout.close()
        process.wait()
