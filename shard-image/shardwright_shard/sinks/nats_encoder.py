r"""Batches of the journal to bytes for NATS: `HPUB` with CloudEvents headers.

    HPUB discord.81384788765712384.MESSAGE_CREATE _INBOX.7f2c.41 342 1366\r\n
    NATS/1.0\r\n
    ce-specversion: 1.0\r\n ... ce-time: 2025-01-01T00:00:00.000Z\r\n
    ce-seq: 17\r\n ce-id: 81384788765712384:f0a1:17\r\n Nats-Msg-Id: 81384788765712384:f0a1:17\r\n
    \r\n<payload>\r\n

This runs once per event, so all that events of a source and name share is prepared once (`_Line`), the headers of one
event are one format and one encode, and the payload is copied once, into the bytes of the whole write.

`Nats-Msg-Id` lets JetStream drop what it has already, within the stream's duplicate window. An event that is larger than
the server takes, headers included, is replaced (`oversize.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count, repeat
from typing import Final, NamedTuple

from shardwright_shard.journal import Batch, Event, Source
from shardwright_shard.sinks import oversize
from shardwright_shard.sinks.headers import Timestamps, constant_headers, encoded
from shardwright_shard.sinks.nats_subject import SubjectTemplate, guild
from shardwright_shard.sinks.selection import Selection

SMALLEST_LIMIT: Final = 2048
"""A server or stream that takes less may not even take `shardwright.oversize`."""
_KEPT_SOURCES: Final = 1024
_KEPT_NAMES: Final = 512
_CONSTANT: Final = len("NATS/1.0\r\nce-time: 2025-01-01T00:00:00.000Z\r\nce-seq: \r\nce-id: \r\nNats-Msg-Id: \r\n\r\n")


class _Line(NamedTuple):
    """What events of one source, name and mark share. `head`: size of the headers less the three times `seq`."""

    command: str
    block: str
    head: int


class _Lines(dict[str, _Line]):
    """The lines of one source and mark by event name, each made at first sight."""

    def __init__(self, encoder: Encoder, source: Source, *, backfill: bool) -> None:
        super().__init__()
        self._encoder = encoder
        self._source = source
        self._backfill = backfill

    def __missing__(self, name: str) -> _Line:
        if len(self) >= _KEPT_NAMES:
            self.clear()
        block = constant_headers(self._source, name, backfill=self._backfill)
        head = _CONSTANT + len(block) + 2 * len(encoded(self._source.id_prefix))
        command = self._encoder.command(self._source, name)
        line = self[name] = _Line(command, f"NATS/1.0\r\n{block}ce-time: ", head)
        return line


class _Known:
    """All that is prepared for one source."""

    __slots__ = ("id", "marked", "msg_id", "plain", "prefix")

    def __init__(self, encoder: Encoder, source: Source) -> None:
        self.plain = _Lines(encoder, source, backfill=False)
        self.marked = _Lines(encoder, source, backfill=True)
        self.prefix = encoded(source.id_prefix)
        self.id = f"\r\nce-id: {self.prefix}"
        self.msg_id = f"\r\nNats-Msg-Id: {self.prefix}"


class Encoder:
    """Collect events with `add`, take the bytes of one write with `flush`. `limit`: headers and payload together."""

    def __init__(self, *, template: SubjectTemplate, selection: Selection, inbox: str | None) -> None:
        """Ask for replies at `<inbox>.<number>`, or for none."""
        self._template = template
        self.selection = selection
        self._inbox = inbox
        self._timestamps = Timestamps()
        self._sources: dict[Source, _Known] = {}
        self._parts: list[bytes] = []
        self.limit = 1024 * 1024
        self.oversize = 0

    def flush(self, tail: bytes = b"") -> bytes:
        """Give the bytes of all that was added, and forget it; `tail` is what follows on the wire."""
        self._parts.append(tail)
        written = b"\r\n".join(self._parts)
        self._parts.clear()
        return written

    def add(self, batch: Batch, number: int) -> Sequence[int]:
        """Add a batch, its events numbered from `number` on. Give the journal positions of those that pass the filter.

        Each event becomes two parts, headers and payload: joining all parts by line ends supplies the blank line after
        the headers and the line end after the payload.
        """
        known = self._sources.get(batch.source) or self._meet(batch.source)
        positions, events = self.selection.of(batch)
        replies: Iterable[int | str] = count(number) if self._inbox else repeat("")
        append, limit, special = self._parts.append, self.limit, self._template.by_guild
        plain, marked, id_, msg_id = known.plain, known.marked, known.id, known.msg_id
        time = self._timestamps.text(batch.time)
        times = f"{time}\r\nce-seq: "
        for event, reply in zip(events, replies, strict=False):
            seq, name, payload, backfill, _ = event
            command, block, head = (marked if backfill else plain)[name]
            digits = str(seq)
            head += 3 * len(digits)
            total = head + len(payload)
            if special or seq is None or total > limit:
                self._add_special(batch.source, event, reply, time)
                continue
            text = f"{command}{reply} {head} {total}\r\n{block}{times}{digits}{id_}{digits}{msg_id}{digits}\r\n"
            append(text.encode())
            append(payload)
        return positions

    def command(self, source: Source, name: str, guild: str = "-") -> str:
        """Give the control line of an event up to the number of its reply subject."""
        subject = self._template.subject(event=name, shard=source.shard, guild=guild)
        return f"HPUB {subject} {self._inbox}." if self._inbox else f"HPUB {subject}"

    def _meet(self, source: Source) -> _Known:
        """Prepare a source; all are forgotten when there are too many, since sessions come and go."""
        if len(self._sources) >= _KEPT_SOURCES:
            self._sources.clear()
        known = self._sources[source] = _Known(self, source)
        return known

    def _add_special(self, source: Source, event: Event, reply: int | str, time: str) -> None:
        """Add an event without a sequence, with a subject by guild, or one that is too large."""
        headers = self._headers(source, event, time)
        where = guild(event.name, event.payload) if self._template.by_guild else "-"
        if len(headers) + len(event.payload) > self.limit:
            self.oversize += 1
            event = oversize.replacement(source, event)
            headers = self._headers(source, event, time)
        command = self.command(source, event.name, where)
        total = len(headers) + len(event.payload)
        self._parts.append(f"{command}{reply} {len(headers)} {total}\r\n".encode() + headers[:-2])
        self._parts.append(event.payload)

    def _headers(self, source: Source, event: Event, time: str) -> bytes:
        """Give an event's headers with the blank line at their end."""
        known = self._sources[source]
        line = (known.marked if event.backfill else known.plain)[event.name]
        seq = "" if event.seq is None else f"\r\nce-seq: {event.seq}"
        return f"{line.block}{time}{seq}{known.id}{event.last}{known.msg_id}{event.last}\r\n\r\n".encode()
