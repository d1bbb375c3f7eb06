"""A Durable engine in a process of its own, on an exchange in another one: what the kill tests kill.

    python tests/durable_child.py --db URL --exchange ADDRESS --config FILE [--die MOMENT:N] [--pause MOMENT:N]

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
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from gridmm.commands import Mailbox
from gridmm.config import Config, load
from gridmm.engine_durable import SEND_MS, DurableEngine, endure
from gridmm.errors import GridmmError
from gridmm.exchange import OrderReport, OrderRequest, Outcome
from gridmm.feed import Price
from gridmm.host import Host, queue_of
from gridmm.run import open_session, utc_clock, wall_ms
from gridmm.store import Answer, FillRow, SqlStore
from gridmm.tables import open_database
from gridmm.v1.decision_pb2 import DecisionRecord
from gridmm.v1.state_pb2 import State
from gridmm.vocabulary import Stop
from remote_exchange import RemoteExchange

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


class WatchedStore(SqlStore):
    """A store that says when it commits."""

    come: Moments

    def save(
        self,
        state: State,
        decision: DecisionRecord | None = None,
        answers: Sequence[Answer] = (),
        fills: Sequence[FillRow] = (),
    ) -> None:
        """Save; see `SqlStore.save`. Once it is saved that the grid stops, every save is a moment of the stop."""
        self.come("before commit")
        super().save(state, decision, answers, fills)
        self.come("after commit")
        WatchedExchange.stopping = state.risk.stop - 1 > Stop.RUN
        if WatchedExchange.stopping:
            self.come("stop")


class WatchedExchange(RemoteExchange):
    """An exchange whose calls are named moments."""

    come: Moments
    stopping = False

    async def place(self, requests: Sequence[OrderRequest], deadline_ms: int | None = None) -> list[Outcome]:
        """Place; see `RemoteExchange.place`."""
        self.come("before send")
        outcomes = await super().place(requests, deadline_ms)
        self.come("after send")
        return outcomes

    async def cancel(self, client_ids: Sequence[str], *, deadline_ms: int | None = None) -> list[Outcome]:
        """Cancel; see `RemoteExchange.cancel`."""
        if self.stopping:
            self.come("stop")
        return await super().cancel(client_ids, deadline_ms=deadline_ms)

    async def open_orders(self) -> list[OrderReport]:
        """Return open orders; asked for when a start reconciles."""
        self.come("reconcile")
        return await super().open_orders()


async def ticks_of(exchange: RemoteExchange, config: Config) -> AsyncIterator[Price]:
    """Yield the exchange's market as the engine wants it."""
    async for moment in exchange.moments():
        if moment.fresh and moment.bid > 0:
            about = (moment.bid, moment.ask, moment.last, moment.bid_lots, moment.ask_lots)
            yield Price(*about, moment.candles)


async def main(given: argparse.Namespace) -> int:
    """Trade until SIGTERM, and print the receipt."""
    come = Moments(given.die, given.pause)
    config = load(given.config, environ={}, options={"feed.source": ("demo", "test")})
    database = open_database(given.db)
    WatchedStore.come = WatchedExchange.come = come
    DurableEngine.send_ms = given.send_ms

    clock = utc_clock()

    def watched_ms() -> int:
        now_ms = clock()
        come("deadline read")
        return now_ms

    exchange = WatchedExchange(given.exchange, timeout_s=1.0, clock_ms=watched_ms)
    instrument = (await exchange.instruments())[0]
    store = WatchedStore(database, instrument.symbol)
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

    def say(line: str) -> None:
        print(f"says {line}", flush=True)

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
