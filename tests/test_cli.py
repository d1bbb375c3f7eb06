"""The command line: examples work, errors are one line, exit codes hold, and help loads nothing heavy."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import pytest

from gridmm import __version__, cli
from gridmm.cli import run_command
from gridmm.engine import Receipt
from gridmm.errors import BadChecksum, ExchangeUnreachable, Exit, Fenced

HEAVY = {"numba", "numpy", "sqlalchemy", "dbos", "ccxt", "aiohttp", "google", "pandas", "plotly"}
RECEIPT: dict[str, Any] = {
    "symbol": "BTC/USDT",
    "open_orders": 0,
    "realized_pnl": "12.5",
    "unrealized_pnl": "-0.5",
    "inventory_skew": "0.1",
    "active_slots": 3,
    "pnl": {"harvest": "1", "trend": "2", "fees": "-1", "funding": "0", "residual": "0"},
    "residual_exchange": {"USDT": "0"},
}


def receipt(**values: object) -> Receipt:
    """Return a receipt with some values of the test's own."""
    rest: dict[str, Any] = dict.fromkeys(Receipt._fields, 0)
    return Receipt(**{**rest, **RECEIPT, **values})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run every test in an empty folder, with no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GRIDMM_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand in for the engine: remember what it was asked; `ends` is what it returns or raises."""
    asked: dict[str, Any] = {"ends": Exit.FINISHED}

    def run(config: Any, **how: Any) -> tuple[Receipt, Exit]:
        asked.update(how, config=config)
        if isinstance(asked["ends"], BaseException):
            raise asked["ends"]
        return receipt(), asked["ends"]

    monkeypatch.setattr(cli, "_session", run)
    return asked


def commands(
    command: click.Command = cli.cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its words."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


def parse(words: list[str]) -> None:
    """Parse a command line as it would be run, without running it."""
    command: click.Command = cli.cli
    context = command.make_context("gridmm", list(words))
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, words
        command, context = found, found.make_context(name, rest, parent=context)


EVERY = list(commands())


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) or "gridmm" for path, _ in EVERY])
def test_every_command_has_a_sentence_and_examples_that_parse(
    path: tuple[str, ...], command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert (command.help or "").splitlines()[0].endswith("."), path
    examples = [line.strip() for line in text.partition("Examples:\n")[2].splitlines() if line.strip()]
    assert examples, f"{path} has no example"
    for example in examples:
        program, *words = shlex.split(example)
        assert program == "gridmm"
        parse(words)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help and parameter.help.endswith("."), f"{path} {parameter.name}"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"gridmm {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "rum",
            r"gridmm rum: no such command. Choose one of config, run, tape, warm-up; see `gridmm --help`.",
        ),
        ("config shw", r"gridmm config shw: no such command. Choose one of check, init, show; see"),
        ("run --confg x", r"gridmm run: .*--confg.*. Did you mean --config\?"),
        ("run --engine quick", r"gridmm run: invalid value for '--engine'.* See `gridmm run --help`."),
        ("run --config", r"gridmm.*: option '--config' requires an argument. See `gridmm.* --help`."),
        ("run x", r"gridmm run: got unexpected extra argument .* See"),
        ("run --config no.toml", r"no.toml: no such file. Write one with `gridmm config init no.toml`."),
        ("run --speed fast", r'command line --speed: speed = "fast": it is neither max'),
        ("run --feed tap", r'command line --feed: source = "tap": no such source of prices'),
        (
            "run --duration soon",
            r'command line --duration: duration = "soon": .* Write a time such as "60 s"',
        ),
        ("run --fresh", r"--fresh: there is no state without --db. Add --db FILE"),
        ("config check", r"gridmm.toml: no such file. Write one with"),
        ("config check --price x", r"--price x: the value is not a number. Write a price"),
        ("config check --price 0", r"--price 0: a price is above zero."),
        ("config show no.toml", r"no.toml: no such file."),
        ("tape info no.csv", r"no.csv.*: .*\. .*\."),
        (
            "config init no/such/folder.toml",
            r"it cannot be written: No such file or directory. Name a file that can.",
        ),
    ],
)
def test_a_slip_is_one_line_with_the_next_step_and_exit_code_2(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(words.split()) == 2
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1 and re.search(message, err), err
    assert "Traceback" not in err


def test_debug_shows_where_it_arose(session: dict[str, Any]) -> None:
    session["ends"] = BadChecksum("a", "b", "c")
    for words in (["--debug", "run"], ["run", "--debug"]):
        with pytest.raises(BadChecksum):
            run_command(words)


def test_a_defect_keeps_its_traceback(session: dict[str, Any]) -> None:
    session["ends"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        run_command(["run"])


def test_init_then_check_is_clean_and_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["config", "init"]) == 0
    assert run_command(["config", "check"]) == 0
    assert "gridmm.toml: no problems, 0 warnings; 6 values set" in capsys.readouterr().out
    Path("gridmm.toml").write_text("mine")
    assert run_command(["config", "init"]) == 2
    assert Path("gridmm.toml").read_text() == "mine"
    assert run_command(["config", "init", "--force"]) == 0
    assert Path("gridmm.toml").read_text() != "mine"


def test_check_says_everything_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text("[grid]\ngrid_sise = 1\nskew_factor = 9\n")
    assert run_command(["config", "check", "a.toml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_check_with_a_price_judges_an_interval_in_price_units(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text('[grid]\nmax_position = "1"\nprice_interval = "30"\n')
    assert run_command(["config", "check", "a.toml"]) == 0
    assert run_command(["config", "check", "a.toml", "--price", "60000"]) == 0
    assert 'warning: a.toml:3: price_interval = "30" is raised to 48' in capsys.readouterr().out
    assert run_command(["config", "check", "a.toml", "--price", "100000"]) == 2


def test_show_names_the_origin_and_hides_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRIDMM_API_SECRET", "do-not-print-me")
    monkeypatch.setenv("GRIDMM_GRID__GRID_SIZE", "7")
    run_command(["config", "init", "a.toml"])
    capsys.readouterr()
    assert run_command(["config", "show", "a.toml", "--json"]) == 0
    as_json = capsys.readouterr().out
    rows = json.loads(as_json)
    assert rows["grid.grid_size"] == {"value": "7", "origin": "environment GRIDMM_GRID__GRID_SIZE"}
    assert rows["grid.max_position"]["origin"].startswith("a.toml:")
    assert rows["atr.length"] == {"value": "14", "origin": "default"}
    assert rows["GRIDMM_API_SECRET"]["value"] == "set" and rows["GRIDMM_API_KEY"]["value"] == "not set"
    assert run_command(["config", "show"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^atr.length +14 +default$", text, re.M)
    assert "do-not-print-me" not in text + as_json


def test_options_of_run_are_settings_with_their_origin(session: dict[str, Any]) -> None:
    Path("t.csv").touch()
    words = ["run", "--feed", "tape:t.csv", "--speed", "60", "--duration", "90", "--db", "a.db", "--fresh"]
    assert run_command(words) == 0
    config = session["config"]
    assert (config.settings.feed.source, config.settings.feed.speed) == ("tape:t.csv", "60")
    assert config.settings.feed.duration == 90_000
    assert config.origins["feed.speed"] == "command line --speed"
    assert (session["db"], session["fresh"]) == (Path("a.db"), True)
    assert run_command(["run", "--duration", "2 h"]) == 0
    assert session["config"].settings.feed.duration == 7_200_000


def test_the_last_line_of_json_is_the_receipt(
    session: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last.items() >= RECEIPT.items()
    assert all(isinstance(last[name], str) for name in ("realized_pnl", "unrealized_pnl", "inventory_skew"))


def test_in_a_pipe_only_decisions_go_to_standard_output(
    session: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and re.search(r"^realized pnl +12.5$", err, re.M)
    assert "on_decision" in session and "on_moment" not in session


def test_on_a_terminal_there_is_a_screen_and_then_a_table(
    session: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run_command(["run"]) == 0
    assert isinstance(session["on_moment"], cli.Screen) and "on_decision" not in session
    assert re.search(r"^realized pnl +12.5$", capsys.readouterr().out, re.M)
    assert run_command(["run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["realized_pnl"] == "12.5"


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (Exit.FINISHED, 0),
        (Exit.LEFT, 4),
        (Exit.UNKNOWN, 5),
        (Fenced("a", "b", "c"), 3),
        (BadChecksum("a", "b", "c"), 3),
        (ExchangeUnreachable("a", "b", "c"), 6),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_exit_codes(
    session: dict[str, Any], ends: object, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    session["ends"] = ends
    assert run_command(["run"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_main_ends_the_process_with_the_code(session: dict[str, Any]) -> None:
    session["ends"] = Exit.LEFT
    with pytest.raises(SystemExit) as ended:
        cli.main(["run"])
    assert ended.value.code == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_handlers_are_given_back(number: signal.Signals) -> None:
    before, heard = signal.getsignal(number), []
    with cli.stopping(lambda: heard.append("stop"), lambda: None):
        signal.raise_signal(number)
    assert heard == ["stop"]
    assert signal.getsignal(number) is before


SLOW = """
import time
from gridmm.cli import stopping
with stopping(lambda: print("asked", flush=True), lambda: print("restored", flush=True)):
    print("ready", flush=True)
    time.sleep(20)
"""


def test_the_second_signal_ends_at_once_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n" or process.stderr.read() == ""
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=5)
    finally:
        process.kill()
    assert process.returncode == 130 and time.monotonic() - start < 2
    assert out == "restored\n" and "orders may be left at the exchange" in err


TAPE = "open_time,open,high,low,close,volume\n1640995200000,46216.5,46271.0,46208.1,46250.0,12.503\n" + (
    "1640995260000,46250.0,46344.2,46234.0,46312.9,1.0\n"
)


def test_tape_info_writes_a_configuration_that_checks_clean(capsys: pytest.CaptureFixture[str]) -> None:
    Path("BTCUSDT-1m.csv").write_text(TAPE)
    assert run_command(["tape", "info", "BTCUSDT-1m.csv", "--write-config", "b.toml"]) == 0
    assert "BTC/USDT" in capsys.readouterr().out
    assert run_command(["config", "check", "b.toml"]) == 0
    assert run_command(["config", "show", "b.toml", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert (rows["instrument.tick"]["value"], rows["feed.source"]["value"]) == (
        '"0.1"',
        '"tape:BTCUSDT-1m.csv"',
    )
    assert run_command(["tape", "info", "BTCUSDT-1m.csv", "--write-config", "b.toml"]) == 2
    capsys.readouterr()
    assert run_command(["tape", "info", "BTCUSDT-1m.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["instrument"]["symbol"] == "BTC/USDT"


def modules(*words: str) -> tuple[set[str], int]:
    """Return the top-level modules that a command loads, and its exit code, in a process of its own."""
    code = (
        "import sys; from gridmm.cli import run_command; code = run_command(sys.argv[1:]);"
        "print('\\n' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules})), code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    *found, exit_code = done.stdout.splitlines()[-1].split()
    return set(found), int(exit_code)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"], ["rum"]], ids=" ".join)
def test_help_loads_click_and_little_else(words: list[str]) -> None:
    found, _ = modules(*words)
    assert found.isdisjoint(HEAVY | {"pydantic", "rich", "asyncio", "sqlite3"})


@pytest.mark.parametrize("command", ["check", "show"])
def test_the_configuration_loads_nothing_heavy(command: str) -> None:
    run_command(["config", "init"])
    found, code = modules("config", command, "gridmm.toml")
    assert code == 0 and found.isdisjoint(HEAVY | {"rich", "asyncio", "sqlite3"})


def seconds(*words: str) -> float:
    """Return the shortest of five runs of a Python process."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def test_help_and_check_take_at_most_twenty_times_bare_python(note: Callable[[str], None]) -> None:
    run_command(["config", "init"])
    bare = seconds("-c", "pass")
    took = {
        words: seconds("-m", "gridmm", *words.split()) for words in ("--help", "config check gridmm.toml")
    }
    for words, spent in took.items():
        note(
            f"gridmm {words}: {spent * 1_000:.0f} ms, {spent / bare:.1f} x bare Python ({bare * 1_000:.0f} ms)"
        )
        assert spent <= 20 * bare


def test_a_screen_is_drawn_in_place_at_most_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    from gridmm import terminal_view

    drawn: list[object] = []
    monkeypatch.setattr(terminal_view, "snapshot_of", lambda *parts: drawn.append(parts))
    monkeypatch.setattr(terminal_view, "view", lambda shot: "screen")

    with cli.Screen() as screen:
        for _ in range(1_000):
            screen(MagicMock())
        screen.restore()
    assert 1 <= len(drawn) <= 3


def test_a_session_runs_resumes_and_starts_anew(capsys: pytest.CaptureFixture[str]) -> None:
    """The real thing: the demo market for some minutes, three times on one database."""
    words = ["run", "--duration", "5 min", "--db", "grid.db", "--json"]
    versions = []
    for more in ([], [], ["--fresh"]):
        assert run_command([*words, *more]) == 0
        out, err = capsys.readouterr()
        *decisions, last = [json.loads(line) for line in out.splitlines()]
        assert decisions and all(line["event"] == "decision" for line in decisions)
        assert last["open_orders"] == 0 and set(last["residual_exchange"].values()) == {"0"}
        assert last["pnl"].keys() >= {"harvest", "trend", "fees", "funding", "residual"}
        assert "demo market" in err
        versions.append(last["version"])
    assert versions[0] < versions[1] and versions[2] == versions[0]
    assert "the old state is kept in grid.db.1" in err


def test_a_signal_stops_a_session_cleanly() -> None:
    command = [sys.executable, "-m", "gridmm", "run", "--speed", "20", "--json"]
    # This process has pointed numba at the cache of this version; the child finds it by itself.
    environ = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert json.loads(first)["event"] == "decision", err
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["open_orders"] == 0


def test_a_cold_start_says_that_it_compiles(
    session: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    assert run_command(["warm-up"]) == 0
    assert re.search(r"^done in \d+ s, kept in ", capsys.readouterr().out, re.M)
    assert session["config"].settings.feed.duration == 600_000
    assert run_command(["warm-up"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    next(tmp_path.rglob("complete")).unlink()
    for words in (True, False):
        run_command(["run"])
        assert ("compiling the decision functions: once for this version" in capsys.readouterr().err) == words
