"""Every supported Python decides alike: the probe prints the same on each.

`determinism_probe.py` runs the core on fixed input and prints what it decided. Each other Python gets
an environment from the run-time lock, kept in `.cache/` until the lock changes. There it runs without the
compiler, which takes two seconds where a compilation takes a minute, and is held against the compiled run here;
a few small functions show that the compiler of that Python works. `make pythons` compiles everything on each.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.notebooks import ROOT

SUPPORTED = ("3.11", "3.12", "3.13")
RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"
PROBE = Path(__file__).with_name("determinism_probe.py")
COMPILED = """
from gridmm.center import integer_sqrt, skew_levels
from worlds import parameters
par = parameters(60_000, 4, SKEW_PPM=700_000, MAX_LOTS=40)
print([integer_sqrt(7 * n * n) for n in range(1, 9_000, 7)])
print([skew_levels(par, lots, levels) for lots in range(-60, 61) for levels in (1, 8, 9)])
assert integer_sqrt.signatures and skew_levels.signatures, "nothing was compiled"
"""


def find(version: str) -> Path | None:
    """Return an interpreter that really runs: a pyenv shim exists even where its version does not."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    for candidate in filter(None, candidates):
        command = [str(candidate), "-c", "import ensurepip, sys, venv; print(sys.executable)"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return Path(done.stdout.strip())
    return None


def environment(python: Path, version: str) -> Path:
    """Return a Python with the run-time lock installed, made once for each content of the lock."""
    lock = ROOT / "requirements.lock"
    key = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".cache" / "pythons" / f"{version}-{key}"
    ready = folder / "ready"
    inside = folder / "bin" / "python"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
        pip: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--python",
            inside,
        ]
        install = [*pip, "install", "--quiet", "--no-compile", "--require-hashes"]
        subprocess.run([*install, "--requirement", lock], check=True)
        ready.touch()
    return inside


def probe(python: Path, *words: str | Path, compiler: bool = True) -> str:
    """Return what the probe or another program prints; it imports the checkout, not an installed copy."""
    path = os.pathsep.join((str(ROOT), str(PROBE.parent)))
    settings = {**os.environ, "PYTHONPATH": path, "NUMBA_DISABLE_JIT": str(int(not compiler))}
    command = [python, *(words or (PROBE,))]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", [v for v in SUPPORTED if v != RUNNING])
def test_the_probe_prints_the_same(version: str, note: Callable[[str], None]) -> None:
    assert PROBE.exists(), f"{PROBE.name} is gone: nothing compares the Pythons"
    python = find(version)
    if python is None:
        pytest.skip(f"no Python {version} with venv on this machine: install it to compare it with {RUNNING}")
    expected = probe(Path(sys.executable))
    assert expected.strip(), f"{PROBE.name} printed nothing"
    inside = environment(python, version)
    assert probe(inside, compiler=False) == expected
    assert probe(inside, "-c", COMPILED) == probe(Path(sys.executable), "-c", COMPILED)
    note(f"Python {RUNNING} and {version} decide alike ({python})")
