"""No order leaves before the account was looked at, and what keeps a grid out says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gridmm.config import load
from gridmm.demo_market import DemoMarket
from gridmm.errors import ExchangeUnreachable, UnsafeAccount
from gridmm.exchange import OrderRequest
from gridmm.feed import Candle
from gridmm.live import Entrance, LiveSession
from gridmm.live_facts import Rights, rights_of
from gridmm.live_streams import LivePrices
from gridmm.paper_account import Sum
from gridmm.paper_market import PaperRules
from gridmm.run import wall_ms
from gridmm.vocabulary import Stop
from gridmm.wire_server import Wire

D = Decimal
KEYS = {"GRIDMM_PAPER_API_KEY": "demo", "GRIDMM_PAPER_API_SECRET": "demo-secret"}
CONFIG = Path(__file__).parent / "configs" / "wire_fast.toml"


def session_at(
    wire: Wire, folder: Path, said: list[str], stop: dict[str, str] | None = None, **grid: str
) -> LiveSession:
    """A session that would trade on this exchange, with some words of [grid] and of [stop]."""
    options: dict[str, tuple[str, str]] = {"feed.source": ("demo", "test")} | {
        f"grid.{name}": (value, "test") for name, value in grid.items()
    }
    options |= {f"stop.{name}": (value, "test") for name, value in (stop or {}).items()}
    config = load(CONFIG, environ={}, options=options)
    entrance = Entrance("binance", endpoint=f"127.0.0.1:{wire.port}", ca=wire.ca_file)
    return LiveSession(config, entrance, folder / "grid.sqlite", said.append)


def withdraws(wire: Wire) -> None:
    wire.account.can_withdraw = True


def hedges(wire: Wire) -> None:
    wire.account.hedge = True


def is_ahead(wire: Wire) -> None:
    true_ms = wire.account.now_ms
    wire.account.now_ms = lambda: true_ms() - 3_000  # type: ignore[method-assign]


def is_poor(wire: Wire) -> None:
    wire.paper.venue.v[Sum.CASH] = wire.paper.instrument.atoms(D(100))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (withdraws, "withdrawal: the key may withdraw"),
        (hedges, "the account is in hedge mode"),
        (is_ahead, "our clock is"),
        (is_poor, "leverage 10, max_position = 0.05 is worth"),
    ],
)
def test_an_account_that_would_fail_the_grid_is_refused_before_the_first_order(
    change: Callable[[Wire], None], words: str, tmp_path: Path
) -> None:
    async def work() -> None:
        market = DemoMarket()
        async with Wire(
            market.instrument, PaperRules(quote=D(10_000)), feed=market, speed="60", synchronous="OFF"
        ) as wire:
            change(wire)
            size = {"order_notional": "150", "max_position": "0.05"}
            with pytest.raises(UnsafeAccount) as refused:
                await session_at(wire, tmp_path, [], None, **size).trade(KEYS)
            assert words in str(refused.value), refused.value
            assert wire.paper.now_ms > 0, "the market was there"
            assert await wire.paper.open_orders() == [] and await wire.paper.fills(0) == []

    asyncio.run(work())


def test_orders_and_a_position_of_somebody_else_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        market = DemoMarket()
        async with Wire(
            market.instrument, PaperRules(quote=D(10_000)), feed=market, speed="1", synchronous="OFF"
        ) as wire:
            while not wire.paper.now_ms:
                await asyncio.sleep(0.05)
            far = OrderRequest("by-hand", 1, D(40_000), D("0.01"))
            await wire.paper.place([far])
            with pytest.raises(UnsafeAccount, match=r"1 open orders in .* not of this grid"):
                await session_at(wire, tmp_path, []).trade(KEYS)
            await wire.paper.cancel(["by-hand"])
            await wire.paper.place([OrderRequest("taken", 1, D(90_000), D("0.01"), post_only=False)])
            with pytest.raises(UnsafeAccount, match=r"the account holds 0.01 .* this grid 0. .*Sell 0.01"):
                await session_at(wire, tmp_path, []).trade(KEYS)

    asyncio.run(work())


@pytest.mark.timeout(120)
def test_a_grid_that_goes_on_is_told_and_not_kept_out(tmp_path: Path) -> None:
    async def trades(wire: Wire) -> list[str]:
        said: list[str] = []
        session = session_at(wire, tmp_path, said)
        running = asyncio.create_task(session.trade(KEYS))
        while not running.done() and len(await wire.paper.open_orders()) < 4:
            await asyncio.sleep(0.05)
        session.ask(Stop.CANCEL)
        assert (await running).open_orders == 0
        return said

    async def work() -> None:
        market = DemoMarket()
        async with Wire(
            market.instrument, PaperRules(quote=D(10_000)), feed=market, speed="60", synchronous="OFF"
        ) as wire:
            assert not any(line.startswith("refused") for line in await trades(wire))
            withdraws(wire)
            assert any(line.startswith("refused: withdrawal") for line in await trades(wire))

    asyncio.run(work())


OKX_KEY = {"data": [{"perm": "read_only,trade", "ip": "1.2.3.4", "posMode": "net_mode"}]}
BYBIT_KEY = {
    "result": {"readOnly": 0, "ips": ["*"], "permissions": {"Spot": ["SpotTrade"], "Wallet": ["Withdraw"]}}
}


@pytest.mark.parametrize(
    ("venue", "market", "said", "rights"),
    [
        (
            "binance",
            "spot",
            {"key": {"enableSpotAndMarginTrading": True, "enableWithdrawals": False, "ipRestrict": True}},
            Rights(True, False, True),
        ),
        (
            "binance",
            "perpetual",
            {
                "key": {"enableFutures": "false", "enableWithdrawals": "true", "ipRestrict": "false"},
                "mode": {"dualSidePosition": False},
                "market": [{"leverage": "20", "marginType": "CROSSED"}],
            },
            Rights(False, True, False, False, 20, "cross"),
        ),
        ("okx", "spot", {"key": OKX_KEY}, Rights(True, False, True)),
        (
            "okx",
            "perpetual",
            {
                "key": {"data": [{"perm": "read_only,withdraw", "ip": "", "posMode": "long_short_mode"}]},
                "market": {"data": [{"lever": "3", "mgnMode": "cross"}]},
            },
            Rights(False, True, False, True, 3, "cross"),
        ),
        ("bybit", "spot", {"key": BYBIT_KEY}, Rights(True, True, False)),
        (
            "bybit",
            "perpetual",
            {
                "key": {"result": {"readOnly": 1, "ips": ["1.2.3.4"], "permissions": {}}},
                "market": {
                    "result": {
                        "list": [
                            {"positionIdx": 1, "leverage": "10", "tradeMode": 1},
                            {"positionIdx": 2, "leverage": "10", "tradeMode": 1},
                        ]
                    }
                },
            },
            Rights(False, False, True, True, 10, "isolated"),
        ),
        ("bybit", "perpetual", {"key": BYBIT_KEY, "market": {"result": {"list": []}}}, Rights(False, True, False, False)),
        ("gate", "perpetual", {}, Rights()),
    ],
)  # fmt: skip
def test_what_an_exchange_tells_of_a_key(
    venue: str, market: str, said: dict[str, Any], rights: Rights
) -> None:
    assert rights_of(venue, market, said) == rights


async def until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for something."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def test_a_stop_does_not_wait_for_ever_for_an_exchange_that_is_gone(tmp_path: Path) -> None:
    async def work() -> None:
        market, said = DemoMarket(), list[str]()
        async with Wire(
            market.instrument, PaperRules(quote=D(10_000)), feed=market, speed="60", synchronous="OFF"
        ) as wire:
            session = session_at(wire, tmp_path, said, {"timeout": "2 s"})
            running = asyncio.create_task(session.trade(KEYS))
            await until(lambda: len(wire.account.orders) >= 4)
            await wire._runner.cleanup()
            session.ask(Stop.CANCEL)
            with pytest.raises(ExchangeUnreachable, match="no answer for 2 s since the stop") as gone:
                await asyncio.wait_for(running, 40.0)
            assert "the stop is finished first" in str(gone.value)

    asyncio.run(work())


@pytest.mark.parametrize(("after", "left"), [("cancel", 0), ("leave", 1)])
def test_a_drain_opens_nothing_lets_closes_work_and_ends_as_it_was_told(
    after: str, left: int, tmp_path: Path
) -> None:
    async def work() -> None:
        said: list[str] = []
        instrument = DemoMarket().instrument
        async with Wire(instrument, PaperRules(quote=D(10_000)), synchronous="OFF") as wire:
            wire.quote(D("59999.9"), D("60000.1"), D(1), D(1))
            session = session_at(wire, tmp_path, said, {"drain": "2 s", "after_drain": after})
            running = asyncio.create_task(session.trade(KEYS))
            await until(lambda: len(wire.account.orders) >= 8)
            lowest = D("59920.0")
            wire.trade(lowest, D(5))
            wire.quote(lowest - D("0.1"), lowest + D("0.1"), D(1), D(1))
            await until(
                lambda: any(order.side < 0 and order.price < 60_010 for order in wire.account.orders.values())
            )
            session.ask(Stop.DRAIN)
            receipt = await asyncio.wait_for(running, 40.0)
            assert bool(receipt.open_orders) == bool(left)
            assert all(one.side < 0 for one in await wire.paper.open_orders()), "an opening order was left"

    asyncio.run(work())


def test_nothing_is_decided_on_the_price_of_the_last_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = LivePrices._begin

    async def begun(self: LivePrices) -> None:
        """Begin with a candle that ended while nobody looked."""
        await begin(self)
        ticks = (600_000, 601_000, 599_000, 600_500)
        self._candles.append(Candle(wall_ms() - 500, *ticks, 10))

    monkeypatch.setattr(LivePrices, "_begin", begun)

    async def work() -> None:
        instrument = DemoMarket().instrument
        async with Wire(instrument, PaperRules(quote=D(10_000)), synchronous="OFF") as wire:
            wire.quote(D("59999.9"), D("60000.1"), D(1), D(1))
            for mark in (D(60_000), D(61_800)):
                wire.quote(mark, mark + D("0.1"), D(1), D(1))
                began_ms, decided = wire.account.now_ms(), list[Any]()
                session = session_at(wire, tmp_path, [])
                session.on_decision = decided.append
                running = asyncio.create_task(session.trade(KEYS))
                await until(lambda: any(order.open for order in wire.account.orders.values()))
                session.ask(Stop.CANCEL)
                await running
                first = decided[0]
                assert first.time_ms >= began_ms - 1_000
                assert instrument.price(first.bid_ticks) == mark, (
                    "the ladder was hung at another time's price"
                )

    asyncio.run(work())


def test_a_stop_does_not_wait_for_the_end_of_a_ban(tmp_path: Path) -> None:
    async def work() -> None:
        market = DemoMarket()
        async with Wire(
            market.instrument, PaperRules(quote=D(10_000)), feed=market, speed="60", synchronous="OFF"
        ) as wire:
            session = session_at(wire, tmp_path, [], {"timeout": "2 s"})
            running = asyncio.create_task(session.trade(KEYS))
            await until(lambda: len(wire.account.orders) >= 4)
            assert session.exchange is not None
            limiter = session.exchange.limiter
            limiter.limits.stop(limiter.clock(), 3_600_000, banned=True)
            session.ask(Stop.CANCEL)
            with pytest.raises(ExchangeUnreachable, match="since the stop"):
                await asyncio.wait_for(running, 30.0)

    asyncio.run(work())
