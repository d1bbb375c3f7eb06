"""An auditor at the exchange: it believes no engine, only what the paper exchange has in its book and ledger.

Three rules: a slot never has two live orders of one leg; the true position and everything live together stay
within the cap on either side; and no client id is taken twice, which would be one intention carried out twice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Row

from gridmm.client_id import decode
from gridmm.exchange import OrderReport
from gridmm.exchange_paper import PaperExchange


@dataclass(frozen=True)
class Violation:
    """A rule that was broken; recorded when it begins, not again while it lasts."""

    rule: str
    message: str
    client_ids: tuple[str, ...]
    time_ms: int


class Auditor:
    """Checks after every command and every moment.

    Between two checks only fills happen, and a fill turns an order into position: it can lower the exposure but
    not raise it, and it takes live orders away but adds none. So no breach falls between two checks.

    Attributes:
        cap: Largest exposure that is allowed on either side, base; None does not limit it.
        checks: How often the rules were checked.
        exposure_max: Largest exposure seen on either side, base.
    """

    def __init__(self, paper: PaperExchange, cap: Decimal | None = None) -> None:
        self.paper, self.cap = paper, cap
        self.checks, self.exposure_max = 0, Decimal(0)
        self._found: list[Violation] = []
        self._lasting: set[object] = set()
        self._commits = -1

    @property
    def position(self) -> Decimal:
        """True position: of a perpetual the account's, on spot what was bought less what was sold."""
        paper = self.paper
        spot = paper.instrument.market == "spot"
        return paper.instrument.quantity(paper.ledger_position_lots if spot else paper.position_lots)

    async def check(self) -> None:
        """Check the rules, if anything has changed since the last time."""
        if self.paper.ledger.commits == self._commits:
            return
        self._commits = self.paper.ledger.commits
        self.checks += 1
        live = await self.paper.open_orders()
        self._lasting = self._two_live(live) | self._exposure(live)

    def _two_live(self, live: list[OrderReport]) -> set[object]:
        """Look for two live orders of one leg; return what is wrong now."""
        legs: dict[tuple[int, int, int, int], list[str]] = defaultdict(list)
        for order in live:
            try:
                at = decode(order.client_id)
            except ValueError:
                continue  # not an order of a grid
            legs[at.instance, at.epoch, at.cell, at.leg].append(order.client_id)
        wrong: set[object] = set()
        for (_, epoch, cell, leg), ids in legs.items():
            if len(ids) > 1:
                key = ("two_live", *sorted(ids))
                wrong.add(key)
                name = "closing" if leg else "opening"
                self._note(key, f"slot (epoch {epoch}, cell {cell}) has {len(ids)} live {name} orders", ids)
        return wrong

    def _exposure(self, live: list[OrderReport]) -> set[object]:
        """Look for a position that could grow beyond the cap; return what is wrong now."""
        wrong: set[object] = set()
        for side, name in ((+1, "long"), (-1, "short")):
            orders = [order for order in live if order.side == side]
            exposure = side * self.position + sum((o.quantity - o.cumulative for o in orders), Decimal(0))
            self.exposure_max = max(self.exposure_max, exposure)
            if self.cap is not None and exposure > self.cap:
                key = ("exposure", name)
                wrong.add(key)
                text = f"{name} exposure {exposure} is above the cap {self.cap}: position {self.position}"
                self._note(key, text, [order.client_id for order in orders])
        return wrong

    def _note(self, key: tuple[str, ...], message: str, ids: list[str]) -> None:
        """Record a violation, unless it lasts from the check before."""
        if key not in self._lasting:
            self._found.append(Violation(key[0], message, tuple(ids), self.paper.now_ms))

    def violations(self) -> list[Violation]:
        """Return everything that was found, client ids that were taken twice included."""
        query = (
            "SELECT client_id, COUNT(*), MAX(time_ms) FROM orders WHERE status NOT IN ('sent', 'rejected') "
            "GROUP BY client_id HAVING COUNT(*) > 1"
        )
        return self._found + [
            Violation("twice", f"{client_id} was taken {count} times", (client_id,), time_ms)
            for client_id, count, time_ms in self._ask(query)
        ]

    def _ask(self, query: str) -> list[Row]:
        """Return what the ledger's own database says."""
        db = self.paper.ledger.db
        with db.begin():
            return list(db.exec_driver_sql(query))

    def counts(self) -> tuple[int, int, dict[str, int]]:
        """Return orders that were taken, fills, and refused placements by reason, from the ledger."""
        ((orders,),) = self._ask("SELECT COUNT(*) FROM orders WHERE status NOT IN ('sent', 'rejected')")
        ((fills,),) = self._ask("SELECT COUNT(*) FROM fills")
        refused = self._ask("SELECT reason, COUNT(*) FROM orders WHERE status = 'rejected' GROUP BY reason")
        return orders, fills, {str(reason): int(count) for reason, count in refused}
