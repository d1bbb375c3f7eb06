"""The wheel runs a grid from the run-time lock alone, outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import nbclient
import pytest

from compiled_code import link
from gridmm.kernel_cache import mark_of
from tools.notebooks import PACKAGE, ROOT

DEVELOPMENT_ONLY = ("jupyter_core", "IPython", "nbdev", "mkdocs", "pytest", "plotly", "grpc_tools")
EXPECTED = {
    "open_orders",
    "realized_pnl",
    "unrealized_pnl",
    "inventory_skew",
    "active_slots",
    "pnl",
    "checksum",
}


def run(*command: str | Path, cwd: Path, timeout_s: int = 600, expected: int = 0, **more: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | more
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        timeout=timeout_s,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, f"{command} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout if expected == 0 else done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Build the wheel from what would be committed and install it where nothing else is."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "gridmm", source / "gridmm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "nbs" / "operations", source / "nbs" / "operations")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=source)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    install = (*pip, "install", "--quiet", "--no-compile")  # most of what bytecode is made for is never run
    run(*install, "--require-hashes", "--requirement", ROOT / "requirements.lock", cwd=folder)
    run(*install, "--no-deps", wheel, cwd=folder)
    run(*pip, "check", cwd=folder)
    (package,) = (folder / "venv").glob(f"lib/*/site-packages/{PACKAGE}")
    linked = link(package)
    yield python
    if linked:
        linked.unlink()
        mark_of(package).unlink(missing_ok=True)


@pytest.mark.timeout(1200)
def test_a_grid_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    out = run(installed, "-m", "gridmm", "run", "--duration", "5", "--json", cwd=tmp_path)
    receipt = json.loads(out.strip().splitlines()[-1])
    assert receipt.keys() >= EXPECTED


def test_the_console_script_is_the_module(installed: Path, tmp_path: Path) -> None:
    by_name = run(installed.parent / "gridmm", "--help", cwd=tmp_path)
    by_module = run(installed, "-m", "gridmm", "--help", cwd=tmp_path)
    assert by_name.splitlines()[1:] == by_module.splitlines()[1:]


def test_nothing_of_development_is_installed(installed: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    assert run(installed, "-c", code, *DEVELOPMENT_ONLY, cwd=tmp_path).strip() == "[]"
    code = "import gridmm, pathlib; print(pathlib.Path(gridmm.__file__).with_name('py.typed').exists())"
    assert run(installed, "-c", code, cwd=tmp_path).strip() == "True"


def test_the_page_of_the_monitor_is_installed(installed: Path, tmp_path: Path) -> None:
    code = (
        "from gridmm.monitor import Monitor; from gridmm.monitor_server import serving; from urllib.request import urlopen\n"
        "with serving(Monitor(), '127.0.0.1:0', {}) as address:\n"
        "    print(all(urlopen(f'{address}/{name}').read() for name in ('', 'page.js', 'page.css')))"
    )
    assert run(installed, "-c", code, cwd=tmp_path).strip() == "True"


def test_the_wheel_carries_the_runbooks_and_says_what_runs_them(installed: Path, tmp_path: Path) -> None:
    assert "stuck_slots" in run(installed, "-m", "gridmm", "runbook", "--list", cwd=tmp_path)
    said = run(installed, "-m", "gridmm", "runbook", "stuck_slots", cwd=tmp_path, expected=2)
    assert said.count("\n") == 1 and "pip install 'gridmm[ops]'" in said


def test_a_runbook_runs_from_the_wheel_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """What the extra names is lent by the environment that runs this; the package is the wheel's."""
    extra = str(Path(nbclient.__file__).parent.parent)
    where = "import gridmm; print(gridmm.__file__)"
    assert run(installed, "-c", where, cwd=tmp_path, PYTHONPATH=extra).startswith(
        str(installed.parent.parent)
    )
    out = run(installed, "-m", "gridmm", "runbook", "stuck_slots", cwd=tmp_path, PYTHONPATH=extra)
    assert "outcome: done and verified" in out
    (record,) = tmp_path.glob("gridmm-incidents/*-stuck_slots.ipynb")
    assert record.stat().st_mode & 0o777 == 0o600
