"""The checks of IDENTIFY as a table, in the order in which they are made.

Source: Gateway > Identify, Gateway > Sharding, Opcodes and Status Codes > Gateway Close Event Codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from shardwright_api.discord import MAX_GUILDS_PER_SHARD, PRIVILEGED_INTENTS, CloseCode, Intent
from shardwright_simulator.bots import Bot
from shardwright_simulator.errors import ClientError

DEFINED_INTENTS = int(sum(Intent))
LARGE_THRESHOLD = range(50, 251)


class IdentifyData(msgspec.Struct):
    """The `d` of an IDENTIFY. `intents` and `shard` are checked by the table, since each has an own close code."""

    token: str
    properties: dict[str, Any]
    intents: Any = None
    shard: Any = (0, 1)
    compress: bool = False
    large_threshold: int = 50
    presence: dict[str, Any] | None = None


class Check(NamedTuple):
    """One rule: `passes` says whether it is kept, `code` closes the connection when it is not."""

    rule: str
    code: CloseCode
    passes: Callable[[IdentifyData, Bot], bool]
    message: str


def is_shard(data: IdentifyData, _: Bot) -> bool:
    """Whether `shard` is a pair that makes sense (Gateway > Sharding)."""
    pair = data.shard
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(type(n) is int for n in pair):  # noqa: PLR2004
        return False
    return bool(0 <= pair[0] < pair[1])


CHECKS = (
    Check(
        "large-threshold",
        CloseCode.DECODE_ERROR,
        lambda data, _: data.large_threshold in LARGE_THRESHOLD,
        "large_threshold must be 50 to 250",
    ),
    Check("shard", CloseCode.INVALID_SHARD, is_shard, "shard must be [id, count] with 0 <= id < count"),
    Check(
        "shard-multiple",
        CloseCode.INVALID_SHARD,
        lambda data, bot: data.shard[1] % bot.config.large_multiple == 0,
        "the shard count must be a multiple of the large bot's number",
    ),
    Check(
        "sharding-required",
        CloseCode.SHARDING_REQUIRED,
        lambda data, bot: bot.guild_count(*data.shard) <= MAX_GUILDS_PER_SHARD,
        f"the shard would have more than {MAX_GUILDS_PER_SHARD} guilds",
    ),
    Check(
        "intents",
        CloseCode.INVALID_INTENTS,
        lambda data, _: type(data.intents) is int and data.intents >= 0 and not data.intents & ~DEFINED_INTENTS,
        "intents must be a number made of defined bits",
    ),
    Check(
        "privileged-intents",
        CloseCode.DISALLOWED_INTENTS,
        lambda data, bot: not data.intents & PRIVILEGED_INTENTS & ~bot.privileged,
        "a privileged intent is not switched on for this bot",
    ),
)


def read(d: Any) -> IdentifyData:
    """Read the `d` of an IDENTIFY; raise ClientError 4002 when its shape is wrong."""
    try:
        return msgspec.convert(d, IdentifyData)
    except msgspec.ValidationError as error:
        raise ClientError(CloseCode.DECODE_ERROR, "identify-shape", f"IDENTIFY: {error}") from error


def check(data: IdentifyData, bot: Bot) -> None:
    """Raise ClientError for the first rule that is not kept."""
    for rule in CHECKS:
        if not rule.passes(data, bot):
            raise ClientError(rule.code, rule.rule, rule.message)
