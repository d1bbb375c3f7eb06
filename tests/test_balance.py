"""Slow tests begin first, none waits behind another, and what shares a fixture stays together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import balance
from tools.notebooks import ROOT


class Worker:
    """A worker that notes what it is given."""

    shutting_down = False

    def __init__(self, name: str, tests: list[str]) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.tests = tests
        self.given: list[str] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        """Take tests by their places in the collection."""
        self.given += [self.tests[index] for index in indices]

    def shutdown(self) -> None:
        """Take no more."""
        self.shutting_down = True


def begun(tests: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Worker, Worker]:
    """Return a scheduler that has begun with two workers."""
    monkeypatch.setattr(balance, "SPLIT", ("slow.py",))
    monkeypatch.setattr(balance, "SECONDS", {"slow.py::a": 90, "slow.py::b": 60, "slow.py::c": 30})
    config: Any = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=True, maxprocesses=None), getvalue=lambda name: ["2*popen"]
    )
    scheduler = balance.Balanced(config)
    workers = Worker("one", tests), Worker("two", tests)
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, tests)
    scheduler.schedule()
    return scheduler, *workers


TESTS = ["file.py::x", "file.py::y", "slow.py::a", "slow.py::b", "slow.py::c", "one.py::x", "two.py::x"]


def test_the_slowest_begin_and_none_waits_behind_another(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, one, two = begun(TESTS, monkeypatch)
    assert (one.given[0], two.given[0]) == ("slow.py::a", "slow.py::b")
    assert not {"slow.py::a", "slow.py::b", "slow.py::c"} & {*one.given[1:], *two.given[1:]}
    scheduler.mark_test_complete(two, TESTS.index("slow.py::b"))
    assert two.given[-1] == "slow.py::c"


def test_every_test_runs_once_and_a_file_on_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, one, two = begun(TESTS, monkeypatch)
    done: set[tuple[str, str]] = set()
    while scheduler.has_pending:
        for worker in (one, two):
            for test in worker.given:
                if (worker.gateway.id, test) not in done:
                    done.add((worker.gateway.id, test))
                    scheduler.mark_test_complete(worker, TESTS.index(test))
    assert sorted(one.given + two.given) == sorted(TESTS)
    assert len({"file.py::x", "file.py::y"} & set(one.given)) in (0, 2)


def test_what_is_named_is_there() -> None:
    """A test that is renamed would silently come last."""
    for unit in (*balance.SPLIT, *balance.SECONDS):
        file, _, test = unit.partition("::")
        path = ROOT / file
        assert path.exists(), unit
        assert (test != "") == (file in balance.SPLIT and unit not in balance.SPLIT), unit
        assert test.partition("[")[0] in path.read_text(encoding="utf-8"), unit
