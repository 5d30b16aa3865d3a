"""Carries actions out: the only place that writes to the cluster.

Every answer goes into the store at once, so that the next decision sees it before the watch tells. A lost
compare-and-swap reads the object again and stops the plan: the key comes up anew. What exists already, or is gone
already, is read again and counts as done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from shardwright_api.resources import DiscordGateway, ShardRange, to_wire
from shardwright_operator.actions import Action, Announce, Apply, Batch, Create, DeletePod, PatchRange, WriteStatus
from shardwright_operator.errors import ConflictError, InvalidError, NotFoundError, UnreadableError
from shardwright_operator.events import EventWriter
from shardwright_operator.kube import CLAIMS, GATEWAYS, PODS, RANGES, Kube, Resource
from shardwright_operator.revision import merge_diff
from shardwright_operator.store import Store
from shardwright_operator.views import Named, Pod, owner_uid, range_key

log = logging.getLogger(__name__)

_SIDE_BY_SIDE: Final = 8


class Executor:
    """Does what the planners decided."""

    def __init__(self, kube: Kube, store: Store, events: EventWriter) -> None:
        self._kube = kube
        self._store = store
        self._events = events
        self.done: Counter[str] = Counter()

    async def run(self, actions: Iterable[Action]) -> None:
        """Do actions in order; the first failure stops the rest."""
        for action in actions:
            await self._do(action)
            self.done[type(action).__name__] += 1

    async def _do(self, action: Action) -> None:
        match action:
            case Create():
                await self._create(action)
            case Apply():
                await self._kube.apply(action.resource, _namespace(action.body), action.body)
            case PatchRange():
                await self._patch_range(action)
            case DeletePod():
                await self._delete_pod(action.pod)
            case WriteStatus():
                await self._write_status(action)
            case Announce():
                self._events.announce(action.announcement)
            case Batch():
                await self._batch(action)

    async def _batch(self, batch: Batch) -> None:
        gate = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def one(action: Action) -> None:
            async with gate:
                await self.run([action])

        results = await asyncio.gather(*(one(action) for action in batch.actions), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _create(self, action: Create) -> None:
        namespace = _namespace(action.body)
        try:
            raw = await self._kube.create(action.resource, namespace, action.body)
        except ConflictError:
            raw = await self._kube.get(action.resource, namespace, action.body["metadata"]["name"])
            if action.resource is CLAIMS:
                _check_owner(raw, action.body)
        else:
            log.info("created %s %s/%s", action.resource.kind, namespace, action.body["metadata"]["name"])
        self._remember(action.resource, raw)

    def _remember(self, resource: Resource, raw: bytes) -> None:
        try:
            if resource is RANGES:
                self._store.put_range(msgspec.json.decode(raw, type=ShardRange))
            elif resource is PODS:
                self._store.put_pod(msgspec.json.decode(raw, type=Pod))
        except msgspec.ValidationError as error:
            raise UnreadableError(f"a {resource.kind} cannot be read: {error}") from error

    async def _patch_range(self, action: PatchRange) -> None:
        meta = action.base.metadata
        body = _range_patch(action)
        if not body:
            return
        try:
            raw = await self._kube.patch(RANGES, meta.namespace, meta.name, body)
        except ConflictError:
            await self._read_range_again(action.base)
            raise
        except NotFoundError:
            self._store.drop_range(range_key(action.base), meta.uid)
            raise
        self._store.put_range(msgspec.json.decode(raw, type=ShardRange))

    async def _read_range_again(self, base: ShardRange) -> None:
        meta = base.metadata
        try:
            raw = await self._kube.get(RANGES, meta.namespace, meta.name)
        except NotFoundError:
            self._store.drop_range(range_key(base), meta.uid)
        else:
            self._store.put_range(msgspec.json.decode(raw, type=ShardRange))

    async def _delete_pod(self, pod: Pod) -> None:
        try:
            await self._kube.delete(PODS, pod.metadata.namespace, pod.metadata.name, uid=pod.uid)
        except (NotFoundError, ConflictError):
            self._store.drop_pod(pod)
        else:
            log.info("deleted Pod %s/%s", pod.metadata.namespace, pod.metadata.name)

    async def _write_status(self, action: WriteStatus) -> None:
        gateway = action.gateway
        meta, change = gateway.metadata, merge_diff(to_wire(gateway.status), to_wire(action.status))
        body = {"metadata": {"uid": meta.uid}, "status": change}
        try:
            raw = await self._kube.patch(GATEWAYS, meta.namespace, meta.name, body, subresource="status")
        except (NotFoundError, ConflictError):
            log.info("DiscordGateway %s/%s is gone, or another one now", meta.namespace, meta.name)
        else:
            self._store.put_gateway(msgspec.json.decode(raw, type=DiscordGateway))


def _namespace(body: Mapping[str, Any]) -> str:
    return str(body["metadata"]["namespace"])


def _check_owner(raw: bytes, wanted: Mapping[str, Any]) -> None:
    """Refuse a claim that another ShardRange left behind, or that is on its way out: its pod would wait for ever."""
    found, owner = msgspec.json.decode(raw, type=Named).metadata, wanted["metadata"]["ownerReferences"][0]["uid"]
    if found.deletion_timestamp is not None or owner_uid(found) != owner:
        message = f"PersistentVolumeClaim {found.name} belongs to another ShardRange, or is being deleted"
        raise InvalidError(HTTPStatus.CONFLICT, "NotOurs", message)


def _range_patch(action: PatchRange) -> dict[str, Any]:
    """Render a compare-and-swap; empty when nothing would change."""
    meta = action.base.metadata
    spec = merge_diff(to_wire(action.base.spec), to_wire(action.spec))
    annotations = {name: value for name, value in action.annotations.items() if meta.annotations.get(name) != value}
    if not spec and not annotations:
        return {}
    metadata: dict[str, Any] = {"resourceVersion": meta.resource_version}
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec} if spec else {"metadata": metadata}
