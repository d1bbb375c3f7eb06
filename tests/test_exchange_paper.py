"""The paper exchange keeps the promise, and a process that is killed loses nothing that was heard of."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmm.errors import Fenced, StateError, StoreUnreachable, UnknownVersion, WrongSymbol
from gridmm.exchange import (
    Absent,
    Accepted,
    Exchange,
    Fill,
    Funding,
    NotSent,
    OrderReport,
    OrderRequest,
    Rejected,
    RejectReason,
    Unknown,
)
from gridmm.exchange_paper import PaperExchange, PaperRules
from gridmm.paper_account import MAX_REQUESTS, Row, Sum
from paper_world import COIN, PERP, rows, session

D = Decimal


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test that awaits."""
    asyncio.run(work)


def buy(client_id: str, price: str, quantity: str = "1.0", **flags: bool) -> OrderRequest:
    """A buy order."""
    return OrderRequest(client_id, +1, D(price), D(quantity), **flags)


def sell(client_id: str, price: str, quantity: str = "1.0", **flags: bool) -> OrderRequest:
    """A sell order."""
    return OrderRequest(client_id, -1, D(price), D(quantity), **flags)


def open_market(instrument: Any = COIN, place: Path | None = None, **rules: Any) -> PaperExchange:
    """A paper exchange that shows 9.99 to 10.01."""
    paper = PaperExchange(instrument, PaperRules(**rules), place, synchronous="OFF")
    if paper.resume_row == 0:
        paper.advance(Row.QUOTE, 1_000, 999, 1_001, 30, 30, row_index=0)
    return paper


async def send(paper: PaperExchange, *requests: OrderRequest) -> asyncio.Task:
    """Place without waiting for the answer."""
    call = asyncio.create_task(paper.place(requests))
    await asyncio.sleep(0)
    return call


def test_it_is_an_exchange() -> None:
    exchange: Exchange = open_market()
    assert exchange.name == "paper"


def test_every_refusal_has_its_reason() -> None:
    async def work() -> None:
        paper = open_market(base=D(1))
        orders = [
            buy("TAKES", "10.01"),
            buy("OFFTICK", "9.985"),
            buy("OFFLOT", "9.98", "1.05"),
            buy("HUGE", "9.98", "1E+30"),
            buy("NOTHING", "9.98", "0"),
            buy("SMALL", "9.98", "0.1"),
            buy("RICH", "9.98", "9999.0"),
            sell("SHORT", "10.02", "1.1"),
            buy("GOOD", "9.98"),
            buy("GOOD", "9.97"),
        ]
        answers = await paper.place(orders)
        reasons = [answer.reason if isinstance(answer, Rejected) else None for answer in answers]
        r = RejectReason
        filters = [r.FILTER] * 4
        assert reasons == [r.POST_ONLY, *filters, r.NOTIONAL, r.FUNDS, r.FUNDS, None, r.DUPLICATE]
        assert await paper.cancel(["GOOD", "NEVER"]) == [
            Accepted("GOOD", "9"),
            Rejected("NEVER", r.UNKNOWN_ORDER, "no open order has this client id"),
        ]
        rejected = await paper.order("SMALL")
        assert isinstance(rejected, OrderReport)
        assert (rejected.status, rejected.reason) == ("rejected", "NOTIONAL")

    run(work())


def test_reduce_only_is_for_perpetuals() -> None:
    async def work() -> None:
        perpetual = open_market(PERP)
        (answer,) = await perpetual.place([sell("CLOSE", "10.02", reduce_only=True)])
        assert isinstance(answer, Rejected)
        assert answer.reason is RejectReason.REDUCE_ONLY
        spot = open_market(base=D(5))
        (answer,) = await spot.place([sell("CLOSE", "10.02", reduce_only=True)])
        assert isinstance(answer, Accepted)

    run(work())


def test_the_four_answers_with_latency() -> None:
    async def work() -> None:
        paper = open_market(latency_ms=50, response_ms=30)
        call = await send(paper, buy("A", "9.98"), buy("B", "10.02"))
        assert paper.waiting == 2
        assert await paper.order("A") == Absent("A", final=False)
        assert await paper.open_orders() == []
        paper.advance(Row.TIME, 1_050)
        assert len(await paper.open_orders()) == 1, "it is there"
        assert (paper.waiting, paper.drain(), call.done()) == (2, [], False), "and nobody has heard of it"
        paper.advance(Row.TIME, 1_079)
        assert paper.waiting == 2
        paper.advance(Row.TIME, 1_080)
        accepted, rejected = await call
        assert (accepted, type(rejected)) == (Accepted("A", "1"), Rejected)
        assert [event.time_ms for event in paper.drain()] == [1_050]
        call = await send(paper, *(buy(f"N{i}", "9.00") for i in range(MAX_REQUESTS + 1)))
        await paper.close()
        answers = await call
        assert {type(answer) for answer in answers[:-1]} == {Unknown}
        assert answers[-1] == NotSent(f"N{MAX_REQUESTS}", "too many commands are on their way")
        assert await paper.cancel(["A"]) == [NotSent("A", "the exchange is closed")]
        assert await paper.cancel_all() == [NotSent("", "the exchange is closed")]

    run(work())


def test_a_caller_that_gives_up_leaves_nothing_behind() -> None:
    async def work() -> None:
        paper = open_market(latency_ms=50)
        call = await send(paper, buy("A", "9.98"), buy("B", "9.97"))
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert paper.waiting == 0
        paper.advance(Row.TIME, 2_000)
        assert len(await paper.open_orders()) == 2
        assert paper._answers == {}

    run(work())


def test_an_order_that_was_cancelled_on_its_way_meets_the_cancel() -> None:
    async def work() -> None:
        paper = open_market(latency_ms=50)
        place = await send(paper, buy("A", "9.98"))
        cancel = asyncio.create_task(paper.cancel(["A"]))
        await asyncio.sleep(0)
        paper.advance(Row.TIME, 1_050)
        assert [await place, await cancel] == [[Accepted("A", "1")]] * 2
        assert [event.status for event in paper.drain() if isinstance(event, OrderReport)] == [
            "open",
            "canceled",
        ]

    run(work())


def test_cancel_all_names_what_it_cancelled() -> None:
    async def work() -> None:
        paper = open_market()
        assert await paper.cancel_all() == []
        await paper.place([buy("A", "9.98"), buy("B", "9.97")])
        assert await paper.cancel_all() == [Accepted("A", "1"), Accepted("B", "2")]
        assert await paper.open_orders() == []
        slow = open_market(latency_ms=10)
        calls = [await send(slow, buy("A", "9.98")), asyncio.create_task(slow.cancel_all())]
        await asyncio.sleep(0)
        calls.append(await send(slow, buy("B", "9.98")))
        slow.advance(Row.TIME, 1_010)
        assert [await call for call in calls] == [
            [Accepted("A", "1")],
            [Accepted("A", "1")],
            [Accepted("B", "2")],
        ]
        assert [report.client_id for report in await slow.open_orders()] == ["B"]

    run(work())


def test_a_client_id_may_come_again_when_its_order_has_ended() -> None:
    async def work() -> None:
        paper = open_market()
        await paper.place([buy("A", "9.98")])
        await paper.cancel(["A"])
        assert (await paper.order("A")).status == "canceled"  # type: ignore[union-attr]
        assert await paper.place([buy("A", "9.97"), buy("A", "9.96")]) == [
            Accepted("A", "2"),
            Rejected("A", RejectReason.DUPLICATE, "an open order has this client id"),
        ]
        await paper.cancel(["A"])
        again = await paper.order("A")
        assert isinstance(again, OrderReport)
        assert (again.exchange_id, again.status) == ("2", "canceled"), "the refused twin is not the order"
        assert await paper.order("B") == Absent("B", final=True)

    run(work())


def test_events_come_in_the_order_in_which_things_happened() -> None:
    async def work() -> None:
        paper = open_market(base=D(5))
        await paper.place([buy("A", "9.99", "2.0"), sell("B", "10.00", post_only=False)])
        assert paper.advance(Row.TRADE, 1_001, 998, 1) == 4
        events = paper.drain()
        assert [type(event) for event in events] == [OrderReport, OrderReport, Fill, OrderReport]
        fill = events[2]
        assert isinstance(fill, Fill)
        assert (fill.price, fill.quantity, fill.maker) == (D("9.99"), D("2.0"), True)
        assert (fill.fee, fill.fee_asset) == (D("0.01998"), "USDT")
        assert paper.drain() == []
        assert await paper.fills(1_001) == [fill]
        assert await paper.fills(1_002) == []

    run(work())


def test_the_stream_ends_when_the_exchange_is_closed() -> None:
    async def work() -> None:
        paper = open_market()
        heard: list[str] = []

        async def listen() -> None:
            async for event in paper.stream():
                heard.append(type(event).__name__)

        listener = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await paper.place([buy("A", "9.99")])
        await asyncio.sleep(0)
        paper.advance(Row.TRADE, 1_001, 998, 1)
        await asyncio.sleep(0)
        await paper.close()
        await paper.close()
        await listener
        assert heard == ["OrderReport", "Fill", "OrderReport"]

    run(work())


def test_fees_in_base_leave_base_and_quote_exact() -> None:
    async def work() -> None:
        paper = open_market(quote=D(100), fee_in_base=True)
        await paper.place([buy("A", "9.99", "1.3")])
        paper.advance(Row.TRADE, 1_001, 998, 1)
        (fill,) = await paper.fills(0)
        assert (fill.fee, fill.fee_asset) == (D("0.0013"), "COIN")
        quote, base = await paper.balances()
        assert (quote.total, base.total) == (D(100) - D("12.987"), D("1.2987"))
        (answer,) = await paper.place([sell("B", "10.02", "1.3")])
        assert isinstance(answer, Rejected), "what the fee took cannot be sold"
        assert await paper.positions() == []

    run(work())


def test_a_perpetual_has_a_position_a_wallet_and_funding() -> None:
    async def work() -> None:
        paper = open_market(PERP, quote=D(100), position=D("-2.0"), entry_price=D("11.00"), leverage=2)
        (position,) = await paper.positions()
        assert (position.quantity, position.entry_price) == (D("-2.0"), D("11.00"))
        assert paper.instrument.money(paper.equity_atoms()) == D(102)
        (wallet,) = await paper.balances()
        assert wallet.total == 100
        assert wallet.free == D(102) - D(10) - D("0.01"), "half of 20 as margin, and the fee of 20"
        paper.advance(Row.FUNDING, 2_000, 10_000, 1_000)
        assert paper.drain() == [Funding("1", D("0.00200000"), 2_000)]
        assert paper.instrument.money(paper.funding_atoms) == D("0.002")
        await paper.place([buy("A", "10.01", "1.0", post_only=False)])
        (position,) = await paper.positions()
        assert (position.quantity, paper.position_lots, paper.ledger_position_lots) == (D("-1.0"), -10, 10)
        (wallet,) = await paper.balances()
        assert wallet.total == D(100) + D("0.002") + D("0.99") - D("0.005005")

    run(work())


def test_what_it_cannot_be_made_with() -> None:
    for bad in (
        {"leverage": 0},
        {"latency_ms": -1},
        {"max_open_orders": 513},
        {"quote": D(-1)},
        {"position": D(1)},
    ):
        with pytest.raises(ValueError, match=r"was|were"):
            PaperRules(**bad)
    with pytest.raises(ValueError, match="synchronous was 'MAYBE'"):
        PaperExchange(COIN, synchronous="MAYBE")


def test_rows_come_once_and_in_order() -> None:
    paper = open_market()
    with pytest.raises(ValueError, match="go on with row 1"):
        paper.advance(Row.QUOTE, 1_001, 999, 1_001, row_index=0)
    with pytest.raises(ValueError, match="backwards"):
        paper.advance(Row.QUOTE, 999, 999, 1_001, row_index=1)
    assert paper.resume_row == 1


def test_a_ledger_goes_on_only_as_it_began(tmp_path: Path) -> None:
    path = tmp_path / "paper.db"
    run(PaperExchange(COIN, place=path, tape="one").close())
    run(PaperExchange(COIN, place=path, tape="one").close())
    with pytest.raises(WrongSymbol, match="COIN/USDT:USDT"):
        PaperExchange(PERP, place=path, tape="one")
    with pytest.raises(
        StateError, match=r"begun on other prices: --feed, .* Name another file with --db, or"
    ):
        PaperExchange(replace(COIN, min_quantity=D(3)), place=path, tape="two")
    with pytest.raises(
        StateError, match=r"with latency in \[paper\] = 0 ms: .* latency in \[paper\] = 1 ms\. Put"
    ):
        PaperExchange(COIN, PaperRules(latency_ms=1, response_ms=1), path, tape="one")
    changed = replace(COIN, maker_fee_ppm=150, min_quantity=D("0.3"))
    with pytest.raises(StateError) as raised:
        PaperExchange(changed, PaperRules(quote=D(5), fee_in_base=True), path, tape="one")
    for words in (
        "equity in [paper] = 10000",
        "equity in [paper] = 5",
        "fee_asset in [paper] = base",
        "maker_fee in [instrument] = 1.5 bps",
        "min_quantity in [instrument] = 0.3",
        "--fresh, which keeps the old files",
    ):
        assert words in str(raised.value)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE progress SET version = 99")
    with pytest.raises(UnknownVersion, match="format 99"):
        PaperExchange(COIN, place=path, tape="one")


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy low, sell high\n" * 99)
    before = path.read_bytes()
    with pytest.raises(
        StateError, match=r"notes.txt: the paper ledger is damaged: .* start again with --fresh"
    ):
        PaperExchange(COIN, place=path)
    assert path.read_bytes() == before
    with pytest.raises(StoreUnreachable, match="cannot be opened: No such file or directory"):
        PaperExchange(COIN, place=tmp_path / "nowhere" / "paper.db")


def damage_page(path: Path) -> None:
    """Overwrite the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : 3 * len(data) // 4] = b"?" * (len(data) // 2)
    path.write_bytes(data)


def damage_table(path: Path) -> None:
    """Cut a saved table short."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE progress SET sums = substr(sums, 1, 12)")


def damage_row(path: Path) -> None:
    """Remove what says how far it came."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM progress")


@pytest.mark.parametrize("damage", [damage_page, damage_table, damage_row])
def test_a_damaged_ledger_is_refused_and_says_what_to_do(tmp_path: Path, damage: Callable) -> None:
    async def work() -> None:
        paper = open_market(place=tmp_path / "paper.db")
        await paper.place([buy(f"A{number}", "9.98") for number in range(40)])
        await paper.close()

    path = tmp_path / "paper.db"
    run(work())
    damage(path)
    with pytest.raises(StateError, match=r"the paper ledger is damaged: .* put a good copy") as raised:
        PaperExchange(COIN, place=path)
    assert raised.value.exit_code == 3 and "\n" not in str(raised.value)


def test_a_ledger_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        (tmp_path / "made.db").touch(0o666)
        for name in ("made.db", "new.db"):
            paper = open_market(place=tmp_path / name)
            assert {path.stat().st_mode & 0o777 for path in tmp_path.glob(f"{name}*")} == {0o600}
            run(paper.close())
    finally:
        os.umask(before)


def test_of_two_processes_on_one_ledger_the_second_to_write_is_fenced(tmp_path: Path) -> None:
    async def work() -> None:
        one = open_market(place=tmp_path / "paper.db")
        two = open_market(place=tmp_path / "paper.db")
        await one.place([buy("A", "9.98")])
        with pytest.raises(Fenced, match="another process"):
            await two.place([buy("B", "9.98")])
        assert two.drain() == [], "and nothing of it was heard"
        assert await one.cancel(["A"]) == [Accepted("A", "1")]
        await one.close()
        await two.close()

    run(work())


def test_who_takes_a_ledger_over_plays_on_from_where_the_other_has_come(tmp_path: Path) -> None:
    async def work() -> None:
        one = open_market(place=tmp_path / "paper.db")
        await one.place([buy("A", "9.98")])
        two = open_market(place=tmp_path / "paper.db")
        await one.place([buy("B", "9.97")])
        two.take_over()
        assert [order.client_id for order in await two.open_orders()] == ["A", "B"], "what came meanwhile too"
        with pytest.raises(Fenced, match="took it over"):
            await one.place([buy("C", "9.96")])
        assert await two.cancel(["B"]) == [Accepted("B", "2")]
        await one.close()
        await two.close()

    run(work())


def only_reads(paper: PaperExchange, on: str) -> None:
    """Let the ledger refuse every write, or take them again."""
    with paper.ledger.db.begin():
        paper.ledger.db.exec_driver_sql(f"PRAGMA query_only={on}")


def test_what_cannot_be_written_is_unknown_and_not_lost(tmp_path: Path) -> None:
    async def work() -> None:
        paper = open_market(place=tmp_path / "paper.db")
        only_reads(paper, "ON")
        (answer,) = await paper.place([buy("A", "9.99")])
        assert isinstance(answer, Unknown)
        assert "cannot be written" in answer.reason
        with pytest.raises(StoreUnreachable):
            paper.advance(Row.TRADE, 1_001, 998, 1, row_index=1)
        assert paper.drain() == []
        only_reads(paper, "OFF")
        assert paper.advance(Row.TIME, 1_002) == 3
        assert (await paper.order("A")).status == "filled"  # type: ignore[union-attr]
        expected = paper.digest(), await paper.fills(0)
        await paper.close()
        again = open_market(place=tmp_path / "paper.db")
        assert (again.digest(), await again.fills(0)) == expected
        assert (again.resume_row, again.waiting) == (2, 0)
        await again.close()

    run(work())


async def killed_and_whole(seed: int, stops: list[int], rules: PaperRules, folder: Path) -> None:
    """Play with and without deaths, and compare everything that can be asked."""
    papers = []
    for name, ends in (("whole", [stops[-1]]), ("killed", stops)):
        calls: list[asyncio.Task] = []
        dead: list[PaperExchange] = []
        for stop in ends:
            paper = PaperExchange(COIN, rules, folder / f"{name}.db", synchronous="OFF")
            calls += await session(paper, seed, stop)
            dead.append(paper)  # nothing is closed, nothing is told
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        papers.append(dead.pop())
        for paper in dead:
            paper.ledger.close()
    whole, killed = papers
    assert whole.digest() == killed.digest()
    assert (whole.venue.v == killed.venue.v)[: Sum.AT_MS].all()
    assert (whole.venue.v == killed.venue.v)[Sum.BID : Sum.OUT].all()
    assert (whole.venue.orders == killed.venue.orders).all()
    assert (whole.venue.requests == killed.venue.requests).all()
    assert await whole.open_orders() == await killed.open_orders()
    assert await whole.fills(0) == await killed.fills(0)
    assert await whole.balances() == await killed.balances()
    await whole.close()
    await killed.close()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    stops=st.lists(st.integers(1, 90), min_size=2, max_size=5),
    latency_ms=st.sampled_from((0, 0, 4)),
    response_ms=st.sampled_from((0, 7)),
)
def test_a_run_that_died_ends_as_one_that_did_not(
    seed: int, stops: list[int], latency_ms: int, response_ms: int
) -> None:
    rules = PaperRules(base=D(50), latency_ms=latency_ms, response_ms=response_ms)
    with tempfile.TemporaryDirectory() as folder:
        run(killed_and_whole(seed, sorted(stops), rules, Path(folder)))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_what_was_heard_before_a_kill_is_in_the_ledger(tmp_path: Path) -> None:
    program = Path(__file__).with_name("paper_world.py")
    path, seed = tmp_path / "paper.db", 11
    command = [sys.executable, str(program), "trade", str(path), str(seed)]
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1", PYTHONPATH=str(program.parent.parent))
    heard: list[str] = []
    for lines in (40, 5, 120):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            heard += [child.stdout.readline().strip() for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
            heard += child.stdout.read().split("\n")[:-1]  # what left before the signal came

    async def check() -> None:
        paper = PaperExchange(COIN, PaperRules(base=D(50)), path, synchronous="OFF")
        fills = {repr(fill) for fill in await paper.fills(0)}
        told = [line for line in heard if line.startswith("Fill(")]
        assert len(told) == len(set(told)) > 3, "a fill is told once"
        assert set(told) <= fills
        reports = [eval(line) for line in heard if line.startswith("OrderReport(")]
        for report in reports:
            now = await paper.order(report.client_id)
            assert isinstance(now, OrderReport)
            if now.exchange_id == report.exchange_id:
                assert now.cumulative >= report.cumulative
                assert report.status in ("open", now.status)
        accepted = [eval(line) for line in heard if line.startswith("Accepted(")]
        assert accepted
        for answer in accepted:
            assert isinstance(await paper.order(answer.client_id), OrderReport)
        await paper.close()

    run(check())


@pytest.mark.parametrize("seed", (3, 4))
def test_playing_many_rows_is_playing_each(seed: int) -> None:
    async def work() -> None:
        market = list(rows(seed, 300))
        kind, time_ms, a, b, c, d = (np.array(x, dtype=np.int64) for x in zip(*market, strict=True))
        rules = PaperRules(base=D(50), response_ms=5)
        one, many = PaperExchange(COIN, rules), PaperExchange(COIN, rules)
        heard: list[list[Any]] = [[], []]
        for paper in (one, many):
            prices = [COIN.tick * x for x in range(980, 1_020, 3)]
            orders = [OrderRequest(f"A{p}", 1 if p < 10 else -1, p, D(1), post_only=False) for p in prices]
            asyncio.create_task(paper.place(orders))  # noqa: RUF006
        await asyncio.sleep(0)
        for number, row in enumerate(market):
            one.advance(*row, row_index=number)
            heard[0] += one.drain()
        row_index = 0
        while row_index < len(market):
            row_index = many.play(kind, time_ms, a, b, c, d, row_index, len(market))
            heard[1] += many.drain()
        assert heard[0] == heard[1]
        assert one.digest() == many.digest()
        assert any(isinstance(event, Fill) for event in heard[0])

    run(work())


def test_a_minimum_between_two_lots_is_the_higher_one() -> None:
    async def work() -> None:
        paper = open_market(replace(COIN, min_quantity=COIN.lot * D("1.5"), min_notional=D(0)))
        (small,) = await paper.place([buy("A", "9.98", str(COIN.lot))])
        (enough,) = await paper.place([buy("B", "9.97", str(2 * COIN.lot))])
        assert isinstance(small, Rejected) and isinstance(enough, Accepted), (small, enough)

    run(work())
