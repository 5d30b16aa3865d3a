"""What the planners decide to do: plain values, carried out by the executor in order.

A failing action stops the ones behind it; the key is then looked at again. So whatever must precede something else
simply stands before it: a raised incarnation before its pod, a service account before the ranges that use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardwright_api.resources import DiscordGateway, GatewayStatus, RangeSpec, ShardRange
from shardwright_operator.events import Announcement
from shardwright_operator.kube import Resource
from shardwright_operator.views import Pod


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object; that it exists already is fine."""

    resource: Resource
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply an object that only the operator writes."""

    resource: Resource
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PatchRange:
    """Change a ShardRange, if it still is what `base` says (compare-and-swap). An annotation of None goes away."""

    base: ShardRange
    spec: RangeSpec
    annotations: Mapping[str, str | None] = field(default_factory=dict)
    fences: bool = False


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete a pod, gracefully."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace a gateway's status."""

    gateway: DiscordGateway
    status: GatewayStatus


@dataclass(frozen=True, slots=True)
class Announce:
    """Write a Kubernetes Event."""

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class Batch:
    """Do independent actions side by side, a few at a time."""

    actions: tuple[Action, ...]


Action = Create | Apply | PatchRange | DeletePod | WriteStatus | Announce | Batch


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, when to look again at the latest, and which row of the table said so."""

    actions: tuple[Action, ...] = ()
    again_after: float | None = None
    row: str = ""
