"""A thousand frames a second for ten minutes, two hundred slots, one core: nothing may grow.

`make load` trades through the real ccxt client on our own exchange, which runs in a process of its own and moves its
market a thousand times a second. Measured are the time from when the exchange stamped a frame to when the grid had its
price, and the memory of the process that trades.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from durable_kills import agree
from gridmm.config import load
from gridmm.live import Entrance, LiveSession
from gridmm.paper_market import PaperRules
from gridmm.units import Instrument
from gridmm.vocabulary import Stop
from gridmm.wire_server import Wire
from wire_trade import KEYS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program finds only its own folder there

from tools.results import code_hash, write

HERE = Path(__file__).parent
CONFIG = HERE / "configs" / "wire_load.toml"
SYMBOL = "BTC/USDT:USDT"
TICK, BATCH_S = Decimal("0.1"), 0.005


async def serve(rate: int, seed: int) -> None:
    """Be an exchange whose market moves by some ticks at each frame, until the standard input ends."""
    draw = random.Random(seed)
    market = Instrument(SYMBOL, "perpetual", TICK, Decimal("0.001"), Decimal("0.001"), Decimal(5), 100, 500)
    rules = PaperRules(quote=Decimal(100_000), leverage=10, max_open_orders=400)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with Wire(market, rules, synchronous="OFF") as wire:
        ticks, sent, began_s = 600_000, 0, time.monotonic()
        wire.quote(ticks * TICK, (ticks + 1) * TICK, Decimal(1), Decimal(1))
        print(json.dumps({"port": wire.port, "ca": str(wire.ca_file)}), flush=True)
        while not ended.done():
            due = int((time.monotonic() - began_s) * rate)
            for _ in range(min(due - sent, rate)):
                ticks += draw.choice((-9, -4, 4, 9)) + (600_000 - ticks) // 3_000
                wire.quote(ticks * TICK, (ticks + 1) * TICK, Decimal(1), Decimal(1))
            sent = due
            await asyncio.sleep(BATCH_S)
        fills, open_orders = len(await wire.paper.fills(0)), len(await wire.paper.open_orders())
        position = f"{wire.paper.instrument.quantity(wire.paper.position_lots):f}"
        print(
            json.dumps({"fills": fills, "open_orders": open_orders, "position": position, "sent": sent}),
            flush=True,
        )


class Scales:
    """Weighs while a session runs: delays in milliseconds and memory in bytes, by second."""

    def __init__(self) -> None:
        self.frames, self.began_s = 0, time.monotonic()
        self.at_s, self.delay_ms = array("d"), array("l")  # a list of a million tuples would be what grows
        self.memory = list[tuple[float, int]]()
        self.orders = 0

    def lay(self, session: LiveSession) -> None:
        """Stand between the client and whoever waits for its prices."""
        assert session.exchange is not None
        client = session.exchange.client
        read, watch = client.handle_bids_asks, client.watch_bids_asks

        def count(*frame: Any) -> Any:
            self.frames += 1
            return read(*frame)

        async def weigh(*asked: Any) -> Any:
            said = await watch(*asked)
            at_ms = next(iter(said.values()))["timestamp"]
            self.at_s.append(time.monotonic() - self.began_s)
            self.delay_ms.append(time.time_ns() // 1_000_000 - at_ms)
            return said

        client.handle_bids_asks, client.watch_bids_asks = count, weigh

    def look(self, session: LiveSession) -> None:
        """Note the memory now."""
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
        own = (resident - shared) * resource.getpagesize()  # pages of files come and go as the kernel likes
        self.memory.append((time.monotonic() - self.began_s, own))
        if session.engine is not None:
            self.orders = max(self.orders, len(session.engine.session.open_ids()))

    def thirds(self, skip_s: float) -> dict[str, dict[str, float]]:
        """Return what was weighed in the first, the second and the last third, after a while to warm up."""
        end_s, weighed = self.at_s[-1], list(zip(self.at_s, self.delay_ms, strict=True))
        found: dict[str, dict[str, float]] = {}
        for number, name in enumerate(("first third", "second third", "last third")):
            low = skip_s + (end_s - skip_s) * number / 3
            high = skip_s + (end_s - skip_s) * (number + 1) / 3
            delays = [delay for at_s, delay in weighed if low <= at_s <= high]
            cuts = quantiles(delays, n=100)
            memory = [bytes_ / 2**20 for at_s, bytes_ in self.memory if low <= at_s <= high]
            found[name] = {
                "delay_median_ms": median(delays), "delay_p99_ms": round(cuts[98], 1), "delay_max_ms": max(delays),
                "memory_mib": round(median(memory), 1),
            }  # fmt: skip
        return found


async def weigh(
    seconds: float, rate: int, folder: Path, seed: int, tell: Callable[[float], None] = lambda passed_s: None
) -> dict[str, Any]:
    """Trade under load, check the books, and return what was weighed.

    Args:
        seconds: For how long.
        rate: Frames a second.
        folder: For database and log.
        seed: Of the market.
        tell: Told how long it has gone on.
    """
    cores = sorted(os.sched_getaffinity(0))
    server = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", "--rate", str(rate), "--seed", str(seed),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert server.stdin is not None and server.stdout is not None
    try:
        os.sched_setaffinity(server.pid, cores[1:] or cores)
        os.sched_setaffinity(0, cores[:1])
        at = json.loads(await server.stdout.readline())
        config = load(CONFIG, environ={}, options={"feed.source": ("demo", "test")})
        entrance = Entrance("binance", endpoint=f"127.0.0.1:{at['port']}", ca=Path(at["ca"]))
        said: list[str] = []
        session = LiveSession(config, entrance, folder / "grid.sqlite", said.append)
        running = asyncio.create_task(session.trade(KEYS))
        while session.exchange is None and not running.done():
            await asyncio.sleep(0.05)
        scales = Scales()
        scales.lay(session)
        spent_s, began_s = time.process_time(), time.monotonic()
        while (passed_s := time.monotonic() - began_s) < seconds and not running.done():
            scales.look(session)
            tell(passed_s)
            await asyncio.sleep(1.0)
        frames, passed_s = scales.frames, time.monotonic() - began_s
        busy = (time.process_time() - spent_s) / passed_s
        if running.done():
            raise AssertionError(f"the session ended: {said[-5:]}") from running.exception()
        session.ask(Stop.CANCEL)
        receipt = (await running)._asdict()
        server.stdin.close()
        audit = json.loads(await server.stdout.readline())
        await server.wait()
    finally:
        os.sched_setaffinity(0, cores)
        if server.returncode is None:
            server.kill()
            await server.wait()
    books = argparse.Namespace(**audit, violations=[], orders=0)
    agree(str(folder / "grid.sqlite"), receipt, books, symbol=SYMBOL, entry_step=Decimal("1e-5"))
    return {
        "seconds": round(seconds), "frames": frames, "frames_per_second": round(frames / passed_s), "prices_used": len(scales.at_s),
        "orders_open_at_most": scales.orders, "fills": audit["fills"], "round_trips": receipt["round_trips"],
        "share_of_one_core": round(busy, 2), **scales.thirds(min(seconds / 4, 60.0)),
    }  # fmt: skip


def verdict(counts: dict[str, Any]) -> list[str]:
    """Return what grew, if anything did."""
    first, last = counts["first third"], counts["last third"]
    wrong = []
    if last["delay_median_ms"] > 2 * first["delay_median_ms"] + 10:
        wrong.append("the delay grew")
    if last["memory_mib"] > 1.05 * first["memory_mib"] + 2:
        wrong.append("the memory grew")
    return wrong


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Trade under load.")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.rate, given.seed))
        return 0
    from rich.progress import Progress

    code = code_hash()
    with tempfile.TemporaryDirectory() as folder, Progress() as bar:
        task = bar.add_task("load", total=given.seconds)
        counts = asyncio.run(
            weigh(
                given.seconds,
                given.rate,
                Path(folder),
                given.seed,
                lambda at_s: bar.update(task, completed=at_s),
            )
        )
    print(json.dumps(counts, indent=1))
    about = f"A grid of 200 slots traded through ccxt while the market sent {given.rate} frames a second; the process that trades had one core."  # fmt: skip
    write("load", about, "make load", counts, code=code)
    wrong = verdict(counts)
    print("; ".join(wrong) or "nothing grew")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
