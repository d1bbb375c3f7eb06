"""A person types the two lines of the page: an exchange is served, and a grid trades on it, live prices and all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gridmm.cli import run_command

GRIDMM = (sys.executable, "-m", "gridmm")


@contextmanager
def served(folder: Path, *options: str) -> Iterator[list[str]]:
    """Serve an exchange, and give the words of the line that it prints."""
    command = (*GRIDMM, "exchange", "serve", "--speed", "60", *options)
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("gridmm run --exchange"):
                    yield line.split()[1:]
                    return
            raise AssertionError("".join(lines))
        finally:
            process.terminate()


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command in a folder, in an environment without keys."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GRIDMM_")}
    return subprocess.run(
        (*GRIDMM, *words), cwd=folder, env=clean, capture_output=True, text=True, timeout=150, check=False
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("market", ["spot", "perpetual"])
def test_the_line_that_the_exchange_prints_trades_on_it(tmp_path: Path, market: str) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(f"""[grid]
mode = "long"
max_position = "10 %"
[instrument]
symbol = "{"BTC/USDT" if market == "spot" else "BTC/USDT:USDT"}"
market = "{market}"
""")
    with served(tmp_path, "--market", market) as words:
        done = typed(tmp_path, *words, "--config", "grid.toml", "--duration", "8", "--json")
        assert done.returncode == 0, done.stderr
        receipt = json.loads(done.stdout.splitlines()[-1])
        assert receipt["decisions"] >= 2 and receipt["open_orders"] == 0 and receipt["defects"] == 0
        assert receipt["pnl"]["residual"] == "0" and set(receipt["residual_exchange"].values()) == {"0"}
        again = typed(tmp_path, *words, "--config", "grid.toml", "--duration", "4", "--json")
        assert again.returncode == 0 and "goes on from version" in again.stderr, again.stderr


@pytest.mark.timeout(300)
def test_paper_trades_on_the_prices_of_an_exchange(tmp_path: Path) -> None:
    with served(tmp_path) as words:
        _, _, _, _, endpoint, _, ca = words
        asked = ("--feed", "ccxt:binance", "--endpoint", endpoint, "--ca", ca, "--duration", "8", "--json")
        done = typed(tmp_path, "run", *asked)
        assert done.returncode == 0, done.stderr
        assert "paper on prices of binance" in done.stderr
        receipt = json.loads(done.stdout.splitlines()[-1])
        assert receipt["decisions"] >= 2 and receipt["open_orders"] == 0
        assert (tmp_path / "gridmm.sqlite.paper").exists(), "it has a ledger of its own"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run --exchange binance", "Add --live"),
        ("run --exchange binance --live", "an account with a name of its own"),
        (
            "run --exchange binance --live --config main.toml",
            "Set GRIDMM_MAIN_API_KEY and GRIDMM_MAIN_API_SECRET",
        ),
        ("run --exchange binance --live --endpoint 127.0.0.1:1", "a rehearsal trades no money"),
        ("run --exchange nowhere --endpoint 127.0.0.1:1", "gridmm does not know it"),
        ("run --endpoint 127.0.0.1:1", "Add --exchange NAME"),
        ("run --exchange binance --engine simple", "under the durable engine"),
        ("run --exchange binance --endpoint 127.0.0.1:1 --ca none.pem", "it cannot be read"),
    ],
)
def test_what_must_not_begin_says_what_to_do(
    line: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("main.toml").write_text('[grid]\nmax_position = "10 %"\n[account]\nname = "main"\n')
    for name in ("KEY", "SECRET"):
        monkeypatch.delenv(f"GRIDMM_MAIN_API_{name}", raising=False)
    assert run_command(line.split()) in (2, 3)
    assert words in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_the_doctor_looks_at_the_account_of_an_exchange(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('[grid]\nmax_position = "10 %"\n')
    with served(tmp_path) as words:
        asked = ("doctor", *words[1:], "--config", "grid.toml", "--json")
        done = typed(tmp_path, *asked)
        assert done.returncode == 0, done.stdout + done.stderr
        said = json.loads(done.stdout)
        verdicts = {check["name"]: check["verdict"] for check in said["checks"]}
        assert verdicts.pop("address") == "warning", "the key of the rehearsal works from everywhere"
        assert set(verdicts.values()) <= {"ok", "warning"} and verdicts["withdrawal"] == "ok"
