"""The time of day as Kubernetes writes it. For people and for the API's fields: no decision rests on it."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp() -> str:
    """Give now in RFC 3339 with microseconds (MicroTime), UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
