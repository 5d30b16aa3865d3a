"""What the controllers tell each other, and remember between two looks at a key.

Nothing of it must survive a restart: what must, stands in the objects (the pace of grants does). Losing this costs at
most one early retry each.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from shardwright_operator.keys import GatewayKey, RangeKey
from shardwright_operator.observed import BudgetVerdict, Wanted
from shardwright_operator.tokens import Fingerprint

_K = TypeVar("_K", RangeKey, GatewayKey)

_MINUTE: Final = 60.0
_FENCED_SHARE: Final = 0.05
_FENCED_FLOOR: Final = 16
"""Ranges that may be fenced in a minute however few there are: a node with all its pods."""
_LASTED: Final = 600.0


@dataclass(slots=True)
class _Series:
    """How often something was done, and when last."""

    count: int = 0
    last: float = float("-inf")


class Paces:
    """Things that are done to ranges again and again, each time after a longer pause."""

    def __init__(self, pace: Callable[[int], float]) -> None:
        self._pace = pace
        self._series: dict[RangeKey, _Series] = {}

    def wait(self, key: RangeKey, now: float) -> float:
        """Say in how many seconds it may be done again."""
        series = self._series.get(key)
        return max(0.0, series.last + self._pace(series.count) - now) if series else 0.0

    def count(self, key: RangeKey) -> int:
        """Say how often it was done."""
        series = self._series.get(key)
        return series.count if series else 0

    def note(self, key: RangeKey, now: float) -> None:
        """Note that it was done."""
        series = self._series.setdefault(key, _Series())
        series.count += 1
        series.last = now

    def restore(self, key: RangeKey, count: int, age: float, now: float) -> None:
        """Remember what an operator before this one noted, unless it is `age` seconds ago and has long healed."""
        if age <= max(_LASTED, self._pace(count)):
            self._series.setdefault(key, _Series(count, now - age))

    def reset(self, key: RangeKey) -> None:
        """Begin anew: the range is fine."""
        self._series.pop(key, None)

    def reset_if_lasting(self, key: RangeKey, now: float) -> None:
        """Begin anew if the last time is long ago."""
        series = self._series.get(key)
        if series is not None and now - series.last > _LASTED:
            self.reset(key)


class FenceLimit:
    """At most 5 % of the ranges, or 16, are fenced in a minute: our own blindness must not fence them all."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def allows(self, now: float, ranges: int) -> bool:
        """Say whether another range may be fenced now."""
        while self._times and now - self._times[0] > _MINUTE:
            self._times.popleft()
        return len(self._times) < max(_FENCED_FLOOR, math.floor(ranges * _FENCED_SHARE))

    def note(self, now: float) -> None:
        """Note that a range was fenced."""
        self._times.append(now)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a gateway's key found out that matters to its bot.

    `askable`: Discord may be asked with its token. `eligible`: it may be granted identifies.
    """

    token_fine: bool = True
    askable: bool = False
    eligible: bool = False
    fingerprint: str = ""


class Memory:
    """The controllers' notes."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.wanted: dict[GatewayKey, Wanted] = {}
        self.standing: dict[GatewayKey, Standing] = {}
        self.budgets: dict[GatewayKey, BudgetVerdict] = {}
        self.stalled: dict[RangeKey, GatewayKey] = {}
        self.troubles: dict[RangeKey, str] = {}
        self.child_troubles: dict[GatewayKey, str] = {}
        self.handed_over: dict[RangeKey, GatewayKey] = {}
        """Ranges in a hand-over because of their node."""
        self.waiting: dict[RangeKey, str] = {}
        """What hand-overs wait for before they begin."""
        self.refused_tokens: set[Fingerprint] = set()
        self.fences = FenceLimit()

    def forget_gateway(self, key: GatewayKey) -> None:
        """Drop the notes on a gateway that no longer exists."""
        for notes in (self.wanted, self.standing, self.budgets, self.child_troubles):
            notes.pop(key, None)

    def forget_range(self, key: RangeKey) -> None:
        """Drop the notes on a range that no longer exists."""
        for notes in (self.stalled, self.troubles, self.handed_over, self.waiting):
            notes.pop(key, None)

    def stalled_of(self, key: GatewayKey) -> frozenset[RangeKey]:
        """List the ranges of a gateway whose new pod does not get ready."""
        return frozenset(one for one, gateway in self.stalled.items() if gateway == key)

    def handed_over_of(self, key: GatewayKey) -> frozenset[RangeKey]:
        """List the ranges of a gateway that are in a hand-over because of their node."""
        return frozenset(one for one, gateway in self.handed_over.items() if gateway == key)


def note(notes: dict[_K, str], key: _K, text: str) -> bool:
    """Note a text, or that there is none any more; say whether that is news."""
    if notes.get(key, "") == text:
        return False
    notes[key] = text
    if not text:
        del notes[key]
    return True
