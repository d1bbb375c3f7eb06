"""A grid trades on OKX and on Bybit: real ccxt, small servers of their protocols, and the traps that each has of its own."""

from __future__ import annotations

import argparse
import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import gridmm.exchange_live as exchange_live
from bybit_server import Bybit
from durable_kills import agree
from exchange_audit import Auditor
from gridmm.ccxt_client import Keys
from gridmm.config import load
from gridmm.errors import ExchangeUnreachable, UnsafeAccount
from gridmm.exchange import Fill, OrderReport, OrderRequest, Rejected, RejectReason
from gridmm.exchange_live import LiveExchange, live_exchange
from gridmm.layout import Var
from gridmm.live import Entrance, LiveSession
from gridmm.live_facts import live_facts
from gridmm.paper_market import PaperRules
from gridmm.run import wall_ms
from gridmm.units import Instrument
from gridmm.vocabulary import Stop
from okx_server import Okx
from small_exchange import KEY, PASSWORD, SECRET, Small

D = Decimal
CONFIG = Path(__file__).parent / "configs" / "wire_kills_perpetual.toml"
ENVIRON = {
    "GRIDMM_PAPER_API_KEY": KEY,
    "GRIDMM_PAPER_API_SECRET": SECRET,
    "GRIDMM_PAPER_API_PASSWORD": PASSWORD,
}
SWAP = Instrument(
    "BTC/USDT:USDT", "perpetual", D("0.1"), D("0.001"), D("0.001"), D(0), maker_fee_ppm=100, taker_fee_ppm=500
)
SPOT = Instrument("BTC/USDT", "spot", D("0.1"), D("0.001"), D("0.001"), D(5))
SERVERS: dict[str, type[Small]] = {"okx": Okx, "bybit": Bybit}
RULES = {
    "perpetual": PaperRules(quote=D(10_000), leverage=10),
    "spot": PaperRules(quote=D(10_000), base=D("0.1")),
}
both = pytest.mark.parametrize("name", SERVERS)


@asynccontextmanager
async def served(name: str, instrument: Instrument = SWAP) -> AsyncIterator[tuple[Small, LiveExchange]]:
    """Open an exchange and reach it."""
    async with SERVERS[name](instrument, RULES[instrument.market]) as server:
        server.quote(D("59999.9"), D("60000.1"))
        at = f"127.0.0.1:{server.port}"
        reached = live_exchange(
            name, instrument.symbol, wall_ms, Keys(KEY, SECRET, PASSWORD), at, server.ca_file
        )
        async with reached as exchange:
            yield server, exchange


async def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for something."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


@both
@pytest.mark.timeout(120)
def test_a_grid_trades_and_the_books_agree(name: str, tmp_path: Path, note: Callable[[str], None]) -> None:
    multiplier = D("0.1") if name == "okx" else D(1)

    async def work() -> None:
        async with SERVERS[name](replace(SWAP, multiplier=multiplier), RULES["perpetual"]) as server:
            server.quote(D("59999.9"), D("60000.1"))
            auditor = Auditor(server.paper)
            said: list[str] = []
            config = load(CONFIG, environ={}, options={"feed.source": ("demo", "test")})
            entrance = Entrance(name, endpoint=f"127.0.0.1:{server.port}", ca=server.ca_file)
            session = LiveSession(config, entrance, tmp_path / "grid.sqlite", said.append)
            running = asyncio.create_task(session.trade(ENVIRON))
            middle = itertools.cycle(
                [*range(60_000, 60_300, 20), *range(60_300, 59_700, -20), *range(59_700, 60_000, 20)]
            )
            async with asyncio.timeout(90.0):
                while len(server.fills) < 12 and not running.done():
                    price = D(next(middle))
                    server.quote(price - D("0.1"), price + D("0.1"))
                    server.trade(price, D("0.500"))
                    await auditor.check()
                    await asyncio.sleep(0.15)
            session.ask(Stop.CANCEL)
            receipt = (await running)._asdict()
            orders, fills, _ = auditor.counts()
            audit = argparse.Namespace(
                violations=auditor.violations(), open_orders=len(await server.paper.open_orders()),
                fills=fills, orders=orders, position=f"{auditor.position:f}",
            )  # fmt: skip
            agree(str(tmp_path / "grid.sqlite"), receipt, audit, symbol=SWAP.symbol, entry_step=D("1e-5"))
            assert fills >= 12 and receipt["round_trips"] > 0
            assert (server.armed_ms is None) and ("trade/cancel-all-after" in " ".join(server.asked)) == (
                name == "okx"
            )
            note(
                f"{name}: {orders} orders, {fills} fills, {receipt['round_trips']} round trips; asked {sum(server.asked.values())}"
            )

    asyncio.run(work())


@both
def test_a_stream_that_was_cut_is_lost_and_opened_again(name: str) -> None:
    async def work() -> None:
        async with served(name) as (server, exchange):
            heard: list[Any] = []

            async def listen() -> None:
                async for one in exchange.stream():
                    heard.append(one)

            first = asyncio.create_task(listen())
            await until(lambda: any(line.topics for line in server.lines))
            for line in list(server.lines):
                await line.socket.close()
            with pytest.raises(ExchangeUnreachable, match="stream of our orders was lost"):
                await first
            again = asyncio.create_task(listen())
            await until(lambda: any(line.topics for line in server.lines))
            await exchange.place([OrderRequest("G1AAAA", -1, D("60010.0"), D("0.010"))])
            server.trade(D("60020.0"), D("0.500"))
            await until(lambda: [one for one in heard if isinstance(one, Fill)])
            again.cancel()
            await asyncio.gather(again, return_exceptions=True)

    asyncio.run(work())


def test_a_quiet_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_live, "DEAD_S", 6.5)

    async def work(name: str) -> None:
        async with served(name) as (_, exchange):
            listening = asyncio.ensure_future(anext(exchange.stream()))
            await asyncio.sleep(9.0)
            assert not listening.done() and exchange.vitals().cuts == 0
            await exchange.place([OrderRequest("G1AAAA", -1, D("60010.0"), D("0.010"))])
            heard = await listening
            assert isinstance(heard, OrderReport) and heard.client_id == "G1AAAA"

    async def all_of_them() -> None:
        await asyncio.gather(*map(work, SERVERS))

    asyncio.run(all_of_them())


def test_an_order_at_okx_says_until_when_it_may_be_taken() -> None:
    async def work() -> None:
        async with served("okx") as (server, exchange):
            await exchange.place([OrderRequest("G1AAAA", -1, D("60010.0"), D("0.010"))])
            head = server.heads["/api/v5/trade/batch-orders"]
            assert 0 < int(head["expTime"]) - wall_ms() <= exchange.venue.receive_ms
            assert "expTime" not in server.heads["/api/v5/account/trade-fee"]

    asyncio.run(work())


def test_each_order_of_a_call_that_okx_refused_whole_has_its_own_reason() -> None:
    async def work() -> None:
        async with served("okx") as (_, exchange):
            await exchange.place([OrderRequest("G1AAAA", -1, D("60010.0"), D("0.010"))])
            asked = [
                OrderRequest("G1AAAA", -1, D("60011.0"), D("0.010")),
                OrderRequest("G1BBBB", 1, D("59990.0"), D("90.000")),
            ]
            answers = await exchange.place(asked)
            reasons = [one.reason for one in answers if isinstance(one, Rejected)]
            assert reasons == [RejectReason.DUPLICATE, RejectReason.FUNDS]

    asyncio.run(work())


@both
@pytest.mark.parametrize("instrument", [SPOT, SWAP], ids=["spot", "perpetual"])
def test_what_an_account_may_is_told(name: str, instrument: Instrument) -> None:
    async def work() -> None:
        async with served(name, instrument) as (_, exchange):
            facts = await live_facts(exchange, "main", "", wall_ms, None, 60_000)
            assert facts.can_trade and facts.can_withdraw is False and facts.ip_restricted is False
            assert (
                facts.bid == D("59999.9")
                and facts.clock_offset_ms is not None
                and abs(facts.clock_offset_ms) < 1_000
            )
            assert (facts.maker_fee_ppm, facts.taker_fee_ppm) == (
                instrument.maker_fee_ppm,
                instrument.taker_fee_ppm,
            )
            assert facts.dead_man_available == (name == "okx")
            if instrument.market == "perpetual":
                assert (facts.hedge_mode, facts.leverage, facts.margin_mode) == (False, 10, "cross")

    asyncio.run(work())


@both
def test_a_wrong_secret_is_said(name: str) -> None:
    async def work() -> None:
        async with SERVERS[name](SWAP, RULES["perpetual"]) as server:
            keys, at = Keys(KEY, "another", PASSWORD), f"127.0.0.1:{server.port}"
            async with live_exchange(name, SWAP.symbol, wall_ms, keys, at, server.ca_file):
                raise AssertionError("it was let in")

    with pytest.raises(UnsafeAccount, match="Whoever holds the key"):
        asyncio.run(work())


@both
def test_paper_trades_on_its_prices_without_a_key(name: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with SERVERS[name](SWAP, RULES["perpetual"]) as server:
            server.quote(D("59999.9"), D("60000.1"))
            config = load(CONFIG, environ={}, options={"feed.source": (f"ccxt:{name}", "test")})
            entrance = Entrance(name, endpoint=f"127.0.0.1:{server.port}", ca=server.ca_file, paper=True)
            said: list[str] = []
            session = LiveSession(config, entrance, tmp_path / "grid.sqlite", said.append)
            running = asyncio.create_task(session.trade({}))
            await until(
                lambda: session.engine is not None and len(session.engine.session.open_ids()) >= 4, 30.0
            )
            async with asyncio.timeout(20.0):
                while session.engine is not None and not session.engine.session.core.v[Var.LEDGER_LOTS]:
                    server.quote(D("59800.0"), D("59800.2"))
                    server.trade(D("59800.0"), D("0.500"))
                    await asyncio.sleep(0.2)
            session.ask(Stop.CANCEL)
            receipt = await running
            assert receipt.fills > 0 and receipt.open_orders == 0 and not server.orders
            assert any(line.startswith(f"paper on prices of {name}") for line in said)

    asyncio.run(work())


@both
def test_a_list_that_fills_its_last_answer_is_whole(name: str) -> None:
    count = 100 if name == "okx" else 50

    async def work() -> None:
        async with served(name) as (server, exchange):
            asked = [OrderRequest(f"G1M{row:03d}", 1, D(59_900 - row), D("0.001")) for row in range(count)]
            await server.place(asked)
            assert len(await exchange.open_orders()) == count
            more = [
                OrderRequest(f"G1N{row:03d}", 1, D(59_700 - row), D("0.001")) for row in range(100 - count)
            ]
            await server.place(more)
            server.trade(D("59000.0"), D("100.000"))
            await until(lambda: len(server.fills) == 100)
            assert len(await exchange.fills(wall_ms() - 60_000)) == 100

    asyncio.run(work())


@both
def test_more_payments_than_one_answer_holds_are_all_found(name: str) -> None:
    async def work() -> None:
        async with served(name) as (server, exchange):
            await server.place([OrderRequest("G1AAAA", -1, D("60010.0"), D("0.010"))])
            server.trade(D("60020.0"), D("0.500"))
            began_ms = wall_ms() - 1_000
            for _ in range(230):
                server.fund(D("0.0001"))
            found = await exchange.fundings(began_ms)
            assert found == await server.paper.fundings(0) and len(found) == 230

    asyncio.run(work())


def test_cancelling_all_at_okx_goes_on_where_orders_have_ended_meanwhile() -> None:
    async def work() -> None:
        async with served("okx") as (server, exchange):
            asked = [OrderRequest(f"G1M{row:03d}", 1, D(59_900 - row), D("0.001")) for row in range(50)]
            await server.place(asked)
            cancel, calls = server._trade_cancel_batch_orders, []  # type: ignore[attr-defined]

            async def raced(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
                calls.append(asked)
                if len(calls) == 2:
                    await cancel(asked)  # they end a moment before our cancel arrives
                return list(await cancel(asked))

            server._trade_cancel_batch_orders = raced  # type: ignore[attr-defined]
            answers = await exchange.cancel_all()
            assert [type(one).__name__ for one in answers] == ["Accepted"] and len(calls) == 3
            assert await exchange.open_orders() == []

    asyncio.run(work())
