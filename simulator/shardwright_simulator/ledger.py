"""The ledger: every dispatch event the simulator made, whether a client was there to take it or not.

Cheap above all: one tuple an event, turned into text only when asked. At `limit` the oldest tenth is dropped and
counted; `after` in a query is the number of the last entry already read, and stays valid across that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import orjson


class Entry(NamedTuple):
    """One dispatch event; `digest` is the SHA-256 of the message before compression."""

    n: int
    time: float
    bot: str
    session: str
    shard: int
    total: int
    seq: int
    t: str
    serial: int | None
    size: int
    digest: bytes
    flags: str
    """Empty, `twin` (its `d` repeats the event before), `backfill`, `unreadable`, or `control`."""


class LedgerStatistics(msgspec.Struct):
    """How full the ledger is."""

    entries: int
    dropped: int
    last: int
    bytes: int
    """Sum of the sizes of all events ever entered."""


class Ledger:
    """The list of all events."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: list[Entry] = []
        self._dropped = 0
        self._bytes = 0
        self.last = 0

    def add(self, entry: Entry) -> None:
        """Keep an entry, whose number is `last + 1`."""
        self.last = entry.n
        self._bytes += entry.size
        self._entries.append(entry)
        if len(self._entries) > self._limit:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        drop = max(1, self._limit // 10)
        del self._entries[:drop]
        self._dropped += drop

    def statistics(self) -> LedgerStatistics:
        """Tell how full the ledger is."""
        return LedgerStatistics(len(self._entries), self._dropped, self.last, self._bytes)

    def query(self, *, bot: str = "", session: str = "", after: int = 0, limit: int = 0) -> Iterator[Entry]:
        """Give the entries above number `after`, in order, of one bot or session if named, at most `limit`."""
        left = limit or len(self._entries)
        start = max(0, after - self.last + len(self._entries))
        for index in range(start, len(self._entries)):
            entry = self._entries[index]
            if left and (not bot or entry.bot == bot) and (not session or entry.session == session):
                left -= 1
                yield entry

    def clear(self) -> None:
        """Forget all entries; the numbers go on."""
        self._dropped += len(self._entries)
        self._entries.clear()


def line(entry: Entry) -> bytes:
    """Write an entry as a line of JSON."""
    row = entry._asdict()
    row["sha256"] = row.pop("digest").hex()
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
