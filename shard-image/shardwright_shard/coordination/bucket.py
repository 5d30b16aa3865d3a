"""When a shard may try for its bucket's identify window: pure decisions on what was seen of the bucket's Lease.

Discord takes one identify per bucket in 5 s (Gateway > Rate Limiting). All shards of a bot that share a bucket share one
Lease. Whoever wants to identify *swaps* it: a write that succeeds only on the version that it last saw. What keeps two
identifies apart, without ever comparing the clocks of two machines:

1. The winner sends IDENTIFY at most `SEND_WITHIN` after it *sent* its swap; it reached Discord before
   `swap + 0.25 s + its latency`.
2. Everyone else swaps no earlier than `WINDOW` after it *saw* that change, which was after the swap was sent, and a
   swap on an older version fails. Its identify reaches Discord after `swap + 5.4 s + its latency`.
3. So at least `5.4 - 0.25 = 5.15 s` lie between two arrivals, less what the latencies differ: 150 ms leave 5 s.

A version that was never seen before counts as changed at the moment it is first seen. A version seen earlier keeps its
time even if nobody watched in between: a swap on it proves that nothing happened since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

WINDOW: Final = 5.4
"""Seconds from seeing a Lease change to trying to swap it."""
SEND_WITHIN: Final = 0.25
"""Seconds from sending the swap within which IDENTIFY must be sent."""
STEP: Final = 0.015
"""Seconds that a contender waits more than the one before it: about the time from a swap to its sight by others."""
MAX_STAGGER: Final = 0.06


class LeaseState(NamedTuple):
    """What a Lease says: its resourceVersion, and who swapped it last (`<pod>/<shard>`, or empty)."""

    version: str
    holder: str


@dataclass(frozen=True, slots=True)
class Sight:
    """A state of the Lease, and when this process first saw it (its own monotonic clock, seconds)."""

    lease: LeaseState
    since: float


def see(before: Sight | None, lease: LeaseState | None, now: float) -> Sight | None:
    """Give the sight after an observation; None where there is no Lease."""
    if lease is None:
        return None
    if before is not None and before.lease.version == lease.version:
        return before
    return Sight(lease, now)


def next_try_at(sight: Sight, *, shard: int, max_concurrency: int, window: float = WINDOW) -> float:
    """Give the earliest time at which this shard may send a swap of what it saw."""
    return sight.since + window + stagger(sight.lease.holder, shard=shard, max_concurrency=max_concurrency)


def stagger(holder: str, *, shard: int, max_concurrency: int) -> float:
    """Give the delay that makes ascending order likely: `STEP` for each place behind the shard that is next in turn.

    The next in turn after shard n is n + max_concurrency, and it waits for nothing; nor does a shard whose turn is past.
    """
    last = last_shard(holder)
    place = shard // max_concurrency if last is None else (shard - last) // max_concurrency - 1
    return min(max(place, 0) * STEP, MAX_STAGGER)


def last_shard(holder: str) -> int | None:
    """Read the shard from a holder identity; None if nobody held it, or it is not one of ours."""
    _, _, shard = holder.rpartition("/")
    return int(shard) if shard.isascii() and shard.isdigit() else None


def identity(pod: str, shard: int) -> str:
    """Name who swaps: `<pod>/<shard>`."""
    return f"{pod}/{shard}"


def send_until(sent_at: float, answered_at: float) -> float | None:
    """Give the time until which IDENTIFY may be sent, or None if the swap's answer came too late for it."""
    deadline = sent_at + SEND_WITHIN
    return deadline if answered_at < deadline else None
