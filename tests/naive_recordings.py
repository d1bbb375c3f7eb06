"""Hold every decision on whole recordings against the naive model: `python tests/naive_recordings.py [ROWS]`.

The tests take thinned slices of each recording; here each one is played whole, or so many rows of it in a piece where a
number is given.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from data import FOLDER
from gridmm.tape import load
from test_naive_model import RECORDINGS, taped
from tools import results


def compare(limit: int) -> dict[str, dict[str, int]]:
    """Return for each recording how much was compared.

    Args:
        limit: Rows of each recording at most; 0 takes all of them.

    Raises:
        AssertionError: The core and the model disagree; the message says where.
    """
    counts: dict[str, dict[str, int]] = {}
    for name in RECORDINGS:
        began, tape = time.monotonic(), load(FOLDER / name)
        rows = min(len(tape), limit) if limit else len(tape)
        duel = taped(tape, seed=len(counts), rows=rows)
        counts[name] = {
            "rows_of_tape": len(tape),
            "rows_played": rows,
            "events": duel.events,
            "plans": duel.plans,
            "plan_rows": duel.rows.total(),
            "reasons": duel.holes.total(),
        }
        print(f"{name}: {counts[name]} in {time.monotonic() - began:.0f} s", flush=True)
    return counts


def main() -> int:
    """Compare, and keep the counts where whole recordings were compared."""
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    if not FOLDER.is_dir():
        print(f"no recordings in {FOLDER}: GRIDMM_DATA names another folder", file=sys.stderr)
        return 2
    code = results.code_hash()
    counts = compare(limit)
    if not limit:
        about = "Every decision on whole recordings, held against a model that shares no code with the core."
        results.write("naive", about, "make naive", counts, code=code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
