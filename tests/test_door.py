"""The door refuses an account that would fail the grid, opens for one that would not, and says what to do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmm import cli_doctor, door, facts
from gridmm.amounts import measure
from gridmm.cli import run_command
from gridmm.cli_doctor import examine, paper_facts
from gridmm.client_id import ClientId, encode, instance_of
from gridmm.config import load
from gridmm.demo_market import DEMO
from gridmm.door import Check, Verdict, judge, open_door, refusals
from gridmm.errors import ExchangeUnreachable, UnsafeAccount
from gridmm.exchange import Accepted, Balance, OrderReport, OrderRequest, Position
from gridmm.exchange_paper import PaperExchange
from gridmm.facts import Facts, Level, has, ladder, least_lots, needs, resting_loss
from gridmm.layout import Act
from gridmm.paper_account import Row
from gridmm.paper_market import PaperRules
from gridmm.parameters import instrument_of, par_vector
from gridmm.run import fresh_core
from gridmm.settings import Settings
from gridmm.step import advance
from gridmm.units import Instrument
from gridmm.vocabulary import Action
from gridmm.words import price_event

PERP = DEMO
SPOT = replace(DEMO, symbol="BTC/USDT", market="spot")
FINE = Facts(
    exchange="example",
    account="main",
    instrument=PERP,
    bid=Decimal("59999.9"),
    ask=Decimal("60000.1"),
    balances=(Balance("USDT", Decimal(10_000), Decimal(10_000)),),
    instance=7,
    can_trade=True,
    can_withdraw=False,
    ip_restricted=True,
    hedge_mode=False,
    leverage=10,
    margin_mode="cross",
    maker_fee_ppm=200,
    taker_fee_ppm=500,
    clock_offset_ms=0,
    round_trip_ms=80,
    dead_man_available=True,
    dead_man_ms=60_000,
)
SPOT_FINE = replace(FINE, instrument=SPOT, hedge_mode=None, leverage=None, margin_mode=None)


def money(amount: str | int, free: str | int | None = None) -> tuple[Balance, ...]:
    """Balances of USDT alone."""
    return (Balance("USDT", Decimal(amount), Decimal(amount if free is None else free)),)


def config(kind: str = "perpetual", **grid: object) -> Settings:
    """Settings of a market with some words of [grid]."""
    symbol = "BTC/USDT" if kind == "spot" else "BTC/USDT:USDT"
    return Settings.read({"grid": grid, "instrument": {"symbol": symbol, "market": kind}})


def order(instance: int, side: int = 1, price: str = "59000", quantity: str = "0.01") -> OrderReport:
    """An open order of a grid."""
    client_id = encode(ClientId(instance, 1, 1, -1, 1, 0, 5))
    return OrderReport(client_id, "77", side, Decimal(price), Decimal(quantity), Decimal(0), "open", "", 0)


def verdicts(found: Facts, words: Settings) -> dict[str, Check]:
    """Every check by its name."""
    return {check.name: check for check in judge(found, words)}


FREE = replace(order(7), client_id="web-1")
DEFAULT = config()
# name, what differs from a fine account, the configuration, the verdict, and what the message must say
CASES: list[tuple[str, dict[str, Any], Settings, str, str]] = [
    ("key", {"can_trade": False}, DEFAULT, "refused", "Allow futures trading"),
    ("key", {"can_trade": None}, DEFAULT, "unknown", "does not tell"),
    ("withdrawal", {"can_withdraw": True}, DEFAULT, "refused", "new key without it"),
    ("withdrawal", {"can_withdraw": None}, DEFAULT, "unknown", "does not tell"),
    ("address", {"ip_restricted": False}, DEFAULT, "warning", "Name the addresses"),
    ("address", {"ip_restricted": None}, DEFAULT, "unknown", "does not tell"),
    ("mode", {"hedge_mode": True}, DEFAULT, "refused", "one-way mode at the exchange"),
    ("mode", {"hedge_mode": None}, DEFAULT, "unknown", "does not tell"),
    ("mode", {"margin_mode": "isolated"}, DEFAULT, "warning", "BTC/USDT:USDT to cross margin"),
    ("market", {"ask": None}, DEFAULT, "refused", "59999.9 / none"),
    ("market", {"bid": Decimal("60000.1")}, DEFAULT, "refused", "Wait until BTC/USDT:USDT trades"),
    ("market", {"instrument": replace(PERP, tick=Decimal("0.5"))}, DEFAULT, "refused", "states 0.5"),
    ("market", {"instrument": replace(PERP, lot=Decimal("0.01"))}, DEFAULT, "refused", "Remove lot"),
    ("market", {"instrument": replace(PERP, multiplier=Decimal(10))}, DEFAULT, "refused", 'set it to "10"'),
    ("market", {"instrument": SPOT}, DEFAULT, "refused", "states BTC/USDT,"),
    # the ends of every bound of the clock: half of the round trip of 80 ms counts against us
    ("clock", {"clock_offset_ms": 460}, DEFAULT, "ok", "460 ms ahead of"),
    ("clock", {"clock_offset_ms": 461}, DEFAULT, "warning", "more than half used"),
    ("clock", {"clock_offset_ms": 960}, DEFAULT, "warning", "more than half used"),
    ("clock", {"clock_offset_ms": 961}, DEFAULT, "refused", "more than 1000 ms ahead"),
    ("clock", {"clock_offset_ms": -959}, DEFAULT, "ok", "959 ms behind"),
    ("clock", {"clock_offset_ms": -1_960}, DEFAULT, "warning", "2000 ms"),
    ("clock", {"clock_offset_ms": -1_961}, DEFAULT, "refused", "deadline of an order is 2000 ms"),
    ("clock", {"clock_offset_ms": -420, "recv_window_ms": 500}, DEFAULT, "warning", "older than 500 ms"),
    ("clock", {"clock_offset_ms": -421, "recv_window_ms": 500}, DEFAULT, "refused", "older than 500 ms"),
    ("clock", {"clock_offset_ms": None}, DEFAULT, "unknown", "NTP"),
    ("open orders", {"orders": (FREE,)}, DEFAULT, "refused", "buy 0.01 at 59000, number 77"),
    ("open orders", {"orders": (order(8),)}, DEFAULT, "refused", "1 of them of other grids"),
    ("open orders", {"orders": (order(7),)}, DEFAULT, "refused", "--db"),
    ("open orders", {"orders": (order(7),), "resumes": True}, DEFAULT, "ok", "1 of this grid"),
    (
        "positions",
        {"positions": (Position("BTC/USDT:USDT", Decimal("-0.4"), Decimal(61_000)),)},
        DEFAULT,
        "refused",
        "Buy 0.4",
    ),
    (
        "positions",
        {
            "positions": (Position("BTC/USDT:USDT", Decimal("0.01"), Decimal(61_000)),),
            "own_position": Decimal("0.01"),
        },
        DEFAULT,
        "ok",
        "all of it this grid's",
    ),
    ("positions", {"own_position": Decimal("0.01")}, DEFAULT, "refused", "Buy 0.01"),
    (
        "positions",
        {"positions": (Position("ETH/USDT:USDT", Decimal(1), Decimal(3_000)),)},
        DEFAULT,
        "warning",
        "ETH/USDT:USDT",
    ),
    # 20 bps hold two fees of 10, and five of 4 bps; the floor is four fees
    ("fees", {"maker_fee_ppm": 1_000}, DEFAULT, "warning", 'Set maker_fee = "10 bps"'),
    ("fees", {"maker_fee_ppm": 1_001}, DEFAULT, "refused", "at least 20.02 bps"),
    ("fees", {"maker_fee_ppm": 201}, DEFAULT, "warning", 'Set maker_fee = "2.01 bps"'),
    ("fees", {"maker_fee_ppm": 100}, DEFAULT, "ok", "the account pays 1 bps"),
    ("fees", {"maker_fee_ppm": -50}, DEFAULT, "ok", "-0.5 bps"),
    ("fees", {"maker_fee_ppm": 200}, config(price_interval="8 bps"), "ok", "2 bps"),
    ("fees", {"maker_fee_ppm": 200}, config(price_interval="7 bps"), "warning", "raised to 8 bps"),
    ("fees", {"maker_fee_ppm": 200}, config(price_interval="24"), "warning", "raised to 48"),
    ("fees", {"maker_fee_ppm": None}, DEFAULT, "unknown", "does not tell"),
    # max_position 0.1 is 6,000 and 3 of fees: 603 of margin at leverage 10
    ("leverage", {"balances": money(603)}, config(max_position="0.1"), "ok", "603 of margin"),
    (
        "leverage",
        {"balances": money(600), "leverage": 20},
        config(max_position="0.1"),
        "warning",
        "move of 10 %",
    ),
    (
        "leverage",
        {"balances": money("600.01"), "leverage": 20},
        config(max_position="0.1"),
        "ok",
        "303 of margin",
    ),
    ("leverage", {"balances": money("602.99")}, config(max_position="0.1"), "refused", "at most 0.099"),
    (
        "leverage",
        {"balances": money(603), "leverage": 9},
        config(max_position="0.1"),
        "refused",
        "at least 10 at",
    ),
    ("leverage", {"leverage": None}, DEFAULT, "unknown", "does not tell"),
    ("leverage", {"balances": money(700)}, config(max_position="0.1"), "ok", "603 of margin"),
    ("interval", {}, config(price_interval="1 bps", interval_cap="1"), "refused", "above its cap"),
    ("order size", {"instrument": replace(PERP, min_notional=Decimal(100))}, DEFAULT, "refused", "119.77"),
    ("order size", {}, config(max_position="0.0005"), "warning", "leaves no room"),
    (
        "balance",
        {"balances": money(50)},
        config(order_notional="100", max_position="0.01"),
        "refused",
        "Add ",
    ),
    ("dead-man switch", {"dead_man_available": False}, DEFAULT, "warning", "can lose 64.26 USDT"),
    ("dead-man switch", {"dead_man_available": None}, DEFAULT, "warning", "not known to have one"),
    ("dead-man switch", {"dead_man_ms": 0}, DEFAULT, "warning", "Arm it"),
]


def test_a_fine_account_passes_every_check() -> None:
    for account, words in ((FINE, DEFAULT), (SPOT_FINE, config("spot"))):
        assert {check.verdict for check in open_door(account, words)} == {Verdict.OK}


@pytest.mark.parametrize(
    ("name", "facts_", "words", "verdict", "says"),
    CASES,
    ids=[f"{c[0]} {c[3]} {i}" for i, c in enumerate(CASES)],
)
def test_each_check_says_what_it_found(
    name: str, facts_: dict[str, Any], words: Settings, verdict: str, says: str
) -> None:
    found = replace(FINE, **facts_)
    check = verdicts(found, words)[name]
    assert check.verdict.value == verdict, check
    assert says in f"{check.found} {check.why} {check.todo}", check
    assert bool(check.todo) == bool(check.why) == (verdict != "ok"), check
    assert not re.search(r"[{}]|None|Decimal|E[+-]\d", str(check)), check


def test_every_check_that_can_refuse_is_seen_to_refuse() -> None:
    refused = {name for name, _, _, verdict, _ in CASES if verdict == "refused"}
    assert refused == {check.name for check in judge(FINE, DEFAULT)} - {"address", "dead-man switch"}


def test_without_a_price_nothing_is_sized_and_all_of_it_says_so() -> None:
    found = verdicts(replace(FINE, bid=None, ask=None), DEFAULT)
    unjudged = {name for name, check in found.items() if "not judged" in check.found}
    assert unjudged == {"fees", "leverage", "interval", "order size", "balance", "dead-man switch"}
    assert list(found) == list(verdicts(FINE, DEFAULT))
    narrow = verdicts(FINE, config(price_interval="1 bps", interval_cap="1"))
    assert {n for n, check in narrow.items() if "not judged" in check.found} == {
        "order size", "balance", "dead-man switch",
    }  # fmt: skip


def test_the_first_refusal_stops_a_start_and_counts_the_others() -> None:
    with pytest.raises(UnsafeAccount, match=r"account main, withdrawal: .* 2 more: see `gridmm doctor`"):
        open_door(replace(FINE, can_withdraw=True, hedge_mode=True, clock_offset_ms=5_000), DEFAULT)


def test_a_small_level_is_named_with_the_size_that_would_do() -> None:
    strict = replace(FINE, instrument=replace(PERP, min_notional=Decimal(100)))
    words = config(mode="short", order_notional="120.5", max_position="1")
    check = verdicts(strict, words)["order size"]
    # two lots at 60,120 fit into 120.5; at 60,360.3, the third level, only one
    assert check.found.startswith("the sell at 60360.") and "1 lots" in check.found
    enough = re.search(r"at least ([\d.]+)", check.todo)
    assert enough is not None
    more = config(mode="short", order_notional=enough[1], max_position="1")
    assert verdicts(strict, more)["order size"].verdict is Verdict.OK
    less = config(mode="short", order_notional=str(Decimal(enough[1]) - Decimal("0.02")), max_position="1")
    assert verdicts(strict, less)["order size"].verdict is Verdict.REFUSED


def test_spot_needs_quote_for_buys_and_base_for_sells() -> None:
    words = config("spot", mode="neutral", order_notional="600", max_position="0.2", seed="0.1", grid_size=3)
    levels = ladder(SPOT_FINE, words)
    assert [level.side for level in levels] == [1, 1, 1, -1, -1, -1]
    needed = needs(SPOT_FINE, words, levels)
    whole = sum((level.value(SPOT) for level in levels if level.side > 0), Decimal(0))
    assert needed["USDT"] == whole * Decimal("1.0002")
    assert needed["BTC"] == Decimal("0.001") * sum(level.lots for level in levels if level.side < 0)
    rich = replace(SPOT_FINE, balances=(*money(10_000), Balance("BTC", Decimal("0.1"), Decimal("0.1"))))
    exact = replace(rich, balances=(*money(needed["USDT"]), Balance("BTC", Decimal("0.1"), needed["BTC"])))  # type: ignore[arg-type]
    assert verdicts(exact, words)["balance"].verdict is not Verdict.REFUSED
    short_of = (*money(10_000), Balance("BTC", Decimal("0.1"), needed["BTC"] - Decimal("0.00000001")))
    check = verdicts(replace(rich, balances=short_of), words)["balance"]
    assert check.verdict is Verdict.REFUSED and "Add 0.00000001 BTC" in check.todo
    less = replace(rich, balances=(*money(10_000), Balance("BTC", Decimal("0.09"), Decimal("0.09"))))
    assert "seed = 0.1" in verdicts(less, words)["balance"].found


def test_our_own_resting_orders_do_not_count_twice_and_those_of_others_do() -> None:
    words = config("spot", order_notional="1000", max_position="0.2")
    need = needs(SPOT_FINE, words, ladder(SPOT_FINE, words))["USDT"]
    resting = order(7, price="59000", quantity="0.1")
    tied = replace(SPOT_FINE, balances=money(10_000, 10_000 - 5_900), orders=(resting,), resumes=True)
    assert has(tied)["USDT"] == 10_000 >= need > has(replace(tied, orders=()))["USDT"]
    margin = replace(FINE, orders=(replace(order(8), quantity=Decimal(2)),))
    assert needs(margin, DEFAULT, [])["USDT"] == Decimal(118_000) / 10 + 59


def test_what_a_dead_grid_can_lose_is_counted_by_hand() -> None:
    levels = [Level(1, 600_000, 2), Level(1, 500_000, 3), Level(-1, 700_000, 1)]
    # buys of 60 * 2 + 50 * 3 end at 45,000; the sell of 70 ends at 77,000
    bought = (60_000 - 45_000) * Decimal("0.002") + (50_000 - 45_000) * Decimal("0.003")
    fees = Decimal("0.0002") * (120 + 150)
    assert resting_loss(FINE, DEFAULT, levels) == bought + fees
    assert resting_loss(FINE, DEFAULT, levels[2:]) == 7 + Decimal("0.0002") * 70


SIZES = st.integers(100, 3_000).map(str)


@st.composite
def accounts(draw: st.DrawFn) -> tuple[Instrument, PaperRules, Settings]:
    """An account, a market and a grid, some of them too large for it."""
    spot = draw(st.booleans())
    market = replace(
        SPOT if spot else PERP,
        maker_fee_ppm=draw(st.sampled_from([-100, 0, 200, 333])),
        taker_fee_ppm=draw(st.sampled_from([0, 500, 701])),
        lot=draw(st.sampled_from([Decimal("0.001"), Decimal("0.00001")])),
    )
    mode = draw(st.sampled_from(["long", "short", "neutral"]))
    seed = draw(st.sampled_from(["0.01", "0.2"])) if spot else "0"
    grid = {
        "mode": mode,
        "seed": seed,
        "order_notional": draw(SIZES),
        "max_position": draw(st.sampled_from(["0.01", "0.1", "1"])),
        "grid_size": draw(st.integers(1, 12)),
        "spacing": draw(st.sampled_from(["geometric", "arithmetic"])),
        "price_interval": draw(st.sampled_from(["20 bps", "35 bps", "120"])),
    }
    fees = {"maker_fee": f"{market.maker_fee_ppm} ppm", "taker_fee": f"{market.taker_fee_ppm} ppm"}
    said = fees | {"symbol": market.symbol, "market": market.market, "lot": f"{market.lot:f}"}
    rules = PaperRules(
        quote=Decimal(draw(st.integers(1_000, 3_000_000))) / 100,
        base=Decimal(seed) if spot else Decimal(0),
        leverage=draw(st.integers(1, 20)),
    )
    return market, rules, Settings.read({"grid": grid, "instrument": said})


def facts_of(paper: PaperExchange) -> Facts:
    """What a gateway would gather from this exchange."""

    async def ask() -> Facts:
        return replace(
            FINE,
            instrument=paper.instrument,
            balances=tuple(await paper.balances()),
            leverage=paper.rules.leverage,
            maker_fee_ppm=paper.instrument.maker_fee_ppm,
            taker_fee_ppm=paper.instrument.taker_fee_ppm,
        )

    return asyncio.run(ask())


def paper_of(market: Instrument, rules: PaperRules) -> PaperExchange:
    """A paper exchange that shows the touch of `FINE`."""
    paper = PaperExchange(market, rules)
    paper.advance(Row.QUOTE, 1_000, 599_999, 600_001, 0, 0, 0)
    return paper


def places(paper: PaperExchange, levels: list[Level]) -> bool:
    """Whether the exchange takes every order of a ladder."""
    i = paper.instrument
    asked = [
        OrderRequest(f"GM{n}", level.side, i.price(level.ticks), i.quantity(level.lots))
        for n, level in enumerate(levels)
    ]
    return all(isinstance(answer, Accepted) for answer in asyncio.run(paper.place(asked)))


def honest(account: tuple[Instrument, PaperRules, Settings]) -> str:
    """Hold the balance check against what the paper exchange does; say how they agree."""
    market, rules, words = account
    paper = paper_of(market, rules)
    found = facts_of(paper)
    levels = ladder(found, words)
    if any(level.lots < least_lots(market, level.ticks) for level in levels):
        return "too small"
    check = door.balance_check(found, words)
    placed = places(paper, levels)
    assert placed == (check.verdict is not Verdict.REFUSED), check
    if check.verdict is Verdict.REFUSED and (
        said := re.search(r"order_notional to at most ([\d.]+)", check.todo)
    ):
        grid = words.grid.model_copy(update={"order_notional": measure(said[1])})
        smaller = words.model_copy(update={"grid": grid})
        again = paper_of(market, rules)
        assert places(again, ladder(found, smaller)), check
        return "mended"
    return "placed" if placed else "refused"


def test_an_account_that_passes_can_place_the_whole_ladder_and_another_cannot() -> None:
    seen = set()

    @settings(max_examples=120, deadline=None)
    @given(accounts())
    def check(account: tuple[Instrument, PaperRules, Settings]) -> None:
        seen.add(honest(account))

    check()
    assert {"placed", "mended"} <= seen


def boundary() -> Iterator[tuple[Instrument, PaperRules, Settings]]:
    """Accounts that hold exactly what the ladder needs, and an atom less."""
    for market, kind in ((SPOT, "spot"), (PERP, "perpetual")):
        words = config(kind, order_notional="600", max_position="0.2")
        need = needs(
            replace(FINE, instrument=market), words, ladder(FINE if kind != "spot" else SPOT_FINE, words)
        )
        for missing in (0, 1):
            yield market, PaperRules(quote=need["USDT"] - Decimal(missing).scaleb(-8)), words


def test_exactly_enough_is_enough_and_an_atom_less_is_not() -> None:
    assert [honest(account) for account in boundary()] == ["placed", "mended"] * 2


def test_a_check_that_forgets_the_fees_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    enough = list(boundary())
    monkeypatch.setattr(facts, "fee_up", lambda atoms, ppm: 0)
    with pytest.raises(AssertionError):
        for account in enough:
            honest(account)


@settings(max_examples=60, deadline=None)
@given(accounts())
def test_the_ladder_is_what_the_core_would_place(account: tuple[Instrument, PaperRules, Settings]) -> None:
    market, rules, words = account
    found = facts_of(paper_of(market, rules))
    levels = ladder(found, words)
    if not levels or any(level.lots < least_lots(market, level.ticks) for level in levels):
        return
    par = par_vector(words, instrument_of(words), equity=found.equity, price=found.mark)
    own = replace(load(environ={}), settings=words)
    core = fresh_core(par, own, market, 600_000)
    plan = advance(core, par, price_event(1_000, 599_999, 600_001, 600_000))
    placed = {
        (int(a[Act.SIDE]), int(a[Act.PRICE]), int(a[Act.LOTS]))
        for a in plan.actions.T
        if a[Act.ACTION] == Action.PLACE
    }
    wanted = {(level.side, level.ticks, level.lots) for level in levels}
    if market.market == "spot":  # free base is told by the exchange, which this test does not play
        placed, wanted = ({one for one in group if one[0] > 0} for group in (placed, wanted))
    assert placed == wanted


def test_the_doctor_finds_nothing_wrong_with_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["doctor"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("account paper on paper, BTC/USDT:USDT\n") and said.endswith("0 refused\n")
    assert run_command(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["refused"] and found["account"] == "paper"
    assert {check["verdict"] for check in found["checks"]} == {"ok", "warning"}


def test_the_doctor_refuses_with_3_and_unreachable_is_6(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "poor.toml"
    file.write_text('[grid]\nmax_position = "0.05"\norder_notional = "150"\n[paper]\nequity = "100"\n')
    assert run_command(["doctor", "--config", str(file)]) == 3
    said = capsys.readouterr().out
    assert re.search(r"^refused +balance +100 USDT for 10 orders$", said, re.M), said
    assert "do:  Set the leverage of BTC/USDT:USDT to at least" in said

    async def silent(*_: object, **__: object) -> Facts:
        raise ExchangeUnreachable("example", "no answer in 10 s", "Try again")

    monkeypatch.setattr(cli_doctor, "paper_facts", silent)
    assert run_command(["doctor"]) == 6
    assert "no answer in 10 s" in capsys.readouterr().err


def test_the_doctor_sees_the_account_as_a_session_left_it_and_leaves_it_so(tmp_path: Path) -> None:
    db = tmp_path / "grid.db"
    words = (
        '[grid]\nmax_position = "50 %"\n[stop]\non_signal = "drain"\ndrain = "1 s"\nafter_drain = "leave"\n'
    )
    file = tmp_path / "grid.toml"
    file.write_text(words)
    run = [
        "run",
        "--config",
        str(file),
        "--engine",
        "simple",
        "--speed",
        "max",
        "--duration",
        "4 h",
        "--json",
    ]
    assert run_command([*run, "--db", str(db)]) in (0, 4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    own = load(file, environ={})
    found, checks = asyncio.run(examine(own, lambda config: paper_facts(config, db)))
    assert found.resumes and found.instance == instance_of("BTC/USDT:USDT")
    assert found.position == found.own_position and found.balances[0].total != 10_000
    assert not list(refusals(checks)), checks
    kept = {name: data for name, data in before.items() if not name.endswith(("-wal", "-shm"))}
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    fresh, _ = asyncio.run(examine(own, lambda config: paper_facts(config, tmp_path / "none.db")))
    assert not fresh.resumes and fresh.balances[0].total == 10_000
