"""An answer to why is what the engine itself decided: the shown numbers give the shown price, the reason is the record's."""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

import gridmm
from gridmm.center import buy_window, sell_window
from gridmm.cli import run_command
from gridmm.client_id import decode
from gridmm.connect import Session, connect
from gridmm.errors import GridmmError, UsageError
from gridmm.event_log import MAGIC, pack, read_segment, segments
from gridmm.layout import OPEN, Ev, Kind, Leg, Par, Var
from gridmm.retrace import event_at, placed, state_at
from gridmm.run import files_of
from gridmm.slots import exposure
from gridmm.v1.vocabulary_pb2 import Action
from gridmm.vocabulary import Order, Reason
from gridmm.why import meant, why_order, why_slot
from gridmm.why_not import Level, answer, reason_of, standing, why_not
from test_capsule import child, session
from test_monitor import eventually


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A geometric grid of two sides that trades an hour and a half twice, the second time from where it stood."""
    db = tmp_path_factory.mktemp("why") / "grid.sqlite"
    options = {
        "grid__mode": "neutral",
        "grid__grid_size": "6",
        "grid__skew_factor": "0.8",
        "grid__max_position": "0.03",
    }
    session(db, **options)
    session(db, **options)
    return db


@pytest.fixture
def looked(traded: Path) -> Iterator[Session]:
    with connect(traded) as found:
        yield found


def orders_of(looked: Session) -> list[str]:
    """Return every order that was ever placed."""
    return [
        row.client_id for one in looked.records() for row in one.rows if row.action == Action.ACTION_PLACE
    ]


def test_the_numbers_that_are_shown_give_the_price_and_the_quantity(looked: Session) -> None:
    known, opens = orders_of(looked), 0
    assert len(known) > 60
    for name in random.Random(1).sample(known, 15):
        said = why_order(looked, name)
        chain = dict(said.chain)
        found = placed(looked, name)
        assert said.agrees and found is not None
        row, i = found[1], looked.instrument()
        assert f"at {i.price(row.price_ticks).normalize():f}" in said.what
        if decode(name).leg == 1:
            assert chain["price"].startswith(f"{i.price(row.price_ticks).normalize():f}:")
            continue
        opens += 1
        numbers = re.search(r"level k = (\d+) x \(1 \+ (\d+)", chain["lattice"])
        assert numbers is not None
        anchor, growth = int(numbers[1]), 1 + Fraction(int(numbers[2]), 10**6)
        at = decode(name)
        level = anchor * growth ** (at.cell if at.direction > 0 else at.cell + 1)
        assert row.price_ticks == (int(level) if at.direction > 0 else -int(-level // 1))
        first, last = map(int, re.findall(r"cells (-?\d+) to (-?\d+)", chain["window"])[0])
        assert min(first, last) <= at.cell <= max(first, last)
        notional, price, quantity = map(
            Decimal, re.findall(r"order_notional (\S+) \S+ / (\S+) = (\S+) ", chain["quantity"])[0]
        )
        assert quantity == notional / price // i.lot * i.lot == i.quantity(row.quantity_lots)
    assert opens >= 5


def test_the_story_of_an_order_ends_as_the_books_say(looked: Session) -> None:
    fills = {one["client_id"] for one in looked.fills()}
    withdrawn = {
        row.client_id for one in looked.records() for row in one.rows if row.action == Action.ACTION_CANCEL
    }
    for name in random.Random(2).sample(sorted(fills), 4):
        texts = [text for _, text in why_order(looked, name).later]
        assert texts[0] == "accepted" and any("traded at" in text for text in texts), texts
    for name in random.Random(3).sample(sorted(withdrawn - fills), 4):
        texts = [text for _, text in why_order(looked, name).later]
        assert any(text.startswith("withdrawn: ") for text in texts) and texts[-1].startswith("canceled"), (
            texts
        )


@pytest.mark.parametrize(("mode", "reasons"), [("long", {"CAP", "SKEW"}), ("neutral", {"SIDE"})])
def test_every_level_of_a_window_has_an_order_or_the_reason_that_was_recorded(
    tmp_path: Path, mode: str, reasons: set[str]
) -> None:
    """The reason that is told now, for each hole that the running engine wrote down."""
    options = {"grid__mode": mode, "grid__grid_size": "8", "grid__skew_factor": "1"}
    session(tmp_path / "g", grid__max_position="0.004", **options)
    with connect(tmp_path / "g") as looked:
        assert _every_level(looked, mode) >= reasons


def _every_level(looked: Session, mode: str) -> set[str]:
    """Compare the levels of some decisions, and return the reasons that there were."""
    records = [one for one in looked.records() if one.holes and one.event_sequence]
    told, seen_reasons = 0, set[str]()
    for record in random.Random(4).sample(records, 20):
        seen = event_at(looked, int(record.event_sequence), record.time_ms)
        core, par = seen.core, seen.par
        holes = {}
        for run in record.holes:
            step = 1 if run.last_cell >= run.first_cell else -1
            for cell in range(run.first_cell, run.last_cell + step, step):
                holes[cell, 1 if run.direction == 1 else -1] = Reason(run.reason)
        for (cell, direction), why in holes.items():
            assert reason_of(core, par, Level(cell, direction, 0)) == why
            told += 1
            seen_reasons.add(why.name)
        net = int(exposure(core)[0]) - int(par[Par.TARGET_LOTS])
        far, near = (int(one) for one in buy_window(core, par, net)[:2])
        begin, end = (int(one) for one in sell_window(core, par, net)[:2]) if mode == "neutral" else (0, 0)
        for cell, direction in [*((k, 1) for k in range(far, near)), *((k, -1) for k in range(begin, end))]:
            if (cell, direction) not in holes:
                assert reason_of(core, par, Level(cell, direction, 0)) == Reason.NONE
        assert reason_of(core, par, Level(far - 40, 1, 0)) == Reason.OUTSIDE
    assert told > 40
    return seen_reasons


def test_an_order_stands_where_the_answer_says_so(looked: Session) -> None:
    i, stands = looked.instrument(), 0
    first, last = (one.time_ms for one in (next(looked.records()), list(looked.records())[-1]))
    for at_ms in random.Random(5).sample(range(first, last), 10):
        seen = state_at(looked, at_ms)
        assert seen.time_ms <= at_ms and seen.agrees
        s, v = seen.core.slots, seen.core.v
        for j in range(v[Var.SLOTS]):
            if 0 < s[OPEN + Leg.STATUS, j] < Order.TERMINAL:
                price = int(s[OPEN + Leg.PRICE, j])
                assert standing(seen.core, price) and "an order stands at" in answer(seen, price, i).what
                stands += 1
        assert "no order, " in answer(seen, 1_000, i).what
    assert stands > 20


def frame(body: bytes) -> bytes:
    """Return a frame of the event log."""
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


def spoil(folder: Path, kind: Kind) -> int:
    """Change one event in the middle of the first segment; return its number."""
    path = segments(folder)[0]
    segment = read_segment(path)
    events = segment.events.copy()
    at = [k for k, ev in enumerate(events) if ev[Ev.KIND] == kind][len(events) // 400]
    events[at, Ev.BID] += 4_000
    events[at, Ev.ASK] += 4_000
    events[at, Ev.LAST] += 4_000
    path.write_bytes(MAGIC + frame(segment.header.SerializeToString()) + pack(events))
    return segment.first + at


def test_a_log_that_was_changed_says_that_it_is_not_what_was_recorded(traded: Path, tmp_path: Path) -> None:
    for path in (traded, files_of(traded)[1]):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    changed = spoil(tmp_path / files_of(traded)[1].name, Kind.PRICE)
    with connect(tmp_path / traded.name) as looked:
        after = [one for one in looked.records() if changed < one.event_sequence]
        name = next(row.client_id for one in after for row in one.rows if row.action == Action.ACTION_PLACE)
        said = why_order(looked, name)
        assert said.agrees is False and said.proof.startswith("NOT what was recorded: decision"), said.proof
    assert run_command(["why", name, "--db", str(tmp_path / traded.name)]) == 3


def test_without_a_log_the_decision_speaks_for_itself(traded: Path, tmp_path: Path) -> None:
    shutil.copy(traded, tmp_path / "alone.sqlite")
    with connect(tmp_path / "alone.sqlite") as looked:
        name = looked.fills().column("client_id")[0]
        said = why_order(looked, name)
        assert said.agrees is None and said.proof.startswith("from the record of the decision alone")
        assert any("traded at" in text for _, text in said.later)
        assert why_not(looked, Decimal("59000")).agrees is None


def test_what_is_meant_is_one_thing(looked: Session) -> None:
    fill = next(iter(looked.books.store.fills()))
    assert meant(looked, fill.client_id) == fill.client_id == meant(looked, f"#{fill.exchange_id}")
    assert meant(looked, "-3") == (0, -3) and meant(looked, "2/-3") == (2, -3)
    with pytest.raises(UsageError, match="it could be"):
        meant(looked, fill.client_id[:12])
    for nothing in ("GM0000000000000000000000", "hello-hello", fill.client_id[:-1] + "?"):
        with pytest.raises(UsageError, match="no order or trade of this grid is called so"):
            meant(looked, nothing)
    with pytest.raises(UsageError, match="no decision that is on record placed it"):
        why_order(looked, gridmm.client_id.encode(decode(fill.client_id)._replace(sequence=10**9)))
    slot = looked.state().slots[0]
    assert f"{slot.epoch}/{slot.cell}" in why_slot(looked, slot.epoch, slot.cell).what
    with pytest.raises(UsageError, match="has none there"):
        why_slot(looked, 9, 9)


def test_the_commands_answer(traded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with connect(traded) as looked:
        name = looked.fills().column("client_id")[-1]
    assert run_command(["why", name, "--db", str(traded), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["agrees"] and said["chain"][0][0] == "event" and said["later"]
    assert run_command(["why-not", "59000", "--at", "1 h", "--db", str(traded), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["agrees"] and [head for head, _ in said["chain"]][:3] == ["moment", "level", "reason"]
    for line, told in (
        (["why", "nonsense"], "no order or trade"),
        (["why-not", "cheap"], "Write one such as"),
        (["why-not", "0"], "a price is above zero"),
        (["why-not", "59000", "--at", "2020-01-01"], "nothing happened"),
        (["why-not", "59000", "--at", "soon"], "is not a time"),
    ):
        assert run_command([*line, "--db", str(traded)]) == 2, line
        assert told in capsys.readouterr().err


def trades(db: Path) -> int:
    """Return how many trades a session has saved, 0 before it has saved anything."""
    try:
        with connect(db) as looked:
            return len(looked.fills())
    except GridmmError:
        return 0


def test_it_answers_beside_the_process_that_trades_and_changes_nothing(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    with child(db, "--pause", "0.05") as process:
        eventually(lambda: trades(db) >= 2, seconds=60)
        before = {path.name for path in tmp_path.rglob("*")}
        with connect(db) as looked:
            said = why_order(looked, looked.fills().column("client_id")[0])
            assert said.agrees and len(said.chain) > 3
            assert why_not(looked, Decimal("59000"), looked.state().market.now_ms - 5_000).agrees
        assert process.poll() is None, "it still trades"
        assert {path.name for path in tmp_path.rglob("*")} >= before
