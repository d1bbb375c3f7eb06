"""Worlds by the seed: run many, and make of one that fails a line that anybody can repeat and the shortest story.

python tests/simulation.py --seeds 10000 [--from 0]
python tests/simulation.py --seed 8 [--moments 40] [--faults crash,pause]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulated import Fault, Mutant, World

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program finds only its own folder there

from tools.results import code_hash, write

STORY = 40  # last events of a world that failed
TRIES = 60  # worlds that a shrink may cost


class Outcome(NamedTuple):
    """What became of one world."""

    seed: int
    rule: str
    message: str
    struck: dict[str, int]
    seconds: float
    healed_s: float


def outcome(seed: int, mutant: Mutant | None = None) -> Outcome:
    """Run one world."""
    world = World(seed, mutant=mutant).run()
    rule, message = world.broken or ("", "")
    struck = {str(fault): count for fault, count in world.struck.items()}
    return Outcome(seed, rule, message, struck, world.loop.now_s, world.healed_s)


class Shrunk(NamedTuple):
    """The smallest world found that breaks the same rule."""

    seed: int
    moments: int
    faults: tuple[Fault, ...]
    world: World

    @property
    def line(self) -> str:
        """The command that repeats it."""
        kinds = ",".join(fault.value for fault in self.faults) or "none"
        return f"python tests/simulation.py --seed {self.seed} --moments {self.moments} --faults {kinds}"

    @property
    def story(self) -> str:
        """What happened last in it."""
        lines = [f"{at_s:9.3f} s  {text}" for at_s, text in list(self.world.trace)[-STORY:]]
        return "\n".join([self.line, *lines])


def shrink(seed: int, mutant: Mutant | None = None) -> Shrunk:
    """Leave out kinds of faults and moments for as long as the same rule breaks."""
    tries = iter(range(TRIES))

    def breaks(moments: int, faults: Sequence[Fault]) -> World | None:
        if next(tries, None) is None:
            return None
        world = World(seed, moments, faults, mutant).run()
        return world if world.broken is not None and world.broken[0] == rule else None

    world = World(seed, mutant=mutant).run()
    assert world.broken is not None, f"seed {seed} breaks nothing: there is nothing to shrink"
    rule, moments, faults = world.broken[0], world.moments, [fault for fault in Fault if world.rates[fault]]
    for fault in list(faults):
        if smaller := breaks(moments, [one for one in faults if one != fault]):
            world = smaller
            faults.remove(fault)
    low, high = 0, moments
    while low < high:
        middle = (low + high) // 2
        if smaller := breaks(middle, faults):
            world, high = smaller, middle
        else:
            low = middle + 1
    return Shrunk(seed, world.moments, tuple(faults), world)


def outcomes(seeds: Sequence[int], mutant: Mutant | None = None, workers: int = 0) -> Iterator[Outcome]:
    """Run worlds, on all cores where asked to; in the order in which they end."""
    if workers < 2:
        yield from (outcome(seed, mutant) for seed in seeds)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(partial(outcome, mutant=mutant), seeds, chunksize=8)


def many(first: int, count: int) -> int:
    """Run many worlds with a bar, print what failed, and write the result; return how many failed."""
    code = code_hash()
    struck: Counter[str] = Counter()
    failed: list[Outcome] = []
    healed, virtual, began = 0.0, 0.0, time.monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        bar = progress.add_task("worlds", total=count)
        for one in outcomes(range(first, first + count), workers=os.cpu_count() or 1):
            struck.update(one.struck)
            healed, virtual = max(healed, one.healed_s), virtual + one.seconds
            if one.rule:
                failed.append(one)
                progress.console.print(f"seed {one.seed}: {one.rule}: {one.message}", markup=False)
            progress.advance(bar)
    took = time.monotonic() - began
    for fault in Fault:
        print(f"{fault.value:14} {struck[fault.value]:9}")
    print(
        f"{count} worlds, {len(failed)} failed, {count / took:.1f} a second, {virtual / 3_600:.1f} hours of "
        f"their time, whole again after at most {healed:.1f} s"
    )
    write(
        "simulation",
        "Invented worlds in virtual time, each with an exchange, a database and faults around the Durable engine.",
        f"make simulate SEEDS={count}" + (f" FROM={first}" if first else ""),
        {
            "seeds": count,
            "from": first,
            "failed": sorted(one.seed for one in failed),
            "seconds": round(took, 1),
            "seeds_per_second": round(count / took, 1),
            "virtual_hours": round(virtual / 3_600, 1),
            "healed_seconds_max": round(healed, 1),
            "faults": {fault.value: struck[fault.value] for fault in Fault},
        },
        code=code,
    )
    for one in sorted(failed)[:3]:
        print("", shrink(one.seed).story, sep="\n")
    return len(failed)


def single(seed: int, moments: int | None, faults: Sequence[Fault] | None) -> int:
    """Run one world and tell its story."""
    world = World(seed, moments, faults).run()
    for at_s, text in world.trace:
        print(f"{at_s:9.3f} s  {text}")
    if world.broken is None:
        print(f"nothing was broken; whole again after {world.healed_s:.1f} s")
        return 0
    if moments is None and faults is None:
        print("", shrink(seed).story, sep="\n")
    return 1


def kinds(text: str) -> list[Fault]:
    """Return the faults that a line names."""
    return [Fault(name) for name in text.split(",") if name not in ("", "none")]


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Deterministic worlds around the Durable engine.")
    parser.add_argument("--seeds", type=int, default=300, help="how many worlds")
    parser.add_argument("--from", type=int, default=0, dest="first", help="first seed")
    parser.add_argument("--seed", type=int, help="one world, with its story")
    parser.add_argument("--moments", type=int, help="price moves until the faults end")
    parser.add_argument("--faults", type=kinds, help="which faults, by commas; none")
    given = parser.parse_args()
    if given.seed is not None:
        return single(given.seed, given.moments, given.faults)
    return int(many(given.first, given.seeds) > 0)


if __name__ == "__main__":
    sys.exit(main())
