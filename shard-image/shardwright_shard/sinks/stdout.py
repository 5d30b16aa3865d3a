"""The stdout sink: one structured CloudEvents JSON line per event on a file descriptor.

    {"specversion":"1.0","id":"81:f0a1:17",...,"seq":17,"data":{"t":"MESSAGE_CREATE","s":17,"op":0,"d":{...}}}

`data` is the gateway message byte for byte. Where it holds line ends (JSON allows them between its tokens only), they
become spaces: an event is one line, always.

The standard output of a pod is a pipe, which fills when nobody reads; a developer's may be a file or a terminal. So a
thread of our own writes, blocking, one write of at most `WRITE_SIZE` bytes (or one event) at a time: the loop never
waits, a full pipe leaves the events in the journal, and what gathers during a write goes with the next. The thread is a
daemon: a process can end although nobody reads.

An event is acknowledged when the operating system has taken it: at most once, as nobody can tell whether it was read.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from random import Random
from typing import Final

import msgspec

from shardwright_api.resources import EventFilter, Overflow
from shardwright_shard.journal import Event, Reader, Source
from shardwright_shard.sinks.backoff import backoff
from shardwright_shard.sinks.headers import DATA_TYPE, Timestamps, event_type
from shardwright_shard.sinks.intake import DroppingIntake, Intake, intake
from shardwright_shard.sinks.selection import Selection

STDOUT: Final = 1
WRITE_SIZE: Final = 256 * 1024
AT_MOST_ONCE: Final = "at most once: nobody acknowledges what stands on standard output"
STALLED_AFTER: Final = 2.0
"""Seconds that one write may take before the sink says that nobody reads."""


def line(source: Source, event: Event, *, time: str) -> bytes:
    """Write an event as one line of CloudEvents JSON."""
    attributes: dict[str, str | int | bool] = {
        "specversion": "1.0",
        "id": f"{source.id_prefix}{event.last}",
        "source": source.uri,
        "type": event_type(event.name),
        "time": time,
        "datacontenttype": DATA_TYPE,
    }
    if event.seq is not None:
        attributes["seq"] = event.seq
    if event.backfill:
        attributes["backfill"] = True
    return msgspec.json.encode(attributes)[:-1] + b',"data":' + _one_line(event.payload) + b"}\n"


def _one_line(payload: bytes) -> bytes:
    if b"\n" in payload or b"\r" in payload:
        return payload.replace(b"\n", b" ").replace(b"\r", b" ")
    return payload


class StdoutSink:
    """Lines on a file descriptor."""

    def __init__(
        self,
        *,
        name: str,
        events: EventFilter,
        random: Random,
        descriptor: int = STDOUT,
        max_age: Mapping[str, float] | None = None,
        overflow: Overflow = Overflow.BLOCK,
    ) -> None:
        self.name = name
        self.available = True
        self.message = AT_MOST_ONCE
        self._selection = Selection(events, max_age=max_age)
        self._overflow = overflow
        self.blocking = overflow is Overflow.BLOCK
        self._random = random
        self._descriptor = descriptor
        self._timestamps = Timestamps()
        self._reader: Intake | None = None
        self._woken = asyncio.Event()
        self._counts = dict.fromkeys(("published", "acknowledged", "refused"), 0)

    @property
    def reader(self) -> Intake:
        """Give the reader that was attached."""
        assert self._reader is not None, "attach() was not called"
        return self._reader

    def attach(self, reader: Reader) -> None:
        """Take the reader."""
        self._reader = intake(reader, self._overflow)

    def wake(self) -> None:
        """Let `run` write."""
        if isinstance(self._reader, DroppingIntake):
            self._reader.gather()
        self._woken.set()

    async def run(self) -> None:
        """Write until cancelled; what cannot be written is tried again."""
        writer = _Writer(self._descriptor)
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                while await self._write_next(writer):
                    pass
        finally:
            writer.stop()

    def statistics(self) -> dict[str, int]:
        """Give the counters of every sink."""
        return {
            **self._counts,
            "filtered": self._selection.filtered,
            "expired": self._selection.expired,
            "dropped": self._reader.dropped if isinstance(self._reader, DroppingIntake) else 0,
            "oversize": 0,
            "reconnects": 0,
            "pending": self.reader.pending,
        }

    async def _write_next(self, writer: _Writer) -> bool:
        """Write some of what stands behind the read position; tell whether there was any."""
        lines, end = self._lines()
        if end == self.reader.acked:
            return False
        self._counts["published"] += len(lines)
        await self._deliver(writer, b"".join(lines))
        self._counts["acknowledged"] += len(lines)
        self.reader.ack(end)
        return True

    async def _deliver(self, writer: _Writer, data: bytes) -> None:
        """Write all of `data`, however often it takes."""
        pauses = backoff(self._random)
        while data:
            try:
                data = data[await self._told_when_slow(writer.write(data)) :]
                self.available, self.message = True, AT_MOST_ONCE
            except OSError as error:
                self._away(f"standard output cannot be written: {error.strerror}")
                self._counts["refused"] += 1
                await asyncio.sleep(next(pauses))

    async def _told_when_slow(self, writing: asyncio.Future[int]) -> int:
        """Wait for a write; say so when nobody reads."""
        done, _ = await asyncio.wait({writing}, timeout=STALLED_AFTER)
        if not done:
            self._away("nobody reads standard output")
        return await writing

    def _away(self, why: str) -> None:
        """Say that events are not taken, and why."""
        self.available, self.message = False, why

    def _lines(self) -> tuple[list[bytes], int]:
        """Take events for one write, and the position behind them."""
        reader, size = self.reader, 0
        found: list[bytes] = []
        for batch in reader.take(256):
            time = self._timestamps.text(batch.time)
            age = self._selection.age(batch)
            for position, event in enumerate(batch.events, batch.position):
                if size >= WRITE_SIZE:
                    reader.next = position
                    return found, position
                if self._selection.keeps(event, age):
                    found.append(line(batch.source, event, time=time))
                    size += len(found[-1])
        return found, reader.next


class _Writer:
    """A daemon thread that writes, blocking, one piece at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._pieces: SimpleQueue[tuple[bytes, asyncio.Future[int]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="stdout-sink", daemon=True).start()

    def write(self, data: bytes) -> asyncio.Future[int]:
        """Write some of `data`; the future gives how many bytes, or raises `OSError`."""
        written: asyncio.Future[int] = self._loop.create_future()
        self._pieces.put((data, written))
        return written

    def stop(self) -> None:
        """End the thread when what it writes is written."""
        self._pieces.put(None)

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            data, written = piece
            try:
                answer: int | OSError = self._write(data)
            except OSError as error:
                answer = error
            if not self._tell(written, answer):
                return

    def _write(self, data: bytes) -> int:
        """Write some of `data`, waiting where the descriptor was made non-blocking by somebody else."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])

    def _tell(self, written: asyncio.Future[int], answer: int | OSError) -> bool:
        """Bring an answer to the loop; tell whether it still runs."""
        try:
            self._loop.call_soon_threadsafe(_settle, written, answer)
        except RuntimeError:
            return False
        return True


def _settle(written: asyncio.Future[int], answer: int | OSError) -> None:
    if written.cancelled():
        return
    if isinstance(answer, OSError):
        written.set_exception(answer)
    else:
        written.set_result(answer)
