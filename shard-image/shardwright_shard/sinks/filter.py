"""Which events a sink takes: an `EventFilter` of the resource as a predicate.

An empty `include` means all; `exclude` is taken away from that. The word `backfill` stands for a GUILD_CREATE that
follows READY rather than a join: such an event is known by both of its names. Events of our own (`shardwright.gap`,
`shardwright.oversize`) tell of losses and always pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shardwright_api.resources import EventFilter

Predicate = Callable[[str, bool], bool]
"""Takes an event's name and its backfill mark; callers keep the answer by name."""

OWN: Final = "shardwright."
OVERSIZE: Final = f"{OWN}oversize"
OWN_EVENTS: Final = (OVERSIZE, f"{OWN}gap", f"{OWN}unreadable")
BACKFILL: Final = "backfill"


def predicate(spec: EventFilter) -> Predicate:
    """Turn a filter into a predicate of (name, backfill)."""
    include, exclude = frozenset(spec.include), frozenset(spec.exclude)

    def takes(name: str, backfill: bool = False) -> bool:  # noqa: FBT001, FBT002 - an event's own mark, not a switch
        if name.startswith(OWN):
            return True
        names = {name, BACKFILL} if backfill else {name}
        return (not include or not include.isdisjoint(names)) and exclude.isdisjoint(names)

    return takes


def names(spec: EventFilter) -> list[str]:
    """Name the events that may pass, those of our own among them; none where all may."""
    if not spec.include:
        return []
    included = ["GUILD_CREATE" if name == BACKFILL else name for name in spec.include if name not in spec.exclude]
    return [*dict.fromkeys(included), *OWN_EVENTS]
