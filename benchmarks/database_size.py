"""How large a grid's files become: the demo is traded by the Durable engine until so many prices have passed.

python -m benchmarks.database_size [--ticks 1000000] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from gridmm.config import load
from gridmm.desk import MarketTime
from gridmm.run import Signals, assemble, files_of
from gridmm.several import serve, unpaced
from gridmm.vocabulary import Stop
from tools.notebooks import ROOT
from tools.results import code_hash, write

# A configuration, and the part of the prices that it is given: one that trades all the time takes long.
CONFIGS = {"demo": (None, 1), "many_fills": (ROOT / "tests" / "configs" / "demo_fast.toml", 10)}


def trade(config: Path | None, db: Path, ticks: int) -> dict[str, int]:
    """Trade the demo market until so many prices have passed.

    Args:
        config: The configuration; None is the demo's own.
        db: Where the state is kept; ledger and log stand beside it.
        ticks: How many prices.

    Returns:
        Prices that passed, seconds of market time and seconds that it took.
    """
    begun, seen, at_ms = time.monotonic(), 0, 0
    signals = Signals()

    def count(engine: MarketTime) -> None:
        nonlocal seen, at_ms
        seen, at_ms = seen + 1, engine.now_ms
        if seen >= ticks:
            signals.stop = Stop.CANCEL

    signals.on_moment = count
    with ExitStack() as stack:
        found = load(config, environ={}, options={"feed.speed": ("max", "benchmark")})
        run = assemble(found, db, stack, durable=True, synchronous="OFF")
        asyncio.run(serve([(run, signals)], unpaced, lambda line: None))
        market_s = (at_ms - run.engine.began_ms) // 1_000
    return {"ticks": seen, "market_seconds": market_s, "seconds": round(time.monotonic() - begun)}


def sizes(db: Path) -> dict[str, Any]:
    """Return the bytes of a grid's files and the rows and bytes of its tables."""
    ledger, log = files_of(db)

    def of(base: Path) -> int:
        return sum(path.stat().st_size for path in base.parent.glob(f"{base.name}*") if path.is_file())

    found: dict[str, Any] = {
        "state_file_bytes": of(db) - of(ledger) - of(log),
        "paper_ledger_bytes": of(ledger),
        "event_log_bytes": sum(path.stat().st_size for path in log.iterdir()),
    }
    with closing(sqlite3.connect(db)) as database:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (name,) in database.execute(names).fetchall():
            rows = database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[
                0
            ]  # a name of the file itself
            if rows:
                found[name] = rows
    return found


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure how large a grid's files become.")
    parser.add_argument("--ticks", type=int, default=1_000_000, help="prices (1000000)")
    parser.add_argument("--save", action="store_true", help="write results/database_size.json")
    return parser.parse_args(argv)


def main() -> int:
    """Measure, print, and save where asked."""
    given, code = arguments(), code_hash()
    counts: dict[str, Any] = {}
    for name, (config, part) in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            db = Path(folder) / "grid.sqlite"
            counts[name] = trade(config, db, given.ticks // part) | sizes(db)
        print(f"{name}:")
        for key, value in counts[name].items():
            print(f"    {key.replace('_', ' '):<32}{value:>14,}")
    if given.save:
        about = "Bytes and rows of a grid's files after so many prices of the demo market under the Durable engine."
        command = "make size" if given.ticks == 1_000_000 else f'make size ARGS="--ticks {given.ticks}"'
        print(f"written: {write('database_size', about, command, counts, code=code).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
