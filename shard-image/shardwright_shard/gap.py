"""A gap: what may be lost when Discord ends a session, as sinks are told of it by `shardwright.gap`.

Theory of operation. While a session lives, a `Timeline` notes when which sequence came, one mark a second. When the
session is given up, an `Ending` keeps what is needed to tell of it: everything after its last event may be lost, until
the next READY. The event stands in the journal between the old session's tail and the new READY, under an id that is
the same whoever tells it (`<bot>:<new session>:gap`):

    {"bot": "81", "shard": 3, "total": 8, "session": "old", "seq": 1041, "time": "2025-01-01T00:00:00.250Z",
     "next_session": "new", "next_ready": "2025-01-01T00:00:07.031Z", "reason": "op 9"}

Until every sink has acknowledged it, the ending stands in the shard's row. There its `seq` is the last one that every
sink had acknowledged: should this process die, the rest of its tail may be lost too. `time` is never later than when
`seq` was received, and null where nobody knows it. A session that ends while the gap before it is not acknowledged
extends that gap: the older session, seq and time stay, and one event spans both.

Pure: times are Unix times in seconds, passed in.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from shardwright_api.resources import Gap
from shardwright_shard.journal import Event, Source

NAME: Final = "shardwright.gap"
MARK: Final = "gap"
SPACING: Final = 1.0
"""Seconds between two marks at the least."""
_MARKS: Final = 1000
"""Marks that are kept at most. Above, every second one is left out, and new ones are made half as often."""


def rfc3339(unix: float) -> str:
    """Write a Unix time in UTC with milliseconds."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Mark(NamedTuple):
    seq: int
    time: float


class Timeline:
    """When a session's events came. `time`: RFC 3339, of the event that the session is resumed from; None: unknown."""

    def __init__(self, time: str | None = None) -> None:
        self._first = time
        self._marks: deque[_Mark] = deque()
        self._spacing = SPACING
        self._last: float | None = None

    @property
    def last(self) -> str | None:
        """When the last event came."""
        return self._first if self._last is None else rfc3339(self._last)

    def note(self, seq: int, now: float) -> None:
        """Note that the events up to `seq` came now."""
        self._last = now
        marks = self._marks
        if not marks or abs(now - marks[-1].time) >= self._spacing:
            marks.append(_Mark(seq, now))
            if len(marks) > _MARKS:
                self._marks = deque(islice(marks, 0, None, 2))
                self._spacing *= 2

    def until(self, seq: int) -> str | None:
        """Give a time no later than that of the event `seq`; asked with sequences that only rise."""
        while len(self._marks) > 1 and self._marks[1].seq <= seq:
            self._marks.popleft()
            self._spacing = SPACING
        known = bool(self._marks) and self._marks[0].seq <= seq
        return rfc3339(self._marks[0].time) if known else self._first


class Ending:
    """The end of a session whose gap is not known to every sink yet: its last event, and why it was given up."""

    def __init__(self, source: Source, timeline: Timeline, *, seq: int, reason: str) -> None:
        self._source = source
        self._timeline = timeline
        self._seq = seq
        self._time = timeline.last
        self.reason = reason

    @classmethod
    def from_row(cls, gap: Gap, *, bot: str, shard: int, total: int) -> Ending:
        """Take over what another process left in the shard's row."""
        source = Source(bot=bot, shard=shard, total=total, session=gap.session, acked=gap.seq)
        return cls(source, Timeline(gap.time), seq=gap.seq, reason="unknown: the pod that knew has ended")

    def row(self) -> Gap:
        """Give what another process must know."""
        acked = self._source.acked or 0
        if acked >= self._seq:
            return Gap(session=self._source.session, seq=self._seq, time=self._time)
        return Gap(session=self._source.session, seq=acked, time=self._timeline.until(acked))

    def event(self, source: Source, now: float) -> Event:
        """Give the event that tells of the gap; `source`: the new session, which has READY now."""
        told = {
            "bot": source.bot,
            "shard": source.shard,
            "total": source.total,
            "session": self._source.session,
            "seq": self._seq,
            "time": self._time,
            "next_session": source.session,
            "next_ready": rfc3339(now),
            "reason": self.reason,
        }
        return Event(None, NAME, msgspec.json.encode(told), mark=MARK)
