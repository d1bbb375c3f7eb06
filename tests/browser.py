"""A headless Chromium that can reach this machine only, and tells what each page tried.

It is started once; every round of pages has cookies and a cache of its own, and some tabs side by side, since a
page that draws itself is mostly waited for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

PHONE_WIDTH = 390
TABS = 3
SETTLED = """(() => {
  const figures = [...document.querySelectorAll('.nb-figure')];
  const formulas = [...document.querySelectorAll('.arithmatex')];
  const drawn = figures.filter((f) => f.querySelector('.main-svg')).length;
  const set = formulas.filter((f) => f.querySelector('.katex')).length;
  const waiting = document.querySelectorAll('pre.mermaid').length;
  return JSON.stringify({
    done: document.readyState === 'complete' && drawn === figures.length && set === formulas.length && !waiting,
    figures: drawn, formulas: set, diagrams: document.querySelectorAll('div.mermaid').length,
    width: document.documentElement ? document.documentElement.scrollWidth : 0,
  });
})()"""


@dataclass
class Seen:
    """What one page did."""

    page: str
    problems: list[str] = field(default_factory=list)
    figures: int = 0
    formulas: int = 0
    diagrams: int = 0


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of the loopback."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Browser:
    """A running Chromium.

    Attributes:
        endpoint: Where it takes commands.
    """

    endpoint: str

    def visit(self, address: str, pages: list[str], page_timeout_s: float = 20.0) -> list[Seen]:
        """Open each page at phone width and report what it tried and what it failed at."""
        return asyncio.run(_visit(self.endpoint, address, pages, page_timeout_s))

    def act(self, address: str, steps: Callable[[Tab], Awaitable[None]]) -> list[str]:
        """Open an address at phone width, do some steps, and report what the page tried and what it failed at."""
        return asyncio.run(_act(self.endpoint, address, steps))


def program() -> str:
    """Return where Chromium is; the test is skipped where it is nowhere, and fails where it has to be."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        why = "no Chromium on this machine: install the Debian package chromium to open the pages in it"
        if os.environ.get("GRIDMM_REQUIRE_TOOLS"):
            pytest.fail(why)
        pytest.skip(why)
    return found


@contextlib.contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """Start a Chromium with an empty profile, and end it."""
    with tempfile.TemporaryDirectory(prefix="gridmm-browser-", ignore_cleanup_errors=True) as profile:
        options = (
            "--headless --no-sandbox --disable-gpu --no-first-run --disable-quic --disable-sync "
            "--disable-background-networking --disable-component-update --disable-dev-shm-usage "
            "--remote-debugging-port=0"
        ).split()
        # No name resolves and every other address goes to a proxy that is not there.
        options += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        options += ["--proxy-server=127.0.0.1:9", "--proxy-bypass-list=127.0.0.1"]
        # Of pages side by side only one is in front: the others must not be slowed down for it.
        options += ["--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows"]
        options += ["--disable-background-timer-throttling"]
        command = [program, *options, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield Browser(_endpoint(Path(profile)))
            finally:
                process.terminate()
                process.wait(timeout=20)


def _endpoint(profile: Path, timeout_s: float = 30.0) -> str:
    """Return the browser's own address, which it writes down once it listens."""
    told = profile / "DevToolsActivePort"
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if told.exists() and len(lines := told.read_text().splitlines()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise TimeoutError(f"Chromium did not start within {timeout_s:g} s")


class _Session:
    """One tab, over the DevTools protocol."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.socket = socket
        self.ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self.tab: str | None = None

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        wanted = next(self.ids)
        message: dict[str, Any] = {"id": wanted, "method": method, "params": params}
        if self.tab:
            message["sessionId"] = self.tab
        await self.socket.write_message(json.dumps(message))
        while True:
            raw = await asyncio.wait_for(self.socket.read_message(), timeout=30)
            assert raw is not None, "Chromium closed the connection"
            answer = json.loads(raw)
            if answer.get("id") == wanted:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    async def evaluate(self, script: str) -> dict[str, Any]:
        answer = await self.call("Runtime.evaluate", expression=script)
        return dict(json.loads(answer["result"]["value"]))


class Tab:
    """A page that is open."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    async def read(self, script: str) -> Any:
        """Return what an expression comes to."""
        found = await self._session.evaluate(f"JSON.stringify({{found: {script}}})")
        return found.get("found")

    async def until(self, script: str, timeout_s: float = 30.0) -> Any:
        """Wait until an expression is true, and return what it comes to."""
        end = time.monotonic() + timeout_s
        while not (found := await self.read(script)):
            assert time.monotonic() < end, f"{script} never came true"
            await asyncio.sleep(0.1)
        return found

    async def width(self, pixels: int) -> None:
        """Show the page in another width."""
        about = {"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": pixels < 600}
        await self._session.call("Emulation.setDeviceMetricsOverride", **about)

    async def picture(self, path: Path) -> None:
        """Keep what is seen, from top to bottom."""
        taken = await self._session.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))


async def _act(endpoint: str, address: str, steps: Callable[[Tab], Awaitable[None]]) -> list[str]:
    session = _Session(await websocket_connect(endpoint, max_message_size=2**28))
    target = await session.call("Target.createTarget", url="about:blank", newWindow=True)
    attached = await session.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
    session.tab = attached["sessionId"]
    for domain in ("Page", "Network", "Runtime", "Log"):
        await session.call(f"{domain}.enable")
    tab = Tab(session)
    await tab.width(PHONE_WIDTH)
    await session.call("Page.navigate", url=address)
    await tab.until(f"location.href === {address!r} && document.readyState === 'complete'")
    await steps(tab)
    session.socket.close()
    return [problem for event in session.events for problem in _problems(event, address)]


async def _visit(endpoint: str, address: str, pages: list[str], timeout_s: float) -> list[Seen]:
    session = _Session(await websocket_connect(endpoint, max_message_size=2**28))
    profile = (await session.call("Target.createBrowserContext"))["browserContextId"]
    waiting, seen = iter(pages), dict[str, Seen]()
    tabs = (_tab(endpoint, profile, address, waiting, seen, timeout_s) for _ in range(min(TABS, len(pages))))
    try:
        await asyncio.gather(*tabs)
    finally:
        await session.call("Target.disposeBrowserContext", browserContextId=profile)
        session.socket.close()
    return [seen[page] for page in pages]


async def _tab(
    endpoint: str, profile: str, address: str, waiting: Iterator[str], seen: dict[str, Seen], timeout_s: float
) -> None:
    """Open pages in a tab of its own until none is left."""
    session = _Session(await websocket_connect(endpoint, max_message_size=2**28))
    target = await session.call(
        "Target.createTarget", url="about:blank", browserContextId=profile, newWindow=True
    )
    attached = await session.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
    session.tab = attached["sessionId"]
    for domain in ("Page", "Network", "Runtime", "Log"):
        await session.call(f"{domain}.enable")
    await session.call(
        "Emulation.setDeviceMetricsOverride", width=PHONE_WIDTH, height=800, deviceScaleFactor=1, mobile=True
    )
    for page in waiting:
        seen[page] = await _open(session, address, page, timeout_s)
    session.socket.close()


async def _open(session: _Session, address: str, page: str, timeout_s: float) -> Seen:
    seen = Seen(page)
    session.events.clear()
    await session.call("Page.navigate", url=address + page)
    end = time.monotonic() + timeout_s
    state = await session.evaluate(SETTLED)
    while not state["done"] and time.monotonic() < end:
        await asyncio.sleep(0.05)
        state = await session.evaluate(SETTLED)
    # What a script starts after it has drawn is seen as well.
    await asyncio.sleep(0.2)
    state = await session.evaluate(SETTLED)
    seen.figures, seen.formulas, seen.diagrams = state["figures"], state["formulas"], state["diagrams"]
    where = f"/{page}"
    if not state["done"]:
        seen.problems.append(f"{where} left a figure, formula or diagram undrawn after {timeout_s:g} s")
    if state["width"] > PHONE_WIDTH:
        seen.problems.append(f"{where} is {state['width']} px, wider than a phone ({PHONE_WIDTH} px)")
    seen.problems += [
        f"{where} {problem}" for event in session.events for problem in _problems(event, address)
    ]
    return seen


def _problems(event: dict[str, Any], address: str) -> Iterator[str]:
    params = event.get("params", {})
    match event.get("method"):
        case "Network.requestWillBeSent":
            url = params["request"]["url"]
            if urlsplit(url).scheme not in ("data", "blob", "about") and not url.startswith(address):
                yield f"asks another host: {url}"
        case "Network.webSocketCreated":
            yield f"opens a socket: {params['url']}"
        case "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            yield f"throws: {details.get('exception', {}).get('description', details['text'])}"
        case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
            yield f"logs an error: {[a.get('value', a.get('description')) for a in params['args']]}"
        case "Log.entryAdded" if params["entry"]["level"] == "error":
            yield f"logs an error: {params['entry']['text']} {params['entry'].get('url', '')}"
