"""The paper exchange's matching keeps its books to the atom, and is never kinder than a real exchange."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gridmm.paper_account import (
    MAX_REQUESTS,
    Out,
    Refusal,
    Rest,
    Row,
    Sum,
    Told,
    Venue,
    Want,
    empty_venue,
    equity_of,
    fee_of,
    held,
)
from gridmm.paper_matching import advance, advance_until, submit
from paper_world import commands, make, rows, stream_hash

SEEDS = st.integers(0, 10**6)


def heard(venue: Venue) -> list[list[int]]:
    """The reports of the last call."""
    return venue.out[:, : int(venue.v[Sum.OUT])].T.tolist()


class Books:
    """An auditor: keeps its own books from what the exchange says, in Python's whole numbers."""

    def __init__(self, venue: Venue) -> None:
        v = venue.v
        self.venue, self.spot, self.unit = venue, v[Sum.SPOT] == 1, int(v[Sum.UNIT_ATOMS])
        self.cash, self.base, self.position = int(v[Sum.CASH]), int(v[Sum.BASE]), 0
        self.asked: dict[int, Any] = {}
        self.filled: dict[int, int] = {}
        self.ended: set[int] = set()
        self.next_trade = 1

    def before(self) -> None:
        """Note the book before a row."""
        orders = self.venue.orders[:, : int(self.venue.v[Sum.ORDERS])].T.tolist()
        self.book = {order[Rest.KEY]: order for order in orders}

    def ask(self, command: tuple[int, ...]) -> None:
        """Note a command that is about to be sent."""
        if command[0] == Want.PLACE:
            self.asked[int(self.venue.v[Sum.NEXT_KEY])] = command

    def after(self) -> None:
        """Check every report of the last call, and the books."""
        for report in heard(self.venue):
            told, key = report[Out.TOLD], report[Out.KEY]
            if told == Told.FILL:
                self.fill(report)
            elif told == Told.FUNDED:
                self.cash += report[Out.FEE]
            if told in (Told.REJECTED, Told.CANCELED, Told.EXPIRED):
                assert key not in self.ended, "an order ends once"
                self.ended.add(key)
                assert report[Out.CUM] == self.filled.get(key, 0)
        self.balance()

    def fill(self, report: list[int]) -> None:
        """Check one fill."""
        key, side, price, lots = (report[x] for x in (Out.KEY, Out.SIDE, Out.PRICE, Out.LOTS))
        _, _, asked_side, limit, quantity, post_only, reduce_only, *_ = self.asked[key]
        assert report[Out.TRADE] == self.next_trade, "trade ids have no gaps"
        self.next_trade += 1
        assert key not in self.ended
        assert lots > 0
        assert side == asked_side
        self.filled[key] = self.filled.get(key, 0) + lots
        assert self.filled[key] == report[Out.CUM] <= quantity
        if self.filled[key] == quantity:
            self.ended.add(key)
        if report[Out.MAKER]:
            assert price == limit
        else:
            assert side * (limit - price) >= 0, "a taker pays at most its limit"
            assert not post_only
        if reduce_only:
            assert self.position * side < 0, "reduce-only reduces"
            assert abs(self.position) >= lots, "reduce-only never flips"
        self.position += side * lots
        self.cash -= side * price * lots * self.unit + report[Out.FEE]
        self.base += side * lots * int(self.venue.v[Sum.LOT_ATOMS]) - report[Out.BASE_FEE]

    def balance(self) -> None:
        """Check the account against the auditor's books."""
        v = self.venue.v
        assert v[Sum.TRADED] == self.position
        if self.spot:
            assert (v[Sum.CASH], v[Sum.BASE]) == (self.cash, self.base)
            assert 0 <= held(self.venue, 1) <= v[Sum.CASH]
            assert 0 <= held(self.venue, -1) <= v[Sum.BASE]
        else:
            assert v[Sum.POSITION] == self.position
            for mark2 in (0, 1_999, 20_000):
                assert equity_of(v, mark2) == self.cash + self.position * mark2 * self.unit // 2
        orders = self.venue.orders[:, : int(v[Sum.ORDERS])].T.tolist()
        buys = [order[Rest.PRICE] for order in orders if order[Rest.SIDE] > 0]
        sells = [order[Rest.PRICE] for order in orders if order[Rest.SIDE] < 0]
        assert v[Sum.BEST_BUY] == max(buys, default=0)
        assert not sells or v[Sum.BEST_SELL] == min(sells)
        assert max(buys, default=0) < min(sells, default=10**9), "our own orders never cross"
        assert all(0 <= order[Rest.CUM] < order[Rest.LOTS] for order in orders)
        ahead: dict[tuple[int, int], int] = {}
        for order in orders:
            place = order[Rest.SIDE], order[Rest.PRICE]
            queue = order[Rest.QUEUE] if order[Rest.QUEUE] >= 0 else 10**9  # nobody has shown it
            assert ahead.get(place, 0) <= queue, "the younger one stands behind"
            ahead[place] = queue

    def row(self, row: tuple[int, ...]) -> None:
        """Check that fills of a row are earned: best price first, the queue before us."""
        kind, _, a, b, *_ = row
        made = [r for r in heard(self.venue) if r[Out.TOLD] == Told.FILL and r[Out.KEY] in self.book]
        for side in (1, -1):
            prices = [r[Out.PRICE] for r in made if r[Out.SIDE] == side]
            assert prices == sorted(prices, reverse=side > 0), "best price first"
            if kind == Row.QUOTE:
                assert all(side * (price - (b if side > 0 else a)) >= 0 for price in prices)
            if kind in (Row.TRADE, Row.PATH):
                assert all(side * (price - a) >= 0 for price in prices)
                at = [r for r in made if r[Out.SIDE] == side and r[Out.PRICE] == a]
                queue = max(0, self.book[at[0][Out.KEY]][Rest.QUEUE]) if at and kind == Row.TRADE else 0
                assert not at or sum(r[Out.LOTS] for r in at) <= b - queue, "the queue eats first"


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
@example(seed=563)  # a younger order once stood before an older one where nobody shows the queue
def test_the_books_of_any_market_balance_to_the_atom(seed: int) -> None:
    venue = make(seed)
    books = Books(venue)
    for number, row in enumerate(rows(seed, 150)):
        books.before()
        no_latency = venue.v[Sum.REQUESTS] == 0
        advance(venue, *row, number)
        if no_latency:
            books.row(row)
        books.after()
        last = row[2] if row[0] in (Row.QUOTE, Row.TRADE, Row.PATH) else 1_000
        for command in commands(seed + number, venue, last):
            books.ask(command)
            submit(venue, *command)
            books.after()


def test_the_same_stream_is_the_same_with_the_compiler_off() -> None:
    program = Path(__file__).with_name("paper_world.py")
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1", PYTHONPATH=str(program.parent.parent))
    command = [sys.executable, str(program), "hash", "300"]
    plain = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert plain.stdout.split() == [stream_hash(seed, 300) for seed in range(6)]


def market(bid: int = 100, ask: int = 102, shown: int = 40, **rules: int) -> Venue:
    """An exchange that shows a touch."""
    venue = empty_venue(**({"spot": 1, "cash": 10**9, "base": 10**6} | rules))
    advance(venue, Row.QUOTE, 0, bid, ask, shown, shown, -1)
    return venue


def place(venue: Venue, side: int, price: int, lots: int, **flags: int) -> list[str]:
    """Send an order and name what is heard."""
    names = ("post_only", "reduce_only", "immediate", "twin", "refuse")
    submit(venue, Want.PLACE, 0, side, price, lots, *(flags.get(name, 0) for name in names))
    return names_of(venue)


def names_of(venue: Venue) -> list[str]:
    """Name what the last call made heard."""
    found = []
    for report in heard(venue):
        name = Told(report[Out.TOLD]).name
        if report[Out.WHY]:
            name += " " + Refusal(report[Out.WHY]).name
        if report[Out.TOLD] == Told.FILL:
            name += f" {report[Out.LOTS]} at {report[Out.PRICE]}"
        found.append(name)
    return found


def tick(venue: Venue, kind: Row, *values: int, after_ms: int = 1) -> list[str]:
    """Apply a row a little later and name what is heard."""
    a, b, c, d = (*values, 0, 0, 0, 0)[:4]
    advance(venue, kind, int(venue.v[Sum.NOW_MS]) + after_ms, a, b, c, d, -1)
    return names_of(venue)


@given(amount=st.integers(0, 10**15), ppm=st.integers(-10_000, 10_000))
@settings(max_examples=200, deadline=None)
def test_fees_are_exact_and_rounded_up(amount: int, ppm: int) -> None:
    assert fee_of(amount, ppm) == -(-amount * ppm // 10**6)


def test_the_queue_eats_first_and_prints_beyond_it_are_ours() -> None:
    venue = market(shown=40)
    place(venue, 1, 100, 10, post_only=1)
    assert tick(venue, Row.TRADE, 100, 39, -1) == []
    assert tick(venue, Row.TRADE, 100, 4, -1) == ["FILL 3 at 100"]
    assert tick(venue, Row.TRADE, 100, 100, -1) == ["FILL 7 at 100"]


def test_a_buyer_who_takes_serves_no_buyer() -> None:
    venue = market(shown=0)
    place(venue, 1, 100, 10, post_only=1)
    assert tick(venue, Row.TRADE, 100, 50, 1) == []
    assert tick(venue, Row.TRADE, 100, 50, 0) == ["FILL 10 at 100"]


def test_a_shrinking_display_shortens_the_queue_and_a_growing_one_does_not_lengthen_it() -> None:
    venue = market(shown=40)
    place(venue, 1, 100, 10, post_only=1)
    tick(venue, Row.QUOTE, 100, 102, 15, 40)
    tick(venue, Row.QUOTE, 100, 102, 90, 40)
    assert venue.orders[Rest.QUEUE, 0] == 15
    tick(venue, Row.QUOTE, 99, 102, 90, 40)
    assert venue.orders[Rest.QUEUE, 0] == 0, "alone in front"


def test_behind_the_touch_the_queue_is_what_shows_when_the_touch_comes() -> None:
    venue = market(shown=5)
    place(venue, 1, 98, 10, post_only=1)
    assert tick(venue, Row.TRADE, 98, 500, -1) == [], "nobody has shown how long the queue is"
    tick(venue, Row.QUOTE, 98, 100, 60, 5)
    assert tick(venue, Row.TRADE, 98, 60, -1) == []
    assert tick(venue, Row.TRADE, 98, 1, -1) == ["FILL 1 at 98"]


def test_a_market_that_never_shows_sizes_has_no_queue() -> None:
    venue = market(shown=0)
    place(venue, 1, 98, 10, post_only=1)
    assert tick(venue, Row.TRADE, 98, 4, -1) == ["FILL 4 at 98"]


def test_through_our_price_everything_is_filled_best_price_first_then_oldest() -> None:
    venue = market(shown=40)
    for price in (98, 99, 99, 97):
        place(venue, 1, price, 10, post_only=1)
    assert tick(venue, Row.TRADE, 97, 1, -1) == ["FILL 10 at 99", "FILL 10 at 99", "FILL 10 at 98"]
    assert [r[Out.KEY] for r in heard(venue)] == [2, 3, 1]


def test_a_touch_that_crosses_fills() -> None:
    venue = market()
    place(venue, 1, 100, 10, post_only=1)
    place(venue, -1, 102, 10, post_only=1)
    assert tick(venue, Row.QUOTE, 98, 100, 5, 5) == ["FILL 10 at 100"]
    assert tick(venue, Row.QUOTE, 103, 104, 5, 5) == ["FILL 10 at 102"]


def test_a_point_of_a_path_has_no_queue_and_makes_a_touch() -> None:
    venue = empty_venue(spot=1, cash=10**9)
    tick(venue, Row.PATH, 100, 5)
    assert place(venue, 1, 101, 5, post_only=1) == ["REJECTED POST_ONLY"]
    place(venue, 1, 99, 5, post_only=1)
    assert tick(venue, Row.PATH, 99, 2) == ["FILL 2 at 99"]
    assert tick(venue, Row.PATH, 98, 0) == ["FILL 3 at 99"]


def test_post_only_never_takes_not_even_from_us() -> None:
    venue = market(spot=0, cash=10**9)
    assert place(venue, 1, 102, 5, post_only=1) == ["REJECTED POST_ONLY"]
    assert place(venue, -1, 101, 5, post_only=1) == ["ACCEPTED"]
    assert place(venue, 1, 101, 5, post_only=1) == ["REJECTED POST_ONLY"]


def test_a_taker_gets_what_is_shown_once() -> None:
    venue = market(shown=6)
    assert place(venue, 1, 105, 4) == ["ACCEPTED", "FILL 4 at 102"]
    assert place(venue, 1, 105, 4, immediate=1) == ["ACCEPTED", "FILL 2 at 102", "EXPIRED IMMEDIATE"]
    assert place(venue, 1, 105, 4, immediate=1) == ["ACCEPTED", "EXPIRED IMMEDIATE"]
    tick(venue, Row.QUOTE, 100, 102, 6, 6)
    assert place(venue, 1, 105, 9) == ["ACCEPTED", "FILL 6 at 102"]
    assert venue.v[Sum.ORDERS] == 1


def test_we_never_trade_with_ourselves() -> None:
    venue = market(shown=6)
    place(venue, -1, 102, 5, post_only=1)
    assert place(venue, 1, 103, 5) == ["ACCEPTED", "EXPIRED SELF_TRADE"]
    tick(venue, Row.QUOTE, 100, 101, 6, 3)
    assert place(venue, 1, 103, 5) == ["ACCEPTED", "FILL 3 at 101", "EXPIRED SELF_TRADE"]


def test_what_filters_refuse() -> None:
    venue = market(min_lots=3, min_atoms=2 * 100 * 5, max_open=1)
    assert place(venue, 1, 100, 0) == ["REJECTED FILTER"]
    assert place(venue, 1, 0, 5) == ["REJECTED FILTER"]
    assert place(venue, 1, -5, 5) == ["REJECTED FILTER"]
    assert place(venue, 1, 100, 2) == ["REJECTED FILTER"]
    assert place(venue, 1, 100, 4) == ["REJECTED NOTIONAL"]
    assert place(venue, 1, 100, 5, refuse=Refusal.FILTER) == ["REJECTED FILTER"]
    assert place(venue, 1, 100, 5) == ["ACCEPTED"]
    assert place(venue, 1, 99, 50, twin=int(venue.orders[Rest.KEY, 0])) == ["REJECTED DUPLICATE"]
    assert place(venue, 1, 99, 50) == ["REJECTED TOO_MANY"]


def test_funds_count_what_open_orders_reserve_to_the_atom() -> None:
    lot = 2 * 100 + 1  # one lot at 100 and the fee of one lot, rounded up
    venue = market(cash=10 * lot, maker_ppm=200, taker_ppm=200, base=7, lot_atoms=2)
    assert place(venue, 1, 100, 6, post_only=1) == ["ACCEPTED"]
    assert place(venue, 1, 100, 5, post_only=1) == ["REJECTED FUNDS"]
    assert place(venue, 1, 100, 4, post_only=1) == ["ACCEPTED"]
    assert place(venue, -1, 102, 4, post_only=1) == ["REJECTED FUNDS"]
    assert place(venue, -1, 102, 3, post_only=1) == ["ACCEPTED"]
    submit(venue, Want.CANCEL, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    assert place(venue, 1, 99, 6, post_only=1) == ["ACCEPTED"]
    poorer = market(cash=10 * lot - 1, maker_ppm=200)
    assert place(poorer, 1, 100, 10, post_only=1) == ["REJECTED FUNDS"]


def test_margin_lets_positions_shrink_when_it_lets_nothing_grow() -> None:
    venue = market(spot=0, cash=1_000, leverage=2, shown=0)
    assert place(venue, 1, 102, 10) == ["REJECTED FUNDS"]
    assert place(venue, 1, 102, 9) == ["ACCEPTED", "FILL 9 at 102"]
    tick(venue, Row.QUOTE, 60, 62, 0, 0)
    assert place(venue, 1, 59, 1, post_only=1) == ["REJECTED FUNDS"]
    assert place(venue, -1, 70, 9, post_only=1) == ["ACCEPTED"]


def test_reduce_only_needs_something_to_reduce_and_ends_with_it() -> None:
    venue = market(spot=0, cash=10**6, leverage=1, shown=0)
    assert place(venue, -1, 105, 5, reduce_only=1) == ["REJECTED REDUCE_ONLY"]
    place(venue, 1, 102, 5)
    assert place(venue, 1, 90, 5, reduce_only=1) == ["REJECTED REDUCE_ONLY"]
    place(venue, -1, 105, 4, reduce_only=1, post_only=1)
    place(venue, -1, 106, 9, reduce_only=1, post_only=1)
    place(venue, -1, 107, 9, reduce_only=1, post_only=1)
    assert tick(venue, Row.QUOTE, 110, 112, 0, 0) == [
        "FILL 4 at 105",
        "FILL 1 at 106",
        "EXPIRED REDUCE_ONLY",
        "EXPIRED REDUCE_ONLY",
    ]
    assert venue.v[Sum.POSITION] == 0


def test_commands_that_arrive_at_the_time_of_a_row_find_that_the_market_moved_first() -> None:
    for arrives_ms, expected in ((9, ["ACCEPTED", "FILL 5 at 101"]), (10, ["REJECTED POST_ONLY"])):
        venue = market(latency_ms=arrives_ms)
        assert place(venue, 1, 101, 5, post_only=1) == []
        assert tick(venue, Row.QUOTE, 99, 101, 0, 0, after_ms=10) == expected


def test_a_cancel_that_arrives_after_the_fill_is_refused() -> None:
    venue = market(latency_ms=5, shown=0)
    place(venue, 1, 100, 5, post_only=1)
    assert tick(venue, Row.QUOTE, 100, 102, 0, 0, after_ms=6) == ["ACCEPTED"]
    submit(venue, Want.CANCEL, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    assert tick(venue, Row.TRADE, 99, 1, -1) == ["FILL 5 at 100"]
    assert tick(venue, Row.TIME, after_ms=9) == ["CANCEL_REJECTED UNKNOWN_ORDER"]


def test_funding_is_paid_by_longs_and_rounded_in_the_exchanges_favour() -> None:
    for position, rate, due in ((3, 1_000_000, -7), (-3, 1_000_000, 6), (3, -1_000_000, 6), (0, 10**6, None)):
        venue = empty_venue(cash=1_000, position=position, cost=position * 100)
        tick(venue, Row.FUNDING, rate, 101)
        # 3 lots at 101 ticks of 2 atoms are 606 atoms; a hundredth of it is 6.06.
        assert [r[Out.FEE] for r in heard(venue)] == ([] if due is None else [due])
        assert venue.v[Sum.CASH] == 1_000 + (due or 0)


def test_a_row_twice_and_a_row_from_the_past_change_nothing() -> None:
    venue = market()
    advance(venue, Row.QUOTE, 5, 100, 102, 40, 40, 7)
    before = venue.v.copy()
    assert advance(venue, Row.QUOTE, 6, 90, 91, 40, 40, 7) == -1
    assert advance(venue, Row.QUOTE, 4, 90, 91, 40, 40, 8) == -2
    assert (venue.v == before).all()


def test_a_full_table_of_requests_sends_nothing() -> None:
    venue = market(latency_ms=1)
    sent = [submit(venue, Want.PLACE, 0, 1, 90, 1, 1, 0, 0, 0, 0) for _ in range(MAX_REQUESTS + 1)]
    assert (sent[-1], sent[-2]) == (0, MAX_REQUESTS)
    tick(venue, Row.TIME, after_ms=5)
    assert len(heard(venue)) == venue.v[Sum.ORDERS] == MAX_REQUESTS


def test_the_reports_of_the_worst_row_fit() -> None:
    venue = market(latency_ms=2, shown=0, spot=0, cash=10**12, leverage=100)
    for _ in range(512):
        submit(venue, Want.PLACE, 0, 1, 99, 1, 1, 0, 0, 0, 0)
    tick(venue, Row.TIME, after_ms=5)
    assert venue.v[Sum.ORDERS] == 512
    for _ in range(512):
        submit(venue, Want.PLACE, 0, -1, 100, 1, 0, 0, 1, 0, 0)
    assert len(tick(venue, Row.TRADE, 90, 1, -1, after_ms=5)) == 512 * 2
    assert venue.v[Sum.POSITION] == 512


@pytest.mark.parametrize("seed", range(4))
def test_many_rows_in_one_call_are_the_same_rows(seed: int) -> None:
    market_rows = list(rows(seed, 400))
    columns = [np.array(column, dtype=np.int64) for column in zip(*market_rows, strict=True)]
    one, many = make(seed), make(seed)
    reports: list[list[list[int]]] = [[], []]
    for command in ((1, 0, 1, 990, 9, 1, 0, 0, 0, 0), (1, 0, -1, 1_010, 9, 1, 0, 0, 0, 0)):
        submit(one, *command)
        submit(many, *command)
    for number, row in enumerate(market_rows):
        advance(one, *row, number)
        reports[0] += heard(one)
    row_index = 0
    while row_index < len(market_rows):
        row_index = advance_until(many, *columns, row_index, len(market_rows))
        reports[1] += heard(many)
    assert reports[0] == reports[1]
    assert (one.v == many.v).all()
