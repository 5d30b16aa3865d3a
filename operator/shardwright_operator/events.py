"""Kubernetes Events: the reasons, and how they are written without flooding anybody."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from shardwright_api.resources import API_VERSION, ObjectMeta
from shardwright_operator.asker import utc_now
from shardwright_operator.errors import OperatorError
from shardwright_operator.kube import EVENTS, FIELD_MANAGER, Kube

log = logging.getLogger(__name__)

_REPEAT_AFTER: Final = 600.0
_REMEMBERED: Final = 4096
_WAITING: Final = 1000
_NOTE_LENGTH: Final = 1024


class EventReason(StrEnum):
    """Why an Event is written."""

    LAYOUT_CREATED = "LayoutCreated"
    """ShardRanges were made for a gateway that had none."""
    POD_CREATED = "PodCreated"
    """A pod was made for a range."""
    POD_ACTIVATED = "PodActivated"
    """A pod was told to take its range over."""
    POD_RETIRED = "PodRetired"
    """A pod was deleted because another holds its range."""
    HOLDER_FENCED = "HolderFenced"
    """A silent holder was declared lost, so that its successor need not wait."""
    HAND_OVER_FAILED = "HandOverFailed"
    """A new pod did not come up in time: its predecessor was told to take over again."""
    SHARD_PARKED = "ShardParked"
    """Discord answered with a code after which trying again never helps."""
    SESSION_LOST = "SessionLost"
    """A session ended with events still to come: the sinks are told of the gap."""
    READY = "Ready"
    """All shards are READY."""
    NOT_READY = "NotReady"
    """The gateway ceased to be ready, or is not for another reason than before."""
    TOKEN_VALID = "TokenValid"  # noqa: S105 - the name of a condition
    """The token works again."""
    TOKEN_INVALID = "TokenInvalid"  # noqa: S105 - the name of a state
    """The token does not work."""
    DEGRADED = "Degraded"
    """Something asked for is not done, and what ran goes on."""
    UNKNOWN_EVENT = "UnknownEvent"
    """A sink's filter or `maxAge` names an event that is not known."""
    ROLLOUT_STUCK = "RolloutStuck"
    """A rollout makes no progress."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """An Event about an object of ours."""

    kind: str
    regarding: ObjectMeta
    reason: EventReason
    note: str
    warning: bool = False


def body(announcement: Announcement, *, moment: dt.datetime, instance: str) -> dict[str, Any]:
    """Render an Event (events.k8s.io/v1)."""
    meta = announcement.regarding
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"generateName": f"{meta.name}-", "namespace": meta.namespace},
        "eventTime": stamp,
        "reportingController": f"shardwright.dev/{FIELD_MANAGER}",
        "reportingInstance": instance,
        "action": announcement.reason.value,
        "reason": announcement.reason.value,
        "type": "Warning" if announcement.warning else "Normal",
        "note": announcement.note[:_NOTE_LENGTH],
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": announcement.kind,
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
        },
    }


class EventWriter:
    """Writes Events in the background, each at most once in ten minutes; when too many wait, new ones are dropped."""

    def __init__(self, kube: Kube, *, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._instance = instance
        self._clock = clock
        self._written: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._queue: asyncio.Queue[Announcement] = asyncio.Queue(_WAITING)
        self.dropped = 0

    def announce(self, announcement: Announcement) -> None:
        """Write an Event soon."""
        key = (announcement.regarding.uid, announcement.reason.value, announcement.note)
        now = self._clock()
        if now - self._written.get(key, float("-inf")) < _REPEAT_AFTER:
            return
        self._written[key] = now
        self._written.move_to_end(key)
        while len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)
        try:
            self._queue.put_nowait(announcement)
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Write until cancelled. An Event that cannot be written is dropped: it is a courtesy."""
        while True:
            announcement = await self._queue.get()
            event = body(announcement, moment=utc_now(), instance=self._instance)
            try:
                await self._kube.create(EVENTS, announcement.regarding.namespace, event)
            except OperatorError as error:
                self.dropped += 1
                log.info("An Event was not written: %s", error)
