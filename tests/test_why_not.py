"""Every level of the windows has an order or exactly one reason, and the reason is the decision's own."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from data import real
from gridmm.cli import run_command
from gridmm.config import load
from gridmm.errors import UsageError
from gridmm.feed import Pace
from gridmm.grid import hi, lo
from gridmm.layout import CLOSE, OPEN, Col, Core, Ev, Leg, Par, Var
from gridmm.read_only import Reader
from gridmm.reason_words import reason_words, window_of
from gridmm.run import Signals, assemble, files_of, play
from gridmm.scene import Scene, events_of, parts_of, reach
from gridmm.slots import live, position
from gridmm.tape import utc
from gridmm.units import plain
from gridmm.vocabulary import Mode, Order, Reason
from gridmm.why_not import Place, hole_at, nearest, places, reason_at, why_not
from test_capsule import killed, session

CONFIGS = Path(__file__).parent / "configs"
TIGHT = {
    "grid.price_interval": "8 bps", "instrument.maker_fee": "1 bps", "grid.max_position": "0.012",
    "grid.order_notional": "200", "feed.duration": "3 h",
}  # fmt: skip
# Real recordings: file, configuration, and how much of it.
TAPES = {
    "btcperp_202201": ("btcperp_ftx_1m_202201.csv.gz", "12 h"),
    "binance_usdm_btcusdt": ("binance_usdm_btcusdt_20240808_raw.ndjson.gz", "0"),
    "xrpeth_201910": ("xrpeth_binance_aggtrades_20191011.csv.gz", "6 h"),
}


def traded_on(db: Path, tape: str) -> None:
    """Trade a piece of a real recording with the Durable engine, or the demo market with a tight cap."""
    options, file = dict(TIGHT), None
    if tape:
        name, duration = TAPES[tape]
        options, file = (
            {"feed.source": f"tape:{real(name)}", "feed.duration": duration},
            CONFIGS / f"{tape}.toml",
        )
    config = load(file, options={key: (value, "test") for key, value in options.items()}, environ={})
    with ExitStack() as stack:
        run = assemble(config, db, stack, durable=True, synchronous="OFF")
        run.begin()
        asyncio.run(play(run, Signals(), Pace("max", lambda: 0, asyncio.sleep)))


def window(core: Core, par: object, direction: int) -> list[int]:
    """Return the cells that a decision looks at on one side, by the definition of the window."""
    v = core.v
    mode = Mode(par[Par.MODE])  # type: ignore[index]
    if v[Var.EPOCH] == 0 or mode == -direction:
        return []
    skew = window_of(core, par, direction)[2]  # type: ignore[arg-type]
    if direction > 0:
        return list(range(int(v[Var.BUY_BASE]) - skew - int(par[Par.BUYS]), int(v[Var.BUY_BASE])))  # type: ignore[index]
    return list(range(int(v[Var.SELL_BASE]), int(v[Var.SELL_BASE]) + skew + int(par[Par.SELLS])))  # type: ignore[index]


def judge(scene: Scene, reader: Reader) -> tuple[int, int]:
    """Check every level of a moment; return how many stand and how many are empty."""
    core, par, i = scene.core, scene.par, reader.instrument()
    s, n = core.slots, int(core.v[Var.SLOTS])
    standing = {
        (int(s[Col.CELL, j]), int(s[Col.DIR, j]))
        for j in range(n)
        if live(s, OPEN, j) and s[Col.EPOCH, j] == core.v[Var.EPOCH]
    }
    holes = {(k, d): why for k, d, why in scene.plan.holes.T.tolist()}
    assert not standing & set(holes), "a level has an order and a reason"
    counts = [0, 0]
    for direction in (1, -1):
        for k in window(core, par, direction):
            assert ((k, direction) in standing) != ((k, direction) in holes), (scene.number, k, direction)
            edge = int(lo(core, k) if direction > 0 else hi(core, k))
            j = next((j for j in range(n) if (s[Col.EPOCH, j], s[Col.CELL, j]) == (core.v[Var.EPOCH], k)), -1)
            place = Place(edge, "level", int(core.v[Var.EPOCH]), k, direction, OPEN, j)
            if (k, direction) in standing:
                found = nearest(core, par, edge, "buy" if direction > 0 else "sell")
                assert found is not None and found.kind == "order", (scene.number, k)
                counts[0] += 1
                continue
            why, said = reason_at(scene, place, i)
            assert why == holes[(k, direction)] == hole_at(scene, k, direction) != Reason.NONE
            assert said and "the core says" not in said, why
            counts[1] += 1
    return counts[0], counts[1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tape", ["", *TAPES])
def test_every_level_of_a_real_session_has_an_order_or_one_reason(tape: str, tmp_path: Path) -> None:
    traded_on(tmp_path / "grid.sqlite", tape)
    chance = random.Random(tape)
    with Reader(str(tmp_path / "grid.sqlite")) as reader:
        (part,) = parts_of(reader.events)
        _, records = reader.decided_since("")
        told = {int(one.event_sequence): one for one in records}
        numbers = {*chance.sample(range(5, max(told)), 5), *chance.sample(sorted(told), 5)}
        stands = empty = 0
        reasons: set[Reason] = set()
        for number in sorted(numbers):
            scene = reach(reader, part, number)
            assert not scene.proof.difference
            counts = judge(scene, reader)
            stands, empty = stands + counts[0], empty + counts[1]
            reasons |= {Reason(why) for why in scene.plan.holes[2].tolist()}
            if number in told:  # the session itself has said the same, level by level
                assert scene.made == told[number]
        assert stands > 10 and empty > 10 and reasons, (stands, empty)


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions under a tight cap, the second of which goes on with the first."""
    db = tmp_path_factory.mktemp("why_not") / "grid.sqlite"
    traded_on(db, "")
    traded_on(db, "")
    return db


def test_a_hole_that_is_lost_is_seen(traded: Path) -> None:
    """The judge of this test does fire: a level that lost its reason, and an order that has one."""
    with Reader(str(traded)) as reader:
        part = parts_of(reader.events)[0]
        numbers = [one.event_sequence for one in reader.decided_since("")[1][3:30]]
        scene = next(
            s
            for s in (reach(reader, part, number) for number in numbers)
            if s.plan.holes.size and judge(s, reader)
        )
        whole = scene.plan
        scene.plan = whole._replace(holes=whole.holes[:, 1:])
        with pytest.raises(AssertionError):
            judge(scene, reader)
        scene.plan = whole
        s = scene.core.slots
        j = next(j for j in range(int(scene.core.v[Var.SLOTS])) if live(s, OPEN, j))
        s[OPEN + Leg.STATUS, j] = Order.TERMINAL
        with pytest.raises(AssertionError):
            judge(scene, reader)


def test_prices(traded: Path) -> None:
    with Reader(str(traded)) as reader:
        answer = why_not(reader, Decimal(1))
        assert answer.reason in ("OUTSIDE", "PRICE_BOUNDS") and "is nearest" in answer.between
        assert answer.proof.agrees and answer.proof.states == 1
        part = parts_of(reader.events)[0]
        records = [one for one in reader.decided_since("")[1] if one.event_sequence < part.limit]
        scene = reach(reader, part, records[len(records) // 2].event_sequence)
        for one in places(scene.core, scene.par, ()):
            found = nearest(scene.core, scene.par, one.ticks)
            assert found is not None and found.ticks == one.ticks and found.kind in ("order", "promise")
        with pytest.raises(UsageError, match="it is not a time"):
            why_not(reader, Decimal(60_000), at="noon")
        with pytest.raises(UsageError, match="the log begins after"):
            why_not(reader, Decimal(60_000), at="2020-01-01")


def test_a_filled_cell_tells_of_its_close(traded: Path) -> None:
    """At the price where a held cell closes stands its close; without it, its own reason, and the cell is OCCUPIED."""
    with Reader(str(traded)) as reader:
        i, part = reader.instrument(), parts_of(reader.events)[0]
        numbers = [
            one.event_sequence for one in reader.decided_since("")[1] if one.event_sequence < part.limit
        ]
        scene = reach(reader, part, numbers[len(numbers) * 2 // 3])
        core, s = scene.core, scene.core.slots
        j = next(j for j in range(int(core.v[Var.SLOTS])) if position(s, j) and live(s, CLOSE, j))
        cell, edge = int(s[Col.CELL, j]), int(s[Col.HI, j])
        found = nearest(core, scene.par, edge)
        assert found is not None and (found.kind, found.cell, found.side) == ("order", cell, "sell")
        assert f"it closes cell {cell} of lattice" in reason_at(scene, found, i)[1]
        said = reason_words(Reason.OCCUPIED, core, scene.par, i, cell, 1)
        assert f"the cell holds {plain(i.quantity(int(position(s, j))))} BTC" in said
        assert f"its closing order stands at {plain(i.price(edge))}" in said
        s[CLOSE + Leg.STATUS, j], s[Col.WHY_CLOSE, j] = Order.TERMINAL, Reason.DUST
        found = nearest(core, scene.par, edge)
        assert found is not None and (found.kind, found.cell) == ("promise", cell)
        why, said = reason_at(scene, found, i)
        assert why == Reason.DUST and "is less than the exchange takes" in said


def test_without_the_log_the_last_decision_speaks(traded: Path, tmp_path: Path) -> None:
    shutil.copy(traded, tmp_path / "grid.sqlite")
    with Reader(str(tmp_path / "grid.sqlite")) as reader:
        answer = why_not(reader, Decimal(59_000))
        assert "decision" in answer.said
        assert "there is no event log here" in str(answer) and "nothing was replayed" in str(answer)
        with pytest.raises(UsageError, match="no decision of the present lattice"):
            why_not(reader, Decimal(59_000), at="2020-01-01")


def test_after_a_kill_the_tail_is_named(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    killed(db, "--die-after-commit", "15")
    before = sorted((path.name, path.stat().st_size) for path in tmp_path.rglob("*"))
    with Reader(str(db)) as reader:
        answer = why_not(reader, Decimal(59_000))
    assert any(
        "which the saved State knows: not written yet, or lost in a crash" in one
        for one in answer.proof.missing
    )
    assert sorted((path.name, path.stat().st_size) for path in tmp_path.rglob("*")) == before


def test_the_command(traded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["why-not", "59000", "--db", str(traded), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["proof"]["agrees"] and said["asked"] == "59000" and said["reason"]
    for words, code in (
        (["why-not", "much", "--db", str(traded)], 2),
        (["why-not", "0", "--db", str(traded)], 2),
        (["why-not", "59000", "--at", "x", "--db", str(traded)], 2),
        (["why-not", "59000", "--db", "nowhere.sqlite"], 2),
    ):
        assert run_command(words) == code
    assert capsys.readouterr().err.count("\n") == 4


def test_on_postgresql(tmp_path: Path, database: str) -> None:
    session(tmp_path / "fleet", database)
    events = files_of(tmp_path / "fleet")[1]
    with Reader(database, events=events) as reader:
        assert why_not(reader, Decimal(59_000)).proof.agrees
    with Reader(database) as reader:
        assert "there is no event log here" in str(why_not(reader, Decimal(59_000)))


def test_while_a_start_learns_what_is_true_nothing_is_decided(traded: Path) -> None:
    with Reader(str(traded)) as reader:
        part = parts_of(reader.events)[1]
        quiet = next(number for number, ev in events_of(part) if ev[Ev.QUIET])
        scene = reach(reader, part, quiet)
        assert not scene.decided and not scene.plan.holes.size
        answer = why_not(reader, Decimal(59_000), at=utc(scene.time_ms))
        assert answer.proof.agrees or answer.reason == "STARTING"
        later = reach(reader, part, part.limit)
        assert later.decided
