"""The page of a running grid, in a real browser: what it shows, what it sends, and what it says when nobody answers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import PHONE_WIDTH, Browser, Tab, chromium, program
from test_monitor import GRID, KEY, ask, eventually, running, values

FILL = """((fields) => {
  for (const [id, text] of Object.entries(fields)) document.getElementById(id).value = text;
  document.getElementById('what').dispatchEvent(new Event('change'));
  return document.getElementById('phrase').textContent;
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(program()) as found:
        yield found


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen]]:
    folder = tmp_path_factory.mktemp("grid")
    with running(folder, "--speed", "1000") as (address, process):
        eventually(lambda: values(ask(address, "/metrics").text).get("gridmm_fills_total", {}).get((), 0) > 4)
        yield address, process


@pytest.mark.timeout(300)
def test_it_shows_what_status_says_and_fits_a_phone(
    grid: tuple[str, subprocess.Popen], browser: Browser, tmp_path: Path
) -> None:
    address, _ = grid

    async def steps(tab: Tab) -> None:
        await tab.until("document.querySelectorAll('#ladder tr').length > 5")
        await tab.until(
            "document.querySelector('#price path') && document.querySelectorAll('#price circle').length > 3"
        )
        shown = await tab.read("document.body.innerText")
        said = ask(address, "/status").data["grids"][0]
        for name in ("Ladder", "Risk", "DRAWDOWN", "harvest", "residual", "Last decisions", "inventory skew"):
            assert name in shown, name
        assert said["risk_mode"] in shown and f"of {said['max_position']} {said['base']}" in shown
        assert await tab.read("document.documentElement.scrollWidth") <= PHONE_WIDTH
        assert await tab.read("document.getElementById('stale').hidden") is True
        before = await tab.read("document.getElementById('life').textContent")
        await tab.until(f"document.getElementById('life').textContent !== {before!r}")
        await tab.picture(tmp_path / "phone.png")
        await tab.width(1300)
        await tab.picture(tmp_path / "desk.png")

    assert browser.act(f"{address}/", steps) == []
    assert all((tmp_path / f"{name}.png").stat().st_size > 20_000 for name in ("phone", "desk"))


@pytest.mark.timeout(300)
def test_an_action_needs_its_phrase_and_reaches_the_grid(
    grid: tuple[str, subprocess.Popen], browser: Browser
) -> None:
    address, _ = grid

    async def steps(tab: Tab) -> None:
        await tab.until("!document.getElementById('act').hidden")
        wanted = {"what": '["pause",""]', "why": "a look at the page", "token": KEY, "confirm": "pause it"}
        phrase = await tab.read(f"{FILL}({wanted})")
        assert phrase == f"pause {GRID}"
        await tab.read("document.getElementById('form').requestSubmit()")
        await tab.until("document.getElementById('answer').textContent.includes('it was not confirmed')")
        await tab.read(f"{FILL}({ {'confirm': phrase} })")
        await tab.read("document.getElementById('form').requestSubmit()")
        await tab.until("document.getElementById('answer').textContent.startsWith('sent: pause')")
        await tab.until("document.getElementById('commands').innerText.includes('done carried out')")
        await tab.until("document.getElementById('alerts').innerText.includes('gridmm runbook risk_mode')")
        assert "OPERATOR" in await tab.read("document.getElementById('life').textContent")

    problems = browser.act(f"{address}/", steps)
    assert len(problems) == 1 and "422" in problems[0], "the refused action is all that went wrong"


@pytest.mark.timeout(300)
def test_what_it_is_told_is_never_markup(tmp_path: Path, browser: Browser) -> None:
    planted = "<img src=x onerror=document.title='planted'>"
    with running(tmp_path, "--speed", "300") as (address, _):
        eventually(lambda: ask(address, "/readyz").code == 200)
        body = {"grid": GRID, "kind": "pause", "argument": "", "why": planted, "confirm": f"pause {GRID}"}
        assert ask(address, "/commands", body, Authorization=f"Bearer {KEY}").code == 200

        async def steps(tab: Tab) -> None:
            await tab.until("document.getElementById('commands').innerText.includes('<img src=x')")
            assert await tab.read("document.querySelectorAll('img').length") == 0
            assert await tab.read("document.title") != "planted"

        assert browser.act(f"{address}/", steps) == []


@pytest.mark.timeout(300)
def test_it_says_when_the_process_is_gone(tmp_path: Path, browser: Browser) -> None:
    with running(tmp_path, "--speed", "300") as (address, process):
        eventually(lambda: ask(address, "/readyz").code == 200)

        async def steps(tab: Tab) -> None:
            await tab.until("document.querySelectorAll('#ladder tr').length > 5")
            process.kill()
            process.wait()
            await tab.until("!document.getElementById('stale').hidden")
            text = await tab.until("document.getElementById('stale').textContent")
            assert "has not answered for" in text and "Is it still running?" in text
            assert await tab.read("document.body.classList.contains('old')")

        problems = browser.act(f"{address}/", steps)
        assert problems and all("ERR_CONNECTION_REFUSED" in problem for problem in problems)
