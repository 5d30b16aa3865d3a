"""What a sink reads from: the journal's reader, or one that drops.

With `Block` a sink reads the journal itself, and what it has not acknowledged waits there. With `DropOldest` and
`DropNewest` it may let at most `limit` bytes wait; beyond that events are dropped and counted: the oldest that are not
under way, or those that come. As long as a dropping sink keeps up it is as safe as a blocking one. From the first event
that it drops until it has caught up it holds nothing back: everything is acknowledged to the journal at once, and what
still waits here would be lost with the process.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final, Protocol

from shardwright_api.resources import Overflow
from shardwright_shard.journal import Batch, Reader

LIMIT: Final = 16 * 1024 * 1024
"""Bytes that may wait for a dropping sink: well below the least buffer of a pod."""


class Intake(Protocol):
    """A sink's view of the events. Its positions satisfy `acked <= next`."""

    acked: int
    next: int

    @property
    def behind(self) -> bool:
        """Whether there is more to take."""

    @property
    def pending(self) -> int:
        """Count the events not yet acknowledged."""

    def take(self, limit: int = 1024) -> list[Batch]:
        """Take whole batches from the read position on until they hold `limit` events; fewer are all there is."""

    def ack(self, position: int) -> None:
        """Acknowledge every event before `position`."""

    def rewind(self) -> None:
        """Read again from the first event that is not acknowledged."""


def intake(reader: Reader, overflow: Overflow, *, limit: int = LIMIT) -> Intake:
    """Give what a sink with this policy reads from."""
    return reader if overflow is Overflow.BLOCK else DroppingIntake(reader, overflow, limit=limit)


class DroppingIntake:
    """A bounded list of its own, of batches that the journal holds too while nothing is dropped."""

    def __init__(self, reader: Reader, overflow: Overflow, *, limit: int) -> None:
        self._reader = reader
        self._newest = overflow is Overflow.DROP_NEWEST
        self._limit = limit
        self._batches: deque[Batch] = deque()
        self._size = 0
        self.acked = reader.acked
        self.next = reader.acked
        self.dropped = 0
        self.dropping = False
        """Whether events were dropped since this sink had caught up last."""

    @property
    def behind(self) -> bool:
        """Whether there is more to take."""
        return bool(self._batches) and self.next < self._batches[-1].end

    @property
    def pending(self) -> int:
        """Count the events not yet acknowledged, and not dropped."""
        return sum(len(batch.tail(self.acked).events) for batch in self._batches)

    def gather(self) -> None:
        """Take what was appended, and drop what is too much."""
        while batches := self._reader.take():
            for batch in batches:
                self._keep(batch)
        self._hand_on()

    def take(self, limit: int = 1024) -> list[Batch]:
        """Take whole batches from the read position on until they hold `limit` events; fewer are all there is."""
        found: list[Batch] = []
        first = max(0, bisect_right(self._batches, self.next, key=lambda batch: batch.position) - 1)
        for index in range(first, len(self._batches)):
            batch = self._batches[index].tail(self.next)
            if not batch.events:
                continue
            found.append(batch)
            limit -= len(batch.events)
            if limit <= 0:
                break
        if found:
            self.next = found[-1].end
        return found

    def ack(self, position: int) -> None:
        """Acknowledge every event before `position`. Earlier positions again are harmless."""
        self.acked = max(self.acked, position)
        self.next = max(self.next, self.acked)
        while self._batches and self._batches[0].end <= self.acked:
            self._size -= self._batches.popleft().size
        if not self._batches:
            self.dropping = False
        self._hand_on()

    def rewind(self) -> None:
        """Read again from the first event that is not acknowledged."""
        self.next = self.acked

    def _keep(self, batch: Batch) -> None:
        if self._newest and self._size + batch.size > self._limit and self._batches:
            self._drop(batch)
            return
        self._batches.append(batch)
        self._size += batch.size
        while self._size > self._limit and len(self._batches) > 1 and (oldest := self._oldest()) is not None:
            self._size -= self._batches[oldest].size
            self._drop(self._batches[oldest])
            del self._batches[oldest]

    def _oldest(self) -> int | None:
        """Give the index of the oldest batch that is not under way; the newest is never dropped."""
        index = bisect_right(self._batches, self.next - 1, key=lambda batch: batch.position)
        return index if index < len(self._batches) - 1 else None

    def _drop(self, batch: Batch) -> None:
        self.dropped += len(batch.events)
        self.dropping = True

    def _hand_on(self) -> None:
        """Acknowledge to the journal: what is done, or everything while events are dropped."""
        done = self.dropping or not self._batches
        self._reader.ack(self._reader.next if done else max(self.acked, self._batches[0].position))
