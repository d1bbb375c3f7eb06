"""A plan is what the deed does: the same rows, from the same state; and a deed that is not its plan is refused."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack, suppress
from decimal import Decimal
from pathlib import Path

import pytest

from gridmm.cli import run_command
from gridmm.commands import Ask, Request
from gridmm.config import Config, load
from gridmm.config_plan import config_plan
from gridmm.connect import connect
from gridmm.desk import MarketTime
from gridmm.engine_durable import DurableMarket
from gridmm.errors import ConfigError, UnknownVersion, UsageError
from gridmm.event_log import MAGIC, read_segment, segments
from gridmm.feed import Pace
from gridmm.layout import Par
from gridmm.parameters import as_values
from gridmm.run import Signals, assemble, files_of, play
from gridmm.v1.decision_pb2 import DecisionRecord
from test_monitor import eventually, running
from test_why import frame

OLD = """
grid.mode = "neutral"
grid.grid_size = 6
grid.price_interval = "10 bps"
grid.max_position = "20 %"
grid.order_notional = "120"
instrument.maker_fee = "1 bps"
"""
CHANGES = {
    "wider": ("grid.grid_size = 6", "grid.grid_size = 9"),
    "narrower": ("grid.grid_size = 6", "grid.grid_size = 2"),
    "less of it": ('"20 %"', '"2.5 %"'),
    "more in each": ('"120"', '"300"'),
    "another spacing": ("grid.grid_size = 6", 'grid.grid_size = 6\ngrid.spacing = "arithmetic"'),
    "another interval": ('"10 bps"', '"25 bps"'),
    "held back": (
        "grid.grid_size = 6",
        'grid.grid_size = 6\nrisk.losing_cells.limit = 1\nrisk.losing_cells.action = "halt"',
    ),
    "nothing": ("", ""),
}


class Cut(Exception):
    """The plug is pulled."""


def written(folder: Path, change: str = "nothing") -> Config:
    """Write the file of a change, and return what it says."""
    path = folder / f"{change}.toml"
    path.write_text(OLD.replace(*CHANGES[change]))
    return load(path, environ={})


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid whose orders stand at the exchange, and that nobody runs any more."""
    folder = tmp_path_factory.mktemp("plan")

    def pull(engine: MarketTime) -> None:
        if engine.now_ms - engine.began_ms > 3_000_000 and engine.session.could_exit():
            engine.session.save()
            raise Cut

    with ExitStack() as stack, suppress(Cut):
        run = assemble(written(folder), folder / "grid.sqlite", stack, synchronous="OFF")
        asyncio.run(play(run, Signals(on_moment=pull), Pace("max", lambda: 0, asyncio.sleep)))
    return folder


def deed(folder: Path, change: str, told: list[DecisionRecord]) -> None:
    """Go on with a copy of the session, and carry a reload out as the Durable engine does."""
    config = load(folder / "nothing.toml", environ={})

    async def act(engine: DurableMarket) -> None:
        await engine.start()
        told.clear()
        text = as_values(load(folder / f"{change}.toml", environ={}))
        about = (engine.session.grid, Ask.RELOAD, text, "ann", "test", 0, 2**60)
        assert engine.carry_out(Request("r", *about), 1)
        await asyncio.gather(*engine._tasks)

    with ExitStack() as stack:
        run = assemble(
            config, folder / "grid.sqlite", stack, durable=True, synchronous="OFF", on_decision=told.append
        )
        run.begin()
        assert isinstance(run.engine, DurableMarket)
        asyncio.run(act(run.engine))


@pytest.mark.parametrize("change", CHANGES)
def test_the_deed_does_what_the_plan_said(change: str, cut: Path, tmp_path: Path) -> None:
    subprocess.run(("cp", "-r", *cut.iterdir(), tmp_path), check=True)
    with connect(tmp_path / "grid.sqlite") as session:
        said = config_plan(session, written(tmp_path, change))
        assert said == config_plan(session, written(tmp_path, change)), "a plan is the same twice"
    told: list[DecisionRecord] = []
    deed(tmp_path, change, told)
    names = ("action", "epoch", "cell", "leg", "side", "price_ticks", "quantity_lots")
    made = [tuple(int(getattr(row, name)) for name in names) for one in told[:1] for row in one.rows]
    assert made == said.acts and len(said.rows) == len(made)
    assert bool(made) == (change not in ("nothing", "another interval", "more in each")), said
    assert {key for key, *_ in said.differ} == (set() if change == "nothing" else said_keys(change))
    assert not said.refused and (said.keeps > 0) == (change != "held back")


def said_keys(change: str) -> set[str]:
    """Return the parameters that a change changes."""
    return {
        "wider": {"grid.grid_size"}, "narrower": {"grid.grid_size"}, "less of it": {"grid.max_position"},
        "more in each": {"grid.order_notional"}, "another spacing": {"grid.spacing"},
        "another interval": {"grid.price_interval"}, "held back": {"risk.losing_cells.limit", "risk.losing_cells.action"},
    }[change]  # fmt: skip


def test_the_worst_case_is_that_of_the_orders(cut: Path) -> None:
    """By hand, from the orders and holdings of the last save."""
    with connect(cut / "grid.sqlite") as session:
        said, slots = config_plan(session, written(cut)), session.slots()
    for side, sign in (("long", 1), ("short", -1)):
        verb = "buy" if sign > 0 else "sell"
        legs = [
            row for row in slots
            if Decimal(row["held"]) * sign > 0 or (Decimal(row["held"]) == 0 and row["order"].startswith(verb))
        ]  # fmt: skip
        lots, cost, edges = Decimal(0), Decimal(0), list[Decimal]()
        if not legs:
            assert side not in said.before
            continue
        for row in legs:
            held, opens = Decimal(row["held"]), Decimal(0)
            edge = Decimal(row["low" if sign > 0 else "high"])
            if held == 0:
                opens = Decimal(row["order"].split()[1])
                edge = Decimal(row["order"].rpartition(" at ")[2])
            lots, cost, edges = lots + abs(held) + opens, cost + (abs(held) + opens) * edge, [*edges, edge]
        outer = min(edges) if sign > 0 else max(edges)
        worst = said.before[side]
        assert (Decimal(worst.held), Decimal(worst.price)) == (sign * lots, outer)
        assert Decimal(worst.loss) == sign * (cost - outer * lots)


def test_what_only_a_start_changes_is_named(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cut / "mode.toml").write_text(OLD.replace('"neutral"', '"long"'))
    with connect(cut / "grid.sqlite") as session:
        said = config_plan(session, load(cut / "mode.toml", environ={}))
    assert said.refused == ["grid.mode"] and "only a start changes it" in str(said)
    assert run_command(["plan", "--config", str(cut / "mode.toml"), "--db", str(cut / "grid.sqlite")]) == 0
    assert "to do it" not in capsys.readouterr().out
    line = [
        "apply",
        "--config",
        str(cut / "nothing.toml"),
        "--db",
        str(cut / "grid.sqlite"),
        "--why",
        "test",
        "--plan",
        "x",
    ]
    assert run_command(line) == 3
    assert "Look at it again" in capsys.readouterr().err


def test_what_the_start_said_stays(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(OLD)
    options = {"grid.grid_size": ("4", "--set"), "feed.duration": ("10 min", "--duration")}
    with ExitStack() as stack:
        run = assemble(
            load(tmp_path / "a.toml", environ={}, options=options), tmp_path / "g", stack, synchronous="OFF"
        )
        asyncio.run(play(run, Signals(), Pace("max", lambda: 0, asyncio.sleep)))
    with connect(tmp_path / "g") as session:
        said = config_plan(session, load(tmp_path / "a.toml", environ={}))
    assert said.differ == [] and any("grid.grid_size stays 4" in note for note in said.notes), said


def test_a_configuration_in_force_that_gives_other_parameters_is_refused(cut: Path, tmp_path: Path) -> None:
    subprocess.run(("cp", "-r", *cut.iterdir(), tmp_path), check=True)
    path = segments(files_of(tmp_path / "grid.sqlite")[1])[-1]
    data, head = path.read_bytes(), read_segment(path).header
    rest = data[len(MAGIC) + len(frame(head.SerializeToString())) :]
    head.parameters[Par.CELL_ATOMS] += 2
    path.write_bytes(MAGIC + frame(head.SerializeToString()) + rest)
    with (
        connect(tmp_path / "grid.sqlite") as session,
        pytest.raises(UnknownVersion, match="other parameters of it: CELL_ATOMS"),
    ):
        config_plan(session, written(tmp_path))
    head.price = ""
    path.write_bytes(MAGIC + frame(head.SerializeToString()) + rest)
    with (
        connect(tmp_path / "grid.sqlite") as session,
        pytest.raises(UsageError, match="what its configuration was made of"),
    ):
        config_plan(session, written(tmp_path))
    (tmp_path / "bad.toml").write_text(OLD.replace('"10 bps"', '"1 bps"'))
    with pytest.raises(ConfigError, match="loses money"):
        load(tmp_path / "bad.toml", environ={})


def gridmm(folder: Path, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command."""
    command = (sys.executable, "-m", "gridmm", *words)
    return subprocess.run(command, cwd=folder, input=typed, capture_output=True, text=True, check=False)


@pytest.mark.timeout(200)
def test_a_running_grid_is_changed_as_planned_and_only_so(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path, "wider")
    file = ("--config", "wider.toml")
    with running(tmp_path, "--config", "nothing.toml", "--speed", "1") as (_, process):
        eventually(lambda: gridmm(tmp_path, "plan", *file).returncode == 0)
        eventually(lambda: json.loads(gridmm(tmp_path, "plan", *file, "--json").stdout)["keeps"] == 12)
        no = gridmm(tmp_path, "apply", *file, "--why", "test", typed="no\n")
        assert no.returncode == 3 and "nothing was changed" in no.stdout
        stale = gridmm(tmp_path, "apply", *file, "--why", "test", "--plan", "00000000")
        assert stale.returncode == 3 and "would now do something else" in stale.stderr
        loud = gridmm(tmp_path, "apply", *file, "--why", "test", "--json")
        assert loud.returncode == 2 and "--plan" in loud.stderr
        said = json.loads(gridmm(tmp_path, "plan", *file, "--json").stdout)
        assert len(said["rows"]) == 6 and said["fees"].endswith("earns 8 bps")
        done = gridmm(tmp_path, "apply", *file, "--why", "test", "--plan", said["id"])
        assert done.returncode == 0 and "grid.grid_size = 9 now" in done.stdout, done.stdout + done.stderr
        assert "as planned: 6 orders" in done.stdout
        again = gridmm(tmp_path, "plan", *file)
        assert "nothing differs" in again.stdout and "to do it" not in again.stdout
        process.terminate()
        assert process.wait(60) == 0
    over = gridmm(tmp_path, "apply", "--config", "nothing.toml", "--why", "test", "--plan", "x")
    assert over.returncode == 3 and "gridmm run --config nothing.toml" in over.stderr
