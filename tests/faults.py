"""Faults for drills: each plants something that is really wrong, and says from outside whether it is there, or mended.

For every runbook there are at least three that look alike and are not. A fault is a function that plants it; beside it
stand what is seen of it from outside, what must hold afterwards, and how a person mends it with what the product has.
None of them knows how a runbook looks, and no runbook may look here: they are its examination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from fault_stage import HAND, INSTANCE, NEAREST, Fault, Stage, staged
from gridmm.client_id import ClientId, encode, instance_of
from gridmm.vocabulary import Order

FAULTS: dict[str, Fault] = {}
NO_FUNDING = r"GET /fapi/v1/income"  # without it, no start and no look at the exchange is whole
FULL = "0.015"  # three cells: a grid that has bought nothing more to buy
SELL = 2  # as a State says it
OTHER_GRID = instance_of("another grid")


def fault(runbook: str, symptom: str, truth: str, must_hold: str, **more: object) -> Callable[[Callable[[Stage], None]], Fault]:
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


# -- stuck and orphan slots


def deaf_to_the_end(s: Stage) -> None:
    """Keep the grid from finding out by itself: it asks only on command, and its look at the exchange never gets whole."""
    s.exchange("silence", patterns=[NO_FUNDING])


def known(s: Stage, status: int, there: bool) -> set[str]:
    """Return the orders of the state with this status that are, or are not, open at the exchange."""
    open_there = s.open_there()
    return {name for name, one in s.orders().items() if one.status == status and (name in open_there) is there}


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
    assert any(one.side == SELL and one.status == Order.WORKING for one in s.orders().values()), "the cell has no close"


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
