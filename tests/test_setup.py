"""`tools/setup.sh` says first which Debian package is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.notebooks import ROOT

TOO_OLD = """#!/bin/sh
case $1 in
--version) echo "Python 3.9.2" ;;
*) exit 1 ;;
esac
"""

NO_VENV = """#!/bin/sh
case "$2" in
*ensurepip*) exit 1 ;;
*) exit 0 ;;
esac
"""


def setup(folder: Path, python: str, path: str | None = None) -> str:
    """Run the set-up of a checkout that holds nothing else and return the first line it says."""
    (folder / "tools").mkdir(exist_ok=True)
    shutil.copy(ROOT / "tools" / "setup.sh", folder / "tools" / "setup.sh")
    environment = {**os.environ, "PYTHON": python, "PATH": path or os.environ["PATH"]}
    command = ["/bin/sh", str(folder / "tools" / "setup.sh"), "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    return (done.stdout + done.stderr).splitlines()[0]


def planted(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    first = setup(tmp_path, planted(tmp_path, "python3.9", TOO_OLD))
    assert "Python 3.9.2" in first and "install the Debian package python3 " in first


def test_a_python_without_venv(tmp_path: Path) -> None:
    first = setup(tmp_path, planted(tmp_path, "python3", NO_VENV))
    assert "install the Debian package python3-venv" in first


@pytest.mark.parametrize("python", ["", "python3.99"])
def test_no_python_at_all(tmp_path: Path, python: str) -> None:
    for name in ("sh", "dirname", "cat"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    first = setup(tmp_path, python, path=str(tmp_path))
    assert "install the Debian package python3 " in first


def test_no_git(tmp_path: Path) -> None:
    for name in ("sh", "dirname", "cat"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    first = setup(tmp_path, planted(tmp_path, "python3", NO_VENV), path=str(tmp_path))
    assert "install the Debian package git" in first
