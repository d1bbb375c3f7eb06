"""Trade a recording through the real ccxt client, on our own server of Binance's protocol, while it fails by a seed.

`make wire-trade` plays days of a perpetual in some minutes. Answers are lost before and after they took
effect, sockets are cut, frames are torn, lost and doubled, requests are refused and throttled. At the end the exchange's
ledger and the grid's State must agree on every order, fill and atom, and no request may have gone to any other host.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from durable_kills import agree
from exchange_audit import Auditor
from gridmm.config import load
from gridmm.layout import Par
from gridmm.live import Entrance, LiveSession
from gridmm.paper_market import PaperRules
from gridmm.tape import Tape
from gridmm.tape import load as load_tape
from gridmm.vocabulary import Stop
from gridmm.wire_server import Wire

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program finds only its own folder there

from tools.results import code_hash, write

HERE = Path(__file__).parent
CONFIG = HERE / "configs" / "wire_fast.toml"
# per mille of the calls that they can strike
FAULTS = {
    "place.drop_before": 15, "place.drop_after": 15, "place.timeout_before": 10, "place.timeout_after": 10,
    "place.unknown_after": 10, "place.html_after": 10, "place.rate_limit": 3, "place.funds": 5,
    "cancel.drop_before": 15, "cancel.drop_after": 15, "cancel.timeout_after": 10, "query.drop_before": 10,
    "account.cut": 4, "account.bad_frame": 8, "account.lost_frame": 8, "account.double_frame": 20,
    "prices.bad_frame": 1, "prices.cut": 1, "late": 20,
}  # fmt: skip
KEYS = {"GRIDMM_PAPER_API_KEY": "demo", "GRIDMM_PAPER_API_SECRET": "demo-secret"}


async def trade(
    market: Tape,
    folder: Path,
    seed: int,
    speed: str,
    seconds: float,
    rates: Mapping[str, int] = FAULTS,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trade for a while, with faults but for the end, check everything, and return the counts.

    Args:
        market: Recording.
        folder: For database and log.
        seed: Of the faults.
        speed: How many times faster than recorded.
        seconds: For how long, at most; the recording's end ends it too.
        rates: Faults by name, per mille.
        say: Told what a person would be told.
    """
    config = load(CONFIG, environ={}, options={"feed.source": ("demo", "test")})
    rules = PaperRules(quote=config.settings.paper.equity)
    async with Wire(market.instrument, rules, feed=market, speed=speed, synchronous="OFF") as wire:
        wire.faults.hang_s = 2.0
        auditor = Auditor(wire.paper)
        session = LiveSession(
            config,
            Entrance("binance", endpoint=f"127.0.0.1:{wire.port}", ca=wire.ca_file),
            folder / "grid.sqlite",
            say,
        )
        running = asyncio.create_task(session.trade(KEYS))
        end_s, begun, elsewhere = time.monotonic() + seconds, False, list[str]()
        try:
            while time.monotonic() < end_s and not running.done():
                if session.engine is not None and not begun:
                    begun = True
                    assert session.exchange is not None
                    elsewhere = session.exchange.client.session.connector._resolver.refused
                    wire.faults.rates(seed, rates)
                    par, i = session.engine.session.par, market.instrument
                    auditor.cap = i.quantity(int(par[Par.MAX_LOTS]))
                await auditor.check()
                await asyncio.sleep(0.02)
            wire.faults.clear()
            await asyncio.sleep(2.0)
            session.ask(Stop.CANCEL)
            receipt = (await running)._asdict()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        orders, fills, refused = auditor.counts()
        audit = SimpleNamespace(
            violations=auditor.violations(),
            open_orders=len(await wire.paper.open_orders()),
            fills=fills,
            orders=orders,
            position=f"{auditor.position:f}",
        )
        say(str(receipt))
        say(str(audit))
        say(str(wire.faults.struck))
        step = market.instrument.tick / 10_000
        agree(str(folder / "grid.sqlite"), receipt, audit, symbol=market.instrument.symbol, entry_step=step)
        last = min(wire.paper.resume_row, len(market) - 1)
        market_ms = int(market.time_ms[last] - market.time_ms[0])
        struck = {name: count for name, count in sorted(wire.faults.struck.items()) if count}
    assert session.exchange is not None
    assert not elsewhere, f"asked for other hosts: {elsewhere}"
    limiter = session.exchange.limiter
    sent = limiter.limits.metrics(limiter.clock()).sent
    return {
        "market_hours": round(market_ms / 3_600_000, 1),
        "orders": orders,
        "refused": refused,
        "fills": fills,
        "round_trips": receipt["round_trips"],
        "faults": struck,
        "faults_in_all": sum(struck.values()),
        "requests": sent,
        "requests_per_fill": round(sum(sent.values()) / max(fills, 1), 1),
        "auditor_looks": auditor.checks,
    }


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Trade a recording over the wire, with faults.")
    parser.add_argument("--tape", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", default="1200")
    parser.add_argument("--seconds", type=float, default=420.0)
    given, code = parser.parse_args(), code_hash()
    with tempfile.TemporaryDirectory() as folder:
        counts = asyncio.run(
            trade(
                load_tape(given.tape),
                Path(folder),
                given.seed,
                given.speed,
                given.seconds,
                say=lambda line: print(line, flush=True),
            )
        )
    print(counts)
    about = "A recording traded by the Durable engine through ccxt, on our own server of Binance's protocol, with faults."
    write(
        "wire_trade",
        about,
        f"make wire-trade SEED={given.seed}",
        counts | {"tape": given.tape.name},
        code=code,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
