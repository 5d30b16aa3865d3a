"""Decode what the API server stores although a newer program may have written it.

A pod meets rows and configs of programs that are newer than itself: during a rollout, and after one is taken back. An
unknown field is ignored by the structs; a known field with a value that does not fit (a state with a new name) is left
out here, as long as it has a default, and a shard whose state has no known name counts as waiting. So a pod never goes
blind for what it does not need. What then still does not fit raises.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from shardwright_api.resources import Model, ShardConfig, ShardRange, ShardState, ShardStatus

T = TypeVar("T")


def decode(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Decode JSON; a ShardRange without what cannot be understood. Raise `msgspec.MsgspecError`."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError:
        if kind is not ShardRange:
            raise
        return msgspec.convert(_understood(msgspec.json.decode(raw)), kind)


def _understood(found: Any) -> Any:
    """Leave out of a range's rows and config what cannot be understood."""
    if isinstance(found, dict):
        spec, status = found.get("spec"), found.get("status")
        if isinstance(status, dict) and isinstance(status.get("shards"), list):
            rows = [_with_known_state(row) for row in status["shards"]]
            status["shards"] = [_fitting(row, ShardStatus) for row in rows]
        if isinstance(spec, dict) and "config" in spec:
            spec["config"] = _fitting(spec["config"], ShardConfig)
    return found


def _with_known_state(row: Any) -> Any:
    if isinstance(row, dict) and row.get("state") not in set(ShardState):
        return {**row, "state": ShardState.WAITING.value}
    return row


def _fitting(found: Any, kind: type[Model]) -> Any:
    """Leave out fields that have a default and whose value does not fit."""
    if not isinstance(found, dict):
        return found
    fields = msgspec.structs.fields(kind)
    return {name: value for name, value in found.items() if not _misfits(name, value, fields)}


def _misfits(name: str, value: Any, fields: tuple[msgspec.structs.FieldInfo, ...]) -> bool:
    field = next((each for each in fields if each.encode_name == name), None)
    if field is None or field.required:
        return False
    try:
        msgspec.convert(value, field.type)
    except msgspec.ValidationError:
        return True
    return False
