"""`maxAge` of a sink: texts such as `3s` to seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from shardwright_shard.errors import ConfigError

_DURATION: Final = re.compile(r"([0-9]{1,6})(ms|s|m|h)", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(ages: Mapping[str, str]) -> dict[str, float]:
    """Give the seconds by event name. Raise `ConfigError` naming the one that cannot be read."""
    return {name: _seconds(name, text) for name, text in ages.items()}


def _seconds(name: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigError(f"maxAge of {name}: {text!r} is no duration such as 500ms, 3s, 5m or 1h")
    return int(match[1]) * _UNITS[match[2]]
