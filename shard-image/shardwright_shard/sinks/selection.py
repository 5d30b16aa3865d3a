"""Which events of a batch a sink sends: its filter, the age that it still takes, and what it has stored already.

`of` gives the events to send with their journal positions. Everything else of the batch needs no acknowledgement: it
was *filtered* by name, had *expired* (older than `maxAge` says for its name, or for `"*"`), or stands in `stored`: a
sink without ids that drop duplicates keeps there what was acknowledged behind a refused event.

Events of our own (`shardwright.gap`) neither are filtered nor expire: they tell of losses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from shardwright_api.resources import EventFilter
from shardwright_shard.journal import Batch, Event
from shardwright_shard.sinks.filter import OWN, predicate

EVERY_NAME: Final = "*"


class Selection:
    """What a sink takes. `max_age`: seconds by event name; `clock`: Unix time, as batches carry it."""

    def __init__(
        self,
        events: EventFilter = EventFilter(),  # noqa: B008 - frozen
        *,
        max_age: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._takes = predicate(events) if events.include or events.exclude else None
        self._max_age = dict(max_age or {})
        self._shortest = min(self._max_age.values(), default=float("inf"))
        self._clock = clock
        self.stored: set[int] = set()
        self.filtered = 0
        self.expired = 0

    def of(self, batch: Batch) -> tuple[Sequence[int], list[Event]]:
        """Give the events to send with their positions."""
        old = bool(self._max_age) and self._clock() - batch.time > self._shortest
        if self._takes is None and not old and not self.stored:
            return range(batch.position, batch.end), batch.events
        return self._chosen(batch, self._clock() - batch.time)

    def _chosen(self, batch: Batch, age: float) -> tuple[Sequence[int], list[Event]]:
        positions: list[int] = []
        events: list[Event] = []
        for position, event in enumerate(batch.events, batch.position):
            if self._takes is not None and not self._takes(event.name, event.backfill):
                self.filtered += 1
            elif age > self._shortest and self._too_old(event.name, age):
                self.expired += 1
            elif position not in self.stored:
                positions.append(position)
                events.append(event)
        return positions, events

    def _too_old(self, name: str, age: float) -> bool:
        limit = self._max_age.get(name, self._max_age.get(EVERY_NAME))
        return limit is not None and age > limit and not name.startswith(OWN)
