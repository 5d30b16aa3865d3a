"""The flow of events over an open connection: what to send, and how far the acknowledgements reach. No I/O, no clock.

`pump` takes from the journal what window and writer have room for and hands it on at once: batches go into the
*outlet* (the encoder of a protocol, or a client library), what comes out of it goes to the *writer* as one write. Every
event that was sent has a *number*; whoever reads the replies calls `settle` with the numbers that were acknowledged, and
`refuse` with the reason where an event was not taken. The reader's acknowledged position moves over numbers without a
hole.

After a refusal nothing more is sent until `begin`, which starts with the first event that is not acknowledged. That one
goes alone until it is acknowledged, so a server that goes on refusing sees one event per attempt. Where the server
drops no duplicates (`resends=False`), what was acknowledged behind the refused event is not sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from shardwright_shard.journal import Batch
from shardwright_shard.sinks.intake import Intake
from shardwright_shard.sinks.selection import Selection
from shardwright_shard.sinks.window import Window

HEADER_ESTIMATE: Final = 400
"""Bytes of an event's headers and command, for the bound of the window only."""


class Writer(Protocol):
    """Where bytes go: a connection."""

    writable: bool

    def write(self, data: bytes) -> None:
        """Write without waiting."""


class Outlet(Protocol):
    """What turns events into bytes: the encoder of a protocol. `selection` decides what is sent."""

    selection: Selection
    oversize: int

    def add(self, batch: Batch, number: int) -> Sequence[int]:
        """Add a batch, its events numbered from `number` on. Give the journal positions of those to be sent."""

    def flush(self, tail: bytes = b"") -> bytes:
        """Give the bytes of all that was added, with `tail` behind, and forget it."""


class Flow:
    """Events to the outlet, acknowledgements to the reader."""

    def __init__(self, reader: Intake, *, outlet: Outlet, window: Window, resends: bool = True) -> None:
        self._reader = reader
        self.outlet = outlet
        self._resends = resends
        self._writer: Writer | None = None
        self._alone = False
        self._behind = True
        self.window = window
        self.refusal = ""
        self.acknowledged = 0
        self.refused = 0

    @property
    def published(self) -> int:
        """Count the events that were sent, again and again those that were resent."""
        return self.window.high

    @property
    def pending(self) -> int:
        """Count the events of the journal that are not acknowledged."""
        return self._reader.pending

    @property
    def awaited_pongs(self) -> int:
        """Count the signs of life that were asked for and have not come."""
        return 0

    def begin(self, writer: Writer) -> None:
        """Send from the first event that is not acknowledged: the first alone if there was a refusal."""
        self._alone = bool(self.refusal)
        self.refusal = ""
        self._writer = writer
        self._reader.rewind()
        self.keep_stored()
        self.window.reset(self._reader.next)
        self.pump()

    def keep_stored(self) -> None:
        """Remember what was acknowledged behind an event that is not."""
        if not self._resends:
            stored = self.outlet.selection.stored
            stored.update(self.window.ahead)
            stored.difference_update([position for position in stored if position < self._reader.acked])

    def stop(self) -> None:
        """Send nothing more over this connection; replies to what is under way are not awaited."""
        self._writer = None

    def ping(self) -> None:
        """Ask the server for a sign of life, where the protocol has one."""

    def write(self, data: bytes) -> None:
        """Write something that is no event; harmless without a connection."""
        if self._writer is not None:
            self._writer.write(data)

    def pump(self) -> None:
        """Send what stands behind the read position, as far as there is room."""
        writer = self._writer
        if writer is None or self.refusal:
            return
        self._behind = True
        while self._behind and writer.writable and (room := self._room()) > 0 and self._publish(writer, room):
            pass
        if not self.window.under_way:
            self._reader.ack(self.window.position)

    def settle(self, moved: int) -> None:
        """Move the cursor after the window's low number moved by `moved`."""
        if moved:
            self.acknowledged += moved
            self._alone = False
            self._reader.ack(self.window.position)

    def refuse(self, why: str) -> None:
        """Stop until `begin`."""
        self.refused += 1
        self.refusal = self.refusal or why

    def pump_behind(self) -> None:
        """Go on after acknowledgements made room, if anything was left behind for want of it."""
        if self._behind:
            self.pump()

    def tail(self) -> bytes:
        """Give what follows the events of a write; nothing, unless a protocol says otherwise."""
        return b""

    # Inside

    def _room(self) -> int:
        return 1 - self.window.under_way if self._alone else self.window.room

    def _publish(self, writer: Writer, room: int) -> bool:
        """Send about `room` events as far as they fit, and step back to what does not. Tell whether any did."""
        batches, window, left = self._reader.take(room), self.window, room
        for batch in batches:
            fits = len(batch.events) <= left and batch.size <= window.size_room
            part = batch if fits else self._beginning(batch, left)
            if part is not None:
                positions = self.outlet.add(part, window.high)
                window.sent(positions, part.size + len(positions) * HEADER_ESTIMATE, part.end)
            if part is not batch:
                self._reader.next = batch.position if part is None else part.end
                break
            left -= len(batch.events)
        else:
            self._behind = self._reader.behind
        if data := self.outlet.flush(self.tail()):
            writer.write(data)
        return bool(batches) and self._reader.next > batches[0].position

    def _beginning(self, batch: Batch, room: int) -> Batch | None:
        """Give as much of a batch as there is room for: at least one event if nothing is under way, else perhaps None."""
        space, count = self.window.size_room, 0
        for event in batch.events[:room]:
            space -= len(event.payload)
            if space < 0 and (count or self.window.under_way):
                break
            count += 1
        if not count:
            return None
        return Batch(position=batch.position, source=batch.source, events=batch.events[:count], time=batch.time)
