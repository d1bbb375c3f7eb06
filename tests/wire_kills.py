"""Kill engines that trade through the real ccxt client, while the wire between them and the exchange fails by a seed.

`make wire-kill` runs what `make crash-test` runs, with another exchange: our server of Binance's protocol, reached as
`gridmm run --exchange binance --endpoint` reaches it. Between the kills answers are lost, sockets are cut and frames torn.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from durable_kills import A_WORLD, Ground, Tally, missed, run_kills
from exchange_audit import Auditor
from gridmm.demo_market import DEMO, DemoMarket
from gridmm.paper_market import PaperRules
from gridmm.units import Instrument
from gridmm.wire_server import Wire
from wire_trade import FAULTS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program finds only its own folder there

from tools.results import code_hash, write

HERE = Path(__file__).parent
SPOT = Instrument(
    "BTC/USDT",
    "spot",
    DEMO.tick,
    DEMO.lot,
    DEMO.min_quantity,
    DEMO.min_notional,
    DEMO.maker_fee_ppm,
    DEMO.taker_fee_ppm,
)
RULES = {"perpetual": PaperRules(), "spot": PaperRules(quote=Decimal(10_000), base=Decimal("0.05"))}
CAP = Decimal("0.03")  # max_position of the configuration
SPEED = "600"


class WireControl:
    """What a test does to an exchange that runs in another thread."""

    def __init__(self, instrument: Instrument, number: int, rates: dict[str, int]) -> None:
        self._about = instrument, number, rates
        self._loop = asyncio.new_event_loop()
        self._began, self._over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(),), daemon=True
        )
        self.wire: Wire

    async def _serve(self) -> None:
        instrument, number, rates = self._about
        feed = DemoMarket(number, instrument)
        async with Wire(
            instrument,
            RULES[instrument.market],
            feed=feed,
            speed=SPEED,
            history_ms=6 * 3_600_000,
            synchronous="OFF",
        ) as self.wire:
            self.wire.faults.hang_s = 2.0
            self.wire.faults.rates(number, rates)
            self.auditor = Auditor(self.wire.paper, CAP)
            self._began.set()
            while not self._over.is_set():
                await self.auditor.check()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), 0.02)

    def __enter__(self) -> WireControl:
        self._thread.start()
        assert self._began.wait(30), "the exchange did not begin"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def calm(self) -> None:
        """Let nothing fail any more."""
        self._loop.call_soon_threadsafe(self.wire.faults.clear)

    def audit(self) -> SimpleNamespace:
        """Return what the exchange has in its books."""

        async def look() -> SimpleNamespace:
            await self.auditor.check()
            orders, fills, _ = self.auditor.counts()
            return SimpleNamespace(
                violations=self.auditor.violations(),
                open_orders=len(await self.wire.paper.open_orders()),
                orders=orders,
                fills=fills,
                checks=self.auditor.checks,
                position=f"{self.auditor.position:f}",
                struck=dict(self.wire.faults.struck),
            )

        return self._do(look())


def ground_of(instrument: Instrument, struck: list[int]) -> Ground:
    """Return the wire as a place to be killed on; `struck` takes the count of faults of each market."""

    @contextmanager
    def opened(number: int) -> Iterator[tuple[str, WireControl]]:
        with WireControl(instrument, number, FAULTS) as control:
            yield f"127.0.0.1:{control.wire.port} --ca {control.wire.ca_file}", control
            struck.append(sum(control.audit().struck.values()))

    return Ground(
        opened,
        HERE / "configs" / f"wire_kills_{instrument.market}.toml",
        instrument.symbol,
        {"reconcile": 2, "stop": 3},  # the first question for open orders is asked at the door
        6,
        WireControl.calm,
        DEMO.tick / 10_000,
    )


def kill(market: str, kills: int, seed: int) -> dict[str, Any]:
    """Kill engines on one kind of market and return the counts."""
    began, tally, struck = time.monotonic(), Tally(), list[int]()
    ground = ground_of(DEMO if market == "perpetual" else SPOT, struck)
    with tempfile.TemporaryDirectory() as folder:
        for world in range(1, -(-kills // A_WORLD) + 1):
            now = min(A_WORLD, kills - (world - 1) * A_WORLD)
            db = f"{folder}/grid{world}.sqlite"
            run_kills(
                db,
                now,
                seed + world,
                lambda line: print(f"{market}: {line}", flush=True),
                tally,
                world,
                ground,
            )
    if never := missed(tally):
        raise SystemExit(f"{market}: no kill fell on {', '.join(never)}: ask for more")
    return {
        "kills": sum(tally.kills.values()),
        "kills_by_moment": dict(sorted(tally.kills.items())),
        "orders": tally.orders,
        "fills": tally.fills,
        "faults": sum(struck),
        "auditor_looks": tally.looks,
        "seconds": round(time.monotonic() - began),
    }


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Kill engines that trade through ccxt.")
    parser.add_argument("--kills", type=int, default=100, help="on each kind of market")
    parser.add_argument("--seed", type=int, default=1)
    given, code = parser.parse_args(), code_hash()
    counts = {market: kill(market, given.kills, given.seed) for market in RULES}
    write(
        "wire_kills",
        "Engines that trade through ccxt on our exchange that speaks Binance's protocol were killed again and again, "
        "while answers were lost, sockets cut and frames torn.",
        f"make wire-kill N={given.kills}" + (f" SEED={given.seed}" if given.seed != 1 else ""),
        counts,
        code=code,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
