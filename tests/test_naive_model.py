"""The compiled core decides as the naive Decimal model does: every row of every plan and every hole, event by event.

Both get the same events. A brute-force exchange of the test's own answers the plan: it fills on touch, partly or whole,
refuses, forgets, answers late, twice and out of order, as an integer seed says.
"""

from __future__ import annotations

import ast
import heapq
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import naive
from data import real
from gridmm import layout
from gridmm.demo_market import demo_tape
from gridmm.layout import Act, Col, Command, Ev, Hole, Kind, Par, Var
from gridmm.step import advance
from gridmm.tape import Row as tape_rows
from gridmm.tape import Tape, load
from gridmm.vocabulary import Action, Reason, Report, Risk, Stop, Trigger

LOT_ATOMS = 1_000  # base atoms of a lot
NONE = -1  # the exchange does not tell how much was filled


# One event, twice.


@dataclass(frozen=True)
class Event:
    """One event in ticks and lots: what both sides are told."""

    kind: str
    time: int
    values: tuple[int, ...] = ()
    word: str = ""
    order: tuple[int, ...] = ()  # seq, epoch, cell, leg, side, price, lots, direction

    def __str__(self) -> str:
        about = " ".join(f"{n}={v}" for n, v in zip(NAMES[self.kind], self.values, strict=True))
        which = dict(zip(("seq", "epoch", "cell", "leg", "side", "price", "lots"), self.order, strict=False))
        return " ".join(str(p) for p in (self.time, self.kind, self.word, about, which or "") if p != "")

    def array(self) -> np.ndarray:
        """The event as the core reads it."""
        ev = np.zeros(layout.EVENT_SIZE, np.int64)
        ev[Ev.TIME_MS] = self.time
        if self.order:
            seq, epoch, cell, leg, side, price, lots, direction = self.order
            ev[Ev.SEQ], ev[Ev.EPOCH], ev[Ev.CELL], ev[Ev.LEG] = seq, epoch, cell, leg
            ev[Ev.SIDE], ev[Ev.PRICE], ev[Ev.LOTS], ev[Ev.DIRECTION] = side, price, lots, direction
        if self.kind == "price":
            ev[Ev.KIND] = Kind.PRICE
            ev[Ev.BID], ev[Ev.ASK], ev[Ev.LAST] = self.values
        elif self.kind == "candle":
            ev[Ev.KIND] = Kind.CANDLE
            ev[Ev.HIGH], ev[Ev.LOW], ev[Ev.CLOSE] = self.values
            ev[Ev.OPEN] = self.values[2]
        elif self.kind == "report":
            ev[Ev.KIND] = Kind.ORDER
            ev[Ev.REPORT], ev[Ev.CUM], ev[Ev.REASON] = Report[self.word], *self.values
        elif self.kind == "trade":
            ev[Ev.KIND] = Kind.FILL
            ev[Ev.TRADE], ev[Ev.LOTS], ev[Ev.FEE_BASE_ATOMS] = self.values
        elif self.kind == "command":
            ev[Ev.KIND] = Kind.COMMAND
            if self.word == "pause":
                ev[Ev.CODE] = Command.PAUSE
            elif self.word == "reset":
                ev[Ev.CODE], ev[Ev.ARG] = Command.RESET_RISK, -1
            else:
                ev[Ev.CODE], ev[Ev.ARG] = Command.STOP, Stop[self.word]
        else:
            ev[Ev.KIND] = Kind.TIMER
        return ev

    def plain(self, tick: Decimal, lot: Decimal) -> naive.Event:
        """The event as the model reads it."""
        if self.kind == "price":
            bid, ask, last = (v * tick for v in self.values)
            return naive.Price(self.time, bid, ask, last)
        if self.kind == "candle":
            high, low, close = (v * tick for v in self.values)
            return naive.Candle(self.time, high, low, close)
        if self.kind == "report":
            cum, reason = self.values
            known = None if cum == NONE else cum * lot
            return naive.Report(self.time, self.order[0], self.word, known, Reason(reason).name)
        if self.kind == "trade":
            trade, lots, fee = self.values
            return naive.Trade(self.time, self.order[0], trade, lots * lot, fee * lot / LOT_ATOMS)
        if self.kind == "command":
            return naive.Command(self.time, self.word)
        return naive.Timer(self.time)


NAMES = {
    "price": ("bid", "ask", "last"), "candle": ("high", "low", "close"), "report": ("cum", "reason"),
    "trade": ("trade", "lots", "fee"), "command": (), "timer": (),
}  # fmt: skip


# The exchange.


@dataclass
class Ticket:
    """An order as the exchange knows it."""

    order: tuple[int, ...]
    immediate: bool
    cum: int = 0
    live: bool = False
    never: bool = False  # it was lost on the way
    asked: int = 0

    @property
    def side(self) -> int:
        """+1 buy, -1 sell."""
        return self.order[4]

    @property
    def price(self) -> int:
        """Limit, ticks."""
        return self.order[5]

    @property
    def rest(self) -> int:
        """Lots that are not filled."""
        return self.order[6] - self.cum


class Venue:
    """A brute-force exchange: it looks at every order every time."""

    def __init__(self, random: Random, trouble: int, delay: int, patience: int, fee_atoms: int) -> None:
        self.random, self.trouble, self.delay, self.patience = random, trouble, delay, patience
        self.fee_atoms = fee_atoms  # base atoms that the exchange keeps of each lot bought
        self.tickets: dict[int, Ticket] = {}
        self.queue: list[tuple[int, int, Callable[[int], Iterable[Event]]]] = []
        self.number = 0
        self.trades = 0
        self.bid = self.ask = 0

    def chance(self, percent: int) -> bool:
        """Draw; trouble of 0 makes nothing go wrong."""
        return self.random.randrange(100 * 10) < percent * self.trouble

    def later(self, now: int, answer: Callable[[int], Iterable[Event]], wait: int | None = None) -> None:
        """Let something be said after a delay."""
        self.number += 1
        due = now + (self.random.randint(0, self.delay) if wait is None else wait)
        heapq.heappush(self.queue, (due, self.number, answer))

    def due(self, now: int) -> Iterator[Event]:
        """Yield what the exchange says up to `now`."""
        while self.queue and self.queue[0][0] <= now:
            time, _, answer = heapq.heappop(self.queue)
            yield from answer(time)

    def say(
        self, now: int, ticket: Ticket, word: str, cum: int | None = None, reason: Reason = Reason.NONE
    ) -> None:
        """Report on an order; sometimes twice."""
        values = (ticket.cum if cum is None else cum, int(reason))
        for _ in range(1 + self.chance(5)):
            self.later(now, lambda t: [Event("report", t, values, word, ticket.order)])

    def take(self, now: int, rows: Iterable[dict[str, int]]) -> None:
        """Receive a plan."""
        for row in rows:
            if row["action"] == Action.PLACE:
                keys = ("seq", "epoch", "cell", "leg", "side", "price", "lots", "direction")
                ticket = Ticket(tuple(row[k] for k in keys), bool(row["immediate"]))
                self.tickets[row["seq"]] = ticket
                self.place(now, ticket)
            elif row["action"] == Action.CANCEL:
                self.later(now, lambda t, k=self.tickets[row["seq"]]: self.cancel(t, k))  # type: ignore[misc]
            else:
                self.later(now, lambda t, k=self.tickets[row["seq"]]: self.answer(t, k))  # type: ignore[misc]

    def place(self, now: int, ticket: Ticket) -> None:
        """Decide the fate of a new order."""
        crosses = ticket.price >= self.ask if ticket.side > 0 else ticket.price <= self.bid
        if self.chance(3):
            ticket.never = True
            return self.later(now, lambda t: [Event("report", t, (0, 0), "NOT_SENT", ticket.order)])
        if self.chance(4):
            reason = self.random.choice([Reason.FUNDS, Reason.FILTER, Reason.RATE_LIMIT, Reason.OTHER])
            return self.say(now, ticket, "REJECTED", 0, reason)
        if not ticket.immediate and (crosses or self.chance(8)):
            return self.say(now, ticket, "REJECTED", 0, Reason.POST_ONLY_BACKOFF)
        if self.chance(6):  # no answer, or one that says that there is none
            ticket.never = self.random.random() < 0.4
            ticket.live = not ticket.never
            if self.random.random() < 0.6:
                wait = self.random.choice([0, self.patience]) + self.random.randint(0, self.delay)
                self.later(now, lambda t: [Event("report", t, (0, 0), "TIMEOUT", ticket.order)], wait)
            return None
        ticket.live = True
        if not ticket.immediate:
            return self.say(now, ticket, "ACCEPTED")
        self.say(now, ticket, "ACCEPTED")
        self.fill(now, ticket, ticket.rest if not self.chance(40) else self.random.randint(0, ticket.rest))
        if ticket.rest:
            ticket.live = False
            self.say(now, ticket, "EXPIRED")
        return None

    def cancel(self, now: int, ticket: Ticket) -> Iterable[Event]:
        """A cancel arrives."""
        if self.chance(5):
            return
        if not ticket.live or self.chance(3):
            yield Event(
                "report", now, (ticket.cum if self.chance(50) else 0, 0), "CANCEL_REJECTED", ticket.order
            )
            return
        ticket.live = False
        self.say(now, ticket, "CANCELED", NONE if self.chance(8) else None)

    def answer(self, now: int, ticket: Ticket) -> Iterable[Event]:
        """A question arrives."""
        ticket.asked += 1
        if ticket.never:
            word = "ABSENT" if ticket.asked < 3 else "ABSENT_FINAL"
            yield Event("report", now, (0, 0), word, ticket.order)
        else:
            yield Event("report", now, (ticket.cum, 0), "LIVE" if ticket.live else "ENDED", ticket.order)

    def fill(self, now: int, ticket: Ticket, lots: int) -> None:
        """Fill some of an order, and tell by trade, by report or by both."""
        if lots <= 0:
            return
        ticket.cum += lots
        self.trades += 1
        trade = self.trades
        done = ticket.rest == 0
        ticket.live = ticket.live and not done
        fee = lots * self.fee_atoms if ticket.side > 0 else 0
        told = self.random.randrange(3)
        if told != 0 and not ticket.immediate:
            for _ in range(1 + self.chance(5)):
                self.later(now, lambda t: [Event("trade", t, (trade, lots, fee), "", ticket.order)])
        if told != 1 or done:
            self.say(now, ticket, "FILLED" if done else "PARTIAL")

    def market(self, now: int, bid: int, ask: int, last: int) -> None:
        """The market moves: orders that it touches fill, in part or whole; sometimes one ends by itself."""
        self.bid, self.ask = bid, ask
        for ticket in list(self.tickets.values()):
            if not ticket.live or ticket.immediate:
                continue
            best = (
                min((p for p in (ask, last) if p > 0), default=10**9) if ticket.side > 0 else max(bid, last)
            )
            beyond = (ticket.price - best) * ticket.side
            if beyond > 0 or (beyond == 0 and self.random.random() < 0.5):
                self.fill(now, ticket, ticket.rest)
            elif beyond == 0:
                self.fill(now, ticket, self.random.randint(0, ticket.rest))
            elif self.random.randrange(20_000) < self.trouble:
                ticket.live = False
                self.say(now, ticket, self.random.choice(["CANCELED", "EXPIRED"]), None, Reason.OTHER)
        self.tickets = {s: k for s, k in self.tickets.items() if k.live or s > max(self.tickets) - 300}


# The two, side by side.


@dataclass
class World:
    """A configuration and what the exchange does with it."""

    name: str
    par: dict[str, int]
    tick: Decimal = Decimal("0.01")
    lot: Decimal = Decimal("0.001")
    half_atoms: int = 5
    seed_lots: int = 0
    fee_atoms: int = 0
    pause: Risk = Risk.REDUCE_ONLY
    trouble: int = 10
    delay: int = 400
    random: Random = field(default_factory=lambda: Random(0))

    def array(self) -> np.ndarray:
        """The parameters as the core reads them."""
        par = np.zeros(layout.PAR_SIZE, np.int64)
        for name, value in self.par.items():
            par[Par[name]] = value
        par[Par.HALF_ATOMS] = self.half_atoms
        par[Par.BASE_LOT_ATOMS] = LOT_ATOMS
        par[Par.LIMITS + Trigger.OPERATOR] = 1
        par[Par.LIMITS + len(Trigger) + Trigger.OPERATOR] = self.pause
        return par

    def plain(self) -> naive.Settings:
        """The parameters as the model reads them."""
        p = {par.name: self.par.get(par.name, 0) for par in Par}
        ppm, atom = Decimal("0.000001"), self.tick * self.lot / (2 * self.half_atoms)
        return naive.Settings(
            tick=self.tick, lot=self.lot, mode={1: "long", -1: "short", 0: "neutral"}[p["MODE"]],
            spot=bool(p["SPOT"]), buys=p["BUYS"], sells=p["SELLS"], geometric=bool(p["GEOMETRIC"]),
            base=p["BASE"] * (ppm if p["BASE_PPM"] else self.tick), base_is_ratio=bool(p["BASE_PPM"]),
            scale=p["SCALE_PPM"] * ppm, max_mode=bool(p["MAX_MODE"]), cap=p["CAP_PPM"] * ppm,
            fee_floor=p["FEE_FLOOR_PPM"] * ppm, maker=p["MAKER_PPM"] * ppm,
            change=p["CHANGE_PCT"] * Decimal("0.01"), dwell_ms=p["DWELL_MS"], atr_length=p["ATR_LENGTH"],
            ref_length=p["REF_LENGTH"], skew=p["SKEW_PPM"] * ppm, max_position=p["MAX_LOTS"] * self.lot,
            gross=p["GROSS_LOTS"] * self.lot, notional=p["CELL_ATOMS"] * atom,
            min_quantity=p["MIN_LOTS"] * self.lot, min_notional=p["MIN_ATOMS"] * atom,
            price_min=p["PRICE_MIN"] * self.tick, price_max=p["PRICE_MAX"] * self.tick,
            trend_factor=p["TREND_PPM"] * ppm, trend_window=p["TREND_WINDOW"],
            trend_enter=p["TREND_ENTER_PPM"] * ppm, trend_leave=p["TREND_LEAVE_PPM"] * ppm,
            flip_dwell_ms=p["FLIP_DWELL_MS"], reprice_dwell_ms=p["REPRICE_DWELL_MS"],
            slippage=p["SLIPPAGE_TICKS"] * self.tick, max_orders=p["MAX_ORDERS"], max_epochs=p["MAX_EPOCHS"],
            backoff_ms=p["BACKOFF_MS"], backoff_max_ms=p["BACKOFF_MAX_MS"], query_after_ms=p["QUERY_AFTER_MS"],
            allow_losing=bool(p["ALLOW_LOSING"]), short_cover=bool(p["SPOT_SHORT_COVER"]),
            target=p["TARGET_LOTS"] * self.lot, seed=self.seed_lots * self.lot,
            rate=p["RATE_MILLI"] * Decimal("0.001"), burst=p["BURST_MILLI"] * Decimal("0.001"),
            pause_mode=self.pause.name,
        )  # fmt: skip


class Duel:
    """The core and the model, fed alike."""

    def __init__(self, world: World, model: type[naive.Grid] = naive.Grid) -> None:
        self.world = world
        self.core, self.par = layout.empty_core(), world.array()
        self.core.v[Var.SEED_LOTS] = world.seed_lots
        self.model = model(world.plain())
        self.past: list[Event] = []
        self.events = self.plans = 0
        self.rows: Counter[str] = Counter()
        self.whys: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.holes: Counter[str] = Counter()

    def take(self, event: Event) -> list[dict[str, int]]:
        """Give both the event, compare what they say, and return the plan."""
        self.past = [*self.past[-30:], event]
        plan = advance(self.core, self.par, event.array())
        self.model.take(event.plain(self.world.tick, self.world.lot))
        core, model = self.core_says(plan), self.model_says()
        if core != model:
            raise AssertionError(self.difference(core, model))
        self.events += 1
        self.plans += bool(plan.actions.shape[1])
        rows = [{a.name.lower(): int(column[a]) for a in Act} for column in plan.actions.T]
        self.rows.update(Action(r["action"]).name for r in rows)
        self.met.update(("exit", "maker")[not r["immediate"]] + ("", " close")[r["leg"]] for r in rows)
        self.met.update(
            ("up", "", "down")[1 - int(np.sign(self.core.v[var]))] + var.name for var in (Var.SIGN, Var.TREND)
        )
        self.whys.update(Reason(r["why"]).name for r in rows if r["action"] == Action.CANCEL)
        self.holes.update(Reason(int(w)).name for w in plan.holes[Hole.WHY])
        return rows

    def core_says(self, plan: Any) -> list[tuple[Any, ...]]:
        """The core's words, in the model's language."""
        v, tick, lot = self.core.v, self.world.tick, self.world.lot
        unit = Decimal("0.000001") if self.world.par["GEOMETRIC"] else tick
        said: list[tuple[Any, ...]] = [
            (
                "epoch",
                int(v[Var.EPOCH]),
                "pivot",
                int(v[Var.PIVOT]),
                "bases",
                int(v[Var.BUY_BASE]),
                int(v[Var.SELL_BASE]),
            ),
            ("interval", int(v[Var.INTERVAL]) * unit, "next", int(v[Var.NEXT_INTERVAL]) * unit),
            ("atr", int(v[Var.ATR]) * tick, "ref", int(v[Var.ATR_REF]) * tick, "trend", int(v[Var.TREND])),
            ("sign", int(v[Var.SIGN]), "risk", Risk(int(v[Var.RISK])).name, "next seq", int(v[Var.NEXT_SEQ])),
        ]
        for c in plan.actions.T:
            row = naive.Row(
                Action(c[Act.ACTION]).name, int(c[Act.SEQ]), int(c[Act.EPOCH]), int(c[Act.CELL]), int(c[Act.LEG]),
                int(c[Act.SIDE]), int(c[Act.PRICE]) * tick, int(c[Act.LOTS]) * lot, bool(c[Act.IMMEDIATE]),
                Reason(c[Act.WHY]).name if c[Act.ACTION] == Action.CANCEL else "",
            )  # fmt: skip
            said.append(tuple(row))
        said += [("hole", int(c), int(d), Reason(w).name) for c, d, w in plan.holes.T]
        return said

    def model_says(self) -> list[tuple[Any, ...]]:
        """The model's words."""
        m = self.model
        lattice = m.lattice
        said: list[tuple[Any, ...]] = [
            ("epoch", lattice.epoch if lattice else 0, "pivot", m.pivot, "bases", m.buy_base, m.sell_base),
            ("interval", lattice.interval if lattice else 0, "next", m.candidate),
            ("atr", m.atr, "ref", m.atr_ref, "trend", m.trend),
            ("sign", m.sign, "risk", m.risk, "next seq", m.next_seq),
        ]
        said += [tuple(r._replace(why=(r.why or "NONE") if r.action == "CANCEL" else "")) for r in m.plan]
        said += [("hole", *h) for h in m.holes]
        return said

    def difference(self, core: list[tuple[Any, ...]], model: list[tuple[Any, ...]]) -> str:
        """Tell the first difference so that a person can judge it."""
        lines = [
            f"world {self.world.name}, event {self.events}: the core and the model decide differently",
            "last events:",
        ]
        lines += [f"  {event}" for event in self.past[-8:]]
        for title, mine, other in (
            ("only the core says:", core, model),
            ("only the model says:", model, core),
        ):
            lines += [title, *("  " + " ".join(str(x) for x in t) for t in mine if t not in other)]
        if sorted(map(str, core)) == sorted(map(str, model)):
            lines += [
                "the same in another order, core:",
                *(f"  {t}" for t in core),
                "model:",
                *(f"  {t}" for t in model),
            ]
        v = self.core.v
        lines.append(f"bid {v[Var.BID]} ask {v[Var.ASK]} in ticks, now {v[Var.NOW_MS]}; cells of the model:")
        for c in self.model.in_order():
            orders = "; ".join(
                f"#{o.seq} leg {o.leg} {o.side:+} {o.price} x {o.quantity} filled {o.cum} {o.status}{' cancel' * o.cancel}"
                for o in c.orders[-3:]
            )
            lines.append(f"  {c.epoch}:{c.k} {c.lo}..{c.hi} position {c.position} [{orders}] {c.trouble}")
        lines.append("slots of the core:")
        for i in range(int(v[Var.SLOTS])):
            s = self.core.slots[:, i]
            legs = [
                dict(
                    zip(
                        [x.name.lower() for x in layout.Leg], s[b : b + layout.LEG_ROWS].tolist(), strict=True
                    )
                )
                for b in (layout.OPEN, layout.CLOSE)
            ]
            lines.append(
                f"  {s[Col.EPOCH]}:{s[Col.CELL]} dir {s[Col.DIR]} why {s[Col.WHY]}/{s[Col.WHY_CLOSE]}"
            )
            lines += [f"     { {k: v for k, v in leg.items() if v} }" for leg in legs]
        return "\n".join(lines)


def play(world: World, market: Iterable[Event], model: type[naive.Grid] = naive.Grid) -> Duel:
    """Play a market against both."""
    duel, venue = (
        Duel(world, model),
        Venue(world.random, world.trouble, world.delay, world.par["QUERY_AFTER_MS"], world.fee_atoms),
    )
    for event in market:
        for said in venue.due(event.time):
            venue.take(said.time, duel.take(said))
        if event.kind == "price":
            venue.market(event.time, *event.values)
        venue.take(event.time, duel.take(event))
        for said in venue.due(event.time):
            venue.take(said.time, duel.take(said))
    return duel


# Worlds.


def drawn(seed: int, price: int, unit: int) -> World:
    """A random configuration for a market at about `price` ticks, whose interval is about `unit` ticks."""
    r = Random(seed)
    mode = r.choice([1, 1, -1, 0, 0])
    spot = int(r.random() < 0.4)
    geometric, ratio = r.randrange(2), r.randrange(2)
    size = r.choice([1, 3, 10, 40])
    lots_price = price * 2 * 5
    base = max(3, unit * r.randint(5, 20) // 10)
    cells = r.randint(1, 12)
    maker = r.choice([0, 20, 100, -50, 1_500])
    par = {
        "MODE": mode, "SPOT": spot, "BUYS": r.randint(1, 7), "SELLS": r.randint(1, 7), "GEOMETRIC": geometric,
        "BASE": max(100, base * 1_000_000 // price) if ratio else base, "BASE_PPM": ratio,
        "SCALE_PPM": r.choice([1_000_000, 1_000_000, 500_000, 2_000_000]), "MAX_MODE": int(r.random() < 0.2),
        "CAP_PPM": r.choice([1_000_000, 3_000_000, 10_000_000]), "FEE_FLOOR_PPM": r.choice([2_000_000, 4_000_000]),
        "MAKER_PPM": maker, "CHANGE_PCT": r.choice([10, 20, 50]), "DWELL_MS": r.choice([0, 60_000, 600_000]),
        "ATR_LENGTH": r.randint(2, 6), "REF_LENGTH": r.randint(1, 5), "SKEW_PPM": r.choice([0, 500_000, 1_000_000, 3_000_000]),
        "MAX_LOTS": size * cells + r.randint(0, size), "CELL_ATOMS": lots_price * size + lots_price // 2,
        "MIN_LOTS": r.choice([1, 1, 1 + size // 3, size]), "MIN_ATOMS": r.choice([0, 0, lots_price * size // 3, lots_price * size]),
        "PRICE_MIN": r.choice([0, price - 10 * base]), "PRICE_MAX": r.choice([0, price + 10 * base]),
        "TREND_PPM": r.choice([0, 0, 1_000_000, 2_500_000]), "TREND_WINDOW": r.randint(2, 8),
        "TREND_ENTER_PPM": r.choice([1_500_000, 3_000_000]), "TREND_LEAVE_PPM": r.choice([500_000, 1_000_000]),
        "FLIP_DWELL_MS": r.choice([0, 3_000, 20_000]), "REPRICE_DWELL_MS": r.choice([1_000, 10_000]),
        "SLIPPAGE_TICKS": r.choice([0, 5, base]), "MAX_ORDERS": r.choice([200, 200, 12, 8, 5]), "MAX_EPOCHS": r.randint(1, 4),
        "BACKOFF_MS": r.choice([0, 500, 2_000]), "BACKOFF_MAX_MS": r.choice([4_000, 30_000]),
        "QUERY_AFTER_MS": r.choice([1_000, 5_000]), "SPOT_SHORT_COVER": r.randrange(2),
        "TARGET_LOTS": r.choice([0, 0, 0, size, -size]),
        "ALLOW_LOSING": int(r.random() < 0.1),
    }  # fmt: skip
    if maker == 1_500:  # a floor at the cap: price alone decides whether anything opens
        par |= {"FEE_FLOOR_PPM": 4_000_000, "CAP_PPM": 1_000_000, "BASE_PPM": 1 - geometric}
        par["BASE"] = price * 6 // 1_000 if geometric else 6_000
    if r.random() < 0.25:
        par["RATE_MILLI"], par["BURST_MILLI"] = r.choice([1_000, 2_000]), r.choice([3_000, 10_500])
    par["GROSS_LOTS"] = r.choice([2 * par["MAX_LOTS"], par["MAX_LOTS"], par["MAX_LOTS"] * 3 // 4 + 1])
    return World(
        f"seed {seed}", par, seed_lots=r.choice([0, size * 3, size * 20]) if spot else 0,
        fee_atoms=r.choice([0, 0, 1, 40]) * spot, pause=r.choice([Risk.REDUCE_ONLY, Risk.HALTED]), trouble=r.choice([0, 3, 10, 10, 25]),
        delay=r.choice([0, 300, 2_000]), random=r,
    )  # fmt: skip


def with_commands(market: Iterable[Event], random: Random, length: int) -> Iterator[Event]:
    """Let an operator pause and go on now and then, and stop near the end."""
    stop = random.choice(["DRAIN", "CANCEL", "FLATTEN"])
    paused = False
    for at, event in enumerate(market):
        yield event
        if at == length * 9 // 10:
            yield Event("command", event.time, (), stop)
        if random.random() < (0.02 if paused else 0.003):
            yield Event("command", event.time, (), "reset" if paused else "pause")
            paused = not paused
        if random.random() < 0.05:
            yield Event("timer", event.time + random.randint(0, 1_000))


def walk(random: Random, price: int, unit: int, length: int) -> Iterator[Event]:
    """A random walk of whole numbers with a spread, jumps, candles, and now and then a side without orders."""
    time, mid = 1_700_000_000_000, price
    wide = max(1, unit // random.choice([20, 10, 2, 1]))
    calm = random.choice([40, 10, 3])
    bar: list[int] = []
    bar_end = time + 60_000
    for _ in range(length):
        time += random.choice([0, 50, 200, 1_000, 5_000])
        mid += random.randint(-unit // calm - 1, unit // calm + 1)
        if random.random() < 0.01:
            mid += random.randint(-4 * unit, 4 * unit)
        mid = max(mid, price // 3)
        if time >= bar_end and bar:
            late = 60_000 if random.random() < 0.03 else 0  # a bar that was told before
            yield Event("candle", bar_end - late, (max(bar), min(bar), bar[-1]))
            bar, bar_end = [], time - time % 60_000 + 60_000
        bid = mid - random.randint(0, wide)
        ask = bid + random.randint(1, wide)
        last = random.choice([0, bid, ask, mid, bid - 3, ask + 3])
        odd = random.random()
        if odd < 0.005:
            bid = 0
        elif odd < 0.01:
            ask = 0
        bar.append(mid)
        yield Event("price", time, (bid, ask, last))


def recorded(tape: Tape, start: int, rows: int) -> Iterator[Event]:
    """A part of a tape as events: touches, trades, and candles of a minute where it has none."""
    candles = bool((tape.kind == tape_rows.CANDLE).any())
    bid = ask = last = minute = 0
    bar: list[int] = []
    for at in range(start, min(start + rows, len(tape))):
        time, kind, a, b, c, d, _ = tape.row(at)
        if kind == tape_rows.CANDLE:
            yield Event("candle", time, (b, c, d))
            continue
        if kind == tape_rows.QUOTE:
            bid, ask = a, b
        else:
            last = a
        if not candles and time // 60_000 > minute:
            if bar:
                yield Event("candle", time // 60_000 * 60_000, (max(bar), min(bar), bar[-1]))
            minute, bar = time // 60_000, []
        touch = (bid, ask) if bid and ask else (last - 1, last + 1)  # a tape of trades has no touch
        bar.append(last or bid)
        yield Event("price", time, (*touch, last))


def walked(seed: int, rows: int, model: type[naive.Grid] = naive.Grid) -> Duel:
    """Play a random walk."""
    world = drawn(seed, 10_000, 60)
    market = walk(world.random, 10_000, 60, rows)
    return play(world, with_commands(market, world.random, rows), model)


def taped(tape: Tape, seed: int, rows: int, thin: int = 1) -> Duel:
    """Play a part of a tape, every `thin`-th event of it."""
    start = Random(seed).randrange(max(1, len(tape) - rows * thin))
    price = next(e.values[0] for e in recorded(tape, start, 100) if e.kind == "price")
    world = drawn(seed, price, max(3, price // 600))
    world.name = f"{tape.name} from row {start}, seed {seed}"
    world.tick, world.lot = tape.instrument.tick, tape.instrument.lot
    market = (
        e for i, e in enumerate(recorded(tape, start, rows * thin)) if i % thin == 0 or e.kind == "candle"
    )
    return play(world, with_commands(market, world.random, rows))


# What must hold.

LONGER = int(os.environ.get("GRIDMM_WORLDS", "1"))  # so many times the worlds of an ordinary run
RECORDINGS = (
    "binance_spot_btcusdt_20240808_raw.ndjson.gz",
    "btcusdt_perp_1m_202506.csv.gz",
    "adausdt_perp_1m_202506.csv.gz",
    "xrpeth_binance_aggtrades_20191011.csv.gz",
    "lean_coinbase_btcusd_1m_quotes.csv.gz",
)


def test_the_model_shares_no_code_with_the_core() -> None:
    tree = ast.parse(Path(naive.__file__).read_text(encoding="utf-8"))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "." for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names == {"__future__", "collections.abc", "dataclasses", "decimal", "fractions", "math", "typing"}
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"__import__", "exec", "eval", "open"}


@pytest.mark.parametrize("group", range(6 * LONGER))
def test_every_decision_on_random_walks(group: int, note: Callable[[str], None]) -> None:
    note(told([walked(seed, 600) for seed in range(group * 6, group * 6 + 6)], f"random walks {group}"))


@pytest.mark.parametrize("seed", range(6 * LONGER))
def test_every_decision_on_the_demo_market(seed: int, note: Callable[[str], None]) -> None:
    tape = demo_tape(24, seed=seed + 1)
    note(told([taped(tape, seed, 1_000, thin=60)], f"demo market {seed}"))


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_decision_on_real_recordings(name: str, note: Callable[[str], None]) -> None:
    tape = load(real(name))
    note(told([taped(tape, seed, 1_000, thin=3) for seed in range(2 * LONGER)], name))


def told(duels: list[Duel], name: str) -> str:
    """Say how much was compared."""
    rows, holes = sum(d.rows.total() for d in duels), sum(d.holes.total() for d in duels)
    events, plans = sum(d.events for d in duels), sum(d.plans for d in duels)
    return f"naive model, {name}: {events} events, {plans} plans of {rows} rows and {holes} reasons agree"


def test_the_worlds_meet_every_action_and_reason() -> None:
    duels = [walked(seed, 600) for seed in (3, 7, 9, 13, 37, 58)]
    rows, cancels, holes, met = (
        sum((getattr(d, name) for d in duels), Counter[str]()) for name in ("rows", "whys", "holes", "met")
    )
    assert set(rows) == {a.name for a in Action}
    expected = "STOPPING RISK NO_PRICE EPOCH FEE_FLOOR OUTSIDE SKEW TREND SIDE CAP PARKED REPRICE NONE"
    assert set(expected.split()) <= set(cancels)
    expected = (
        "STOPPING RISK NO_PRICE EPOCH FEE_FLOOR SKEW TREND PRICE_BOUNDS SIDE NOTIONAL OCCUPIED CAP TOUCHED BACKOFF "
        "POST_ONLY_BACKOFF SELF_CROSS CAP_WAIT BUDGET ORDER_LIMIT FUNDS"
    )
    assert set(expected.split()) <= set(holes)
    assert {"maker", "maker close", "exit close", "upSIGN", "downSIGN", "upTREND", "downTREND"} <= set(met)
    assert max(int(d.core.v[Var.EPOCH]) for d in duels) > 2


# Each of these breaks one rule of the model: the comparison must notice.


class NoSkew(naive.Grid):
    """Never moves a window."""

    def shifts(self) -> tuple[int, int]:
        """No shift."""
        return 0, 0


class NoTrend(naive.Grid):
    """Sees no trend."""

    def measure_trend(self) -> None:
        """Nothing."""


class NoParking(naive.Grid):
    """Works every close."""

    def parked(self, cell: naive.Cell) -> bool:
        """Never."""
        return False


class NoSelfCross(naive.Grid):
    """Would trade with itself."""

    def crosses_own(self, side: int, price: Decimal) -> bool:
        """Never."""
        return False


class NoBackoff(naive.Grid):
    """Tries again at once."""

    def waits(self, trouble: naive.Trouble) -> str:
        """Never."""
        return ""


class PromiseOnly(naive.Grid):
    """Asks for the promise even through the touch."""

    def closing_price(self, cell: naive.Cell) -> Decimal:
        """The promise."""
        return cell.goal


class NoCap(naive.Grid):
    """Wants more than it may hold."""

    def caps(self) -> dict[int, Decimal]:
        """No cap."""
        return {+1: Decimal("Infinity"), -1: Decimal("Infinity")}


class NearSighted(naive.Grid):
    """Renews its table too early."""

    def near_edge(self) -> bool:
        """Always."""
        return True


class Forgetful(naive.Grid):
    """Forgets how often a cell was refused."""

    def remembered(self, cell: naive.Cell) -> bool:
        """Never."""
        return False


class StillBases(naive.Grid):
    """Fills do not move the bases."""

    def fill(self, cell: naive.Cell, o: naive.Order, cum: Decimal) -> None:
        """Only count."""
        o.cum = cum


MUTANTS = (
    NoSkew, NoTrend, NoParking, NoSelfCross, NoBackoff, PromiseOnly, NoCap, NearSighted, Forgetful, StillBases,
)  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_broken_model_is_noticed(mutant: type[naive.Grid]) -> None:
    def differs(seed: int) -> bool:
        try:
            walked(seed, 450, mutant)
        except AssertionError as difference:
            return "decide differently" in str(difference)
        return False

    assert any(differs(seed) for seed in range(30))


# What the two once saw differently, by hand.


class Script:
    """A few events by hand."""

    def __init__(self, **par: int) -> None:
        usual = {
            "MODE": 1, "BUYS": 1, "SELLS": 1, "BASE": 60, "SCALE_PPM": 1_000_000, "CAP_PPM": 3_000_000, "FEE_FLOOR_PPM": 4_000_000,
            "CHANGE_PCT": 20, "ATR_LENGTH": 3, "REF_LENGTH": 3, "MAX_LOTS": 1_000, "GROSS_LOTS": 1_000, "CELL_ATOMS": 1_000_000,
            "MIN_LOTS": 1, "MAX_ORDERS": 100, "MAX_EPOCHS": 3, "BACKOFF_MS": 500, "BACKOFF_MAX_MS": 4_000, "QUERY_AFTER_MS": 1_000,
            "TREND_WINDOW": 4, "TREND_ENTER_PPM": 3_000_000, "TREND_LEAVE_PPM": 1_000_000, "REPRICE_DWELL_MS": 1_000, "GEOMETRIC": 0,
        }  # fmt: skip
        self.duel = Duel(World("by hand", usual | par))
        self.orders: dict[int, tuple[int, ...]] = {}

    def tell(self, time: int, kind: str, *values: int, word: str = "", seq: int = 0) -> list[dict[str, int]]:
        """Give both an event; `time` counts from a start."""
        event = Event(kind, 1_000_000 + time, values, word, self.orders.get(seq, ()))
        rows = self.duel.take(event)
        keys = ("seq", "epoch", "cell", "leg", "side", "price", "lots", "direction")
        self.orders |= {r["seq"]: tuple(r[k] for k in keys) for r in rows if r["action"] == Action.PLACE}
        return rows

    def report(
        self, time: int, seq: int, word: str, cum: int = 0, reason: Reason = Reason.NONE
    ) -> list[dict[str, int]]:
        """Report on an order."""
        return self.tell(time, "report", cum, int(reason), word=word, seq=seq)


def test_unknown_is_asked_at_once() -> None:
    """An order whose placing timed out is asked for in the plan of that event, not a second later."""
    s = Script()
    s.tell(0, "price", 9_999, 10_001, 0)
    s.report(100, 1, "TIMEOUT")


def test_only_a_fill_or_a_requested_cancel_forgives() -> None:
    """A reject, an order that was not sent, a reject: each waits twice as long as the one before."""
    s = Script()
    s.tell(0, "price", 9_999, 10_001, 0)
    s.report(10, 1, "REJECTED", 0, Reason.OTHER)
    s.tell(600, "timer")
    s.report(700, 2, "NOT_SENT")
    s.tell(1_800, "timer")
    s.report(1_900, 3, "REJECTED", 0, Reason.OTHER)
    s.tell(3_000, "timer")
    s.tell(4_000, "timer")


def test_a_refused_exit_backs_off() -> None:
    """The second refusal of an exit waits twice as long."""
    s = Script()
    s.tell(0, "price", 9_999, 10_001, 0)
    s.report(10, 1, "ACCEPTED")
    s.tell(20, "command", word="FLATTEN")
    s.report(30, 1, "FILLED", 10)
    s.report(40, 2, "REJECTED", 0, Reason.OTHER)
    s.tell(600, "timer")
    s.report(700, 3, "REJECTED", 0, Reason.OTHER)
    s.tell(1_300, "timer")


def test_a_stopped_part_is_named_by_the_stop() -> None:
    """A partly filled order ignores the window: what cancels it in a pause is the risk, not the skew."""
    s = Script(SKEW_PPM=1_000_000, BUYS=4, MAX_LOTS=20, GROSS_LOTS=20)
    s.tell(0, "price", 9_999, 10_001, 0)
    for seq in (1, 2):
        s.report(seq, seq, "ACCEPTED")
    s.report(10, 2, "PARTIAL", 9)
    s.report(20, 1, "PARTIAL", 9)
    s.tell(30, "command", word="pause")


def test_a_pause_cancels_what_is_asked_for() -> None:
    """REDUCE_ONLY cancels every working opening leg at once, also one that a question is open for."""
    s = Script()
    s.tell(0, "price", 9_999, 10_001, 0)
    s.report(10, 1, "ACCEPTED")
    s.report(20, 1, "TIMEOUT")
    s.tell(1_020, "command", word="pause")


def test_the_budget_refills_between_close_events() -> None:
    s = Script(BUYS=4, RATE_MILLI=1_999, BURST_MILLI=1_000)
    s.tell(0, "price", 9_999, 10_001, 0)
    for ms in range(1, 600):
        s.tell(ms, "timer")


def test_a_wide_geometric_interval_opens() -> None:
    Script(GEOMETRIC=1, BASE=150_000, BASE_PPM=1).tell(0, "price", 9_999, 10_001, 0)


def test_an_interval_at_its_floor_does_not_end_the_session() -> None:
    s = Script(
        GEOMETRIC=1, BASE=3_000, BASE_PPM=1, CAP_PPM=1_000_000, FEE_FLOOR_PPM=2_000_000, MAKER_PPM=1_500
    )
    s.tell(0, "price", 10_011, 10_012, 10_011)
