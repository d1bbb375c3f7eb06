"""An event loop whose time is a number: nothing waits, and one seed is one order of events.

When nothing is ready the loop goes to the next timer at once. Callbacks can be held back by whoever watches the
loop, which is what a frozen process looks like from outside.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in virtual time.

    Attributes:
        now_s: The time, seconds since the loop was made.
        steps: Callbacks that were run.
        admits: Asked before each callback; one that is not admitted is not run, and whoever refused it keeps it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.steps = 0.0, 0
        self.admits: Callable[[Any], bool] = lambda handle: True

    def time(self) -> float:
        """Return the virtual time."""
        return self.now_s

    def again(self, handle: Any) -> None:
        """Run a callback that was held back."""
        self._ready.append(handle)  # type: ignore[attr-defined]

    def _write_to_self(self) -> None:
        """Wake nobody: there is no other thread."""

    def _process_events(self, event_list: Any) -> None:
        """Do nothing: there are no files."""

    def _run_once(self) -> None:
        """Run what is ready; where nothing is, let the time pass."""
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers: Any = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise RuntimeError("everybody waits and nothing will ever happen: this world is stuck")
            self.now_s = max(self.now_s, timers[0]._when)
        while timers and timers[0]._when <= self.now_s:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled and self.admits(handle):
                self.steps += 1
                handle._run()
