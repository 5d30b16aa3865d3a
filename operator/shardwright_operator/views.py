"""Kubernetes' own objects, as far as the operator reads them, and what it concludes from them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from shardwright_api.names import ANNOTATION_INCARNATION, ANNOTATION_REVISION, LABEL_GATEWAY, LABEL_RANGE
from shardwright_api.resources import DiscordGateway, Model, ObjectMeta, ShardRange
from shardwright_operator.keys import GatewayKey, RangeKey

ANNOTATION_SECRET_VERSION: Final = "shardwright.dev/secret-version"  # noqa: S105 - the name of an annotation
"""On a pod: the resource version of the token's Secret when the pod was made."""


ANNOTATION_BUFFER: Final = "shardwright.dev/buffer-version"
"""On a pod: the hash of the sinks and the buffer that it was made with."""


ANNOTATION_IDENTITY: Final = "shardwright.dev/identity"
"""On a pod: the identity (see `sums.identity`) with which it identifies."""


class ListMeta(Model, frozen=True, rename={"resource_version": "resourceVersion", "continue_": "continue"}):
    """Metadata of a list; `continue_` names the next page."""

    resource_version: str = ""
    continue_: str = ""


class Trait(Model, frozen=True):
    """A condition of a pod or node."""

    type: str
    status: str = ""


class Waiting(Model, frozen=True):
    """Why a container does not run."""

    reason: str = ""


class ContainerState(Model, frozen=True):
    """State of a container."""

    waiting: Waiting | None = None


class ContainerStatus(Model, frozen=True):
    """Status of a container."""

    state: ContainerState = ContainerState()


class PodSpec(Model, frozen=True):
    """Spec of a pod."""

    node_name: str = ""


class PodStatus(Model, frozen=True):
    """Status of a pod."""

    phase: str = "Pending"
    conditions: tuple[Trait, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Model, frozen=True):
    """A shard pod."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def uid(self) -> str:
        """The name by which ShardRanges know the pod."""
        return self.metadata.uid

    @property
    def revision(self) -> str:
        """The revision of the spec that the pod was made from."""
        return self.metadata.annotations.get(ANNOTATION_REVISION, "")

    @property
    def incarnation(self) -> int:
        """The pod's number within its range."""
        text = self.metadata.annotations.get(ANNOTATION_INCARNATION, "0")
        return int(text) if text.isdecimal() else 0

    @property
    def secret_version(self) -> str:
        """The version of the Secret that the pod was made with."""
        return self.metadata.annotations.get(ANNOTATION_SECRET_VERSION, "")

    @property
    def buffer_version(self) -> str:
        """The hash of the pod's sinks and buffer; an empty string where an older operator made the pod."""
        return self.metadata.annotations.get(ANNOTATION_BUFFER, "")

    @property
    def identity(self) -> str:
        """The identity with which the pod identifies; an empty string where an older operator made the pod."""
        return self.metadata.annotations.get(ANNOTATION_IDENTITY, "")

    @property
    def range_key(self) -> RangeKey:
        """The range that the pod was made for."""
        return RangeKey(self.metadata.namespace, self.metadata.labels.get(LABEL_RANGE, ""))

    @property
    def gateway_key(self) -> GatewayKey:
        """The gateway that the pod was made for."""
        return GatewayKey(self.metadata.namespace, self.metadata.labels.get(LABEL_GATEWAY, ""))

    @property
    def owner_uid(self) -> str:
        """The UID of the ShardRange that owns the pod."""
        return owner_uid(self.metadata)

    @property
    def terminating(self) -> bool:
        """Whether the pod is on its way out."""
        return self.metadata.deletion_timestamp is not None

    @property
    def dead(self) -> bool:
        """Whether all containers of the pod have ended for good."""
        return self.status.phase in {"Failed", "Succeeded"}

    @property
    def usable(self) -> bool:
        """Whether the pod may hold the range."""
        return not self.terminating and not self.dead

    @property
    def running(self) -> bool:
        """Whether the pod's containers run, or are started again and again."""
        return self.usable and self.status.phase == "Running" and not self.crash_looping

    @property
    def crash_looping(self) -> bool:
        """Whether the kubelet waits before it starts a container again."""
        states = (container.state.waiting for container in self.status.container_statuses)
        return any(state is not None and state.reason == "CrashLoopBackOff" for state in states)

    @property
    def ready(self) -> bool:
        """Whether the pod's readiness probe says yes."""
        return any(trait.type == "Ready" and trait.status == "True" for trait in self.status.conditions)

    @property
    def unready(self) -> bool:
        """Whether the pod runs and its readiness probe says no."""
        return self.status.phase == "Running" and not self.ready


class NodeSpec(Model, frozen=True):
    """Spec of a node."""

    unschedulable: bool = False


class NodeStatus(Model, frozen=True):
    """Status of a node."""

    conditions: tuple[Trait, ...] = ()


class Node(Model, frozen=True):
    """A node."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def ready(self) -> bool:
        """Whether the node's kubelet reports."""
        return any(trait.type == "Ready" and trait.status == "True" for trait in self.status.conditions)


class LeaseSpec(Model, frozen=True):
    """Spec of a Lease."""

    renew_time: str | None = None
    acquire_time: str | None = None


class Lease(Model, frozen=True):
    """An identify bucket."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


class PodList(Model, frozen=True):
    """A page of pods."""

    metadata: ListMeta
    items: tuple[Pod, ...] = ()


class NodeList(Model, frozen=True):
    """A page of nodes."""

    metadata: ListMeta
    items: tuple[Node, ...] = ()


class LeaseList(Model, frozen=True):
    """A page of Leases."""

    metadata: ListMeta
    items: tuple[Lease, ...] = ()


class Named(Model, frozen=True):
    """An object of which nothing but its metadata is known."""

    metadata: ObjectMeta


class GatewayList(Model, frozen=True):
    """A page of DiscordGateways, each undecoded: one that does not fit must not hide the others."""

    metadata: ListMeta
    items: tuple[dict[str, Any], ...] = ()


class RangeList(Model, frozen=True):
    """A page of ShardRanges, each undecoded: one that does not fit must not hide the others."""

    metadata: ListMeta
    items: tuple[msgspec.Raw, ...] = ()


def owner_uid(metadata: ObjectMeta) -> str:
    """Give the UID of the controlling owner, or an empty string."""
    for reference in metadata.owner_references:
        if reference.get("controller"):
            return str(reference.get("uid", ""))
    return ""


def range_key(shard_range: ShardRange) -> RangeKey:
    """Name a ShardRange for the work queue."""
    return RangeKey(shard_range.metadata.namespace, shard_range.metadata.name)


def gateway_key(gateway: DiscordGateway) -> GatewayKey:
    """Name a DiscordGateway for the work queue."""
    return GatewayKey(gateway.metadata.namespace, gateway.metadata.name)


def gateway_key_of(shard_range: ShardRange) -> GatewayKey:
    """Name the DiscordGateway that a ShardRange serves."""
    return GatewayKey(shard_range.metadata.namespace, shard_range.spec.config.gateway)
