"""The page of failures promises nothing that no test proves: each row names its tests, and they exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from planted import Project
from tools.notebooks import ROOT, Notebook, notebooks

PAGE = "design/23_when_it_fails.ipynb"
COLUMNS = ["what can fail", "what the engine does", "what you see", "what you do", "proof"]
NOTE = re.compile(r"\[\^(\w+)\]")
PROOF = re.compile(r"`(tests/test_\w+\.py)::(\w+)`")
# What the page must speak of, by a word of its first column.
FAILURES = (
    "killed", "power", "middle of a stop", "database is gone", "commit is done", "answer to an order", "refused",
    "stream", "exchange is down", "clock", "twice", "paused", "last look at the clock", "second start", "damaged",
    "wrong database", "program in the database", "restored", "does not know", "machine is gone",
)  # fmt: skip


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of the tests in a file, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(
        node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")
    )


def lines(page: Notebook) -> list[str]:
    """Return the lines of the page's text."""
    return [line for cell in page.cells if cell.kind == "markdown" for line in cell.text.splitlines()]


def table(page: Notebook) -> list[list[str]]:
    """Return the rows of the table of failures, without its head."""
    found = [line.strip().strip("|") for line in lines(page) if line.startswith("|")]
    cells = [[one.strip() for one in line.split(" | ")] for line in found]
    assert cells and cells[0] == COLUMNS, "the table of failures is not there"
    return cells[2:]


def unproven(page: Notebook, root: Path = ROOT) -> list[str]:
    """Return what the page promises without a test, in words."""
    problems, used = [], set()
    notes = {match[1]: line for line in lines(page) if (match := NOTE.match(line))}
    for row in table(page):
        name, note = row[0], NOTE.fullmatch(row[-1])
        if len(row) != len(COLUMNS) or not all(row):
            problems.append(f"{name}: {len(row)} cells, or an empty one")
            continue
        if note is None or note[1] not in notes:
            problems.append(f"{name}: {row[-1]} leads to no proof")
            continue
        used.add(note[1])
        said = notes[note[1]]
        proofs = PROOF.findall(said)
        if not proofs or re.sub(r"[\s,]", "", PROOF.sub("", said)) != f"[^{note[1]}]:":
            problems.append(f"{name}: what its note says is no test")
        for file, test in proofs:
            path = root / file
            if not path.is_file() or test not in names_in(path):
                problems.append(f"{name}: there is no {file}::{test}")
    return problems + [f"the note {note} belongs to no row" for note in sorted(set(notes) - used)]


def page(root: Path = ROOT) -> Notebook:
    """Return the page."""
    return next(nb for nb in notebooks(root) if nb.name == PAGE)


def test_every_promise_has_its_proof() -> None:
    assert unproven(page()) == []


def test_no_failure_is_left_out() -> None:
    first = [row[0].lower() for row in table(page())]
    assert [failure for failure in FAILURES if not any(failure in name for name in first)] == []


HEAD = "| " + " | ".join(COLUMNS) + " |\n|---|---|---|---|---|\n"


@pytest.mark.parametrize(
    ("row", "note", "says"),
    [
        ("| a | b | c | d | [^x] |", "`tests/test_there.py::test_it`", []),
        ("| a | b | c | d | [^x] |", "`tests/test_there.py::test_gone`", ["there is no tests/test_there.py::test_gone"]),
        ("| a | b | c | d | [^x] |", "`tests/test_gone.py::test_it`", ["there is no tests/test_gone.py::test_it"]),
        ("| a | b | c | d | [^x] |", "`tests/test_there.py::helper`", ["there is no tests/test_there.py::helper"]),
        ("| a | b | c | d | [^x] |", "tried by hand", ["what its note says is no test"]),
        ("| a | b | c | d | [^x] |", "`tests/test_there.py::test_it`, by hand", ["what its note says is no test"]),
        ("| a | b | c | d | [^y] |", "`tests/test_there.py::test_it`", ["[^y] leads to no proof", "unused"]),
        ("| a | b | c | d | sure |", "`tests/test_there.py::test_it`", ["sure leads to no proof", "unused"]),
        ("| a | b | c | [^x] |", "`tests/test_there.py::test_it`", ["4 cells, or an empty one", "unused"]),
    ],
)  # fmt: skip
def test_a_promise_without_proof_is_noticed(project: Project, row: str, note: str, says: list[str]) -> None:
    project.write("tests/test_there.py", "def test_it(): ...\n\n\ndef helper(): ...\n")
    project.notebook(PAGE, "md:# When it fails", f"md:{HEAD}{row}", f"md:[^x]: {note}")
    expected = ["the note x belongs to no row" if said == "unused" else f"a: {said}" for said in says]
    assert unproven(page(project.root), project.root) == expected
