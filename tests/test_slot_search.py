"""One slot keeps its promises whatever happens to its requests and reports: every world is tried.

The large searches (halts, a flatten, trades far behind, answers that lag) are
`python tests/slot_search.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from core_source import shipped
from gridmm.layout import Act, Core, Kind, empty_core
from gridmm.step import Plan, advance
from gridmm.vocabulary import Action, Report, Trigger, Trip
from slot_search import NORMAL, REDUCE_ONLY, Limits, Search
from slot_world import QUERY_AFTER_MS, event, parameters

MOVES = {
    "accepted", "answer", "asked", "cancel lost", "cancel refused", "cancelled", "crash", "due", "ends", "fill",
    "mode", "not sent", "place lost", "query lost", "rejected", "timeout", "told",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "limits", "states", "edges"),
    [
        # counted when this was written: a search that shrinks is one that looks away
        ("long, with risk mode", Limits(modes=(NORMAL, REDUCE_ONLY)), 135_977, 1_818_899),
        ("short", Limits(direction=-1), 19_692, 225_578),
    ],
)
def test_every_promise_holds_in_every_world(
    name: str, limits: Limits, states: int, edges: int, note: Callable[[str], None]
) -> None:
    start = time.process_time()
    found = Search(shipped(), limits).run()
    note(f"slot search, {name}: {found}, {time.process_time() - start:.0f} s")
    assert not found.check, f"{found.detail}\n" + "\n".join(map(str, found.path))
    assert found.complete
    assert found.states >= states
    assert found.edges >= edges
    assert found.quiet > 0
    assert set(found.moves) == MOVES - (
        set() if len(limits.modes) > 1 else {"mode", "cancelled", "cancel lost", "cancel refused"}
    )


class Slot:
    """A long grid of one cell, and its first order."""

    def __init__(self) -> None:
        self.core: Core = empty_core()
        self.par = parameters(1)
        plan = self.tell(event(Kind.PRICE, BID=59_999, ASK=60_001, LAST=60_000))
        self.cells = {
            name: int(plan.actions[Act[name], 0])
            for name in ("SEQ", "EPOCH", "CELL", "LEG", "SIDE", "PRICE", "LOTS", "DIRECTION")
        }

    def tell(self, ev: np.ndarray) -> Plan:
        """Give the grid an event."""
        return advance(self.core, self.par, ev)

    def report(self, says: Report, cum: int = 0) -> list[str]:
        """Give the grid a report of its first order, and return what it asks for."""
        return actions(self.tell(event(Kind.ORDER, REPORT=says, CUM=cum, **self.cells)))


def actions(plan: Plan) -> list[str]:
    """Return the names of a plan's actions."""
    return [Action(row[Act.ACTION]).name for row in plan.actions.T]


def test_an_answer_that_a_fill_overtook_is_no_alarm() -> None:
    slot = Slot()
    slot.report(Report.ACCEPTED)
    slot.report(Report.TIMEOUT)  # the stream was silent: asked, answered LIVE, and then the order filled
    slot.report(Report.FILLED, 2)
    slot.report(Report.LIVE, 0)
    assert slot.core.risk[Trip.COUNT, Trigger.ABSENT_ORDER] == 0


@pytest.mark.parametrize(
    "story",
    [
        [(Report.ACCEPTED, 0), (Report.TIMEOUT, -1)],
        [(Report.ACCEPTED, 0), (Report.CANCELED, -1)],
        [(Report.CANCELED, -1)],
    ],
)
def test_only_an_answer_closes_a_question(story: list[tuple[Report, int]]) -> None:
    slot = Slot()
    assert [slot.report(*told) for told in story][-1] == ["QUERY"]
    slot.report(Report.ACCEPTED)  # late, or for the second time; the answer never comes
    assert actions(slot.tell(event(Kind.TIMER, 1_000_000 + 2 * QUERY_AFTER_MS))) == ["QUERY"]
