"""A Durable engine in a process of its own, on an exchange in another one: what the kill tests kill.

    python tests/durable_child.py --db URL --exchange ADDRESS [--ca FILE] --config FILE [--die MOMENT:N] [--pause MOMENT:N]

It prints a line when it comes to each named moment, so that a test can count on which of them a kill fell; `--die`
ends it without warning at the Nth time that it comes to that moment. SIGTERM asks it to cancel and stop; its last
line is then the receipt.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gridmm.commands import Mailbox
from gridmm.config import Config, load
from gridmm.engine_durable import SEND_MS, DurableEngine, endure
from gridmm.errors import GridmmError
from gridmm.exchange import OrderReport, Outcome
from gridmm.exchange_live import LiveExchange
from gridmm.feed import Price
from gridmm.host import Host, queue_of
from gridmm.live import Entrance, LiveSession
from gridmm.run import open_session, utc_clock, wall_ms
from gridmm.store import SqlStore
from gridmm.tables import open_database
from gridmm.v1.state_pb2 import State
from gridmm.vocabulary import Stop
from remote_exchange import RemoteExchange

KEYS = {"GRIDMM_PAPER_API_KEY": "demo", "GRIDMM_PAPER_API_SECRET": "demo-secret"}
MOMENTS = ("before commit", "after commit", "before send", "after send", "reconcile", "stop")


class Moments:
    """Counts named moments and does what was asked for at one of them."""

    def __init__(self, die: str, pause: str) -> None:
        self._die, self._pause = (_asked(text) for text in (die, pause))
        self._seen: dict[str, int] = {}

    def __call__(self, name: str) -> None:
        """Come to a moment."""
        count = self._seen[name] = self._seen.get(name, 0) + 1
        os.write(1, f"at {name}\n".encode())
        if (name, count) == self._die:
            os.kill(os.getpid(), signal.SIGKILL)
        if (name, count) == self._pause:
            os.kill(os.getpid(), signal.SIGSTOP)


def _asked(text: str) -> tuple[str, int]:
    name, _, count = text.partition(":")
    return name.replace("_", " "), int(count or 0)


def watch(come: Moments, kind: type[RemoteExchange | LiveExchange]) -> None:
    """Make commits, and the calls of a kind of exchange, named moments.

    Once it is saved that the grid stops, every save and every cancel is a moment of the stop; open orders are asked for
    when a start reconciles.
    """
    save, place, cancel, open_orders = SqlStore.save, kind.place, kind.cancel, kind.open_orders
    stopping: list[bool] = []

    def saved(self: SqlStore, state: State, *about: Any, **more: Any) -> None:
        come("before commit")
        save(self, state, *about, **more)
        come("after commit")
        stopping[:] = [True] * (state.risk.stop - 1 > Stop.RUN)
        if stopping:
            come("stop")

    async def placed(self: Any, *about: Any, **more: Any) -> list[Outcome]:
        come("before send")
        outcomes = await place(self, *about, **more)
        come("after send")
        return outcomes

    async def canceled(self: Any, *about: Any, **more: Any) -> list[Outcome]:
        if stopping:
            come("stop")
        return await cancel(self, *about, **more)

    async def asked(self: Any) -> list[OrderReport]:
        come("reconcile")
        return await open_orders(self)

    SqlStore.save = saved  # type: ignore[method-assign]
    kind.place, kind.cancel, kind.open_orders = placed, canceled, asked  # type: ignore[method-assign]


async def ticks_of(exchange: RemoteExchange, config: Config) -> AsyncIterator[Price]:
    """Yield the exchange's market as the engine wants it."""
    async for moment in exchange.moments():
        if moment.fresh and moment.bid > 0:
            about = (moment.bid, moment.ask, moment.last, moment.bid_lots, moment.ask_lots)
            yield Price(*about, moment.candles)


def say(line: str) -> None:
    """Tell the test what a person would be told."""
    print(f"says {line}", flush=True)


async def on_the_wire(config: Config, given: argparse.Namespace, come: Moments) -> None:
    """Trade through ccxt, as `gridmm run --exchange` does."""
    watch(come, LiveExchange)
    entrance = Entrance("binance", endpoint=given.exchange, ca=given.ca)
    session = LiveSession(config, entrance, Path(given.db), say)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, session.ask, Stop.CANCEL)
    print(json.dumps((await session.trade(KEYS))._asdict()), flush=True)


async def main(given: argparse.Namespace) -> int:
    """Trade until SIGTERM, and print the receipt."""
    come = Moments(given.die, given.pause)
    config = load(given.config, environ={}, options={"feed.source": ("demo", "test")})
    DurableEngine.send_ms = given.send_ms
    if given.ca is not None:
        try:
            await on_the_wire(config, given, come)
        except GridmmError as error:
            say(str(error))
            os._exit(int(error.exit_code))
        return 0
    database = open_database(given.db)
    watch(come, RemoteExchange)

    clock = utc_clock()

    def watched_ms() -> int:
        now_ms = clock()
        come("deadline read")
        return now_ms

    exchange = RemoteExchange(given.exchange, timeout_s=1.0, clock_ms=watched_ms)
    instrument = (await exchange.instruments())[0]
    store = SqlStore(database, instrument.symbol)
    engines: list[DurableEngine] = []
    how: list[Stop] = []

    def begin() -> DurableEngine:
        session, _ = open_session(
            config, given.ticks, store, owner=f"process {os.getpid()}", now_ms=wall_ms()
        )
        engine = DurableEngine(
            session, exchange, lambda: ticks_of(exchange, config), Mailbox(database), clock
        )
        engines.append(engine)
        if how:
            engine.ask(how[0])
        return engine

    def stop() -> None:
        how.append(Stop.CANCEL)
        if engines:
            engines[-1].ask(Stop.CANCEL)

    async def body() -> str:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        say(f"begins {time.monotonic()}")
        return json.dumps((await endure(begin, say))._asdict())

    try:
        async with Host(database, given.executor, {queue_of(store.grid): 1}) as host:
            print(await host.serve(store.grid, body), flush=True)
    except GridmmError as error:
        say(str(error))
        os._exit(int(error.exit_code))
    finally:
        await exchange.close()
    return 0


def arguments() -> argparse.Namespace:
    """Return what the test asks for."""
    parser = argparse.ArgumentParser(description="A Durable engine that tests may kill.")
    parser.add_argument("--db", required=True)
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--ca", type=Path, help="certificate of an exchange that speaks Binance's protocol")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--ticks", type=int, default=600_000, help="price at which sizes are measured")
    parser.add_argument("--executor", default="child")
    parser.add_argument(
        "--send-ms", type=int, default=SEND_MS, help="how long after its commit an order is sent"
    )
    parser.add_argument("--die", default="", metavar="MOMENT:N")
    parser.add_argument("--pause", default="", metavar="MOMENT:N")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
