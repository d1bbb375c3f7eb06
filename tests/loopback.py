"""The real ccxt client, with its production addresses, on an exchange of this machine and on no other."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import ccxt.pro

from gridmm.ccxt_client import OnlyThese
from gridmm.wire_server import Wire

OPTIONS = {"fetchCurrencies": False, "fetchMargins": False}


def client(wire: Wire, **config: Any) -> AbstractAsyncContextManager[Any]:
    """Give a ccxt.pro client of Binance that trades on `wire`, with numbers as text."""
    assert wire.ca_file is not None
    return client_at(wire.port, wire.ca_file, spot=wire.paper.instrument.market == "spot", **config)


@asynccontextmanager
async def client_at(port: int, ca_file: Path, *, spot: bool, **config: Any) -> AsyncIterator[Any]:
    """Give a ccxt.pro client of Binance that trades at a port of this machine, with numbers as text."""
    context = ssl.create_default_context(cafile=str(ca_file))
    connector = aiohttp.TCPConnector(
        resolver=OnlyThese(("binance.com",), "127.0.0.1", port), ssl=context, use_dns_cache=False
    )
    kind = {
        "fetchMarkets": {"types": ["spot" if spot else "linear"]},
        "defaultType": "spot" if spot else "swap",
    }
    options = OPTIONS | kind | config.pop("options", {})
    settings = {"apiKey": "demo", "secret": "demo-secret", "enableRateLimit": False, "timeout": 5_000}
    async with aiohttp.ClientSession(connector=connector) as session:
        exchange = ccxt.pro.binance(settings | config | {"session": session, "options": options})
        exchange.number = str
        try:
            yield exchange
        finally:
            await exchange.close()
