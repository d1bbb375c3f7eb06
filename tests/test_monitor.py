"""The monitor of a running grid: what it says is so, who may act can act, and nobody else can."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from google.protobuf.json_format import ParseDict
from prometheus_client.parser import text_string_to_metric_families

from gridmm.config import load
from gridmm.errors import Refused, UsageError
from gridmm.feed import Pace
from gridmm.look import open_books, status
from gridmm.metrics import METRICS
from gridmm.monitor import HANGS_MS, History, Monitor, not_ready
from gridmm.monitor_server import TOKEN, as_dict, place_of, serving, token_of
from gridmm.run import Signals, assemble, play
from gridmm.v1.status_pb2 import GridStatus, Status

GRID = "BTC/USDT:USDT"
KEY = "a-token-for-the-tests"


class Answer(NamedTuple):
    """What an address answered."""

    code: int
    text: str
    headers: dict[str, str]

    @property
    def data(self) -> Any:
        """The answer as JSON."""
        return json.loads(self.text)


def ask(address: str, path: str, body: Any = None, **headers: str) -> Answer:
    """Ask an address; a refusal is an answer too."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(
        address + path, data=data, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    try:
        with urlopen(request, timeout=10) as said:
            return Answer(said.status, said.read().decode(), dict(said.headers))
    except HTTPError as error:
        return Answer(error.code, error.read().decode(), dict(error.headers))


def eventually(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Return the first answer of `check` that is true."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)
    return found


def receipt_of(folder: Path) -> dict[str, Any]:
    """Return the last line that a grid of this folder printed."""
    return dict(json.loads((folder / "decisions.json").read_text().splitlines()[-1]))


@contextmanager
def running(
    folder: Path, *options: str, token: str = KEY, more: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen]]:
    """Run a grid in a process of its own; yield its monitor's address."""
    command = (sys.executable, "-m", "gridmm", "run", "--monitor", "127.0.0.1:0", "--json", *options)
    clean = {name: text for name, text in os.environ.items() if not name.startswith("GRIDMM_")}
    told = clean | ({TOKEN: token} if token else {}) | dict(more or {})
    with (
        (folder / "decisions.json").open("w") as out,  # a pipe that nobody reads would hold the grid up
        subprocess.Popen(
            command, cwd=folder, env=told, text=True, stdout=out, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stderr is not None
        lines: list[str] = []
        try:
            for line in process.stderr:
                lines.append(line)
                if line.startswith("monitor: "):
                    yield line.split()[1], process
                    return
            raise AssertionError("".join(lines))
        finally:
            process.kill()


def values(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return metrics by name and label values, `grid` left out."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for name, value in sample.labels.items() if name != "grid")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A durable grid that trades the demo market, a thousand times as fast."""
    folder = tmp_path_factory.mktemp("grid")
    with running(folder, "--speed", "1000") as (address, _):
        eventually(lambda: values(ask(address, "/metrics").text).get("gridmm_fills_total", {}).get((), 0) > 2)
        yield address, folder


def test_every_metric_is_there_and_says_what_status_says(grid: tuple[str, Path]) -> None:
    address, _ = grid
    found = values(ask(address, "/metrics").text)
    paper = {metric.name for metric in METRICS} - {
        "gridmm_stream_silent_seconds", "gridmm_requests_total", "gridmm_request_budget_ratio", "gridmm_orders_per_fill",
        "gridmm_requests_late_total", "gridmm_throttles_total", "gridmm_stream_cuts_total", "gridmm_bad_frames_total",
        "gridmm_banned", "gridmm_empty_levels",
    }  # fmt: skip
    assert paper <= found.keys()
    assert found["gridmm_commit_seconds_count"][()] >= found["gridmm_decisions_total"][()] > 0
    assert found["gridmm_plan_seconds_count"][()] >= found["gridmm_decisions_total"][()] - 1, (
        "the first is made before a look"
    )
    assert found["gridmm_orders"][("working",)] > 0 and found["gridmm_ready"][()] == 1
    assert found["gridmm_order_outcomes_total"][("Accepted", "")] > 0

    said = ask(address, "/status").data
    typed = ParseDict(said, Status())
    one = typed.grids[0]
    assert as_dict(typed) == said, "the answer is a Status, and nothing else"
    parts = [float(getattr(one.parts, name)) for name in ("harvest", "trend", "fees", "funding")]
    assert sum(parts) == pytest.approx(float(one.realized_pnl) + float(one.unrealized_pnl), abs=1e-9)
    assert one.parts.residual == "0" and one.ladder and one.last_fills and one.last_decisions and one.history
    assert len(one.ladder) >= one.active_slots > 0


def test_no_label_grows_without_bound(grid: tuple[str, Path]) -> None:
    address, _ = grid
    for name, rows in values(ask(address, "/metrics").text).items():
        assert len(rows) < 60, name
        assert not any(re.search(r"\d{5}", value) for labels in rows for value in labels), name


def test_the_saved_state_agrees(grid: tuple[str, Path]) -> None:
    address, folder = grid
    books = open_books(str(folder / "gridmm.sqlite"))
    try:
        for _ in range(100):
            before = ask(address, "/status").data["grids"][0]
            saved = status(books, 0)
            if (
                before["version"] == saved.version
                and before["decisions"] == ask(address, "/status").data["grids"][0]["decisions"]
            ):
                break
    finally:
        books.close()
    assert before["position"] == saved.position and before["fills"] == saved.fills
    assert before["realized_pnl"] == saved.realized_pnl and before["risk_mode"] == saved.risk


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Host": "evil.example"}, "this server is not evil.example"),
        ({"Host": "evil.example:9464"}, "this server is not evil.example:9464"),
        ({"Origin": "http://evil.example"}, "the page is of http://evil.example"),
        ({"Origin": "null"}, "the page is of null"),
        ({"Sec_Fetch_Site": "cross-site"}, "another page sent it"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/commands"])
def test_other_pages_and_other_names_are_refused(
    grid: tuple[str, Path], path: str, headers: dict[str, str], why: str
) -> None:
    address, _ = grid
    body = {"grid": GRID, "kind": "stop", "argument": "cancel", "why": "x", "confirm": f"stop cancel {GRID}"}
    said = ask(address, path, body if path == "/commands" else None, Authorization=f"Bearer {KEY}", **headers)
    assert said.code == 403 and why in said.data["error"]


def test_answers_forbid_what_a_page_does_not_need(grid: tuple[str, Path]) -> None:
    address, _ = grid
    for path in ("/", "/page.js", "/page.css", "/status", "/metrics", "/healthz", "/nowhere"):
        headers = ask(address, path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self'"), path
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        ({"confirm": "stop"}, 422, f'Type "stop cancel {GRID}"'),
        ({"why": ""}, 422, "it has no id, sender or reason"),
        ({"kind": "reload"}, 422, "there is none of this name"),
        ({"argument": "now", "confirm": f"stop now {GRID}"}, 422, "there is no such choice"),
        ({"grid": "eth", "confirm": "stop cancel eth"}, 422, "no durable engine runs it here"),
        ({"why": ["x"]}, 422, "it is not an object of texts"),
    ],
)
def test_an_action_that_is_not_meant_is_refused(
    grid: tuple[str, Path], change: dict[str, Any], code: int, why: str
) -> None:
    address, _ = grid
    body = {
        "grid": GRID, "kind": "stop", "argument": "cancel", "why": "a test", "confirm": f"stop cancel {GRID}",
    } | change  # fmt: skip
    said = ask(address, "/commands", body, Authorization=f"Bearer {KEY}")
    assert (said.code, why in said.data["error"]) == (code, True), said
    assert ask(address, "/status").data["grids"][0]["commands"] == []


def test_only_the_token_acts(grid: tuple[str, Path]) -> None:
    address, _ = grid
    body = {"grid": GRID, "kind": "pause", "argument": "", "why": "a test", "confirm": f"pause {GRID}"}
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY[:-1]}):
        assert ask(address, "/commands", body, **given).code == 401
    assert ask(address, "/commands", body, Authorization=f"Bearer {KEY}").code == 200
    answer = eventually(lambda: [
        one for one in ask(address, "/status").data["grids"][0]["commands"] if one["state"] == "done"
    ])  # fmt: skip
    assert answer[0]["asked"] == "pause" and answer[0]["who"] == "page at 127.0.0.1"
    ready = ask(address, "/readyz")
    assert ready.code == 503 and ready.data["why"] == ["its risk mode is REDUCE_ONLY: OPERATOR"]
    alerts = ask(address, "/status").data["alerts"]
    assert [(one["name"], one["runbook"]) for one in alerts] == [("GridmmRiskMode", "risk_mode")]
    body = {
        "grid": GRID, "kind": "reset-risk", "argument": "operator", "why": "it was a test",
        "confirm": f"reset-risk operator {GRID}",
    }  # fmt: skip
    assert ask(address, "/commands", body, Authorization=f"Bearer {KEY}").code == 200
    eventually(lambda: ask(address, "/readyz").code == 200)


def test_without_a_token_nothing_acts(tmp_path: Path) -> None:
    with running(tmp_path, "--speed", "60", token="") as (address, _):
        body = {
            "grid": GRID,
            "kind": "stop",
            "argument": "cancel",
            "why": "x",
            "confirm": f"stop cancel {GRID}",
        }
        said = ask(address, "/commands", body, Authorization="Bearer ")
        assert said.code == 422 and "this server takes none" in said.data["error"]
        assert not ask(address, "/status").data["can_act"]


@pytest.mark.timeout(300)
def test_a_stop_from_the_page_ends_the_grid(tmp_path: Path) -> None:
    with running(tmp_path, "--speed", "300") as (address, process):
        eventually(lambda: ask(address, "/readyz").code == 200)
        body = {
            "grid": GRID,
            "kind": "stop",
            "argument": "cancel",
            "why": "x",
            "confirm": f"stop cancel {GRID}",
        }
        assert ask(address, "/commands", body, Authorization=f"Bearer {KEY}").code == 200
        process.communicate(timeout=60)
        assert process.returncode == 0 and receipt_of(tmp_path)["open_orders"] == 0


def test_a_process_that_hangs_is_unhealthy_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, "--speed", "300") as (address, _):
        eventually(lambda: ask(address, "/readyz").code == 200)
        assert ask(address, "/healthz").data == {"healthy": True, "why": []}
    monitor = Monitor()

    async def hang() -> None:

        with ExitStack() as stack:
            config = load(environ={}, options={"feed.duration": ("1 h", "test")})
            run = assemble(config, tmp_path / "g.sqlite", stack)
            await play(run, Signals(on_moment=monitor.look), Pace("max", lambda: 0, asyncio.sleep))
            watched = monitor._grids[GRID]
            watched.take()
            watched.turned_s -= HANGS_MS / 1_000 + 1

    with serving(monitor, "127.0.0.1:0", {}) as address:
        asyncio.run(hang())
        said = ask(address, "/healthz")
        assert said.code == 503 and re.fullmatch(
            r"BTC/USDT:USDT has not turned for 1\d s", said.data["why"][0]
        )
        assert "GridmmHangs" in [one["name"] for one in ask(address, "/status").data["alerts"]]


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = pytest.raises(Refused, match=r"address already in use. Name another one with --monitor")
        with refused, serving(Monitor(), listen, {}):
            raise AssertionError("it served")


@pytest.mark.parametrize("text", ["9464", "host:9464", "127.0.0.1:99999", "127.0.0.1:", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="it is not HOST:PORT"):
        place_of(text)


def test_a_short_token_is_refused() -> None:
    with pytest.raises(UsageError, match="it has 3 characters, fewer than 16"):
        token_of({TOKEN: "abc"})
    assert token_of({}) == ""


def test_a_history_is_bounded_and_keeps_its_beginning() -> None:
    history = History(most=100)
    for second in range(20_000):
        history.add(GridStatus(time_ms=1_000 * second, last="1", realized_pnl="0.1", unrealized_pnl="0.2"))
    kept = list(history)
    assert 50 <= len(kept) <= 100 and kept[0].time_ms == 0 and kept[-1].time_ms > 19_000_000
    assert kept[0].total == "0.3"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"price_age_ms": -1}, "it has seen no price yet"),
        ({"price_age_ms": 61_000}, "its price is 61 s old"),
        ({"loop_age_ms": 16_000}, "its engine has not turned for 16 s"),
        ({"stop": "DRAIN"}, "it is stopping (DRAIN)"),
        ({"streams": [{"name": "orders", "silent_ms": 70_000}]}, "its stream of orders is silent for 70 s"),
    ],
)
def test_why_it_is_not_ready(change: dict[str, Any], why: str) -> None:
    well: dict[str, Any] = {"risk_mode": "NORMAL", "stop": "RUN", "price_age_ms": 10}
    assert list(not_ready(GridStatus(**well))) == []
    assert list(not_ready(GridStatus(**well | change))) == [why]


def test_a_signal_still_stops_a_grid_that_is_watched(tmp_path: Path) -> None:
    with running(tmp_path, "--speed", "300") as (address, process):
        eventually(lambda: ask(address, "/readyz").code == 200)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert receipt_of(tmp_path)["open_orders"] == 0


def test_a_look_that_fails_disturbs_nobody_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = Monitor()

    def broken(*about: Any) -> None:
        raise ZeroDivisionError("planted")

    async def trade() -> None:
        with ExitStack() as stack:
            config = load(environ={}, options={"feed.duration": ("1 h", "test")})
            run = assemble(config, tmp_path / "g.sqlite", stack)
            await play(run, Signals(on_moment=monitor.look), Pace("max", lambda: 0, asyncio.sleep))
            monitor.take()

    monkeypatch.setattr("gridmm.monitor.grid_status", broken)
    asyncio.run(trade())
    said = monitor.status()
    assert list(said.not_ready) == [
        f"{GRID} cannot be looked at, a defect of gridmm: ZeroDivisionError: planted"
    ]
    assert not said.ready and not said.grids
