"""Silences: the times in which a shard that had been served was not, since no live connection could get its events.

A shard is *served* while a connection of one of its sessions is past READY or RESUMED, gets the session's events and
was not struck dumb by a fault. It does not count how many events fell into the time; that stands in the ledger. The core
says after each change of a session whether it is served; a shard whose last served session is gone begins a silence, and
the next served one ends it. What never was served is not silent.
"""

from __future__ import annotations

from shardwright_simulator.records import Journal, Silence
from shardwright_simulator.session import Session

Shard = tuple[str, int, int]


class Silences:
    """All silences: those that lasted and those that last."""

    def __init__(self) -> None:
        self.journal: Journal[Silence] = Journal()
        self._served: dict[Shard, set[str]] = {}
        self._open: dict[Shard, Silence] = {}

    def note(self, session: Session, now: float) -> None:
        """Look at a session after a change."""
        shard = (session.bot, session.shard, session.total)
        served = self._served.setdefault(shard, set())
        before = bool(served)
        if session.served:
            served.add(session.id)
        else:
            served.discard(session.id)
        if before and not served:
            bot, number, total = shard
            silence = Silence(time=now, bot=bot, shard=number, total=total, session=session.id)
            self._open[shard] = self.journal.add(silence)
        elif served and (over := self._open.pop(shard, None)) is not None:
            over.seconds = now - over.time
