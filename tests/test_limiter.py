"""No budget is ever exceeded at the exchange, cancels go first, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmm.limiter import (
    BUDGETS,
    PRIORITY,
    Budget,
    Late,
    Limiter,
    Limits,
    Ticket,
    _Window,
    budgets,
    feed,
    learn,
)
from virtual_time import VirtualLoop

KINDS = ("cancel", "query", "place")
TEN = [Budget("requests", "requests", 10, 1_000, KINDS, reserve=2)]
SMALL = [
    Budget("weight", "weight", 40, 5_000, KINDS, reserve=8),
    Budget("orders", "orders", 6, 1_000, ("place",)),
    Budget("requests", "requests", 12, 1_000, KINDS, reserve=3, panic=1),
]


class Asked(NamedTuple):
    """One request of a script: when it comes, what it costs, how long its answer takes, how long it may wait."""

    at_ms: int
    kind: str
    weight: int = 1
    orders: int = 1
    answer_ms: int = 20
    patience_ms: int | None = None


class Sent(NamedTuple):
    """One request that left, and when the exchange counted it."""

    at_ms: int
    counted_ms: int
    ticket: Ticket
    overtook: tuple[str, ...]  # kinds that waited


class World:
    """Plays a script on a limiter, in time that is only a number.

    Attributes:
        sent: What left, in order.
        late: What was told that it is late.
        now_ms: The time.
    """

    def __init__(self, limits: Limits, script: list[Asked], seed: int = 0) -> None:
        self.limits, self.now_ms, self.look_ms = limits, 0, 10**12
        self.sent: list[Sent] = []
        self.late: list[Ticket] = []
        self.asked: dict[Ticket, Asked] = {}
        self.rng = random.Random(seed)
        self.events: list[tuple[int, int, Asked | Ticket | None]] = []
        for asked in script:
            self.at(asked.at_ms, asked)

    def at(self, time_ms: int, what: Asked | Ticket | None) -> None:
        """Plan an event: a request, an answer, or a look at the clock."""
        heapq.heappush(self.events, (time_ms, self.rng.getrandbits(40), what))

    def play(self, until_ms: int = 10**9) -> World:
        """Play until nothing happens any more."""
        while self.events and self.events[0][0] <= until_ms:
            self.now_ms, _, what = heapq.heappop(self.events)
            if isinstance(what, Asked):
                deadline = None if what.patience_ms is None else self.now_ms + what.patience_ms
                ticket = self.limits.ask(
                    what.kind, self.now_ms, weight=what.weight, orders=what.orders, deadline_ms=deadline
                )
                self.asked[ticket] = what
                if ticket.state == "late":
                    self.late.append(ticket)
            elif isinstance(what, Ticket):
                self.limits.done(what, self.now_ms)
            due = self.limits.due(self.now_ms)
            passed = tuple(kind for kind, queue in self.limits._waiting.items() if queue)
            for ticket in due:
                if ticket.state == "late":
                    self.late.append(ticket)
                    continue
                answer_ms = self.asked[ticket].answer_ms
                counted_ms = self.now_ms + self.rng.randint(0, answer_ms)
                self.sent.append(Sent(self.now_ms, counted_ms, ticket, passed))
                self.at(self.now_ms + answer_ms, ticket)
            wake_ms = self.limits.wake_ms(self.now_ms)
            if what is None:
                self.look_ms = 10**12
            if wake_ms is not None and wake_ms < self.look_ms:
                self.look_ms = max(wake_ms, self.now_ms + 1)
                self.at(self.look_ms, None)
        return self


def exceeded(world: World, allowed: list[Budget]) -> list[str]:
    """Return which budgets the exchange saw exceeded, in any window whatever."""
    out = []
    for budget in allowed:
        seen = sorted((sent.counted_ms, _Window(budget).cost(sent.ticket)) for sent in world.sent)
        start = total = 0
        for at_ms, cost in seen:
            total += cost
            while seen[start][0] <= at_ms - budget.window_ms:
                total -= seen[start][1]
                start += 1
            if total > budget.limit:
                out.append(f"{budget.name}: {total} of {budget.limit} before {at_ms}")
                break
    return out


def used_reserve(world: World, allowed: list[Budget]) -> list[str]:
    """Return which reserves others than cancels used up: what counted when they left, as we must see it."""
    out = []
    for budget in allowed:
        window = _Window(budget)
        for n, sent in enumerate(world.sent):
            if not window.cost(sent.ticket):
                continue
            recent = [s for s in world.sent[: n + 1] if s.counted_ms > sent.at_ms - budget.window_ms]
            total = sum(window.cost(s.ticket) for s in recent)
            if total > window.room(sent.ticket.kind):
                out.append(f"{budget.name}: {total} at {sent.at_ms}")
    return out


requests = st.builds(
    Asked,
    st.integers(0, 6_000),
    st.sampled_from(PRIORITY),
    weight=st.integers(1, 20),
    orders=st.integers(1, 5),
    answer_ms=st.integers(0, 1_500),
    patience_ms=st.none() | st.integers(0, 4_000),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(requests, max_size=60), st.integers(0, 2**32))
def test_no_window_is_exceeded_and_everybody_gets_an_answer(script: list[Asked], seed: int) -> None:
    world = World(Limits(SMALL), script, seed).play()
    assert exceeded(world, SMALL) == []
    assert used_reserve(world, SMALL) == []
    assert len(world.sent) + len(world.late) == len(script), "somebody waits for ever"
    for sent in world.sent:
        assert sent.ticket.deadline_ms is None or sent.at_ms <= sent.ticket.deadline_ms
    for ticket in world.late:
        assert ticket.deadline_ms is not None and ticket.why
    assert all(window.flying == 0 for window in world.limits.windows.values())
    assert world.limits.wake_ms(world.now_ms) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(requests, max_size=60), st.integers(0, 2**32))
def test_nothing_passes_a_waiting_cancel(script: list[Asked], seed: int) -> None:
    """With one budget that all share nobody leaves while a cancel waits."""
    script = [asked._replace(weight=min(asked.weight, 8)) for asked in script]
    world = World(Limits([SMALL[0]]), script, seed).play()
    rank = {kind: number for number, kind in enumerate(PRIORITY)}
    for sent in world.sent:
        passed = [kind for kind in sent.overtook if rank[kind] < rank[sent.ticket.kind]]
        assert not {"panic", "cancel"} & set(passed)


def test_first_come_is_first_served_within_a_kind() -> None:
    world = World(Limits(TEN), [Asked(n, KINDS[n % 3]) for n in range(90)]).play()
    for kind in KINDS:
        asked = [sent.ticket.asked_ms for sent in world.sent if sent.ticket.kind == kind]
        assert asked == sorted(asked) and len(asked) == 30


def test_limit_is_used_to_the_full() -> None:
    """Patience is not sloth: 8 of 10 are for placements, and 80 of them take 10 windows."""
    world = World(Limits(TEN), [Asked(0, "place", answer_ms=0) for _ in range(80)]).play()
    assert world.sent[-1].at_ms == 9 * 1_001


# Fairness.


def test_placement_is_not_starved_by_queries() -> None:
    script = [Asked(n * 20, "query", answer_ms=0) for n in range(1_000)] + [
        Asked(3_000, "place", answer_ms=0)
    ]
    world = World(Limits(TEN), script).play()
    place = next(sent for sent in world.sent if sent.ticket.kind == "place")
    between = [s for s in world.sent if s.ticket.kind == "query" and s.at_ms >= 3_000 and s is not place]
    passed = sum(world.sent.index(s) < world.sent.index(place) for s in between)
    assert passed <= 3 and place.at_ms <= 4_001


def test_queries_are_not_starved_by_placements() -> None:
    script = [Asked(n * 20, "place", answer_ms=0) for n in range(1_000)]
    world = World(Limits(TEN), [*script, Asked(3_000, "query", answer_ms=0)]).play()
    query = next(sent for sent in world.sent if sent.ticket.kind == "query")
    assert query.at_ms <= 4_001


def test_both_get_their_share_when_both_are_many() -> None:
    script = [Asked(0, kind, answer_ms=0) for kind in ("query", "place") for _ in range(200)]
    limits = Limits(TEN)
    limits.stop(0, 1)
    world = World(limits, script).play(until_ms=10_000)
    kinds = [sent.ticket.kind for sent in world.sent]
    assert kinds.count("place") * 3 == kinds.count("query")


def test_heavy_query_is_not_starved_by_light_placements() -> None:
    script = [Asked(n * 50, "place", answer_ms=0) for n in range(400)]
    world = World(Limits([SMALL[0]]), [*script, Asked(4_000, "query", weight=30, answer_ms=0)]).play()
    query = next(sent for sent in world.sent if sent.ticket.kind == "query")
    assert query.at_ms - 4_000 <= 5_001


def test_placement_that_waits_for_its_order_count_does_not_hold_up_queries() -> None:
    script = [Asked(0, "place", orders=5, answer_ms=0) for _ in range(20)] + [Asked(100, "query")]
    world = World(Limits(SMALL), script).play()
    assert next(sent for sent in world.sent if sent.ticket.kind == "query").at_ms == 100


# Told to wait.


def test_while_told_to_wait_nothing_leaves() -> None:
    limits = Limits(TEN)
    feed(limits, {"Retry-After": "30"}, 1_000, status=429)
    script = [Asked(1_000 + n * 100, kind) for n in range(3) for kind in reversed(PRIORITY)]
    world = World(limits, script).play()
    assert min(sent.at_ms for sent in world.sent) == 31_000
    assert [sent.ticket.kind for sent in world.sent[:7]] == ["panic"] * 3 + ["cancel"] * 3 + ["query"]


def test_ban_is_an_alarm_until_it_ends() -> None:
    limits = Limits(TEN)
    feed(limits, {"retry-after": "120"}, 0, status=418)
    feed(limits, {"retry-after": "1"}, 10, status=429)
    assert limits.metrics(10).banned and limits.metrics(10).stopped_ms == 119_990, "a wait is never shortened"
    assert not limits.metrics(120_000).banned
    feed(limits, {"retry-after": "5"}, 130_000, status=429)
    assert not limits.metrics(130_001).banned and limits.metrics(130_000).throttles == 3


def test_without_retry_after_the_wait_grows_until_an_answer_is_good() -> None:
    limits, waits, now_ms = Limits(TEN), [], 0
    for _ in range(4):
        feed(limits, {}, now_ms, status=429)
        waits.append(limits.metrics(now_ms).stopped_ms)
        now_ms += waits[-1]
    feed(limits, {}, now_ms, status=200)
    feed(limits, {"Retry-After": "soon"}, now_ms, status=429)
    assert [*waits, limits.metrics(now_ms).stopped_ms] == [1_000, 2_000, 4_000, 8_000, 1_000]
    for _ in range(30):
        feed(limits, {}, now_ms, status=418)
    assert limits.metrics(now_ms).stopped_ms == 600_000


def test_placement_that_cannot_leave_in_time_is_told_at_once() -> None:
    limits = Limits(TEN)
    limits.stop(0, 10_000)
    ticket = limits.ask("place", 0, deadline_ms=9_999)
    assert limits.due(0) == [ticket] and ticket.state == "late"


def test_full_queue_answers_at_once_and_never_refuses_a_cancel() -> None:
    limits = Limits(TEN, waiting_max=5)
    limits.stop(0, 10_000)
    states = [limits.ask(kind, 0).state for kind in PRIORITY for _ in range(7)]
    assert states == ["waiting"] * 14 + (["waiting"] * 5 + ["late"] * 2) * 2


def test_what_can_never_be_sent_is_refused() -> None:
    limits = Limits(SMALL)
    with pytest.raises(ValueError, match="costs 33 of 'weight', which never allows more than 32"):
        limits.ask("query", 0, weight=33)
    limits.ask("cancel", 0, weight=33)
    with pytest.raises(ValueError, match="must be one of panic, cancel, query, place"):
        limits.ask("amend", 0)


def test_lowered_limit_does_not_lock_the_queue() -> None:
    limits = Limits([Budget("weight", "weight", 100, 60_000, PRIORITY)])
    limits.stop(0, 100)
    heavy, light = limits.ask("query", 0, weight=50), limits.ask("query", 0)
    rules = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 20}]
    learn(limits, rules, share_percent=100, reserve_percent=0)
    assert limits.due(100) == [heavy, light]
    assert (heavy.state, light.state) == ("late", "sent") and "never allows more than 20" in heavy.why


# What the exchange tells.


def test_foreign_use_is_charged_once() -> None:
    limits = Limits(budgets("binanceusdm"))
    ticket = limits.ask("place", 0, weight=1)
    limits.due(0)
    limits.done(ticket, 10)
    left = [limits.metrics(10).left["weight"]]
    for at_ms, used in ((20, "1"), (30, "701"), (40, "701"), (50, "5")):
        feed(limits, {"X-MBX-USED-WEIGHT-1M": used}, at_ms, utc_ms=50_000 + at_ms)
        left.append(limits.metrics(at_ms).left["weight"])
    assert [left[0] - now for now in left] == [0, 0, 700, 700, 700]
    # what others used ends with the exchange's minute, a hundredth of it later; what we used, a minute after it was
    assert limits.metrics(10_600).left["weight"] == left[0] - 700
    assert limits.metrics(10_601).left["weight"] == left[0]
    assert limits.metrics(60_051).left["weight"] == left[0] + 1


def test_order_counts_of_the_headers_hold_placements_only() -> None:
    limits = Limits(budgets("binance"))
    feed(limits, {"x-mbx-order-count-10s": "80", "X-MBX-ORDER-COUNT-1D": "81"}, 0, kind="place")
    left = limits.metrics(0).left
    assert (left["orders 10s"], left["orders 1d"]) == (0, 160_000 - 81)
    place, query = limits.ask("place", 0), limits.ask("query", 0)
    assert limits.due(0) == [query] and limits.wake_ms(0) == 10_101
    assert limits.due(10_101) == [place]


def test_bybit_tells_what_is_left_of_each_kind() -> None:
    limits = Limits(budgets("bybit", share_percent=100))
    headers = {
        "X-Bapi-Limit": "10",
        "X-Bapi-Limit-Status": "4",
        "X-Bapi-Limit-Reset-Timestamp": "1672738134824",
    }
    feed(limits, headers, 0, utc_ms=1_672_738_134_824, kind="place")
    left = limits.metrics(0).left
    assert (left["place"], left["cancel"], left["query"]) == (4, 10, 50)
    feed(limits, headers | {"X-Bapi-Limit-Status": "0"}, 100, utc_ms=1_672_738_134_424, kind="cancel")
    cancel = limits.ask("cancel", 100)
    assert limits.due(100) == [] and limits.wake_ms(100) == 1_101
    assert limits.due(1_101) == [cancel]


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "X-MBX-USED-WEIGHT-1M",
                "x-bapi-limit",
                "X-Bapi-Limit-Status",
                "X-Bapi-Limit-Reset-Timestamp",
                "Retry-After",
            ]
        ),
        st.text(max_size=20) | st.integers(-5, 10**18).map(str),
    ),
    st.sampled_from(sorted(BUDGETS)),
    st.sampled_from(PRIORITY),
    st.sampled_from([200, 400, 418, 429, 500]),
)
def test_no_header_breaks_the_limiter(headers: dict[str, str], exchange: str, kind: str, status: int) -> None:
    limits = Limits(budgets(exchange))
    feed(limits, headers, 0, utc_ms=1_672_738_134_824, kind=kind, status=status)
    assert all(left >= 0 for left in limits.metrics(0).left.values())
    ticket = limits.ask("cancel", 0)
    wake_ms = limits.wake_ms(0)
    assert wake_ms is not None
    limits.due(wake_ms)
    assert ticket.state == "sent"


def test_exchange_info_replaces_the_table() -> None:
    limits = Limits(budgets("binanceusdm"))
    learn(
        limits,
        [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 4_800},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 10_000},
            {"rateLimitType": "ORDERS", "interval": "FORTNIGHT", "intervalNum": 1, "limit": 1},
            {"rateLimitType": "NEW", "interval": "MINUTE", "intervalNum": 1, "limit": 1},
        ],
    )
    found = {name: (window.budget.limit, window.budget.reserve) for name, window in limits.windows.items()}
    assert found == {"weight": (3_840, 384), "orders 10s": (8_000, 0), "orders 1m": (960, 0)}


def test_table_of_budgets() -> None:
    assert sorted(BUDGETS) == ["binance", "binanceusdm", "bitget", "bybit", "gate", "okx"]
    for exchange, rules in BUDGETS.items():
        assert len({rule.name for rule in rules}) == len(rules)
        assert {kind for rule in rules for kind in rule.kinds} == set(KINDS), exchange
        for rule in rules:
            assert rule.unit in ("weight", "orders", "requests") and rule.limit > 0 and rule.source
            assert rule.unit != "orders" or rule.kinds == ("place",)
    told = {rule.name: rule.limit for rule in BUDGETS["binance"]}
    assert told == {"weight": 6_000, "orders 10s": 100, "orders 1d": 200_000, "requests": 61_000}


@given(st.integers(1, 10**6), st.integers(1, 100), st.integers(0, 100))
def test_share_leaves_room_for_all(limit: int, percent: int, reserve_percent: int) -> None:
    for kinds in (KINDS, ("cancel",), ("place",)):
        mine = Budget("x", "requests", limit, 1_000, kinds).share(percent, reserve_percent)
        assert 0 <= mine.panic <= mine.reserve < mine.limit <= limit
        assert bool(mine.reserve) == ("cancel" in kinds and reserve_percent > 0 and mine.limit > 1)
        assert bool(mine.panic) == bool(mine.reserve)


def test_day_of_orders_is_kept_in_few_numbers() -> None:
    window = _Window(Budget("orders", "orders", 200_000, 86_400_000, ("place",)))
    for n in range(100_000):
        window.charge(n * 860, 1)
    assert len(window._charges) <= 257 and window.used(99_999 * 860) == 100_000
    assert window.used(99_999 * 860 + 86_400_001) == 0


def test_metrics_tell_churn_and_waiting() -> None:
    limits = Limits(SMALL)
    assert limits.metrics(0).churn is None
    world = World(limits, [Asked(0, "place", orders=3), Asked(0, "cancel"), Asked(0, "place", orders=5)])
    world.play(until_ms=0)
    limits.fills += 2
    told = limits.metrics(0)
    assert (told.fills, told.waiting["place"]) == (2, 1)
    assert told.orders in (3, 5) and told.churn == told.orders / 2
    assert told.sent == {"panic": 0, "cancel": 1, "query": 0, "place": 1}
    assert told.left == {"weight": 38, "orders": 6 - told.orders, "requests": 10}


# With asyncio, in virtual time.


def run(story: Callable[[Limiter], Coroutine[Any, Any, Any]], limits: Limits) -> Any:
    """Run a story with a limiter on a loop whose time is a number."""
    loop = VirtualLoop()
    limiter = Limiter(limits, lambda: round(loop.time() * 1_000))
    try:
        return loop.run_until_complete(story(limiter))
    finally:
        loop.close()


async def send(limiter: Limiter, kind: str, answer_s: float = 0.02, **more: Any) -> tuple[int, int]:
    """Take a turn; return when it was asked for and when it came."""
    asked = limiter.clock()
    async with limiter.turn(kind, **more):
        left = limiter.clock()
        await asyncio.sleep(answer_s)
    return asked, left


@pytest.mark.parametrize("exchange", sorted(BUDGETS))
def test_panic_behind_a_full_queue_leaves_at_once(exchange: str) -> None:
    """On the documented budgets of each exchange: hundreds of everything wait, cancels too, and the cancel-all waits 0 ms."""

    async def story(limiter: Limiter) -> tuple[int, int, int]:
        jam = [asyncio.ensure_future(send(limiter, "place")) for _ in range(900)]
        jam += [asyncio.ensure_future(send(limiter, "query", weight=40)) for _ in range(300)]
        jam += [asyncio.ensure_future(send(limiter, "cancel", weight=10)) for _ in range(900)]
        await asyncio.sleep(0.5)
        waiting = sum(limiter.limits.metrics(limiter.clock()).waiting.values())
        asked, left = await send(limiter, "panic")
        for task in jam:
            task.cancel()
        await asyncio.gather(*jam, return_exceptions=True)
        return waiting, left - asked, limiter.limits.metrics(limiter.clock()).waiting["panic"]

    waiting, waited_ms, left_over = run(story, Limits(budgets(exchange)))
    assert waiting > 300
    assert (waited_ms, left_over) == (0, 0)


def test_all_turns_come_and_none_too_early() -> None:
    async def story(limiter: Limiter) -> list[tuple[int, int]]:
        return await asyncio.gather(*(send(limiter, "place", answer_s=0) for _ in range(40)))

    left = [when for _, when in run(story, Limits(TEN))]
    assert sorted(left) == [n // 8 * 1_001 for n in range(40)]


def test_late_placement_is_never_sent() -> None:
    async def story(limiter: Limiter) -> list[str]:
        jam = asyncio.gather(*(send(limiter, "place") for _ in range(20)))
        await asyncio.sleep(0)
        out = []
        for patience in (500, 5_000):
            try:
                asked, left = await send(limiter, "place", deadline_ms=limiter.clock() + patience)
                out.append("sent" if left <= asked + patience else "sent late")
            except Late as late:
                out.append(str(late))
        await jam
        return out

    first, second = run(story, Limits(TEN))
    assert first == "its deadline passed after 501 ms in the queue" and second == "sent"


def test_process_that_was_busy_does_not_send_late() -> None:
    """The turn is granted in time, and the loop comes to it too late."""
    now = {"ms": 0}

    async def story() -> tuple[str, Limits]:
        limiter = Limiter(Limits(TEN), lambda: now["ms"])
        limiter.limits.stop(0, 10)
        task = asyncio.ensure_future(send(limiter, "place", deadline_ms=100))
        await asyncio.sleep(0)
        now["ms"] = 50
        limiter.pump()
        now["ms"] = 300
        try:
            await task
        except Late as late:
            return str(late), limiter.limits
        raise AssertionError("sent late")

    loop = VirtualLoop()
    try:
        why, limits = loop.run_until_complete(story())
    finally:
        loop.close()
    assert why == "the process was busy until 200 ms after its deadline"
    assert limits.metrics(300).left["requests"] == 10 and limits.metrics(300).sent["place"] == 0


def test_whoever_gives_up_takes_no_place() -> None:
    async def story(limiter: Limiter) -> Any:
        jam = [asyncio.ensure_future(send(limiter, "place", answer_s=0)) for _ in range(30)]
        await asyncio.sleep(0.1)
        for task in jam[8:]:
            task.cancel()
        await asyncio.gather(*jam, return_exceptions=True)
        told = limiter.limits.metrics(limiter.clock())
        return told.waiting["place"], told.sent["place"], await send(limiter, "place")

    waiting, sent, (_, left) = run(story, Limits(TEN))
    assert (waiting, sent, left) == (0, 8, 1_001)


def test_failed_request_was_sent_all_the_same() -> None:
    async def story(limiter: Limiter) -> Any:
        with pytest.raises(RuntimeError, match="no answer"):
            async with limiter.turn("place"):
                await asyncio.sleep(0.5)
                raise RuntimeError("no answer")
        return limiter.limits.metrics(limiter.clock()).left["requests"], limiter.limits.windows[
            "requests"
        ].flying

    assert run(story, Limits(TEN)) == (9, 0)


def test_closing_ends_all_waits() -> None:
    async def story(limiter: Limiter) -> list[Any]:
        jam = [asyncio.ensure_future(send(limiter, "place")) for _ in range(10)]
        await asyncio.sleep(0.1)
        limiter.close()
        out = await asyncio.gather(*jam, send(limiter, "cancel"), return_exceptions=True)
        return [result for result in out if isinstance(result, Late)]

    assert [str(late) for late in run(story, Limits(TEN))] == ["the limiter is closed"] * 3


@pytest.mark.parametrize("exchange", sorted(BUDGETS))
def test_cancels_behind_placements_and_queries_leave_at_once(exchange: str) -> None:
    """Without a panic: five single cancels behind hundreds of placements and queries."""

    async def story(limiter: Limiter) -> list[int]:
        jam = [asyncio.ensure_future(send(limiter, "place")) for _ in range(500)]
        jam += [asyncio.ensure_future(send(limiter, "query", weight=40)) for _ in range(200)]
        await asyncio.sleep(0.5)
        waits = [
            left - asked for asked, left in await asyncio.gather(*(send(limiter, "cancel") for _ in range(5)))
        ]
        for task in jam:
            task.cancel()
        await asyncio.gather(*jam, return_exceptions=True)
        return [*waits, limiter.limits.metrics(limiter.clock()).cancel_wait_ms]

    assert run(story, Limits(budgets(exchange))) == [0] * 6


def test_refusal_of_the_exchange_holds_turns_back() -> None:
    async def story(limiter: Limiter) -> tuple[int, int]:
        await send(limiter, "place")
        limiter.feed({"Retry-After": "7"}, status=429)
        return await send(limiter, "cancel")

    assert run(story, Limits(TEN)) == (20, 7_020)


# The guard is guarded: limiters that are wrong in one way each.


class Fifo(Limits):
    """Serves whoever came first."""

    def _first(self, now_ms: int) -> tuple[Ticket | None, list[int]]:
        waiting = [queue[0] for queue in self._waiting.values() if queue]
        held = dict(self._waiting)
        try:
            if waiting:
                first = min(waiting, key=lambda ticket: ticket.asked_ms)
                self._waiting = {k: (q if k == first.kind else type(q)()) for k, q in held.items()}
            return super()._first(now_ms)
        finally:
            self._waiting = held


class NoReserve(Limits):
    """Lets everybody use the reserve."""

    def __init__(self, allowed: Any, **more: Any) -> None:
        super().__init__([replace(budget, reserve=0) for budget in allowed], **more)


class CountsWhenSent(Limits):
    """Takes the moment of sending for the moment when the exchange counted."""

    def _send(self, ticket: Ticket, now_ms: int) -> None:
        ticket.asked_ms = now_ms
        super()._send(ticket, now_ms)

    def _land(self, ticket: Ticket, now_ms: int | None) -> None:
        super()._land(ticket, None if now_ms is None else ticket.asked_ms)


class ForgetsFlight(Limits):
    """Counts only what was answered."""

    def _send(self, ticket: Ticket, now_ms: int) -> None:
        super()._send(ticket, now_ms)
        for window in self.windows.values():
            window.flying = 0

    def _land(self, ticket: Ticket, now_ms: int | None) -> None:
        super()._land(ticket, now_ms)
        for window in self.windows.values():
            window.flying = 0


class NeverStops(Limits):
    """Goes on after a 429."""

    def stop(self, now_ms: int, wait_ms: int, *, banned: bool = False) -> None:
        """Do nothing of the kind."""
        super().stop(now_ms, 0, banned=banned)


class StarvesPlacements(Limits):
    """Always takes the query."""

    def __init__(self, allowed: Any, **more: Any) -> None:
        super().__init__(allowed, queries_per_place=10**9)


class SendsLate(Limits):
    """Forgets deadlines."""

    def _too_late(self, ticket: Ticket, now_ms: int) -> bool:
        return False

    def wake_ms(self, now_ms: int) -> int | None:
        """Look seldom: a deadline that is over would be looked at again and again."""
        at_ms = super().wake_ms(now_ms)
        return at_ms if at_ms is None or at_ms > now_ms else now_ms + 50


class LeavesAMillisecondEarly(Limits):
    """Believes that a window is over when it is not."""

    def __init__(self, allowed: Any, **more: Any) -> None:
        super().__init__([replace(budget, window_ms=budget.window_ms - 2) for budget in allowed], **more)


def faults(make: type[Limits]) -> set[str]:
    """Return which promises a limiter breaks."""
    rng, out = random.Random(7), set()
    for seed in range(12):
        script = [
            Asked(
                rng.randint(0, 4_000),
                rng.choice(PRIORITY),
                rng.randint(1, 6),
                rng.randint(1, 3),
                rng.randint(0, 900),
                rng.choice([None, 300, 2_000]),
            )
            for _ in range(80)
        ]
        world = World(make(SMALL), script, seed).play()
        out |= {"window"} if exceeded(world, SMALL) else set()
        out |= {"reserve"} if used_reserve(world, SMALL) else set()
        in_time = all(s.ticket.deadline_ms is None or s.at_ms <= s.ticket.deadline_ms for s in world.sent)
        out |= set() if in_time else {"deadline"}
    jam = [Asked(0, "place", answer_ms=0) for _ in range(50)]
    exact = World(make(TEN), jam).play()
    out |= {"window"} if exceeded(exact, TEN) else set()
    panic = World(make(TEN), [*jam, Asked(5, "cancel")]).play()
    out |= set() if next(s for s in panic.sent if s.ticket.kind == "cancel").at_ms == 5 else {"panic"}
    queries = [Asked(n * 20, "query", answer_ms=0) for n in range(1_000)]
    fair = World(make(TEN), [*queries, Asked(3_000, "place")]).play()
    out |= set() if next(s for s in fair.sent if s.ticket.kind == "place").at_ms <= 4_001 else {"fair"}
    told = make(TEN)
    feed(told, {"Retry-After": "30"}, 0, status=429)
    out |= set() if World(told, [Asked(0, "cancel")]).play().sent[0].at_ms == 30_000 else {"stop"}
    return out


@pytest.mark.parametrize(
    ("make", "broken"),
    [
        (Limits, set()),
        (Fifo, {"panic", "fair"}),
        (NoReserve, {"reserve", "panic"}),
        (CountsWhenSent, {"window", "reserve"}),
        (ForgetsFlight, {"window", "reserve"}),
        (NeverStops, {"stop"}),
        (StarvesPlacements, {"fair"}),
        (SendsLate, {"deadline"}),
        (LeavesAMillisecondEarly, {"window"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_planted_limiter_is_noticed(make: type[Limits], broken: set[str]) -> None:
    assert broken <= faults(make) and (broken or not faults(make))
