"""How far recorded markets move: ATR of a minute, moves of a day, and how often levels were crossed.

GRIDMM_DATA=folder python -m benchmarks.market_ranges [--save]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from gridmm.amounts import measure
from gridmm.starting_values import CLASSES, Inputs, crossings, day_move, ranges_of, share_of, starting_values
from gridmm.tape import Row, Tape, load, utc
from gridmm.why_a_grid import level_moves
from tools.notebooks import ROOT
from tools.results import code_hash, write

NAME = "market_ranges"
DAY_MS = 86_400_000
MAKER_FEE = measure("2 bps")  # of every recording alike: levels are compared, not exchanges
# Recordings of candles of a minute, and the class that a person would put them in.
RECORDINGS = {
    "btcusdt_perp_1m_202506.csv.gz": "major",
    "btcperp_ftx_1m_202201.csv.gz": "major",
    "btcusdc_binanceus_1m_202303.csv.gz": "major",
    "adausdt_perp_1m_202506.csv.gz": "mid",
    "lean_binance_perp_adausdt_1m_trades.csv.gz": "mid",
    "lean_coinbase_ltcusd_1m_trades.csv.gz": "mid",
}


def days(tape: Tape) -> list[np.ndarray]:
    """Return the prices of each day of a recording, in order."""
    used = (tape.kind == Row.PATH) | (tape.kind == Row.TRADE)
    day, price = tape.time_ms[used] // DAY_MS, tape.a[used]
    return [price[day == number] for number in np.unique(day)]


def look(tape: Tape, kind: str) -> dict[str, Any]:
    """Return what was measured of a recording; shares in parts per million."""
    ranges = ranges_of(tape)
    parts = [part for part in days(tape) if len(part) >= 1_000]
    first = tape.instrument.price(int(parts[0][0]))
    inputs = Inputs(
        maker_fee=MAKER_FEE,
        atr=measure(f"{ranges.usual} ppm"),
        atr_rms=measure(f"{ranges.rms} ppm"),
        stress=CLASSES[kind].stress,
        tick=share_of(tape.instrument.tick, first),
    )
    interval = measure(str(starting_values(inputs).values[0].text)).ppm
    crossed = squares = moves = 0
    for part in parts:
        begin = int(part[0])
        steps = level_moves(part.tolist(), begin, max(1, begin * interval // 10**6))
        crossed += sum(map(abs, steps))
        squares += sum(steps) ** 2
        moves += (int(part[-1]) * 10**6 // begin - 10**6) ** 2
    return {
        "class": kind,
        "market": tape.instrument.symbol,
        "from": utc(int(tape.time_ms[0])),
        "days": len(parts),
        "candles": ranges.candles,
        "tick_ppm": inputs.tick.ppm,
        "atr_low_ppm": ranges.low,
        "atr_ppm": ranges.usual,
        "atr_high_ppm": ranges.high,
        "atr_rms_ppm": ranges.rms,
        "day_move_ppm": isqrt(moves // len(parts)),
        "day_move_by_atr_ppm": day_move(ranges.rms),
        "interval_ppm": interval,
        "crossings_a_day": round(crossed / len(parts)),
        "crossings_by_atr": crossings(day_move(ranges.rms), interval),
        "n2_over_c": round(squares / max(crossed, 1), 2),
    }


def folder() -> Path:
    """Return where recordings are kept."""
    return Path(os.environ.get("GRIDMM_DATA") or ROOT.parent / "shared" / "data")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every recording; print what came out, and keep it where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write results/{NAME}.json")
    asked = parser.parse_args(argv)
    code = code_hash()
    if missing := [name for name in RECORDINGS if not (folder() / name).is_file()]:
        print(
            f"{', '.join(missing)}: not in {folder()}. Set GRIDMM_DATA to the folder that holds them.",
            file=sys.stderr,
        )
        return 1
    counts = {name.partition(".")[0]: look(load(folder() / name), kind) for name, kind in RECORDINGS.items()}
    print(json.dumps(counts, indent=1))
    if asked.save:
        about = (
            "Recordings of candles of a minute: the grid's own ATR (14 candles; median, what it was below and above a "
            "tenth of the time, root mean square), the root mean square move of a day beside what the ATR says, and how often "
            "levels at the starting interval for a maker fee of 2 bps were crossed, beside what the ATR says. n²/C is "
            "the sum of the squared moves of each day over the crossings: below 1 the days returned. Prices inside a "
            "candle are assumed to take the shorter path."
        )
        write(NAME, about, "python -m benchmarks.market_ranges --save", counts, code=code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
