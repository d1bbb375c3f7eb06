"""Every error says what, why and what to do on one line, and its exit code says who must act."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmm import errors
from gridmm.errors import ConfigError, Exit, GridmmError, Problem, tree


def classes(root: type[GridmmError] = GridmmError) -> list[type[GridmmError]]:
    """Return `root` and every class below it that the module itself defines."""
    below = [cls for child in root.__subclasses__() for cls in classes(child)]
    return [root, *below] if root.__module__ == errors.__name__ else below


def test_exit_codes_are_what_the_documentation_promises() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "FINISHED": 0,
        "USAGE": 2,
        "REFUSED": 3,
        "LEFT": 4,
        "UNKNOWN": 5,
        "UNREACHABLE": 6,
        "INTERRUPTED": 130,
    }


def test_the_picture_in_the_docstring_is_the_tree() -> None:
    drawn = []
    for line in (GridmmError.__doc__ or "").splitlines():
        if match := re.fullmatch(r"\s{4}([│├└─ ]*)(\w+)(?:\s+(\d+)\s\s.*)?", line):
            prefix, name, code = match.groups()
            if name.endswith("Error") or code:
                drawn.append((len(prefix) // 4, name, int(code or GridmmError.exit_code)))
    ours = {cls.__name__ for cls in classes()}
    assert drawn == [row for row in tree() if row[1] in ours]


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_an_error_isone_line_with_three_parts(cls: type[GridmmError]) -> None:
    error = cls("grid_size = 0", "nothing would open", "Set it to at least 1", where="gridmm.toml:3")
    assert str(error) == "gridmm.toml:3: grid_size = 0: nothing would open. Set it to at least 1."
    assert (error.problem.what, error.problem.why) == ("grid_size = 0", "nothing would open")


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_an_error_survives_a_process_border(cls: type[GridmmError]) -> None:
    error = cls("a", "b", "c", where="d")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls and again.problem == error.problem and again.exit_code == error.exit_code


def test_a_config_error_holds_all_problems_and_prints_one_a_line() -> None:
    problems = [Problem(f"key_{i}", "unknown", "Remove it") for i in range(5)]
    error = ConfigError.of(problems)
    assert error.problems == tuple(problems)
    assert str(error).splitlines() == [str(problem) for problem in problems]


@given(st.lists(st.text(), min_size=4, max_size=4))
def test_nothing_in_a_problem_breaks_the_line_or_drives_the_terminal(parts: list[str]) -> None:
    text = str(Problem(*parts))
    assert len(text.splitlines()) == 1
    assert text.isprintable()
