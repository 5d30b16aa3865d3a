"""A session: what outlives a connection and can be resumed.

It numbers its events and keeps the last of them in a bounded replay buffer, connected or not (Gateway > Resuming; the
size is a staff note of 2016, `max(100, min(3500, guilds * 75))`). Full, the buffer lets the oldest go: whoever still
needs it gets op 9. A session knows the connections attached to it; which of them receive is the gateway's decision.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING

from shardwright_api.discord import EVENT_NAMES, EVENTS_ALWAYS_SENT, EVENTS_BY_INTENT, Intent
from shardwright_simulator.envelope import Parts
from shardwright_simulator.timers import Timer

if TYPE_CHECKING:
    from shardwright_simulator.connection import Connection

Query = tuple[tuple[str, str], ...]
"""A connection's query string, sorted: a resume must use the session's own."""


def replay_limit(guilds: int) -> int:
    """Give the size of the replay buffer of a shard with so many guilds."""
    return max(100, min(3_500, guilds * 75))


@lru_cache(maxsize=1_024)
def visible_events(intents: int, *, direct: bool) -> frozenset[str]:
    """Name the events that intents let through, from guilds or from direct messages (Gateway > List of Intents)."""
    names = set(EVENTS_ALWAYS_SENT)
    for intent, events in EVENTS_BY_INTENT.items():
        if intents & intent and (intent.name or "").startswith("DIRECT_") is direct:
            names |= events
    return frozenset(names)


class Session:
    """One session of one shard."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002
        bot: str,
        shard: int,
        total: int,
        intents: int,
        query: Query,
        limit: int,
        created: float,
    ) -> None:
        self.id = id
        self.bot = bot
        self.shard = shard
        self.total = total
        self.intents = intents
        self.query = query
        self.created = created
        self.seq = 0
        self.sent_through = 0
        """The highest sequence ever written to a connection: no heartbeat may name a higher one."""
        self.attached: list[Connection] = []
        """Live connections of this session, oldest first."""
        self.receivers: list[Connection] = []
        """Those of them that get events."""
        self.backfilling = False
        self.ended = False
        self.expiry: Timer | None = None
        self.poison: dict[int, bytes] = {}
        """What is sent instead of the event, by sequence, each time."""
        self._replay: deque[tuple[int, Parts]] = deque()
        self._limit = limit
        self._lost_through = 0

    @property
    def content(self) -> bool:
        """Whether message content may be read."""
        return bool(self.intents & Intent.MESSAGE_CONTENT)

    @property
    def buffered(self) -> int:
        """Count the events in the replay buffer."""
        return len(self._replay)

    @property
    def served(self) -> bool:
        """Whether somebody gets its events now."""
        return any(connection.listening for connection in self.receivers)

    def wants(self, t: str, *, direct: bool) -> bool:
        """Whether the intents let an event through; names that the docs do not know always pass."""
        return t in visible_events(self.intents, direct=direct) or t not in EVENT_NAMES

    def next_seq(self) -> int:
        """Give the next event its number."""
        self.seq += 1
        return self.seq

    def limit(self, events: int) -> None:
        """Change the size of the replay buffer."""
        self._limit = events
        self._shrink()

    def remember(self, seq: int, parts: Parts) -> None:
        """Keep an event for a replay; a full buffer lets the oldest go."""
        self._replay.append((seq, parts))
        self._shrink()

    def _shrink(self) -> None:
        while len(self._replay) > self._limit:
            self._lost_through = self._replay.popleft()[0]

    def trim(self, seq: int) -> None:
        """Let the events up to `seq` go."""
        while self._replay and self._replay[0][0] <= seq:
            self._lost_through = self._replay.popleft()[0]

    def can_replay(self, seq: int) -> bool:
        """Whether all events after `seq` are still there."""
        return seq >= self._lost_through

    def missed(self, seq: int) -> list[tuple[int, bytes]]:
        """Give the events after `seq` as they are to be sent again."""
        return [(n, self.poison.get(n) or b"".join(parts)) for n, parts in self._replay if n > seq]

    def hold(self, timer: Timer | None) -> None:
        """Replace the timer that ends the session while nobody is attached."""
        if self.expiry is not None:
            self.expiry.cancel()
        self.expiry = timer
