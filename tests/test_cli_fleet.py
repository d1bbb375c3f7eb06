"""`gridmm worker` and `gridmm fleet`, typed as a person would, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gridmm.cli import run_command
from test_monitor import ask, eventually

TWO = """\
[[grid]]
name = "btc"
max_position = "5 %"
[[grid]]
name = "eth"
max_position = "5 %"
[grid.instrument]
symbol = "ETH/USDT:USDT"
"""


@pytest.fixture
def url(database: str) -> str:
    return database.replace("postgresql+psycopg://", "postgresql://")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(TWO)
    return path


@pytest.fixture
def worker(url: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start workers, which are gone at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, monitor: str = "off") -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "gridmm",
            "worker",
            "--db",
            url,
            "--name",
            name,
            "--monitor",
            monitor,
        ]
        command += ["--events", str(tmp_path / name)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


class Shell:
    """Types commands and reads what they print."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self._capsys = url, capsys

    def __call__(self, *words: str) -> tuple[int, str]:
        """Return exit code and output."""
        self._capsys.readouterr()
        code = run_command([*words, "--db", self.url])
        out, err = self._capsys.readouterr()
        return code, out + err

    def members(self) -> dict[str, dict[str, str]]:
        """Return the list of grids."""
        code, out = self("fleet", "list", "--json")
        assert code == 0, out
        return {one["grid"]: one for one in json.loads(out)["grids"]}

    def until(self, so: Callable[[dict[str, dict[str, str]]], bool]) -> dict[str, dict[str, str]]:
        """Wait until the list is as it should be."""
        end = time.monotonic() + 60
        while not so(found := self.members()):
            assert time.monotonic() < end, found
            time.sleep(0.3)
        return found


@pytest.fixture
def shell(url: str, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(url, capsys)


def seen(monitor: str) -> list[dict[str, Any]]:
    """Return the grids that a worker's monitor shows, by name."""
    grids: list[dict[str, Any]] = ask(f"http://{monitor}", "/status").data["grids"]
    return sorted(grids, key=lambda one: str(one["grid"]))


@pytest.mark.timeout(240)
def test_a_fleet_from_the_first_grid_to_the_last(
    shell: Shell, file: Path, worker: Callable[..., subprocess.Popen[str]]
) -> None:
    assert shell("fleet", "list") == (0, "no grids\n")
    assert shell("fleet", "add", str(file)) == (0, "btc: added, account paper\neth: added, account paper\n")
    code, out = shell("fleet", "add", str(file))
    assert code == 3 and "grid btc: it waits or runs already" in out
    one = worker("one")
    shell.until(lambda found: all(member["state"] == "running" for member in found.values()))
    with socket.create_server(("127.0.0.1", 0)) as free:
        monitor = f"127.0.0.1:{free.getsockname()[1]}"
    two = worker("two", monitor)
    time.sleep(8)
    one.kill()
    found = shell.until(lambda found: all(member["worker"].startswith("two/") for member in found.values()))
    assert {member["state"] for member in found.values()} == {"running"}
    end = time.monotonic() + 30
    while (
        "worker two/" not in shell("status", "--grid", "btc")[1]
    ):  # it was given the grid, and now takes its state
        assert time.monotonic() < end
        time.sleep(0.2)
    eventually(lambda: [one["grid"] for one in seen(monitor)] == ["btc", "eth"])
    code, out = shell("fleet", "remove", "btc", "--why", "enough")
    assert code == 0 and "btc: cancel asked for" in out
    found = shell.until(lambda found: found["btc"]["state"] == "ended")
    eventually(lambda: [one["grid"] for one in seen(monitor)] == ["eth"])
    assert found["btc"]["note"] == "finished: position 0, 0 orders left"
    code, out = shell("fleet", "remove", "btc", "--why", "enough")
    assert code == 3 and "it has ended already" in out
    two.send_signal(signal.SIGTERM)
    _, said = two.communicate(timeout=30)
    assert two.returncode == 0 and said.endswith("handed over: eth\n"), said
    assert "Traceback" not in said
    three = worker("three")
    shell.until(lambda found: found["eth"]["worker"].startswith("three/"))
    os.kill(three.pid, signal.SIGKILL)


def test_an_account_is_limited_and_listed(shell: Shell) -> None:
    code, out = shell("fleet", "account", "main", "--asset", "USDT", "--exposure", "10000")
    assert (code, out) == (0, "account main: exposure 10000, actions a second without limit\n")
    code, out = shell("fleet", "list")
    assert "account main: exposure 0 of 10000 USDT, actions a second 0 of no limit" in out
    code, out = shell("fleet", "account", "main", "--asset", "USDT", "--exposure", "much")
    assert code == 2 and "account main" in out


def test_what_cannot_be_a_fleet_is_refused(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain.toml"
    plain.write_text('[grid]\nmax_position = "5 %"\n')
    code, out = shell("fleet", "add", str(plain))
    assert code == 2 and "its grid has no name. Write [[grid]]" in out
    assert run_command(["worker", "--db", str(tmp_path / "file.sqlite")]) == 2
    assert "a file is for one machine" in capsys.readouterr().err
    assert run_command(["fleet", "list", "--db", "postgresql://bot@db.example/grids"]) == 2
    assert "cross the network in the open" in capsys.readouterr().err
