"""A grid is shown and commanded from another terminal: while it is down, while it runs, and on a server."""

import asyncio
import csv
import io
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

import gridmm.look
import gridmm.run
from gridmm import cli_look
from gridmm.cli import run_command
from gridmm.commands import Mailbox
from gridmm.config import config_hash, load
from gridmm.desk import Receipt
from gridmm.errors import StoreUnreachable
from gridmm.feed import Pace
from gridmm.layout import Var, empty_core
from gridmm.look import open_books
from gridmm.model import to_state
from gridmm.names import Meta
from gridmm.run import Run, Signals, assemble, play
from gridmm.store import Answer, SqlStore
from gridmm.units import Instrument
from gridmm.vocabulary import Stop

GRID = "BTC/USDT:USDT"
BTC = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.001"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run every test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


OPTIONS = {"grid.price_interval": "10 bps", "instrument.maker_fee": "1 bps"}


def session(
    minutes: int = 60, during: Any = lambda run: None, file: Path | None = None, **more: str
) -> tuple[Run, Receipt]:
    """Trade so many minutes of the demo market in the default database."""
    options = {"feed.duration": f"{minutes} min"} | (OPTIONS if file is None else {}) | more
    config = load(file, options={name: (value, "test") for name, value in options.items()}, environ={})
    with ExitStack() as stack:
        run = assemble(config, Path(cli_look.DEFAULT_DB), stack, durable=True, synchronous="OFF")
        run.begin()
        signals = Signals(on_moment=lambda engine: during(run))
        return run, asyncio.run(play(run, signals, Pace("max", lambda: 0, asyncio.sleep)))


class Terminal:
    """Types commands and reads what they say."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        """Return what a command prints; it must end with `code`, and an error must be one line."""
        self._capsys.readouterr()
        ended = run_command(list(words))
        out, err = self._capsys.readouterr()
        assert ended == code, f"{words} ended with {ended}: {out}{err}"
        assert "Traceback" not in err and len(err.splitlines()) <= 1
        return str(err or out)

    def json(self, *words: str, code: int = 0) -> Any:
        """Return the JSON that a command prints."""
        return json.loads(self(*words, "--json", code=code))


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


def test_the_fills_add_up_to_the_receipt(typed: Terminal) -> None:
    run, receipt = session(90)
    rows = list(csv.DictReader(io.StringIO(typed("fills", "--csv"))))
    assert len(rows) == receipt.fills > 4
    assert sum(Decimal(row["pnl"]) for row in rows) == Decimal(receipt.realized_pnl)
    assert sum(Decimal(row["fee"]) for row in rows) == -Decimal(receipt.pnl["fees"])
    assert all(re.fullmatch(r"2026-01-01 \d\d:\d\d:\d\d(\.\d{3})?", row["time_utc"]) for row in rows)
    assert {row["fee_asset"] for row in rows} == {"USDT"} and {row["side"] for row in rows} == {"buy", "sell"}
    assert all(run.engine.session.words.is_ours(row["client_id"]) for row in rows)
    told = typed.json("fills")
    assert [one["trade_id"] for one in told] == [row["trade_id"] for row in rows]
    assert len(typed("fills").splitlines()) == len(rows) + 1
    late = typed.json("fills", "--since", rows[-1]["time_utc"])
    assert [one["trade_id"] for one in late] == [rows[-1]["trade_id"]]
    assert "no fills" in typed("fills", "--since", "2030-01-01")
    assert "cannot be JSON and CSV at once" in typed("fills", "--csv", "--json", code=2)


def test_status_says_whose_the_grid_is_and_whether_it_was_given_back(typed: Terminal) -> None:
    seen: list[tuple[dict, str, list[dict]]] = []

    def look(run: Run) -> None:
        if not seen and run.engine.session.open_ids() and run.engine.session.meta.version > 2:
            run.engine.session.save()
            seen.append((typed.json("status"), typed("status"), typed.json("orders")))

    _, receipt = session(20, look)
    (running, text, orders) = seen[0]
    assert running["released"] is False and running["start"] == 1
    assert re.search(r"^owner +process \d+, start 1, not released: runs, or was killed$", text, re.M)
    assert len(orders) == sum(running["open_orders"].values()) > 0
    assert {order["status"] for order in orders} == {"working"}
    ended = typed.json("status")
    assert (ended["released"], ended["version"], ended["stop"]) == (True, receipt.version, "CANCEL")
    assert ended["realized_pnl"] == receipt.realized_pnl and ended["waiting"] == []
    assert re.search(r"^open orders +none$", typed("status"), re.M)
    assert "no open orders" in typed("orders") and "no commands" in typed("commands")


def test_a_stop_sent_while_nothing_runs_takes_effect_at_the_next_start(typed: Terminal) -> None:
    session(10)
    said = typed("stop", "--cancel", "--why", "funding", "--who", "ann")
    assert "nothing runs this grid now. It takes effect at the next start, unless that is after 20" in said
    assert re.search(r"^  waiting +stop cancel by ann: funding$", typed("status"), re.M)
    run, receipt = session(600)
    assert run.resumed and receipt.open_orders == 0
    assert receipt.market_to_ms - receipt.market_from_ms < 60_000, "it traded on as if nothing had been said"
    (command,) = typed.json("commands")
    assert (command["state"], command["result"]) == ("done", "carried out by start 2")
    assert (command["who"], command["why"]) == ("ann", "funding")
    assert run.engine.session.core.v[Var.STOP] == Stop.CANCEL


def test_a_stop_that_waits_is_heard_before_anything_is_opened(typed: Terminal) -> None:
    """The first price of a start would otherwise open a grid that is withdrawn a moment later."""
    placed = int(session(10)[0].engine.session.core.v[Var.NEXT_SEQ])
    typed("stop", "--cancel", "--why", "funding")
    run, _ = session(10)
    assert run.resumed and run.engine.session.core.v[Var.NEXT_SEQ] == placed > 1, "orders were placed"


def test_an_expired_command_does_nothing(typed: Terminal) -> None:
    session(10)
    typed("stop", "--cancel", "--why", "funding", "--expires", "1 ms")
    time.sleep(0.01)
    assert typed.json("status")["waiting"] == []
    _, receipt = session(10)
    assert receipt.market_to_ms - receipt.market_from_ms > 500_000
    assert [one["state"] for one in typed.json("commands")] == ["expired"]


def test_sent_twice_it_acts_once(typed: Terminal) -> None:
    session(10)
    words = ("pause", "--why", "news", "--id", "job-7")
    assert typed.json(*words)["state"] == typed.json(*words)["state"] == "waiting"
    session(5)
    assert [one["state"] for one in typed.json("commands")] == ["done"]
    again = typed.json(*words)
    assert (again["state"], again["result"]) == ("done", "carried out by start 2")
    assert "--id job-7: it is that of pause of grid" in typed(
        "stop", "--drain", "--why", "x", "--id", "job-7", code=2
    )
    status = typed.json("status")
    assert status["risk"] != "NORMAL" and [one["trigger"] for one in status["triggers"]] == ["OPERATOR"]
    assert re.search(r"^  tripped +OPERATOR: 1 times, limit 1, since 2026", typed("status"), re.M)
    typed("risk", "reset", "operator", "--why", "the news is old")
    session(5)
    assert typed.json("status")["risk"] == "NORMAL"
    assert [one["state"] for one in typed.json("commands")] == ["done", "done"]


def write(name: str, **values: str) -> Path:
    """Write a configuration file."""
    path = Path(name)
    path.write_text("\n".join(f'{key} = "{value}"' for key, value in (OPTIONS | values).items()))
    return path


def generation(typed: Terminal) -> tuple[str, int]:
    """Return a slot of the last save, and the number of its newest order."""
    state = open_books(cli_look.DEFAULT_DB).state()
    slot = state.slots[0]
    return f"{slot.epoch}/{slot.cell}", max(slot.open.sequence, slot.close.sequence)


def ends_holding(run: Run) -> None:
    """Let a session end like a process that is killed: with open orders."""
    if run.engine.session.open_ids() and run.engine.session.meta.version > 4:
        run.engine.session.save()
        raise Killed


class Killed(Exception):
    """The session is gone."""


@pytest.mark.parametrize("kind", ["clear", "reload", "adopt"])
def test_every_kind_waits_expires_and_acts_once(typed: Terminal, kind: str) -> None:
    """Sent while nothing runs: one that has expired does nothing, another acts at the start, and only once."""
    file = write("grid.toml", **{"grid.max_position": "50 %"})
    with pytest.raises(Killed):
        session(10, ends_holding, file)
    slot, number = generation(typed)
    write("gridmm.toml", **{"grid.max_position": "20 %"})
    words = {
        "clear": ("clear", slot, "--seen", str(number)),
        "reload": ("reload",),
        "adopt": ("adopt", "0.01", "--cost", "60000", "--yes"),
    }[kind]
    if kind != "adopt":
        assert "no answer within 0 s" in typed(
            *words, "--why", "x", "--wait", "0", "--expires", "1 ms", code=6
        )
    sent = [typed.json(*words, "--why", "x", "--wait", "0", "--id", "job", code=6) for _ in range(2)]
    assert [one["state"] for one in sent] == ["waiting", "waiting"]
    time.sleep(0.01)
    session(5, file=file)
    found = {one["id"]: one for one in typed.json("commands")}
    job = found.pop("job")
    assert {one["state"] for one in found.values()} <= {"expired"} and job["kind"] == kind
    (state, text, code) = {
        "clear": ("refused", "is open at the exchange", 3),
        "reload": ("done", 'grid.max_position = "20 %" now', 0),
        "adopt": ("refused", "only 0 BTC of what the account held when the grid began", 3),
    }[kind]
    assert job["state"] == state and text in job["result"]
    before = job["done_ms"]
    again = typed.json(*words, "--why", "x", "--id", "job", code=code)
    assert (again["state"], again["done_ms"]) == (state, before), "it acted twice"
    assert kind in typed("commands") and text in typed("commands")


@contextmanager
def answering(run: Run) -> Iterator[None]:
    """Let the grid answer while a sender sleeps, as it does in a process of its own."""
    engine = run.engine

    def sleep(seconds: float) -> None:
        now_ms = time.time_ns() // 1_000_000
        for request in engine.requests(now_ms):  # type: ignore[attr-defined]
            engine.carry_out(request, now_ms)  # type: ignore[attr-defined]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_look.time, "sleep", sleep)
        yield


SPOT = {
    "instrument.symbol": "BTC/USDT",
    "instrument.market": "spot",
    "paper.base": "0.25",
    "paper.equity": "20000",
}


def test_an_adoption_shows_its_plan_and_needs_the_typed_phrase(
    typed: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    phrases = iter(["yes", "adopt 0.010 BTC ", "adopt 0.01 BTC"])
    asked: list[str] = []

    def phrase(text: str, **_: object) -> str:
        asked.append(text)
        return next(phrases)

    monkeypatch.setattr("gridmm.cli_operate.click.prompt", phrase)

    def adopt(run: Run) -> None:
        if not said and run.engine.session.open_ids():
            run.engine.session.save()
            words = ("adopt", "0.010", "--cost", "59000", "--why", "bought by hand")
            with answering(run):
                said.extend([typed(*words, code=3), typed(*words, code=3)])
                assert run.engine.session.core.v[Var.ADOPTED] == 0
                said.append(typed(*words))
                said.append(typed("adopt", "0.9", "--cost", "59000", "--why", "too much", code=3))
                said.append(typed("adopt", "-0.01", "--why", "short", code=3))

    run, _ = session(10, adopt, None, **SPOT, **{"grid.max_position": "0.3"})
    assert said[0].startswith("would adopt 0.01 BTC at 59000: 0.0") and "nothing was adopted" in said[0]
    assert set(asked) == {'To do it, type "adopt 0.01 BTC"'} and len(asked) == 3
    assert "nothing was adopted" in said[1]
    assert "done, adopted 0.01 BTC at 59000: 0.0" in said[2]
    assert "only 0.24 BTC of what the account held" in said[3]
    assert "a grid of mode long does not hold it" in said[4]
    assert run.engine.session.core.v[Var.ADOPTED] == 10
    kinds = [one["kind"] for one in typed.json("commands")]
    assert kinds == ["plan-adopt", "plan-adopt", "plan-adopt", "adopt", "plan-adopt", "plan-adopt"]


def test_a_reload_of_a_running_grid_and_what_it_refuses(typed: Terminal) -> None:
    file = write("grid.toml", **{"grid.max_position": "50 %"})
    write("small.toml", **{"grid.max_position": "10 %"})
    write("short.toml", **{"grid.max_position": "10 %", "grid.mode": "short"})
    said: list[str] = []

    def reload(run: Run) -> None:
        if not said and run.engine.session.open_ids():
            with answering(run):
                said.append(typed("reload", "--config", "short.toml", "--why", "x", code=3))
                said.append(typed("reload", "--config", "small.toml", "--why", "x", "--who", "ann"))

    run, _ = session(10, reload, file)
    assert "reload of 4 settings" in said[0] and "grid.mode: only a start changes this" in said[0]
    assert re.search(
        r'done, config \w{16} in place of \w{16}: grid.max_position = "10 %" now \(was "50 %"\)', said[1]
    )
    saved = open_books(cli_look.DEFAULT_DB).state()
    assert saved.config_hash != config_hash(run.config.settings)
    again, _ = session(5, file=file)
    assert re.search(
        r"^config \w{16}, reloaded by ann \(x\), stays in force in place of", "\n".join(again.lines), re.M
    )
    last, _ = session(5, file=Path("small.toml"))
    assert not [line for line in last.lines if "config " in line]


def test_a_running_grid_answers_and_stops(typed: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender waits; here it is the sleep of its wait that lets the grid go on."""
    sent: list[str] = []

    def send(run: Run) -> None:
        if not sent and run.engine.session.open_ids():
            sent.append(typed("stop", "--flatten", "--why", "drill", "--id", "now", "--wait", "0", code=6))
            run.engine._polled_ms = 0  # type: ignore[attr-defined]  # market time passes faster than the poll

    _, receipt = session(600, send)
    assert (
        "stop flatten (now): no answer within 0 s. It is carried out by whoever runs the grid before"
        in sent[0]
    )
    assert receipt.open_orders == 0 and Decimal(receipt.position) == 0
    assert "stop flatten (now): done, carried out by start 1, at 20" in typed(
        "stop", "--flatten", "--why", "drill", "--id", "now"
    )


@pytest.fixture
def server(database: str) -> Iterator[tuple[str, SqlStore]]:
    """A PostgreSQL database with a grid that is owned and has saved once."""
    engine = create_engine(database)
    store = SqlStore(engine, "BTC/USDT", "main")
    meta = Meta(BTC, incarnation=store.acquire("pod-1"), version=1, max_lots=40)
    store.save(to_state(empty_core(), meta))
    yield database, store
    engine.dispose()


def test_a_grid_on_a_server(
    typed: Terminal, server: tuple[str, SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, store = server
    seen = typed.json("status", "--db", url)
    assert (seen["grid"], seen["owner"], seen["released"], seen["inventory_skew"]) == (
        "main",
        "pod-1",
        False,
        "0",
    )
    assert "none yet" in typed("status", "--db", url)

    def answer(seconds: float) -> None:
        """Stand in for the process on the other machine."""
        (request,) = Mailbox(store.engine).waiting("main", time.time_ns() // 1_000_000)
        meta = Meta(BTC, incarnation=1, version=2, max_lots=40)
        store.save(
            to_state(empty_core(), meta), None, [Answer(request.id, "done", "carried out by start 1", 5_000)]
        )

    monkeypatch.setattr(cli_look.time, "sleep", answer)
    said = typed("stop", "--drain", "--why", "new version", "--who", "ann", "--db", url)
    assert re.match(
        r"stop drain \(ann/[0-9a-f]{12}\): done, carried out by start 1, at 1970-01-01 00:00:05 UTC", said
    )
    (command,) = typed.json("commands", "--db", url)
    assert (command["kind"], command["argument"], command["state"]) == ("stop", "drain", "done")
    assert "grid other: " in typed("status", "--db", url, "--grid", "other", code=2)


def test_a_server_that_is_away_is_one_line_and_exit_code_6(typed: Terminal) -> None:
    said = typed("status", "--db", "postgresql://bot:secret@127.0.0.1:1/none", code=6)
    assert "does not answer" in said and "secret" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("status", "gridmm.sqlite: there is no such database. Name the one that gridmm run uses"),
        ("stop --why x", "gridmm stop: it does not say how. Choose one of --drain, --cancel, --flatten"),
        ("stop --drain --flatten --why x", "gridmm stop: it says drain and flatten. Choose one of"),
        ("stop --cancel", r"gridmm stop: missing option '--why'. See `gridmm stop --help`"),
        ("stop --cancel --why x --expires soon", "--expires soon: the time .* Write a time such as"),
        ("risk rest --why x", "gridmm risk rest: no such command. Choose one of reset"),
        ("status --db postgresql://bot@db.example/grids", "would cross the network in the open"),
        ("clear -3 --why x", "gridmm.sqlite: there is no such database"),
        ("clear --why x", "missing argument"),
        (
            "reload --config no.toml --why x",
            "no.toml: no such file. Write one with `gridmm config init no.toml`",
        ),
        ("adopt 0.01 --why x --json", "a program says both --yes and --json"),
        ("adopt 0.01 --yes --why x", "a program says both --yes and --json"),
    ],
)
def test_a_slip_is_one_line_with_exit_code_2(typed: Terminal, words: str, message: str) -> None:
    assert re.search(message, typed(*words.split(), code=2))
    assert list(Path().iterdir()) == [], "a slip has left something behind"


def test_a_command_that_does_not_exist_is_not_sent(typed: Terminal) -> None:
    session(1)
    assert "reset-risk tax: there is no such choice. Choose one of operator" in typed(
        "risk", "reset", "tax", "--why", "x", code=2
    )
    assert "it has 101 characters, more than 100" in typed("pause", "--why", "x", "--id", "i" * 101, code=2)
    assert "it has no id, sender or reason" in typed("pause", "--why", " ", code=2)
    assert typed.json("commands") == []


def test_watching_survives_an_outage_and_ends_with_ctrl_c(
    typed: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(1)
    said = iter(
        ["one", "one", StoreUnreachable("the database", "it is away", "Wait"), "two", KeyboardInterrupt()]
    )

    def look(*_: object) -> str:
        now = next(said)
        if isinstance(now, BaseException):
            raise now
        return str(now)

    monkeypatch.setattr(gridmm.look, "status_text", look)
    monkeypatch.setattr(cli_look.time, "sleep", lambda seconds: None)
    assert typed("status", "--watch").splitlines() == ["one", "the database: it is away. Wait.", "two"]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "unknown"),
        (-5, "0 s"),
        (999, "0 s"),
        (61_000, "1 min 1 s"),
        (90_061_000, "1 d 1 h"),
        (3_600_000, "1 h"),
    ],
)
def test_ages(milliseconds: int | None, text: str) -> None:
    assert gridmm.look.age(milliseconds) == text


def test_the_state_is_not_written_by_any_command(typed: Terminal) -> None:
    session(5)
    books = open_books(cli_look.DEFAULT_DB)
    before = books.state()
    for words in (
        ("status",),
        ("orders",),
        ("fills",),
        ("commands",),
        ("stop", "--cancel", "--why", "x"),
        ("pause", "--why", "x"),
    ):
        typed(*words)
    assert books.state() == before and books.owner() is not None
    books.close()
