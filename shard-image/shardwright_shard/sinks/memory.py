"""A sink in memory: for tests, and for users who try a filter or a program of their own.

It acknowledges at once. A test can make it `hold` its acknowledgements and `release` them, `refuse` the next events
(they are read again), or `leave` and `come_back`. Nothing is bounded: it is no sink for production.
"""

from __future__ import annotations

import asyncio

from shardwright_api.resources import EventFilter
from shardwright_shard.journal import Batch, Event, Reader, Source
from shardwright_shard.sinks.filter import predicate


class MemorySink:
    """Keep `(source, event)` pairs in `events`."""

    def __init__(self, *, name: str = "memory", events: EventFilter = EventFilter()) -> None:  # noqa: B008 - frozen
        self.name = name
        self.available = True
        self.blocking = True
        self.message = ""
        self.events: list[tuple[Source, Event]] = []
        self._takes = predicate(events)
        self._positions: list[int] = []
        self._reader: Reader | None = None
        self._holding = False
        self._refusing = 0
        self._filtered = 0
        self._refused = 0

    @property
    def reader(self) -> Reader:
        """Give the reader that was attached."""
        assert self._reader is not None, "attach() was not called"
        return self._reader

    def attach(self, reader: Reader) -> None:
        """Take the reader."""
        self._reader = reader

    def wake(self) -> None:
        """Keep what stands behind the read position, and acknowledge it unless told otherwise."""
        while self.available:
            batches = self.reader.take()
            if not batches:
                return
            if self._refusing:
                self._refuse(batches)
                return
            for batch in batches:
                self._keep(batch)
            if not self._holding:
                self.reader.ack(self.reader.next)

    async def run(self) -> None:
        """Do nothing until cancelled."""
        await asyncio.Event().wait()

    def hold(self) -> None:
        """Acknowledge nothing until `release`."""
        self._holding = True

    def release(self, position: int | None = None) -> None:
        """Acknowledge what is before `position`, and go on holding; without a position all, and hold no more."""
        self._holding = position is not None
        self.reader.ack(self.reader.next if position is None else min(position, self.reader.next))

    def refuse(self, times: int = 1) -> None:
        """Refuse the next `times` attempts: nothing of them is kept, and `wake` reads the same again."""
        self._refusing += times

    def leave(self, message: str = "told to leave") -> None:
        """Be away: take nothing."""
        self.available = False
        self.message = message

    def come_back(self) -> None:
        """Be there again, and read from the first event that was not acknowledged, as a real sink does."""
        self.available = True
        self.message = ""
        self.reader.rewind()
        self.wake()

    def statistics(self) -> dict[str, int]:
        """Give the counters of every sink."""
        return {
            "published": len(self.events),
            "acknowledged": sum(position < self.reader.acked for position in self._positions),
            "filtered": self._filtered,
            "oversize": 0,
            "refused": self._refused,
            "reconnects": 0,
            "pending": self.reader.pending,
        }

    def _keep(self, batch: Batch) -> None:
        kept = 0
        for position, event in enumerate(batch.events, batch.position):
            if self._takes(event.name, event.backfill):
                self.events.append((batch.source, event))
                self._positions.append(position)
                kept += 1
        self._filtered += len(batch.events) - kept

    def _refuse(self, batches: list[Batch]) -> None:
        self._refusing -= 1
        self._refused += sum(len(batch.events) for batch in batches)
        self.reader.rewind()
