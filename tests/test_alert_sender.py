"""Messages reach their targets once, name no address, and never hold anybody up."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gridmm import alert_sender
from gridmm.alert_sender import (
    CHAT,
    QUEUE,
    SLACK,
    TELEGRAM,
    TELEGRAM_SITE,
    WEBHOOK,
    Message,
    Sender,
    targets_of,
    telling,
)
from gridmm.errors import UsageError
from gridmm.v1.status_pb2 import Alert, Status
from test_monitor import GRID, KEY, ask, eventually, running

SECRET = "T0PS3CR3T"
HALT = Alert(
    name="GridmmHalted", grid="btc", severity="critical", text="it quotes nothing", runbook="risk_mode"
)


class Chat:
    """A server that keeps what it is sent, and answers what it is told to."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.code, self.wait_s = 200, 0.0
        chat = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                chat.heard.append((self.path, body))
                time.sleep(chat.wait_s)
                self.send_response(chat.code)
                if chat.code == 302:
                    self.send_header("Location", f"http://127.0.0.1:{chat.server.server_port}/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                chat.heard.append((self.path, None))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *about: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setattr(alert_sender, "APART_S", 0.01)
    found = Chat()
    yield found
    found.server.shutdown()
    found.server.server_close()


def environ(chat: Chat) -> dict[str, str]:
    return {
        WEBHOOK: f"{chat.address}/hook/{SECRET}", SLACK: f"{chat.address}/slack/{SECRET}",
        TELEGRAM: SECRET, CHAT: "42", TELEGRAM_SITE: chat.address,
    }  # fmt: skip


def test_each_target_gets_its_own_form(chat: Chat) -> None:
    lines: list[str] = []
    with telling(environ(chat), lines.append) as tell:
        tell(Status(now_ms=1_000, alerts=[HALT]))
        tell(Status(now_ms=2_000, alerts=[HALT]))
    paths = [path for path, _ in chat.heard]
    assert paths == [f"/hook/{SECRET}", f"/slack/{SECRET}", f"/bot{SECRET}/sendMessage"], "once each"
    hook, slack, telegram = (body for _, body in chat.heard)
    assert (hook["name"], hook["state"], hook["runbook"]) == ("GridmmHalted", "begins", "risk_mode")
    assert slack["text"].startswith("critical GridmmHalted on btc") and "risk_mode" in slack["text"]
    assert telegram == {"chat_id": "42", "text": slack["text"]}
    assert lines == ["alerts go to webhook, slack, telegram", slack["text"]]


@pytest.mark.parametrize("code", [302, 404, 500])
def test_a_target_that_refuses_is_said_once_without_its_address(chat: Chat, code: int) -> None:
    chat.code, lines = code, list[str]()
    with telling({WEBHOOK: f"{chat.address}/{SECRET}"}, lines.append) as tell:
        tell(Status(now_ms=0, alerts=[HALT]))
        eventually(lambda: len(chat.heard) == 3)
        tell(Status(now_ms=10**9, alerts=[HALT]))
        eventually(lambda: len(chat.heard) == 6)
        time.sleep(0.1)
        chat.code = 200
        tell(Status(now_ms=2 * 10**9, alerts=[HALT]))
    said = [line for line in lines if "GridmmHalted" not in line]
    assert said[1] == (
        f"alerts do not reach webhook: it answered {code}. It goes on without; check the address in the environment"
    )
    assert said[2:] == ["alerts reach webhook again"]
    assert SECRET not in "".join(lines) and all(path == f"/{SECRET}" for path, _ in chat.heard)


def test_nobody_there_is_said_too() -> None:
    lines: list[str] = []
    with telling({WEBHOOK: f"http://127.0.0.1:9/{SECRET}"}, lines.append) as tell:
        alert_sender_apart, alert_sender.APART_S = alert_sender.APART_S, 0.01
        try:
            tell(Status(now_ms=0, alerts=[HALT]))
            eventually(lambda: len(lines) > 2)
        finally:
            alert_sender.APART_S = alert_sender_apart
    assert "connection refused" in lines[2] and SECRET not in "".join(lines)


def test_a_target_that_hangs_holds_nobody_up(chat: Chat) -> None:
    chat.wait_s = 3.0
    sender = Sender(targets_of({WEBHOOK: chat.address}), print)
    thread = threading.Thread(target=sender.run, daemon=True)
    thread.start()
    began_s = time.monotonic()
    for number in range(10 * QUEUE):
        sender.put(Message("begins", Alert(name=f"a{number}", runbook="x"), number))
    assert time.monotonic() - began_s < 2.0, "a thousand alerts were queued while one was on its way"
    assert sender._waiting.qsize() <= QUEUE


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({WEBHOOK: f"http://example.org/{SECRET}"}, "it is not an https address"),
        ({SLACK: SECRET}, "it is not an https address"),
        ({TELEGRAM: SECRET}, "it is alone"),
        ({CHAT: "42"}, "it is alone"),
    ],
)
def test_a_target_that_is_none_is_refused_without_showing_it(environ: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        targets_of(environ)
    assert SECRET not in str(refused.value)


@pytest.mark.timeout(200)
def test_a_running_grid_tells_of_its_risk_mode(
    tmp_path: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {WEBHOOK: f"{chat.address}/{SECRET}"}
    with running(tmp_path, "--speed", "300", more=more) as (address, process):
        eventually(lambda: ask(address, "/readyz").code == 200)
        body = {"grid": GRID, "kind": "pause", "argument": "", "why": "a test", "confirm": f"pause {GRID}"}
        assert ask(address, "/commands", body, Authorization=f"Bearer {KEY}").code == 200
        eventually(lambda: chat.heard)
        assert chat.heard[0][1]["name"] == "GridmmRiskMode" and "OPERATOR" in chat.heard[0][1]["text"]
        process.terminate()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and SECRET not in err
        assert re.search(r"^warning GridmmRiskMode on .*OPERATOR 1 of 1 times.*/risk_mode/$", err, re.M)
