"""A plan is what the grid then does; a plan that does not fit any more is refused; planning changes nothing."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from gridmm.cli import run_command
from gridmm.cli_plan import phrase_of
from gridmm.commands import Ask, Mailbox
from gridmm.config import Secrets, config_hash, load
from gridmm.config_plan import ConfigPlan, basis_of, decided_rows, plan_of
from gridmm.errors import UsageError
from gridmm.layout import PAR_SIZE, Par, Var, empty_core
from gridmm.order_names import all_placed
from gridmm.outer_level import fee_words
from gridmm.parameters import changes
from gridmm.read_only import Reader
from gridmm.run import files_of
from gridmm.scene import parts_of
from gridmm.settings import Settings
from gridmm.step import advance
from gridmm.units import Instrument
from gridmm.why import why
from gridmm.words import price_event
from test_capsule import killed
from test_capsule import session as traded
from test_operate import World, file_of, values_of

Changed = dict[str, object]
NOTHING: Secrets = Secrets({})
WIDER: Changed = {"grid.price_interval": "40 bps", "atr.dwell": "0 s"}


def planned(world: World, **options: object) -> ConfigPlan:
    """Return the plan of a file beside the engine."""
    with Reader(str(world.folder / "grid.sqlite"), events=world.folder / "events") as reader:
        return plan_of(reader, file_of(world.folder, **options), NOTHING)


def in_a_world(**options: object) -> Callable:
    """Run an async test in a world of its own."""

    def decorated(test: Callable) -> Callable:
        def run(tmp_path: Path) -> None:
            asyncio.run(test(World(tmp_path, **options)))

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorated


def deeds(plan: ConfigPlan, when: str) -> list[tuple]:
    return sorted(row.deed for row in plan.rows if row.when == when and row.what != "keep")


@pytest.mark.parametrize(
    "options",
    [
        {"grid.max_position": "0.011"},
        {"grid.grid_size": 5},
        {"grid.grid_size": 1},
        {"grid.buy_levels": 0},
        {"grid.price_min": "59800"},
        {"grid.order_notional": "400"},
        {"grid.spacing": "arithmetic"},
        {"execution.max_open_orders": 8},
        {},
    ],
    ids=str,
)
def test_a_running_grid_does_what_was_planned(tmp_path: Path, options: Changed) -> None:
    """The plan is made beside the running engine; then the same file is sent, and every order is compared."""

    async def run() -> None:
        world = World(tmp_path)
        await world.start()
        await world.price(3_000, 599_000)  # one cell is filled, its close stands
        before = {one.client_id for one in await world.paper.open_orders()}
        plan = planned(world, **options)
        version = world.engine.session.meta.version
        said = await world.ask(Ask.RELOAD, values_of(world.folder, **options))
        assert said.state == plan.answer == "done" and said.result == plan.result
        records = list(world.store.decisions(version + 1))
        first = decided_rows(records[:1], "now", world.engine.session.meta.instrument)
        assert sorted(row.deed for row in first) == deeds(plan, "now")
        left = {one.client_id for one in await world.paper.open_orders()}
        withdrawn = {row.client_id for row in plan.rows if row.what == "cancel" and row.when == "now"}
        kept = {row.client_id for row in plan.rows if row.what == "keep"}
        later = {row.client_id for row in plan.rows if row.what == "cancel" and row.when != "now"}
        assert withdrawn <= before and kept <= left and not withdrawn & left
        assert kept | (later & before) | withdrawn == before
        if "grid.spacing" in options:  # the paper exchange confirms at once: the next lattice is there
            assert world.core.v[Var.EPOCH] == 2
            placed = decided_rows(records, "next lattice", world.engine.session.meta.instrument)
            assert {row.deed for row in placed if row.what == "place"} == {
                row.deed for row in plan.rows if row.what == "place"
            }

    asyncio.run(run())


@in_a_world(**{"atr.dwell": "0 s"})
async def test_a_wider_interval_comes_with_the_next_candle_as_planned(world: World) -> None:
    await world.start()
    plan = planned(world, **WIDER)
    assert "a new one with the next candle" in plan.lattice
    assert {row.when for row in plan.rows if row.what == "place"} == {"next lattice"}
    assert (await world.ask(Ask.RELOAD, values_of(world.folder, **WIDER))).state == "done"
    ticks = world.core.v[Var.ANCHOR]
    version = world.engine.session.meta.version
    await world.engine.on_candle_update(60_000, int(ticks), int(ticks) + 9, int(ticks) - 9, int(ticks), 5)
    await world.engine.settle()
    assert world.core.v[Var.EPOCH] == 2
    rows = decided_rows(
        list(world.store.decisions(version + 1)), "next lattice", world.engine.session.meta.instrument
    )
    assert sorted(row.deed for row in rows) == deeds(plan, "next lattice")
    same = planned(world, **WIDER)
    assert same.changes == [] and same.answer == "done" and same.lattice.startswith("stays: ")


@in_a_world()
async def test_what_only_a_start_changes_is_named_and_refused(world: World) -> None:
    await world.start()
    plan = planned(world, **{"execution.max_open_orders": 30, "grid.mode": "neutral", "paper.equity": "500"})
    fixed = [one.key for one in plan.changes if one.when == "start"]
    assert plan.answer == "refused" and plan.needs_start == fixed != []
    assert all(one in plan.result for one in fixed)
    assert not [row for row in plan.rows if row.what != "keep"] and plan.lattice == ""


@in_a_world()
async def test_the_basis_is_that_of_the_grid(world: World) -> None:
    """Values and parameters made again from the log are those in force, also after a reload; another log is refused."""
    await world.start()
    await world.ask(
        Ask.RELOAD, values_of(world.folder, **{"grid.skew_factor": "0.25", "grid.max_position": "10 %"})
    )
    with Reader(str(world.folder / "grid.sqlite"), events=world.folder / "events") as reader:
        parts = parts_of(reader.events)
        assert len(parts) == 2
        basis, notes = basis_of(parts[-1].head, reader.state(), NOTHING)
        own = world.engine.session
        assert own.basis is not None and not notes
        assert basis.par().tolist() == own.par.tolist()
        assert changes(basis.config.settings, own.basis.config.settings) == []
        assert config_hash(basis.config.settings) == own.meta.config_hash
        with pytest.raises(UsageError, match="it is of config"):
            basis_of(parts[0].head, reader.state(), NOTHING)
        other = type(parts[-1].head)()
        other.CopyFrom(parts[-1].head)
        other.parameters[5] += 1
        assert "take the plan for an estimate" in basis_of(other, reader.state(), NOTHING)[1][0]
        other.price = ""
        with pytest.raises(UsageError, match="did not keep what its parameters were made of"):
            basis_of(other, reader.state(), NOTHING)


@in_a_world()
async def test_an_order_after_a_reload_is_explained_by_the_other_file(world: World) -> None:
    await world.start()
    wider = values_of(world.folder, **{"grid.grid_size": 5, "grid.order_notional": "400"})
    assert (await world.ask(Ask.RELOAD, wider)).state == "done"
    world.log.flush()
    with Reader(str(world.folder / "grid.sqlite"), events=world.folder / "events") as reader:
        records = reader.decided_since("")[1]
        found = [why(reader, one, records) for one in (all_placed(records)[0], all_placed(records)[-1])]
    links = [{link.name: link.facts for link in chain.links} for chain in found]
    assert all(chain.proof.agrees and not chain.proof.missing for chain in found)
    assert [one["quantity"]["notional"] for one in links] == ["300", "400"]
    assert links[1]["event"]["config_hash"] == world.engine.session.meta.config_hash
    assert links[0]["event"]["config_hash"] != links[1]["event"]["config_hash"]


@in_a_world(**{"account.name": "main"})
async def test_the_name_of_the_account_is_in_no_log_and_changes_nothing(world: World) -> None:
    await world.start()
    plan = planned(world, **{"account.name": "main", "grid.max_position": "0.011"})
    assert plan.answer == "done" and [one.key for one in plan.changes] == ["grid.max_position"]
    said = await world.ask(
        Ask.RELOAD, values_of(world.folder, **{"account.name": "main", "grid.max_position": "0.011"})
    )
    assert said.result == plan.result and world.engine.session.meta.config_hash == plan.new


@in_a_world()
async def test_the_id_holds_while_the_grid_would_do_the_same(world: World) -> None:
    await world.start()
    smaller: Changed = {"grid.max_position": "0.011"}
    plan = planned(world, **smaller)
    await world.price(3_000, 599_990)  # strictly between two levels: nothing changes
    world.engine.session.save()
    again = planned(world, **smaller)
    assert again.version > plan.version and again.digest == plan.digest
    assert planned(world, **{"grid.max_position": "0.012"}).digest != plan.digest, (
        "another file is another plan"
    )
    await world.price(4_000, 598_500)
    assert planned(world, **smaller).digest != plan.digest, "a cell has filled"


def untouched(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".sqlite-shm"
    }


async def applied(world: World, *words: str) -> int:
    """Run a command in a thread while the engine attends to its mailbox."""
    task = asyncio.create_task(asyncio.to_thread(run_command, list(words)))
    while not task.done():
        world.clock_ms += 1_000
        await world.engine.attend()
        await asyncio.sleep(0.02)
    return task.result()


def test_apply_does_what_was_planned_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        import gridmm.cli_look

        world = World(tmp_path)
        world.clock_ms = gridmm.cli_look.now_ms()
        await world.start()
        file = tmp_path / "smaller.toml"
        file_of(tmp_path, **{"grid.max_position": "0.011"})
        newest = max(tmp_path.glob("grid-*.toml"), key=lambda path: int(path.stem[5:]))
        file.write_text(newest.read_text())
        about = [
            "--config",
            str(file),
            "--db",
            str(tmp_path / "grid.sqlite"),
            "--events",
            str(tmp_path / "events"),
        ]
        before = untouched(tmp_path / "events")
        assert await applied(world, "plan", *about, "--json") == 0
        plan = json.loads(capsys.readouterr().out)
        assert untouched(tmp_path / "events") == before and Mailbox(world.store.engine).listed() == []
        assert [row["what"] for row in plan["rows"]].count("cancel") >= 1
        asking = ["apply", *about, "--why", "test", "--who", "ann"]
        for more, said in (
            (["--plan", plan["id"]], "no phrase was typed; nothing was sent"),
            (["--plan", plan["id"], "--confirm", "yes"], "it is not the phrase; nothing was sent"),
            (
                ["--plan", f"{plan['version']}-00000000"],
                "not the one that was planned with; nothing was sent",
            ),
            (["--plan", "everything"], "it is not the id of a plan; nothing was sent"),
        ):
            assert await applied(world, *asking, *more) == 3
            assert said in capsys.readouterr().err
        assert Mailbox(world.store.engine).listed() == []
        confirm = phrase_of(world.store.grid)
        assert await applied(world, *asking, "--plan", plan["id"], "--confirm", confirm, "--json") == 0
        done = json.loads(capsys.readouterr().out)
        assert done["state"] == "done" and done["compared"]["as_planned"], done
        assert done["compared"]["counts"] == done["compared"]["planned"] == {"cancel": 1, "place": 0}
        (request,) = Mailbox(world.store.engine).listed()
        assert (request.kind, request.who, request.why) == ("reload", "ann", "test"), "one way into a grid"
        assert await applied(world, *asking, "--plan", plan["id"], "--confirm", confirm) == 3, (
            "it is in force now"
        )
        assert "it would now do something else" in capsys.readouterr().err

    asyncio.run(run())


def test_apply_is_refused_where_the_grid_has_moved_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        world = World(tmp_path)
        await world.start()
        plan = planned(world, **{"grid.max_position": "0.011"})
        await world.price(3_000, 598_500)
        newest = max(tmp_path.glob("grid-*.toml"), key=lambda path: int(path.stem[5:]))
        about = [
            "--config",
            str(newest),
            "--db",
            str(tmp_path / "grid.sqlite"),
            "--events",
            str(tmp_path / "events"),
        ]
        words = ["apply", *about, "--why", "x", "--plan", plan.id, "--confirm", phrase_of(plan.grid)]
        assert await applied(world, *words) == 3
        said = capsys.readouterr().err
        assert f"since version {plan.version} there were" in said and "orders placed" in said, said
        assert Mailbox(world.store.engine).listed() == []

    asyncio.run(run())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a good file and a bad one."""
    folder = tmp_path / "files"
    folder.mkdir()
    text = '[grid]\nmax_position = "8 %"\nprice_interval = "20 bps"\n[instrument]\nmaker_fee = "1 bps"\n'
    (folder / "good.toml").write_text(text)
    (folder / "bad.toml").write_text(text.replace("20 bps", "1 bps"))
    return folder


def test_a_finished_session_and_a_killed_one(
    tmp_path: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("finished", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        db = folder / "grid.sqlite"
        if name == "finished":
            traded(db)
        else:
            killed(db, "--die-after-commit", "15")
        before = untouched(folder)
        assert run_command(["plan", "--config", str(files / "good.toml"), "--db", str(db)]) == 0
        said = capsys.readouterr().out
        assert "max_position" in said and "plan " in said and "fees, as it would be:" in said
        assert run_command(["plan", "--config", str(files / "bad.toml"), "--db", str(db)]) == 2
        assert "loses money on every round trip" in capsys.readouterr().err
        assert untouched(folder) == before, "planning changes nothing"
    db = tmp_path / "finished" / "grid.sqlite"
    assert run_command(["plan", "--config", str(files / "good.toml"), "--db", str(db), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    words = [
        "apply",
        "--config",
        str(files / "good.toml"),
        "--db",
        str(db),
        "--why",
        "x",
        "--plan",
        plan["id"],
    ]
    assert run_command([*words, "--confirm", phrase_of(plan["grid"])]) == 3
    assert "gridmm run --config" in capsys.readouterr().err
    with sqlite3.connect(db) as connection:
        assert connection.execute("SELECT count(*) FROM gridmm_commands").fetchone() == (0,)


def test_what_the_command_line_said_stays(tmp_path: Path) -> None:
    """The session's options stand over any file: the plan knows it, as the grid would."""
    db = tmp_path / "grid.sqlite"
    traded(db)
    (tmp_path / "x.toml").write_text('[grid]\nmax_position = "8 %"\nprice_interval = "50 bps"\n')
    with Reader(str(db)) as reader:
        plan = plan_of(reader, load(tmp_path / "x.toml", environ={}), NOTHING)
    assert [one.key for one in plan.changes] == ["grid.max_position"] or "grid.price_interval" not in [
        one.key for one in plan.changes
    ]
    assert plan.answer == "done"


def test_on_postgresql(tmp_path: Path, database: str, files: Path) -> None:
    traded(tmp_path / "fleet", database)
    wanted = load(files / "good.toml", environ={})
    with Reader(database, events=files_of(tmp_path / "fleet")[1]) as reader:
        assert plan_of(reader, wanted, NOTHING).answer == "done"
    with Reader(database) as reader, pytest.raises(UsageError, match="there is none here"):
        plan_of(reader, wanted, NOTHING)
    assert isinstance(wanted.settings, Settings)


@pytest.mark.parametrize("mode", ["long", "neutral", "short"])
@pytest.mark.parametrize("cap", ["0.05", "0.012"])
def test_at_the_outer_level_the_grid_holds_and_has_lost_what_was_said(
    tmp_path: Path, mode: str, cap: str
) -> None:
    """The market runs through the whole window at once: inventory and loss are those of the plan."""

    async def run(side: str) -> None:
        folder = tmp_path / side
        folder.mkdir()
        world = World(folder, **{"grid.mode": mode, "grid.max_position": cap})
        await world.start()
        said = next(one for one in planned(world).outer[0] if one.side == side)
        i, own = world.engine.session.meta.instrument, world.engine.session
        before, down = own.pnl(), side == "buys"
        end = i.price_ticks(Decimal(said.price)) + (
            -1 if down else 1
        )  # through it by a tick, so that it fills
        await world.price(3_000, end)
        assert i.quantity(own.pnl().position_lots) == Decimal(said.inventory) != 0
        after = own.pnl()
        lost = i.money(before.realized + before.unrealized - after.realized - after.unrealized)
        beyond = abs(Decimal(said.inventory)) * i.tick
        assert abs(lost - Decimal(said.loss) - beyond) <= Decimal("0.02"), (lost, said)
        assert Decimal(said.loss) > 0 and abs(Decimal(said.inventory)) <= Decimal(said.cap) == Decimal(cap)

    for side in {"long": ["buys"], "short": ["sells"], "neutral": ["buys", "sells"]}[mode]:
        asyncio.run(run(side))


def test_a_losing_cell_is_called_so() -> None:
    """A verdict that cannot be bad is none: fees above the width of a cell."""
    i = Instrument("BTC/USDT:USDT", "perpetual", Decimal("0.1"), Decimal("0.001"), maker_fee_ppm=1_500)
    par = np.zeros(PAR_SIZE, dtype=np.int64)
    par[[Par.MODE, Par.BUYS, Par.BASE, Par.BASE_PPM, Par.GEOMETRIC, Par.CAP_PPM]] = (
        1,
        4,
        2_000,
        1,
        1,
        4_000_000,
    )
    par[[Par.MAX_LOTS, Par.GROSS_LOTS, Par.CELL_ATOMS, Par.MIN_LOTS]] = 120, 240, 300 * 10**8, 1
    par[[Par.HALF_ATOMS, Par.MAX_ORDERS, Par.SCALE_PPM, Par.ALLOW_LOSING]] = i.half_atoms, 50, 1_000_000, 1
    par[Par.MAKER_PPM], core = 1_500, empty_core()
    advance(core, par, price_event(1_000, 599_999, 600_001, 600_000))
    assert "leaves -10 bps: it LOSES" in fee_words(Settings(), core, par, i)
    par[Par.MAKER_PPM] = 100
    assert "leaves 18 bps: it earns" in fee_words(Settings(), core, par, i)
