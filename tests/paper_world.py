"""A made-up market and a trader without a plan, both from a seed: what tests play on the paper exchange.

Run as a program it prints the hash of a long stream, or plays on a ledger until somebody kills it.
"""

import asyncio
import hashlib
import random
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from gridmm.exchange import OrderRequest
from gridmm.exchange_paper import PaperExchange, PaperRules
from gridmm.paper_account import Row, Sum, Venue, Want, empty_venue
from gridmm.paper_matching import advance, submit
from gridmm.units import Instrument

Command = tuple[int, ...]

SPOT = {"spot": 1, "unit_atoms": 2_000, "lot_atoms": 7, "cash": 60_000_000, "base": 400}
PERPETUAL = {"spot": 0, "unit_atoms": 2_000, "lot_atoms": 7, "cash": 9_000_000, "leverage": 5}
FEES = ((0, 0), (200, 500), (-70, 333), (-150, -10), (1_234, 4_321))


def make(seed: int) -> Venue:
    """An exchange whose rules come from a seed."""
    chance = random.Random(seed)
    maker, taker = chance.choice(FEES)
    rules = dict(chance.choice((SPOT, PERPETUAL)), maker_ppm=maker, taker_ppm=taker)
    rules |= {"fee_in_base": chance.randrange(2) * rules["spot"], "latency_ms": chance.choice((0, 0, 3, 40))}
    return empty_venue(**rules, min_lots=chance.choice((0, 2)), min_atoms=chance.choice((0, 1_000_000)))


def rows(seed: int, count: int) -> Iterator[tuple[int, int, int, int, int, int]]:
    """A walk with a touch, prints at, in and through it, gaps, unknown sizes and funding."""
    chance = random.Random(seed * 7 + 1)
    middle, time_ms = 1_000, 0
    sized, quoted = chance.random() < 0.8, chance.random() < 0.8
    for _ in range(count):
        time_ms += chance.choice((0, 1, 1, 2, 5, 30))
        middle = max(50, middle + chance.choice((-1, -1, 0, 0, 0, 1, 1)) * chance.choice((1, 1, 1, 1, 9)))
        kind = chance.random()
        if quoted and kind < 0.5:
            bid_lots, ask_lots = (chance.randrange(30) if sized else 0 for _ in range(2))
            bid, ask = middle - chance.randrange(1, 3), middle + chance.randrange(1, 3)
            yield Row.QUOTE, time_ms, bid, ask, bid_lots, ask_lots
        elif kind < 0.9:
            price = middle + chance.randrange(-3, 4)
            yield Row.TRADE, time_ms, price, chance.randrange(1, 20), chance.choice((-1, 0, 1)), 1
        elif kind < 0.97:
            yield Row.PATH, time_ms, middle, chance.randrange(9), 0, 0
        elif kind < 0.99:
            yield Row.FUNDING, time_ms, chance.randrange(-9_999, 9_999), chance.choice((0, middle)), 0, 0
        else:
            yield Row.CANDLE, time_ms, middle, middle, middle, middle


def commands(seed: int, venue: Venue, last_price: int) -> Iterator[Command]:
    """What the trader asks for after a row, as arguments of `submit`."""
    chance = random.Random(seed)
    while chance.random() < 0.5:
        key = int(venue.v[Sum.NEXT_KEY]) - chance.randrange(1, 12)
        kind = chance.random()
        if kind < 0.25:
            yield Want.CANCEL, key, 0, 0, 0, 0, 0, 0, 0, 0
        elif kind < 0.27:
            yield Want.CANCEL_ALL, 0, 0, 0, 0, 0, 0, 0, 0, 0
        else:
            side = chance.choice((-1, 1))
            price = last_price - side * chance.randrange(-3, 9)
            post, immediate = chance.choice(((1, 0), (1, 0), (1, 0), (0, 0), (0, 1)))
            reduce_only = int(venue.v[Sum.SPOT] == 0 and chance.random() < 0.3)
            twin = key if chance.random() < 0.05 else 0
            yield Want.PLACE, 0, side, price, chance.randrange(0, 25), post, reduce_only, immediate, twin, 0


def stream_hash(seed: int, count: int) -> str:
    """The hash of everything that a stream makes heard, and of the tables at its end."""
    venue, total = make(seed), hashlib.blake2b(digest_size=16)
    for number, row in enumerate(rows(seed, count)):
        heard = advance(venue, *row, number)
        total.update(venue.out[:, :heard].tobytes())
        last = row[2] if row[0] in (Row.QUOTE, Row.TRADE, Row.PATH) else 1_000
        for command in commands(seed * 1_000_003 + number, venue, last):
            submit(venue, *command)
            total.update(venue.out[:, : int(venue.v[Sum.OUT])].tobytes())
    total.update(venue.v.tobytes() + venue.orders.tobytes() + venue.requests.tobytes())
    return total.hexdigest()


COIN = Instrument(
    symbol="COIN/USDT",
    market="spot",
    tick=Decimal("0.01"),
    lot=Decimal("0.1"),
    min_notional=Decimal(5),
    maker_fee_ppm=1_000,
    taker_fee_ppm=1_500,
)
PERP = Instrument(
    symbol="COIN/USDT:USDT",
    market="perpetual",
    tick=Decimal("0.01"),
    lot=Decimal("0.1"),
    maker_fee_ppm=200,
    taker_fee_ppm=500,
)


def requests(seed: int, number: int, last_price: int) -> tuple[list[OrderRequest], list[str]]:
    """What the trader asks a whole paper exchange for after row `number`: orders, and ids to cancel."""
    chance = random.Random(seed * 1_000_003 + number)
    orders = []
    for index in range(chance.choice((0, 0, 1, 2))):
        side = chance.choice((-1, 1))
        price = COIN.tick * (last_price - side * chance.randrange(-2, 9))
        quantity = COIN.lot * chance.randrange(1, 30)
        post_only = chance.random() < 0.7
        client_id = f"C{number if chance.random() < 0.95 else number - 1}X{index}"
        orders.append(OrderRequest(client_id, side, price, quantity, post_only))
    ids = [f"C{number - chance.randrange(1, 20)}X0" for _ in range(chance.choice((0, 0, 0, 1)))]
    return orders, ids


async def session(paper: PaperExchange, seed: int, stop: int, *, speak: bool = False) -> list[asyncio.Task]:
    """Play rows from where the ledger ends, and command after each; return the calls, of which some may wait."""
    calls = []
    for number, row in enumerate(rows(seed, stop)):
        if number < paper.resume_row:
            continue
        paper.advance(*row, row_index=number)
        last = row[2] if row[0] in (Row.QUOTE, Row.TRADE, Row.PATH) else 1_000
        orders, ids = requests(seed, number, last)
        calls += [asyncio.create_task(paper.place(orders)), asyncio.create_task(paper.cancel(ids))]
        await asyncio.sleep(0)
        heard = paper.drain()
        if speak:
            answers = [call.result() for call in calls if call.done()]
            calls = [call for call in calls if not call.done()]
            print(*(part for answer in answers for part in answer), *heard, sep="\n", flush=True)
    return calls


async def _until_killed(path: Path, seed: int) -> None:
    paper = PaperExchange(COIN, PaperRules(base=Decimal(50)), path, synchronous="OFF")
    print("begins at", paper.resume_row, flush=True)
    await session(paper, seed, 10**6, speak=True)


if __name__ == "__main__":
    if sys.argv[1] == "hash":
        print(*(stream_hash(seed, int(sys.argv[2])) for seed in range(6)))
    else:
        asyncio.run(_until_killed(Path(sys.argv[2]), int(sys.argv[3])))
