"""The spool: events that wait for a sink, on disk.

Theory of operation. A spool is a directory of *segments*, files that are only appended to, mode 0600. A segment is a
sequence of records, each framed by lengths and a checksum; the first says to whom the segment belongs, every other one
is a *chunk*: events of consecutive journal positions, at most about `CHUNK` bytes unless one event is larger. The index
in memory holds a chunk's positions and place, and each session's last sequence in it, but no event: a gigabyte of events
costs some megabytes of memory.

What is guaranteed: after `write` returned, its chunks are on disk (fsync), oldest first. Positions only rise. Where some
are left out, every sink had acknowledged all up to there, some of it from memory: what lies before is of no use any more.
`scan` gives what is there after a crash: a record that is cut short or damaged, and everything after it, is cut off, with
a log line, the last file first, so that a second crash finds the damage again. A foreign segment is dropped likewise.
What cannot be read counts as damaged once it was tried `_TRIES` times; another failure of `scan` leaves all as it is.

Who calls: the journal writes (`write`, in a thread), reads (`load`, on the event loop: one chunk from the page cache)
and lets go (`release`). A segment is only deleted by `sweep`, after the checkpoint that covers its events is on disk.
`write`, `scan`, `sweep` are never called at the same time. On failure `write` raises `OSError` and has changed nothing:
what it left on disk is removed at once, or before anything else is written.

When full: `room` is what may still be written; at 80 % of the limit it is 0, and the journal keeps the rest in memory.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from zlib import crc32

import msgspec

from shardwright_shard.journal import Batch, Event, Source

log = logging.getLogger(__name__)
_T = TypeVar("_T")

FORMAT: Final = 1
CHUNK: Final = 256 * 1024
"""Bytes of payload in one chunk: what a slow sink needs in memory at a time."""
CHUNK_EVENTS: Final = 4096
SEGMENT: Final = 16 * 1024 * 1024
"""Bytes after which a new segment is begun; less where the limit is small."""
SHARE: Final = 0.8
"""Of the volume's size limit: an emptyDir above it gets its pod evicted."""
_CACHED: Final = 4
_TRIES: Final = 3
_FRAME: Final = struct.Struct("<III")  # head's length, body's length, checksum of both


class _Owner(msgspec.Struct, array_like=True):
    """A segment's first record."""

    format: int
    binding: str


class _Share(msgspec.Struct, array_like=True):
    """A session's part of a chunk, and its last sequence in there."""

    bot: str
    shard: int
    total: int
    session: str
    last: int | None


class _Head(msgspec.Struct, array_like=True):
    """What a scan reads of a chunk."""

    position: int
    end: int
    shares: list[_Share]


class _Part(msgspec.Struct, array_like=True):
    """Events of one read; `share` is an index into the head's shares."""

    share: int
    time: float
    events: list[Event]


class Segment:
    """One file of `size` bytes, of which the first `kept` were synced. `live`: its chunks that somebody still needs."""

    __slots__ = ("descriptor", "kept", "live", "path", "size")

    def __init__(self, path: Path, descriptor: int, size: int = 0) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = self.kept = size
        self.live = 0


class Chunk:
    """Events on disk at the positions from `position` up to before `end`; `lasts`: sessions with their last sequence."""

    __slots__ = ("end", "lasts", "offset", "position", "segment", "size")

    def __init__(
        self,
        *,
        position: int,
        end: int,
        lasts: tuple[tuple[Source, int | None], ...],
        segment: Segment,
        offset: int,
        size: int,
    ) -> None:
        self.position = position
        self.end = end
        self.lasts = lasts
        self.segment = segment
        self.offset = offset
        self.size = size


class Damaged(Exception):
    """A record is cut short, or its checksum is wrong."""


class _Record(NamedTuple):
    offset: int
    head: bytes
    body: bytes

    @property
    def size(self) -> int:
        return _FRAME.size + len(self.head) + len(self.body)


class Spool:
    """The segments in a directory. `limit`: bytes of its volume; `binding`: whose events these are."""

    def __init__(self, directory: Path, *, limit: int, binding: str) -> None:
        self._directory = directory
        self._binding = binding
        self._limit = int(limit * SHARE)
        self._segment_size = min(SEGMENT, max(limit // 16, CHUNK))
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._next = 0
        self._sources: dict[tuple[str, int, int, str], Source] = {}
        self._cache: OrderedDict[Chunk, list[Batch]] = OrderedDict()

    @property
    def room(self) -> int:
        """Give the bytes that may be written now."""
        return max(self._limit - sum(segment.size for segment in self._segments), 0)

    # --- writing ------------------------------------------------------------------------------------------------

    def write(self, batches: list[Batch]) -> list[Chunk]:
        """Append whole batches and sync them. Raise `OSError`, with nothing changed."""
        self._undo()
        try:
            made = [self._append(self._writable(), parts) for parts in _chunks(batches)]
            if self._current is not None:
                os.fsync(self._current.descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                self._undo()
            raise
        for segment in self._segments:
            segment.kept = segment.size
        return made

    def _writable(self) -> Segment:
        """Give the segment to append to, a new one where the last is large enough."""
        current = self._current
        if current is not None and current.size < self._segment_size:
            return current
        if current is not None:
            os.fsync(current.descriptor)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._directory / f"{self._next:010d}.events"
        segment = Segment(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self._next += 1
        self._current = segment
        self._segments.append(segment)
        _write(segment, msgspec.msgpack.encode(_Owner(FORMAT, self._binding)), b"")
        sync_directory(self._directory)
        return segment

    def _append(self, segment: Segment, parts: list[Batch]) -> Chunk:
        shares: dict[Source, int] = {}
        lasts: dict[Source, int | None] = {}
        body = []
        for part in parts:
            share = shares.setdefault(part.source, len(shares))
            body.append(_Part(share, part.time, part.events))
            last = next((event.seq for event in reversed(part.events) if event.seq is not None), None)
            lasts[part.source] = last if last is not None else lasts.get(part.source)
        told = [_Share(of.bot, of.shard, of.total, of.session, last) for of, last in lasts.items()]
        head = _Head(parts[0].position, parts[-1].end, told)
        offset, size = _write(segment, msgspec.msgpack.encode(head), msgspec.msgpack.encode(body))
        return Chunk(
            position=head.position,
            end=head.end,
            lasts=tuple(lasts.items()),
            segment=segment,
            offset=offset,
            size=size,
        )

    def _undo(self) -> None:
        """Remove what a failed write left. Raise `OSError`: nothing may be written behind it."""
        for segment in self._segments[::-1]:
            if not segment.kept:
                self._remove(segment)
            elif segment.size > segment.kept:
                os.ftruncate(segment.descriptor, segment.kept)
                segment.size = segment.kept

    # --- reading ------------------------------------------------------------------------------------------------

    def load(self, chunk: Chunk) -> list[Batch]:
        """Give a chunk's batches. Raise `OSError` or `Damaged` where the disk does not give back what it got."""
        found = self._cache.get(chunk)
        if found is not None:
            self._cache.move_to_end(chunk)
            return found
        raw = os.pread(chunk.segment.descriptor, chunk.size, chunk.offset)
        found = []
        position = chunk.position
        for part in _decoded(_parse(raw, 0).body, list[_Part]):
            source = chunk.lasts[part.share][0]
            batch = Batch(position=position, source=source, events=part.events, time=part.time)
            position = batch.end
            found.append(batch)
        self._cache[chunk] = found
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return found

    def release(self, chunk: Chunk) -> None:
        """Note that nobody needs a chunk any more."""
        chunk.segment.live -= 1
        self._cache.pop(chunk, None)

    # --- after a crash, and at the end --------------------------------------------------------------------------

    def scan(self) -> list[Chunk]:
        """Open what is there and give its chunks, oldest first. Called once, before all else.

        Raise `OSError`: then this spool cannot be used, and intact files are as they were.
        """
        paths = sorted(self._directory.glob("[0-9]*.events")) if self._directory.is_dir() else []
        chunks: list[Chunk] = []
        try:
            for index, path in enumerate(paths):
                self._next = int(path.stem) + 1
                segment = Segment(path, os.open(path, os.O_RDWR), path.stat().st_size)
                self._segments.append(segment)
                try:
                    self._scan_segment(segment, chunks)
                except Damaged as error:
                    self._drop(paths[index + 1 :])
                    self._cut(segment, chunks[-1] if segment.live else None, str(error))
                    break
            self.sweep([segment for segment in self._segments if not segment.live])
        except OSError:
            self.close()
            raise
        return chunks

    def _scan_segment(self, segment: Segment, chunks: list[Chunk]) -> None:
        """Add a segment's chunks to those before it. Raise `Damaged` behind the last intact one."""
        records = _records(segment)
        owner = next(records, None)
        found = _decoded(owner.head, _Owner) if owner is not None else None
        if found is not None and found != _Owner(FORMAT, self._binding):
            raise Damaged(f"it is of format {found.format} and belongs to {found.binding}")
        for record in records:
            head = _checked_head(record)
            end = chunks[-1].end if chunks else head.position
            if head.position < end:
                raise Damaged("it begins before the one before it ends")
            if head.position > end:
                self._forget(chunks)  # every sink had acknowledged all up to here
            chunk = Chunk(
                position=head.position,
                end=head.end,
                lasts=tuple((self._source(share), share.last) for share in head.shares),
                segment=segment,
                offset=record.offset,
                size=record.size,
            )
            chunks.append(chunk)
            segment.live += 1

    def _forget(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self.release(chunk)
        chunks.clear()

    def _source(self, share: _Share) -> Source:
        """Give the one source that stands for a session in this spool."""
        key = (share.bot, share.shard, share.total, share.session)
        if key not in self._sources:
            self._sources[key] = Source(bot=share.bot, shard=share.shard, total=share.total, session=share.session)
        return self._sources[key]

    @staticmethod
    def _cut(segment: Segment, last: Chunk | None, why: str) -> None:
        """Cut a segment off behind its last intact chunk."""
        end = last.offset + last.size if last is not None else 0
        extra = {"file": segment.path.name, "at": end, "bytes": segment.size - end, "why": why}
        log.warning("the spool is cut off where it cannot be read", extra=extra)
        os.ftruncate(segment.descriptor, end)
        segment.size = segment.kept = end

    def _drop(self, paths: list[Path]) -> None:
        """Delete files behind damage, the last one first: a hole before intact ones would pass for acknowledged."""
        for path in reversed(paths):
            log.warning("a file of the spool is dropped: it lies behind damage", extra={"file": path.name})
            path.unlink()
            sync_directory(self._directory)

    def dead(self) -> list[Segment]:
        """List the segments that nobody needs as of now; one that is being written for the first time is none of them."""
        return [segment for segment in self._segments if segment.kept and not segment.live]

    def sweep(self, segments: list[Segment]) -> None:
        """Delete segments, unless they are in use again. Raise `OSError`."""
        for segment in segments:
            if not segment.live:
                self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)  # first: where it fails, the segment is tried again
        self._segments.remove(segment)
        if segment is self._current:
            self._current = None
        os.close(segment.descriptor)

    def close(self) -> None:
        """Close all files; what is there stays."""
        for segment in self._segments:
            os.close(segment.descriptor)
        self._segments.clear()
        self._current = None


def _chunks(batches: list[Batch]) -> Iterator[list[Batch]]:
    """Divide batches into chunks; one that is too large is divided itself."""
    parts: list[Batch] = []
    size = count = 0
    for batch in batches:
        if not batch.events:
            continue
        begin = 0
        for index, event in enumerate(batch.events):
            full = size + len(event.payload) > CHUNK or count >= CHUNK_EVENTS
            if full and (parts or index > begin):
                if index > begin:
                    parts.append(_slice(batch, begin, index))
                yield parts
                parts, size, count, begin = [], 0, 0, index
            size += len(event.payload)
            count += 1
        parts.append(_slice(batch, begin, len(batch.events)))
    if parts:
        yield parts


def _slice(batch: Batch, begin: int, end: int) -> Batch:
    if end - begin == len(batch.events):
        return batch
    events = batch.events[begin:end]
    return Batch(position=batch.position + begin, source=batch.source, events=events, time=batch.time)


def _write(segment: Segment, head: bytes, body: bytes) -> tuple[int, int]:
    """Write one record behind the last; give its place. Raise `OSError`."""
    record = _FRAME.pack(len(head), len(body), crc32(body, crc32(head))) + head + body
    offset, rest = segment.size, memoryview(record)
    segment.size += len(record)  # first, so that what a failed write left is known
    while rest:
        rest = rest[os.pwrite(segment.descriptor, rest, segment.size - len(rest)) :]
    return offset, len(record)


def _parse(raw: bytes, offset: int) -> _Record:
    """Read the record at an offset. Raise `Damaged`."""
    if len(raw) - offset < _FRAME.size:
        raise Damaged("a record is cut short")
    head_size, body_size, checksum = _FRAME.unpack_from(raw, offset)
    begin = offset + _FRAME.size
    end = begin + head_size + body_size
    if end > len(raw):
        raise Damaged("a record is cut short")
    head, body = raw[begin : begin + head_size], raw[begin + head_size : end]
    if crc32(body, crc32(head)) != checksum:
        raise Damaged("a checksum is wrong")
    return _Record(offset, head, body)


def _records(segment: Segment) -> Iterator[_Record]:
    """Read a segment record by record. Raise `Damaged` or `OSError`."""
    raw = _read(segment)
    offset = 0
    while offset < segment.size:
        record = _parse(raw, offset)
        yield record
        offset += record.size


def _read(segment: Segment) -> bytes:
    """Read a segment as far as the disk gives it. Raise `OSError` where that is not about the disk."""
    parts: list[bytes] = []
    size = failures = 0
    while size < segment.size and failures < _TRIES:
        try:
            parts.append(os.pread(segment.descriptor, segment.size - size, size))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            failures += 1
        else:
            size += len(parts[-1])
            failures += not parts[-1]
    return b"".join(parts)


def _checked_head(record: _Record) -> _Head:
    """Give a chunk's head. Raise `Damaged` unless the body can be read and fits."""
    head, parts = _decoded(record.head, _Head), _decoded(record.body, list[_Part])
    count = sum(len(part.events) for part in parts)
    if count != head.end - head.position or any(part.share >= len(head.shares) for part in parts):
        raise Damaged("a record does not hold what its head says")
    return head


def _decoded(raw: bytes, kind: type[_T]) -> _T:
    """Decode a record's part. Raise `Damaged`: a right checksum over what we never wrote."""
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except msgspec.MsgspecError as error:
        raise Damaged(f"a record cannot be decoded: {error}") from None


def sync_directory(directory: Path) -> None:
    """Bring the names of new and removed files to disk. Raise `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
