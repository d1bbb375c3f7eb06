"""The compiled backtest is the session: the same state, the same plans in the same order, the same trades."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from data import real
from gridmm.backtest import Backtest, TooSmall
from gridmm.backtest_kernel import Play, Sample, Trade, plan_digest
from gridmm.config import Config, load
from gridmm.engine import Orders, Session
from gridmm.feed import Pace
from gridmm.layout import Var
from gridmm.mail import Post
from gridmm.model import core_hash
from gridmm.paper_account import Sum
from gridmm.run import Run, Signals, assemble, play
from gridmm.step import Plan
from gridmm.vocabulary import Stop

LONG = {"btcperp_202201": "6 d"}
CONFIGS = Path(__file__).parent / "configs"
DEMO = {
    "grid.grid_size": "8",
    "grid.price_interval": "10 bps",
    "feed.duration": "4 h",
    "grid.max_position": "0.02",
}
TAPES = {
    "binance_spot_btcusdt": "binance_spot_btcusdt_20240808_raw.ndjson.gz",
    "binance_usdm_btcusdt": "binance_usdm_btcusdt_20240808_raw.ndjson.gz",
    "xrpeth_201910": "xrpeth_binance_aggtrades_20191011.csv.gz",
    "btcperp_202201": "btcperp_ftx_1m_202201.csv.gz",
}


def demo(**more: str) -> Config:
    said = {**DEMO, **{name.replace("__", "."): value for name, value in more.items()}}
    return load(None, environ={}, options={name: (value, "test") for name, value in said.items()})


def session(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, list[int]]:
    """Run a session; return it with the digest and the number of its plans."""
    seen, decided = [0, 0], Session._decided

    def noted(self: Session, plan: Plan, number: int) -> Orders:
        seen[0] = int(plan_digest(np.int64(seen[0]), self.core.plan, plan.actions.shape[1]))
        seen[1] += 1
        return decided(self, plan, number)

    monkeypatch.setattr(Session, "_decided", noted)
    with ExitStack() as stack:
        run = assemble(config, folder / "grid.sqlite", stack, synchronous="OFF")
        asyncio.run(play(run, Signals(), Pace("max", lambda: 0, asyncio.sleep)))
        fills = list(run.store.fills())
    run.__dict__["fills"] = fills
    return run, seen


def same(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Backtest:
    """Run both, compare everything, and return the backtest."""
    run, (digest, plans) = session(config, folder, monkeypatch)
    fast = Backtest.made(config)
    fast.run()
    fast.stop(Stop.CANCEL, config.settings.stop.timeout)
    core = run.engine.session.core
    assert np.flatnonzero(fast.core.v != core.v).tolist() == []
    assert core_hash(fast.core) == core_hash(core)
    assert (int(fast.play[Play.DIGEST]), int(fast.play[Play.PLANS])) == (digest, plans) and plans > 3
    i, told = fast.instrument, fast.written
    assert [(one.trade_id, one.price, one.quantity, one.pnl) for one in run.__dict__["fills"]] == [
        (
            str(number),
            f"{i.price(price).normalize():f}",
            f"{i.quantity(lots).normalize():f}",
            f"{i.money(gain).normalize():f}",
        )
        for number, price, lots, gain in told[[Trade.TRADE, Trade.PRICE, Trade.LOTS, Trade.GAIN]].T.tolist()
    ]
    for cell in (Sum.CASH, Sum.BASE, Sum.POSITION, Sum.TRADED, Sum.FUNDED, Sum.NEXT_KEY):
        assert fast.venue.v[cell] == run.engine.exchange.venue.v[cell], cell
    return fast


@pytest.mark.parametrize("latency", ["0 ms", "40 ms", "900 ms", "20 s"])
@pytest.mark.parametrize("mode", ["long", "neutral"])
def test_a_backtest_is_the_session_at_every_latency(
    mode: str, latency: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (
        {"execution__query_after": "8 s"} if latency == "20 s" else {}
    )  # questions about orders on their way
    fast = same(demo(grid__mode=mode, paper__latency=latency, **more), tmp_path, monkeypatch)
    assert fast.written.shape[1] > (1 if latency == "20 s" else 10) and fast.orders_open == 0
    assert fast.pnl().residual == 0


@pytest.mark.parametrize(
    "more",
    [
        {"grid__mode": "short", "trend__enabled": "true"},
        {
            "grid__mode": "long",
            "grid__spacing": "arithmetic",
            "grid__interval_mode": "atr",
            "atr__length": "5",
        },
        {"grid__mode": "long", "risk__volume_spike__limit": "2", "risk__volume_spike__length": "5"},
        {"grid__mode": "neutral", "execution__actions_per_second": "0.05", "execution__burst": "3"},
        {"grid__mode": "long", "grid__stop_loss": "20", "grid__on_stop": "flatten"},
    ],
    ids=lambda more: ", ".join(more.values()),
)
def test_a_backtest_is_the_session_with_every_rule(
    more: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same(demo(**more), tmp_path, monkeypatch)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", TAPES)
def test_a_backtest_is_the_session_on_real_recordings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: Callable[[str], None]
) -> None:
    source = {
        "feed.source": f"tape:{real(TAPES[name])}",
        "paper.latency": "25 ms",
        "feed.duration": LONG.get(name, "0 s"),
    }
    options = {key: (value, "test") for key, value in source.items()}
    config = load(CONFIGS / f"{name}.toml", environ={}, options=options)
    fast = same(config, tmp_path, monkeypatch)
    note(
        f"backtest of {name}: {fast.play[Play.STEPS]} events, {fast.written.shape[1]} trades as in the session"
    )


def test_a_difference_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lot less in one plan row is another digest, another state and another list of trades."""
    plan = np.arange(26, dtype=np.int64).reshape(13, 2)
    other = plan.copy()
    other[7, 1] += 1
    assert plan_digest(np.int64(0), plan, 2) != plan_digest(np.int64(0), other, 2)
    assert plan_digest(np.int64(0), plan, 2) != plan_digest(np.int64(0), plan[:, ::-1].copy(), 2)
    quick, slow = demo(grid__mode="long"), demo(grid__mode="long", paper__latency="2 s")
    run, (digest, _) = session(quick, tmp_path, monkeypatch)
    fast = Backtest.made(slow)
    fast.run()
    fast.stop(Stop.CANCEL, 30_000)
    assert core_hash(fast.core) != core_hash(run.engine.session.core) and fast.play[Play.DIGEST] != digest


def test_what_a_table_could_not_hold_is_an_error_and_no_result() -> None:
    fast = Backtest.made(demo(grid__mode="long"))
    fast.mail.v[Post.FAILED] = 3
    with pytest.raises(TooSmall, match="table 3 was too small"):
        fast.run()


def test_samples_are_one_a_candle() -> None:
    fast = Backtest.made(demo(grid__mode="long"))
    fast.run()
    times = fast.sampled[Sample.TIME_MS] // 60_000
    assert len(times) == 239 and (np.diff(times) == 1).all()
    gains = fast.sampled[Sample.GAIN]
    assert 0 <= int((np.maximum.accumulate(gains) - gains).max()) <= int(fast.play[Play.DRAWDOWN])
    assert int(fast.play[Play.PEAK]) >= int(gains.max()) and fast.core.v[Var.EPOCH] > 0
