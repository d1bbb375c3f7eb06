"""No stretch of time ever holds more than is allowed, and a cancel never waits for an order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmm import limiter as module
from gridmm.limiter import RESERVE_PCT, Limit, Limiter, TooLate, Window
from virtual_time import VirtualLoop

TIGHT = (Limit("weight", 60_000, 100, "x-used-weight-1m"), Limit("orders", 10_000, 20, "x-order-count-10s"))


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trade on an exchange of narrow limits."""
    monkeypatch.setitem(module.LIMITS, ("tight", "spot"), TIGHT)


def virtually(work: Callable[[Limiter], Awaitable[None]]) -> None:
    """Run in virtual time."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work(Limiter("tight", "spot")))
    finally:
        loop.close()


def now_ms() -> int:
    """Return the loop's time."""
    return int(asyncio.get_running_loop().time() * 1_000)


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_no_stretch_holds_more_than_is_allowed(seed: int) -> None:
    draw, went = random.Random(seed), list[dict[str, int]]()

    async def work(limiter: Limiter) -> None:
        async def ask(after_s: float, kind: str, weight: int) -> None:
            await asyncio.sleep(after_s)
            orders = 1 if kind == "place" else 0
            async with limiter.turn(kind, weight, orders=orders):
                went.append(
                    {"ms": now_ms(), "cancel": int(kind == "cancel"), "weight": weight, "orders": orders}
                )

        kinds = [draw.choice(("cancel", "query", "place", "place")) for _ in range(80)]
        await asyncio.gather(*(ask(draw.uniform(0, 20), kind, draw.randint(1, 9)) for kind in kinds))

    virtually(work)
    assert len(went) == 80
    for limit in TIGHT:
        for start in went:
            inside = [one for one in went if 0 <= one["ms"] - start["ms"] < limit.period_ms]
            assert sum(one[limit.what] for one in inside) <= limit.most
            most = limit.most * (100 - RESERVE_PCT) // 100
            assert sum(one[limit.what] for one in inside if not one["cancel"]) <= most, (
                "the reserve is for cancels"
            )


def test_a_cancel_behind_a_full_queue_leaves_at_once() -> None:
    async def work(limiter: Limiter) -> None:
        waiting = []

        async def place() -> None:
            async with limiter.turn("place", 1, orders=1):
                pass

        for _ in range(40):
            waiting.append(asyncio.create_task(place()))
        await asyncio.sleep(0.001)
        began_ms = now_ms()
        async with limiter.turn("cancel", 1):
            assert now_ms() == began_ms
        assert sum(task.done() for task in waiting) < 40
        await asyncio.gather(*waiting)
        assert now_ms() - began_ms >= 10_000, "the orders kept their limit"

    virtually(work)


def test_an_order_whose_time_is_over_never_goes() -> None:
    async def work(limiter: Limiter) -> None:
        for _ in range(18):
            async with limiter.turn("place", 1, orders=1):
                pass
        with pytest.raises(TooLate):
            async with limiter.turn("place", 1, within_ms=2_000, orders=1):
                raise AssertionError("it went")
        assert (now_ms(), limiter.late, limiter.sent["place"]) == (2_000, 1, 18)
        await asyncio.sleep(20)
        assert limiter.sent["place"] == 18, "nor later"

    virtually(work)


def test_a_turn_that_is_given_up_leaves_nothing_behind() -> None:
    async def work(limiter: Limiter) -> None:
        limiter.hush(5_000)

        async def query() -> None:
            async with limiter.turn("query", 90):
                pass

        task = asyncio.create_task(query())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(6)
        assert limiter.sent["query"] == 0 and limiter.left_pct == 100

    virtually(work)


def test_when_the_exchange_asks_for_silence_nothing_goes() -> None:
    async def work(limiter: Limiter) -> None:
        limiter.hush(30_000, banned=True)
        async with limiter.turn("cancel", 1):
            assert now_ms() == 30_000

    virtually(work)


def test_what_others_use_of_the_same_limit_counts() -> None:
    async def work(limiter: Limiter) -> None:
        limiter.feed({"X-Used-Weight-1M": "90", "X-Order-Count-10S": "2"})
        assert limiter.left_pct == 10
        async with limiter.turn("query", 5):
            assert now_ms() == 60_000, "the exchange's minute had to pass"

    virtually(work)


def test_questions_do_not_keep_an_order_waiting_for_ever() -> None:
    async def work(limiter: Limiter) -> None:
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                async with limiter.turn("query", 9):
                    pass

        askers = [asyncio.create_task(ask()) for _ in range(6)]
        await asyncio.sleep(0.1)
        async with limiter.turn("place", 1, orders=1):
            assert now_ms() <= 70_000
        done.set()
        await asyncio.gather(*askers)

    virtually(work)


def test_a_window_that_forgets_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(window: Window, now_ms: int) -> None:
        window._asked.clear()
        window.used = 0

    monkeypatch.setattr(Window, "_forget", forget)
    with pytest.raises(AssertionError):
        test_no_stretch_holds_more_than_is_allowed.hypothesis.inner_test(3)  # type: ignore[attr-defined]
