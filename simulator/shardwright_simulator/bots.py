"""A bot: its token, its guilds, its budget of session starts, its identify buckets, its sessions."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from shardwright_api.discord import Intent, intent_bits
from shardwright_api.sharding import BucketId, bucket, shard_of_guild
from shardwright_simulator.ids import guild_id, make_token, shard_guild_indices
from shardwright_simulator.options import BotConfig
from shardwright_simulator.session import Session, replay_limit


class Bot:
    """One bot and all that Discord counts for it. Times are passed in."""

    def __init__(self, config: BotConfig, now: float) -> None:
        self.config = config
        self.token_valid = True
        self.remaining = config.total if config.remaining is None else config.remaining
        self.reset_at = now + config.reset_after
        self.sessions: dict[str, Session] = {}
        self.overruns = 0
        self._taken: dict[BucketId, float] = {}
        self._routes: dict[int, dict[int, list[Session]]] = {}
        self._rotations = 0

    @property
    def id(self) -> str:
        """The bot's id."""
        return self.config.id

    def accepts(self, token: str) -> bool:
        """Whether a token is the bot's and has not been reset."""
        return self.token_valid and token == self.config.token

    def configure(self, config: BotConfig, changed: Collection[str], now: float) -> None:
        """Take over another configuration, of which the fields `changed` are new; sessions stay."""
        if config.token != self.config.token:
            self.token_valid = True
        if "remaining" in changed:
            self.remaining = config.total if config.remaining is None else config.remaining
        if "reset_after" in changed:
            self.reset_at = now + config.reset_after
        self.config = config
        if "replay_limit" in changed:
            for session in self.sessions.values():
                session.limit(self.replay_limit(session.shard, session.total))

    def rotate_token(self) -> str:
        """Give the bot a new token; the old one is refused from now on."""
        self._rotations += 1
        self.config = msgspec.structs.replace(self.config, token=make_token(self.id, self._rotations))
        self.token_valid = True
        return self.config.token

    def refresh(self, now: float) -> None:
        """Fill the budget up again when its day is over (Gateway > Session Start Limit)."""
        if now >= self.reset_at:
            self.remaining = self.config.total
            self.reset_at = now + self.config.reset_after

    def spend(self, now: float) -> bool:
        """Take one session start; False when none was left, and then the token is reset."""
        self.refresh(now)
        if self.remaining <= 0:
            self.overruns += 1
            self.token_valid = False
            return False
        self.remaining -= 1
        return True

    def bucket(self, shard: int) -> BucketId:
        """Give a shard's `rate_limit_key`."""
        return bucket(shard, self.config.max_concurrency)

    def claim(self, shard: int, now: float, window: float) -> float:
        """Take a shard's bucket: 0, or how many seconds too early that was. Too early takes nothing."""
        key = self.bucket(shard)
        early = self._taken.get(key, now - window) + window - now
        if early > 0:
            return early
        self._taken[key] = now
        return 0.0

    @property
    def privileged(self) -> int:
        """The privileged intents switched on for this bot."""
        return intent_bits(self.config.privileged_intents) & int(sum(Intent))

    def guild_count(self, shard: int, total: int) -> int:
        """Count the guilds on a shard."""
        return len(shard_guild_indices(shard=shard, total=total, guilds=self.config.guilds))

    def guilds(self, shard: int, total: int) -> Iterator[int]:
        """Give the ids of the guilds on a shard."""
        return map(guild_id, shard_guild_indices(shard=shard, total=total, guilds=self.config.guilds))

    def replay_limit(self, shard: int, total: int) -> int:
        """Give the size of the replay buffer for a shard's session."""
        return self.config.replay_limit or replay_limit(self.guild_count(shard, total))

    def add(self, session: Session) -> None:
        """Take a new session in."""
        self.sessions[session.id] = session
        self._routes.setdefault(session.total, {}).setdefault(session.shard, []).append(session)

    def remove(self, session: Session) -> None:
        """Forget a session."""
        if self.sessions.pop(session.id, None) is not None:
            self._routes[session.total][session.shard].remove(session)

    def receivers(self, guild: int | None) -> list[Session]:
        """List the sessions that get a guild's events; without a guild, those of every shard 0.

        Sessions of one shard and of different shard counts may coexist, each gets its own copy (Gateway > Sharding).
        """
        found: list[Session] = []
        for total, shards in self._routes.items():
            found += shards.get(0 if guild is None else shard_of_guild(guild, total), ())
        return found
