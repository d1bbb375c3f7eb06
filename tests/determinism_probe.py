"""Run seeded worlds through the core and print one hash: `python tests/determinism_probe.py`.

The hash covers the state after every step. It must be the same on every machine and every Python, with the
compiler on or off. Nothing of the development tools is imported here.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

from gridmm.model import core_hash  # noqa: E402
from gridmm.vocabulary import Mode  # noqa: E402
from worlds import MILLION, Row, World, adversary, parameters  # noqa: E402

SETUPS = (
    {"MODE": Mode.LONG, "MAKER_PPM": 200, "ALLOW_LOSING": 1, "SKEW_PPM": MILLION},
    {"MODE": Mode.NEUTRAL, "GEOMETRIC": 1, "TREND_PPM": MILLION, "GROSS_LOTS": 60},
    {"MODE": Mode.SHORT, "RATE_MILLI": 2_000, "BURST_MILLI": 9_000, "MAX_ORDERS": 12},
    {"MODE": Mode.NEUTRAL, "SPOT": 1, "MAKER_PPM": -50},
)


def dice(seed: int) -> Iterator[int]:
    """Yield numbers below 2**16; written out, so that no library's generator matters."""
    while True:
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        yield seed >> 48


class Recorded(World):
    """A world that hashes its state after every step."""

    def feed(self, ev: np.ndarray) -> list[Row]:
        """Take one event, and the state after it into the digest."""
        rows = super().feed(ev)
        self.digest.update(core_hash(self.core).encode())
        return rows

    @cached_property
    def digest(self) -> hashlib.blake2b:
        """What was hashed so far."""
        return hashlib.blake2b(digest_size=16)


def main() -> None:
    """Play every world and print the hash of all their states."""
    digest = hashlib.blake2b(digest_size=16)
    for number, cells in enumerate(SETUPS):
        throw = dice(number)
        moves = [(next(throw) % 16, next(throw) % 256) for _ in range(300)]
        par = parameters(60_000, 4, BASE=40, MAX_LOTS=40, **cells)
        world = Recorded(par, 60_000, seed_lots=40, base_fees=True, audit=False)
        adversary(world, moves)
        digest.update(world.digest.digest() + repr(world.pnl).encode())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
