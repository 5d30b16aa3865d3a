"""Tokens, session ids and guild ids."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from random import Random

from shardwright_api import token as token_api

GUILD_BASE = 1 << 38
"""The first guild's id shifted right by 22: guild ids look like those of 2023, 19 digits."""
GUILD_LOW_BITS = 77
"""What stands in a guild id's lower 22 bits: only the upper ones choose the shard."""


def make_token(bot_id: str, generation: int = 0) -> str:
    """Make a bot's token in Discord's form, `base64url(id).x.y`; nothing in it is secret."""
    head = base64.urlsafe_b64encode(bot_id.encode()).decode().rstrip("=")
    return f"{head}.SIMULA.not-a-secret-shardwright-simulator-{generation}"


def bot_id_of(token: str) -> str:
    """Read the bot's id out of a token; empty when it holds none."""
    try:
        return token_api.bot_id_of(token)
    except token_api.MalformedToken:
        return ""


def guild_id(index: int) -> int:
    """Give the id of a bot's guild number `index`; consecutive guilds lie on consecutive shards."""
    return (GUILD_BASE + index) << 22 | GUILD_LOW_BITS


def guild_index(guild: int) -> int:
    """Undo `guild_id`."""
    return (guild >> 22) - GUILD_BASE


def shard_guild_indices(*, shard: int, total: int, guilds: int) -> range:
    """List the numbers of those of a bot's `guilds` that lie on a shard (Gateway > Sharding)."""
    return range((shard - GUILD_BASE) % total, guilds, total)


def session_ids(random: Random) -> Iterator[str]:
    """Give unique session ids, 32 hexadecimal digits like Discord's."""
    while True:
        yield f"{random.getrandbits(128):032x}"
