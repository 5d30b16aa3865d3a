"""What the work queue holds: the names of things to look at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class RangeKey:
    """A ShardRange."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class GatewayKey:
    """A DiscordGateway."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class BotKey:
    """A bot, by its user id: all gateways that share it."""

    bot_id: str


Key = RangeKey | GatewayKey | BotKey
