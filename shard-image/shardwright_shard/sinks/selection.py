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
        age = self.age(batch)
        if self._takes is None and age <= self._shortest and not self.stored:
            return range(batch.position, batch.end), batch.events
        stored = self.stored
        kept = [
            (position, event)
            for position, event in enumerate(batch.events, batch.position)
            if self.keeps(event, age) and position not in stored
        ]
        if len(kept) == len(batch.events):
            return range(batch.position, batch.end), batch.events
        return [position for position, _ in kept], [event for _, event in kept]

    def age(self, batch: Batch) -> float:
        """Give a batch's age in seconds, 0 where nothing expires."""
        return self._clock() - batch.time if self._max_age else 0.0

    def keeps(self, event: Event, age: float) -> bool:
        """Tell whether an event of that age is to be sent, and count it where it is not."""
        if self._takes is not None and not self._takes(event.name, event.backfill):
            self.filtered += 1
            return False
        if age > self._shortest and self._too_old(event.name, age):
            self.expired += 1
            return False
        return True

    def _too_old(self, name: str, age: float) -> bool:
        limit = self._max_age.get(name, self._max_age.get(EVERY_NAME))
        return limit is not None and age > limit and not name.startswith(OWN)
