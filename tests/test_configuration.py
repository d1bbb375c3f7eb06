"""The page of parameters says all that the schema declares and nothing else; starting values hold every rule."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from contextlib import chdir
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import market_ranges
from data import real
from gridmm import effects, effects_of_limits
from gridmm.amounts import Measure, measure
from gridmm.cli import cli
from gridmm.config import load, template
from gridmm.demo_market import DEMO, demo_tape
from gridmm.effects import EFFECTS, SEEN_AT, Effect
from gridmm.feed import candle_table
from gridmm.schema import Count, Section, catalogue, param
from gridmm.settings import Settings
from gridmm.starting_values import CLASSES, Inputs, ranges_of, smallest_equity, starting_values
from gridmm.tape import load as load_tape
from planted import Project, sample
from test_site import build
from tools import configdoc
from tools.notebooks import PACKAGE, ROOT

HEADING = re.compile(r"^### `(?P<name>\w+)` \{ #(?P<key>[\w.]+) \}$", re.M)


def drawn() -> dict[str, Effect]:
    return {key: draw() for key, draw in EFFECTS.items()}


@pytest.fixture(scope="module")
def page() -> str:
    """The page as the site's build gets it: from a process of its own."""
    return configdoc.page(ROOT).markdown


def section(page: str, key: str) -> str:
    """Return what the page says of a key."""
    return re.split(r"^##+ ", page.partition(f"{{ #{key} }}")[2], maxsplit=1, flags=re.M)[0]


def test_every_key_of_the_schema_is_on_the_page_and_no_other(page: str) -> None:
    keys = [found["key"] for found in HEADING.finditer(page)]
    assert sorted(keys) == sorted(p.key for p in catalogue(Settings))
    assert keys[: len(configdoc.FIRST)] == list(configdoc.FIRST)
    tables = re.findall(r"^## `\[([\w.]+)\]` \{ #([\w.]+) \}$", page, re.M)
    assert [name for name, _ in tables] == [at for _, at in tables]
    assert {name for name, _ in tables} == {p.table for p in catalogue(Settings)}


@pytest.mark.parametrize("p", list(catalogue(Settings)), ids=lambda p: p.key)
def test_a_section_says_everything_about_its_key(page: str, p: Any) -> None:
    said = section(page, p.key)
    assert p.meaning in said and p.effect in said
    assert f"**Default** `{p.default}`" in said if p.default else p.left_out in said
    assert f"**Takes effect** {configdoc.CHANGES[p.change]}" in said
    assert "**Unit** one of these words" in said if p.unit == "choice" else f"**Unit** {p.unit}" in said
    if p.range and p.unit != "choice":
        assert f"**Range** {html.escape(p.range)}" in said
    assert all(f"`{reason}`" in said for reason in p.reasons)
    assert f"`{p.key}`" in said
    assert "_" not in p.name or "".join(map(str.capitalize, p.name.split("_"))) in said


def test_a_trigger_is_named_at_each_of_its_keys(page: str) -> None:
    for key in ("risk.drawdown.limit", "risk.drawdown.hold", "risk.drawdown.action"):
        assert "`trigger DRAWDOWN`" in section(page, key)
    assert "`trigger STOP_LOSS`" in section(page, "grid.stop_loss")


def test_every_picture_has_its_place_and_its_words(page: str) -> None:
    holes = re.findall(r'data-output="([\w.]+)"', page)
    assert sorted(holes) == sorted(EFFECTS)
    assert {p.key for p in catalogue(Settings)} >= EFFECTS.keys() | SEEN_AT.keys()
    assert set(configdoc.FIRST) <= EFFECTS.keys()
    for key, effect in drawn().items():
        figure = effect.figure()
        assert effect.words in section(page, key)
        assert figure["layout"]["title"]["text"] and effect.x and effect.y
        assert all(len(curve["x"]) == len(curve["y"]) > 1 for curve in figure["data"]), key
        # what is longer is cut, or meets its neighbour, on a phone
        assert len(effect.title) <= 36 and len(effect.x) <= 36 and len(effect.y) <= 20, key
        assert all(len(name) <= 15 for name in effect.curves) and len("".join(effect.curves)) <= 32, key


@pytest.mark.parametrize(
    ("key", "function", "instead"),
    [
        ("grid.volatility_scale", "candidate_interval", lambda *_: 1),
        ("grid.fee_floor", "floor_interval", lambda *_: 1),
        ("grid.price_interval", "break_even_ratio_ppm", lambda *_: 1),
        ("grid.skew_factor", "skew_levels", lambda *_: 1),
        ("grid.order_notional", "open_lots", lambda *_: 1),
        ("grid.max_position", "open_lots", lambda *_: 1),
        ("grid.grid_size", "open_lots", lambda *_: 1),
        ("grid.stop_loss", "crosses", lambda _, value, limit: value > 2 * limit),
        ("trend.factor", "fold_trend", lambda *_: 1),
        ("trend.enter_ratio", "fold_trend", lambda *_: 1),
        ("atr.length", "fold_ranges", lambda core, *_: core.v.__setitem__(slice(None), 1)),
        ("atr.change_pct", "worth_changing", lambda *_: False),
        ("risk.volume_spike.limit", "fold_watch", lambda *_: 1),
        ("execution.actions_per_second", "spend", lambda *_: False),
        ("execution.backoff", "back_off", lambda *_: None),
    ],
)
def test_a_picture_is_computed_by_the_function_that_decides(
    monkeypatch: pytest.MonkeyPatch, key: str, function: str, instead: Callable[..., Any]
) -> None:
    before, draw = EFFECTS[key]().curves, EFFECTS[key]
    page = effects if draw.__module__ == effects.__name__ else effects_of_limits
    monkeypatch.setattr(page, function, instead)
    assert EFFECTS[key]().curves != before


class _Good(Section):
    rungs: Count = param(10, "Orders a side.", "larger: deeper", low=1)


class _Table(Section):
    ladder: _Good = param(_Good(), "Where the levels stand.")


def _table(name: str, field: Any, kind: Any = Count) -> type[Section]:
    ladder = type("Ladder", (Section,), {"__annotations__": {name: kind}, name: field})
    table = {"__annotations__": {"ladder": ladder}, "ladder": param(None, "Where the levels stand.")}
    return type("Table", (Section,), table)


@pytest.mark.parametrize(
    ("model", "pictures", "seen_at", "problem"),
    [
        (_table("rungs", param(10, "", "larger: deeper")), {}, {}, "ladder.rungs has no meaning"),
        (_table("rungs", param(10, "Orders."), int), {}, {}, "ladder.rungs has no unit and no choices"),
        (_table("rungs", param(10, "Orders.")), {}, {}, "ladder.rungs has no effect"),
        (_table("rungs", param(10, "Orders.", "deeper", "soon")), {}, {}, "ladder.rungs changes 'soon'"),  # type: ignore[arg-type]
        (_table("rungs", param(10, "Orders.", "deeper", reason="BORED")), {}, {}, "names the reason BORED"),
        (
            _table("rungs", param(None, "Orders.", "deeper"), Count | None),
            {},
            {},
            "has no default and does not say",
        ),
        (_Table, {"ladder.gone": "grid.skew_factor"}, {}, "a picture of ladder.gone"),
        (_Table, {}, {"ladder.rungs": "ladder.gone"}, "seen at ladder.gone"),
    ],
)
def test_what_does_not_say_what_it_is_keeps_the_page_from_being_written(
    model: type[Section], pictures: dict[str, str], seen_at: dict[str, str], problem: str
) -> None:
    assert "### `rungs` { #ladder.rungs }" in configdoc.write(_Table, {}, {}).markdown
    with pytest.raises(ValueError, match=re.escape(problem)):
        configdoc.write(model, {key: EFFECTS[of]() for key, of in pictures.items()}, seen_at)


def planted(folder: Path, old: str, new: str) -> Project:
    """Return a checkout of the whole package in which one line of the settings is another."""
    project = sample(folder)
    package = folder / PACKAGE
    (package / "__init__.py").unlink()
    for path in (ROOT / PACKAGE).iterdir():
        if path.suffix == ".py" or path.name == "v1":
            (package / path.name).symlink_to(path)
    text = (package / "settings.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (package / "settings.py").unlink()
    project.write(f"{PACKAGE}/settings.py", text.replace(old, new))
    return project


def test_a_new_key_is_on_the_page_of_the_next_build(tmp_path: Path) -> None:
    line = "class Grid(Lattice):\n"
    project = planted(
        tmp_path, line, f'{line}    novel: Count = param(1, "Something new.", "larger: newer")\n'
    )
    assert "### `novel` { #grid.novel }\n\nSomething new." in configdoc.page(project.root).markdown


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"Opening orders a side."', '""', "grid.grid_size has no meaning"),
        ("grid_size: Count =", "grid_size: int =", "grid.grid_size has no unit"),
    ],
)
def test_a_key_without_meaning_or_unit_fails_the_build(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    built, complaints = build(planted(tmp_path, old, new).root)
    assert not built and problem in complaints, complaints


ppm = st.integers(1, 20_000).map(lambda n: Measure(Decimal(n), "ppm"))
percent = st.integers(1, 100).map(lambda n: Measure(Decimal(n), "%"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fee=st.integers(-200, 2_000).map(lambda n: Measure(Decimal(n), "ppm")),
    atr=ppm,
    stress=percent,
    loss=percent,
    tick=st.integers(0, 2_000).map(lambda n: Measure(Decimal(n), "ppm")),
    reversion=st.integers(0, 99).map(lambda n: Decimal(n) / 100),
    price=st.integers(1, 100_000).map(Decimal),
)
def test_starting_values_hold_every_rule(
    tmp_path: Path, fee: Measure, atr: Measure, stress: Measure, loss: Measure, tick: Measure, reversion: Decimal,
    price: Decimal,
) -> None:  # fmt: skip
    found = starting_values(Inputs(fee, atr, stress, loss, None, reversion, tick))
    values = found.toml() | {
        "instrument.maker_fee": str(fee),
        "paper.equity": f"{smallest_equity(found, DEMO, price):f}",
        "instrument.tick": f"{max(tick.ppm * price / 10**6, Decimal('0.000001')):f}",
    }
    path = tmp_path / "gridmm.toml"
    path.write_text(template(values), encoding="utf-8")
    made = load(path, environ={}, price=price).settings
    interval, cap = made.grid.price_interval.ppm, made.grid.max_position.ppm
    assert interval >= max(4 * fee.ppm, atr.ppm, 2 * tick.ppm)
    assert cap * stress.ppm <= 10**6 * loss.ppm or cap == 10_000, "a fall may cost more than what was said"
    assert found.fair_ppm <= 0 or fee.ppm < 0, "a fair walk earned something"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"atr": measure("0 bps")}, "atr was 0 bps"),
        ({"stress": measure("101 %")}, "at most 100 %"),
        ({"loss": measure("0 %")}, "loss was 0 %"),
        ({"reversion": Decimal(1)}, "1 earns nothing"),
    ],
)
def test_inputs_that_mean_nothing_are_refused(changed: dict[str, Any], problem: str) -> None:
    good: dict[str, Any] = {"maker_fee": measure("2 bps"), "atr": measure("6 bps"), "stress": measure("33 %")}
    assert starting_values(Inputs(**good)).crossings_a_day > 0
    with pytest.raises(ValueError, match=re.escape(problem)):
        Inputs(**good | changed)


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours of the demo market as a file of candles of a minute."""
    tape = demo_tape(2)
    rows = ["open_time,open,high,low,close,volume"]
    for end, *prices, volume in candle_table(tape).T.tolist():
        told = ",".join(f"{tape.instrument.price(price):f}" for price in prices)
        rows.append(f"{end - 60_000},{told},{tape.instrument.quantity(volume):f}")
    path = tmp_path_factory.mktemp("bars") / "BTCUSDT-1m.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def run(*words: str) -> tuple[int, str]:
    """Run a command of `gridmm config` as a terminal does."""
    from gridmm.cli import run_command

    runner = CliRunner()
    with runner.isolation() as (out, err, *_):
        code = run_command(["config", *words])
        return code, (out.getvalue() + (err.getvalue() if err else b"")).decode()


def test_a_recording_becomes_a_file_that_fits_it(tmp_path: Path, bars: Path) -> None:
    with chdir(tmp_path):
        code, said = run("suggest", "--tape", str(bars), "--fee", "2 bps", "--write", "mine.toml")
        assert code == 0 and "wrote mine.toml" in said, said
        usual = ranges_of(load_tape(bars)).usual
        assert f"usual ATR {Decimal(usual) / 100:f} bps" in said
        assert run("check", "mine.toml", "--price", "60000")[0] == 0
        config = load(Path("mine.toml"), environ={})
        assert config.settings.feed.source == f"tape:{bars}"
        code, said = run("suggest", "--tape", str(bars), "--fee", "2 bps", "--json")
        values = json.loads(said)["values"]
        assert values["grid.max_position"]["value"] == str(config.settings.grid.max_position)
        assert run("suggest", "--fee", "2 bps", "--atr", "6 bps", "--write", "mine.toml")[0] == 2, (
            "overwritten"
        )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--fee 2bps", "Give exactly one of the two"),
        ("--fee 2bps --atr 6bps --tape x.csv", "Give exactly one of the two"),
        ("--fee 2 --atr 6bps", "--fee 2: the value has no unit"),
        ("--fee 2bps --atr six", "--atr six: the value"),
        ("--fee 2bps --atr 0bps", "atr was 0 bps"),
        ("--fee 2bps --atr 6bps --class huge", "Choose major, mid, small, stable"),
        ("--fee 2bps --tape gone.csv", "gone.csv"),
    ],
)
def test_what_cannot_be_suggested_is_said(tmp_path: Path, words: str, problem: str) -> None:
    with chdir(tmp_path):
        code, said = run("suggest", *words.split())
    assert code == 2 and problem in said, said
    assert not list(tmp_path.iterdir())


def test_a_recording_too_short_for_atr_is_refused(tmp_path: Path, bars: Path) -> None:
    short = tmp_path / "BTCUSDT-1m.csv"
    short.write_text("\n".join(bars.read_text().splitlines()[:10]) + "\n")
    code, said = run("suggest", "--tape", str(short), "--fee", "2 bps")
    assert code == 2 and "9 candles: must be more than 14" in said


@pytest.mark.parametrize(
    "name", ["lean_coinbase_ltcusd_1m_trades.csv.gz", "lean_binance_perp_adausdt_1m_trades.csv.gz"]
)
def test_the_kept_measurement_is_what_the_recording_says(name: str) -> None:
    kept = json.loads((ROOT / "results" / f"{market_ranges.NAME}.json").read_text(encoding="utf-8"))["counts"]
    kind = market_ranges.RECORDINGS[name]
    assert kind in CLASSES
    assert kept[name.partition(".")[0]] == market_ranges.look(load_tape(real(name)), kind)


def test_suggest_is_a_command_of_config() -> None:
    assert "suggest" in cli.get_command(None, "config").commands  # type: ignore[arg-type,union-attr]
