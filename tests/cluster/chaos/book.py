"""The book of a run: what was sent against what is stored, fault by fault. Pure.

Entries of the simulator's ledger and messages of the stream are added as they are read, in any order; `close` judges
what was sent up to an entry and forgets it. A window is what lies between two `close`s, so no event stands outside of one.

An event that is not stored is *lost*, unless it lies inside a told gap: the same session, a later sequence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

REMEMBERED = 30_000
"""Sequences of a session behind its latest that are still known as stored: far more than the dedupe window holds."""


@dataclass(frozen=True)
class Sent:
    """An entry of the simulator's ledger. `time` in seconds since 1970, `sha256` of the payload in hexadecimal."""

    n: int
    time: float
    shard: int
    session: str
    seq: int
    t: str
    sha256: str


@dataclass(frozen=True)
class Stored:
    """A message of the stream. `time` in seconds since 1970, as the server stored it."""

    time: float
    shard: int
    session: str
    seq: int
    sha256: str


@dataclass(frozen=True)
class Gap:
    """A told gap: what came after `seq` in `session` may be missing."""

    session: str
    seq: int


class Delay(NamedTuple):
    """How long an event took from being sent (`time`) to the stream, in seconds."""

    time: float
    shard: int
    seconds: float


@dataclass
class Window:
    """What happened in a window: counts of events, seconds."""

    sent: int = 0
    received: int = 0
    lost: list[str] = field(default_factory=list)
    told: int = 0
    twice: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    """Stored with other bytes than were sent."""
    out_of_order: int = 0
    silence: float = 0.0
    """Longest time in which no event of one shard was stored."""
    silent_shard: int | None = None
    gaps: int = 0
    delays: list[Delay] = field(default_factory=list)


class Book:
    """What is open between the ledger and the stream."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], Sent] = {}
        self._early: dict[tuple[str, int], Stored] = {}
        """Stored, but not yet read in the ledger."""
        self._known: dict[str, set[int]] = defaultdict(set)
        self._last: dict[str, int] = {}
        self._arrival: dict[int, float] = {}
        self._gaps: list[Gap] = []
        self._window = Window()

    def sent(self, entries: Iterable[Sent]) -> None:
        """Add entries of the ledger. RESUMED tells the client of the replay; it is no event to keep."""
        for entry in entries:
            if entry.t == "RESUMED":
                continue
            self._window.sent += 1
            key = entry.session, entry.seq
            early = self._early.pop(key, None)
            if early is None and entry.seq not in self._known[entry.session]:
                self._open[key] = entry
            elif early is not None:
                self._match(entry, early)

    def stored(self, messages: Iterable[Stored]) -> None:
        """Add messages of the stream, in its order."""
        for message in messages:
            self._window.received += 1
            self._note_arrival(message)
            key = message.session, message.seq
            known = self._known[message.session]
            if message.seq in known:
                self._window.twice.append(f"{message.session}:{message.seq}")
                continue
            known.add(message.seq)
            self._window.out_of_order += message.seq < self._last.get(message.session, 0)
            self._last[message.session] = max(message.seq, self._last.get(message.session, 0))
            entry = self._open.pop(key, None)
            if entry is None:
                self._early[key] = message
            else:
                self._match(entry, message)

    def _match(self, entry: Sent, message: Stored) -> None:
        if entry.sha256 != message.sha256:
            self._window.altered.append(f"{entry.session}:{entry.seq} ({entry.t}, shard {entry.shard})")
        self._window.delays.append(Delay(entry.time, entry.shard, message.time - entry.time))

    def _note_arrival(self, message: Stored) -> None:
        silence = message.time - self._arrival.get(message.shard, message.time)
        self._arrival[message.shard] = message.time
        if silence > self._window.silence:
            self._window.silence, self._window.silent_shard = silence, message.shard

    def gap(self, gap: Gap) -> None:
        """Add a told gap."""
        self._gaps.append(gap)
        self._window.gaps += 1

    def missing(self, through: int) -> int:
        """Count what was sent up to an entry, is not stored and lies in no told gap."""
        return sum(entry.n <= through and not self._told(entry) for entry in self._open.values())

    def _told(self, entry: Sent) -> bool:
        return any(gap.session == entry.session and entry.seq > gap.seq for gap in self._gaps)

    def close(self, through: int) -> Window:
        """End the window at an entry of the ledger: what is open up to there is lost."""
        done, self._window = self._window, Window()
        for key, entry in list(self._open.items()):
            if entry.n > through:
                continue
            del self._open[key]
            if self._told(entry):
                done.told += 1
            else:
                done.lost.append(f"{entry.session}:{entry.seq} ({entry.t}, shard {entry.shard})")
        self._forget()
        return done

    def _forget(self) -> None:
        for session, known in self._known.items():
            floor = self._last.get(session, 0) - REMEMBERED
            if len(known) > 2 * REMEMBERED:
                self._known[session] = {seq for seq in known if seq > floor}
