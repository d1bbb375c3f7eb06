"""What several test files share: a planted project, and notes that the run prints at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import localcontext
from pathlib import Path
from typing import Any

import pytest

from balance import Balanced
from compiled_code import link
from planted import Project, sample
from postgres import database, postgres, postgres_for_all  # noqa: F401  fixtures for every test file
from tools.notebooks import PACKAGE, ROOT

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


def pytest_configure(config: pytest.Config) -> None:
    """Use what a checkout with the same source has compiled, before workers start and each compiles it."""
    if not hasattr(config, "workerinput"):
        link(ROOT / PACKAGE)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Balanced | None:
    """Take our own scheduler in place of `--dist loadfile`."""
    return Balanced(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def own_arithmetic() -> Iterator[None]:
    """Give each test a decimal context of its own: ccxt, where a test uses it bare, changes the one that it finds."""
    with localcontext():
        yield


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Write down a text for the end of the run (it crosses from a worker to the terminal)."""
    return lambda text: record_property(NOTE, text)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project that keeps every promise, built by the real tools."""
    return sample(tmp_path)
