"""The screen fits 80 by 24 and says what the state says, for any state."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gridmm.grid import open_epoch
from gridmm.layout import CLOSE, LEG_ROWS, OPEN, PAR_SIZE, Col, Hole, Leg, Par, Var, empty_core
from gridmm.slots import insert_slot
from gridmm.terminal_view import Rung, Snapshot, bar, nearest, rungs_of, signed, snapshot_of, view
from gridmm.units import Instrument
from gridmm.vocabulary import Order, Reason, Risk, Stop, Trigger, Trip

BTC = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.001"))
D = Decimal


def shot_of(**values: object) -> Snapshot:
    """Return a plain snapshot with some values of the test's own."""
    plain = Snapshot(
        symbol="BTC/USDT",
        title="simple",
        time_ms=0,
        bid=D("59999.9"),
        ask=D("60000.1"),
        last=D(60_000),
        center=D(60_000),
        rungs=(),
        position=D(0),
        cap=D(1),
        realized=D(0),
        unrealized=D(0),
        parts={"harvest": D(0), "trend": D(0), "fees": D(0), "funding": D(0)},
        residual=D(0),
        skew=D(0),
        active_slots=0,
        open_orders=0,
        risk="NORMAL",
    )
    return replace(plain, **values)  # type: ignore[arg-type]


def drawn(shot: Snapshot) -> list[str]:
    """Return the lines of a screen of 80 by 24."""
    console = Console(width=80, height=24, color_system=None, force_terminal=False, force_jupyter=False)
    return "".join(part.text for part in console.render(view(shot), console.options)).splitlines()


numbers = st.decimals(-(10**12), 10**12, places=8)
names = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60)
rungs = st.lists(
    st.builds(
        Rung,
        cell=st.integers(-999, 999),
        low=numbers,
        high=numbers,
        held=numbers,
        order=st.sampled_from(["", "buy", "sell"]),
        price=numbers,
        quantity=numbers,
        status=st.sampled_from(["FREE", "PENDING", "LOCKED"]),
        why=st.sampled_from(["", *(reason.name for reason in Reason)]),
    ),
    max_size=40,
).map(tuple)


@settings(deadline=None, max_examples=40)
@given(
    st.builds(
        shot_of,
        symbol=names,
        title=names,
        time_ms=st.integers(0, 4 * 10**12),
        bid=numbers,
        ask=numbers,
        last=numbers,
        rungs=rungs,
        position=numbers,
        realized=numbers,
        residual=numbers,
        skew=st.decimals(-1, 1, places=6),
        fills=st.integers(0, 10**9),
        triggers=st.lists(st.sampled_from([t.name for t in Trigger])).map(tuple),
        stop=st.sampled_from([s.name for s in Stop]),
        risk=st.sampled_from([r.name for r in Risk]),
    )
)
def test_any_snapshot_fits_a_small_terminal(shot: Snapshot) -> None:
    lines = drawn(shot)
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80


def test_the_height_does_not_change_with_what_is_shown() -> None:
    rung = Rung(-1, D(59_900), D(60_000), price=D(59_900))
    assert len({len(drawn(shot_of(rungs=(rung,) * count))) for count in (0, 1, 13, 14, 30)}) == 1


def test_what_matters_is_on_the_screen() -> None:
    rung = Rung(-1, D(59_900), D(60_000), D("0.5"), "sell", D("60010.5"), D("0.5"), "PENDING")
    shot = shot_of(
        rungs=(rung, Rung(-2, D(59_800), D(59_900), price=D(59_800), why="CAP")),
        realized=D("12.345"),
        unrealized=D("-3"),
        skew=D("0.5"),
        active_slots=7,
        open_orders=9,
        risk="REDUCE_ONLY",
        triggers=("STALE_PRICE",),
        stop="DRAIN",
    )
    text = "\n".join(drawn(shot))
    for words in (
        "60010.5 ○ sell 0.5",
        "59800 CAP",
        "60000 last",
        "+12.34",
        "-3.00",
        "+0.50",
        "7 active",
        "9 open",
        "REDUCE_ONLY STALE_PRICE stopping: DRAIN",
    ):
        assert words in text, words


def test_a_residual_is_an_alarm() -> None:
    assert "RESIDUAL -0.17" in drawn(shot_of(residual=D("-0.17")))[-1]
    assert "RESIDUAL" not in "\n".join(drawn(shot_of()))


def test_the_nearest_rungs_stand_on_both_sides_of_the_price() -> None:
    cells = tuple(Rung(k, D(k), D(k + 1), price=D(k)) for k in range(10))
    above, below = nearest(cells, D("4.4"), 4)
    assert [rung.cell for rung in above] == [6, 5]
    assert [rung.cell for rung in below] == [4, 3]


@pytest.mark.parametrize(("skew", "at"), [("-1", 0), ("0", 4), ("1", 8)])
def test_the_bar_leans_to_the_side_of_the_inventory(skew: str, at: int) -> None:
    assert bar(D(skew)).plain.index("█") == at


@pytest.mark.parametrize(("money", "text"), [("0.004", "0.00"), ("1234.5", "+1,234.50"), ("-0.01", "-0.01")])
def test_money_is_shown_to_the_cent_with_its_sign(money: str, text: str) -> None:
    assert signed(D(money)).plain == text


def leg(status: Order, side: int, price: int, lots: int, cum: int) -> np.ndarray:
    """Return the rows of one leg."""
    rows = np.zeros(LEG_ROWS, dtype=np.int64)
    rows[[Leg.STATUS, Leg.SIDE, Leg.PRICE, Leg.LOTS, Leg.CUM]] = status, side, price, lots, cum
    return rows


def test_a_snapshot_is_what_the_state_says() -> None:
    core, par = empty_core(), np.zeros(PAR_SIZE, dtype=np.int64)
    par[[Par.MODE, Par.BUYS, Par.SELLS, Par.MAX_LOTS, Par.HALF_ATOMS]] = 1, 3, 3, 100, BTC.half_atoms
    open_epoch(core, par, anchor_ticks=600_000, interval=1_000, now_ms=0)
    core.v[[Var.BID, Var.ASK, Var.LAST, Var.MARK2, Var.NOW_MS]] = 599_990, 600_010, 600_000, 1_200_000, 5_000
    insert_slot(core, 1, -3, 1, 597_000, 598_000)
    insert_slot(core, 1, -2, 1, 598_000, 599_000)
    insert_slot(core, 1, -1, 1, 599_000, 600_000)
    core.slots[OPEN : OPEN + LEG_ROWS, 0] = leg(Order.PENDING, 1, 597_000, 10, 0)
    core.slots[OPEN : OPEN + LEG_ROWS, 1] = leg(Order.WORKING, 1, 598_000, 10, 4)
    core.slots[Col.OPENED, 2] = 10
    core.slots[CLOSE : CLOSE + LEG_ROWS, 2] = leg(Order.WORKING, -1, 600_000, 10, 3)
    core.risk[Trip.ACTIVE, Trigger.DRAWDOWN] = 1
    core.v[Var.RISK] = Risk.HALTED
    holes = np.array([[-4, 1, Reason.CAP], [-1, 1, Reason.OCCUPIED], [9_999, 1, Reason.CAP]]).T
    assert list(Hole) == [0, 1, 2]

    shot = snapshot_of(core, par, BTC, "simple", holes)

    assert [
        (rung.cell, rung.order, rung.status, str(rung.quantity), str(rung.held)) for rung in shot.rungs
    ] == [
        (-1, "sell", "LOCKED", "0.007", "0.007"),
        (-2, "buy", "LOCKED", "0.006", "0.004"),
        (-3, "buy", "PENDING", "0.010", "0.000"),
        (-4, "", "FREE", "0", "0"),
    ]
    assert (shot.rungs[-1].why, shot.rungs[-1].price) == ("CAP", D("59600.0"))
    assert (shot.position, shot.cap, shot.skew) == (D("0.011"), D("0.100"), D("0.11"))
    assert (shot.open_orders, shot.active_slots) == (3, 3)
    assert shot.unrealized == D("0.007") * 100 + D("0.004") * 200
    assert (shot.risk, shot.triggers) == ("HALTED", ("DRAWDOWN",))
    assert len(drawn(shot)) <= 23
    assert rungs_of(core, BTC) == shot.rungs[:-1]


def test_a_cell_without_an_order_stands_where_its_next_order_would() -> None:
    core = empty_core()
    for at, (direction, opened, why) in enumerate(
        [(1, 0, 0), (1, 5, Reason.PARKED), (-1, 0, 0), (-1, 5, Reason.PARKED)]
    ):
        insert_slot(core, 1, at, direction, 1_000 + 10 * at, 1_010 + 10 * at)
        core.slots[[Col.OPENED, Col.WHY_CLOSE], at] = opened, why
    found = {rung.cell: (int(rung.price * 10), rung.why) for rung in rungs_of(core, BTC)}
    assert found == {0: (1_000, ""), 1: (1_020, "PARKED"), 2: (1_030, ""), 3: (1_030, "PARKED")}


def test_a_state_that_has_seen_nothing_can_be_shown() -> None:
    par = np.zeros(PAR_SIZE, dtype=np.int64)
    assert len(drawn(snapshot_of(empty_core(), par, BTC, "simple"))) <= 23
