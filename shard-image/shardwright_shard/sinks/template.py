"""Names that a sink makes of its events: stream keys, topics, routing keys. For NATS see `nats_subject.py`.

A template such as `discord:{bot}` may name `{bot}`, `{event}`, `{shard}` and `{guild}`. What is put in holds letters,
digits, `_` and `-` only, so that no event's name can change the form. `{guild}` costs a look into every payload.
"""

from __future__ import annotations

import re
from typing import Final

from shardwright_shard.errors import ConfigError
from shardwright_shard.sinks.nats_subject import NO_GUILD, guild, token

_FIELDS: Final = frozenset({"bot", "event", "shard", "guild"})
_TEXT: Final = re.compile(r"[A-Za-z0-9_.:/\-]*", re.ASCII)
_LENGTH: Final = 255


class Template:
    """A template of `what`. Raise `ConfigError` where it cannot give valid names."""

    def __init__(self, template: str, *, bot: str, what: str) -> None:
        fields = set(re.findall(r"\{(\w+)\}", template))
        if not fields <= _FIELDS:
            unknown = ", ".join(sorted(fields - _FIELDS))
            raise ConfigError(f"{what} {template!r}: unknown field {unknown}; known are bot, event, shard, guild")
        if not template or len(template) > _LENGTH or not _TEXT.fullmatch(re.sub(r"\{\w+\}", "", template)):
            raise ConfigError(
                f"{what} {template[:_LENGTH]!r}: letters, digits, and any of _ . : / - and {{fields}} only"
            )
        self._template = template.replace("{bot}", token(bot))
        self.by_guild = "{guild}" in template

    def name(self, event: str, shard: int, payload: bytes = b"") -> str:
        """Give the name for an event; the payload matters for `{guild}` only."""
        found = guild(event, payload) if self.by_guild else NO_GUILD
        return self._template.format(event=token(event), shard=shard, guild=found)
