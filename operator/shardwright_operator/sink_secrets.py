"""The Secrets that sinks name, as volumes of a shard pod: whole, never in the environment, and optional.

Optional, so that a pod starts where a Secret is missing, and its sink says so in the status; it is mounted once it is
there, and followed when it changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shardwright_api import names
from shardwright_api.resources import Sink

Body = dict[str, Any]


def volumes(sinks: tuple[Sink, ...]) -> list[Body]:
    """Give the volumes of all Secrets that sinks name."""
    return [
        {"name": _volume(sink, what), "secret": {"secretName": secret, "defaultMode": 0o440, "optional": True}}
        for sink, what, secret in _named(sinks)
    ]


def mounts(sinks: tuple[Sink, ...]) -> list[Body]:
    """Give their places in the container: `<sinks>/<sink>/credentials` and `<sinks>/<sink>/tls`."""
    return [
        {"name": _volume(sink, what), "mountPath": f"{names.SINKS_DIR}/{sink.name}/{what}", "readOnly": True}
        for sink, what, _ in _named(sinks)
    ]


def _named(sinks: tuple[Sink, ...]) -> Iterator[tuple[Sink, str, str]]:
    for sink in sinks:
        if sink.credentials_secret_ref is not None:
            yield sink, "credentials", sink.credentials_secret_ref.name
        if sink.tls_secret_ref is not None:
            yield sink, "tls", sink.tls_secret_ref.name


def _volume(sink: Sink, what: str) -> str:
    return f"sink-{sink.name}-{what}"
