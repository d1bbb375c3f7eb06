"""The search of everything that can happen between the grid and an exchange, to one slot of two lots.

A **world** is what the grid knows, the exchange's orders, and the requests on their way. From each
world all moves are tried: a request arrives or is lost; an order is accepted, rejected, filled in part
or in full, expired, cancelled with or without its quantity; a report, a trade or an answer is
delivered; a question falls due; a request times out; the process crashes and starts again; risk or the
operator changes what the grid may do.

Three thoughts keep this finite and leave nothing out.

- *Whatever was reported once may be reported at any time, again and again.* So reports and trades need
  no channel: each ever made can be delivered in every world, which is loss (never), delay, reordering
  and duplication (twice) at once. Only requests and answers to questions are on their way one by one.
- *A crash forgets what was folded since the last save.* State is saved before anything is sent, so
  since then nothing was sent, and the exchange cannot know the difference: the world after the crash
  is one in which those reports were not delivered yet. A restart is then a timeout of every live order.
- *Old orders are forgotten* once both sides know all of them, and the rest are numbered anew. Times
  are kept as "due" or "not due". So the number of orders that follow each other has no bound.

`python tests/slot_search.py` runs the large searches; `--help` shows how to choose one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from core_source import Functions, shipped
from gridmm.layout import CLOSE, OPEN, Act, Col, Command, Ev, Kind, Leg, Ret
from gridmm.vocabulary import Action, Order, Report, Stop, Trigger
from slot_world import (
    DUE,
    FLATTEN,
    HALTED,
    KEYS_PER_ORDER,
    LOTS,
    NORMAL,
    REDUCE_ONLY,
    TIMER,
    Grid,
    Local,
    Row,
    Sent,
    difference,
    event,
    known,
    position,
    report,
    reports,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a program finds only its own folder there

from tools.results import code_hash, write

Label = tuple[str, int, int, int]
QUIET, UNSEEN = -1, -2
STATES = 1_000_000

# What the core is known not to keep; `test_slot_search` holds the story of each.
NOT_KEPT: frozenset[str] = frozenset()


class World(NamedTuple):
    """The grid and the exchange."""

    local: int  # index of what the grid knows
    orders: tuple[Sent, ...]
    settled: tuple[tuple[int, int], ...]  # (cell, signed lots) of orders that both have forgotten


class Broken(Exception):
    """A promise does not hold."""

    def __init__(self, check: str, detail: str, path: list[Label] | None = None) -> None:
        super().__init__(f"{check}: {detail}")
        self.check, self.path = check, path


@dataclass(frozen=True)
class Limits:
    """How far a search goes.

    Attributes:
        direction: +1 a long grid, -1 a short one.
        modes: What risk and operator may ask for.
        untold: Lots of trades that may be undelivered; the market stops trading beyond.
        asked: Questions and answers that may be on their way; others are lost at once.
        orders: Orders that either side remembers; further ones wait to arrive.
        lagging: A question may find nothing although the order lives.
        states_max: The search ends after so many worlds.
        ignore: Checks that are not made.
    """

    direction: int = 1
    modes: tuple[int, ...] = (NORMAL,)
    untold: int = 1
    asked: int = 1
    orders: int = 2
    lagging: bool = False
    states_max: int = 10**9
    ignore: frozenset[str] = NOT_KEPT


@dataclass
class Found:
    """What a search saw.

    Attributes:
        states: Different worlds.
        edges: Moves tried.
        quiet: Worlds in which nothing is left to happen by itself.
        calls: Different events of different grids: the calls of the core.
        depth: Longest of the shortest stories.
        complete: Every world that can be reached was seen.
        moves: How often each kind of move was tried.
        check: The promise that broke first; empty where none did.
        detail: How it broke.
        path: The shortest story that breaks it.
    """

    states: int = 0
    edges: int = 0
    quiet: int = 0
    calls: int = 0
    depth: int = 0
    complete: bool = False
    moves: Counter[str] = field(default_factory=Counter)
    check: str = ""
    detail: str = ""
    path: list[Label] = field(default_factory=list)

    def __str__(self) -> str:
        how = "all of them" if self.complete else "not all"
        text = f"{self.states:,} states ({how}), {self.edges:,} edges, {self.quiet} quiet, depth {self.depth}"
        return f"{text}, {self.calls:,} calls of the core"


class Facts(NamedTuple):
    """What is often asked of one `Local`."""

    local: Local
    alive: frozenset[int]  # orders that may still fill, as far as the grid knows
    legs: frozenset[int]
    retired: dict[int, int]
    questions: bool


class Search:
    """Breadth first through all worlds, so that a broken promise comes with its shortest story."""

    def __init__(self, functions: Functions, limits: Limits) -> None:
        self.grid = Grid(functions, limits.direction)
        self.limits = limits
        self.facts: list[Facts] = []
        self.index: dict[Local, int] = {}
        self.taken: dict[tuple[int, Row], tuple[int, tuple[Row, ...]]] = {}
        self.told: dict[tuple[object, ...], tuple[int, list[tuple[Label, Row]]]] = {}
        self.variants: dict[tuple[Sent, int, bool, bool], list[tuple[Label, Sent, int, int]]] = {}
        self.worlds: dict[World, int] = {}
        self.queue: list[World] = []
        self.parents: list[tuple[int, Label]] = []
        self.depths: list[int] = []
        self.helpful: list[int] = []  # where a fair continuation goes
        self.last: Label = ("start", 0, 0, 0)
        self.same = 0  # reports delivered that said nothing new

    # -- the grid ----------------------------------------------------------------------------------

    def _learn(self, local: Local) -> int:
        index = self.index.get(local, -1)
        if index < 0:
            index = self.index[local] = len(self.facts)
            legs = [row[base + Leg.SEQ] for row in local.slots for base in (OPEN, CLOSE)]
            facts = Facts(
                local=local,
                alive=frozenset(seq for seq, status, _ in known(local) if 0 < status < Order.TERMINAL),
                legs=frozenset(legs),
                retired={row[Ret.SEQ]: row[Ret.CUM] for row in local.retired},
                questions=any(row[base + Leg.QUERY_MS] for row in local.slots for base in (OPEN, CLOSE)),
            )
            self.facts.append(facts)
        return index

    def _take(self, local: int, cells: Row) -> tuple[int, tuple[Row, ...]]:
        """Return what the grid knows and asks for after an event."""
        key = (local, cells)
        known_answer = self.taken.get(key)
        if known_answer is None:
            outcome = self.grid.take(self.facts[local].local, cells)
            for check, detail in outcome.broken:
                self._judge(check, detail)
            known_answer = self.taken[key] = (self._learn(outcome.local), outcome.plan)
        return known_answer

    def _judge(self, check: str, detail: str) -> None:
        if check not in self.limits.ignore:
            raise Broken(check, detail)

    def _tell(self, world: World, *events: Row) -> World:
        """Give events to the grid, and its requests to the exchange."""
        for cells in events:
            local, plan = self._take(world.local, cells)
            world = World(
                local, _sent(world.orders, plan, self.limits.asked) if plan else world.orders, world.settled
            )
        return world

    # -- moves -------------------------------------------------------------------------------------

    def _moves(self, world: World) -> Iterator[tuple[Label, World, int]]:
        """Yield every move: its name, the world after it, and how helpful it is (0 not, 1 most)."""
        local, orders, settled = world
        facts = self.facts[local]
        untold = self.limits.untold - sum(
            lots
            for order in orders
            for at, lots in enumerate(order.trades)
            if order.seq * KEYS_PER_ORDER + at not in facts.local.trades
        )
        answers = sum(len(order.answers) for order in orders) < self.limits.asked
        arrivals = len(orders) <= self.limits.orders
        for at, order in enumerate(orders):
            for label, changed, says, helps in self._variants(order, untold, answers, arrivals):
                self.last = label
                after = World(local, (*orders[:at], changed, *orders[at + 1 :]), settled)
                if says:
                    after = self._tell(after, report(order, says, -1))
                yield label, after, helps
            for answer in order.answers:
                label = self.last = ("answer", order.seq, *answer)
                rest = order._replace(answers=tuple(other for other in order.answers if other != answer))
                after = World(local, (*orders[:at], rest, *orders[at + 1 :]), settled)
                yield label, self._tell(after, report(order, *answer)), 3
            same, news = self._news(local, order)
            self.same += same
            for label, cells in news:
                self.last = label
                yield label, self._tell(world, cells), 4
            if order.seq in facts.alive:
                label = self.last = ("timeout", order.seq, 0, 0)
                yield label, self._tell(world, report(order, Report.TIMEOUT, -1)), 0
        if facts.questions:
            label = self.last = ("due", 0, 0, 0)
            yield label, self._tell(world, DUE), 5
        label = self.last = ("crash", 0, 0, 0)
        yield label, self._crash(world), 0
        for mode in self.limits.modes:
            if mode != facts.local.mode and NORMAL in (mode, facts.local.mode):
                label = self.last = ("mode", mode, 0, 0)
                yield label, self._tell(world, _control(mode, facts.local.mode)), 0

    def _variants(
        self, order: Sent, untold: int, answers: bool, arrivals: bool
    ) -> list[tuple[Label, Sent, int, int]]:
        """Return what may happen to an order at the exchange: name, order after it, report to the grid, help."""
        key = (order, untold, answers, arrivals)
        found = self.variants.get(key)
        if found is None:
            found = list(_requests(order, answers, arrivals, self.limits.lagging))
            found += _market(order, untold)
            self.variants[key] = found
        return found

    def _news(self, local: int, order: Sent) -> tuple[int, list[tuple[Label, Row]]]:
        """Return how many reports of an order say nothing new, and those that do."""
        key = (local, order.seq, order.status, order.trades, order.end)
        found = self.told.get(key)
        if found is None:
            same, news = 0, []
            for cells in reports(order):
                is_trade = cells[0] == Kind.FILL
                what = (0, cells[Ev.LOTS]) if is_trade else (cells[Ev.REPORT], cells[Ev.CUM])
                label = self.last = ("told", order.seq, *what)
                after, plan = self._take(local, cells)
                again, more = self._take(after, cells)
                if more or again != after:
                    what_changes = difference(self.facts[after].local, self.facts[again].local)
                    self._judge("twice", f"the second {label} changes {what_changes}, plan {more}")
                if after == local and not plan:
                    same += 1
                else:
                    news.append((label, cells))
            found = self.told[key] = (same, news)
        return found

    def _crash(self, world: World) -> World:
        """The process dies: answers on their way are lost, and after the start each live order is asked for."""
        silent = tuple(order._replace(answers=()) if order.answers else order for order in world.orders)
        alive = self.facts[world.local].alive
        doubts = [report(order, Report.TIMEOUT, -1) for order in silent if order.seq in alive]
        return self._tell(world._replace(orders=silent), *doubts)

    # -- promises ----------------------------------------------------------------------------------

    def _same_moment(self, local: int) -> None:
        """Nothing happened: the plan is empty, and nothing changes."""
        after, plan = self._take(local, TIMER)
        if plan or after != local:
            self._judge("empty plan", f"a second look at the same moment wants {len(plan)} actions")

    def _compare(self, world: World) -> None:
        """Compare what the grid counts with the truth."""
        held = dict(world.settled)
        opening: Counter[int] = Counter()
        closing: Counter[int] = Counter()
        lives: Counter[tuple[int, int]] = Counter()
        for order in world.orders:
            held[order.cell] = held.get(order.cell, 0) + order.side * order.cum
            if order.placing or order.status == 1:
                (closing if order.leg else opening)[order.cell] += order.may_fill
                lives[order.cell, order.leg] += 1
        for (cell, leg), count in lives.items():
            if count > 1:
                self._judge("one order a leg", f"{count} live orders in leg {leg} of cell {cell}")
        direction, reach = self.limits.direction, 0
        bounds = {cell: (low, high) for cell, low, high in self.facts[world.local].local.bounds}
        for cell in held.keys() | bounds.keys() | opening.keys():
            sure = direction * held.get(cell, 0)
            if sure < 0:
                self._judge("never over-closed", f"cell {cell} holds {sure} lots of its direction")
            if closing[cell] > sure:
                self._judge(
                    "close within position", f"cell {cell} holds {sure} and may close {closing[cell]}"
                )
            reach += sure + opening[cell]
            truth = sorted((direction * (sure - closing[cell]), direction * (sure + opening[cell])))
            low, high = bounds.get(cell, (0, 0))
            if low > truth[0] or high < truth[1]:
                self._judge("bounds", f"cell {cell} may come to hold {truth}, counted as {[low, high]}")
        if reach > LOTS:
            self._judge("cap", f"{reach} lots may come to be held, the cap is {LOTS}")

    def _rest(self, world: World) -> None:
        """Nothing is left to happen: what the grid believes is true."""
        local = self.facts[world.local].local
        truth = {order.seq: order for order in world.orders}
        for seq, status, cum in known(local):
            order = truth[seq]
            believed = ({Order.WORKING: 1, Order.TERMINAL: 2, Order.GONE: 2}.get(Order(status), -1), cum)
            real = (1 if order.status == 1 else 2, order.cum)
            if believed != real:
                self._judge("rest is true", f"order {seq} is {real}, believed {believed}")
        held = Counter(dict(world.settled))
        for order in world.orders:
            held[order.cell] += order.side * order.cum
        believed_held = Counter({row[Col.CELL]: position(row) for row in local.slots})
        if held != believed_held:
            self._judge("rest is true", f"cells hold {dict(held)}, believed {dict(believed_held)}")

    # -- forgetting --------------------------------------------------------------------------------

    def _normal(self, world: World) -> World:
        """Return the world without what both sides have done with, its orders numbered from 1."""
        facts = self.facts[world.local]
        done = [order for order in world.orders if _is_done(facts, order)]
        settled = world.settled
        if done:
            held = Counter(dict(settled))
            for order in done:
                if self._news(world.local, order)[1]:
                    self._judge("twice", f"an old report of order {order.seq} changes the grid")
                held[order.cell] += order.side * order.cum
            settled = tuple(sorted((cell, lots) for cell, lots in held.items() if lots))
        orders = [order for order in world.orders if order not in done]
        number = {order.seq: at + 1 for at, order in enumerate(orders)}
        if not done and facts.local.next_seq == len(orders) + 1:
            return world
        local = self._learn(_renumbered(facts.local, number))
        return World(local, tuple(order._replace(seq=number[order.seq]) for order in orders), settled)

    # -- breadth first -----------------------------------------------------------------------------

    def run(self) -> Found:
        """Search until every world was seen, the limit is reached, or a promise breaks."""
        found, at = Found(), 0
        try:
            first = World(self._learn(self.grid.first), (), ())
            first = first._replace(orders=_sent((), self.grid.first_plan, self.limits.asked))
            self._add(self._normal(first), -1, self.last)
            waiting = deque([0])
            while waiting and len(self.queue) < self.limits.states_max:
                at = waiting.popleft()
                self._expand(at, found, waiting)
            found.complete = not waiting
            self._lively()
        except Broken as broken:
            found.check, found.detail = broken.check, str(broken)
            found.path = [*self._path(at), self.last] if broken.path is None else broken.path
        found.moves["told"] += self.same
        found.edges += self.same
        found.states, found.calls, found.depth = len(self.queue), self.grid.calls, max(self.depths)
        return found

    def _expand(self, at: int, found: Found, waiting: deque[int]) -> None:
        world = self.queue[at]
        self._same_moment(world.local)
        best, to = 9, QUIET
        for label, raw, helps in self._moves(world):
            found.edges += 1
            found.moves[label[0]] += 1
            index = self.worlds.get(raw, -1)
            if index < 0:
                after = self._normal(raw)
                index = self.worlds.get(after, -1)
                if index < 0:
                    self._compare(after)
                    index = self._add(after, at, label)
                    waiting.append(index)
            if 0 < helps < best:
                best, to = helps, index
        if to == QUIET:
            self._rest(world)
            found.quiet += 1
        self.helpful[at] = to

    def _add(self, world: World, parent: int, label: Label) -> int:
        index = self.worlds[world] = len(self.queue)
        self.queue.append(world)
        self.parents.append((parent, label))
        self.depths.append(self.depths[parent] + 1 if parent >= 0 else 0)
        self.helpful.append(UNSEEN)
        return index

    def _path(self, at: int) -> list[Label]:
        path = []
        while at > 0:
            at, label = self.parents[at]
            path.append(label)
        return path[::-1]

    def _lively(self) -> None:
        """From every world a fair continuation comes to rest."""
        fate = [0] * len(self.helpful)  # 1 comes to rest, 2 on the present walk
        for start in range(len(self.helpful)):
            walk, at = [], start
            while at >= 0 and fate[at] == 0:
                fate[at] = 2
                walk.append(at)
                at = self.helpful[at]
            if at >= 0 and fate[at] == 2 and "comes to rest" not in self.limits.ignore:
                path = self._path(start)
                raise Broken("comes to rest", "what follows goes round and round", path)
            for seen in walk:
                fate[seen] = 1


# ---------------------------------------------------------------------------------------------------
# The exchange


def _sent(orders: tuple[Sent, ...], plan: tuple[Row, ...], asked_max: int) -> tuple[Sent, ...]:
    """Return the exchange's orders with the requests of a plan on their way."""
    by_seq = {order.seq: order for order in orders}
    for row in plan:
        seq = row[Act.SEQ]
        if row[Act.ACTION] == Action.PLACE:
            if seq in by_seq:
                raise Broken("no defect", f"order {seq} is placed twice")
            by_seq[seq] = Sent(
                seq,
                row[Act.CELL],
                row[Act.LEG],
                row[Act.SIDE],
                row[Act.PRICE],
                row[Act.LOTS],
                row[Act.DIRECTION],
            )
        elif seq in by_seq and row[Act.ACTION] == Action.CANCEL:
            by_seq[seq] = by_seq[seq]._replace(cancelling=1)
        elif (
            seq in by_seq and sum(order.asking + len(order.answers) for order in by_seq.values()) < asked_max
        ):
            by_seq[seq] = by_seq[seq]._replace(asking=1)
    return tuple(by_seq[seq] for seq in sorted(by_seq))


def _requests(
    order: Sent, answers: bool, arrivals: bool, lagging: bool
) -> Iterator[tuple[Label, Sent, int, int]]:
    """Yield what may happen to the requests of an order."""
    seq = order.seq
    if order.placing and arrivals:
        gone = order._replace(placing=0)
        yield ("accepted", seq, 0, 0), gone._replace(status=1), 0, 1
        yield ("rejected", seq, 0, 0), gone._replace(status=2, end=(Report.REJECTED, 0)), 0, 0
        yield ("place lost", seq, 0, 0), gone, 0, 0
        yield ("not sent", seq, 0, 0), gone, Report.NOT_SENT, 0
    if order.cancelling:
        gone = order._replace(cancelling=0)
        yield ("cancel lost", seq, 0, 0), gone, 0, 0
        if order.status == 1:
            yield (
                ("cancelled", seq, order.cum, 0),
                gone._replace(status=2, end=(Report.CANCELED, order.cum)),
                0,
                1,
            )
            yield ("cancelled", seq, -1, 0), gone._replace(status=2, end=(Report.CANCELED, -1)), 0, 0
        elif answers:
            yield ("cancel refused", seq, 0, 0), _answered(gone, Report.CANCEL_REJECTED, -1), 0, 1
    if order.asking:
        gone = order._replace(asking=0)
        yield ("query lost", seq, 0, 0), gone, 0, 0
        for at, (says, cum) in enumerate(_answers(order, lagging) if answers else ()):
            yield ("asked", seq, says, cum), _answered(gone, says, cum), 0, 0 if at else 2


def _answered(order: Sent, says: int, cum: int) -> Sent:
    return order._replace(answers=tuple(sorted({*order.answers, (int(says), cum)})))


def _answers(order: Sent, lagging: bool) -> list[tuple[int, int]]:
    """Return what the exchange may answer to a question, the usual answer first."""
    if order.status == 1:
        usual = [(int(Report.LIVE), order.cum)]
        return [*usual, (int(Report.ABSENT), -1)] if lagging else usual
    if order.status == 2:
        return [(int(Report.ENDED), order.cum)]
    if order.placing:
        return [(int(Report.ABSENT), -1)]
    return [(int(Report.ABSENT_FINAL), 0), (int(Report.ABSENT), -1)]


def _market(order: Sent, untold: int) -> Iterator[tuple[Label, Sent, int, int]]:
    """Yield what may happen to an order on the book: fills, expiry, a cancel by somebody else."""
    if order.status != 1:
        return
    for lots in range(1, min(order.lots - order.cum, untold) + 1):
        filled = order._replace(trades=(*order.trades, lots))
        if filled.cum == order.lots:
            filled = filled._replace(status=2, end=(Report.FILLED, order.lots))
        yield ("fill", order.seq, lots, 0), filled, 0, 0
    for says, cum in ((Report.EXPIRED, order.cum), (Report.CANCELED, -1)):
        yield ("ends", order.seq, says, cum), order._replace(status=2, end=(says, cum)), 0, 0


def _control(mode: int, now: int) -> Row:
    """Return the event by which risk or the operator changes the mode."""
    on = int(mode != NORMAL)
    code = {REDUCE_ONLY: Trigger.STALE_USER, HALTED: Trigger.CLOCK_SKEW}.get(mode or now)
    if code is None:
        cells = event(Kind.COMMAND, CODE=Command.STOP, ARG=Stop.FLATTEN if on else Stop.RUN)
    else:
        cells = event(Kind.RISK, CODE=code, ARG=on)
    return tuple(cells.tolist())


def _is_done(facts: Facts, order: Sent) -> bool:
    """Return whether both sides know all of an order, and nothing about it is on its way."""
    if order.status == 1 or order.placing or order.cancelling or order.asking or order.answers:
        return False
    if order.seq in facts.legs or facts.retired.get(order.seq, -1) != order.cum:
        return False
    first = order.seq * KEYS_PER_ORDER
    return all(first + at in facts.local.trades for at in range(len(order.trades)))


def _renumbered(local: Local, number: dict[int, int]) -> Local:
    """Return what the grid knows with its orders numbered anew; those without a number are forgotten."""

    def leg(row: Row) -> Row:
        cells = list(row)
        for base in (OPEN, CLOSE):
            cells[base + Leg.SEQ] = number.get(cells[base + Leg.SEQ], 0)
        return tuple(cells)

    keys = ((divmod(key, KEYS_PER_ORDER)) for key in local.trades)
    return local._replace(
        next_seq=len(number) + 1,
        slots=tuple(map(leg, local.slots)),
        retired=tuple((number[row[0]], *row[1:]) for row in local.retired if row[0] in number),
        book=tuple((number[row[0]], *row[1:]) for row in local.book if row[0] in number),
        trades=tuple(number[seq] * KEYS_PER_ORDER + at for seq, at in keys if seq in number),
    )


# ---------------------------------------------------------------------------------------------------
# The large run

LARGE = {
    "risk mode": Limits(modes=(NORMAL, REDUCE_ONLY), untold=1),
    "short": Limits(direction=-1, modes=(NORMAL, REDUCE_ONLY), untold=1),
    "halted": Limits(modes=(NORMAL, HALTED), untold=1),
    # exits without a move of the price leave cell after cell behind: never all of them
    "flatten": Limits(modes=(NORMAL, FLATTEN), untold=1, states_max=200_000),
    "trades far behind": Limits(untold=2),
    "lagging answers": Limits(lagging=True),
}


def main() -> None:
    """Run the large searches, or the one that is named, and print what they saw."""
    parser = argparse.ArgumentParser(description="Search all that can happen to one slot.")
    parser.add_argument("name", nargs="?", choices=LARGE, help="one search; all where left out")
    parser.add_argument("--states", type=int, default=STATES, help="end each search after so many states")
    chosen = parser.parse_args()
    code, searches = code_hash(), {}
    for name, limits in LARGE.items():
        if chosen.name in (None, name):
            start = time.perf_counter()
            found = Search(shipped(), replace(limits, states_max=min(limits.states_max, chosen.states))).run()
            took = time.perf_counter() - start
            print(f"{name}: {found}, {took:.0f} s", flush=True)
            if found.check:
                raise SystemExit(f"{found.detail}\n" + "\n".join(map(str, found.path)))
            searches[name] = {"states": found.states, "edges": found.edges, "complete": found.complete}
            searches[name] |= {"quiet": found.quiet, "depth": found.depth, "seconds": round(took)}
    if chosen.name is None:  # a part must not take the place of the whole
        about = f"Everything that can happen to one slot, to at most {chosen.states:,} states a search; no promise broke."
        command = "make search" if chosen.states == STATES else f'make search ARGS="--states {chosen.states}"'
        write("slot_search", about, command, searches, code=code)


if __name__ == "__main__":
    main()
