"""An event at a sink: CloudEvents 1.0 attributes, the same for every kind of sink.

| attribute | value |
|---|---|
| specversion | 1.0 |
| datacontenttype | application/json: the data is the gateway message, byte for byte |
| type | `discord.gateway.MESSAGE_CREATE`; events of our own keep their name: `shardwright.oversize` |
| source | `/discord/<bot>/shards/<shard>/<total>` |
| time | arrival, RFC 3339 in UTC with milliseconds |
| id | `<bot>:<session>:<seq>`: stable, whichever pod sends the event and however often |
| seq | Discord's sequence, which only rises within a session |
| backfill | `true` for a GUILD_CREATE that follows READY, absent otherwise |

An event without a sequence has no `seq`, and a mark in its id instead: `<bot>:<session>:gap` is stable, but RESUMED
cannot have a stable id, yet CloudEvents demands one. Its mark is drawn when it is received: the same whenever it is sent
again, another one each time that Discord says it.

As text headers (CloudEvents NATS binding 3.1.3, likewise HTTP): `ce-` before the name, values percent-encoded. What is
constant per source and name is prepared once; per event remain the time, the sequence and the id.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from shardwright_shard.journal import Event, Source
from shardwright_shard.sinks.filter import OWN

DATA_TYPE: Final = "application/json"
_PRINTABLE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_MILLISECONDS: Final = tuple(f".{number:03d}Z" for number in range(1000))


def encoded(value: str) -> str:
    """Percent-encode a header's value: space, `"`, `%` and all that is not printable ASCII."""
    return quote(value, safe=_PRINTABLE, errors="replace")


def event_type(name: str) -> str:
    """Give the CloudEvents type of an event."""
    return name if name.startswith(OWN) else f"discord.gateway.{name}"


def constant_headers(source: Source, name: str, *, backfill: bool = False) -> str:
    """Give the header lines that all events of a source and name share, each with its line end."""
    lines = [
        "ce-specversion: 1.0",
        f"ce-datacontenttype: {DATA_TYPE}",
        f"ce-type: {encoded(event_type(name))}",
        f"ce-source: {encoded(source.uri)}",
    ]
    if backfill:
        lines.append("ce-backfill: true")
    return "".join(f"{line}\r\n" for line in lines)


class Timestamps:
    """RFC 3339 in UTC with milliseconds; the part down to the second is kept for the next call."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, unix: float) -> str:
        """Format a Unix time in seconds."""
        second, millisecond = divmod(int(unix * 1000), 1000)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return self._text + _MILLISECONDS[millisecond]


def attributes(source: Source, event: Event, *, time: str) -> dict[str, str]:
    """Give an event's attributes as plain text, `datacontenttype` aside: protocols have a place of their own for it."""
    given = {
        "specversion": "1.0",
        "type": event_type(event.name),
        "source": source.uri,
        "time": time,
        "id": f"{source.id_prefix}{event.last}",
    }
    if event.seq is not None:
        given["seq"] = str(event.seq)
    if event.backfill:
        given["backfill"] = "true"
    return given
