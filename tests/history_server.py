"""Candles and trades of the past as Binance answers them, on this machine only, with its limits and its bad days."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

MINUTE_MS = 60_000
START_MS = 1_704_067_200_000
HOSTS = ("api.binance.com", "fapi.binance.com")
PAGE_MAX = 1_000
HOUR_MS = 3_600_000


@dataclass
class Past:
    """What happened on the market, from numbers alone, and how the exchange behaves.

    Attributes:
        minutes: Candles that have begun by now; the last of them is not over.
        missing: Minutes without a candle.
        trades: Number of trades.
        skipped: Numbers of trades that are not there.
        hidden: Minutes that the next answer leaves out, and no later one.
        weight_max: Weight after which the exchange says 429; 0 is none.
        retry_after_s: How long it wants silence then.
        dead_from: Request from which on it answers no more; 0 is none.
        dropped: Requests whose connection it cuts.
        halved: Requests whose answer it breaks off in the middle.
        babbled: Requests that it answers with a page for people.
        changed: Minutes whose close is another one than before.
    """

    minutes: int = 2_345
    missing: set[int] = field(default_factory=set)
    trades: int = 2_600
    skipped: set[int] = field(default_factory=set)
    hidden: set[int] = field(default_factory=set)
    weight_max: int = 0
    retry_after_s: int = 7
    dead_from: int = 0
    dropped: set[int] = field(default_factory=set)
    halved: set[int] = field(default_factory=set)
    babbled: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    # what the exchange noticed
    requests: int = 0
    impatient: int = 0
    told: int = 0
    hosts: list[str] = field(default_factory=list)
    clock_s: float = 0.0
    _weight: int = 0
    _closed_until_s: float = 0.0

    @property
    def now_ms(self) -> int:
        """The exchange's time: some seconds into the last minute."""
        return START_MS + (self.minutes - 1) * MINUTE_MS + 20_000

    async def wait(self, seconds: float) -> None:
        """Let time pass for both sides without waiting for it."""
        self.clock_s += seconds

    def candle(self, k: int) -> list[Any]:
        """Minute `k` as the exchange writes it."""
        low = 40_000 + k * 7 % 400
        close = low + (3 if k in self.changed else 2)
        cells = [f"{low + 1}.10000000", f"{low + 5}.00000000", f"{low}.00000000", f"{close}.50000000"]
        time = START_MS + k * MINUTE_MS
        return [time, *cells, f"{k % 9}.01500000", time + MINUTE_MS - 1, "1.0", 3, "0.5", "0.5", "0"]

    def trade(self, n: int) -> dict[str, Any]:
        """Trade `n` as the exchange writes it; two may share a millisecond."""
        time = START_MS + HOUR_MS + 2 * HOUR_MS * (n // 2) // (self.trades // 2)
        return {
            "a": 9_000 + n, "p": f"{40_000 + n % 50}.10", "q": f"0.{n % 7 + 1:03d}00000", "f": n, "l": n, "T": time,
            "m": n % 3 == 0, "M": True,
        }  # fmt: skip

    def candles_file(self, first: int = 0) -> str:
        """The file that a download of candles must come to."""
        rows = (self.candle(k) for k in range(first, self.minutes - 1) if k not in self.missing)
        return "open_time,open,high,low,close,volume\n" + "".join(
            f"{','.join(map(str, row[:6]))}\n" for row in rows
        )

    def trades_file(self) -> str:
        """The file that a download of trades must come to."""
        rows = (self.trade(n) for n in range(self.trades) if n not in self.skipped)
        return "id,price,qty,time,is_buyer_maker\n" + "".join(
            f"{row['a']},{row['p']},{row['q']},{row['T']},{str(row['m']).lower()}\n" for row in rows
        )

    def asked(self, weight: int) -> tuple[int, dict[str, str], dict[str, Any]] | None:
        """Count a request; return what stands in its way."""
        if self.clock_s < self._closed_until_s:
            self.impatient += 1
            return (
                418,
                {"Retry-After": "9999"},
                {"code": -1003, "msg": "Way too much request weight used; IP banned."},
            )
        self._weight += weight
        if self.weight_max and self._weight > self.weight_max:
            self.told += 1
            self._weight, self._closed_until_s = 0, self.clock_s + self.retry_after_s
            words = {"code": -1003, "msg": "Too much request weight used; current limit is 6000."}
            return 429, {"Retry-After": str(self.retry_after_s)}, words
        return None


def _symbol(perpetual: bool) -> dict[str, Any]:
    """The market in exchangeInfo."""
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": "0.10", "maxPrice": "1000000", "tickSize": "0.10"},
        {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
    ]
    common = {"status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "filters": filters}
    if not perpetual:
        return {"symbol": "BTCUSDT", "isSpotTradingAllowed": True, "permissionSets": [["SPOT"]], **common}
    own = {
        "contractType": "PERPETUAL",
        "deliveryDate": 4_133_404_800_000,
        "onboardDate": 1,
        "marginAsset": "USDT",
    }
    return {"symbol": "BTCUSDT", "pair": "BTCUSDT", **own, **common}


class _Handlers:
    """The calls, each counted and spoilt as the past says."""

    def __init__(self, past: Past) -> None:
        self.past = past

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        past = self.past
        past.requests += 1
        past.hosts.append(request.host.partition(":")[0])
        if past.requests in past.dropped or 0 < past.dead_from <= past.requests:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        name = request.path.rpartition("/")[2]
        if past.requests in past.babbled:
            return web.Response(text="<html>We are back in a minute</html>", content_type="text/html")
        if refused := past.asked({"exchangeInfo": 1, "time": 1}.get(name, 2)):
            status, headers, words = refused
            return web.json_response(words, status=status, headers=headers)
        known = {
            "exchangeInfo": self.info,
            "time": self.time,
            "klines": self.klines,
            "aggTrades": self.trades,
        }
        answer = known[name](request.query, request.path.startswith("/fapi"))
        status = 400 if isinstance(answer, dict) and "code" in answer else 200
        if past.requests in past.halved:
            body = json.dumps(answer).encode()
            half = web.StreamResponse(
                headers={"Content-Length": str(len(body)), "Content-Type": "application/json"}
            )
            await half.prepare(request)
            await half.write(body[: len(body) // 2])
            assert request.transport is not None
            request.transport.abort()
            return half
        return web.json_response(answer, status=status, headers={"X-MBX-USED-WEIGHT-1M": str(past._weight)})

    def info(self, query: Any, perpetual: bool) -> Any:
        return {"timezone": "UTC", "rateLimits": [], "exchangeFilters": [], "symbols": [_symbol(perpetual)]}

    def time(self, query: Any, perpetual: bool) -> Any:
        return {"serverTime": self.past.now_ms}

    def klines(self, query: Any, perpetual: bool) -> Any:
        past = self.past
        if query["symbol"] != "BTCUSDT" or query["interval"] != "1m":
            return {"code": -1121, "msg": "Invalid symbol."}
        since, until = int(query["startTime"]), int(query.get("endTime", 2**62))
        shown = [
            past.candle(k)
            for k in range(max(0, -(-(since - START_MS) // MINUTE_MS)), past.minutes)
            if k not in past.missing | past.hidden and START_MS + k * MINUTE_MS <= until
        ]
        shown = shown[: min(int(query.get("limit", 500)), PAGE_MAX)]
        if past.hidden and shown and shown[-1][0] > START_MS + max(past.hidden) * MINUTE_MS:
            past.hidden = set()  # one bad answer only
        return shown

    def trades(self, query: Any, perpetual: bool) -> Any:
        past = self.past
        if "fromId" in query and "startTime" in query:
            return {"code": -1128, "msg": "Combination of optional parameters invalid."}
        first, since = int(query.get("fromId", 0)), int(query.get("startTime", 0))
        until = int(query.get("endTime", 2**62))
        if "startTime" in query and until - since > HOUR_MS:
            return {"code": -1127, "msg": "More than 1 hour between startTime and endTime."}
        rows = (past.trade(n) for n in range(past.trades) if n not in past.skipped)
        shown = [row for row in rows if row["a"] >= first and since <= row["T"] <= until]
        return shown[: min(int(query.get("limit", 500)), PAGE_MAX)]


class OnlyHere(AbstractResolver):
    """Finds the exchange's hosts on this machine and nothing else anywhere."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Find one of the exchange's hosts here, or refuse."""
        if host not in HOSTS:
            raise OSError(f"{host} is beyond this machine")
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=self.port, family=socket.AF_INET, proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing to close."""


def certificate(folder: Path) -> tuple[Path, Path]:
    """A throw-away certificate for the exchange's hosts, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "throw-away")])
    names = [*(x509.DNSName(host) for host in HOSTS), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "throw-away.pem", folder / "throw-away.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, plain, no_password))
    return files


@dataclass
class Served:
    """An exchange that is served: its past, and how to get there."""

    past: Past
    port: int
    ca: Path

    def session(self) -> aiohttp.ClientSession:
        """A session that reaches it by its real names, and reaches nothing else."""
        trust = ssl.create_default_context(cafile=str(self.ca))
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=OnlyHere(self.port), ssl=trust))


@contextmanager
def serving(past: Past, folder: Path) -> Iterator[Served]:
    """Serve a past on a loop of its own, so that a command may run one beside it."""
    cert, key = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    loop, started = asyncio.new_event_loop(), threading.Event()
    handlers, ports = _Handlers(past), []

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/{path:.*}", handlers.__call__)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        ports.append(runner.addresses[0][1])
        started.set()
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(10), json.dumps({"started": False})
    try:
        yield Served(past, ports[0], cert)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
