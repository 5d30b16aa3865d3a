"""Who has been silent for how long, on the operator's own monotonic clock.

A holder is *fresh* after a heartbeat, *silent* when `limit` seconds passed without one while our watch stood, and
*unheard* in between: from when the operator first sees the range until the first heartbeat or the limit. No clock of a
pod is compared with ours: what counts is when a heartbeat arrived here.

Silence is only measured while the watch of ShardRanges is live. After a reconnect all clocks start anew: what happened
while we were blind proves nothing. A range that was silent before stays silent until it is heard.

All operations are O(1): the clocks are kept in the order in which they run out.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from shardwright_operator.keys import RangeKey

FEW_RANGES: Final = 200
"""Above this many ranges heartbeats come every 10 s instead of 5."""
_LIMIT_FEW: Final = 15.0
_LIMIT_MANY: Final = 25.0


class Freshness(Enum):
    """Whether a range's holder was heard lately."""

    UNHEARD = "unheard"
    FRESH = "fresh"
    SILENT = "silent"


def silence_limit(ranges: int) -> float:
    """Give the seconds without a heartbeat after which a holder counts as silent."""
    return _LIMIT_FEW if ranges <= FEW_RANGES else _LIMIT_MANY


class Silence:
    """The clocks of all ranges that one watch tells of."""

    def __init__(self) -> None:
        self._clocks: dict[RangeKey, float] = {}
        self._state: dict[RangeKey, Freshness] = {}
        self._live = False

    def __len__(self) -> int:
        """Count the ranges."""
        return len(self._state)

    @property
    def live(self) -> bool:
        """Whether our watch stands."""
        return self._live

    @property
    def silent(self) -> int:
        """Count the silent ranges."""
        return len(self._state) - len(self._clocks)

    def freshness(self, key: RangeKey) -> Freshness:
        """Say how fresh a range is."""
        return self._state.get(key, Freshness.UNHEARD)

    def seen(self, key: RangeKey, now: float) -> None:
        """Start the clock of a range that was not known before."""
        if key not in self._state:
            self._state[key] = Freshness.UNHEARD
            self._clocks[key] = now

    def heard(self, key: RangeKey, now: float) -> None:
        """Start the clock of a range anew: its holder reported."""
        self._clocks.pop(key, None)
        self._clocks[key] = now
        self._state[key] = Freshness.FRESH

    def forget(self, key: RangeKey) -> None:
        """Drop a range that no longer exists."""
        self._clocks.pop(key, None)
        self._state.pop(key, None)

    def connected(self, now: float) -> None:
        """Say that the watch stands (again): all clocks start anew."""
        self._live = True
        self._clocks = dict.fromkeys(self._clocks, now)

    def disconnected(self) -> None:
        """Say that the watch broke: nothing is measured until it stands again."""
        self._live = False

    def expire(self, now: float, limit: float) -> list[RangeKey]:
        """Give the ranges that have just been silent for `limit` seconds."""
        if not self._live:
            return []
        expired: list[RangeKey] = []
        for key, since in self._clocks.items():
            if now - since < limit:  # the rest are younger
                break
            expired.append(key)
        for key in expired:
            del self._clocks[key]
            self._state[key] = Freshness.SILENT
        return expired


class Since:
    """For how long something has been so, on the operator's own clock."""

    def __init__(self) -> None:
        self._since: dict[RangeKey, dict[str, tuple[object, float]]] = {}

    def held(self, key: RangeKey, what: str, value: object, now: float) -> float:
        """Give the seconds for which `what` has had this value; a false value is never held."""
        clocks = self._since.setdefault(key, {})
        known = clocks.get(what)
        if not value:
            clocks.pop(what, None)
            return 0.0
        if known is None or known[0] != value:
            clocks[what] = (value, now)
            return 0.0
        return now - known[1]

    def forget(self, key: RangeKey) -> None:
        """Drop a range that no longer exists."""
        self._since.pop(key, None)
