"""What several test files share: a planted project, and notes that the run prints at its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planted import Project, result
from postgres import database, postgres, postgres_for_all  # noqa: F401  fixtures for every test file
from tools.notebooks import ROOT

NOTE = "note"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests wrote down with `note`: numbers that a person should see on every run."""
    notes = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for key, value in getattr(report, "user_properties", ())
        if key == NOTE and getattr(report, "when", "") == "call"
    ]
    for text in notes:
        terminalreporter.ensure_newline()
        terminalreporter.write_line(text)


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Write down a text for the end of the run (it crosses from a worker to the terminal)."""
    return lambda text: record_property(NOTE, text)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project that keeps every promise, built by the real tools."""
    for name in ("settings.ini", "pyproject.toml", "mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "docs" / "style", tmp_path / "docs" / "style")
    shutil.copytree(ROOT / "docs" / "script", tmp_path / "docs" / "script")
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    made = Project(tmp_path)
    made.write("gridmm/__init__.py", '__version__ = "0.1.0"\n')
    made.write("CHANGELOG.md", "# Changes\n")
    made.notebook("index.ipynb", "md:# Sample\n> A sample", "md:See [double](design/12_double.ipynb#use).")
    made.write("README.md", "# Sample\n> A sample\n\nSee [double](nbs/design/12_double.ipynb#use).\n")
    made.notebook(
        "design/12_double.ipynb",
        "#| default_exp double",
        "md:# Double\n> Twice as much",
        "md:## Use",
        '#| export\ndef double(x: int) -> int:\n    """Return twice `x`."""\n    return 2 * x',
        "md:Twice *two* is four:",
        ("double(2)", result("4")),
        "#| hide\nsecret = 1",
    )
    for name in ("nbs/conftest.py", "nbs/sanitize.cfg"):
        shutil.copy(ROOT / name, tmp_path / name)
    return made
