"""The page of results shows what a program wrote, and says where the code has changed since."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planted import Project
from tools import results
from tools.notebooks import ROOT

CHANGED = "The code has changed since"


@pytest.fixture
def measured(tmp_path: Path) -> Project:
    """A checkout with one module and one result."""
    project = Project(tmp_path)
    project.write("gridmm/double.py", "def double(x):\n    return 2 * x\n")
    project.write("gridmm/_modidx.py", "d = {}\n")
    counts = {"kills": 1_234, "by_moment": {"stop": 5}, "failed": [], "complete": True}
    results.write("crash_test", "Killed | often.", "make crash-test N=500", counts, root=tmp_path)
    return project


def test_the_page_shows_what_was_counted(measured: Project) -> None:
    page = results.page(measured.root)
    assert "## Crash test\n\nKilled | often.\n" in page
    for row in ("kills | 1,234", "by moment: stop | 5", "failed | none", "complete | yes"):
        assert f"\n| {row} |\n" in page
    assert "| Command | `make crash-test N=500` |" in page
    assert CHANGED not in page


def test_a_change_of_the_code_is_said(measured: Project) -> None:
    measured.write("gridmm/_modidx.py", "d = {1: 2}\n")
    assert CHANGED not in results.page(measured.root), "an index of the code is not the code"
    measured.write("gridmm/double.py", "def double(x):\n    return 3 * x\n")
    assert CHANGED in results.page(measured.root)


def test_a_new_and_a_renamed_module_are_changes(measured: Project) -> None:
    before = results.code_hash(measured.root)
    added = measured.write("gridmm/v1/thing.py", "")
    assert results.code_hash(measured.root) != before
    added.unlink()
    (measured.root / "gridmm" / "double.py").rename(measured.root / "gridmm" / "twice.py")
    assert results.code_hash(measured.root) != before


@pytest.mark.parametrize("name", ["about", "command", "commit", "date", "machine", "code", "counts"])
def test_a_file_written_by_hand_is_refused(measured: Project, name: str) -> None:
    path = measured.root / "results" / "crash_test.json"
    kept = json.loads(path.read_text())
    del kept[name]
    path.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=rf"results/crash_test.json has no `{name}`.*make target"):
        results.page(measured.root)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_file_that_is_no_result_is_refused(measured: Project, text: str) -> None:
    measured.write("results/other.json", text)
    with pytest.raises(ValueError, match=r"results/other.json"):
        results.page(measured.root)


def test_the_results_of_this_checkout_can_be_shown() -> None:
    page = results.page(ROOT)
    assert page.count("\n## ") == len(list((ROOT / "results").glob("*.json")))
