"""Where the shards of one pod wait for identify slots: a line per bucket, lowest shard first, one swap in flight each.

`bucket.py` decides when a try is due; this waits for that moment and swaps. An implementation hands in `swap` (one
conditional write of the bucket's Lease) and `watch` (start to observe a bucket, and give a function that stops it), and
calls `observe` with every state that it sees and `fail` when it cannot see any.

A bucket is watched from the first `want` or `slot` until nobody has waited for `LINGER` seconds. What was seen stays
known afterwards: a later `slot` needs one read, and waits a whole window only if somebody else swapped meanwhile.

On failure: a swap that cannot be sent or answered, or a watch that fails, raises `CoordinatorUnavailable` out of `slot`;
the slot counts as given up (the swap may have been stored), and calling again is right.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from shardwright_shard.coordination import bucket as rule
from shardwright_shard.coordination.bucket import LeaseState, Sight
from shardwright_shard.errors import CoordinatorUnavailable

LINGER: Final = 15.0
"""Seconds for which a bucket is still watched after its last waiter: a reconnect usually needs several tries."""


MARGIN_STEP: Final = 0.25
"""Seconds by which a bucket's window grows with each IDENTIFY that came too early, and shrinks with each in time."""
MAX_MARGIN: Final = 2.0


class Swapped(NamedTuple):
    """A swap's answer: whether we won, and the Lease as it is now (None: there is none)."""

    won: bool
    lease: LeaseState | None


Swap = Callable[[int, LeaseState, int], Awaitable[Swapped]]
"""Swap a bucket's Lease from a state, for a shard."""
Watch = Callable[[int], Callable[[], object]]
"""Start to observe a bucket; give what stops it."""


@dataclass(order=True, slots=True)
class _Ticket:
    """A shard's place in a line. `bell` rings when it shall look again."""

    shard: int
    bell: asyncio.Event = field(compare=False, default_factory=asyncio.Event)
    error: CoordinatorUnavailable | None = field(compare=False, default=None)


class _Line:
    """One bucket: the last sight of its Lease, and who waits for it."""

    def __init__(self) -> None:
        self.sight: Sight | None = None
        self.tickets: list[_Ticket] = []
        self.swapping = False
        self.margin = 0.0
        """Seconds more than the window: our clock, or the way to Discord, is not what we took it for."""
        self.stop: Callable[[], object] | None = None
        self.linger: asyncio.TimerHandle | None = None

    def ring(self) -> None:
        """Let everyone in line look again."""
        for ticket in self.tickets:
            ticket.bell.set()

    def fail(self, error: CoordinatorUnavailable) -> None:
        """Tell everyone in line that nothing can be seen."""
        for ticket in self.tickets:
            ticket.error = error
        self.ring()


class Slots:
    """All identify buckets that this pod has waited for."""

    def __init__(self, *, swap: Swap, watch: Watch, max_concurrency: int, window: float = rule.WINDOW) -> None:
        self._swap = swap
        self._watch = watch
        self._max_concurrency = max_concurrency
        self._window = window
        self._lines: dict[int, _Line] = {}

    def want(self, bucket: int) -> None:
        """Watch a bucket for a while, whether or not somebody waits for it."""
        line = self._lines.setdefault(bucket, _Line())
        if line.stop is None:
            line.stop = self._watch(bucket)
        self._restart_linger(bucket, line)

    def observe(self, bucket: int, lease: LeaseState | None) -> None:
        """Take in what was seen of a bucket's Lease just now."""
        line = self._lines[bucket]
        line.sight = rule.see(line.sight, lease, _now())
        line.ring()

    def fail(self, bucket: int, error: CoordinatorUnavailable) -> None:
        """Raise `error` to everyone who waits for the bucket."""
        self._lines[bucket].fail(error)

    def judge(self, bucket: int, *, too_early: bool) -> None:
        """Take in whether this pod's last IDENTIFY came too early for Discord."""
        line = self._lines.setdefault(bucket, _Line())
        change = MARGIN_STEP if too_early else -MARGIN_STEP
        line.margin = min(max(line.margin + change, 0.0), MAX_MARGIN)

    def close(self) -> None:
        """Stop every watch."""
        for line in self._lines.values():
            _stop(line)

    def watched(self) -> list[int]:
        """List the buckets that are watched now."""
        return sorted(bucket for bucket, line in self._lines.items() if line.stop is not None)

    async def slot(self, bucket: int, shard: int) -> float | None:
        """Wait, win, and give the time until which IDENTIFY may be sent; None if the answer came too late."""
        self.want(bucket)
        line, ticket = self._lines[bucket], _Ticket(shard)
        insort(line.tickets, ticket)
        try:
            return await self._win(bucket, line, ticket)
        finally:
            line.tickets = [other for other in line.tickets if other is not ticket]
            line.ring()
            self._restart_linger(bucket, line)

    async def _win(self, bucket: int, line: _Line, ticket: _Ticket) -> float | None:
        while True:
            lease = await self._turn(line, ticket)
            sent_at = _now()
            if await self._try(bucket, line, lease, ticket.shard):
                return rule.send_until(sent_at, _now())

    async def _turn(self, line: _Line, ticket: _Ticket) -> LeaseState:
        """Wait until this ticket may swap, and give the state to swap."""
        while True:
            wait = self._wait(line, ticket)
            if line.sight is not None and wait is not None and wait <= 0:
                return line.sight.lease
            await _bell(ticket, wait)

    def _wait(self, line: _Line, ticket: _Ticket) -> float | None:
        """Give the seconds until this ticket may swap, or None if that is not up to time."""
        if line.tickets[0] is not ticket or line.swapping or line.sight is None:
            return None
        shard, buckets, window = ticket.shard, self._max_concurrency, self._window + line.margin
        return rule.next_try_at(line.sight, shard=shard, max_concurrency=buckets, window=window) - _now()

    async def _try(self, bucket: int, line: _Line, lease: LeaseState, shard: int) -> bool:
        """Swap once and take the answer in. A loss counts as a change seen now, whatever the answer shows."""
        line.swapping = True
        try:
            swapped = await self._swap(bucket, lease, shard)
        finally:
            line.swapping = False
        if not swapped.won:
            line.sight = None
        self.observe(bucket, swapped.lease)
        return swapped.won

    def _restart_linger(self, bucket: int, line: _Line) -> None:
        if line.linger is not None:
            line.linger.cancel()
        line.linger = asyncio.get_running_loop().call_later(LINGER, self._idle, bucket)

    def _idle(self, bucket: int) -> None:
        line = self._lines[bucket]
        if not line.tickets:
            _stop(line)


def _stop(line: _Line) -> None:
    """Stop watching; what was seen stays known."""
    if line.linger is not None:
        line.linger.cancel()
    if line.stop is not None:
        line.stop()
    line.linger = line.stop = None


async def _bell(ticket: _Ticket, seconds: float | None) -> None:
    """Wait for the bell, but no longer than so many seconds. Raise what the watch failed with."""
    try:
        async with asyncio.timeout(seconds):
            await ticket.bell.wait()
    except TimeoutError:
        return
    ticket.bell.clear()
    if ticket.error is not None:
        raise ticket.error


def _now() -> float:
    return asyncio.get_running_loop().time()
