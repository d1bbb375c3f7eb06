"""The event log of a session, played again from the state in each segment's head, gives the same decisions."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from gridmm.config import load
from gridmm.errors import Refused
from gridmm.event_log import read_log
from gridmm.feed import Pace
from gridmm.model import core_hash, from_state, unseal
from gridmm.run import Signals, assemble, files_of, play
from gridmm.step import advance


def session(db: Path) -> tuple[dict[int, str], str, np.ndarray]:
    """Trade an hour and a half of the demo market; return hash by deciding event, the last hash, the parameters."""
    config = load(
        options={
            "feed.duration": ("90 min", "--duration"),
            "grid.price_interval": ("10 bps", "test"),
            "instrument.maker_fee": ("1 bps", "test"),
        },
        environ={},
    )
    with ExitStack() as stack:
        run = assemble(config, db, stack, synchronous="OFF")
        asyncio.run(play(run, Signals(), Pace("max", lambda: 0, asyncio.sleep)))
        made = {one.event_sequence: one.hash_after for one in run.engine.session.store.decisions()}
        return made, core_hash(run.engine.session.core), run.engine.session.par


def test_a_session_and_its_continuation_replay_to_the_same_hashes(tmp_path):
    db = tmp_path / "grid.sqlite"
    session(db)
    decided, last, par = session(db)
    assert len(decided) > 10

    replayed: dict[int, str] = {}
    segments = list(read_log(files_of(db)[1]))
    assert len(segments) == 2
    for segment in segments:
        core, _ = from_state(unseal(segment.header.state))
        assert core_hash(core) == segment.header.state_hash
        for number, ev in enumerate(segment.events, segment.first):
            if advance(core, par, ev).actions.shape[1]:
                replayed[number] = core_hash(core)
    assert replayed == decided
    assert core_hash(core) == last


def test_half_of_a_session_is_refused(tmp_path):
    db = tmp_path / "grid.sqlite"
    session(db)
    ledger = files_of(db)[0]
    kept = ledger.rename(tmp_path / "kept")
    for rest in tmp_path.glob(f"{ledger.name}-*"):
        rest.unlink()
    with pytest.raises(Refused, match="not of one session"):
        session(db)
    for made in tmp_path.glob("grid.sqlite*"):
        if made.is_file():
            made.unlink()
    kept.rename(ledger)
    with pytest.raises(Refused, match="not of one session"):
        session(db)
