"""The cluster in memory: for component tests, and for a process that runs without any cluster.

One `LocalCluster` holds what the API server would: ranges, gateways, identify Leases. Several coordinators ("pods") share
it, several ranges at once, all in one event loop. Tests play the operator with its other methods (`grant`, `hold`,
`activate`, `fence`, `delete`, ...), and its faults with `cut` and `restore`.

It keeps what the real one keeps: writes are atomic and judged by the live state (nothing here awaits between reading and
writing); `view` follows every change at once, except for a pod that is cut off: that one raises
`CoordinatorUnavailable` and sees everything again on `restore`. Identify slots follow the same rules (`bucket.py`,
`slots.py`) on Leases that all coordinators share; `window` shortens them. Time is the event loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec.structs import replace

from shardwright_api.resources import (
    ObjectMeta,
    RangeSpec,
    ShardRange,
    ShardStatus,
    SinkStatus,
    StandbyStatus,
)
from shardwright_shard.coordination import bucket as rule
from shardwright_shard.coordination import rules
from shardwright_shard.coordination.base import View
from shardwright_shard.coordination.bucket import LeaseState
from shardwright_shard.coordination.slots import Slots, Swapped
from shardwright_shard.coordination.wall import timestamp
from shardwright_shard.errors import CoordinatorUnavailable, NotHolder, RangeGone

Watcher = Callable[[], None]


class Won(NamedTuple):
    """A swap that was won, for tests: event loop time, bot, bucket, and `<pod>/<shard>`."""

    at: float
    bot: str
    bucket: int
    holder: str


class LocalCluster:
    """API server and operator in memory. With `make_leases` False a bucket's Lease is there after `make_lease` only."""

    def __init__(
        self, *, window: float = rule.WINDOW, make_leases: bool = True, wall: Callable[[], str] = timestamp
    ) -> None:
        self.window = window
        self.wall = wall
        self.swaps: list[Won] = []
        self._make_leases = make_leases
        self._ranges: dict[str, ShardRange] = {}
        self._gateways: dict[str, int] = {}
        self._leases: dict[tuple[str, int], LeaseState] = {}
        self._cut: set[str] = set()
        self._watchers: list[Watcher] = []
        self._created = 0

    # --- the operator, played by tests ---

    def add_range(self, name: str, spec: RangeSpec) -> None:
        """Make a ShardRange, with a new UID each time, and its gateway."""
        self._created += 1
        self._gateways.setdefault(spec.config.gateway, self._created)
        self._store(ShardRange(metadata=ObjectMeta(name=name, uid=f"range-{self._created}"), spec=spec))

    def change(self, name: str, **fields: Any) -> None:
        """Change fields of a range's spec."""
        found = self.range(name)
        self._store(replace(found, spec=replace(found.spec, **fields)))

    def grant(self, name: str, count: int) -> None:
        """Grant so many identifies more."""
        self.change(name, identify_grant=self.range(name).spec.identify_grant + count)

    def hold(self, name: str, *, on: bool) -> None:
        """Pull the emergency stop, or release it."""
        self.change(name, hold=on)

    def activate(self, name: str, pod: str) -> None:
        """Want this pod to hold the range."""
        self.change(name, active_pod=pod, epoch=self.range(name).spec.epoch + 1)

    def fence(self, name: str, pod: str) -> None:
        """Declare this pod dead: the active one may take the range from it."""
        self.change(name, fenced_holder=pod)

    def delete(self, name: str) -> None:
        """Delete a range."""
        del self._ranges[name]
        self._publish()

    def delete_gateway(self, gateway: str) -> None:
        """Delete a DiscordGateway. Its ranges go by `delete`."""
        del self._gateways[gateway]

    def recreate_gateway(self, gateway: str) -> None:
        """Delete a DiscordGateway and make another one of the same name."""
        self._created += 1
        self._gateways[gateway] = self._created

    def make_lease(self, bot: str, bucket: int) -> None:
        """Make the Lease of a bucket."""
        self._leases.setdefault((bot, bucket), LeaseState("0", ""))
        self._publish()

    # --- faults ---

    def cut(self, *pods: str) -> None:
        """Cut pods off from the API."""
        self._cut.update(pods)
        self._publish()

    def restore(self) -> None:
        """Let every pod reach the API again."""
        self._cut.clear()
        self._publish()

    # --- for both sides ---

    def coordinator(self, name: str, *, pod: str) -> LocalCoordinator:
        """Give a pod's coordinator for a range. `pod` is the pod's UID, and its name too."""
        return LocalCoordinator(self, name=name, pod=pod)

    def range(self, name: str) -> ShardRange:
        """Give a range as it stands. Raise `RangeGone`."""
        if name not in self._ranges:
            raise RangeGone(f"ShardRange {name} is not there")
        return self._ranges[name]

    def write(self, name: str, **fields: Any) -> None:
        """Change fields of a range's status."""
        found = self.range(name)
        self._store(replace(found, status=replace(found.status, **fields)))

    def gateway(self, name: str) -> int | None:
        """Give what stands for the UID of a gateway; None if it is gone."""
        return self._gateways.get(name)

    def lease(self, bot: str, bucket: int) -> LeaseState | None:
        """Give the Lease of a bucket as it stands."""
        if self._make_leases:
            self._leases.setdefault((bot, bucket), LeaseState("0", ""))
        return self._leases.get((bot, bucket))

    def swap(self, bot: str, bucket: int, *, seen: LeaseState, holder: str) -> Swapped:
        """Swap a Lease if it still is as seen."""
        if (lease := self.lease(bot, bucket)) != seen:
            return Swapped(won=False, lease=lease)
        swapped = self._leases[bot, bucket] = LeaseState(str(int(seen.version) + 1), holder)
        self.swaps.append(Won(asyncio.get_running_loop().time(), bot, bucket, holder))
        self._publish()
        return Swapped(won=True, lease=swapped)

    def check(self, pod: str) -> None:
        """Raise `CoordinatorUnavailable` if the pod is cut off."""
        if pod in self._cut:
            raise CoordinatorUnavailable(f"pod {pod} is cut off from the cluster")

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` after every change of anything. It must look for itself what changed."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Stop calling it."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def _store(self, found: ShardRange) -> None:
        self._ranges[found.metadata.name] = found
        self._publish()

    def _publish(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()


@dataclass(slots=True)
class _Origin:
    """What a coordinator remembers from its start: a range or a gateway with another UID is another one."""

    range_uid: str
    gateway: int | None


class LocalCoordinator:
    """A pod's `Coordinator` on a `LocalCluster`."""

    def __init__(self, cluster: LocalCluster, *, name: str, pod: str) -> None:
        self._cluster = cluster
        self._name = name
        self._pod = pod
        self._changed = asyncio.Event()
        self._gone: RangeGone | None = None
        self._seen: ShardRange
        self._origin: _Origin | None = None
        self._slots: Slots

    @property
    def view(self) -> View:
        """Give the range as last seen."""
        return rules.view(self._seen, self._pod)

    async def start(self) -> None:
        """Read the range and follow it from now on."""
        found = self._seen = self._range()
        self._origin = _Origin(found.metadata.uid, self._cluster.gateway(found.spec.config.gateway))
        self._slots = Slots(
            swap=self._swap,
            watch=self._watch,
            max_concurrency=found.spec.max_concurrency,
            window=self._cluster.window,
        )
        self._cluster.watch(self._follow)

    async def changed(self) -> None:
        """Wait for news: the spec, the holder, or the end of the range."""
        await self._changed.wait()
        if self._gone is not None:
            raise self._gone
        self._changed.clear()

    async def take(self) -> bool:
        """Become the holder if the live state allows it."""
        found = self._range()
        if not rules.may_take(found, self._pod):
            return False
        self._write(holder=self._pod, epoch=found.spec.epoch, heartbeat_time=self._cluster.wall(), standby={})
        return True

    async def report(self, shards: list[ShardStatus], sinks: list[SinkStatus], *, spool_bytes: int = 0) -> None:
        """Write heartbeat and checkpoint as the holder."""
        self._held()
        self._write(
            heartbeat_time=self._cluster.wall(), shards=tuple(shards), sinks=tuple(sinks), spool_bytes=spool_bytes
        )

    async def report_standby(self, *, sinks_available: bool) -> None:
        """Write the pod's own standby entry."""
        standby = self._range().status.standby
        since = standby[self._pod].since if self._pod in standby else self._cluster.wall()
        entry = StandbyStatus(since=since, sinks_available=sinks_available)
        evicted = rules.evicted(standby, self._pod)
        kept = {pod: other for pod, other in standby.items() if pod not in evicted}
        self._write(standby=kept | {self._pod: entry})

    async def release(self, shards: list[ShardStatus], sinks: list[SinkStatus]) -> None:
        """Write the final checkpoint, an empty holder and no spool."""
        if self._range().status.holder == "":
            return
        self._held()
        now = self._cluster.wall()
        self._write(heartbeat_time=now, shards=tuple(shards), sinks=tuple(sinks), spool_bytes=0, holder="")

    async def spend(self) -> bool:
        """Pay for one identify if the live state allows it."""
        found = self._range()
        if not rules.may_spend(found, self._pod):
            return False
        self._write(identifies_spent=found.status.identifies_spent + 1)
        return True

    async def forfeit(self) -> None:
        """Give up all open grants."""
        found = self._held()
        self._write(identifies_spent=max(found.status.identifies_spent, found.spec.identify_grant))

    def watch_bucket(self, bucket: int) -> None:
        """Begin to observe an identify bucket."""
        self._slots.want(bucket)

    async def slot(self, bucket: int, shard: int) -> float | None:
        """Wait for the bucket's next identify window and win it."""
        self._cluster.check(self._pod)
        return await self._slots.slot(bucket, shard)

    def identified(self, bucket: int, *, too_early: bool) -> None:
        """Leave the bucket more time after an IDENTIFY that came too early, and less again after one in time."""
        self._slots.judge(bucket, too_early=too_early)

    async def holds(self) -> bool:
        """Say whether this pod holds the live range."""
        return rules.holds(self._range(), self._pod)

    async def gateway_gone(self) -> bool:
        """Say whether the gateway that was there at the start is gone."""
        self._cluster.check(self._pod)
        gateway = self._cluster.gateway(self._seen.spec.config.gateway)
        return gateway is None or self._origin is None or gateway != self._origin.gateway

    async def close(self) -> None:
        """Stop following, if that ever began."""
        if self._origin is not None:
            self._cluster.unwatch(self._follow)
            self._slots.close()

    def _range(self) -> ShardRange:
        """Read the live range as this pod."""
        self._cluster.check(self._pod)
        found = self._cluster.range(self._name)
        if self._gone is not None or (self._origin is not None and found.metadata.uid != self._origin.range_uid):
            raise RangeGone(f"another ShardRange is named {self._name} now")
        return found

    def _held(self) -> ShardRange:
        """Read the live range. Raise `NotHolder` if this pod does not stand in it."""
        found = self._range()
        if found.status.holder != self._pod:
            raise NotHolder(f"pod {found.status.holder or 'nobody'} holds {self._name}")
        return found

    def _write(self, **fields: Any) -> None:
        """Write to the status. News of our own making wakes nobody."""
        woken = self._changed.is_set()
        self._cluster.write(self._name, **fields)
        if not woken:
            self._changed.clear()

    def _follow(self) -> None:
        """Look at the cluster after a change: the range, and the buckets that somebody waits for."""
        try:
            found = self._range()
        except CoordinatorUnavailable as error:
            for bucket in self._slots.watched():
                self._slots.fail(bucket, error)
        except RangeGone as gone:
            self._gone = gone
            self._changed.set()
        else:
            self._take_in(found)

    def _take_in(self, found: ShardRange) -> None:
        if rules.news(found) != rules.news(self._seen):
            self._changed.set()
        self._seen = found
        for bucket in self._slots.watched():
            self._slots.observe(bucket, self._cluster.lease(found.spec.bot_id, bucket))

    def _watch(self, _bucket: int) -> Callable[[], object]:
        """Show the bucket's Lease once, soon; `_follow` does the rest."""
        return asyncio.get_running_loop().call_soon(self._follow).cancel

    async def _swap(self, bucket: int, seen: LeaseState, shard: int) -> Swapped:
        self._cluster.check(self._pod)
        return self._cluster.swap(self._seen.spec.bot_id, bucket, seen=seen, holder=rule.identity(self._pod, shard))
