"""A wire that can be cut: connections through it stay open and silent, new ones are never answered."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress


class Relay:
    """Hands bytes to another port of the loopback and back, until it is cut.

    What is sent into a cut wire is lost. When it is mended, what was open during the cut is reset, as a router does
    that has forgotten it.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        """Listen for a server on `port` of the loopback."""
        self._to, self._whole, self.port = port, True, 0
        self._open: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        ready: Future[None] = Future()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.result(timeout=10)

    def close(self) -> None:
        """Carry nothing any more."""

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def cut(self) -> None:
        """Let nothing through any more."""
        self._whole = False

    def mend(self) -> None:
        """Let everything through again; reset what was open."""
        self._whole = True
        self._loop.call_soon_threadsafe(self._reset)

    def _reset(self) -> None:
        for writer in self._dead | self._open:
            writer.transport.abort()

    def _run(self, ready: Future[None]) -> None:
        async def listen() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = int(server.sockets[0].getsockname()[1])
            ready.set_result(None)

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(listen())
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        if not self._whole:
            self._dead.add(writer)
            return
        with suppress(OSError, asyncio.CancelledError):  # cancelled only when nothing is carried any more
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            self._open |= {writer, back}
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer))
            self._open -= {writer, back}

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Carry one direction to its end."""
        with suppress(OSError):
            while data := await source.read(65_536):
                if self._whole:
                    target.write(data)
                    await target.drain()
        with suppress(OSError):
            target.close()
