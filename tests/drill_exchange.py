"""An exchange for drills, in a process of its own: Binance's wire over a market that a test moves by hand.

    python tests/drill_exchange.py --until-eof

It prints the address of its control. One process holds any number of exchanges, each with its account, its ledger and
its auditor; what `gridmm run --exchange binance --endpoint` is told of one is its port and its certificate. Everything
that a person could do on the exchange's own page is here: place, cancel, trade by hand, change keys. So is what happens
to exchanges: they go away, forget, do not answer one kind of question, or stay silent on a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiohttp import web

from exchange_audit import Auditor
from exchange_server import warm_up
from gridmm.demo_market import DEMO
from gridmm.paper_account import Sum
from gridmm.paper_market import PaperRules
from gridmm.wire_market import MINUTE_MS, Bar
from gridmm.wire_server import Wire
from gridmm.wire_words import WireError, WireOrder

HERE = Path(__file__).parent
KEY, SECRET = "drill-key", "drill-secret"
PRICE = Decimal(60_000)
TICK = DEMO.tick
PAST = 130  # candles that have passed when an exchange opens
PULSE_S = 0.2
EQUITY = Decimal(10_000)


class Drill(Wire):
    """One exchange.

    Attributes:
        silent: Requests that are dropped unanswered: patterns of `METHOD /path?query`, `WS account` or `WS prices`.
        unheard: What an account's stream leaves out: patterns of its frames.
        guests: Other accounts of this exchange, by their keys.
        beats: Whether the touch is said again and again, as a living market does.
    """

    def __init__(self, folder: Path, *, key: str = KEY, secret: str = SECRET, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            DEMO, PaperRules(quote=EQUITY), ca=folder / "ca.pem", port=port, ledger=folder / "exchange.db",
            key=key, secret=secret, synchronous="OFF",
        )  # fmt: skip
        self.folder, self.silent, self.guests = folder, list[re.Pattern[str]](), dict[str, Drill]()
        self.auditor, self.beats = Auditor(self.paper), True
        self.unheard = list[re.Pattern[str]]()
        tell = self.lines.tell

        def heard(said: dict[str, Any]) -> None:
            if not any(pattern.search(json.dumps(said)) for pattern in self.unheard):
                tell(said)

        self.lines.tell = heard  # type: ignore[method-assign]
        self.faults.hang_s = 2.0
        self._touch = (PRICE - TICK, PRICE + TICK)

    async def __aenter__(self) -> Drill:
        await super().__aenter__()
        self._served = next(iter(self._runner.sites))._ssl_context
        now_ms = self.account.now_ms() // MINUTE_MS * MINUTE_MS
        self.market.bars.remember(self._bar(now_ms - n * MINUTE_MS) for n in range(PAST, -1, -1))
        self.price(*self._touch)
        self._work.append(asyncio.create_task(self._pulse()))
        self._work[-1].add_done_callback(self._over)
        return self

    def _bar(self, start_ms: int, close: Decimal = PRICE, volume: Decimal = Decimal(1)) -> Bar:
        bar = Bar(start_ms, PRICE, max(PRICE, close) + 30, min(PRICE, close) - 30, close)
        bar.volume, bar.value, bar.count = volume, volume * close, 1
        return bar

    async def _pulse(self) -> None:
        """Say the touch again and again, each time in another size, so that a price that stands is not a stale one."""
        size = 0
        while True:
            await asyncio.sleep(PULSE_S)
            if self.beats:
                size = (size + 1) % 7
                self.quote(*self._touch, Decimal(5 + size), Decimal(5))
            await self.auditor.check()

    def price(self, bid: Decimal, ask: Decimal) -> None:
        """Move the touch."""
        self._touch = (bid, ask)
        self.quote(bid, ask, Decimal(5), Decimal(5))

    # -- the wire

    async def rest(self, request: web.Request) -> web.StreamResponse:
        """Answer, or drop what is to stay unanswered; other accounts are behind their own keys."""
        guest = self.guests.get(request.headers.get("X-MBX-APIKEY", ""))
        body = (await request.read()).decode(errors="replace")
        about = f"{request.method} {request.raw_path} {body}"
        if any(pattern.search(about) for pattern in self.silent):
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        answer = await (Wire.rest(guest, request) if guest is not None else super().rest(request))
        await self.auditor.check()
        return answer

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """Serve a stream, of prices or of the account that its key belongs to."""
        parts = [request.query.get("listenKey", ""), *request.path.split("/")]
        about = "WS account" if any(map(self.keys.knows, parts)) else "WS prices"
        if any(pattern.search(about) for pattern in self.silent):
            raise web.HTTPServiceUnavailable
        for guest in self.guests.values():
            if any(map(guest.keys.knows, parts)):
                return await Wire.listen(guest, request)
        return await super().listen(request)

    async def down(self) -> None:
        """Refuse connections, and drop those that are open."""
        for site in list(self._runner.sites):
            await site.stop()
        server = self._runner.server
        assert server is not None
        for connection in server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def up(self) -> None:
        """Listen again, where it did before."""
        if not self._runner.sites:
            await web.TCPSite(self._runner, self._host, self.port, ssl_context=self._served).start()

    # -- what the control asks for

    async def do(self, what: str, **about: Any) -> Any:
        """Do one thing; see `Control`."""
        return await getattr(self, f"_do_{what}")(**about)

    async def _do_price(self, bid: str, ask: str) -> None:
        self.price(Decimal(bid), Decimal(ask))

    async def _do_trade(self, price: str, quantity: str = "1") -> None:
        self.trade(Decimal(price), Decimal(quantity))

    async def _do_beat(self, on: bool) -> None:
        self.beats = on

    async def _do_candle(self, close: str, volume: str) -> None:
        """Let this minute end now, as a candle that a client reads when it opens its stream of prices again.

        It ends when the minute does: a grid that has taken it is ahead of the clock by as much.
        """
        now_ms = self.account.now_ms() // MINUTE_MS * MINUTE_MS
        bars = self.market.bars
        bars._bars = type(bars._bars)((b for b in bars._bars if b.start_ms < now_ms), bars._bars.maxlen)
        bars.remember([self._bar(now_ms, Decimal(close), Decimal(volume)), self._bar(now_ms + MINUTE_MS)])
        for line in list(self.lines.open):
            if not line.key:
                line.cut()

    async def _do_cut(self, which: str = "all") -> None:
        for line in list(self.lines.open):
            if which == "all" or bool(line.key) == (which == "account"):
                line.cut()

    async def _do_mute(self, which: str = "all", on: bool = True) -> None:
        """Say nothing more on open streams, not even that they are alive."""
        for line in list(self.lines.open):
            if which == "all" or bool(line.key) == (which == "account"):
                line.mute = on

    async def _do_silence(self, patterns: list[str]) -> None:
        self.silent = [re.compile(one) for one in patterns]

    async def _do_swallow(self, patterns: list[str]) -> None:
        self.unheard = [re.compile(one) for one in patterns]

    async def _do_faults(self, **asked: Any) -> None:
        if "per_mille" in asked:
            self.faults.rates(int(asked.get("seed", 0)), asked["per_mille"])
        self.faults.once(**asked.get("once", {}))
        for name in ("late_ms", "hang_s", "skew_ms"):
            setattr(self.faults, name, asked.get(name, getattr(self.faults, name)))

    async def _do_clear(self) -> None:
        self.faults.clear()
        self.silent, self.unheard = [], []
        self.beats = True

    async def _do_down(self) -> None:
        await self.down()

    async def _do_up(self) -> None:
        await self.up()

    async def _do_place(
        self, side: int, price: str, quantity: str, client_id: str, market: bool = False
    ) -> dict[str, Any]:
        """Place an order as a person, or another program, with the same account would."""
        order = WireOrder(0, client_id, side, Decimal(price), Decimal(quantity))
        if market:
            order.kind = "MARKET"
        (said,) = await self.account.place([order])
        if isinstance(said, WireError):
            raise ValueError(str(said))
        return {"client_id": said.client_id, "order_id": said.order_id, "status": said.status}

    async def _do_cancel(self, client_id: str) -> None:
        """Cancel an order on the exchange's own page."""
        await self.account.cancel(self.account.find(None, client_id))

    async def _do_keys(self, key: str, secret: str) -> None:
        """Take these keys and no others."""
        self.door.key, self.door._secret = key, secret.encode()

    async def _do_withdrawals(self, on: bool) -> None:
        self.account.can_withdraw = on

    async def _do_hedge(self, on: bool) -> None:
        self.account.hedge = on

    async def _do_snapshot(self, to: str) -> None:
        """Copy the ledger, whole."""
        Path(to).unlink(missing_ok=True)
        with closing(sqlite3.connect(self.folder / "exchange.db")) as db:
            db.execute("VACUUM INTO ?", (to,))

    async def _do_audit(self) -> dict[str, Any]:
        """Return what the exchange has in its books."""
        await self.auditor.check()
        orders, fills, refused = self.auditor.counts()
        told = self.account.open_orders()
        return {
            "violations": [one.message for one in self.auditor.violations()],
            "open": [
                {"client_id": o.client_id, "side": o.side, "price": str(o.price), "quantity": str(o.quantity),
                 "done": str(o.done)} for o in told
            ],
            "orders": orders,
            "refused": refused,
            "fills": [
                {"client_id": f.client_id, "trade_id": f.trade_id, "side": f.side, "price": str(f.price),
                 "quantity": str(f.quantity), "time_ms": f.time_ms} for f, _, _ in self.account.trades
            ],
            "filled": fills,
            "position": str(self.auditor.position),
            "asked": dict(self.asked),
            "struck": {name: count for name, count in self.faults.struck.items() if count},
            "streams": sorted("account" if line.key else "prices" for line in self.lines.open),
            "up": bool(self._runner.sites),
            "skew_ms": self.faults.skew_ms,
            "key": self.door.key,
            "withdrawals": self.account.can_withdraw,
        }  # fmt: skip


class House:
    """All exchanges of this process."""

    def __init__(self) -> None:
        self.drills: dict[int, Drill] = {}
        self._last = 0

    async def handle(self, request: web.Request) -> web.Response:
        """Do what the control asks for."""
        asked = await request.json()
        what, world = asked.pop("do"), asked.pop("world", 0)
        try:
            if what == "open":
                said: Any = await self.open(**asked)
            elif what == "close":
                await self.drills.pop(world).__aexit__()
                said = None
            elif what == "forget":
                said = None
                await self.forget(world, **asked)
            elif what == "guest":
                said = None
                await self.guest(world, **asked)
            else:
                said = await self.drills[world].do(what, **asked)
        except (ValueError, TypeError, KeyError, AttributeError, WireError) as error:
            raise web.HTTPBadRequest(text=f"{type(error).__name__}: {error}") from error
        return web.json_response(said)

    async def open(self, folder: str) -> dict[str, Any]:
        """Open an exchange whose books are in this folder."""
        self._last += 1
        drill = self.drills[self._last] = Drill(Path(folder))
        await drill.__aenter__()
        return {"world": self._last, "port": drill.port, "ca": str(drill.ca_file)}

    async def forget(self, world: int, ledger: str) -> None:
        """Put an older copy of its ledger back, as after a failure of the exchange's own."""
        old = self.drills[world]
        await old.__aexit__()
        for path in old.folder.glob("exchange.db*"):
            path.unlink()
        shutil.copy(ledger, old.folder / "exchange.db")
        keys = {"key": old.door.key, "secret": old.door._secret.decode()}
        drill = self.drills[world] = Drill(old.folder, port=old.port, **keys)
        # Numbers go on, as those of a real exchange would.
        for number in (Sum.NEXT_KEY, Sum.NEXT_TRADE):
            drill.paper.venue.v[number] = old.paper.venue.v[number]
        await drill.__aenter__()

    async def guest(self, world: int, key: str, secret: str, own: bool = False) -> None:
        """Give the exchange another key: of another account, or of its own."""
        host = self.drills[world]
        if own:
            await host.do("keys", key=key, secret=secret)
            return
        guest = Drill(host.folder / "other", key=key, secret=secret)
        await guest.__aenter__()
        host.guests[key] = guest

    async def close(self) -> None:
        """Close all."""
        for drill in self.drills.values():
            for guest in drill.guests.values():
                await guest.__aexit__()
            await drill.__aexit__()


class Exchange:
    """One exchange, as a test reaches it; blocking.

    Attributes:
        world: Its number in its process.
        port: Where it listens.
        ca: Certificate that vouches for it.
    """

    def __init__(self, control: str, folder: Path) -> None:
        self._control, self.folder = control, folder
        said = _ask(control, {"do": "open", "folder": str(folder)})
        self.world, self.port, self.ca = said["world"], said["port"], Path(said["ca"])

    @property
    def endpoint(self) -> str:
        """What `gridmm run --endpoint` takes."""
        return f"127.0.0.1:{self.port}"

    def __call__(self, what: str, **about: Any) -> Any:
        """Do one thing, of those that `Drill` and `House` name."""
        return _ask(self._control, {"do": what, "world": self.world, **about})

    def audit(self) -> dict[str, Any]:
        """Return what the exchange has in its books."""
        return dict(self("audit"))

    def close(self) -> None:
        """Close it."""
        self("close")


def _ask(control: str, about: dict[str, Any]) -> Any:
    """Ask the control; a refusal is a ValueError with its words."""
    request = urllib.request.Request(
        control, json.dumps(about).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise ValueError(error.read().decode()) from error


class Process:
    """A process of exchanges, until `close` or the end of this one."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE / "drill_exchange.py"), "--until-eof"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.control = self._process.stdout.readline().strip()
        if not self.control:
            raise RuntimeError(f"the exchange did not start: it exited {self._process.wait(timeout=30)}")

    def open(self, folder: Path) -> Exchange:
        """Open an exchange whose books are in `folder`."""
        return Exchange(self.control, folder)

    def close(self) -> None:
        """End."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._process.kill()
        self._process.stdout.close()
        self._process.wait()


async def _main() -> None:
    """Serve until the end of standard input."""
    await warm_up()
    house, stop = House(), asyncio.Event()
    app = web.Application()
    app.add_routes([web.post("/", house.handle)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/", flush=True)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    await stop.wait()
    await house.close()
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Exchanges for drills.")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    parser.parse_args()
    asyncio.run(_main())
