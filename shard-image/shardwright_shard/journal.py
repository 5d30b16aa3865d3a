"""The journal: one bounded list of events for the whole pod, and a reader with two positions for each sink.

Every event that a session received is appended once, in the order of arrival, and keeps its *position*, an integer
that only rises. A sink reads at its own pace and acknowledges cumulatively: "everything before position p". An event
leaves the journal when every reader has acknowledged it; only then does its session's `acked` sequence move, so that a
RESUME from there misses nothing.

Who calls: sessions append (one batch per read of a socket), the journal then wakes each sink once per append. Sinks
take, acknowledge and rewind. Nothing here waits or fails: a sink that is away simply does not move its positions, the
journal grows, and `full` tells the sessions to stop reading. Order per session holds because positions are given in
order and acknowledgements are cumulative.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class Source:
    """A session as sinks name it: `bot`, `shard` of `total`, `session` id. `acked` moves as sinks acknowledge."""

    __slots__ = ("acked", "bot", "id_prefix", "session", "shard", "total", "uri")

    def __init__(self, *, bot: str, shard: int, total: int, session: str, acked: int | None = None) -> None:
        self.bot = bot
        self.shard = shard
        self.total = total
        self.session = session
        self.acked = acked
        self.id_prefix = f"{bot}:{session}:"
        self.uri = f"/discord/{bot}/shards/{shard}/{total}"


class Event(NamedTuple):
    """One event: sequence, name and the gateway message byte for byte.

    `name` is Discord's (`MESSAGE_CREATE`), or begins with `shardwright.` for events of our own. `seq` is None for events
    without an id (RESUMED). `backfill` marks a GUILD_CREATE that follows READY rather than a join.
    """

    seq: int | None
    name: str
    payload: bytes
    backfill: bool = False


class Batch:
    """Events of one read of one session, in order. The first stands at `position`, the next at `position + 1`, ..."""

    __slots__ = ("events", "position", "size", "source", "time")

    def __init__(self, *, position: int, source: Source, events: list[Event], time: float) -> None:
        self.position = position
        self.source = source
        self.events = events
        self.size = sum(len(event.payload) for event in events)
        self.time = time
        """Unix time of arrival in seconds."""

    @property
    def end(self) -> int:
        """Give the position after the last event."""
        return self.position + len(self.events)

    def tail(self, position: int) -> Batch:
        """Give the batch without the events before `position`: itself where there are none."""
        if position <= self.position:
            return self
        events = self.events[position - self.position :]
        return Batch(position=position, source=self.source, events=events, time=self.time)


class Reader:
    """A sink's view of the journal. Its positions satisfy `acked <= next <= journal.end`."""

    def __init__(self, journal: Journal, position: int) -> None:
        self._journal = journal
        self.acked = position
        self.next = position

    @property
    def pending(self) -> int:
        """Count the events not yet acknowledged."""
        return self._journal.end - self.acked

    def take(self, limit: int = 1024) -> list[Batch]:
        """Take whole batches from the read position on until they hold `limit` events; fewer are all there is."""
        batches = self._journal.since(self.next, limit)
        if batches:
            self.next = batches[-1].end
        return batches

    def ack(self, position: int) -> None:
        """Acknowledge every event before `position`. Earlier positions again are harmless."""
        if position > self.acked:
            self.acked = min(position, self._journal.end)
            self._journal.trim()

    def rewind(self) -> None:
        """Read again from the first event that is not acknowledged: after a reconnect or a refusal."""
        self.next = self.acked


class Journal:
    """The pod's bounded list of events. `full` above `limit` bytes, until below half of it."""

    def __init__(
        self,
        *,
        limit: int,
        on_full: Callable[[], None] = lambda: None,
        on_room: Callable[[], None] = lambda: None,
        on_empty: Callable[[], None] = lambda: None,
    ) -> None:
        self._batches: deque[Batch] = deque()
        self._readers: list[Reader] = []
        self._wakes: list[Callable[[], None]] = []
        self._on_full = on_full
        self._on_room = on_room
        self._on_empty = on_empty
        self._limit = limit
        self.end = 0
        self.size = 0
        self.full = False

    def reader(self, wake: Callable[[], None]) -> Reader:
        """Add a reader at the end; `wake` is called after each append and must not block or raise."""
        reader = Reader(self, self.end)
        self._readers.append(reader)
        self._wakes.append(wake)
        return reader

    def append(self, source: Source, events: list[Event], time: float) -> None:
        """Append the events of one read and wake every sink once."""
        batch = Batch(position=self.end, source=source, events=events, time=time)
        self._batches.append(batch)
        self.end = batch.end
        self.size += batch.size
        for wake in self._wakes:
            wake()
        if self.size > self._limit and not self.full:
            self.full = True
            self._on_full()

    def since(self, position: int, limit: int) -> list[Batch]:
        """Give batches from `position` on, oldest first, until they hold `limit` events; the first may be cut in front."""
        if position >= self.end:
            return []
        if self._batches[-1].position <= position:
            return [self._batches[-1].tail(position)]
        found: list[Batch] = []
        first = bisect_right(self._batches, position, key=lambda batch: batch.position) - 1
        for index in range(first, len(self._batches)):  # near either end of a deque, an index is cheap
            found.append(self._batches[index].tail(position))
            limit -= len(found[-1].events)
            if limit <= 0:
                break
        return found

    def trim(self) -> None:
        """Forget what every reader has acknowledged, and move the sessions' `acked` sequences."""
        acked = min(reader.acked for reader in self._readers)
        while self._batches and self._batches[0].end <= acked:
            batch = self._batches.popleft()
            self.size -= batch.size
            _settle(batch, len(batch.events))
        if self._batches and self._batches[0].position < acked:
            _settle(self._batches[0], acked - self._batches[0].position)
        if self.full and self.size <= self._limit // 2:
            self.full = False
            self._on_room()
        if not self._batches:
            self._on_empty()

    def statistics(self) -> dict[str, int]:
        """Give `events` and `bytes` that stand here."""
        return {"events": sum(len(batch.events) for batch in self._batches), "bytes": self.size}


def _settle(batch: Batch, count: int) -> None:
    """Move the session's `acked` to the last of the first `count` events that has a sequence."""
    for index in range(count - 1, -1, -1):
        seq = batch.events[index].seq
        if seq is not None:
            batch.source.acked = seq
            return
