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
import tempfile
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
from unit_sandbox import missing

DEPLOY = ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(path for path in SYSTEMD.iterdir() if path.suffix != ".conf")
DROP_INS = sorted(SYSTEMD.glob("*.conf"))
NOBODY = 65_534
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


@pytest.mark.parametrize("path", [*UNITS, *DROP_INS], ids=lambda path: path.name)
def test_systemd_understands_the_units(path: Path, tmp_path: Path) -> None:
    drop_in, path = (path, SYSTEMD / "gridmm.service") if path in DROP_INS else (None, path)
    if drop_in is not None:
        (tmp_path / f"{path.name}.d").mkdir()
        text = drop_in.read_text().replace(INSTALLED, sys.executable)
        (tmp_path / f"{path.name}.d" / drop_in.name).write_text(text)
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


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that another user of this machine can come to."""
    with tempfile.TemporaryDirectory(prefix="gridmm-unit-") as name:
        folder = Path(name)
        for one in ("state", "cache", "credentials"):
            (folder / one).mkdir()
            os.chown(folder / one, NOBODY, NOBODY)
        folder.chmod(0o755)
        yield folder


def confined(unit: Path, home: Path, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in what a unit leaves to its process."""
    if why := missing():
        pytest.skip(f"a unit cannot be tried here: {why}")
    clean = {name: text for name, text in os.environ.items() if not name.startswith("GRIDMM_")}
    places = {"HOME": str(home / "state"), "NUMBA_CACHE_DIR": str(home / "cache"), "NUMBA_DISABLE_JIT": "1"}
    writable = f"{home / 'state'}:{home / 'cache'}"
    return subprocess.run(
        (sys.executable, ROOT / "tests" / "unit_sandbox.py", unit, str(NOBODY), writable, *command),
        env=clean | places | {"PYTHONPATH": str(ROOT)} | more, cwd=home / "state", capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(200)
@pytest.mark.parametrize("filtered", ["as shipped", "killed at the first call"])
def test_a_grid_trades_in_what_the_unit_leaves_to_it(home: Path, filtered: str) -> None:
    (home / "gridmm.toml").write_text(
        '[grid]\nmax_position = "10 %"\n[feed]\nspeed = "300"\nduration = "10 min"\n'
    )
    text, place = (SYSTEMD / "gridmm.service").read_text(), home / "gridmm.service"
    if filtered != "as shipped":  # numpy asks where its memory lies, which @resources refuses
        text = re.sub(r"^SystemCallErrorNumber=.*$", "", text, flags=re.M)
    place.write_text(text)
    words = here(dict(unit("gridmm.service"))["ExecStart"], home / "state")
    words = [word.replace(str(home / "state" / "gridmm.toml"), str(home / "gridmm.toml")) for word in words]
    done = confined(place, home, words)
    if filtered != "as shipped":
        assert done.returncode in (128 + signal.SIGSYS, -signal.SIGSYS), done.stderr
        return
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout.splitlines()[-1])
    assert receipt["decisions"] > 0 and receipt["open_orders"] == 0
    assert (home / "state" / "gridmm.sqlite").stat().st_uid == NOBODY
    backup = here(dict(unit("gridmm-backup.service"))["ExecStart"], home / "state")
    done = confined(SYSTEMD / "gridmm-backup.service", home, backup)
    assert done.returncode == 0 and "copied and read back" in done.stdout, done.stdout + done.stderr


def test_the_sandbox_holds(home: Path) -> None:
    write = "import pathlib; pathlib.Path('/var/tmp/x').write_text(''); pathlib.Path('/usr/x').write_text('')"
    done = confined(SYSTEMD / "gridmm.service", home, [sys.executable, "-c", write])
    assert "Read-only file system: '/usr/x'" in done.stderr
    opens = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"
    done = confined(SYSTEMD / "gridmm.service", home, [sys.executable, "-c", opens])
    assert "Address family not supported" in done.stderr


@pytest.mark.timeout(200)
def test_keys_reach_a_grid_by_files_that_only_it_sees(home: Path) -> None:
    """The drop-in for real money: each key is a credential, and its file is named to the process."""
    settings = [
        (key, value) for key, eq, value in (line.partition("=") for line in (SYSTEMD / "live.conf").read_text().splitlines())
        if eq and key[:1] != "#"
    ]  # fmt: skip
    named = dict(
        word.partition("=")[::2] for key, value in settings if key == "Environment" for word in value.split()
    )
    loaded = dict(value.partition(":")[::2] for key, value in settings if key == "LoadCredential")
    assert {Path(path).name for path in named.values()} == set(loaded) and all(
        p.startswith("%d/") for p in named.values()
    )
    for name in loaded:
        (home / "credentials" / name).write_text(f"marked-{name}\n")
        os.chown(home / "credentials" / name, NOBODY, NOBODY)
    files = {name: path.replace("%d", str(home / "credentials")) for name, path in named.items()}
    asks = "from gridmm.secret_files import take_secrets; import os; take_secrets(os.environ); print(os.environ['GRIDMM_MAIN_API_KEY'])"
    done = confined(SYSTEMD / "gridmm.service", home, [sys.executable, "-c", asks], **files)
    assert done.stdout == "marked-main_api_key\n", done.stderr


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


def test_no_secret_of_the_compose_file_is_in_its_environment() -> None:
    found, text = compose(), (DEPLOY / "compose.yaml").read_text()
    assert not re.findall(r"\$\{", text), "a variable of whoever starts it would be in `docker inspect`"
    for name, service in found["services"].items():
        for variable, value in service.get("environment", {}).items():
            secret = re.search("PASSWORD|TOKEN|KEY|SECRET", variable)
            assert not secret or str(value).startswith("/run/secrets/"), f"{name}: {variable}"
            assert not secret or Path(value).name in service["secrets"], f"{name}: {variable}"
    assert {Path(one["file"]).name for one in found["secrets"].values()} == set(found["secrets"])
    assert (DEPLOY / "secrets" / ".gitignore").read_text().startswith("*\n"), "git would take them"
    assert (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()[1] == "*", (
        "the build would see them"
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
    command = (program, "compose", "--file", DEPLOY / "compose.yaml", "config", "--quiet")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_prometheus_reads_its_configuration(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "prometheus")
    command = (tool("promtool"), "check", "config", tmp_path / "prometheus" / "prometheus.yml")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr
