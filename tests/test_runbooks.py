"""Every runbook names a planted fault, mends it, notices when it did not, and touches nothing without the phrase."""

from __future__ import annotations

import ast
import hashlib
import importlib
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest

from gridmm import stuck_slots
from gridmm.case import Case
from gridmm.cli import run_command
from gridmm.cli_runbook import listed, pages, without_password
from gridmm.commands import Request
from gridmm.drill import TICKS, Drill
from gridmm.runbooks import FALSE_ALARM, LEFT, MENDED, RUNBOOKS, Diagnosis, Plan, outcome
from gridmm.tables import held
from tools.notebooks import notebooks

SETTLE_S = 70
CELL_TICKS = 1_200  # about one level of a drill's grid


class Fault(NamedTuple):
    """A trouble that a runbook is for."""

    runbook: str
    plant: Callable[[], Drill]
    cause: str
    mends: bool = True  # whether the grid can do it, or a person has to

    def __str__(self) -> str:
        return f"{self.runbook}: {self.cause}"


def module(name: str) -> Any:
    """Return a runbook's module."""
    return importlib.import_module(f"gridmm.{name}")


# -- faults of stuck_slots


def never_arrived() -> Drill:
    drill = Drill(execution__query_after="1 h")
    drill.exchange.loses_placements = True
    drill.price(TICKS - CELL_TICKS - 200)
    drill.exchange.loses_placements = False
    drill.go_on(60)
    return drill


def answer_lost() -> Drill:
    drill = Drill(execution__query_after="1 h")
    drill.exchange.loses_answers = True
    drill.price(TICKS - CELL_TICKS - 200)
    drill.exchange.loses_answers = False
    drill.go_on(60)
    return drill


def forgotten() -> Drill:
    drill = Drill()
    first = drill.loop(drill.exchange.open_orders())[0]
    drill.exchange.unheard.add(first.client_id)
    drill.cancel(first.client_id)
    drill.exchange.forgets.add(first.client_id)
    return drill


def orphan() -> Drill:
    drill = Drill()
    drill.order_of_another_start(-9, "58000", "0.005", 10_001)
    return drill


def orphan_taken_in() -> Drill:
    drill = orphan()
    drill.kill()
    drill.start()
    drill.go_on(2)
    return drill


def nobody() -> Drill:
    drill = Drill()
    drill.kill()
    return drill


def deaf() -> Drill:
    drill = Drill()
    drill.exchange.down = True
    drill.go_on(5)
    return drill


FAULTS = (
    Fault("stuck_slots", never_arrived, "an order never arrived"),
    Fault("stuck_slots", stuck_slots.planted, "an end was missed"),
    Fault("stuck_slots", forgotten, "an order was forgotten"),
    Fault("stuck_slots", orphan_taken_in, "an alarm was left behind"),
    Fault("stuck_slots", answer_lost, "an answer was lost", mends=False),
    Fault("stuck_slots", orphan, "an orphan", mends=False),
    Fault("stuck_slots", nobody, "nobody runs the grid", mends=False),
    Fault("stuck_slots", deaf, "the exchange does not answer", mends=False),
)
NAMES = sorted({fault.runbook for fault in FAULTS})


@contextmanager
def on(drill: Drill) -> Iterator[Case]:
    """Open a drill's case, and close both."""
    case = drill.case()
    try:
        yield case
    finally:
        case.close()


def everything(drill: Drill) -> dict[str, str]:
    """Return a hash of each file of a drill, and of what the files say."""
    found = {}
    for path in sorted(drill.db.parent.iterdir()):
        if path.is_file() and not path.name.endswith("-shm"):
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.suffix in (".sqlite", ".paper"):
            with closing(sqlite3.connect(path)) as database:
                found[f"rows of {path.name}"] = "\n".join(database.iterdump())
    return found


def named(fault: Fault, case: Case) -> Diagnosis:
    """Return a diagnosis that names the fault among at least three causes."""
    diagnosis: Diagnosis = module(fault.runbook).diagnose(case, SETTLE_S)
    assert diagnosis.cause == fault.cause, diagnosis
    assert len(diagnosis.findings) >= 3
    return diagnosis


@pytest.mark.parametrize("fault", [one for one in FAULTS if one.mends], ids=str)
def test_a_planted_fault_is_named_and_mended(fault: Fault) -> None:
    with on(fault.plant()) as case:
        diagnosis = named(fault, case)
        plan: Plan = module(fault.runbook).plan(case, diagnosis)
        plan.apply(plan.title)
        assert plan.acted and not plan.failed
        left = module(fault.runbook).verify(case, SETTLE_S)
        assert left == []
        assert outcome(diagnosis, plan, left) == MENDED
        again: Diagnosis = module(fault.runbook).diagnose(case, SETTLE_S)
        assert again.false_alarm, again


@pytest.mark.parametrize("fault", [one for one in FAULTS if not one.mends], ids=str)
def test_what_only_a_person_can_do_is_said(fault: Fault) -> None:
    with on(fault.plant()) as case:
        diagnosis = named(fault, case)
        plan: Plan = module(fault.runbook).plan(case, diagnosis)
        assert any(step.do is None for step in plan.steps), plan.steps


@pytest.mark.parametrize("fault", [one for one in FAULTS if one.mends], ids=str)
def test_verify_fails_when_act_is_disabled(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsent(case: Case, id: str, kind: str, argument: str, why: str) -> Request:
        return Request("x", case.grid, "pause", "", "x", "x", 0, 1, "done", "only said", 1)

    monkeypatch.setattr(Case, "send", unsent)
    with on(fault.plant()) as case:
        diagnosis = named(fault, case)
        plan: Plan = module(fault.runbook).plan(case, diagnosis)
        plan.apply(plan.title)
        left = module(fault.runbook).verify(case, SETTLE_S)
        assert left, "nothing was done, and nothing is wrong?"
        assert outcome(diagnosis, plan, left) == LEFT


@pytest.mark.parametrize("name", NAMES)
def test_a_healthy_grid_is_a_false_alarm_and_stays_as_it_is(name: str) -> None:
    drill = Drill()
    drill.go_on(2)
    with on(drill) as case:
        case.pause = lambda seconds: None  # the world stands still: every change is the runbook's
        before = everything(drill)
        diagnosis: Diagnosis = module(name).diagnose(case, SETTLE_S)
        assert diagnosis.false_alarm, diagnosis
        assert diagnosis.verdict.startswith(FALSE_ALARM)
        plan: Plan = module(name).plan(case, diagnosis)
        plan.apply(plan.title)
        assert not plan.acted
        assert everything(drill) == before


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_without_the_phrase_nothing_changes(fault: Fault) -> None:
    drill = fault.plant()
    with on(drill) as case:
        case.pause = lambda seconds: None
        before = everything(drill)
        diagnosis: Diagnosis = module(fault.runbook).diagnose(case, SETTLE_S)
        plan: Plan = module(fault.runbook).plan(case, diagnosis)
        for phrase in ("", "yes", plan.title.upper(), plan.title + " "):
            plan.apply(phrase)
        module(fault.runbook).verify(case, SETTLE_S)
        assert not plan.acted
        assert everything(drill) == before


@contextmanager
def alive(drill: Drill) -> Iterator[None]:
    """Let a drill run as a process of its own would: it holds its file, and its time goes on by itself."""
    over = threading.Event()

    def play() -> None:
        while not over.is_set():
            drill.go_on(1)
            over.wait(0.02)

    thread = threading.Thread(target=play)
    with held(drill.db):
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


FIRST = {fault.runbook: fault for fault in reversed(FAULTS) if fault.mends}


@pytest.mark.parametrize("fault", FIRST.values(), ids=str)
def test_the_command_looks_plans_acts_and_keeps_records(
    fault: Fault, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drill = fault.plant()
    line = ["runbook", fault.runbook, "--db", str(drill.db), "--set", "settle_s=1", "--out", str(tmp_path)]
    try:
        before = everything(drill)
        with held(drill.db):
            assert run_command(line) == 3
        said = capfd.readouterr().out
        assert f"cause: {fault.cause}" in said and "outcome: nothing was done" in said
        after = everything(drill)
        assert {name: after[name] for name in before} == before
        assert after.keys() - before.keys() == {"gridmm.sqlite.lock"}, "which is the test's own"
        found = re.search(r'nothing done: to act, confirm="(.*)"', said)
        assert found is not None
        with alive(drill):
            assert run_command([*line, "--apply", "--confirm", found[1]]) == 0, capfd.readouterr().out
            assert "outcome: done and verified" in capfd.readouterr().out
            assert run_command(line) == 0
            assert "outcome: false alarm" in capfd.readouterr().out
    finally:
        drill.case().close()
    records = sorted(tmp_path.glob("*.ipynb"))
    assert len(records) == 3
    for path in records:
        assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-{fault.runbook}(-\d)?\.ipynb", path.name)
        assert path.stat().st_mode & 0o777 == 0o600
        book = nbformat.read(path, as_version=4)
        assert any("injected-parameters" in cell.metadata.get("tags", ()) for cell in book.cells)
    assert (tmp_path / ".gitignore").read_text() == "*\n"


def test_the_command_ends_with_the_code_of_what_went_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        run_command(["runbook", "stuck_slots", "--db", str(tmp_path / "no.sqlite"), "--out", str(tmp_path)])
        == 2
    )
    assert "there is no such database" in capfd.readouterr().err
    assert len(list(tmp_path.glob("*-stuck_slots.ipynb"))) == 1, "what failed is a record too"
    assert not (tmp_path / "no.sqlite").exists()


@pytest.mark.parametrize(
    "url", ["bot:planted-secret@127.0.0.1:9/g", "bot@127.0.0.1:9/g?password=planted-secret"]
)
def test_a_password_is_not_kept(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url = f"postgresql://{url}"
    assert without_password(url) == ("postgresql://bot@127.0.0.1:9/g", {"PGPASSWORD": "planted-secret"})
    assert run_command(["runbook", "stuck_slots", "--db", url, "--out", str(tmp_path)]) == 6
    (record,) = tmp_path.glob("*.ipynb")
    told = capfd.readouterr()
    assert "planted-secret" not in record.read_text() + told.out + told.err
    assert "bot@127.0.0.1:9" in record.read_text()


# -- the pages


def runbook_pages() -> dict[str, Any]:
    return {nb.slug: nb for nb in notebooks() if nb.slug in pages()}


SECTIONS = ("**Symptom.**", "**Meaning.**", "**Impact.**", "**Never**")
HEADINGS = ("## Diagnose", "## Act", "## Verify", "## Escalate", "## Afterwards")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_every_part_in_order(name: str) -> None:
    nb = runbook_pages()[name]
    assert nb.module == name
    text = "\n".join(cell.text for cell in nb.cells if cell.kind == "markdown")
    places = [text.index(part) for part in (*SECTIONS, *HEADINGS)]
    assert places == sorted(places)
    exported = {
        node.name
        for cell in nb.code_cells
        if cell.exports
        for node in ast.walk(cell.tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert {"diagnose", "plan", "verify"} <= exported


def test_every_alert_has_its_runbook_and_every_runbook_its_alerts() -> None:
    of = {name: module(name).ALERTS for name in NAMES}
    assert {alert: name for name, alerts in of.items() for alert in alerts} == {
        alert: name for alert, (_, name) in RUNBOOKS.items() if name in of
    }
    (page,) = [nb for nb in notebooks() if nb.slug == "runbooks"]
    rows = re.findall(
        r"^\| (Gridmm\w+) \| (.+?) \| \[.*?\]\(\d+_(\w+)\.ipynb\) \|$", page.cells[4].text, re.M
    )
    assert {alert: (meaning, name) for alert, meaning, name in rows} == RUNBOOKS
    assert all(len(meaning.split()) == 5 for meaning, _ in RUNBOOKS.values())
    assert set(pages()) == set(NAMES)
    assert all(name in listed() for name in NAMES)
