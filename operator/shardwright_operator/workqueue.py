"""The work queue: which key to look at next.

`Schedule` decides, `WorkQueue` runs. What `Schedule` guarantees:

- A key that is added ten times before its turn comes up once (coalescing).
- A key is never handed out twice at a time; added while it runs, it comes again afterwards (serial per key).
- Two turns of a key are at least `pace(key)` seconds apart, the first is immediate.
- A key that failed comes again after a backoff that doubles, with jitter; success forgets the failures.
- A key may ask to come again later (resync, timers); the earliest of all wishes counts.

The queue is bounded by the number of keys that exist: there is one entry for each. Memory of a key ends with `forget`.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from shardwright_operator.errors import ConflictError, OperatorError
from shardwright_operator.keys import Key

log = logging.getLogger(__name__)

FIRST_BACKOFF: Final = 0.5
LAST_BACKOFF: Final = 60.0
_CONFLICT_DELAY: Final = 0.02
"""A lost compare-and-swap is no failure: read again, at once."""


def backoff(failures: int, jitter: Callable[[], float] = random.random) -> float:
    """Give the seconds to wait after the n-th failure in a row: doubling, and between half and all of it."""
    full = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures - 1, 16))
    return full * (0.5 + jitter() / 2)


class Schedule:
    """Which key is due when. Pure: time and randomness come from outside."""

    def __init__(self, *, pace: Callable[[Key], float], jitter: Callable[[], float] = random.random) -> None:
        self._pace = pace
        self._jitter = jitter
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._added = 0
        self._running: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._started: dict[Key, float] = {}

    def __len__(self) -> int:
        """Count the keys that wait for their turn."""
        return len(self._due)

    def ready(self, now: float) -> int:
        """Count the keys whose turn it is: the queue's depth."""
        return sum(due <= now for due in self._due.values())

    def add(self, key: Key, now: float, delay: float = 0.0) -> None:
        """Wish that a key comes up after `delay` seconds, or earlier if that was wished already."""
        due = now + delay
        if key in self._running:
            self._again[key] = min(due, self._again.get(key, due))
            return
        due = max(due, self._started.get(key, due - 1e9) + self._pace(key))
        if due < self._due.get(key, due + 1):
            self._due[key] = due
            self._added += 1
            heapq.heappush(self._heap, (due, self._added, key))

    def next_due(self) -> float | None:
        """Say when the next key comes up, or None."""
        self._drop_outdated()
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> Key | None:
        """Hand out a key whose turn has come, or None."""
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._due[key]
        self._running.add(key)
        self._started[key] = now
        return key

    def done(self, key: Key, now: float, again_after: float | None = None) -> None:
        """Take a key back after success."""
        self._failures.pop(key, None)
        self._release(key, now, again_after)

    def failed(self, key: Key, now: float, at_least: float = 0.0) -> float:
        """Take a key back after failure; give the backoff."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least, backoff(self._failures[key], self._jitter))
        self._again.pop(key, None)
        self._release(key, now, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Drop all memory of a key that no longer exists."""
        for memory in (self._failures, self._started, self._due, self._again):
            memory.pop(key, None)

    def _release(self, key: Key, now: float, delay: float | None) -> None:
        self._running.discard(key)
        again = self._again.pop(key, None)
        if again is not None:
            self.add(key, now, max(0.0, again - now))
        if delay is not None:
            self.add(key, now, delay)

    def _drop_outdated(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)


Handler = Callable[[Key], Awaitable[float | None]]
"""Looks at a key; gives the seconds after which to look again, or None."""


class WorkQueue:
    """Runs a handler over the keys of a `Schedule` with a few workers."""

    def __init__(
        self, handler: Handler, *, pace: Callable[[Key], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._handler = handler
        self._clock = clock
        self._schedule = Schedule(pace=pace)
        self._wake = asyncio.Event()
        self.turns = 0
        self.failures = 0
        self.last_turn = clock()

    def statistics(self) -> dict[str, int]:
        """Count what waits, what was done and what failed."""
        return {"depth": self._schedule.ready(self._clock()), "turns": self.turns, "failures": self.failures}

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Enqueue a key."""
        self._schedule.add(key, self._clock(), delay)
        self._wake.set()

    def forget(self, key: Key) -> None:
        """Drop a key that no longer exists."""
        self._schedule.forget(key)

    async def run(self, workers: int) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._worker(), name=f"worker {number}")

    async def _worker(self) -> None:
        while True:
            key = self._schedule.take(self._clock())
            if key is None:
                await self._sleep()
            else:
                await self._turn(key)

    async def _sleep(self) -> None:
        due = self._schedule.next_due()
        self._wake.clear()
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _turn(self, key: Key) -> None:
        self.turns += 1
        self.last_turn = self._clock()
        try:
            again_after = await self._handler(key)
        except ConflictError as error:
            log.debug("%s changed under us: %s", key, error)
            self._schedule.done(key, self._clock(), _CONFLICT_DELAY)
        except OperatorError as error:
            self._fail(key, error, getattr(error, "retry_after", None) or 0.0)
        except Exception as error:
            log.exception("A bug while looking at %s", key)
            self._fail(key, error, 0.0)
        else:
            self._schedule.done(key, self._clock(), again_after)
        self._wake.set()

    def _fail(self, key: Key, error: Exception, at_least: float) -> None:
        self.failures += 1
        delay = self._schedule.failed(key, self._clock(), at_least)
        log.warning("%s failed, again in %.1f s: %s", key, delay, error)
