"""The window: which published events are not acknowledged yet, and how far the acknowledged ones reach without a hole.

Every published event gets a *number*, counted up from 0 and never given twice, so that what comes late for an event
before a `reset` is known as such. A publish of several events of one batch is one *flight*. Acknowledgements may come
in any order; `position` only moves over a run of numbers without a hole, and gives the journal position before which
everything is acknowledged or was not to be sent at all.

The window is bounded by events and bytes; bytes are given back by the flight, and one flight may always leave when
nothing else is under way, however large.

Pure: the sink at the edge asks for `room`, tells what it sent and what came back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple


class _Flight(NamedTuple):
    first: int
    positions: Sequence[int]
    size: int


class Window:
    """Events under way. `low`: the first number that is not acknowledged; `high`: the next number to give."""

    def __init__(self, *, events: int, size: int) -> None:
        self._limit = events
        self._size_limit = size
        self._flights: deque[_Flight] = deque()
        self._ahead: set[int] = set()
        self._behind = 0
        self.low = 0
        self.high = 0
        self.size = 0

    @property
    def under_way(self) -> int:
        """Count the events from the first that is not acknowledged to the last that was sent."""
        return self.high - self.low

    @property
    def room(self) -> int:
        """Count the events that may be sent now."""
        return self._limit - self.under_way if self.size < self._size_limit else 0

    @property
    def size_room(self) -> int:
        """Count the bytes that may be sent now."""
        return self._size_limit - self.size

    @property
    def position(self) -> int:
        """Give the journal position before which nothing is left to be acknowledged."""
        if not self._flights:
            return self._behind
        flight = self._flights[0]
        return flight.positions[self.low - flight.first]

    @property
    def ahead(self) -> list[int]:
        """Give the journal positions that were acknowledged behind one that is not."""
        return [
            position
            for flight in self._flights
            for number, position in enumerate(flight.positions, flight.first)
            if number in self._ahead
        ]

    def sent(self, positions: Sequence[int], size: int, behind: int) -> None:
        """Note events at these journal positions, rising, of `size` bytes; everything before `behind` was looked at."""
        self._behind = behind
        if positions:
            self._flights.append(_Flight(self.high, positions, size))
            self.high += len(positions)
            self.size += size

    def acknowledge(self, numbers: list[int]) -> int:
        """Take acknowledgements in any order; give how far `low` moved. Unknown and repeated numbers are harmless."""
        if numbers[0] == self.low and numbers[-1] < self.high and numbers == list(range(self.low, numbers[-1] + 1)):
            return self._advance(numbers[-1] + 1)
        self._ahead.update(number for number in numbers if self.low <= number < self.high)
        return self._advance(self.low)

    def acknowledge_before(self, number: int) -> int:
        """Take everything before `number` as acknowledged; give how far `low` moved."""
        return self._advance(max(self.low, min(number, self.high)))

    def reset(self, behind: int) -> None:
        """Forget what is under way: everything from position `behind` on will be sent again, under new numbers."""
        self._flights.clear()
        self._ahead.clear()
        self._behind = behind
        self.low = self.high
        self.size = 0

    def _advance(self, low: int) -> int:
        """Move `low` to `low`, and on over what was acknowledged ahead; let go of flights that have landed."""
        while low in self._ahead:
            self._ahead.discard(low)
            low += 1
        moved, self.low = low - self.low, low
        while self._flights and self._flights[0].first + len(self._flights[0].positions) <= low:
            self.size -= self._flights.popleft().size
        return moved
