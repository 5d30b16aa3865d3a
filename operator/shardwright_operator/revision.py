"""The revision of a gateway's pods: a hash of what they must be restarted for, and nothing else."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from shardwright_api.resources import Buffer, GatewaySpec, to_wire

LIVE_FIELDS: Final = frozenset({"shards", "identify", "rollout", "paused"})
"""Fields of the spec that are the operator's own: a change of them moves no pod."""
LIVE_TRANSPORT: Final = frozenset({"apiURL"})


def canonical(spec: GatewaySpec) -> dict[str, Any]:
    """Strip the spec of what is live, and of what stands at its default.

    The buffer is compared by value: the API server writes its defaults into objects that were stored without one.
    """
    skipped = LIVE_FIELDS | {"buffer"} if spec.buffer == Buffer() else LIVE_FIELDS
    wire = {name: value for name, value in to_wire(spec).items() if name not in skipped}
    transport = {name: value for name, value in wire.pop("transport", {}).items() if name not in LIVE_TRANSPORT}
    return {**wire, "transport": transport} if transport else wire


def revision(spec: GatewaySpec, restart_at: str = "") -> str:
    """Hash the canonical spec, and the text that asks for a restart, into ten hexadecimal digits."""
    wanted = canonical(spec)
    text = msgspec.json.encode({**wanted, "restartAt": restart_at} if restart_at else wanted, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:10]


def merge_diff(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Give the JSON merge patch (RFC 7386) that turns `old` into `new`."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if before == value:
            continue
        nested = isinstance(before, dict) and isinstance(value, dict)
        patch[name] = merge_diff(before or {}, value) if nested else value
    return patch
