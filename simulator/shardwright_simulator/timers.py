"""Timers of the core: callbacks in order of time, run by `run(now)`.

The core never waits. It puts what is due later here; the edge asks for `next_due` and calls `run` then. Tests call
`run` with whatever time they like. A callback may add or cancel timers; one that raises stops the run and is gone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Callback = Callable[[], None]


class Timer:
    """One callback to come, which `cancel` prevents."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callback) -> None:
        self.due = due
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Prevent the callback; harmless when it has run."""
        self.callback = None


class Timers:
    """A heap of timers."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()

    def at(self, due: float, callback: Callback) -> Timer:
        """Call `callback` at the time `due`."""
        timer = Timer(due, callback)
        heapq.heappush(self._heap, (due, next(self._order), timer))
        return timer

    @property
    def next_due(self) -> float | None:
        """Tell when `run` is to be called next; None when nothing waits."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Call all that is due at `now`, in order of time."""
        while (due := self.next_due) is not None and due <= now:
            timer = heapq.heappop(self._heap)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
