"""Tell our gateway nonsense: frames and answers with holes, wrong types, numbers that are none, and half of a JSON.

`make fuzz` trades through the real ccxt client on our own exchange, and spoils what that says by a seed: frames of prices and
of our own orders, and answers to every request. Nothing of it may end the session, leave an exception that nobody saw, or be
believed: at the end the exchange's ledger and the grid's State must agree, or the grid must have said that they do not. What
is spoilt is nonsense and never a well-formed lie, such as a list without one of its entries: nobody could tell that from the truth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from rich.progress import Progress, TaskID

from durable_kills import agree
from exchange_audit import Auditor
from gridmm.config import load
from gridmm.demo_market import DemoMarket
from gridmm.live import Entrance, LiveSession
from gridmm.paper_market import PaperRules
from gridmm.vocabulary import Stop
from gridmm.wire_server import Wire
from wire_kills import CAP
from wire_trade import KEYS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program finds only its own folder there

from tools.results import code_hash, write

HERE = Path(__file__).parent
CONFIG = HERE / "configs" / "wire_kills_perpetual.toml"
NONSENSE: tuple[Any, ...] = (
    None, "", "NaN", "-Infinity", "1e400", "-1", -1, 2**80, 1e308, True, [], {}, [[[[]]]], "x" * 5_000, "\u0000",
    {"code": None}, "BTCUSD_PERP", "0x10", "１２",
)  # fmt: skip
STATUSES = (200, 200, 200, 204, 301, 400, 404, 500, 502, 504)
RATES = {"prices": 3, "account": 350, "answer": 150}  # per mille


def spoilt(draw: random.Random, text: str) -> str:
    """Return a text of JSON with one thing wrong."""
    kind = draw.random()
    if kind < 0.15:
        return text[: draw.randrange(len(text) + 1)]
    if kind < 0.25:
        return draw.choice(
            (
                "",
                "null",
                "[[]]",
                "{}",
                "0",
                "<html>",
                "[" * 3_000,
                '{"a":' * 500,
                text + text,
                "\ufeff" + text,
            )
        )
    try:
        thing = json.loads(text)
    except ValueError:
        return text[::-1]
    places = list(_places(thing))
    if not places:
        return draw.choice(("null", "7", '"x"'))
    inside, key = draw.choice(places)
    if kind < 0.45 and isinstance(inside, dict):
        del inside[key]
    elif kind < 0.55 and isinstance(inside, list):
        inside.insert(0, inside[key])
    elif kind < 0.65 and isinstance(inside[key], str | int | float):
        inside[key] = [inside[key]]
    else:
        inside[key] = draw.choice(NONSENSE)
    return json.dumps(thing)


def _places(thing: Any) -> Any:
    """Yield every place of a JSON at which something stands, as container and key."""
    if isinstance(thing, dict | list):
        for key in list(thing) if isinstance(thing, dict) else range(len(thing)):
            yield thing, key
            yield from _places(thing[key])


class Spoiler(Wire):
    """Our exchange, which says nonsense now and then.

    Attributes:
        count: What was spoilt, by kind.
        last: The last of it.
    """

    def __init__(self, *about: Any, **more: Any) -> None:
        super().__init__(*about, **more)
        self.count, self.last = Counter[str](), list[str]()
        self._rates: dict[str, int] = {}
        self._say, self.lines._send = self.lines._send, self._send  # type: ignore[method-assign]

    async def __aenter__(self) -> Spoiler:
        """Listen, and begin to play."""
        await super().__aenter__()
        return self

    def spoil(self, seed: int, rates: dict[str, int]) -> None:
        """Begin, or with no rates end, to say nonsense."""
        self._draw, self._rates = random.Random(seed), rates

    def _strikes(self, kind: str, text: str) -> bool:
        if not self._rates or not text or self._draw.randrange(1_000) >= self._rates.get(kind, 0):
            return False
        self.count[kind] += 1
        return True

    def _send(self, line: Any, said: dict[str, Any], call: str) -> None:
        """Send a frame, or nonsense in its place."""
        text = json.dumps(said)
        if self._strikes(call, text):
            self._note(call, nonsense := spoilt(self._draw, text))
            line.say(nonsense)
        else:
            self._say(line, said, call)

    async def rest(self, request: web.Request) -> web.StreamResponse:
        """Answer, or say nonsense in place of the answer."""
        answer = await super().rest(request)
        text = answer.text if isinstance(answer, web.Response) else None
        if text and self._strikes("answer", text):
            status, nonsense = self._draw.choice(STATUSES), spoilt(self._draw, text)
            self._note(f"{status} {request.method} {request.path}", nonsense)
            headers = {"Location": "/nowhere"} if status == 301 else {}
            return web.Response(
                status=status, text=nonsense, content_type="application/json", headers=headers
            )
        return answer

    def _note(self, what: str, nonsense: str) -> None:
        self.last = [*self.last[-20:], f"{what}: {nonsense[:300]}"]


async def fuzz(
    inputs: int, seed: int, folder: Path, seconds: float, tell: Callable[[int], None] = lambda count: None
) -> dict[str, Any]:
    """Trade while nonsense is said, check everything, and return the counts.

    Args:
        inputs: How much nonsense.
        seed: Of the nonsense and of the market.
        folder: For database and log.
        seconds: How long it may take.
        tell: Told how much there was.
    """
    unseen: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _, about: unseen.append(f"{about['message']}: {about.get('exception')!r}")
    )
    config = load(CONFIG, environ={}, options={"feed.source": ("demo", "test")})
    market, said = DemoMarket(seed), list[str]()
    async with Spoiler(
        market.instrument, PaperRules(), feed=market, speed="600", history_ms=6 * 3_600_000, synchronous="OFF"
    ) as wire:
        auditor = Auditor(wire.paper, CAP)
        entrance = Entrance("binance", endpoint=f"127.0.0.1:{wire.port}", ca=wire.ca_file)
        session = LiveSession(config, entrance, folder / "grid.sqlite", said.append)
        running = asyncio.create_task(session.trade(KEYS))
        try:
            end_s = time.monotonic() + seconds
            while session.engine is None and not running.done():
                await asyncio.sleep(0.05)
            wire.spoil(seed, RATES)
            while wire.count.total() < inputs and time.monotonic() < end_s and not running.done():
                await auditor.check()
                tell(wire.count.total())
                await asyncio.sleep(0.02)
            wire.spoil(seed, {})
            if running.done():
                raise AssertionError(
                    f"seed {seed}: the session ended after {wire.count}: {wire.last}"
                ) from running.exception()
            await asyncio.sleep(3.0)
            session.ask(Stop.CANCEL)
            receipt = (await running)._asdict()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        orders, fills, _ = auditor.counts()
        audit = argparse.Namespace(
            violations=auditor.violations(),
            open_orders=len(await wire.paper.open_orders()),
            fills=fills,
            orders=orders,
            position=f"{auditor.position:f}",
        )
        assert not unseen, f"seed {seed}: {unseen[:3]} after {wire.last}"
        agree(
            str(folder / "grid.sqlite"),
            receipt,
            audit,
            symbol=market.instrument.symbol,
            entry_step=Decimal("1e-5"),
        )
        return {"inputs": wire.count.total(), **dict(sorted(wire.count.items())), "orders": orders, "fills": fills,
                "alarms": sum("must act" in line or "not in this table" in line for line in said)}  # fmt: skip


def _show(bar: Progress, task: TaskID, before: int, count: int) -> None:
    bar.update(task, completed=before + count)


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Tell our gateway nonsense.")
    parser.add_argument("--inputs", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    given, code = parser.parse_args(), code_hash()
    total: Counter[str] = Counter()
    seed = given.seed
    with Progress() as bar:
        task = bar.add_task("nonsense", total=given.inputs)
        while total["inputs"] < given.inputs:
            want, before = min(500, given.inputs - total["inputs"]), total["inputs"]
            with tempfile.TemporaryDirectory() as folder:
                tell = partial(_show, bar, task, before)
                counts = asyncio.run(fuzz(want, seed, Path(folder), 300.0, tell))
            total.update(counts)
            seed += 1
    write(
        "fuzz",
        "Frames and answers of an exchange were spoilt while a grid traded through ccxt; none ended the session, and at the end "
        "ledger and State agreed.",
        f"make fuzz N={given.inputs}" + (f" SEED={given.seed}" if given.seed != 1 else ""),
        {"sessions": seed - given.seed, **total},
        code=code,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
