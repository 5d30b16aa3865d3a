r"""Batches of the journal to bytes for Redis: one `XADD` per event, CloudEvents attributes as fields, `data` last.

    XADD discord:81384788765712384 MAXLEN ~ 1000000 * ce-specversion 1.0 ... ce-time 2025-01-01T00:00:00.250Z
        ce-seq 17 ce-id 81384788765712384:f0a1:17 data {"t":"MESSAGE_CREATE","s":17,...}

This runs once per event: what events of a source and name share is prepared, the rest is one format and one encode.
With `idempotent` (Redis 8.6) each XADD carries `IDMP <bot>:<shard> <event's id>`, and the server drops what it has.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardwright_shard.journal import Batch, Event, Source
from shardwright_shard.sinks import oversize
from shardwright_shard.sinks.headers import DATA_TYPE, Timestamps, attributes
from shardwright_shard.sinks.prepared import Prepared
from shardwright_shard.sinks.redis_wire import bulk
from shardwright_shard.sinks.selection import Selection
from shardwright_shard.sinks.template import Template

LARGEST = 512 * 1024 * 1024
"""Bytes: what Redis takes in one argument unless `proto-max-bulk-len` says otherwise."""


class Encoder:
    """Collect events with `add`, take the bytes of one write with `flush`. `limit`: bytes of one payload."""

    def __init__(self, *, template: Template, selection: Selection, max_length: int) -> None:
        self.selection = selection
        self.oversize = 0
        self.limit = LARGEST
        self._idempotent = False
        self._template = template
        self._options = ["MAXLEN", "~", str(max_length), "*"] if max_length else ["*"]
        self._prepared = Prepared(self._line)
        self._timestamps = Timestamps()
        self._parts: list[bytes] = []

    @property
    def idempotent(self) -> bool:
        """Whether the server drops what it has already."""
        return self._idempotent

    @idempotent.setter
    def idempotent(self, value: bool) -> None:
        if value != self._idempotent:
            self._idempotent = value
            self._prepared.clear()

    def flush(self, tail: bytes = b"") -> bytes:
        """Give the bytes of all that was added, with `tail` behind, and forget it."""
        self._parts.append(tail)
        written = b"\r\n".join(self._parts)
        self._parts.clear()
        return written

    def add(self, batch: Batch, number: int) -> Sequence[int]:
        """Add a batch. Give the journal positions of those that are sent.

        Each event becomes two parts, its command up to the payload's size, and the payload: joining all parts by line
        ends supplies what stands between.
        """
        del number  # replies come in the order of the commands
        source = batch.source
        plain, marked = self._prepared.lines(source)
        positions, events = self.selection.of(batch)
        append, limit, special, idempotent = self._parts.append, self.limit, self._template.by_guild, self._idempotent
        time = self._timestamps.text(batch.time)
        prefix = source.id_prefix
        size = len(prefix.encode())
        for event in events:
            seq, name, payload, backfill, _ = event
            if special or seq is None or len(payload) > limit:
                self._add_special(source, event, time)
                continue
            first, second = (marked if backfill else plain)[name]
            digits = str(seq)
            length = len(digits)
            mark = f"${size + length}\r\n{prefix}{digits}\r\n"
            text = (
                f"{first}{mark if idempotent else ''}{second}{time}\r\n$6\r\nce-seq\r\n${length}\r\n{digits}\r\n"
                f"$5\r\nce-id\r\n{mark}$4\r\ndata\r\n${len(payload)}"
            )
            append(text.encode())
            append(payload)
        return positions

    def _line(self, source: Source, name: str, backfill: bool) -> tuple[str, str]:  # noqa: FBT001 - an event's mark
        """Prepare the command up to the idempotent id, and from there to the time."""
        fields = {"ce-specversion": "1.0", "ce-datacontenttype": DATA_TYPE}
        given = attributes(source, Event(0, name, b"", backfill), time="")
        fields |= {f"ce-{key}": given[key] for key in ("type", "source", "backfill") if key in given}
        start = self._start(source, self._template.name(name, source.shard))
        rest = [*self._options, *(text for pair in fields.items() for text in pair), "ce-time"]
        arguments = len(start) + self._idempotent + len(rest) + 7
        return f"*{arguments}\r\n{_bulks(start)}", f"{_bulks(rest)}$24\r\n"

    def _start(self, source: Source, key: str) -> list[str]:
        start = ["XADD", key]
        return [*start, "IDMP", f"{source.bot}:{source.shard}"] if self._idempotent else start

    def _add_special(self, source: Source, event: Event, time: str) -> None:
        """Add an event without a sequence, with a key by guild, or one that is too large."""
        key = self._template.name(event.name, source.shard, event.payload)
        if len(event.payload) > self.limit:
            self.oversize += 1
            event = oversize.replacement(source, event)
        given = attributes(source, event, time=time)
        arguments = self._start(source, key)
        if self._idempotent:
            arguments.append(given["id"])
        arguments += [*self._options, "ce-datacontenttype", DATA_TYPE]
        arguments += [text for name, value in given.items() for text in (f"ce-{name}", value)]
        head = f"*{len(arguments) + 2}\r\n{_bulks([*arguments, 'data'])}${len(event.payload)}"
        self._parts.append(head.encode())
        self._parts.append(event.payload)


def _bulks(texts: list[str]) -> str:
    return "".join(bulk(text) for text in texts)
