"""The `Coordinator` on a ShardRange and identify Leases.

What is seen. One watch follows the ShardRange for the pod's whole life; states come by it, by reads, and as answers to
the pod's own writes, and the newest `resourceVersion` wins. `changed()` is woken by what others did: a new spec, another
holder, the object's end; never by the pod's own reports, nor by its own taking and releasing.

How each write keeps its promise, without ever waiting for the others:

* `take` is a merge patch conditional on the `resourceVersion` that was judged by `rules.py`.
* All that a holder writes is a JSON patch that begins with tests of what it rests on; the API server applies tests and
  writes as one. `report` and `release` test the object's UID and `/status/holder` = own UID; `spend` and `forfeit` also
  test `/status/identifiesSpent` and `/metadata/generation`, which stands for the whole spec. So a late write of a pod that
  lost the range can never overwrite its successor's cursors, one spend never pays for two identifies, and other writers
  of the object never make one of these fail. Measured in a storm of 50 to 80 writes a second: a spend takes 18-57 ms so, 68-363 ms on
  `resourceVersion`, which in 2 of 5 runs also lost 17 times in a row.
* `report_standby` merge-patches one key that only this pod writes, and only when it differs from what is seen. The map
  is bounded: whoever takes the range empties it (who still waits writes again), and the oldest entry makes room.
* `slot` replaces the bucket's Lease on the `resourceVersion` that was seen, with all else in it as it was.

What `take`, `spend` and `forfeit` were refused is read again and judged again; a "no" too is only given on a fresh read.
Own writes to the range go one at a time. On failure they raise `CoordinatorUnavailable` (also where rights are missing:
they may come back), `NotHolder` or `RangeGone`; a write whose answer was lost may have been stored, and repeating it is right:
`spend` then pays twice, which wastes a grant and never the budget.

What a watch costs: one TLS connection each, on the pod (0.1 MB with uvloop, 0.6 MB with asyncio) and on the API server. A
pod has one for its range, and one for each bucket that its shards wait for or have just waited for (`slots.py`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import msgspec

from shardwright_api import names
from shardwright_api.resources import (
    API_VERSION,
    Model,
    ObjectMeta,
    ShardConfig,
    ShardRange,
    ShardStatus,
    SinkStatus,
    StandbyStatus,
    decode,
)
from shardwright_shard.coordination import api_client, rules
from shardwright_shard.coordination import bucket as rule
from shardwright_shard.coordination.api_client import ApiClient, Conflict, Forbidden, Invalid, NotFound, PatchType
from shardwright_shard.coordination.base import View
from shardwright_shard.coordination.bucket import LeaseState
from shardwright_shard.coordination.slots import Slots, Swapped
from shardwright_shard.coordination.wall import timestamp
from shardwright_shard.coordination.watch import follow
from shardwright_shard.errors import ConfigError, CoordinatorUnavailable, NotHolder, RangeGone

log = logging.getLogger(__name__)

ATTEMPTS: Final = 16
"""How often a refused write is judged and tried again before it counts as unavailable."""
CONFLICT_WAIT: Final = 0.02
"""Seconds between two attempts, times the number of the attempt, with jitter."""
LEASES: Final = "coordination.k8s.io/v1"


class Lease(msgspec.Struct, rename="camel"):
    """A coordination.k8s.io/v1 Lease. What we do not know of it is kept, so that replacing it loses nothing."""

    metadata: dict[str, Any]
    spec: dict[str, Any] = {}
    api_version: str = LEASES
    kind: str = "Lease"

    @property
    def state(self) -> LeaseState:
        """Give what the bucket's rules need."""
        return LeaseState(self.metadata["resourceVersion"], self.spec.get("holderIdentity") or "")

    def swapped(self, holder: str, *, version: str, now: str) -> Lease:
        """Give the Lease as `holder` takes it, conditional on the version that was seen."""
        transitions = self.spec.get("leaseTransitions", 0) + 1
        change = {"holderIdentity": holder, "leaseTransitions": transitions, "acquireTime": now, "renewTime": now}
        return Lease(metadata=self.metadata | {"resourceVersion": version}, spec=self.spec | change)


_Change = dict[str, Any]
"""Keys of the status as they go over the wire, or an operation of a JSON patch."""
_Write = Callable[[ShardRange, _Change], Awaitable[None]]
"""A write onto a state; it raises `Conflict` or `Invalid` if another one is stored."""


class _Named(Model, frozen=True):
    """Any object, as far as its metadata."""

    metadata: ObjectMeta


class KubernetesCoordinator:
    """One pod's coordinator. It owns `client` and closes it. `wall` gives the time of day, for people.

    `config` is what the pod was made with; None: it goes by the range's.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        namespace: str,
        range_name: str,
        pod_name: str,
        pod_uid: str,
        config: ShardConfig | None = None,
        wall: Callable[[], str] = timestamp,
    ) -> None:
        self._client = client
        self._config = config
        self._name = range_name
        self._pod_name = pod_name
        self._pod = pod_uid
        self._wall = wall
        self._resources = f"/apis/{API_VERSION}/namespaces/{namespace}"
        self._leases_path = f"/apis/{LEASES}/namespaces/{namespace}/leases"
        self._writing = asyncio.Lock()
        self._own_holder: str | None = None
        self._changed = asyncio.Event()
        self._gone: RangeGone | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._lease_watchers: set[asyncio.Task[None]] = set()
        self._leases: dict[int, Lease] = {}
        self._seen: ShardRange
        self._gateway_uid: str | None
        self._slots: Slots

    @property
    def view(self) -> View:
        """Give the range as last seen."""
        return rules.view(self._seen, self._pod, self._config)

    async def start(self) -> None:
        """Read the range, and follow it from now on."""
        try:
            found = self._seen = await self._client.get(self._path(), ShardRange)
        except NotFound as error:
            raise RangeGone(f"ShardRange {self._name} is not there") from error
        self._gateway_uid = _gateway_uid(found.metadata)
        self._slots = Slots(swap=self._swap, watch=self._watch_lease, max_concurrency=found.spec.max_concurrency)
        self._watcher = asyncio.create_task(self._follow_range(), name="ShardRange watch")
        self._watcher.add_done_callback(lambda _: self._changed.set())

    async def changed(self) -> None:
        """Wait for news from others: the spec, the holder, or the end of the range. Raise a bug of the watch, too."""
        await self._changed.wait()
        self._check_gone()
        if self._watcher is not None and self._watcher.done() and not self._watcher.cancelled():
            self._watcher.result()
        self._changed.clear()

    async def take(self) -> bool:
        """Become the holder, if what is stored allows it."""
        return await self._compare_and_swap(self._taken, self._write_onto, holder=self._pod)

    async def report(self, shards: list[ShardStatus], sinks: list[SinkStatus], *, spool_bytes: int = 0) -> None:
        """Write heartbeat and checkpoint, if what is stored names us as the holder."""
        await self._write_as_holder(self._rows(shards, sinks) | {"spoolBytes": spool_bytes})

    async def report_standby(self, *, sinks_available: bool) -> None:
        """Write the pod's own standby entry, where it is not there yet as it should be."""
        standby = self._seen.status.standby
        own = standby.get(self._pod)
        entry = StandbyStatus(since=own.since if own else self._wall(), sinks_available=sinks_available)
        if entry != own:
            change = {"standby": dict.fromkeys(rules.evicted(standby, self._pod)) | {self._pod: entry}}
            async with self._own_write():
                await self._patch({"status": change}, PatchType.MERGE)

    async def release(self, shards: list[ShardStatus], sinks: list[SinkStatus]) -> None:
        """Write the final checkpoint, an empty holder and no spool, if what is stored names us as the holder."""
        await self._write_as_holder(self._rows(shards, sinks) | {"holder": "", "spoolBytes": 0}, holder="")

    async def spend(self) -> bool:
        """Pay for one identify, if what is stored allows it."""
        return await self._compare_and_swap(self._spent, self._write_counter)

    async def forfeit(self) -> None:
        """Give up all open grants. Raise `NotHolder` if another pod holds the range."""
        await self._compare_and_swap(self._forfeited, self._write_counter)

    def identified(self, bucket: int, *, too_early: bool) -> None:
        """Leave the bucket more time after an IDENTIFY that came too early, and less again after one in time."""
        self._slots.judge(bucket, too_early=too_early)

    async def holds(self) -> bool:
        """Read whether this pod holds the range."""
        return rules.holds(await self._read(), self._pod)

    async def gateway_gone(self) -> bool:
        """Read whether the gateway that owned the range at the start is gone, or no longer ours to read."""
        path = f"{self._resources}/discordgateways/{self._seen.spec.config.gateway}"
        try:
            found = (await self._client.get(path, _Named)).metadata
        except (NotFound, Forbidden):
            return True
        return found.deletion_timestamp is not None or self._gateway_uid not in (None, found.uid)

    def watch_bucket(self, bucket: int) -> None:
        """Begin to observe an identify bucket."""
        self._slots.want(bucket)

    async def slot(self, bucket: int, shard: int) -> float | None:
        """Wait for the bucket's next identify window and win it."""
        return await self._slots.slot(bucket, shard)

    async def close(self) -> None:
        """Stop watching and close connections."""
        if self._watcher is not None:
            self._slots.close()
            self._watcher.cancel()
            await asyncio.wait([self._watcher, *self._lease_watchers])
        await self._client.close()

    # --- what is seen of the range ------------------------------------------------------------------------------

    def _path(self) -> str:
        return f"{self._resources}/shardranges/{self._name}"

    async def _follow_range(self) -> None:
        await follow(
            self._client,
            collection=f"{self._resources}/shardranges",
            name=self._name,
            kind=ShardRange,
            on_state=self._take_in,
            on_error=lambda error: log.warning("the ShardRange cannot be watched", extra={"error": str(error)}),
        )

    def _take_in(self, found: ShardRange | None) -> None:
        """Take in a state from wherever it came; None: there is no such object."""
        if found is None or found.metadata.uid != self._seen.metadata.uid:
            self._vanish("is not there any more" if found is None else "is another one of the same name now")
        elif not _older(found.metadata, self._seen.metadata):
            if _is_news(self._seen, found, self._own_holder):
                self._changed.set()
            self._seen = found

    def _vanish(self, how: str) -> None:
        if self._gone is None:
            self._gone = RangeGone(f"ShardRange {self._name} {how}")
            self._changed.set()

    def _check_gone(self) -> None:
        if self._gone is not None:
            raise self._gone

    @contextmanager
    def _vanishing(self) -> Iterator[None]:
        """Raise `RangeGone` where the range is known to be gone, or is found to be."""
        self._check_gone()
        try:
            yield
        except NotFound:
            self._take_in(None)
        self._check_gone()

    async def _read(self) -> ShardRange:
        """Read the range now."""
        with self._vanishing():
            self._take_in(await self._client.get(self._path(), ShardRange))
        return self._seen

    # --- writes to the range ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _own_write(self, holder: str | None = None) -> AsyncIterator[None]:
        """Keep own writes apart. A change of the holder to `holder` meanwhile is our own doing, and no news."""
        async with self._writing:
            self._own_holder = holder
            try:
                yield
            finally:
                self._own_holder = None

    async def _patch(self, body: Any, patch_type: PatchType) -> None:
        """Patch the status and take the answer in."""
        with self._vanishing():
            self._take_in(await self._client.patch(f"{self._path()}/status", ShardRange, body, patch_type))

    async def _compare_and_swap(
        self, decide: Callable[[ShardRange], _Change | None], write: _Write, *, holder: str | None = None
    ) -> bool:
        """Write what `decide` makes of the stored state, if it is still stored; False where it wants nothing."""
        async with self._own_write(holder):
            if await self._swapped(decide(self._seen), write):
                return True
            for attempt in range(ATTEMPTS):
                await asyncio.sleep(random.uniform(0, CONFLICT_WAIT * attempt))  # noqa: S311 - spreads load
                change = decide(await self._read())
                if change is None or await self._swapped(change, write):
                    return change is not None
        raise CoordinatorUnavailable(f"others wrote ShardRange {self._name} between each read and write of ours")

    async def _swapped(self, change: _Change | None, write: _Write) -> bool:
        """Write a change onto the state last seen; False if there is none, or another state is stored."""
        if change is None:
            return False
        try:
            await write(self._seen, change)
        except (Conflict, Invalid) as refusal:
            log.info("a write to the ShardRange was refused", extra={"error": str(refusal)})
            return False
        return True

    async def _write_onto(self, found: ShardRange, change: _Change) -> None:
        """Write keys of the status if the object is stored exactly as found."""
        condition = {"resourceVersion": found.metadata.resource_version}
        await self._patch({"metadata": condition, "status": change}, PatchType.MERGE)

    async def _write_counter(self, found: ShardRange, change: _Change) -> None:
        """Write keys of the status if we hold the range, and its spec and what was spent are stored as found."""
        unchanged = [
            _test("/metadata/generation", found.metadata.generation),
            _test("/status/identifiesSpent", found.status.identifies_spent),
        ]
        await self._patch([*self._own(), *unchanged, *_writes(change)], PatchType.JSON)

    def _own(self) -> list[_Change]:
        """Give the tests that a patch is for the range we know, and that we hold it."""
        return [_test("/metadata/uid", self._seen.metadata.uid), _test("/status/holder", self._pod)]

    def _taken(self, found: ShardRange) -> _Change | None:
        if not rules.may_take(found, self._pod):
            return None
        return {
            "holder": self._pod,
            "epoch": found.spec.epoch,
            "identifiesSpent": found.status.identifies_spent,  # unchanged, but there: `_write_counter` tests it
            "heartbeatTime": self._wall(),
            "standby": None,
        }

    def _spent(self, found: ShardRange) -> _Change | None:
        return {"identifiesSpent": found.status.identifies_spent + 1} if rules.may_spend(found, self._pod) else None

    def _forfeited(self, found: ShardRange) -> _Change | None:
        if found.status.holder != self._pod:
            raise self._not_holder(found)
        grant = found.spec.identify_grant
        return {"identifiesSpent": grant} if found.status.identifies_spent < grant else None

    def _rows(self, shards: list[ShardStatus], sinks: list[SinkStatus]) -> _Change:
        return {"heartbeatTime": self._wall(), "shards": shards, "sinks": sinks}

    async def _write_as_holder(self, change: _Change, *, holder: str | None = None) -> None:
        """Write keys of the status if, as stored, this is our range and we hold it. Raise `NotHolder`."""
        async with self._own_write(holder):
            try:
                await self._patch([*self._own(), *_writes(change)], PatchType.JSON)
            except Invalid:
                found = await self._read()
                if found.status.holder == self._pod:
                    raise
                if found.status.holder != holder:
                    raise self._not_holder(found) from None

    def _not_holder(self, found: ShardRange) -> NotHolder:
        return NotHolder(f"pod {found.status.holder or 'nobody'} holds ShardRange {self._name}")

    # --- identify slots -----------------------------------------------------------------------------------------

    def _lease_name(self, bucket: int) -> str:
        return names.lease_name(self._seen.spec.bot_id, bucket)

    def _watch_lease(self, bucket: int) -> Callable[[], object]:
        """Follow a bucket's Lease; give what stops it."""
        following = follow(
            self._client,
            collection=self._leases_path,
            name=self._lease_name(bucket),
            kind=Lease,
            on_state=partial(self._take_in_lease, bucket),
            on_error=partial(self._slots.fail, bucket),
        )
        task = asyncio.create_task(following, name=f"Lease watch {bucket}")
        self._lease_watchers.add(task)
        task.add_done_callback(self._lease_watchers.discard)
        return task.cancel

    def _take_in_lease(self, bucket: int, lease: Lease | None) -> None:
        self._slots.observe(bucket, self._keep(bucket, lease))

    def _keep(self, bucket: int, lease: Lease | None) -> LeaseState | None:
        """Keep the whole Lease for the next swap; give what the rules need of it."""
        if lease is None:
            self._leases.pop(bucket, None)
            return None
        self._leases[bucket] = lease
        return lease.state

    async def _swap(self, bucket: int, seen: LeaseState, shard: int) -> Swapped:
        """Replace the Lease as seen. Where that failed, give it as it is now."""
        path = f"{self._leases_path}/{self._lease_name(bucket)}"
        holder = rule.identity(self._pod_name, shard)
        wanted = self._leases[bucket].swapped(holder, version=seen.version, now=self._wall())
        try:
            return Swapped(won=True, lease=self._keep(bucket, await self._client.put(path, Lease, wanted)))
        except (Conflict, NotFound):
            return Swapped(won=False, lease=self._keep(bucket, await self._read_lease(path)))

    async def _read_lease(self, path: str) -> Lease | None:
        try:
            return await self._client.get(path, Lease)
        except NotFound:
            return None


def in_cluster(
    *, namespace: str, range_name: str, pod_name: str, pod_uid: str, config: str = ""
) -> KubernetesCoordinator:
    """Make the coordinator of the pod that this process runs in. Raise `ConfigError` outside a pod.

    `config` is the ShardConfig in JSON that the pod was made with; empty: it goes by the range's.
    """
    if not pod_name or not pod_uid:
        raise ConfigError("the pod's own name and UID are not set: give SHARDWRIGHT_POD_NAME and SHARDWRIGHT_POD_UID")
    client = ApiClient(api_client.in_cluster())
    return KubernetesCoordinator(
        client,
        namespace=namespace,
        range_name=range_name,
        pod_name=pod_name,
        pod_uid=pod_uid,
        config=_own_config(config),
    )


def _own_config(text: str) -> ShardConfig | None:
    try:
        return decode(ShardConfig, text.encode()) if text else None
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"SHARDWRIGHT_CONFIG is no ShardConfig: {error}; let the operator make the pod anew"
        ) from None


def _test(path: str, value: str | int) -> _Change:
    """Give a JSON patch operation that lets the whole patch fail unless `path` holds `value`."""
    return {"op": "test", "path": path, "value": value}


def _writes(change: _Change) -> list[_Change]:
    """Give the JSON patch operations that write keys of the status."""
    return [{"op": "add", "path": f"/status/{key}", "value": value} for key, value in change.items()]


def _older(found: ObjectMeta, seen: ObjectMeta) -> bool:
    """Say whether one state of an object came before the other."""
    versions = found.resource_version, seen.resource_version
    return all(version.isdigit() for version in versions) and int(versions[0]) < int(versions[1])


def _is_news(seen: ShardRange, found: ShardRange, own_holder: str | None) -> bool:
    """Say whether others changed what the engine goes by."""
    holder_changed = found.status.holder not in (seen.status.holder, own_holder)
    return holder_changed or found.spec != seen.spec


def _gateway_uid(range_: ObjectMeta) -> str | None:
    """Give the UID of the gateway that owns a range; None if nobody does."""
    owners = (owner for owner in range_.owner_references if owner["kind"] == "DiscordGateway")
    return next((str(owner["uid"]) for owner in owners), None)
