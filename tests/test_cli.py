"""The command line: examples work, errors are one line, exit codes hold, and help loads nothing heavy."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
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
from gridmm.desk import Receipt
from gridmm.errors import BadChecksum, ExchangeUnreachable, Exit, Fenced

HEAVY = {"numba", "numpy", "sqlalchemy", "dbos", "psycopg", "ccxt", "aiohttp", "google", "pandas", "plotly"}
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

    def run(grids: Any, place: Any, **how: Any) -> tuple[dict[str, Receipt], Exit]:
        asked.update(how, config=grids[""], **place._asdict())
        if isinstance(asked["ends"], BaseException):
            raise asked["ends"]
        return {"": receipt()}, asked["ends"]

    monkeypatch.setattr(cli, "_sessions", run)
    return asked


def commands(
    command: click.Command = cli.cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its words."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
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
            r"gridmm rum: no such command. Choose one of adopt, .*, commands, config, .*, warm-up, why, why-not, worker; see `gridmm --help`.",
        ),
        ("config shw", r"gridmm config shw: no such command. Choose one of check, init, show, suggest; see"),
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
        ("run --engine simple --fresh", r"--fresh: there is no state without --db. Add --db FILE"),
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
def test_a_slip_isone_line_with_the_next_step_and_exit_code_2(
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
    assert session["on_decision"] is not cli._untold


def test_on_a_terminal_there_is_a_screen_and_then_a_table(
    session: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    drawn: list[object] = []
    monkeypatch.setattr(cli.Screen, "__call__", lambda screen, engine, note="": drawn.append(engine))
    assert run_command(["run", "--monitor", "off"]) == 0
    session["on_moment"]("an engine")
    assert drawn == ["an engine"] and session["on_decision"] is cli._untold
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
    capsys.readouterr()
    assert run_command(["config", "show", "b.toml", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
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


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["stop", "--help"], ["--version"], ["rum"]], ids=" ".join
)
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

    engine = MagicMock()
    with cli.Screen() as screen:
        for _ in range(1_000):
            screen(engine)
        screen.restore()
    assert 1 <= len(drawn) <= 3


def test_a_check_at_a_price_says_what_a_run_would_say(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text('[grid]\nmax_position = "50 %"\norder_notional = "0.5 %"\n')
    assert run_command(["config", "check", "a.toml"]) == 0
    assert "not judged: what the sizes come to in lots; add --price PRICE" in capsys.readouterr().out
    assert run_command(["config", "check", "a.toml", "--price", "60000"]) == 2
    checked = capsys.readouterr().err
    assert 'a.toml:3: order_notional = "0.5 %": at 60000 it is 0 lots' in checked
    assert run_command(["run", "--config", "a.toml", "--duration", "60", "--speed", "max"]) == 2
    assert capsys.readouterr().err == checked
    Path("a.toml").write_text('[grid]\nmax_position = "50 %"\nstop_loss = "999999999999999"\n')
    assert run_command(["config", "check", "a.toml"]) == 0
    assert run_command(["config", "check", "a.toml", "--price", "60000"]) == 2
    assert "beyond the range of the core" in capsys.readouterr().err


def test_a_check_without_a_price_names_the_interval_that_it_could_not_judge(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("a.toml").write_text('[grid]\nmax_position = "1"\nprice_interval = "30"\n')
    assert run_command(["config", "check", "a.toml"]) == 0
    out = capsys.readouterr().out
    assert 'warning: a.toml:3: price_interval = "30" was not judged: ' in out and "Add --price PRICE." in out
    assert "no problems, 1 warnings" in out
    assert run_command(["config", "check", "a.toml", "--price", "40000"]) == 0
    assert "was not judged" not in capsys.readouterr().out


def test_a_check_does_not_guess_the_lots_of_a_tape(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text('[grid]\nmax_position = "1"\n[feed]\nsource = "tape:x.csv"\n')
    assert run_command(["config", "check", "a.toml", "--price", "0.01"]) == 0
    out = capsys.readouterr().out
    assert (
        "a.toml:4: the sizes were not judged in lots: lot, min_notional, min_quantity, tick are the tape's"
        in out
    )


def test_a_folder_in_place_of_a_file_is_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run_command(["run", "--config", "."]) == 2
    assert capsys.readouterr().err.startswith(f"{folder} is a folder: ")


def test_help_says_what_no_duration_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "0 is no limit: a tape plays to its end, the demo until you stop it." in text


BARS = "open_time,open,high,low,close,volume\n" + "\n".join(
    f"{1_640_995_200_000 + 60_000 * minute},{60_000 + 200 * (minute % 2)}.1,60400.5,59800.2,60100.3,1.001"
    for minute in range(30)
)
SESSION = ["run", "--feed", "tape:BTCUSDT-1m.csv", "--db", "grid.db", "--speed", "max", "--json"]


def test_a_tape_that_is_over_is_not_quoted_on_again(capsys: pytest.CaptureFixture[str]) -> None:
    Path("BTCUSDT-1m.csv").write_text(BARS)
    assert run_command(SESSION) == 0
    out, err = capsys.readouterr()
    first = json.loads(out.splitlines()[-1])
    assert first["fills"] and "over" not in err
    for _ in range(2):
        assert run_command(SESSION) == 0
        out, err = capsys.readouterr()
        last = json.loads(out.splitlines()[-1])
        assert err.count("the tape is over since 2022-01-01 00:30:00 UTC: nothing to trade") == 1
        assert "goes on" not in err and '"action":"place"' not in out
        assert {name: last[name] for name in ("fills", "open_orders", "position", "pnl")} == {
            name: first[name] for name in ("fills", "open_orders", "position", "pnl")
        }


def test_another_feed_or_account_on_the_same_files_says_what_differs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("BTCUSDT-1m.csv").write_text(BARS)
    Path("other_BTCUSDT.csv").write_text(BARS.replace("60400.5", "60401.5"))
    Path("rich.toml").write_text('[grid]\nmax_position = "50 %"\n[paper]\nequity = "20000"\n')
    assert run_command(SESSION) == 0
    capsys.readouterr()
    assert run_command([*SESSION, "--feed", "tape:other_BTCUSDT.csv"]) == 3
    message = capsys.readouterr().err.splitlines()[-1]
    assert "grid.db.paper: the paper ledger was begun on other prices: --feed, market," in message
    assert "--db, or start anew with --fresh" in message
    assert run_command([*SESSION, "--config", "rich.toml"]) == 3
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        "begun with equity in [paper] = 10000: the configuration says equity in [paper] = 20000." in message
    )
    assert run_command([*SESSION, "--config", "rich.toml", "--fresh"]) == 0


@pytest.mark.parametrize("name", ["grid.db", "grid.db.paper"])
def test_fresh_begins_anew_beside_a_damaged_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("BTCUSDT-1m.csv").write_text(BARS)
    assert run_command(SESSION) == 0
    fills = json.loads(capsys.readouterr().out.splitlines()[-1])["fills"]
    for where in (0, 4_096):  # a head that is none; then pages that are none below a good head
        data = Path(name).read_bytes()
        broken = data[:where] + b"?" * (len(data) - where)
        Path(name).write_bytes(broken)
        assert run_command(SESSION) == 3
        message = capsys.readouterr().err.splitlines()[-1]
        assert f"{name}" in message and "is damaged" in message and "--fresh" in message, message
        assert run_command([*SESSION, "--fresh"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out.splitlines()[-1])["fills"] == fills
        kept = re.search(r"the old state is kept in (grid.db.\d)", err)
        assert kept and Path(name.replace("grid.db", kept[1])).read_bytes() == broken


def test_fresh_sets_aside_a_ledger_that_lost_its_database(capsys: pytest.CaptureFixture[str]) -> None:
    Path("BTCUSDT-1m.csv").write_text(BARS)
    assert run_command(SESSION) == 0
    Path("grid.db").unlink()
    lost = Path("grid.db.paper").read_bytes()
    for kept in ("grid.db.1", "grid.db.2"):
        assert run_command([*SESSION, "--fresh"]) == 0
        assert f"the old state is kept in {kept}\n" in capsys.readouterr().err
    assert Path("grid.db.1.paper").read_bytes() == lost and not Path("grid.db.1").exists()
    Path("grid.db").unlink()
    assert run_command(SESSION) == 3
    assert "Put the missing one back, or start with --fresh" in capsys.readouterr().err
    assert run_command([*SESSION, "--fresh"]) == 0


def test_every_file_of_a_session_is_private() -> None:
    before = os.umask(0)
    try:
        Path("BTCUSDT-1m.csv").write_text(BARS)
        Path("grid.db").touch(0o666)
        Path("grid.db.paper").touch(0o666)
        assert run_command(SESSION) == 0
    finally:
        os.umask(before)
    made = [path for path in Path().rglob("grid.db*") if path.is_file()] + list(Path().rglob("*.events/*"))
    assert {path.name for path in made} >= {"grid.db", "grid.db.paper", "00000001.events"}
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}
    assert Path("grid.db.events").stat().st_mode & 0o777 == 0o700


def test_a_cell_that_lots_make_smaller_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--duration", "60", "--speed", "max", "--json"]
    assert run_command(words) == 0
    assert "whole lots" not in capsys.readouterr().err, "the demo's own default is nobody's mistake"
    Path("grid.toml").write_text('[grid]\nmax_position = "50 %"\norder_notional = "1 %"\n')
    assert run_command([*words, "--config", "grid.toml", "--fresh"]) == 0
    err = capsys.readouterr().err
    assert err.count('order_notional = "1 %" is 100, and an order is 59.9978') == 1


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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
    next(tmp_path.rglob("complete-*")).unlink()
    for words in (True, False):
        run_command(["run"])
        assert ("compiling the decision functions: once for this version" in capsys.readouterr().err) == words


def test_without_a_compiler_there_is_nothing_to_warm_up_and_no_mark(
    session: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert run_command(["warm-up"]) == 0
    out = capsys.readouterr().out
    assert "NUMBA_DISABLE_JIT switches the compiler off" in out and "compiled" not in out
    assert run_command(["run"]) == 0
    assert "compiling" not in capsys.readouterr().err
    assert list(tmp_path.rglob("complete-*")) == [] and "config" in session


def aged(folder: Path, seconds: float, complete: bool = True) -> Path:
    """Make a folder of compiled functions that was last used so many seconds ago."""
    folder.mkdir(parents=True)
    (folder / "kernel.nbi").touch()
    if complete:
        (folder / "complete-1").touch()
        os.utime(folder / "complete-1", (time.time() - seconds,) * 2)
    os.utime(folder, (time.time() - seconds,) * 2)
    return folder


def test_a_first_compilation_removes_all_but_the_last_three(
    session: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    root = tmp_path / "gridmm"
    for day in range(1, 6):
        aged(root / f"kernels-{day}", 86_400 * day)
    aged(root / "kernels-begun", 60, complete=False)
    aged(root / "kernels-broken-off", 86_400, complete=False)
    aged(root / "old-kernels-9-77", 86_400)
    aged(root / "mine", 86_400 * 99)
    assert run_command(["run"]) == 0
    running = next(
        path.parent.name for path in root.glob("*/complete-*") if not (path.parent / "kernel.nbi").exists()
    )
    left = {path.name for path in root.iterdir()}
    assert left == {running, "kernels-1", "kernels-2", "kernels-begun", "mine"}
    aged(root / "kernels-6", 86_400 * 6)
    assert run_command(["run"]) == 0
    assert (root / "kernels-6").exists(), "nothing was compiled, so nothing is tidied"


def test_a_folder_in_use_is_recent_and_the_running_one_stays_whatever_its_age(tmp_path: Path) -> None:
    from gridmm.kernel_cache import kernels, prune

    folders = [aged(tmp_path / f"kernels-{day}", 86_400 * day) for day in range(1, 6)]
    with kernels(lambda line: None, folders[4] / "complete-1"):
        assert prune(folders[3], time.time()) == ["kernels-2", "kernels-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels-1", "kernels-4", "kernels-5"]


def test_of_two_that_tidy_neither_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gridmm import kernel_cache

    folders = [aged(tmp_path / f"kernels-{day}", 86_400 * day) for day in range(1, 6)]
    rename = Path.rename

    def slower(path: Path, target: Path) -> Path:
        if path.name == "kernels-4":
            rename(path, tmp_path / "gone")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", slower)
    assert kernel_cache.prune(folders[0], time.time()) == ["kernels-5"]


def test_a_session_whose_folder_was_tidied_away_ends_well(tmp_path: Path) -> None:
    from gridmm.kernel_cache import kernels

    mark = aged(tmp_path / "kernels-1", 5) / "complete-1"
    with kernels(lambda line: None, mark):
        shutil.rmtree(mark.parent)
    assert mark.exists()


def test_what_one_installation_compiled_is_no_mark_for_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gridmm.kernel_cache import mark_of

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "step.py").write_text("@compiled\n")
    one, two = (mark_of(tmp_path / name) for name in ("one", "two"))
    assert one.parent == two.parent and one != two
