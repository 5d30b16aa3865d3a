"""What the simulator writes down for its user: violations, identifies, overlaps, silences, REST requests.

Each kind has a `Journal`: numbered records, the oldest of which give way when it is full. `after` in a query is the
number of the last record already read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

JOURNAL_LIMIT = 100_000


class Severity(StrEnum):
    """How bad it is."""

    VIOLATION = "violation"
    """It breaks a rule of Discord's."""
    NOTE = "note"
    """It is legal, or only inferred, but you may want to know."""


class Record(msgspec.Struct, kw_only=True):
    """What all records have: a number, a time (seconds since 1970), and who it is about."""

    n: int = 0
    time: float
    bot: str = ""
    shard: int | None = None
    total: int | None = None
    session: str = ""
    connection: int | None = None


class Violation(Record, kw_only=True):
    """A broken rule, by its short name; `close_code` is what it was answered with, if by a close."""

    rule: str
    message: str
    severity: Severity = Severity.VIOLATION
    close_code: int | None = None


class Identify(Record, kw_only=True):
    """An IDENTIFY as it arrived. `result`: `ready`, `invalid-session`, or the close code as text."""

    bucket: int | None = None
    result: str
    early: float = 0.0
    """Seconds that were missing in its bucket's window; 0 when it was on time."""
    remaining: int | None = None
    intents: int | None = None


class Resume(Record, kw_only=True):
    """A RESUME as it arrived. `result`: `resumed`, `invalid-session`, or the close code as text."""

    seq: int | None = None
    replayed: int = 0
    result: str


class Overlap(Record, kw_only=True):
    """Two live connections that shared a session. `seconds` is None while it lasts."""

    old: int
    new: int
    mode: str
    silent_before: float
    """Seconds since the old connection had last sent anything."""
    seconds: float | None = None
    ended_by: str = ""
    """Which of the two ended it: `old`, `new`, or `cut` when the simulator did."""


class Silence(Record, kw_only=True):
    """A time in which nobody could get a shard's events, from `time` on. `session`: the last that was served."""

    seconds: float | None = None
    """How long, until the next READY or RESUMED; None while it lasts."""


class RestRequest(Record, kw_only=True):
    """A request to the REST API and its answer."""

    path: str
    status: int
    user_agent: str = ""


R = TypeVar("R", bound=Record)


class Journal(Generic[R]):
    """A bounded, numbered list of records of one kind."""

    def __init__(self, limit: int = JOURNAL_LIMIT) -> None:
        self._records: deque[R] = deque(maxlen=limit)
        self._next = 1

    def __len__(self) -> int:
        """Count the records kept."""
        return len(self._records)

    def add(self, record: R) -> R:
        """Give a record its number and keep it."""
        record.n = self._next
        self._next += 1
        self._records.append(record)
        return record

    def query(self, *, bot: str = "", after: int = 0) -> Iterator[R]:
        """Give the records above number `after`, of one bot if it is named, in order."""
        return (r for r in self._records if r.n > after and (not bot or r.bot == bot))

    def clear(self) -> None:
        """Forget all records; the numbers go on."""
        self._records.clear()
