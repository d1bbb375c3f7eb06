"""The fault switch of the exchange in another process: what goes wrong, how often, from a seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum


class Fault(StrEnum):
    """What can go wrong on purpose. The first three strike any call, the next three one kind of command."""

    REQUEST_LOST = "request_lost"  # the connection is dropped and nothing was done
    ANSWER_LOST = "answer_lost"  # all was done, then the connection is dropped
    LATE_ANSWER = "late_answer"  # all was done, the answer takes its time
    RATE_LIMIT = "rate_limit"  # a command is refused: too many of them
    FUNDS = "funds"  # a placement is refused: balance too small
    LATE_CANCEL = "late_cancel"  # a cancel arrives after the next moment of the market: fills come first
    DUPLICATED_EVENT = "duplicated_event"  # the user stream says it twice
    REORDERED_EVENT = "reordered_event"  # the user stream says it after the next one
    STREAM_CUT = "stream_cut"  # the user stream is cut instead of saying it


COMMANDS = frozenset({"place", "cancel", "cancel_all"})
CALLS = COMMANDS | {
    "instruments",
    "balances",
    "positions",
    "order",
    "open_orders",
    "fills",
    "fundings",
    "stream",
}


class Faults:
    """Decides what goes wrong. A fault's name alone is for every command, `order.answer_lost` for one call.

    Attributes:
        struck: How often each fault has struck.
        delay_s: How late a late answer is.
    """

    def __init__(self) -> None:
        self.struck: Counter[str] = Counter()
        self.delay_s = 0.5
        self._chance = random.Random(0)
        self._per_mille: dict[str, int] = {}
        self._once: Counter[str] = Counter()

    def rates(self, seed: int, per_mille: Mapping[str, int]) -> None:
        """Replace all rates and begin chance anew.

        Raises:
            ValueError: A name is not known.
        """
        self._per_mille, self._chance = _known(per_mille), random.Random(seed)

    def once(self, counts: Mapping[str, int]) -> None:
        """Strike the next ones, so many of each.

        Raises:
            ValueError: A name is not known.
        """
        self._once.update(_known(counts))

    def strikes(self, fault: Fault, call: str) -> bool:
        """Return whether `fault` strikes this `call`, and count it if so."""
        names = [f"{call}.{fault}"]
        if call in COMMANDS or call == "stream":
            names.append(fault.value)
        struck = False
        for name in names:
            if self._once[name] > 0:
                self._once[name] -= 1
                struck = True
                break
            rate = self._per_mille.get(name, 0)
            if rate and self._chance.randrange(1_000) < rate:
                struck = True
                break
        self.struck[fault.value] += struck
        return struck


def _known(given: Mapping[str, int]) -> dict[str, int]:
    """Return a copy of what was given, if every name in it means something."""
    for name in given:
        call, _, fault = name.rpartition(".")
        if fault not in {fault.value for fault in Fault} or call not in CALLS | {""}:
            raise ValueError(f"the fault {name!r} is not known. Use one of {', '.join(Fault)}, or CALL.FAULT")
    return dict(given)
