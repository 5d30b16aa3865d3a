"""The load generator: how many events are due, and which.

A load is paced by the clock it is given: `due(now)` says how many events are owed since the last call, at most a second's
worth (what is owed beyond that is dropped and counted, so that a stall is not followed by a flood). Which event comes
next is drawn from the mix and the sizes; guilds take turns, so that all shards get the same.
"""

from __future__ import annotations

import re
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple

import msgspec

from shardwright_simulator.errors import ControlError, NotFoundError
from shardwright_simulator.gateway import Gateway
from shardwright_simulator.ids import guild_id, shard_guild_indices
from shardwright_simulator.templates import DIRECT_MESSAGE, GUILD_LESS

DEFAULT_MIX: Final = {
    "MESSAGE_CREATE": 50.0,
    "PRESENCE_UPDATE": 15.0,
    "TYPING_START": 10.0,
    "MESSAGE_UPDATE": 5.0,
    "MESSAGE_REACTION_ADD": 5.0,
    "VOICE_STATE_UPDATE": 5.0,
    "GUILD_MEMBER_ADD": 3.0,
    "INTERACTION_CREATE": 3.0,
    DIRECT_MESSAGE: 2.0,
    "GUILD_UPDATE": 1.0,
    "SHARDWRIGHT_FUTURE_EVENT": 1.0,
}
"""Weights. The last one is a name that no docs know."""
DEFAULT_SIZES: Final = ((300, 20.0), (1_000, 70.0), (4_000, 9.0), (30_000, 1.0))
"""Bytes of `d` and their weights; the largest that makes sense is 3,000,000."""
SIZE_LIMIT = 8_000_000
BACKLOG_SECONDS = 1.0
ROUNDING = 1e-6
"""An event that is short of being due by no more than this is due: times are sums of floats."""
TICK = 0.02
"""Seconds between two turns of a load."""
_NAME = re.compile(r"[A-Z0-9_]{1,64}")


class LoadSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What load is wanted."""

    rate: float = 100.0
    """Events a second over all shards; a copy for a second session of a shard is not counted."""
    seconds: float = 0.0
    """How long; 0: until it is stopped."""
    count: int = 0
    """How many events; 0: no limit."""
    bot: str = ""
    """Which bot; empty: the first."""
    shards: list[int] | None = None
    """Shards of `total` that get events; None: all."""
    total: int = 0
    """What `shards` count in; 0: the bot's recommended count."""
    mix: dict[str, float] = msgspec.field(default_factory=lambda: dict(DEFAULT_MIX))
    sizes: list[tuple[int, float]] = msgspec.field(default_factory=lambda: list(DEFAULT_SIZES))
    twins: float = 0.0
    """Which part of the events is followed by another with the same `d`, byte for byte."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        if self.rate <= 0 or min(self.seconds, self.count, self.total) < 0 or not 0 <= self.twins <= 1:
            raise ControlError("rate must be above 0, seconds, count and total at least 0, twins 0 to 1")
        bad = [name for name in self.mix if not _NAME.fullmatch(name)]
        weights = [list(self.mix.values()), [weight for _, weight in self.sizes]]
        if bad or any(min(some, default=-1) < 0 or max(some) <= 0 for some in weights):
            raise ControlError(f"mix and sizes need weights above 0 and event names, not {bad}")
        if self.shards is not None and not self.shards:
            raise ControlError("shards is a list of at least one shard, or left out")
        if not all(0 <= size <= SIZE_LIMIT for size, _ in self.sizes):
            raise ControlError(f"sizes are 0 to {SIZE_LIMIT} bytes")


class LoadStatus(msgspec.Struct, kw_only=True):
    """How a load goes."""

    id: int
    spec: LoadSpec
    started: float
    running: bool
    events: int = 0
    copies: int = 0
    """Events as sessions saw them: a shard with two sessions has two, one that nobody sees none."""
    unseen: int = 0
    """Events that no session was there to see, or whose intents let none through."""
    skipped: int = 0
    """Events that were due but dropped since the machine was too slow."""


class Choice(NamedTuple):
    """The next event."""

    t: str
    size: int
    twins: bool


class Load:
    """One running load."""

    def __init__(self, *, id: int, spec: LoadSpec, now: float, random: Random) -> None:  # noqa: A002
        self.status = LoadStatus(id=id, spec=spec, started=now, running=True)
        self._random = random
        self._last = now
        self._owed = 0.0
        self._turn = 0
        self._types, self._type_weights = list(spec.mix), list(accumulate(spec.mix.values()))
        self._sizes, self._size_weights = [n for n, _ in spec.sizes], list(accumulate(w for _, w in spec.sizes))

    def due(self, now: float) -> int:
        """Tell how many events are to be made now; 0 and not running at the end."""
        spec, status = self.status.spec, self.status
        end = status.started + spec.seconds if spec.seconds else now
        self._owed += max(0.0, min(now, end) - self._last) * spec.rate
        self._last = now
        self._cap()
        number = int(self._owed + ROUNDING)
        if spec.count:
            number = min(number, spec.count - status.events)
        self._owed -= number
        status.running = not ((spec.seconds and now >= end) or (spec.count and status.events + number >= spec.count))
        return number

    def _cap(self) -> None:
        most = max(1.0, self.status.spec.rate * BACKLOG_SECONDS)
        if self._owed > most:
            self.status.skipped += int(self._owed - most)
            self._owed = most

    def choose(self) -> Choice:
        """Draw the next event."""
        t = self._random.choices(self._types, cum_weights=self._type_weights)[0]
        size = self._random.choices(self._sizes, cum_weights=self._size_weights)[0]
        return Choice(t, size, self._random.random() < self.status.spec.twins)

    def next_guild(self, guilds: int, total: int) -> int | None:
        """Give the number of the next guild whose turn it is, on one of the wanted shards; None when there is none."""
        shards, turn = self.status.spec.shards, self._turn
        self._turn += 1
        if shards is None:
            return turn % guilds if guilds else None
        there = shard_guild_indices(shard=shards[turn % len(shards)], total=total, guilds=guilds)
        return there[turn // len(shards) % len(there)] if there else None

    def count(self, copies: int) -> None:
        """Count an event that was made."""
        self.status.events += 1
        self.status.copies += copies
        self.status.unseen += copies == 0

    def stop(self) -> None:
        """Make no more events."""
        self.status.running = False


class LoadGenerator:
    """All loads of a gateway, each driven by a timer."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._loads: dict[int, Load] = {}

    def start(self, spec: LoadSpec) -> LoadStatus:
        """Begin a load."""
        spec.bot = spec.bot or next(iter(self._gateway.bots), "")
        self._gateway.bot(spec.bot)
        load = Load(id=len(self._loads) + 1, spec=spec, now=self._gateway.clock(), random=self._gateway.random)
        self._loads[load.status.id] = load
        self._drive(load)
        return load.status

    def stop(self, load_id: int) -> LoadStatus:
        """End a load."""
        status = self.status(load_id)
        self._loads[load_id].stop()
        return status

    def status(self, load_id: int) -> LoadStatus:
        """Tell how a load goes."""
        if load_id not in self._loads:
            raise NotFoundError(f"no load {load_id}")
        return self._loads[load_id].status

    def all(self) -> list[LoadStatus]:
        """Tell how all loads go, oldest first."""
        return [load.status for load in self._loads.values()]

    def stop_all(self) -> None:
        """End all loads."""
        for load in self._loads.values():
            load.stop()

    def _drive(self, load: Load) -> None:
        gateway = self._gateway
        bot = gateway.bots.get(load.status.spec.bot)
        if not load.status.running or bot is None:
            load.stop()
            return
        total = load.status.spec.total or bot.config.shards
        for _ in range(load.due(gateway.clock())):
            choice = load.choose()
            number = None if choice.t in GUILD_LESS else load.next_guild(bot.config.guilds, total)
            if number is None and choice.t not in GUILD_LESS:
                load.count(0)
                continue
            guild = None if number is None else guild_id(number)
            load.count(gateway.emit(bot, choice.t, guild, choice.size, twins=choice.twins))
        gateway.timers.at(gateway.clock() + TICK, lambda: self._drive(load))
