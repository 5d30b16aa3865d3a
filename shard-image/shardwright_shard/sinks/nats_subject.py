"""NATS subjects: the template of a sink, what may stand in it, and whether a stream covers it.

A template such as `discord.{bot}.{event}` may name `{bot}`, `{event}`, `{shard}` and `{guild}`. What is put in is always
one token: characters outside `A-Z a-z 0-9 _ -` become `_`, so `shardwright.oversize` is published as
`discord.<bot>.shardwright_oversize`, and no event's name can add a token or a wildcard.

`{guild}` is the guild that an event belongs to: `d.guild_id` at depth 1, for GUILD_CREATE, GUILD_UPDATE and GUILD_DELETE
`d.id`, `-` where there is none. It costs a look into every payload.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from shardwright_shard.errors import ConfigError

_FIELDS: Final = frozenset({"bot", "event", "shard", "guild"})
_TOKEN: Final = re.compile(r"[A-Za-z0-9_\-{}]+")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
_LENGTH: Final = 256
_GUILDS: Final = frozenset({"GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE"})
NO_GUILD: Final = "-"


class _Data(msgspec.Struct):
    guild_id: str | None = None


class _Guild(msgspec.Struct):
    id: str | None = None


class _OfGuild(msgspec.Struct):
    d: _Data


class _IsGuild(msgspec.Struct):
    d: _Guild


_of_guild = msgspec.json.Decoder(_OfGuild)
_is_guild = msgspec.json.Decoder(_IsGuild)


def token(text: str) -> str:
    """Make one subject token of any text."""
    return _UNSAFE.sub("_", text) or "_"


def guild(name: str, payload: bytes) -> str:
    """Give the id of the guild that an event belongs to, `-` where there is none or the payload cannot be read."""
    try:
        found = _is_guild.decode(payload).d.id if name in _GUILDS else _of_guild.decode(payload).d.guild_id
    except msgspec.DecodeError:
        return NO_GUILD
    return found if found and found.isascii() and found.isdigit() else NO_GUILD


class SubjectTemplate:
    """A sink's subject. Raise `ConfigError` where the template cannot give valid subjects."""

    def __init__(self, template: str, *, bot: str) -> None:
        _check(template)
        self._template = template.replace("{bot}", token(bot))
        self.by_guild = "{guild}" in template

    def subject(self, *, event: str, shard: int, guild: str = NO_GUILD) -> str:
        """Give the subject of an event."""
        return self._template.format(event=token(event), shard=shard, guild=token(guild))

    def patterns(self, events: Iterable[str]) -> list[str]:
        """Give the subjects of these events, of all events where there are none: `*` for every token that varies."""
        return list(dict.fromkeys(self._pattern(token(event)) for event in events)) or [self._pattern("{event}")]

    def _pattern(self, event: str) -> str:
        parts = self._template.replace("{event}", event).split(".")
        return ".".join("*" if "{" in part else part for part in parts)


def covers(pattern: str, subject: str) -> bool:
    """Tell whether a stream's `pattern` takes every subject of `subject`, which may have wildcards itself."""
    wanted = subject.split(".")
    parts = pattern.split(".")
    for index, part in enumerate(parts):
        if part == ">":
            return len(wanted) > index
        if index >= len(wanted) or wanted[index] == ">" or part not in ("*", wanted[index]):
            return False
    return len(parts) == len(wanted)


def _check(template: str) -> None:
    """Raise `ConfigError` unless every token is made of safe characters and known fields."""
    tokens = template.split(".")
    fields = set(re.findall(r"\{(.*?)\}", template))
    bare = re.sub(r"\{\w+\}", "", template)
    if len(template) > _LENGTH or not all(_TOKEN.fullmatch(part) for part in tokens) or set(bare) & set("{}"):
        raise ConfigError(
            f"subject {template[:_LENGTH]!r}: dots between tokens of letters, digits, _, - and {{fields}}"
        )
    if not fields <= _FIELDS:
        unknown = ", ".join(sorted(fields - _FIELDS))
        raise ConfigError(f"subject {template!r}: unknown field {unknown}; known are bot, event, shard, guild")
