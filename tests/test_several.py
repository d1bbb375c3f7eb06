"""One file with many grids: what is read from it, which line a mistake is on, and one process that runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gridmm.cli import run_command
from gridmm.config import load
from gridmm.errors import ConfigError
from gridmm.grids import load_grids

TWO = """\
[execution]
burst = 7

[[grid]]
name = "btc"
price_interval = "10 bps"
max_position = "5 %"

[grid.risk.drawdown]
limit = "3 %"

[[grid]]
name = "eth"
max_position = "6 %"
[grid.instrument]
symbol = "ETH/USDT:USDT"

[feed]
duration = "5 min"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(TWO)
    return path


def test_each_grid_has_its_own_and_what_all_share(file: Path) -> None:
    btc, eth = load_grids(file, environ={"GRIDMM_GRID__GRID_SIZE": "4"}).values()
    assert [str(one.settings.execution.burst) for one in (btc, eth)] == ["7", "7"]
    assert (btc.settings.grid.grid_size, eth.settings.grid.grid_size) == (4, 4)
    assert str(btc.settings.risk.drawdown.limit) == "3 %" != str(eth.settings.risk.drawdown.limit)
    assert (btc.settings.instrument.symbol, eth.settings.instrument.symbol) == (
        "BTC/USDT:USDT",
        "ETH/USDT:USDT",
    )
    assert btc.settings.feed.duration == eth.settings.feed.duration == 300_000


def test_origins_name_the_line_whichever_grid_it_belongs_to(file: Path) -> None:
    btc, eth = load_grids(file, environ={}).values()
    lines = TWO.splitlines()
    for config, key, text in (
        (btc, "grid.max_position", 'max_position = "5 %"'),
        (eth, "grid.max_position", 'max_position = "6 %"'),
        (btc, "risk.drawdown.limit", 'limit = "3 %"'),
        (eth, "instrument.symbol", 'symbol = "ETH/USDT:USDT"'),
        (eth, "feed.duration", 'duration = "5 min"'),
    ):
        assert config.origins[key] == f"{file}:{lines.index(text) + 1}"
    assert eth.origins["risk.drawdown.limit"] == "default"


def test_a_plain_grid_is_one_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text('[grid]\nmax_position = "5 %"\n')
    for one in (path, None):
        (found,) = load_grids(one, environ={}).items()
        assert (found[0], found[1].rows()) == ("", load(one, environ={}).rows())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "eth"', 'name = "btc"', "two.toml:12: name = 'btc': another grid has it"),
        ('name = "eth"', 'name = "E T H"', "two.toml:12: name = 'E T H': it must be lower-case"),
        ('name = "eth"\n', "", "two.toml:12: name = None: it must be lower-case"),
        ('"6 %"', '"6 pc"', "two.toml:14: max_position = \"6 pc\": the value has the unknown unit 'pc'"),
        ('max_position = "6 %"', "", "two.toml: max_position is missing"),
        (
            'symbol = "ETH',
            'symbl = "ETH',
            "two.toml:16: symbl in [instrument]: no such parameter. Did you mean symbol?",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(file: Path, old: str, new: str, said: str) -> None:
    assert old in TWO
    file.write_text(TWO.replace(old, new, 1))
    with pytest.raises(ConfigError) as raised:
        load_grids(file, environ={})
    assert said in str(raised.value)


def test_mistakes_of_all_grids_are_told_at_once(file: Path) -> None:
    file.write_text(TWO.replace('"5 %"', '"5 pc"').replace('"6 %"', '"6 pc"'))
    with pytest.raises(ConfigError) as raised:
        load_grids(file, environ={})
    assert ["two.toml:7:" in line or "two.toml:14:" in line for line in str(raised.value).splitlines()] == [
        True,
        True,
    ]


def test_one_command_runs_them_all_and_goes_on(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "grids.sqlite"
    command = ["run", "--config", str(file), "--db", str(db), "--json"]
    assert run_command(command) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    receipts = lines[-1]["grids"]
    assert {name: one["symbol"] for name, one in receipts.items()} == {
        "btc": "BTC/USDT:USDT",
        "eth": "ETH/USDT:USDT",
    }
    assert {line["grid"] for line in lines[:-1]} == {"btc", "eth"}
    assert all(one["open_orders"] == 0 and one["decisions"] > 0 for one in receipts.values())
    assert run_command(command) == 0
    out, err = capsys.readouterr()
    assert "btc: goes on from version" in err and "eth: goes on from version" in err
    again = json.loads(out.splitlines()[-1])["grids"]
    assert all(again[name]["version"] > receipts[name]["version"] for name in receipts)


def test_check_and_show_name_the_grid(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["config", "check", str(file), "--price", "60000"]) == 0
    out = capsys.readouterr().out
    assert "two.toml: grid btc: no problems" in out and "two.toml: grid eth: no problems" in out
    assert run_command(["config", "show", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["eth"]["instrument.symbol"]["value"] == '"ETH/USDT:USDT"'
