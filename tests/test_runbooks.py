"""Every runbook names a planted fault, mends it, notices when it did not, and touches nothing without the phrase."""

from __future__ import annotations

import ast
import hashlib
import importlib
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from sqlalchemy import make_url

from gridmm import (
    bad_fills,
    database_down,
    exchange_down,
    graceful_shutdown,
    mismatch,
    restore,
    risk_mode,
    rotate_keys,
    stuck_slots,
    upgrade,
)
from gridmm.backup import take
from gridmm.case import Case, open_case
from gridmm.cli import run_command
from gridmm.cli_runbook import listed, pages, without_password
from gridmm.commands import Mailbox, Request
from gridmm.drill import TICKS, Drill
from gridmm.errors import StoreUnreachable
from gridmm.layout import Command, empty_core
from gridmm.model import to_state
from gridmm.names import Meta
from gridmm.read_books import ReadBooks, read_address, read_only
from gridmm.runbooks import BY_HAND, FALSE_ALARM, LEFT, MENDED, RUNBOOKS, Diagnosis, Plan, outcome
from gridmm.store import SqliteStore, SqlStore
from gridmm.tables import held, open_database
from gridmm.units import Instrument
from gridmm.vocabulary import Stop
from tools.notebooks import notebooks

CELL_TICKS = 1_200  # about one level of a drill's grid


class Fault(NamedTuple):
    """A trouble that a runbook is for."""

    runbook: str
    plant: Callable[[], Drill]
    cause: str
    mends: bool = True  # whether the grid can do it, or only a person
    by_hand: bool = False  # whether something is left to a person

    def __str__(self) -> str:
        return f"{self.runbook}: {self.cause}"


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


# -- faults of risk_mode


def paused() -> Drill:
    drill = Drill()
    drill.mailbox.send(Request("p", drill.store.grid, "pause", "", "ann", "news", drill.clock_ms, 2**60))
    drill.go_on(2)
    return drill


def traded_beside() -> Drill:
    drill = Drill()
    drill.trade_by_hand(-1, "0.003")
    drill.go_on(65)
    return drill


# -- faults of graceful_shutdown


def killed_in_a_stop() -> Drill:
    drill = Drill()
    drill.loop(drill.engine.on_command(Command.STOP, Stop.CANCEL, 0, drill.clock_ms))
    drill.kill()
    return drill


def stop_that_waits() -> Drill:
    drill = Drill()
    drill.kill()
    drill.mailbox.send(Request("s", drill.store.grid, "stop", "cancel", "ann", "x", drill.clock_ms, 2**60))
    return drill


def orders_after_the_end() -> Drill:
    drill = Drill()
    drill.stop()
    drill.order_of_another_start(-9, "58000", "0.005", 10_001)
    return drill


# -- faults of exchange_down


def back_again() -> Drill:
    drill = exchange_down.planted()
    case = drill.case()
    plan = exchange_down.plan(case, exchange_down.diagnose(case))
    plan.apply(plan.title)
    drill.exchange.down = False
    drill.go_on(700)
    return drill


# -- faults of database_down and restore


def file_gone() -> Drill:
    drill = Drill()
    drill.kill()
    drill.store.close()
    drill.db.rename(drill.db.with_name("elsewhere"))
    return drill


def file_locked() -> Drill:
    drill = Drill()
    connection = sqlite3.connect(drill.db, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    drill.exchange.holds = connection  # type: ignore[attr-defined]
    return drill


def seal_broken() -> Drill:
    drill = Drill()
    drill.kill()
    with closing(sqlite3.connect(drill.db)) as database:
        database.execute("VACUUM INTO ?", (str(drill.db.with_name("copy.sqlite")),))
        (state,) = database.execute("SELECT state FROM gridmm_grids").fetchone()
        database.execute(
            "UPDATE gridmm_grids SET state = ?", (state[:50] + bytes([state[50] ^ 1]) + state[51:],)
        )
        database.commit()
    return drill


def file_empty() -> Drill:
    drill = file_gone()
    drill.db.touch()
    return drill


# -- faults of bad_fills


def traded(statement: str) -> Drill:
    drill = Drill()
    for ticks in (-1_300, -100, -1_300):
        drill.price(TICKS + ticks)
    drill.go_on(2)
    with closing(sqlite3.connect(drill.db)) as database:
        assert database.execute(statement).rowcount == 1
        database.commit()
    return drill


def fill_lost() -> Drill:
    return traded("DELETE FROM gridmm_fills WHERE number = 1")


def fill_changed() -> Drill:
    return traded("UPDATE gridmm_fills SET price = '1' WHERE number = 1")


# -- faults of upgrade


def owner_that_hangs() -> Drill:
    drill = Drill()
    other = SqliteStore(drill.db, drill.store.symbol)
    other.acquire("the second machine")
    other.close()
    drill.runs = False
    return drill


NEED_A_START = (
    Fault("stuck_slots", answer_lost, "an answer was lost", by_hand=True),
    Fault("stuck_slots", orphan, "an orphan", by_hand=True),
)
FAULTS = (
    Fault("stuck_slots", never_arrived, "an order never arrived"),
    Fault("stuck_slots", stuck_slots.planted, "an end was missed"),
    Fault("stuck_slots", forgotten, "an order was forgotten"),
    Fault("stuck_slots", orphan_taken_in, "an alarm was left behind"),
    Fault("stuck_slots", nobody, "nobody runs the grid", mends=False),
    Fault("stuck_slots", deaf, "the exchange does not answer", mends=False),
    Fault("risk_mode", risk_mode.planted, "DRAWDOWN"),
    Fault("risk_mode", paused, "OPERATOR"),
    Fault("risk_mode", traded_beside, "MISMATCH", mends=False),
    Fault("risk_mode", nobody, "nobody runs the grid", mends=False),
    Fault("graceful_shutdown", graceful_shutdown.planted, "the stop was not carried out"),
    Fault("graceful_shutdown", killed_in_a_stop, "it was killed in the middle", mends=False),
    Fault("graceful_shutdown", nobody, "nobody ever stopped it", mends=False),
    Fault("graceful_shutdown", stop_that_waits, "the stop still waits", mends=False),
    Fault("graceful_shutdown", orders_after_the_end, "orders are left behind", mends=False),
    Fault("graceful_shutdown", deaf, "the exchange does not answer", mends=False),
    Fault("exchange_down", exchange_down.planted, "the exchange does not answer", by_hand=True),
    Fault("exchange_down", back_again, "a pause was left behind"),
    Fault("exchange_down", nobody, "nobody runs the grid", mends=False),
    Fault("mismatch", mismatch.planted, "an alarm was left behind"),
    Fault("mismatch", stuck_slots.planted, "orders differ"),
    Fault("mismatch", traded_beside, "somebody else traded", mends=False),
    Fault("mismatch", nobody, "nobody runs the grid", mends=False),
    Fault("database_down", database_down.planted, "it may not be written"),
    Fault("database_down", file_locked, "another process locks it", mends=False),
    Fault("database_down", file_gone, "it is not there", mends=False),
    Fault("database_down", restore.planted, "it is damaged", mends=False),
    Fault("restore", restore.planted, "the file is damaged", by_hand=True),
    Fault("restore", seal_broken, "the State's seal does not fit", by_hand=True),
    Fault("restore", file_empty, "it is not there", mends=False),
    Fault("bad_fills", bad_fills.planted, "an alarm was left behind"),
    Fault("bad_fills", fill_lost, "trades were not counted", by_hand=True),
    Fault("bad_fills", fill_changed, "a trade was counted that was not made", by_hand=True),
    Fault("bad_fills", nobody, "nobody runs the grid", mends=False),
    Fault("rotate_keys", rotate_keys.planted, "orders are refused", by_hand=True),
    Fault("rotate_keys", deaf, "the exchange does not answer", mends=False),
    Fault("upgrade", upgrade.planted, "another version saved it", by_hand=True),
    Fault("upgrade", owner_that_hangs, "an owner that never saved", mends=False),
)
NAMES = sorted({fault.runbook for fault in FAULTS})


class Bound:
    """A runbook's three functions, for one drill."""

    def __init__(self, name: str, drill: Drill, case: Case | None) -> None:
        self.module, self.about = importlib.import_module(f"gridmm.{name}"), case
        copy = drill.db.with_name("copy.sqlite")
        self.more = (str(copy),) if name == "restore" and copy.exists() else ()
        self.db = str(drill.db) if name in WITHOUT_A_CASE else ""

    def diagnose(self) -> Diagnosis:
        """Diagnose."""
        found: Diagnosis = self.module.diagnose(self.db or self.about)
        return found

    def plan(self, diagnosis: Diagnosis) -> Plan:
        """Plan."""
        made: Plan = self.module.plan(self.db or self.about, diagnosis, *self.more)
        return made

    def verify(self) -> list[str]:
        """Verify."""
        left: list[str] = self.module.verify(self.db or self.about)
        return left


WITHOUT_A_CASE = ("database_down", "restore")


@contextmanager
def on(name: str, drill: Drill, frozen: bool = False) -> Iterator[Bound]:
    """Bind a runbook to a drill; where it is frozen, the world stands still and every change is the runbook's."""
    case = None if name in WITHOUT_A_CASE else drill.case()
    if case is not None and frozen:
        case.pause = lambda seconds: None
    try:
        yield Bound(name, drill, case)
    finally:
        if case is not None:
            case.close()
        else:
            drill.close()


def everything(drill: Drill) -> dict[str, str]:
    """Return a hash of each file of a drill, and of what the files say."""
    found = {}
    for path in sorted(drill.db.parent.iterdir()):
        if path.is_file() and not path.name.endswith("-shm"):
            found[path.name] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        if path.suffix in (".sqlite", ".paper") and path.stat().st_size:
            with (
                closing(sqlite3.connect(read_address(path), uri=True)) as database,
                suppress(sqlite3.Error),
            ):
                found[f"rows of {path.name}"] = "\n".join(database.iterdump())
    return found


def named(fault: Fault, page: Bound) -> Diagnosis:
    """Return a diagnosis that names the fault among at least three causes."""
    diagnosis = page.diagnose()
    assert diagnosis.cause == fault.cause, str(diagnosis)
    assert len(diagnosis.findings) >= 3
    assert str(diagnosis).endswith(f"cause: {fault.cause}")
    return diagnosis


@pytest.mark.parametrize("fault", [one for one in FAULTS if one.mends], ids=str)
def test_a_planted_fault_is_named_and_mended(fault: Fault) -> None:
    with on(fault.runbook, fault.plant()) as page:
        diagnosis = named(fault, page)
        plan = page.plan(diagnosis)
        assert any(step.do is None for step in plan.steps) == fault.by_hand
        plan.apply(plan.title)
        assert plan.acted and not plan.failed
        left = page.verify()
        assert left == []
        assert outcome(diagnosis, plan, left) == MENDED
        if not fault.by_hand:
            again = page.diagnose()
            assert again.false_alarm, str(again)


@pytest.mark.parametrize("fault", [one for one in FAULTS if not one.mends], ids=str)
def test_what_only_a_person_can_do_is_said_and_nothing_else(fault: Fault) -> None:
    with on(fault.runbook, fault.plant()) as page:
        diagnosis = named(fault, page)
        plan = page.plan(diagnosis)
        assert plan.steps and all(step.do is None for step in plan.steps), plan.steps
        plan.apply(plan.title)
        assert outcome(diagnosis, plan, []) == BY_HAND


@pytest.mark.parametrize("fault", [one for one in FAULTS if one.mends], ids=str)
def test_verify_fails_when_act_is_disabled(fault: Fault) -> None:
    with on(fault.runbook, fault.plant()) as page:
        diagnosis = named(fault, page)
        plan = page.plan(diagnosis)
        plan.steps = [
            step if step.do is None else step._replace(do=lambda: "only said") for step in plan.steps
        ]
        plan.apply(plan.title)
        left = page.verify()
        assert left, "nothing was done, and nothing is wrong?"
        assert outcome(diagnosis, plan, left) == (BY_HAND if fault.by_hand else LEFT)


@pytest.mark.parametrize("fault", NEED_A_START, ids=str)
def test_a_stop_and_a_start_mend_what_a_clear_cannot(fault: Fault) -> None:
    """As the page says: the grid is stopped, a person starts it, and the page is run again."""
    drill = fault.plant()
    with on(fault.runbook, drill) as page:
        diagnosis = named(fault, page)
        plan = page.plan(diagnosis)
        plan.apply(plan.title)
        assert plan.acted and not drill.runs
        left = page.verify()
        assert outcome(diagnosis, plan, left) == (BY_HAND if left else MENDED)
        drill.start()
        drill.go_on(70)
        again = page.diagnose()
        assert again.cause in ("", "an alarm was left behind"), str(again)
        plan = page.plan(again)
        plan.apply(plan.title)
        assert page.verify() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_healthy_grid_is_a_false_alarm_and_stays_as_it_is(name: str) -> None:
    drill = Drill()
    for ticks in (-1_300, -100, -1_300):
        drill.price(TICKS + ticks)
    drill.go_on(2)
    with on(name, drill, frozen=True) as page:
        before = everything(drill)
        diagnosis = page.diagnose()
        assert diagnosis.false_alarm, str(diagnosis)
        assert diagnosis.verdict.startswith(FALSE_ALARM)
        plan = page.plan(diagnosis)
        plan.apply(plan.title)
        assert not plan.acted
        assert everything(drill) == before


@pytest.mark.parametrize("fault", (*FAULTS, *NEED_A_START), ids=str)
def test_without_the_phrase_nothing_changes(fault: Fault) -> None:
    drill = fault.plant()
    with on(fault.runbook, drill, frozen=True) as page:
        before = everything(drill)
        plan = page.plan(page.diagnose())
        for phrase in ("", "yes", plan.title.upper(), plan.title + " "):
            plan.apply(phrase)
        page.verify()
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


def rows(drill: Drill) -> dict[str, str]:
    """Return what a drill's files say, read by SQLite alone: to close a file otherwise would drop its locks."""
    found = {}
    for path in (drill.db, *drill.db.parent.glob("*.paper")):
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            found[path.name] = "\n".join(database.iterdump())
    return found


FIRST = {fault.runbook: fault for fault in reversed(FAULTS) if fault.mends}
ELSEWHERE = {
    "exchange_down": "the stream of prices is silent",  # the ledger beside the database answers whoever asks it
    "graceful_shutdown": FALSE_ALARM,  # the drill's stop was asked for years ago
}


@pytest.mark.parametrize("fault", [one for one in FIRST.values() if one.runbook != "restore"], ids=str)
def test_the_command_changes_nothing_without_the_phrase(
    fault: Fault, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drill = fault.plant()
    try:
        before = rows(drill)
        with held(drill.db):
            code = run_command(
                [
                    "runbook",
                    fault.runbook,
                    "--db",
                    str(drill.db),
                    "--set",
                    "settle_s=1",
                    "--out",
                    str(tmp_path),
                ]
            )
        said = capfd.readouterr().out
        assert ELSEWHERE.get(fault.runbook, f"cause: {fault.cause}") in said
        assert code == (0 if "false alarm" in said else 3), said
        assert rows(drill) == before
    finally:
        drill.close()


@pytest.mark.parametrize("name", ["stuck_slots", "risk_mode"])
def test_the_command_plans_acts_and_keeps_records(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drill = FIRST[name].plant()
    line = ["runbook", name, "--db", str(drill.db), "--set", "settle_s=1", "--out", str(tmp_path)]
    try:
        with alive(drill):
            assert run_command(line) == 3
            found = re.search(r'nothing done: to act, confirm="(.*)"', capfd.readouterr().out)
            assert found is not None
            assert run_command([*line, "--apply", "--confirm", found[1] + "!"]) == 3
            assert run_command([*line, "--apply", "--confirm", found[1]]) == 0, capfd.readouterr().out
            assert "outcome: done and verified" in capfd.readouterr().out
            assert run_command(line) == 0
            assert "outcome: false alarm" in capfd.readouterr().out
    finally:
        drill.close()
    records = sorted(tmp_path.glob("*.ipynb"))
    assert len(records) == 4
    for path in records:
        assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-{name}(-\d)?\.ipynb", path.name)
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


def test_an_exchange_that_cannot_be_reached_is_an_answer() -> None:
    drill = Drill()
    case = open_case(str(drill.db), exchange="binance", endpoint="127.0.0.1:9")
    try:
        diagnosis = exchange_down.diagnose(case, 0)
        assert diagnosis.cause == "the exchange does not answer", str(diagnosis)
        assert "127.0.0.1:9" in diagnosis.findings[0].evidence
    finally:
        case.close()
        drill.close()


def test_a_server_is_only_read(database: str) -> None:
    engine = open_database(database)
    store = SqlStore(engine, "BTC/USDT")
    meta = Meta(
        Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.001")),
        incarnation=store.acquire("one"),
        version=1,
    )
    store.save(to_state(empty_core(), meta))
    books = ReadBooks(database)
    assert (books.grid, books.state().version) == ("BTC/USDT", 1)
    with pytest.raises(StoreUnreachable, match="read-only"):
        Mailbox(read_only(database), "the server").prune("BTC/USDT", 0)
    for page in (database_down, restore):
        assert page.diagnose(database).false_alarm
    books.close()
    store.close()
    gone = database.replace(str(make_url(database).port), "9")
    assert database_down.diagnose(gone).cause == "the server does not answer"


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
    of = {name: importlib.import_module(f"gridmm.{name}").ALERTS for name in NAMES}
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


def test_restore_takes_the_folder_that_a_backup_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drill = Drill()
    folder = take(drill.db, tmp_path / "copies", 1_000).folder
    version = restore.looked(str(drill.db)).told
    drill.kill()
    with closing(sqlite3.connect(drill.db)) as database, database:
        database.execute("UPDATE gridmm_grids SET state = x'00'")
    db = str(drill.db)
    spoilt = tmp_path / "spoilt"
    shutil.copytree(folder, spoilt)
    (spoilt / drill.db.name).write_bytes(b"nothing")
    todo = restore.plan(db, restore.diagnose(db), str(spoilt))
    todo.apply(todo.title)
    assert todo.failed and restore.verify(db) and "is not what was written" in capsys.readouterr().out
    todo = restore.plan(db, restore.diagnose(db), str(folder))
    todo.apply(todo.title)
    assert not todo.failed and restore.verify(db) == [] and restore.looked(db).told == version
    assert "is kept as" in capsys.readouterr().out
    drill.close()
