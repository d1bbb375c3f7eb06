"""A simulation that finds nothing proves nothing: engines with one thought changed are found out.

Six are mistakes that designs like this one make. The rest are mistakes that this engine made until the simulation
found them: as they were, they must be found again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import gridmm.desk
import gridmm.engine_durable
from gridmm.client_id import ClientId, decode, encode
from gridmm.engine import News, Orders, Session, reconcile
from gridmm.engine_durable import DurableEngine
from gridmm.exchange import Absent, Exchange, Fill, NotSent, OrderReport, OrderRequest, Outcome, Unknown
from gridmm.layout import CLOSE, OPEN, Ev, Kind, Leg, Var
from gridmm.names import Ids, Meta
from gridmm.slots import locate
from gridmm.step import Plan
from gridmm.vocabulary import Order, Report, Stop
from gridmm.words import event
from simulated import Mutant, World
from simulation import outcome, shrink

SEEDS = 600


class LateCommit(Session):
    """Saves a plan after it was sent."""

    def _decided(self, plan: Plan, number: int) -> Orders:
        self._dirty = True
        return self.orders(plan)


class SendFirst(DurableEngine):
    """Sends, then saves."""

    async def _send(self, orders: Orders, deadline_ms: int | None) -> None:
        await super()._send(orders, deadline_ms)
        self.session.save()


class LastWins(Session):
    """Believes whatever was said last of an order."""

    def take(
        self, ev: np.ndarray, client_id: str = "", exchange_id: str = "", trade: Fill | None = None
    ) -> Orders:
        """Lower what is known of an order to what this event says, then fold it."""
        if ev[Ev.KIND] == Kind.ORDER and ev[Ev.REPORT] in (Report.ACCEPTED, Report.PARTIAL, Report.LIVE):
            place, i, base = locate(self.core, ev)
            if place == 0:
                self.core.slots[base + Leg.STATUS, i] = Order.WORKING
                self.core.slots[base + Leg.CUM, i] = max(ev[Ev.CUM], 0)
        return super().take(ev, client_id, exchange_id, trade)


class EagerClose(Session):
    """Takes a closing order for ended as soon as its cancel is asked for."""

    def take(
        self, ev: np.ndarray, client_id: str = "", exchange_id: str = "", trade: Fill | None = None
    ) -> Orders:
        """Take an event, then end every close whose cancel goes out."""
        orders = super().take(ev, client_id, exchange_id, trade)
        s = self.core.slots[:, : self.core.v[Var.SLOTS]]
        asked = (s[CLOSE + Leg.STATUS] == Order.WORKING) & (s[CLOSE + Leg.CANCEL] == 1)
        s[CLOSE + Leg.STATUS, asked] = Order.TERMINAL
        return orders


class Short(Meta):
    """Names orders without the start that made them."""

    def name(self, sequence: int, epoch: int, cell: int, direction: int, leg: int) -> Ids:
        """Return the names of an order, the same for every start."""
        parts = ClientId(self.instance, 0, epoch, cell, direction, leg, sequence)
        return self.ids.setdefault(sequence, Ids(encode(parts)))


class Blind:
    """An exchange whose missing answers are taken for a no."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __getattr__(self, name: str) -> object:
        return getattr(self._exchange, name)

    async def place(self, requests: Sequence[OrderRequest], deadline_ms: int | None = None) -> list[Outcome]:
        """Place, and take silence for a refusal."""
        outcomes = await self._exchange.place(requests, deadline_ms)
        return [NotSent(one.client_id, "") if isinstance(one, Unknown) else one for one in outcomes]


class BlindRetry(DurableEngine):
    """Places again what was not answered."""

    def __init__(self, session: Session, exchange: Exchange, *rest: object) -> None:
        super().__init__(session, Blind(exchange), *rest)  # type: ignore[arg-type]


def late_commit(session: Session) -> None:
    """Let a session save after it has sent."""
    session.__class__ = LateCommit


def last_wins(session: Session) -> None:
    """Let a session believe what was said last."""
    session.__class__ = LastWins


def eager_close(session: Session) -> None:
    """Let a session replace a close before it has ended."""
    session.__class__ = EagerClose


def repeated_ids(session: Session) -> None:
    """Let a session count on from what it still remembers, and leave the start out of its ids."""
    session.meta.__class__ = Short
    if session.meta.version:
        core, v = session.core, session.core.v
        s = core.slots[:, : v[Var.SLOTS]]
        v[Var.NEXT_SEQ] = 1 + max([*s[OPEN + Leg.SEQ].tolist(), *s[CLOSE + Leg.SEQ].tolist(), 0])


class DeadlineAtSending(DurableEngine):
    """Takes the deadline when the order is about to be sent, behind cancels and questions that may take for ever."""

    async def _send(self, orders: Orders, deadline_ms: int | None) -> None:
        if orders.cancel or orders.query:
            await super()._send(orders._replace(place=[]), deadline_ms)
        await super()._send(Orders([], [], orders.place), self.deadline_ms())


class AgeByTheClock(DurableEngine):
    """Tells the age of an order from a clock that can be set."""

    def believe(self, said: OrderReport | Absent, asked_s: float) -> OrderReport | Absent:
        """Believe in an absence when the clock says that the order is old."""
        if not isinstance(said, Absent) or not said.final:
            return said
        s, seq = self.session.core.slots[:, : self.session.core.v[Var.SLOTS]], decode(said.client_id).sequence
        legs = [s[base + Leg.TIME_MS, s[base + Leg.SEQ] == seq] for base in (OPEN, CLOSE)]
        sent_ms = max((int(at) for leg in legs for at in leg), default=0)
        return Absent(said.client_id, final=self.now_ms - sent_ms >= self.absent_ms)


class Forgets(DurableEngine):
    """Trades on after a stop that was asked for and not finished."""

    def go_on(self) -> None:
        """Let the grid run, whatever the last start was about."""
        self.session.core.v[Var.STOP] = Stop.RUN


class AgeWhenRead(DurableEngine):
    """Tells the age of an order from when the answer is read: a pause in between makes every order old."""

    def believe(self, said: OrderReport | Absent, asked_s: float) -> OrderReport | Absent:
        """Believe in an absence when the order is old by now."""
        return super().believe(said, asyncio.get_running_loop().time())


class AsksOnce(DurableEngine):
    """Asks for what it missed before its stream is open again, and then not for a minute."""

    async def _catch_up(self, strict: bool = False) -> None:
        await super()._catch_up(strict)
        self._reconciled_ms = max(self._reconciled_ms, self.now_ms)


async def missing_is_cancelled(
    session: Session, exchange: Exchange, now_ms: int, since_ms: int | None, *rest: object
) -> list[News]:
    """Reconcile by open orders alone: what is not among them has ended."""
    found = await reconcile(session, exchange, now_ms, since_ms, *rest)  # type: ignore[arg-type]
    there = {order.client_id for order in await exchange.open_orders()}
    for client_id in set(session.open_ids()) - there:
        seq = next(seq for seq, ids in session.meta.ids.items() if ids.client_id == client_id)
        for base in (OPEN, CLOSE):
            for i in np.flatnonzero(session.core.slots[base + Leg.SEQ, : session.core.v[Var.SLOTS]] == seq):
                leg, slot = session.core.slots[base:, i], session.core.slots[:, i]
                about = {
                    "SEQ": seq,
                    "EPOCH": slot[0],
                    "CELL": slot[1],
                    "LEG": int(base == CLOSE),
                    "DIRECTION": slot[2],
                }
                about |= {
                    "SIDE": leg[Leg.SIDE],
                    "PRICE": leg[Leg.PRICE],
                    "LOTS": leg[Leg.LOTS],
                    "CUM": leg[Leg.CUM],
                }
                found.insert(
                    0, News(event(Kind.ORDER, now_ms, REPORT=Report.CANCELED, QUIET=1, **about), client_id)
                )
    return found


MUTANTS = {
    "commit after placing": (Mutant(late_commit, SendFirst), {"saved before sent"}),
    "last event wins": (Mutant(last_wins), {"residual 1", "exposure", "no false alarm", "local is truth"}),
    "blind retry": (Mutant(engine=BlindRetry), {"known", "exposure", "two_live", "no false alarm"}),
    "missing is cancelled": (Mutant(), {"known", "exposure", "no false alarm", "two_live"}),
    "close replaced before it has ended": (Mutant(eager_close), {"known", "exposure", "two_live"}),
    "ids repeat after a restore": (
        Mutant(repeated_ids),
        {"twice", "deadline", "known", "exposure", "no false alarm"},
    ),
}

MUTANTS |= {
    "the deadline counts from the sending": (
        Mutant(engine=DeadlineAtSending),
        {"deadline", "known", "two_live"},
    ),
    "the age of an order is told by the clock": (Mutant(engine=AgeByTheClock), {"known", "no false alarm"}),
    "the age of an order is told when the answer is read": (
        Mutant(engine=AgeWhenRead),
        {"known", "no false alarm", "two_live", "exposure"},
    ),
    "a stop that was cut off is forgotten": (Mutant(engine=Forgets), {"stop"}),
    "a stream that was cut is made up for once": (Mutant(engine=AsksOnce), {"heard"}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch, note: Callable[[str], None]) -> None:
    mutant, rules = MUTANTS[name]
    if name == "missing is cancelled":
        monkeypatch.setattr(gridmm.desk, "reconcile", missing_is_cancelled)
        monkeypatch.setattr(gridmm.engine_durable, "reconcile", missing_is_cancelled)
    for seed in range(SEEDS):
        found = outcome(seed, mutant)
        if found.rule:
            note(f"mutant {name}: caught by seed {seed}: {found.rule}")
            assert found.rule in rules, found.message
            return
    raise AssertionError(f"{SEEDS} worlds do not see it")


def test_a_failing_world_is_told_in_one_line_and_shrunk() -> None:
    seed = next(seed for seed in range(SEEDS) if outcome(seed, MUTANTS["blind retry"][0]).rule)
    small = shrink(seed, MUTANTS["blind retry"][0])
    whole = World(seed)
    assert small.world.broken is not None
    assert small.moments < whole.moments
    assert len(small.faults) < sum(rate > 0 for rate in whole.rates.values())
    again = World(seed, small.moments, small.faults, MUTANTS["blind retry"][0]).run()
    assert (again.broken, list(again.trace)) == (small.world.broken, list(small.world.trace))
    assert small.story.startswith(
        f"python tests/simulation.py --seed {seed} --moments {small.moments} --faults "
    )
    assert "BROKEN" in small.story
