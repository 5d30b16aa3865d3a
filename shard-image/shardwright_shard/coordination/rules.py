"""What a pod may do to its ShardRange, decided from one state of the object: pure, shared by all implementations.

Every write that rests on one of these answers is conditional on the state that was judged, so an answer may be stale
but never wrong: the write then fails, the object is read again, and the question asked anew.
"""

from __future__ import annotations

from typing import Final

import msgspec

from shardwright_api.resources import RangeSpec, ShardConfig, ShardRange, StandbyStatus
from shardwright_shard.coordination.base import View

MAX_STANDBY: Final = 8
"""Entries of `status.standby`: the CRD allows 16, and pods that died waiting leave theirs behind."""


def view(range_: ShardRange, pod: str, config: ShardConfig | None = None) -> View:
    """Give what the engine sees of the range. `pod` is a UID, here and below; `config` is what the pod was made with.

    The range's config may be meant for the next pod already: of it, a pod with its own takes only what is live.
    """
    spec = range_.spec
    if config is not None:
        live = spec.config.gateway_url, spec.config.heartbeat_seconds
        own = msgspec.structs.replace(config, gateway_url=live[0], heartbeat_seconds=live[1])
        spec = msgspec.structs.replace(spec, config=own)
    return View(
        spec=spec,
        status=range_.status,
        active=range_.spec.active_pod == pod,
        holding=range_.status.holder == pod,
    )


def may_take(range_: ShardRange, pod: str) -> bool:
    """Say whether the pod may become the holder: it is active, and nobody else holds the range unfenced."""
    return range_.spec.active_pod == pod and range_.status.holder in ("", pod, range_.spec.fenced_holder)


def holds(range_: ShardRange, pod: str) -> bool:
    """Say whether the pod holds the range and nobody may take it from under it (fenced, and another is active)."""
    fenced = range_.spec.fenced_holder == pod and range_.spec.active_pod != pod
    return range_.status.holder == pod and not fenced


def may_spend(range_: ShardRange, pod: str) -> bool:
    """Say whether the pod may pay for one identify now."""
    open_grants = range_.status.identifies_spent < range_.spec.identify_grant
    return open_grants and not range_.spec.hold and holds(range_, pod)


def news(range_: ShardRange) -> tuple[RangeSpec, str]:
    """Give what the engine must be woken for when it changes: the operator's will, and the holder."""
    return range_.spec, range_.status.holder


def evicted(standby: dict[str, StandbyStatus], pod: str) -> list[str]:
    """List who must leave the waiting list, oldest first, so that this pod's entry fits."""
    others = sorted((entry.since, uid) for uid, entry in standby.items() if uid != pod)
    return [uid for _, uid in others[: max(0, len(others) + 1 - MAX_STANDBY)]]
