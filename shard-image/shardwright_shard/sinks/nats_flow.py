"""The flow of events over a NATS connection that is open: what to write, and what the replies mean. No I/O, no clock.

`pump` takes from the journal what window and writer have room for, and writes it at once. `received` takes the replies
of one read, moves the reader's acknowledged position over those without a hole, and pumps again.

JetStream: each event asks for a reply at `<inbox>.<number>`. A reply that is no acknowledgement by our stream is a
*refusal*: the flow stops (`refusal` says why), replies to what was sent before it still count, and `begin` starts again
with the first event that is not acknowledged. That one goes alone until it is acknowledged, so a stream that goes on
refusing sees one event per attempt, and the order is lost at most once per refusal.

Core NATS: at most one PING of ours is under way; its PONG acknowledges what was written before it, and is followed by
the next PING when more was written since. A failure such as a missing permission comes before that PONG.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from shardwright_shard.journal import Batch, Reader
from shardwright_shard.sinks.nats_encoder import HEADER_ESTIMATE, Encoder
from shardwright_shard.sinks.nats_wire import PING, Acks, Failure, Message, Operation, Pong, refusal
from shardwright_shard.sinks.window import Window


class Writer(Protocol):
    """Where bytes go: `nats_connection.Connection`."""

    writable: bool

    def write(self, data: bytes) -> None:
        """Write without waiting."""


class Flow:
    """Events to bytes, replies to acknowledgements. `stream` None: core NATS."""

    def __init__(self, reader: Reader, *, encoder: Encoder, window: Window, inbox: str, stream: str | None) -> None:
        self._reader = reader
        self._encoder = encoder
        self._inbox = f"{inbox}.".encode()
        self._stream = stream
        self._writer: Writer | None = None
        self._pings: deque[int] = deque()
        self._alone = False
        self._behind = True
        self.window = window
        self.refusal = ""
        self.acknowledged = 0
        self.refused = 0

    @property
    def published(self) -> int:
        """Count the events that were written, again and again those that were resent."""
        return self.window.high

    @property
    def pending(self) -> int:
        """Count the events of the journal that are not acknowledged."""
        return self._reader.pending

    @property
    def awaited_pongs(self) -> int:
        """Count the PINGs that the server has not answered."""
        return len(self._pings)

    def begin(self, writer: Writer) -> None:
        """Publish from the first event that is not acknowledged: the first alone if there was a refusal."""
        self._alone = bool(self.refusal)
        self.refusal = ""
        self._writer = writer
        self._reader.rewind()
        self.window.reset(self._reader.next)
        self.pump()

    def stop(self) -> None:
        """Publish nothing more over this connection; replies to what is under way are not awaited."""
        self._writer = None
        self._pings.clear()

    def ping(self) -> None:
        """Ask the server for a sign of life."""
        if self._writer is not None:
            self._writer.write(self._ping())

    def pump(self) -> None:
        """Publish what stands behind the read position, as far as there is room."""
        writer = self._writer
        if writer is None or self.refusal:
            return
        self._behind = True
        while self._behind and writer.writable and (room := self._room()) > 0 and self._publish(writer, room):
            pass
        if not self.window.under_way:
            self._reader.ack(self.window.position)

    def received(self, operations: list[Operation]) -> None:
        """Take the replies of one read."""
        for operation in operations:
            if type(operation) is Acks:
                self._settle(self.window.acknowledge(operation.numbers))
            else:
                self._take(operation)
        if self._behind:
            self.pump()

    # Publishing

    def _room(self) -> int:
        return 1 - self.window.under_way if self._alone else self.window.room

    def _publish(self, writer: Writer, room: int) -> bool:
        """Write about `room` events as far as they fit, and step back to what does not. Tell whether any did."""
        batches, window, left = self._reader.take(room), self.window, room
        for batch in batches:
            fits = len(batch.events) <= left and batch.size <= window.size_room
            part = batch if fits else self._beginning(batch, left)
            if part is not None:
                positions = self._encoder.add(part, window.high)
                window.sent(positions, part.size + len(positions) * HEADER_ESTIMATE, part.end)
            if part is not batch:
                self._reader.next = batch.position if part is None else part.end
                break
            left -= len(batch.events)
        else:
            self._behind = self._reader.behind
        return self._write(writer, batches)

    def _write(self, writer: Writer, batches: list[Batch]) -> bool:
        """Write what was encoded, with a PING behind it for core NATS. Tell whether the reader moved over `batches`."""
        pinging = self._stream is None and not self._pings and self.window.under_way
        if data := self._encoder.flush(self._ping() if pinging else b""):
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

    def _ping(self) -> bytes:
        self._pings.append(self.window.high)
        return PING

    # Replies

    def _take(self, operation: Operation) -> None:
        """Take a reply that is no run of acknowledgements."""
        match operation:
            case Message():
                self._judge(operation)
            case Pong():
                self._settle(self._answered())
            case Failure(text):
                self._refuse(text)
            case _:
                pass

    def _settle(self, moved: int) -> None:
        """Move the cursor after `moved` events were acknowledged."""
        if moved:
            self.acknowledged += moved
            self._alone = False
            self._reader.ack(self.window.position)

    def _answered(self) -> int:
        """Take a PONG. Core NATS: it acknowledges what was written before its PING."""
        before = self._pings.popleft() if self._pings else 0
        if self._stream is not None or self.refusal:
            return 0
        moved = self.window.acknowledge_before(before)
        if self.window.under_way and not self._pings:
            self.ping()
        return moved

    def _judge(self, message: Message) -> None:
        """Take a reply that is not plainly an acknowledgement."""
        number = message.subject.removeprefix(self._inbox)[:18]
        if self._stream is None or not number.isdigit() or int(number) < self.window.low:
            return
        why = refusal(message, self._stream)
        if why is None:
            self._settle(self.window.acknowledge([int(number)]))
        else:
            self._refuse(why)

    def _refuse(self, why: str) -> None:
        """Stop until `begin`."""
        self.refused += 1
        self.refusal = self.refusal or why
