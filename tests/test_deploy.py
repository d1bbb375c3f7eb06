"""What deploys a grid: units that systemd accepts, steps of the container file that were run, a compose file that fits."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from compiled_code import link
from gridmm.errors import Exit
from prometheus_server import tool
from tools.notebooks import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
INSTALLED = "/opt/gridmm/bin/gridmm"


def unit(name: str) -> list[tuple[str, str]]:
    """Return the settings of a unit, in their order."""
    lines = (DEPLOY / "systemd" / name).read_text().splitlines()
    return [
        (key, value) for key, eq, value in (line.partition("=") for line in lines) if eq and key[:1] != "#"
    ]


def here(command: str, folder: Path) -> list[str]:
    """Return a command of a unit with this machine's places."""
    places = {
        INSTALLED: f"{sys.executable} -m gridmm", "${CREDENTIALS_DIRECTORY}": str(folder),
        "/var/lib/private/gridmm": str(folder), "/var/lib/gridmm": str(folder), "/var/backups/gridmm": str(folder / "copies"),
        "127.0.0.1:9464": "127.0.0.1:0",
    }  # fmt: skip
    for place, mine in places.items():
        command = command.replace(place, mine)
    return shlex.split(command)


def systemd() -> str:
    """Return systemd-analyze; see `prometheus_server.tool`."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd is not on this machine")
    return found


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_the_units(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace(INSTALLED, sys.executable))
    for other in UNITS:
        if other != path:
            (tmp_path / other.name).write_text(other.read_text().replace(INSTALLED, sys.executable))
    done = subprocess.run((systemd(), "verify", copy), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and path.name not in done.stderr, done.stderr


def test_a_mistake_in_a_unit_would_be_seen(tmp_path: Path) -> None:
    copy = tmp_path / "gridmm.service"
    text = (DEPLOY / "systemd" / "gridmm.service").read_text().replace(INSTALLED, sys.executable)
    copy.write_text(text.replace("TimeoutStopSec=120", "TimeoutStopSec=two minutes"))
    done = subprocess.run((systemd(), "verify", copy), capture_output=True, text=True, check=False)
    assert "Failed to parse time value, ignoring: two minutes" in done.stderr


def test_the_unit_gives_up_what_it_does_not_need() -> None:
    command = (
        systemd(),
        "security",
        "--offline=true",
        "--threshold=20",
        DEPLOY / "systemd" / "gridmm.service",
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]
    settings = dict(unit("gridmm.service"))
    assert "MemoryDenyWriteExecute" not in settings, "the decision functions are compiled while it runs"


def test_the_unit_starts_again_only_what_another_start_can_mend() -> None:
    settings = dict(unit("gridmm.service"))
    never = {int(code) for code in settings["RestartPreventExitStatus"].split()}
    assert settings["Restart"] == "on-failure"
    assert never == {Exit.USAGE, Exit.REFUSED, Exit.LEFT, Exit.UNKNOWN, Exit.INTERRUPTED}
    assert Exit.UNREACHABLE not in never


@pytest.mark.timeout(300)
def test_the_commands_of_the_units_do_what_they_are_for(tmp_path: Path) -> None:
    (tmp_path / "gridmm.toml").write_text('[grid]\nmax_position = "10 %"\n[feed]\nspeed = "300"\n')
    settings = dict(unit("gridmm.service"))
    clean = {name: text for name, text in os.environ.items() if not name.startswith("GRIDMM_")}
    about: dict[str, Any] = {"cwd": tmp_path, "env": clean, "text": True}
    subprocess.run(here(settings["ExecStartPre"], tmp_path), check=True, capture_output=True, **about)
    with (
        (tmp_path / "out").open("w") as out,
        subprocess.Popen(
            here(settings["ExecStart"], tmp_path), stdout=out, stderr=subprocess.PIPE, **about
        ) as process,
    ):
        try:
            assert process.stderr is not None
            next(line for line in process.stderr if line.startswith("monitor: http://127.0.0.1:"))
            time.sleep(2)
            backup = here(dict(unit("gridmm-backup.service"))["ExecStart"], tmp_path)
            done = subprocess.run(backup, capture_output=True, check=False, **about)
            assert done.returncode == 0 and "copied and read back" in done.stdout, done.stderr
            process.send_signal(signal.Signals[settings["KillSignal"]])
            assert process.wait(timeout=int(settings["TimeoutStopSec"])) == 0
        finally:
            process.kill()
    assert json.loads((tmp_path / "out").read_text().splitlines()[-1])["open_orders"] == 0


def steps() -> Iterator[tuple[str, str]]:
    """Yield the container file's instructions."""
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest


@pytest.mark.timeout(900)
def test_the_steps_of_the_container_file_make_a_grid_that_runs(tmp_path: Path) -> None:
    """Every COPY and RUN of it, but the making of a user, in a folder that stands for the image."""
    mine = {
        "/opt/gridmm": f"{tmp_path}/opt/gridmm",
        "/src": f"{tmp_path}/src",
        "/var/lib/gridmm": f"{tmp_path}/state",
    }
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "state"),
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }
    (tmp_path / "state").mkdir()
    ran, left_out, entry, command = list[str](), list[str](), list[str](), list[str]()
    for word, rest in steps():
        for place, other in mine.items():
            rest = rest.replace(place, other)
        if word == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            Path(target).mkdir(parents=True, exist_ok=True)
            for source in sources:
                found = ROOT / source
                if found.is_dir():
                    shutil.copytree(
                        found, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
                    )
                else:
                    shutil.copy(found, target)
        elif word == "RUN" and rest.startswith("useradd"):
            left_out.append(rest)
        elif word == "RUN":
            if "warm-up" in rest:
                (package,) = (tmp_path / "opt").glob("gridmm/lib/*/site-packages/gridmm")
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("NUMBA_CACHE_DIR", environment["NUMBA_CACHE_DIR"])
                    link(package)
                rest += " --help"  # a minute of compilation, which every other test has seen
            rest = re.sub(r"^python ", f"{sys.executable} ", rest)
            done = subprocess.run(
                rest, shell=True, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{rest}:\n{done.stdout}\n{done.stderr}"
            ran.append(rest)
        elif word in ("ENTRYPOINT", "CMD"):
            entry = json.loads(rest) if word == "ENTRYPOINT" else entry
            command = json.loads(rest) if word == "CMD" else command
    assert len(ran) == 4 and len(left_out) == 1
    environment["NUMBA_DISABLE_JIT"] = "1"
    words = [*entry, *command[:1], "--monitor", "off", *command[3:], "--duration", "5 s", "--speed", "max"]
    done = subprocess.run(
        words, env=environment, cwd=tmp_path / "state", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["open_orders"] == 0


def compose() -> dict[str, Any]:
    """Return the compose file."""
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def test_the_compose_file_names_what_there_is() -> None:
    found = compose()
    assert set(found["services"]) == {"database", "worker", "prometheus", "grafana"}
    for name, service in found["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to other machines"
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in found["volumes"], (
                volume
            )
        for other in service.get("depends_on", ()):
            assert "healthcheck" in found["services"][other]
        image = service.get("image", "")
        assert name == "worker" or re.search(r":v?\d", image), f"{name} has no version"
    worker = found["services"]["worker"]
    assert (DEPLOY / worker["build"]["context"]).resolve() == ROOT
    assert (ROOT / worker["build"]["dockerfile"]).is_file()
    port = worker["command"][worker["command"].index("--monitor") + 1].partition(":")[2]
    (target,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"][0][
        "static_configs"
    ][0]["targets"]
    assert target == f"worker:{port}"


def test_every_variable_of_the_compose_file_is_in_the_example() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{([A-Z_]+)", text))
    named = set(re.findall(r"^([A-Z_]+)=", (DEPLOY / ".env.example").read_text(), re.M))
    assert wanted == named
    assert not re.search(r"^[A-Z_]+=.", (DEPLOY / ".env.example").read_text(), re.M), (
        "an example of a secret gets used"
    )


def test_the_worker_s_command_is_one(tmp_path: Path) -> None:
    words = compose()["services"]["worker"]["command"]
    done = subprocess.run(
        (sys.executable, "-m", "gridmm", *words), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PGCONNECT_TIMEOUT": "1"},
    )  # fmt: skip
    assert done.returncode == Exit.UNREACHABLE and "database" in done.stderr, (
        "all that is missing is the server"
    )


def test_docker_agrees(tmp_path: Path) -> None:
    program = shutil.which("docker")
    if (
        program is None
        or subprocess.run((program, "compose", "version"), capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not on this machine")
    variables = dict.fromkeys(re.findall(r"^([A-Z_]+)=", (DEPLOY / ".env.example").read_text(), re.M), "x")
    command = (program, "compose", "--file", DEPLOY / "compose.yaml", "config", "--quiet")
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_prometheus_reads_its_configuration(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "prometheus")
    command = (tool("promtool"), "check", "config", tmp_path / "prometheus" / "prometheus.yml")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr
