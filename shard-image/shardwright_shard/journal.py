"""The journal: one bounded list of events for the whole pod, and a reader with two positions for each sink.

Every event that a session received is appended once, in the order of arrival, and keeps its *position*, an integer
that only rises. A sink reads at its own pace and acknowledges cumulatively: "everything before position p". An event
leaves the journal when every reader has acknowledged it; only then does its session's `acked` sequence move, so that a
RESUME from there misses nothing.

Who calls: sessions append (one batch per read of a socket), the journal then wakes each sink once per append. Sinks
take, acknowledge and rewind. Nothing of that waits or fails: a sink that is away simply does not move its positions, the
journal grows, and `full` tells the sessions to stop reading. Order per session holds because positions are given in
order and acknowledgements are cumulative.

With a spool (`spool.py`) the oldest part of the journal lies on disk, as chunks, and the rest in memory. `run` moves to
disk all that is in memory as soon as something has waited for `SPOOL_AFTER` seconds, or memory is half full; `secure`
does so at once. What is on disk leaves memory; who reads there gets it chunk by chunk. A sink that keeps up reads from
memory, whatever another one leaves on disk. Where the disk takes no more, events stay in memory, reading pauses, and
the disk is tried again every `RETRY` seconds. A disk that does not give back what it got is told by `on_broken`: only a
new start, which resumes from what is intact, can help.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from shardwright_shard.spool import Chunk, Segment, Spool

log = logging.getLogger(__name__)

SPOOL_AFTER: Final = 2.0
"""Seconds that an event may wait in memory alone."""
RETRY: Final = 5.0
"""Seconds after which a disk that refused is tried again."""
JOB: Final = 4 * 1024 * 1024
"""Bytes that are written and synced at a time: memory is free again after each."""
_LOOKS: Final = 4
"""How often `run` looks within `SPOOL_AFTER`."""
InThread = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments off the event loop: `asyncio.to_thread`."""


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
    without a stable sequence (RESUMED, `shardwright.gap`): `mark` then ends their id. `backfill` marks a GUILD_CREATE
    that follows READY rather than a join.
    """

    seq: int | None
    name: str
    payload: bytes
    backfill: bool = False
    mark: str | None = None

    @property
    def last(self) -> str:
        """Give the last part of the event's id: `<bot>:<session>:<last>`."""
        return str(self.seq) if self.mark is None else self.mark


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

    def __init__(self, journal: Journal, position: int, name: str) -> None:
        self._journal = journal
        self.name = name
        self.acked = position
        self.next = position

    @property
    def behind(self) -> bool:
        """Whether there is more to take."""
        return self.next < self._journal.end

    @property
    def pending(self) -> int:
        """Count the events not yet acknowledged."""
        return self._journal.end - self.acked

    def take(self, limit: int = 1024) -> list[Batch]:
        """Take whole batches from the read position on until they hold `limit` events, or as many as are at hand.

        Nothing is all there is; what lies on disk comes chunk by chunk.
        """
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
    """The pod's list of events. `full` above `limit` bytes in memory, until below half of it."""

    def __init__(
        self,
        *,
        limit: int,
        on_full: Callable[[], None] = lambda: None,
        on_room: Callable[[], None] = lambda: None,
        on_empty: Callable[[], None] = lambda: None,
        on_broken: Callable[[Exception], None] = lambda _: None,
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        self._batches: deque[Batch] = deque()
        self._chunks: deque[Chunk] = deque()
        self._readers: list[Reader] = []
        self._wakes: list[Callable[[], None]] = []
        self._on_full = on_full
        self._on_room = on_room
        self._on_empty = on_empty
        self._on_broken = on_broken
        self._in_thread = in_thread
        self.disk = asyncio.Lock()
        """Held while files of the spool change."""
        self._crowded = asyncio.Event()
        self._retry_at = 0.0
        self._hasty = 0
        self._spooled = 0
        """From this position on everything that waits is in memory."""
        self._untidy = False
        """Whether files that nobody needs could not be deleted."""
        self.spool: Spool | None = None
        self.refused: str | None = None
        """Why the disk takes nothing at present."""
        self.spool_size = 0
        """Bytes on disk that wait for a sink."""
        self.end = 0
        self.size = 0
        """Bytes in memory."""
        self.full = False
        self.resize(limit)

    def resize(self, limit: int) -> None:
        """Set how many bytes may wait in memory."""
        self._limit = limit
        self._watermark = limit // 2 if self.spool is not None else limit

    def reader(self, wake: Callable[[], None], name: str = "") -> Reader:
        """Add a reader at the end; `wake` is called after each append and must not block or raise."""
        reader = Reader(self, self.end, name)
        self._readers.append(reader)
        self._wakes.append(wake)
        return reader

    @property
    def empty(self) -> bool:
        """Whether every reader has acknowledged everything."""
        return not self._batches and not self._chunks

    def append(self, source: Source, events: list[Event], time: float) -> None:
        """Append the events of one read and wake every sink once."""
        batch = Batch(position=self.end, source=source, events=events, time=time)
        self._batches.append(batch)
        self.end = batch.end
        self.size += batch.size
        for wake in self._wakes:
            wake()
        if self.size > self._watermark:
            self._crowd()

    def _crowd(self) -> None:
        self._crowded.set()
        if self.size > self._limit and not self.full:
            self.full = True
            self._on_full()

    def since(self, position: int, limit: int) -> list[Batch]:
        """Give batches from `position` on, oldest first, until they hold `limit` events; the first may be cut in front.

        Where `position` lies on disk, they end with its chunk.
        """
        if position >= self.end:
            return []
        if position < self._spooled:
            return _cut_out(self._load(position), position, limit)
        if self._batches[-1].position <= position:
            return [self._batches[-1].tail(position)]
        return _cut_out(self._batches, position, limit)

    def _load(self, position: int) -> list[Batch]:
        """Give the chunk that holds a position; nothing, and the word that it is broken, where it cannot be read."""
        assert self.spool is not None
        chunk = self._chunks[bisect_right(self._chunks, position, key=lambda chunk: chunk.position) - 1]
        try:
            return self.spool.load(chunk)
        except Exception as error:  # noqa: BLE001 - whatever it is, a sink in the middle of an append must not meet it
            self._on_broken(error)
            return []

    def trim(self) -> None:
        """Forget what every reader has acknowledged, and move the sessions' `acked` sequences."""
        acked = min(reader.acked for reader in self._readers)
        if self._chunks:
            self._trim_chunks(acked)
        while self._batches and self._batches[0].end <= acked:
            batch = self._batches.popleft()
            self.size -= batch.size
            _settle(batch, len(batch.events))
        if self._batches and self._batches[0].position < acked:
            _settle(self._batches[0], acked - self._batches[0].position)
        if self.full:
            self._tell_room()
        if not self._batches and not self._chunks:
            self._on_empty()

    def _trim_chunks(self, acked: int) -> None:
        assert self.spool is not None
        while self._chunks and self._chunks[0].end <= acked:
            chunk = self._chunks.popleft()
            self.spool_size -= chunk.size
            self.spool.release(chunk)
            for source, last in chunk.lasts:
                if last is not None and last > (source.acked or 0):
                    source.acked = last

    def _tell_room(self) -> None:
        if self.size <= self._limit // 2:
            self.full = False
            self._on_room()

    # --- the spool ----------------------------------------------------------------------------------------------

    def use(self, spool: Spool, chunks: list[Chunk], positions: Mapping[str, int]) -> None:
        """Spool from now on. A journal that never held anything begins with `chunks`, and with the readers' positions.

        A reader without a position begins at the first chunk.
        """
        assert not chunks or not self.end, "only a journal that never held anything takes over what another one left"
        self.spool = spool
        self.resize(self._limit)
        if not chunks:
            return
        self._chunks.extend(chunks)
        self.spool_size = sum(chunk.size for chunk in chunks)
        self.end = self._spooled = chunks[-1].end
        for reader in self._readers:
            position = positions.get(reader.name, 0)
            reader.acked = reader.next = max(min(position, self.end), chunks[0].position)
        self.trim()
        for wake in self._wakes:
            wake()

    async def run(self) -> None:
        """Spool what waits for too long or fills memory, until cancelled."""
        loop, pause = asyncio.get_running_loop(), SPOOL_AFTER / _LOOKS
        ends = deque([self.end], maxlen=_LOOKS + 1)
        look_at = loop.time() + pause
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(look_at):
                    await self._crowded.wait()
            self._crowded.clear()
            if loop.time() >= look_at:
                ends.append(self.end)
                look_at = loop.time() + pause
            waited = len(ends) > _LOOKS and self._batches and self._batches[0].position < ends[0]
            hasty = self._batches and self._batches[0].position < self._hasty
            if (waited or hasty or self.size > self._limit // 2) and not await self._move(self.end):
                await asyncio.sleep(max(look_at - loop.time(), 0))

    def hasten(self) -> None:
        """Have `run` write what waits without delay."""
        self._hasty = self.end
        self._crowded.set()

    async def secure(self) -> None:
        """Return when everything that waits for a sink is on disk; at once where there is no spool, or no room in it."""
        await self._move(self.end)

    async def _move(self, target: int) -> bool:
        """Move what stands in memory before `target` to disk; say whether all of it is there."""
        while self._batches and self._batches[0].position < target:
            job = asyncio.create_task(self._do_job(), name="write to the spool")
            if not await asyncio.shield(job):  # who waits no longer does not stop a thread that writes
                return not self._batches or self._batches[0].position >= target
        return True

    async def _do_job(self) -> bool:
        async with self.disk:
            batches = self._next_job()
            return bool(batches) and await self._write(batches)

    def _next_job(self) -> list[Batch]:
        """Give the oldest batches in memory, as many as are written at a time and find room."""
        if self.spool is None or asyncio.get_running_loop().time() < self._retry_at:
            return []
        room, size = self.spool.room, 0
        found: list[Batch] = []
        for batch in self._batches:
            size += batch.size + _OVERHEAD * len(batch.events)
            if size > room or (found and size > JOB):
                break
            found.append(batch)
        if not found and self._batches:
            self._refuse("it is full")
        return found

    async def _write(self, batches: list[Batch]) -> bool:
        """Write batches; then they leave memory. False where the disk refuses them."""
        assert self.spool is not None
        try:
            chunks = await self._in_thread(self.spool.write, batches)
        except OSError as error:
            self._refuse(error.strerror or str(error))
            self._retry_at = asyncio.get_running_loop().time() + RETRY
            return False
        self._refuse(None)
        for chunk in chunks:
            chunk.segment.live += 1
            self.spool_size += chunk.size
        self._chunks.extend(chunks)
        self._spooled = batches[-1].end
        while self._batches and self._batches[0].end <= self._spooled:
            self.size -= self._batches.popleft().size
        self.trim()
        return True

    async def sweep(self, segments: list[Segment]) -> None:
        """Delete segments that nobody needed when the checkpoint was made that is on disk now."""
        async with self.disk:
            if self.spool is not None and segments:
                try:
                    await self._in_thread(self.spool.sweep, segments)
                except OSError as error:
                    if not self._untidy:
                        log.warning("the spool cannot be tidied up", extra={"error": str(error)})
                    self._untidy = True
                else:
                    self._untidy = False

    def forsake(self) -> None:
        """Spool no more, nor read what lies on disk: nothing does, or nobody reads any more. `disk` must be free."""
        if self.spool is not None:
            self.spool.close()
        self.spool = self.refused = None
        self.resize(self._limit)

    def _refuse(self, why: str | None) -> None:
        """Note, and say once, whether the disk takes events."""
        if why is None and self.refused is not None:
            log.info("the spool takes events again")
        elif why is not None and why != self.refused:
            log.warning("the spool takes no more events: they wait in memory", extra={"reason": why})
        self.refused = why

    def statistics(self) -> dict[str, int]:
        """Give the events and bytes that wait, in memory and on disk."""
        begin = self._batches[0].position if self._batches else self.end
        first = self._chunks[0].position if self._chunks else begin
        return {
            "events": self.end - begin,
            "bytes": self.size,
            "spool_events": begin - first,
            "spool_bytes": self.spool_size,
        }


_OVERHEAD: Final = 64
"""Bytes that an event may need on disk beside its payload."""


def _cut_out(batches: Sequence[Batch], position: int, limit: int) -> list[Batch]:
    """Give batches from `position` on until they hold `limit` events."""
    found: list[Batch] = []
    first = bisect_right(batches, position, key=lambda batch: batch.position) - 1
    for index in range(max(first, 0), len(batches)):  # near either end of a deque, an index is cheap
        found.append(batches[index].tail(position))
        limit -= len(found[-1].events)
        if limit <= 0:
            break
    return found


def _settle(batch: Batch, count: int) -> None:
    """Move the session's `acked` to the last of the first `count` events that has a sequence."""
    for index in range(count - 1, -1, -1):
        seq = batch.events[index].seq
        if seq is not None:
            batch.source.acked = seq
            return
