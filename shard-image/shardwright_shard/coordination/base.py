"""The engine's only view of the cluster: range, holder, grants, identify slots and checkpoints.

There are two implementations: `kubernetes.py` on a ShardRange and Leases, `local.py` in memory for tests and for a
process without any cluster. The engine never looks behind this Protocol.

What is guaranteed: at most one pod of a range is *holder*, and only the holder may open sessions. `spend` is written
before the identify that it pays for is sent; an identify slot is won before IDENTIFY is sent. What fails raises
`CoordinatorUnavailable` (try again) or a `Terminal` error; nothing is half done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shardwright_api.resources import RangeSpec, RangeStatus, ShardStatus, SinkStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The range as this pod last saw it: read at the start, then kept fresh by a watch."""

    spec: RangeSpec
    status: RangeStatus
    active: bool
    """The operator wants this pod to hold the range."""
    holding: bool
    """This pod stands in the object as its holder."""


class Coordinator(Protocol):
    """What a pod may ask of, and say to, its cluster."""

    @property
    def view(self) -> View:
        """Give the range as last seen. Only after `start`."""

    async def start(self) -> None:
        """Read the range, and keep `view` fresh from now on. Raise `RangeGone` where there is none."""

    async def changed(self) -> None:
        """Return when `view` has changed since the last return (at once if it has already). Raise `RangeGone`."""

    async def take(self) -> bool:
        """Become the holder by compare-and-swap, if active and the range is free or fenced; say whether we hold it."""

    async def report(self, shards: list[ShardStatus], sinks: list[SinkStatus], *, spool_bytes: int = 0) -> None:
        """Write heartbeat, states and checkpoint as the holder. Raise `NotHolder` if another pod holds the range."""

    async def report_standby(self, *, sinks_available: bool) -> None:
        """Say that this pod waits to take over. Call it with each heartbeat: it writes only what is not there yet."""

    async def release(self, shards: list[ShardStatus], sinks: list[SinkStatus]) -> None:
        """Write the final cursors and an empty holder in one step. Raise `NotHolder` if another pod holds the range."""

    async def spend(self) -> bool:
        """Pay for one identify: raise `identifiesSpent` by compare-and-swap if spent < granted and nothing is on hold."""

    async def forfeit(self) -> None:
        """Give up all open grants (spent = granted): after a fatal close code. A new grant is the sign to try again.

        Raise `NotHolder` if another pod holds the range.
        """

    def watch_bucket(self, bucket: int) -> None:
        """Begin to observe an identify bucket, so that a later `slot` need not count it as changed just now."""

    async def slot(self, bucket: int, shard: int) -> float | None:
        """Wait for the bucket's next identify window and win it.

        Give the time (`asyncio` loop time, seconds) until which IDENTIFY may be sent: 250 ms after the swap was *sent*.
        Give None if the answer came too late for that: the slot is given up, call again.
        """

    def identified(self, bucket: int, *, too_early: bool) -> None:
        """Hear how Discord took an IDENTIFY: one that came too early makes this pod leave the bucket more time."""

    async def holds(self) -> bool:
        """Ask the API now whether this pod still holds the range, and is not fenced with another one active.

        Raise `CoordinatorUnavailable` if it cannot tell.
        """

    async def gateway_gone(self) -> bool:
        """Ask whether the DiscordGateway is gone (deleted, another UID, or forbidden): then the bot shall go offline.

        Raise `CoordinatorUnavailable` if it cannot tell.
        """

    async def close(self) -> None:
        """Stop watching and close connections."""
