r"""Batches of the journal to bytes for AMQP 0-9-1: method, header and body frames of `basic.publish`.

    method: exchange, routing key, mandatory      header: size, content type, headers, ids      body: the payload

This runs once per event: method frame and constant headers are prepared per source and name, the rest is concatenated
(`pamqp` builds the same bytes from objects; `bench/sinks.py` has what that costs). Headers follow CloudEvents' AMQP
binding, `cloudEvents_` before each name; `message_id` is the event's id, `correlation_id` our number of it, which comes
back with an event that no queue takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from shardwright_api import resources
from shardwright_shard.errors import ConfigError
from shardwright_shard.journal import Batch, Event, Source
from shardwright_shard.sinks import oversize
from shardwright_shard.sinks.headers import DATA_TYPE, Timestamps, attributes
from shardwright_shard.sinks.prepared import Prepared
from shardwright_shard.sinks.selection import Selection
from shardwright_shard.sinks.template import Template

CHANNEL: Final = 1
LARGEST: Final = 128 * 1024 * 1024
"""Bytes of a message: RabbitMQ's `max_message_size`, which it tells nobody."""
_CHANNEL: Final = CHANNEL.to_bytes(2, "big")
_METHOD: Final = b"\x01" + _CHANNEL
_HEADER: Final = b"\x02" + _CHANNEL
_BODY: Final = b"\x03" + _CHANNEL
_END: Final = b"\xce"
_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
"""Class `basic`, method `publish`, and a field that is reserved."""
_PROPERTIES: Final = (0b1011_0100_1000_0000).to_bytes(2, "big")
"""Content type, headers, delivery mode, correlation id, message id: the order in which they stand."""
_FRAME: Final = 8
"""Bytes of a frame beside its payload."""
_SHORT: Final = 255


class _Line(NamedTuple):
    method: bytes
    constant: bytes


class Encoder:
    """Collect events with `add`, take the bytes of one write with `flush`. `frame`: the largest frame."""

    def __init__(self, spec: resources.AmqpSink, *, bot: str, selection: Selection) -> None:
        self.selection = selection
        self.oversize = 0
        self.limit = LARGEST
        self.frame = 4096
        if len(spec.exchange.encode()) > _SHORT:
            raise ConfigError(f"exchange: at most {_SHORT} bytes")
        self._exchange = _short(spec.exchange)
        self._template = Template(spec.routing_key, bot=bot, what="routingKey")
        self._mandatory = b"\x01" if spec.mandatory else b"\x00"
        self._content = _short(DATA_TYPE)
        self._mode = b"\x02" if spec.persistent else b"\x01"
        self._prepared = Prepared(self._line)
        self._timestamps = Timestamps()
        self._parts: list[bytes] = []

    def flush(self, tail: bytes = b"") -> bytes:
        """Give the bytes of all that was added, with `tail` behind, and forget it."""
        self._parts.append(tail)
        written = b"".join(self._parts)
        self._parts.clear()
        return written

    def add(self, batch: Batch, number: int) -> Sequence[int]:
        """Add a batch, its events numbered from `number` on. Give the journal positions of those that are sent."""
        source = batch.source
        plain, marked = self._prepared.lines(source)
        positions, events = self.selection.of(batch)
        append, by_guild = self._parts.append, self._template.by_guild
        time = _entry("time", self._timestamps.text(batch.time).encode())
        prefix, limit, frame = source.id_prefix, self.limit, self.frame - _FRAME
        for count, event in enumerate(events, number):
            if len(event.payload) > limit:
                self.oversize += 1
                event = oversize.replacement(source, event)  # noqa: PLW2901 - what is sent in its place
            seq, name, payload, backfill, _ = event
            method, constant = (marked if backfill else plain)[name]
            if by_guild:
                method = self._method(source, event)
            id_ = f"{prefix}{event.last}".encode()
            table = constant + time + _ID + len(id_).to_bytes(4, "big") + id_
            if seq is not None:
                digits = str(seq).encode()
                table += _SEQ + len(digits).to_bytes(4, "big") + digits
            own = str(count).encode()
            header = b"".join(
                (
                    b"\x00\x3c\x00\x00",
                    len(payload).to_bytes(8, "big"),
                    _PROPERTIES,
                    self._content,
                    len(table).to_bytes(4, "big"),
                    table,
                    self._mode,
                    len(own).to_bytes(1, "big"),
                    own,
                    _clipped(id_),
                )
            )
            append(b"".join((method, _HEADER, len(header).to_bytes(4, "big"), header, _END)))
            for start in range(0, len(payload), frame):
                part = payload if len(payload) <= frame else payload[start : start + frame]
                append(_BODY + len(part).to_bytes(4, "big"))
                append(part)
                append(_END)
        return positions

    def _line(self, source: Source, name: str, backfill: bool) -> _Line:  # noqa: FBT001 - an event's mark
        event = Event(None, name, b"", backfill)
        given = attributes(source, event, time="")
        names = ("specversion", "type", "source", "backfill")
        constant = b"".join(_entry(key, given[key].encode()) for key in names if key in given)
        return _Line(self._method(source, event), constant)

    def _method(self, source: Source, event: Event) -> bytes:
        key = self._template.name(event.name, source.shard, event.payload)
        payload = _PUBLISH + self._exchange + _short(key) + self._mandatory
        return _METHOD + len(payload).to_bytes(4, "big") + payload + _END


def _short(text: str) -> bytes:
    return _clipped(text.encode())


def _clipped(raw: bytes) -> bytes:
    """Write a short string; what is longer than one can be is cut."""
    raw = raw[:_SHORT]
    return len(raw).to_bytes(1, "big") + raw


def _key(name: str) -> bytes:
    return _short(f"cloudEvents_{name}") + b"S"


def _entry(name: str, value: bytes) -> bytes:
    """Write one entry of a headers' table: a name and a long string."""
    return _key(name) + len(value).to_bytes(4, "big") + value


_ID: Final = _key("id")
_SEQ: Final = _key("seq")
