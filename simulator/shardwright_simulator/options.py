"""What can be set: the simulator's options and the bots it knows."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from shardwright_api.discord import IDENTIFY_WINDOW, PRIVILEGED_INTENTS, Intent, intent_names
from shardwright_simulator.errors import ConfigError
from shardwright_simulator.ids import make_token

DEFAULT_BOT_ID = "1000000000000000001"
GUILDS_PER_RECOMMENDED_SHARD = 1_000
LARGE_BOT_GUILDS = 150_000


class ResumeMode(StrEnum):
    """What happens to the old live connection when its session is resumed elsewhere (Discord does not say)."""

    CUT = "cut"
    """It is closed with 4000."""
    KEEP = "keep"
    """It stays open, and gets heartbeat acknowledgements but no events."""
    SHARE = "share"
    """It stays open, and both get every event."""


class KeyOrder(StrEnum):
    """The order of the envelope's keys: Discord's real one, or one that only a parser understands."""

    DISCORD = "t,s,op,d"
    OP_FIRST = "op,d,s,t"


class Options(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Options of a whole simulator. All times are seconds."""

    heartbeat_interval: float = 41.25
    session_ttl: float = 180.0
    """A session without a connection is forgotten after this long."""
    identify_window: float = IDENTIFY_WINDOW
    on_resume: ResumeMode = ResumeMode.CUT
    trim_by_heartbeat: bool = False
    """Drop from the replay buffer what the `d` of a heartbeat has acknowledged."""
    accept_any_rest_token: bool = False
    """Answer `GET /gateway/bot` whatever the token, so that only IDENTIFY finds a wrong one."""
    require_user_agent: bool = False
    """Refuse a websocket without a valid User-Agent (403). The docs demand one, but discord.js sends none and works:
    without this it is a note. REST always demands it."""
    latency: tuple[float, float] = (0.0, 0.0)
    """Least and most delay, each way, of every chunk of bytes; the order stays."""
    key_order: KeyOrder = KeyOrder.DISCORD
    zstd_level: int = 1
    zstd_window_log: int = 17
    zlib_level: int = 1
    backfill_rate: float = 1_000.0
    """GUILD_CREATE events a second and session after READY."""
    ledger_limit: int = 2_000_000
    write_limit: int = 64 * 1024 * 1024
    """A client that leaves more bytes than this unread loses its connection, not its session."""
    public_host: str = ""
    """`host:port` that the gateway URLs name; left empty, the Host header of the request."""

    def __post_init__(self) -> None:
        """Check what types cannot say, and take the enums by their names too."""
        try:
            self.on_resume, self.key_order = ResumeMode(self.on_resume), KeyOrder(self.key_order)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if self.heartbeat_interval <= 0 or self.backfill_rate <= 0:
            raise ConfigError("heartbeat_interval and backfill_rate must be above 0")
        if not 0 <= self.latency[0] <= self.latency[1]:
            raise ConfigError(f"latency must be 0 <= least <= most, not {self.latency}")


class BotConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One bot that may log in."""

    id: str = DEFAULT_BOT_ID
    name: str = "shardwright"
    token: str = ""
    """Left empty: `make_token(id)`, which anyone can work out."""
    guilds: int = 100
    guild_bytes: int = 2_000
    """Size of the `d` of each GUILD_CREATE after READY."""
    shards: int = 0
    """What `GET /gateway/bot` recommends; 0: one for each 1,000 guilds."""
    max_concurrency: int = 1
    total: int = 0
    """Session starts a day; 0: 1,000, or `max(2000, guilds / 1000 * 5)` for a large bot."""
    remaining: int | None = None
    reset_after: float = 86_400.0
    privileged_intents: list[str] = msgspec.field(default_factory=lambda: intent_names(PRIVILEGED_INTENTS))
    large_multiple: int = 1
    """The shard count must be a multiple of this (large-bot sharding)."""
    replay_limit: int = 0
    """Events a session's replay buffer holds; 0: `max(100, min(3500, guilds * 75))` of the shard's guilds."""

    def __post_init__(self) -> None:
        """Check what types cannot say, and fill in what was left to us."""
        if not self.id.isdigit():
            raise ConfigError(f"a bot's id is a number, not {self.id!r}")
        if min(self.max_concurrency, self.large_multiple) < 1 or min(self.guilds, self.guild_bytes, self.shards) < 0:
            raise ConfigError("max_concurrency and large_multiple are at least 1, guilds, guild_bytes and shards 0")
        unknown = [name for name in self.privileged_intents if name not in Intent.__members__]
        if unknown:
            raise ConfigError(f"no such intents: {', '.join(unknown)}")
        self._fill()

    def _fill(self) -> None:
        self.token = self.token or make_token(self.id)
        self.shards = self.shards or self._recommended()
        self.total = self.total or self._daily_starts()
        if self.remaining is None:
            self.remaining = self.total

    def _recommended(self) -> int:
        needed = max(1, -(-self.guilds // GUILDS_PER_RECOMMENDED_SHARD))
        return -(-needed // self.large_multiple) * self.large_multiple

    def _daily_starts(self) -> int:
        """Give the daily session starts (Gateway > Session Start Limit; 2,000 and up for large bots)."""
        return max(2_000, self.guilds // 1_000 * 5) if self.guilds >= LARGE_BOT_GUILDS else 1_000
