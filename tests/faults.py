"""Faults for drills: each plants something that is really wrong, and says from outside whether it is there, or mended.

For every runbook there are at least three that look alike and are not. A fault is a function that plants it; beside it
stand what is seen of it from outside, what must hold afterwards, and how a person mends it with what the product has.
None of them knows how a runbook looks, and no runbook may look here: they are its examination.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

import gridmm
from fault_stage import (
    HAND,
    HERE,
    INSTANCE,
    NEAREST,
    CannotPlant,
    Fault,
    Stage,
    database_server,
    staged,
)
from gridmm.client_id import ClientId, encode, instance_of
from gridmm.errors import UnknownVersion
from gridmm.model import seal
from gridmm.vocabulary import Order

FAULTS: dict[str, Fault] = {}
NO_FUNDING = r"GET /fapi/v1/income"  # without it, no start and no look at the exchange is whole
FULL = "0.015"  # three cells: a grid that has bought nothing more to buy
SELL = 2  # as a State says it
OTHER_GRID = instance_of("another grid")


def fault(
    runbook: str, symptom: str, truth: str, must_hold: str, **more: object
) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the function that plants it."""

    def made(plant: Callable[[Stage], None]) -> Fault:
        found = Fault(plant.__name__, runbook, symptom, truth, must_hold, plant, **more)  # type: ignore[arg-type]
        FAULTS[found.name] = found
        return found

    return made


@contextmanager
def plant(name: str, folder: Path) -> Iterator[Stage]:
    """Yield a stage on which the fault of this name stands."""
    with staged(FAULTS[name], folder) as stage:
        yield stage


def running(s: Stage, **options: object) -> None:
    """Let a grid trade: three buys at the exchange, and an order of somebody else far below them."""
    s.configure(**options)
    s.start()
    s.quiet()
    s.by_hand()


@fault("", "nothing", "all is well", "nothing changes", harmless=True)
def healthy(s: Stage) -> None:
    """A grid that trades, has bought once, and is well: whatever is diagnosed here is a false alarm."""
    running(s)
    s.fill_nearest()
    s.until(lambda: len(s.fills()) == 1 and not s.differences())


def well_again(s: Stage) -> None:
    """Let nothing at the exchange fail any more; streams are opened anew, as after any trouble there."""
    s.exchange("clear")
    s.exchange("up")
    s.exchange("cut")


@fault("", "nothing", "all is well", "nothing changes", killed=True, harmless=True)
def healthy_again(s: Stage) -> None:
    """A grid that was killed and started again, and is well."""
    s.start()
    s.until(lambda: not s.differences())


# -- stuck and orphan slots


def deaf_to_the_end(s: Stage) -> None:
    """Keep the grid from finding out by itself: it asks only on command, and its look at the exchange never gets whole."""
    s.exchange("silence", patterns=[NO_FUNDING])


def known(s: Stage, status: int, there: bool) -> set[str]:
    """Return the orders of the state with this status that are, or are not, open at the exchange."""
    open_there = s.open_there()
    return {
        name for name, one in s.orders().items() if one.status == status and (name in open_there) is there
    }


@fault(
    "stuck_slots",
    "a closing order stays unknown, and nothing is done about its cell",
    "the exchange took the order, its answer and its report were lost; it is open",
    "the state knows that it works; it was placed once; its cell goes on",
)
def stuck_unanswered(s: Stage) -> None:
    """`gridmm orders` shows an order `unknown` that gets older. The exchange has it. It must not be placed twice."""
    running(s, execution__query_after="1 h", grid__max_position=FULL)
    deaf_to_the_end(s)
    s.exchange("swallow", patterns=['"x": "NEW"'])
    s.exchange("faults", once={"place.unknown_after": 1})
    s.fill_nearest()
    s.until(lambda: known(s, Order.UNKNOWN, True))
    s.truth |= {"client_ids": known(s, Order.UNKNOWN, True), "slots": {(1, -1)}}


@stuck_unanswered.seen
def _(s: Stage) -> None:
    lost = known(s, Order.UNKNOWN, True)
    assert lost, "no order is unknown here and open there"
    assert lost == s.truth["client_ids"]


@stuck_unanswered.gone
def _(s: Stage) -> None:
    assert s.truth["client_ids"] <= s.open_there(), "it was withdrawn although nothing was wrong with it"


@stuck_unanswered.mend
def _(s: Stage) -> None:
    said = s.ask("clear", "-1")
    assert said.code == 3 and "is open at the exchange" in said.out, said
    well_again(s)


@fault(
    "stuck_slots",
    "a closing order stays unknown, and nothing is done about its cell",
    "the order never reached the exchange",
    "the cell has a closing order that is open at the exchange",
)
def stuck_never_arrived(s: Stage) -> None:
    """`gridmm orders` shows an order `unknown` that gets older. The exchange never had it. Its cell must close again."""
    running(s, execution__query_after="1 h", grid__max_position=FULL)
    deaf_to_the_end(s)
    s.exchange("faults", once={"place.unknown_before": 1})
    s.fill_nearest()
    s.until(lambda: known(s, Order.UNKNOWN, False))
    s.truth |= {"client_ids": known(s, Order.UNKNOWN, False), "slots": {(1, -1)}}


@stuck_never_arrived.seen
def _(s: Stage) -> None:
    lost = known(s, Order.UNKNOWN, False)
    assert lost, "no order is unknown here and absent there"
    assert lost == s.truth["client_ids"]


@stuck_never_arrived.gone
def _(s: Stage) -> None:
    assert not s.truth["client_ids"] & s.orders().keys()
    assert any(one.side == SELL and int(one.status) == Order.WORKING for one in s.orders().values()), (
        "the cell has no close"
    )


@stuck_never_arrived.mend
def _(s: Stage) -> None:
    said = s.ask("clear", "-1")
    assert said.code == 0 and "none is open at the exchange" in said.out, said


@fault(
    "stuck_slots",
    "the price went through a level, and its slot still waits for the order",
    "the order was filled, and the stream did not say it",
    "the fill is written down once, the cell holds what was bought and has a closing order",
)
def stuck_deaf_fill(s: Stage) -> None:
    """`gridmm orders` shows a buy above the price. It was filled long ago. What it bought must be known, and closed."""
    running(s, execution__query_after="1 h", grid__max_position=FULL)
    deaf_to_the_end(s)
    before = s.open_there()
    s.exchange("swallow", patterns=["."])
    s.fill_nearest()
    s.truth |= {"client_ids": before - s.open_there(), "slots": {(1, -1)}}


@stuck_deaf_fill.seen
def _(s: Stage) -> None:
    filled = {one["client_id"] for one in s.exchange.audit()["fills"]}
    waits = known(s, Order.WORKING, False) & filled
    assert waits, "no slot waits for an order that was filled"
    assert waits == s.truth["client_ids"]


@stuck_deaf_fill.gone
def _(s: Stage) -> None:
    assert s.position() == Decimal("0.005")
    assert any(one.side == SELL for one in s.orders().values()), "the cell has no close"


@stuck_deaf_fill.mend
def _(s: Stage) -> None:
    said = s.ask("clear", "-1")
    assert said.code == 0 and "it holds 0.005 BTC" in said.out, said


@fault(
    "stuck_slots",
    "the grid is halted by ABSENT_ORDER, and its slots are locked",
    "the exchange was restored from an older copy and has forgotten orders that it had acknowledged",
    "the forgotten orders have ended, the alarm is reset, the ladder stands again",
)
def stuck_forgotten(s: Stage) -> None:
    """`gridmm status` says HALTED and ABSENT_ORDER. The exchange does not know orders that are locked. Somebody decides."""
    copy = str(s.folder / "older.db")
    s.exchange("snapshot", to=copy)
    running(s)
    s.truth |= {"client_ids": set(s.orders()), "slots": {(1, -1), (1, -2), (1, -3)}, "hand": False}
    s.exchange("forget", ledger=copy)
    s.until(lambda: "ABSENT_ORDER" in s.tripped())


@stuck_forgotten.seen
def _(s: Stage) -> None:
    gone = known(s, Order.WORKING, False)
    assert gone, "every order that is locked here is open there"
    assert gone == s.truth["client_ids"] and s.exchange.audit()["orders"] == 0


@stuck_forgotten.gone
def _(s: Stage) -> None:
    assert len(s.open_there()) == 3 and not s.truth["client_ids"] & s.open_there()


@stuck_forgotten.mend
def _(s: Stage) -> None:
    for cell in ("-1", "-2", "-3"):
        said = s.ask("clear", cell)
        assert said.code == 0 and "given up with what is known" in said.out, said
    assert s.ask("risk", "reset", "absent_order").code == 0


def stranger(instance: int) -> str:
    """Return the id of an order of an earlier start, which no database knows any more."""
    return encode(ClientId(instance, 77, 1, -9, +1, 0, 900))


@fault(
    "stuck_slots",
    "the exchange shows one order more than `gridmm orders`",
    "an order of this grid, of an earlier start, that no slot knows",
    "it is withdrawn, nothing else is, and the grid opens again",
)
def orphan(s: Stage) -> None:
    """The exchange's page shows an order that begins with GM and is in no slot. It is this grid's own and may fill."""
    running(s)
    deaf_to_the_end(s)
    s.exchange("swallow", patterns=["."])
    s.truth["client_ids"] = {stranger(INSTANCE)}
    s.exchange("place", side=1, price="59000", quantity="0.004", client_id=stranger(INSTANCE))


@orphan.seen
def _(s: Stage) -> None:
    lost = s.open_there() - s.orders().keys()
    assert lost, "every order of this grid is in a slot"
    assert lost == s.truth["client_ids"]


@orphan.gone
def _(s: Stage) -> None:
    assert not s.truth["client_ids"] & s.open_there() and len(s.open_there()) == 3


@orphan.mend
def _(s: Stage) -> None:
    well_again(s)  # the grid's next look is whole: it withdraws the stranger itself, and raises the alarm
    s.until(lambda: "STRAY_ORDER" in s.tripped())
    s.until(lambda: not s.truth["client_ids"] & s.open_there())
    assert s.ask("risk", "reset", "stray_order").code == 0


@fault(
    "stuck_slots",
    "the exchange shows one order more than `gridmm orders`",
    "an order of another grid of this account, whose database is gone: this grid never touches it",
    "a person has withdrawn it on the exchange's page; nothing of this grid has changed",
)
def orphan_of_another_grid(s: Stage) -> None:
    """The exchange's page shows an order that begins with GM and is in no slot. It is not this grid's: only a person may act."""
    running(s)
    s.truth |= {"client_ids": {stranger(OTHER_GRID)}, "ours": s.open_there()}
    s.exchange("place", side=1, price="59000", quantity="0.004", client_id=stranger(OTHER_GRID))


@orphan_of_another_grid.seen
def _(s: Stage) -> None:
    there = {one["client_id"] for one in s.exchange.audit()["open"]}
    lost = {one for one in there - s.open_there() if one.startswith("GM")}
    assert lost, "no other grid has an order here"
    assert lost == s.truth["client_ids"]


@orphan_of_another_grid.gone
def _(s: Stage) -> None:
    there = {one["client_id"] for one in s.exchange.audit()["open"]}
    assert not s.truth["client_ids"] & there and s.open_there() == s.truth["ours"]


@orphan_of_another_grid.mend
def _(s: Stage) -> None:
    s.exchange("cancel", client_id=stranger(OTHER_GRID))


@fault(
    "stuck_slots",
    "the exchange shows one order more than `gridmm orders`",
    "an order that a person placed by hand: not ours to touch",
    "it is still there, unchanged",
    harmless=True,
)
def foreign_order(s: Stage) -> None:
    """The exchange's page shows an order without our prefix. It belongs to somebody. To withdraw it would be the fault."""
    running(s)
    s.truth["client_ids"] = {"a-friend-7"}
    s.exchange("place", side=1, price="59000", quantity="0.004", client_id="a-friend-7")


@foreign_order.seen
def _(s: Stage) -> None:
    there = {one["client_id"] for one in s.exchange.audit()["open"] if not one["client_id"].startswith("GM")}
    assert there - {HAND}, "nobody else has an order here"
    assert there - {HAND} == s.truth["client_ids"]


@foreign_order.gone
def _(s: Stage) -> None:
    foreign_order._seen(s)


# -- risk mode


def tripped(s: Stage, name: str) -> None:
    """Assert that a trigger, and no other, holds the grid."""
    assert s.tripped() == {name}, f"tripped: {', '.join(sorted(s.tripped())) or 'nothing'}"


def reset(s: Stage, name: str) -> None:
    """Reset a trigger."""
    said = s.ask("risk", "reset", name)
    assert said.code == 0, said


def risk(truth: str, must_hold: str, **more: object) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the runbook about risk; all of them look alike at first."""
    return fault("risk_mode", "`gridmm status` says that the grid is not NORMAL", truth, must_hold, **more)


@risk("a person paused the grid", "the pause is over because a person said so, with a reason")
def risk_operator(s: Stage) -> None:
    """`gridmm status` says REDUCE_ONLY. Somebody paused it, and `gridmm commands` says who and why. Ask before you reset."""
    running(s)
    assert s.gridmm("pause", "--db", s.db, "--why", "news at 14:30", "--who", "ann").code == 0
    s.truth["trigger"] = "OPERATOR"


@risk(
    "the position lost more than the limit since its peak",
    "the operator has seen the loss; the peak starts anew",
)
def risk_drawdown(s: Stage) -> None:
    """`gridmm status` says HALTED. The price fell through the ladder. What is held stays at risk until a person decides."""
    running(s, risk__drawdown__limit="2", risk__drawdown__hold="0 s")
    s.fill_nearest()
    s.until(lambda: len(s.fills()) == 1)
    s.exchange("price", bid="59390.0", ask="59390.2")
    s.truth["trigger"] = "DRAWDOWN"


@risk(
    "a candle had a hundred times the usual volume and fell",
    "the candle is over and its alarm reset",
    why_not="the alarm stands as long as its candle is the last one, and for ten minutes more: it is waited for",
)
def risk_volume_spike(s: Stage) -> None:
    """`gridmm status` says REDUCE_ONLY. The market is in a rush downwards. It re-arms by itself once it is calm."""
    running(s)
    s.exchange("candle", close="59300", volume="100")
    s.truth["trigger"] = "VOLUME_SPIKE"


@risk("the exchange refuses orders: funds", "orders are taken again, and the alarm is reset")
def risk_rejects(s: Stage) -> None:
    """`gridmm status` says REDUCE_ONLY. The exchange refuses what is sent. The reason is at the exchange, not here."""
    s.configure(risk__rejects__limit=3, risk__window="2 s")
    s.exchange("faults", per_mille={"place.funds": 1_000})
    s.start()
    s.until(lambda: s.tripped() == {"REJECTS"})
    s.truth["trigger"] = "REJECTS"


@risk("the price has not moved on for too long", "prices are back, and the alarm is over")
def risk_stale_price(s: Stage) -> None:
    """`gridmm status` says REDUCE_ONLY. No price came. Nothing is reset before prices are back."""
    running(s, risk__stale_price__limit="2 s", risk__rearm="1 s")
    no_prices(s)
    s.truth["trigger"] = "STALE_PRICE"


def no_prices(s: Stage) -> None:
    """Let the market say nothing more, on its streams and when it is asked."""
    s.exchange("silence", patterns=["GET /fapi/v1/(ticker|klines|depth|trades)"])
    s.exchange("beat", on=False)
    s.exchange("mute", which="prices")


for one in (risk_operator, risk_drawdown, risk_volume_spike, risk_rejects, risk_stale_price):

    def _seen(s: Stage, fault: Fault = one) -> None:
        tripped(s, fault.name.removeprefix("risk_").upper())

    one.seen(_seen)


@risk_operator.mend
def _(s: Stage) -> None:
    reset(s, "operator")


@risk_drawdown.mend
def _(s: Stage) -> None:
    reset(s, "drawdown")


@risk_rejects.mend
def _(s: Stage) -> None:
    s.exchange("clear")
    s.until(lambda: s.ask("risk", "reset", "rejects").code == 0 and not s.tripped())


@risk_stale_price.mend
def _(s: Stage) -> None:
    well_again(s)


# -- price stale, or the exchange is down


def outage(truth: str, must_hold: str) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the runbook about an exchange that is not heard."""
    return fault("exchange_down", "the price gets older, nothing is placed", truth, must_hold)


def waiting(s: Stage) -> None:
    """Let a grid trade that notices silence soon, and forgives it soon."""
    running(s, risk__stale_price__limit="2 s", risk__stale_user__limit="3 s", risk__rearm="1 s")
    s.truth["before"] = s.open_there()


def blind(s: Stage, trigger: str) -> None:
    """Assert that a trigger says that the exchange is not heard."""
    assert trigger in s.tripped(), f"tripped: {', '.join(sorted(s.tripped())) or 'nothing'}"


@outage("nothing listens at the exchange's address", "it listens again, streams are open, the ladder stands")
def exchange_gone(s: Stage) -> None:
    """The price gets older, and every call fails at once. Orders rest there and may fill. Wait; nothing can be sent."""
    waiting(s)
    s.exchange("down")


@exchange_gone.seen
def _(s: Stage) -> None:
    assert not s.exchange.audit()["up"], "it listens"
    blind(s, "STALE_PRICE")


@outage("only the streams and questions of the market are silent; orders work", "prices come again")
def exchange_without_prices(s: Stage) -> None:
    """The price gets older, but orders can be withdrawn. It is a matter of the market's data alone."""
    waiting(s)
    no_prices(s)


@exchange_without_prices.seen
def _(s: Stage) -> None:
    blind(s, "STALE_PRICE")
    audit = s.exchange.audit()
    assert audit["up"] and "account" in audit["streams"] and not audit["struck"].get("banned"), (
        "more than prices is gone"
    )


@outage(
    "the stream of our orders is gone and cannot be opened; prices work",
    "the stream is open, what was missed is known",
)
def exchange_without_orders(s: Stage) -> None:
    """Prices come, and nothing is heard of our orders: fills may be missing. The grid opens nothing until it has asked."""
    waiting(s)
    s.exchange("silence", patterns=["listenKey", "WS account", "GET /fapi/v1/(userTrades|openOrders|income)"])
    s.exchange("cut", which="account")


@exchange_without_orders.seen
def _(s: Stage) -> None:
    blind(s, "STALE_USER")
    audit = s.exchange.audit()
    assert audit["up"] and "prices" in audit["streams"] and "account" not in audit["streams"]


@outage(
    "the exchange has banned this address for asking too much", "the ban is over, and nothing hammers at it"
)
def exchange_bans(s: Stage) -> None:
    """Every answer is 418. To try harder makes it longer. Wait until the ban is over."""
    waiting(s)
    calls = ("place", "cancel", "cancel_all", "query", "listen", "market")
    s.exchange("faults", per_mille={f"{call}.banned": 1_000 for call in calls})
    s.exchange("cut")


@exchange_bans.seen
def _(s: Stage) -> None:
    audit = s.exchange.audit()
    assert audit["up"] and audit["struck"].get("banned"), "nobody is banned"
    blind(s, "STALE_PRICE")


for one in (exchange_gone, exchange_without_prices, exchange_without_orders, exchange_bans):
    one.mend(well_again)

    def _back(s: Stage) -> None:
        audit = s.exchange.audit()
        assert audit["up"] and {"account", "prices"} <= set(audit["streams"])
        assert len(s.open_there()) == 3 and audit["position"] == "0.000"

    one.gone(_back)


# -- orders or position mismatch


def mismatch(symptom: str, truth: str, must_hold: str) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the runbook about books that do not agree."""
    return fault("mismatch", symptom, truth, must_hold)


def candle(s: Stage) -> None:
    """Let a minute end now: positions are compared once a candle."""
    s.exchange("candle", close="60000", volume="1")


@mismatch(
    "MISMATCH halts the grid",
    "somebody bought by hand on the account",
    "the stranger's position is gone, the alarm is reset",
)
def mismatch_hand_trade(s: Stage) -> None:
    """`gridmm status` says HALTED and MISMATCH. No fill of ours explains the position. Somebody traded on our account."""
    running(s)
    s.exchange("place", side=1, price="0", quantity="0.002", client_id="by-hand-2", market=True)
    candle(s)
    s.truth["base"] = Decimal("0.002")


@mismatch_hand_trade.seen
def _(s: Stage) -> None:
    audit = s.exchange.audit()
    strange = sum(
        f["side"] * Decimal(f["quantity"]) for f in audit["fills"] if not f["client_id"].startswith("GM")
    )
    assert strange, "every trade is ours"
    assert strange == s.truth["base"] == Decimal(audit["position"]) - s.position()
    blind(s, "MISMATCH")


@mismatch_hand_trade.mend
def _(s: Stage) -> None:
    s.exchange("place", side=-1, price="0", quantity="0.002", client_id="by-hand-3", market=True)
    reset(s, "mismatch")


@mismatch(
    "the exchange shows fewer orders than `gridmm orders`",
    "somebody cancelled one of our orders by hand, unheard",
    "the cell's order stands again, under a new name",
)
def mismatch_hand_cancel(s: Stage) -> None:
    """`gridmm orders` shows an order that the exchange's page does not. Somebody took it away. It is wanted."""
    running(s, execution__query_after="1 h")
    deaf_to_the_end(s)
    s.exchange("swallow", patterns=["."])
    (name,) = [one for one, said in s.orders().items() if said.price_ticks == int(NEAREST * 10)]
    s.exchange("cancel", client_id=name)
    s.truth |= {"client_ids": {name}, "slots": {(1, -1)}}


@mismatch_hand_cancel.seen
def _(s: Stage) -> None:
    filled = {one["client_id"] for one in s.exchange.audit()["fills"]}
    gone = known(s, Order.WORKING, False) - filled
    assert gone, "every order of the state is open, or was filled"
    assert gone == s.truth["client_ids"] and s.exchange.audit()["orders"] > 0


@mismatch_hand_cancel.gone
def _(s: Stage) -> None:
    assert len(s.open_there()) == 3 and not s.truth["client_ids"] & s.open_there()


@mismatch_hand_cancel.mend
def _(s: Stage) -> None:
    said = s.ask("clear", "-1")
    assert said.code == 0, said


@mismatch(
    "the exchange shows a position that the grid does not",
    "a fill of ours was not said, and cannot be asked for now",
    "the fill is written down once",
)
def mismatch_unheard_fill(s: Stage) -> None:
    """The exchange shows 0.005, `gridmm status` 0. It is ours, and will be known once trades can be asked for: never reset."""
    running(s)
    s.exchange("silence", patterns=["GET /fapi/v1/(userTrades|income)"])
    s.exchange("swallow", patterns=["."])
    s.fill_nearest()
    candle(s)
    s.truth["base"] = Decimal("0.005")


@mismatch_unheard_fill.seen
def _(s: Stage) -> None:
    audit, trades = s.exchange.audit(), [trade for trade, _ in s.fills()]
    unheard = [f for f in audit["fills"] if f["client_id"].startswith("GM") and f["trade_id"] not in trades]
    assert unheard, "every trade of ours is written down"
    assert sum(Decimal(f["quantity"]) for f in unheard) == s.truth["base"]


@mismatch_unheard_fill.gone
def _(s: Stage) -> None:
    assert s.position() == Decimal("0.005")


@mismatch_unheard_fill.mend
def _(s: Stage) -> None:
    well_again(s)


@mismatch(
    "MISMATCH halts the grid",
    "the exchange took a trade of ours back",
    "both hold the same, alarms are reset by a person",
)
def mismatch_busted(s: Stage) -> None:
    """`gridmm status` says HALTED and MISMATCH. A trade that we have written down is not in the exchange's books any more."""
    running(s, grid__max_position=FULL)
    copy = str(s.folder / "older.db")
    s.exchange("snapshot", to=copy)
    s.fill_nearest()
    s.until(lambda: len(s.fills()) == 1 and not s.differences())
    s.exchange("forget", ledger=copy)
    candle(s)
    s.truth["base"] = Decimal("-0.005")
    s.until(lambda: "MISMATCH" in s.tripped())


@mismatch_busted.seen
def _(s: Stage) -> None:
    there = {one["trade_id"] for one in s.exchange.audit()["fills"]}
    busted = {trade for trade, _ in s.fills()} - there
    assert busted, "the exchange has every trade"
    blind(s, "MISMATCH")


def clear_vanished(s: Stage) -> int:
    """Clear every slot whose order the exchange does not have; return how many there were."""
    gone = {name for name in s.orders() if name not in s.open_there()}
    slots = [one for one in s.state().slots if {one.open.client_id, one.close.client_id} & gone]
    for slot in slots:
        s.ask(
            "clear", f"{slot.epoch}/{slot.cell}"
        )  # it may have become free meanwhile: then that is what it says
    return len(slots)


def accept_bust(s: Stage) -> None:
    """Agree with an exchange that took a trade back: buy what it no longer holds, end what it no longer has."""
    there = {one["trade_id"] for one in s.exchange.audit()["fills"]}
    s.truth["busted"] = [trade for trade, _ in s.fills() if trade not in there]
    for name in s.open_there() - s.orders().keys():  # the trade's undoing brought it back; no slot knows it
        s.exchange("cancel", client_id=name)
    s.exchange("place", side=1, price="0", quantity="0.005", client_id="by-hand-4", market=True)
    s.until(lambda: not clear_vanished(s))
    reset(s, "all")


mismatch_busted.mend(accept_bust)


@mismatch_busted.gone
def _(s: Stage) -> None:
    assert s.position() == Decimal("0.005") == Decimal(s.exchange.audit()["position"])


# -- the database is down


def database(truth: str, must_hold: str, **more: object) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the runbook about a database that does not answer."""
    return fault(
        "database_down", "`does not answer … Nothing is sent until it is back`", truth, must_hold, **more
    )


def says(s: Stage, words: str) -> bool:
    """Return whether the terminal shows some words."""
    return words in s.terminal()


@database(
    "another program holds a lock on the file", "the lock is gone, the grid goes on from what it had saved"
)
def database_locked(s: Stage) -> None:
    """The terminal says that the database is locked. Another program writes, or was left open in the middle of it."""
    running(s)
    hold = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1],timeout=20); c.execute('BEGIN EXCLUSIVE'); print('held',flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, s.db], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline()
    s.undo.append(lambda: (holder.kill(), holder.wait()))  # type: ignore[arg-type,func-returns-value]
    s.truth["pid"] = holder.pid
    s.fill_nearest()
    s.until(lambda: says(s, "Nothing is sent until it is back"))


@database_locked.seen
def _(s: Stage) -> None:
    with closing(sqlite3.connect(s.db, timeout=1.0)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
            db.rollback()
        except sqlite3.OperationalError as error:
            assert "locked" in str(error)
            return
    raise AssertionError("nobody holds it")


@database_locked.gone
def _(s: Stage) -> None:
    assert says(s, "the database is back") and len(s.fills()) == 1


@database_locked.mend
def _(s: Stage) -> None:
    os.kill(s.truth["pid"], signal.SIGTERM)


@database("the disk is full", "there is room, and every trade meanwhile is known", by_itself="")
def database_full(s: Stage) -> None:
    """The terminal says that the disk is full. Logs or copies ate it. Nothing is sent; make room, delete nothing of ours."""
    disk = s.folder / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        raise CannotPlant(f"a small disk cannot be mounted here: {done.stderr.decode().strip()}")
    s.undo.append(lambda: subprocess.run(["umount", "-l", str(disk)], check=False))  # type: ignore[arg-type]
    s.db, s.truth["disk"] = str(disk / "grid.sqlite"), disk
    running(s)
    with (disk / "old-logs").open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4_096)):
                pass
        except OSError:
            pass
    s.fill_nearest()
    s.until(
        lambda: (
            says(s, "Nothing is sent until it is back") or s.process is None or s.process.poll() is not None
        )
    )


@database_full.seen
def _(s: Stage) -> None:
    left = os.statvfs(Path(s.db).parent)
    assert left.f_bavail * left.f_bsize < 8_192, "there is room"


@database_full.gone
def _(s: Stage) -> None:
    assert len(s.fills()) == 1


@database_full.mend
def _(s: Stage) -> None:
    (s.truth["disk"] / "old-logs").unlink()
    process = s.process
    assert process is not None
    s.until(lambda: says(s, "the database is back") or process.poll() is not None)
    if process.poll() is not None:  # it took itself for displaced: its own new number was never written
        s.ended()
        s.start()


@database("the file may not be written by who runs the grid", "it may, and only by them", killed=True)
def database_rights(s: Stage) -> None:
    """A start says that the file is read-only: a copy was put there by somebody else, or by root. Mend rights, not data."""
    if os.geteuid() == 0:  # root may write anything, unless it gives that up
        drop = "-dac_override,-dac_read_search"
        s.before = ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}"]
        if shutil.which("setpriv") is None:
            raise CannotPlant("root writes any file, and setpriv, which would take that away, is not here")
    for path in Path(s.db).parent.glob("grid.sqlite*"):
        if path.is_file() and path.suffix != ".lock":
            path.chmod(0o400)
    s.start()
    s.ended()


@database_rights.seen
def _(s: Stage) -> None:
    assert not Path(s.db).stat().st_mode & 0o200, "its owner may write it"
    assert "read-only" in s.terminal() or "readonly" in s.terminal() or "ermission" in s.terminal(), (
        s.terminal()[-500:]
    )


@database_rights.gone
def _(s: Stage) -> None:
    assert s.process is not None and Path(s.db).stat().st_mode & 0o777 == 0o600


@database_rights.mend
def _(s: Stage) -> None:
    for path in Path(s.db).parent.glob("grid.sqlite*"):
        if path.is_file():
            path.chmod(0o600)
    s.start()


def served(s: Stage) -> None:
    """Let a grid trade whose state is in PostgreSQL."""
    s.start()
    s.until(lambda: len(s.open_there()) >= 4 and not s.differences())
    s.truth["before"] = s.exchange.audit()["orders"]


def moves_on(s: Stage) -> None:
    """Let the market move until the grid has to save, and finds out."""
    for _ in range(20):
        if says(s, "Nothing is sent until it is back"):
            break
        s.exchange("advance", moments=5, pause_ms=20)
    s.until(lambda: says(s, "Nothing is sent until it is back"))


def sql(statement: str) -> None:
    """Say something to the server of databases, from beside all databases."""
    database_server()._command(statement)


def cut_off(s: Stage) -> None:
    """End every connection to the stage's database."""
    name = s.db.rpartition("/")[2]
    sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


@database(
    "PostgreSQL is not running", "it runs, and the grid goes on from what it had saved", place="postgres"
)
def database_stopped(s: Stage) -> None:
    """The terminal says that the connection was refused. The server is down; orders rest at the exchange and may fill."""
    served(s)
    database_server().stop(gently=False)
    moves_on(s)


@database(
    "PostgreSQL runs, and takes no connections to this database", "it takes them again", place="postgres"
)
def database_refuses(s: Stage) -> None:
    """The terminal says that the database does not accept connections. The server is up: somebody closed this one door."""
    served(s)
    sql(f"ALTER DATABASE {s.db.rpartition('/')[2]} ALLOW_CONNECTIONS false")
    cut_off(s)
    moves_on(s)


@database(
    "PostgreSQL answers, and writes nothing: it is a replica, or was made read-only",
    "it writes again",
    place="postgres",
)
def database_read_only(s: Stage) -> None:
    """The terminal says that nothing can be written in a read-only transaction. `gridmm status` works. Find the primary."""
    served(s)
    sql(f"ALTER DATABASE {s.db.rpartition('/')[2]} SET default_transaction_read_only = on")
    cut_off(s)
    moves_on(s)


def _answers(s: Stage) -> str:
    import psycopg

    try:
        with psycopg.connect(s.db.replace("+psycopg", ""), connect_timeout=2) as db:
            return str(db.execute("SHOW transaction_read_only").fetchone())
    except psycopg.Error as error:
        return str(error)


@database_stopped.seen
def _(s: Stage) -> None:
    assert s.fault.place == "postgres" and not database_server().running, "it runs"


@database_refuses.seen
def _(s: Stage) -> None:
    assert "not currently accepting connections" in _answers(s), _answers(s)


@database_read_only.seen
def _(s: Stage) -> None:
    assert "on" in _answers(s).split("'"), _answers(s)


@database_stopped.mend
def _(s: Stage) -> None:
    database_server().start()


@database_refuses.mend
def _(s: Stage) -> None:
    sql(f"ALTER DATABASE {s.db.rpartition('/')[2]} ALLOW_CONNECTIONS true")


@database_read_only.mend
def _(s: Stage) -> None:
    sql(f"ALTER DATABASE {s.db.rpartition('/')[2]} RESET default_transaction_read_only")
    cut_off(s)


for one in (database_stopped, database_refuses, database_read_only):

    def _on(s: Stage) -> None:
        assert says(s, "the database is back") and "'off'" in _answers(s)

    one.gone(_on)


# -- restore


def restore(symptom: str, truth: str, must_hold: str) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the runbook about a database that cannot be trusted."""
    return fault("restore", symptom, truth, must_hold, killed=True)


def refused(s: Stage) -> None:
    """Start, and see that it is refused."""
    s.start()
    assert s.ended() == 3, s.terminal()[-800:]


def put_back(s: Stage, copy: str = "newest.sqlite") -> None:
    """Put a copy in the database's place, as the page says, and start."""
    aside = s.folder / "damaged"
    aside.mkdir(exist_ok=True)
    for path in s.folder.glob("grid.sqlite*"):
        if path.suffix not in (".events", ".lock"):
            path.rename(aside / path.name)
    shutil.copy(s.folder / copy, s.db)
    Path(s.db).chmod(0o600)


def goes_on(s: Stage) -> None:
    """Assert that the grid runs and holds what it had bought."""
    assert s.process is not None and s.process.poll() is None, "nothing runs"
    assert s.position() == Decimal("0.005"), s.position()


def damaged(s: Stage) -> str:
    """Return what is wrong with the database, empty where nothing is."""
    try:
        s.state()
        (said,) = s.row("PRAGMA integrity_check")
        return "" if said == ("ok",) else str(said[0])
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@restore(
    "a start is refused: the stored state was changed or damaged",
    "one byte of the State has flipped",
    "the newest copy is in its place",
)
def restore_flipped_byte(s: Stage) -> None:
    """A start says `was changed or damaged`, exit code 3. The file is whole, the State in it is not. Put a copy back."""
    with closing(sqlite3.connect(s.db)) as db, db:
        ((data,),) = db.execute("SELECT state FROM gridmm_grids").fetchall()
        spoilt = bytearray(data)
        spoilt[len(spoilt) // 2] ^= 1
        db.execute("UPDATE gridmm_grids SET state = ?", (bytes(spoilt),))
    refused(s)


@restore_flipped_byte.seen
def _(s: Stage) -> None:
    assert damaged(s).startswith("BadChecksum"), damaged(s) or "it is whole"


@restore(
    "a start is refused: the database is damaged",
    "the file ends in the middle",
    "the newest copy is in its place",
)
def restore_truncated(s: Stage) -> None:
    """A start says `is damaged`, exit code 3. The file was copied while it was written to, or the disk failed."""
    with closing(sqlite3.connect(s.db)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(s.db, Path(s.db).stat().st_size // 2)
    refused(s)


@restore_truncated.seen
def _(s: Stage) -> None:
    assert any(
        word in damaged(s)
        for word in ("malformed", "disk I/O", "not a database", "out of order", "never used")
    ), damaged(s)


@restore(
    "a start goes on from an older version, and the grid halts",
    "the -wal beside the file was lost: what was saved last is gone",
    "what the exchange knows is known, or a new ledger has begun with nothing held",
)
def restore_lost_wal(s: Stage) -> None:
    """A start says an older version than before. The file was moved without its -wal. What is newer is at the exchange only."""
    for beside in ("-wal", "-shm"):
        Path(s.db + beside).unlink()
    s.exchange("cancel", client_id=HAND)
    s.truth |= {"hand": False, "lost": "-wal"}


def not_known(s: Stage) -> set[str]:
    """Return the orders and trades of this grid that the exchange has, and the database does not."""
    since_ms, trades = s.truth.get("fresh_ms", 0), {trade for trade, _ in s.fills()}
    found = [
        f for f in s.exchange.audit()["fills"] if f["time_ms"] >= since_ms and f["client_id"].startswith("GM")
    ]
    return {f["trade_id"] for f in found} - trades | (s.open_there() - s.orders().keys())


@restore_lost_wal.seen
def _(s: Stage) -> None:
    assert not_known(s), "it knows all that the exchange knows"
    beside = Path(s.db + "-wal")  # a reader makes an empty one
    assert s.process is None and s.truth.get("lost") == "-wal", "nothing was lost"
    assert not beside.exists() or beside.stat().st_size == 0, "it is there"


@restore(
    "a start goes on from an older version, and the grid halts",
    "a copy from before the trade was put back",
    "what the exchange knows is known, or a new ledger has begun with nothing held",
)
def restore_old_copy(s: Stage) -> None:
    """A start says an older version. The grid finds orders and trades that it never saved, withdraws, and halts."""
    put_back(s, "older.sqlite")
    s.exchange("cancel", client_id=HAND)
    s.truth["hand"] = False
    s.start()
    s.until(lambda: "STRAY_ORDER" in s.tripped())


@restore_old_copy.seen
def _(s: Stage) -> None:
    found, stray = not_known(s), {"STRAY_ORDER", "MISMATCH"} & s.tripped()
    assert found or stray, "it knows all that the exchange knows"
    assert "lost" not in s.truth


@restore(
    "a start is refused: another market",
    "the copy of another grid was put back",
    "the newest copy of this grid is in its place",
)
def restore_another_grid(s: Stage) -> None:
    """A start says which market the file trades, exit code 3. It is a good file, of another grid. Nothing was changed."""
    with closing(sqlite3.connect(s.db)) as db, db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for table in ("grids", "owners", "fills", "decisions"):
            db.execute(f"UPDATE gridmm_{table} SET grid = 'ETH/USDT:USDT'")
        db.execute("UPDATE gridmm_grids SET symbol = 'ETH/USDT:USDT'")
    refused(s)


@restore_another_grid.seen
def _(s: Stage) -> None:
    names = s.row("SELECT grid, symbol FROM gridmm_grids")
    assert names == [("ETH/USDT:USDT", "ETH/USDT:USDT")], names


for one in (restore_flipped_byte, restore_truncated, restore_another_grid):
    one.gone(goes_on)

    @one.mend
    def _(s: Stage) -> None:
        put_back(s)
        s.start()


# -- bad fills after a crash


def crash(
    symptom: str, truth: str, must_hold: str, **more: object
) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the runbook about trades that a crash made doubtful."""
    return fault("bad_fills", symptom, truth, must_hold, **({"killed": True} | more))


@crash(
    "the exchange holds more than `gridmm status` says",
    "orders filled while nothing ran",
    "each trade is written down once, each cell that bought has a closing order",
)
def fills_while_down(s: Stage) -> None:
    """The engine is dead, and the exchange's page shows a position that the database does not. A start takes it up by itself."""
    s.exchange("trade", price="59700")
    s.truth |= {"slots": {(1, -2)}, "base": Decimal("0.005")}


@fills_while_down.seen
def _(s: Stage) -> None:
    known_trades = {trade for trade, _ in s.fills()}
    missed = [f for f in s.exchange.audit()["fills"] if f["trade_id"] not in known_trades]
    assert missed, "every trade is written down"
    assert s.process is None and sum(Decimal(f["quantity"]) for f in missed) == s.truth["base"]
    assert {f["client_id"] for f in missed} <= s.orders().keys(), (
        "a trade of an order that the state does not know"
    )


@fills_while_down.gone
def _(s: Stage) -> None:
    assert s.process is not None and s.position() == Decimal("0.010") and len(s.fills()) == 2
    assert sum(one.side == SELL for one in s.orders().values()) == 2, "a cell has no close"


@fills_while_down.mend
def _(s: Stage) -> None:
    s.start()


@crash(
    "the stream says a fill twice",
    "the exchange doubled its report",
    "the trade is written down once",
    killed=False,
    harmless=True,
    by_itself="a trade is counted once, by its number",
)
def fills_doubled(s: Stage) -> None:
    """The exchange's own log shows a report twice. The grid counts trades by their number: nothing has to be done."""
    running(s)
    s.exchange("faults", per_mille={"account.double_frame": 1_000})
    s.fill_nearest()
    s.until(lambda: len(s.fills()) == 1)


@fills_doubled.seen
def _(s: Stage) -> None:
    assert s.exchange.audit()["struck"].get("double_frame"), "no report was said twice"


@fills_doubled.gone
def _(s: Stage) -> None:
    assert len(s.fills()) == 1 and s.position() == Decimal("0.005")


@crash(
    "after a start the grid halts, and a trade belongs to no cell",
    "an older copy was put back, and an order that it does not know has filled",
    "nothing is held that no cell explains: sold, and a new ledger begun",
)
def fills_of_unknown(s: Stage) -> None:
    """`gridmm status` says STRAY_ORDER. A trade came from an order that the database never saw: which cell earned it is lost."""
    s.exchange("trade", price="60010")
    s.truth["client_ids"] = {f["client_id"] for f in s.exchange.audit()["fills"] if f["side"] < 0}
    put_back(s, "older.sqlite")
    s.exchange("cancel", client_id=HAND)
    s.truth["hand"] = False
    s.start()
    s.until(lambda: "STRAY_ORDER" in s.tripped())


@fills_of_unknown.seen
def _(s: Stage) -> None:
    blind(s, "STRAY_ORDER")
    named = {f["client_id"] for f in s.exchange.audit()["fills"]} & s.truth["client_ids"]
    assert named, "no order that the copy never saw has filled"


@crash(
    "after a start the grid halts: MISMATCH",
    "the exchange took a trade back while nothing ran",
    "both hold the same, alarms are reset by a person",
)
def fills_busted(s: Stage) -> None:
    """The database has a trade that the exchange's books do not: it was busted. Nothing can bring it back; the rest must agree."""
    s.truth["busted"] = [trade for trade, _ in s.fills()]
    s.exchange("forget", ledger=str(s.folder / "exchange-older.db"))
    s.start()
    candle(s)
    s.until(lambda: s.tripped())


@fills_busted.seen
def _(s: Stage) -> None:
    there = {one["trade_id"] for one in s.exchange.audit()["fills"]}
    busted = {trade for trade, _ in s.fills()} - there
    assert busted, "the exchange has every trade"
    assert s.tripped() & {"MISMATCH", "ABSENT_ORDER"}, s.tripped()


fills_busted.mend(accept_bust)
fills_busted.gone(mismatch_busted._gone)


def begin_anew(s: Stage) -> None:
    """Sell what is held by the rules, and begin a new ledger, as the page about restoring says."""
    if s.process is None:
        s.start()
        s.until(lambda: s.tripped())
    said = s.ask("stop", "--flatten")
    assert said.code == 0, said
    s.truth["flat"] = s.ended()
    s.truth["fresh_ms"] = max((f["time_ms"] for f in s.exchange.audit()["fills"]), default=0) + 1
    s.start("--fresh")


def begun_anew(s: Stage) -> None:
    """Assert that a ledger runs that knows all that the exchange knows."""
    assert s.process is not None and s.process.poll() is None
    assert s.position() == 0 == Decimal(s.exchange.audit()["position"]) and len(s.open_there()) == 3


for one in (restore_old_copy, restore_lost_wal, fills_of_unknown):
    one.mend(begin_anew)
    one.gone(begun_anew)


# -- graceful shutdown


def stop(
    symptom: str, truth: str, must_hold: str, **more: object
) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the runbook about a stop that does not end well."""
    return fault("graceful_shutdown", symptom, truth, must_hold, **more)


def left(s: Stage) -> set[str]:
    """Return our orders at the exchange while nothing runs."""
    assert s.process is None, "the engine runs"
    found = s.open_there()
    assert found, "the exchange is clean"
    return found


def stopped_clean(s: Stage) -> None:
    """Assert that nothing runs, the exchange is clean, and the stop is in the books."""
    assert s.process is None and not s.open_there() and s.truth["code"] == 0
    ((released,),) = s.row("SELECT released FROM gridmm_owners")
    assert released, "the grid was not given back"


def finish(s: Stage) -> None:
    """Start again, which finishes the stop; where it trades instead, stop it."""
    well_again(s)
    s.start()
    middle = "in the middle of a stop"
    s.until(lambda: says(s, middle) or s.state().incarnation > s.last_start)
    if not says(s, middle):  # it had given the grid back: this start trades
        s.terminate()
    s.ended()


@stop(
    "the stop ends with exit code 4 or 5",
    "the exchange answers no cancel",
    "a stop has ended with 0, nothing of ours is open",
)
def stop_uncancellable(s: Stage) -> None:
    """The receipt says open orders 3. The exchange did not answer cancels. The orders rest there and may fill."""
    running(s)
    s.exchange("faults", per_mille={"cancel.drop_before": 1_000, "cancel_all.drop_before": 1_000})
    s.terminate()
    s.ended()


@stop_uncancellable.seen
def _(s: Stage) -> None:
    assert len(left(s)) == 3 and s.truth["code"] in (4, 5), s.truth


@stop(
    "the stop ends with exit code 6",
    "the exchange was gone during the stop",
    "a stop has ended with 0, nothing of ours is open",
)
def stop_exchange_gone(s: Stage) -> None:
    """The terminal says that the exchange did not answer since the stop. What rests there was not withdrawn."""
    running(s)
    s.exchange("down")
    s.terminate()
    s.ended()


@stop_exchange_gone.seen
def _(s: Stage) -> None:
    assert len(left(s)) == 3 and s.truth["code"] == 6, s.truth


@stop(
    "the stop ends with exit code 5",
    "the fate of an order could not be learnt: it is open",
    "a stop has ended with 0, nothing of ours is open",
)
def stop_unknown_order(s: Stage) -> None:
    """The stop ends with 5. One order was sent and never answered. Whether it is there only the exchange can say."""
    running(s, grid__max_position=FULL)
    s.exchange("silence", patterns=[NO_FUNDING, r"GET /fapi/v1/order\?"])
    s.exchange("swallow", patterns=['"x": "NEW"'])
    s.exchange("faults", once={"place.unknown_after": 1})
    s.fill_nearest()
    s.until(lambda: known(s, Order.UNKNOWN, True))
    s.truth["client_ids"] = known(s, Order.UNKNOWN, True)
    s.terminate()
    s.ended()


@stop_unknown_order.seen
def _(s: Stage) -> None:
    assert left(s) == s.truth.get("client_ids") and s.truth["code"] == 5, s.truth
    assert known(s, Order.UNKNOWN, True) == s.truth["client_ids"]


@stop(
    "`stopped at once`, exit code 130",
    "a second signal ended the stop before it had begun to work",
    "a stop has ended with 0, nothing of ours is open",
)
def stop_second_signal(s: Stage) -> None:
    """The terminal says that it stopped at once. Somebody pressed Ctrl-C twice. Nothing was withdrawn."""
    running(s)
    s.exchange("faults", per_mille={"cancel.hang_before": 1_000, "cancel_all.hang_before": 1_000}, hang_s=30)
    s.terminate()
    s.until(lambda: s.state().risk.stop > 1)
    s.terminate()
    s.ended()


@stop_second_signal.seen
def _(s: Stage) -> None:
    assert len(left(s)) == 3 and s.truth["code"] == 130 and says(s, "stopped at once"), s.truth


for one in (stop_uncancellable, stop_exchange_gone, stop_unknown_order, stop_second_signal):
    one.mend(finish)
    one.gone(stopped_clean)


# -- rotate keys


def keys(
    symptom: str, truth: str, must_hold: str, **more: object
) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the runbook about keys."""
    return fault("rotate_keys", symptom, truth, must_hold, **({"killed": True} | more))


KEYED = ("GRIDMM_DRILL_API_KEY", "GRIDMM_DRILL_API_SECRET")


def trades(s: Stage) -> None:
    """Assert that a grid trades with the keys that the exchange takes now."""
    assert s.process is not None and s.process.poll() is None, "nothing runs"
    assert len(s.open_there()) == 4 and s.position() == Decimal("0.005")
    assert s.environ[KEYED[0]] == s.exchange.audit()["key"]


def right_keys(s: Stage) -> None:
    """Put the keys that the exchange takes into the environment, and start."""
    s.kill()
    s.environ |= dict(zip(KEYED, s.truth["keys"], strict=True))
    s.start()


def refuses_keys(s: Stage) -> str:
    """Return the exchange's refusal of the keys in the stage's environment, empty where it takes them."""
    import hashlib
    import hmac
    import json
    import ssl
    import time
    import urllib.error
    import urllib.request

    key, secret = (s.environ.get(name, "") for name in KEYED)
    query = f"timestamp={int(time.time() * 1_000)}&recvWindow=5000"
    signature = hmac.new(secret.encode(), query.encode(), hashlib.sha256).hexdigest()
    url = f"https://{s.address}/fapi/v3/account?{query}&signature={signature}"
    context = ssl.create_default_context(cafile=str(s.exchange.ca))
    try:
        urllib.request.urlopen(
            urllib.request.Request(url, headers={"X-MBX-APIKEY": key}), context=context, timeout=10
        )
    except urllib.error.HTTPError as error:
        return str(json.loads(error.read())["code"])
    return ""


@keys(
    "the engine ended by itself, and says that the key is wrong",
    "the key was revoked at the exchange before the grid had the new one",
    "it runs with the new key, all orders are known",
    killed=False,
)
def keys_revoked(s: Stage) -> None:
    """The engine ended by itself: the key is not valid. It was taken away while in use. Orders rest, and nobody tends them."""
    running(s)
    s.truth["keys"] = ("new-key", "new-secret")
    s.exchange("keys", key="new-key", secret="new-secret")
    s.fill_nearest()
    s.exchange("cut")
    s.ended()


@keys_revoked.seen
def _(s: Stage) -> None:
    assert refuses_keys(s) == "-2015", refuses_keys(s) or "the key is good"
    assert left(s) and s.truth["code"] == 3, s.truth


@keys(
    "a start says that the key is not valid",
    "the new secret was copied wrong",
    "it runs with the right secret",
)
def keys_wrong_secret(s: Stage) -> None:
    """A start is refused: the signature is not valid. The key is known, its secret is not the one that was given."""
    s.truth["keys"] = (s.environ[KEYED[0]], s.environ[KEYED[1]])
    s.environ[KEYED[1]] = "drill-secre"
    s.start()
    s.ended()


@keys_wrong_secret.seen
def _(s: Stage) -> None:
    assert refuses_keys(s) == "-1022", refuses_keys(s) or "the keys are good"


@keys(
    "a start says that there are no keys",
    "the service was started without the new variables",
    "it runs with its keys",
)
def keys_absent(s: Stage) -> None:
    """A start is refused: the environment has no keys. They were set in another shell, or under another account's name."""
    s.truth["keys"] = (s.environ[KEYED[0]], s.environ[KEYED[1]])
    s.environ = {"GRIDMM_MAIN_API_KEY": s.environ[KEYED[0]], "GRIDMM_MAIN_API_SECRET": s.environ[KEYED[1]]}
    s.start()
    s.ended()


@keys_absent.seen
def _(s: Stage) -> None:
    assert KEYED[0] not in s.environ and s.truth["code"] == 3, s.truth


@keys(
    "the grid starts and halts: its orders are gone",
    "the new keys are good, and of another account",
    "it runs with keys of its own account; the other account holds nothing of ours",
)
def keys_other_account(s: Stage) -> None:
    """After the new keys, everything that the grid had is absent. It is all there: on the account that the old keys opened."""
    s.truth["keys"] = (s.environ[KEYED[0]], s.environ[KEYED[1]])
    s.exchange("guest", key="other-key", secret="other-secret")
    s.environ |= dict(zip(KEYED, ("other-key", "other-secret"), strict=True))
    s.start()
    s.until(lambda: s.tripped())


@keys_other_account.seen
def _(s: Stage) -> None:
    assert s.environ[KEYED[0]] != s.exchange.audit()["key"] and not refuses_keys(s), (
        "they are of this account"
    )


@keys_other_account.mend
def _(s: Stage) -> None:
    right_keys(s)
    s.until(lambda: s.ask("risk", "reset").code == 0 and not s.tripped())


@keys(
    "a start warns that the key may withdraw",
    "the new key was made with the right to withdraw",
    "the key has no such right",
)
def keys_that_withdraw(s: Stage) -> None:
    """A start says `refused: withdrawal`, and goes on, since orders need somebody who tends them. Who reads the key has the money."""
    s.truth["keys"] = (s.environ[KEYED[0]], s.environ[KEYED[1]])
    s.exchange("withdrawals", on=True)
    s.start()
    s.until(lambda: not s.differences())


@keys_that_withdraw.seen
def _(s: Stage) -> None:
    assert s.exchange.audit()["withdrawals"], "it cannot withdraw"


@keys_that_withdraw.gone
def _(s: Stage) -> None:
    assert not s.exchange.audit()["withdrawals"]
    trades(s)


@keys_that_withdraw.mend
def _(s: Stage) -> None:
    s.exchange("withdrawals", on=False)


@keys(
    "a start is refused after the keys were changed, or warns of the clock",
    "the keys are good; the clock of this machine is off",
    "the clocks agree, it runs",
)
def keys_clock(s: Stage) -> None:
    """Requests are refused: -1021. It looks like the new keys. It is the clock: ten seconds between here and the exchange."""
    s.truth["keys"] = (s.environ[KEYED[0]], s.environ[KEYED[1]])
    s.exchange("faults", skew_ms=10_000)
    s.start()
    s.until(lambda: says(s, "clock") or s.process is None or s.process.poll() is not None)


@keys_clock.seen
def _(s: Stage) -> None:
    assert abs(s.exchange.audit()["skew_ms"]) > 1_000, "the clocks agree"
    assert refuses_keys(s) == "-1021", refuses_keys(s)


@keys_clock.gone
def _(s: Stage) -> None:
    assert s.exchange.audit()["skew_ms"] == 0
    trades(s)


@keys_clock.mend
def _(s: Stage) -> None:
    s.exchange("faults", skew_ms=0)
    right_keys(s)


for one in (keys_revoked, keys_wrong_secret, keys_absent):
    one.mend(right_keys)

for one in (keys_wrong_secret, keys_absent, keys_other_account):
    one.gone(trades)


@keys_revoked.gone
def _(s: Stage) -> None:
    assert s.process is not None and not refuses_keys(s) and len(s.fills()) == 1


# -- upgrade


def upgrade(
    symptom: str, truth: str, must_hold: str, **more: object
) -> Callable[[Callable[[Stage], None]], Fault]:
    """Make a fault of the runbook about another version."""
    return fault("upgrade", symptom, truth, must_hold, **({"killed": True} | more))


@upgrade(
    "a start is refused: schema version 2",
    "a newer gridmm has saved the state: this package is the older one",
    "the state is as it was, and a program that can read it runs",
)
def upgrade_newer_state(s: Stage) -> None:
    """A start says which version wrote the state, exit code 3. Somebody went back to an older package. Nothing is damaged."""
    state = s.state()
    state.schema_version, state.code_version = 2, "9.9.9"
    s.truth["before"] = s.row("SELECT version FROM gridmm_grids")
    with closing(sqlite3.connect(s.db)) as db, db:
        db.execute("UPDATE gridmm_grids SET state = ?", (seal(state),))
    refused(s)


@upgrade_newer_state.seen
def _(s: Stage) -> None:
    try:
        s.state()
    except UnknownVersion:
        return
    raise AssertionError("this package can read it")


@upgrade_newer_state.mend
def _(s: Stage) -> None:
    put_back(s)  # the copy from before the upgrade: nothing was traded since
    s.start()


@upgrade(
    "a start is refused: an unknown parameter",
    "the configuration is of another version",
    "it runs under a configuration that it knows",
)
def upgrade_config(s: Stage) -> None:
    """A start names a parameter, exit code 2. The package was changed and its file was not, or the other way round."""
    s.config.write_text(s.config.read_text() + '\ngrid.grid_spacing_v2 = "tight"\n')
    s.start()
    s.ended()


@upgrade_config.seen
def _(s: Stage) -> None:
    assert "grid_spacing_v2" in s.config.read_text(), "every parameter is known"


@upgrade_config.mend
def _(s: Stage) -> None:
    lines = s.config.read_text().splitlines()
    s.config.write_text("\n".join(line for line in lines if "grid_spacing_v2" not in line))
    s.start()


@upgrade("a start is refused: in use", "the old version still runs", "one of them runs, and only one")
def upgrade_still_runs(s: Stage) -> None:
    """A start says which process trades on the file, exit code 3. The service manager did not end the old one."""
    s.start()
    s.until(lambda: not s.differences())
    s.truth["second"] = s.gridmm(*s.run_command[s.run_command.index("run") :])
    assert s.truth["second"].code == 3, s.truth["second"]
    s.truth["pid"] = s.process.pid if s.process is not None else 0


@upgrade_still_runs.seen
def _(s: Stage) -> None:
    assert "second" in s.truth and s.process is not None and s.process.pid == s.truth["pid"], (
        "only one was started"
    )


@upgrade_still_runs.mend
def _(s: Stage) -> None:
    said = s.ask("stop", "--cancel")
    assert said.code == 0 and s.ended() == 0, said
    s.start()


@upgrade(
    "a start takes a minute",
    "the new package's decision functions are not compiled here",
    "they are compiled; it runs",
)
def upgrade_cold(s: Stage) -> None:
    """A start says that it compiles, and for a minute nobody tends the orders. `gridmm warm-up` does it before the old one ends."""
    site, cache = s.folder / "site", s.folder / "cache"
    shutil.copytree(
        Path(gridmm.__file__).parent, site / "gridmm", ignore=shutil.ignore_patterns("__pycache__")
    )
    cache.mkdir()
    s.package, s.environ["NUMBA_CACHE_DIR"] = site, str(cache)


@upgrade_cold.seen
def _(s: Stage) -> None:
    assert s.package != HERE.parent and not compiled_here(s), "they are compiled"


def compiled_here(s: Stage) -> bool:
    """Return whether the package of the stage says that its decision functions are compiled."""
    look = "from gridmm.kernel_cache import mark_of; print(mark_of().exists())"
    done = subprocess.run(
        [sys.executable, "-c", look], env=s.variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "True"


@upgrade_cold.gone
def _(s: Stage) -> None:
    assert compiled_here(s)
    trades(s)


@upgrade_cold.mend
def _(s: Stage) -> None:
    assert s.gridmm("warm-up", seconds=400).code == 0
    s.start()


@upgrade(
    "nothing",
    "an older program left the database without tables that this one has",
    "they are there, nothing is lost",
    harmless=True,
    by_itself="a start creates what is missing",
)
def upgrade_older_tables(s: Stage) -> None:
    """`gridmm fills` shows nothing before the upgrade. The older program wrote none. The start makes the tables."""
    with closing(sqlite3.connect(s.db)) as db, db:
        db.execute("DROP TABLE gridmm_owners")
        db.execute("DROP TABLE gridmm_commands")
    s.truth["lost"] = {"gridmm_owners", "gridmm_commands"} - {
        name for (name,) in s.row("SELECT name FROM sqlite_master")
    }
    s.start()


@upgrade_older_tables.seen
def _(s: Stage) -> None:
    assert s.truth.get("lost"), "nothing was missing"


for one in (upgrade_newer_state, upgrade_config, upgrade_still_runs, upgrade_older_tables):
    one.gone(trades)


@upgrade_still_runs.gone
def _(s: Stage) -> None:
    trades(s)
    assert s.process is not None and s.process.pid != s.truth["pid"], "the old one runs"
