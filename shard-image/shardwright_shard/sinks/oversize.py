"""What stands for an event that is larger than a sink takes.

`shardwright.oversize`, with the id of the event and a JSON payload `{"id", "type", "size", "shard", "seq"}`, so that a
consumer learns what it missed.
"""

from __future__ import annotations

import msgspec

from shardwright_shard.journal import Event, Source
from shardwright_shard.sinks.filter import OVERSIZE
from shardwright_shard.sinks.headers import event_type


def replacement(source: Source, event: Event) -> Event:
    """Give the event that stands for one that is too large."""
    told = {
        "id": f"{source.id_prefix}{event.last}",
        "type": event_type(event.name),
        "size": len(event.payload),
        "shard": source.shard,
        "seq": event.seq,
    }
    return Event(event.seq, OVERSIZE, msgspec.json.encode(told), mark=event.mark)
