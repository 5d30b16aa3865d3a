"""What a gateway's ranges add up to, kept incrementally.

Each range contributes one frozen `RangeSummary`. When a range changes, its old summary is taken away and its new one
added: the work does not depend on how many ranges there are. What needs names (which range is parked, which is not up)
is kept as small sets of the exceptions.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from shardwright_api.resources import RangeSpec, ShardConfig, ShardRange, ShardState, ShardStatus
from shardwright_api.sharding import Range
from shardwright_operator.keys import RangeKey
from shardwright_operator.silence import Freshness
from shardwright_operator.views import Pod

ANNOTATION_PARKED_SECRET: Final = "shardwright.dev/parked-secret-version"  # noqa: S105 - the name of an annotation
"""On a ShardRange: the version of the Secret when Discord refused the bot."""
ANNOTATION_PARKED_REVISION: Final = "shardwright.dev/parked-revision"
"""On a ShardRange: the revision that ran when Discord refused the bot."""
ANNOTATION_PARKED_CODE: Final = "shardwright.dev/parked-code"
"""On a ShardRange: the close code with which Discord refused the bot. It stands until a retry is granted or works."""
ANNOTATION_FAILED_REVISION: Final = "shardwright.dev/failed-revision"
"""On a ShardRange: the revision to which a hand-over failed and was taken back."""
ANNOTATION_TRIED_REVISION: Final = "shardwright.dev/tried-revision"
"""On a ShardRange: the revision to which a hand-over was taken back once; the next time it counts as failed."""
ANNOTATION_PACED: Final = "shardwright.dev/paced-grants"
"""On a ShardRange: how many paced grants it was given in a row, and when the last, for an operator that comes up anew."""
ANNOTATION_STAYS: Final = "shardwright.dev/stays-on-node"
"""On a ShardRange: the UID of the pod that stays on its cordoned node, because its successor did not come up."""
ANNOTATION_TEMPLATE: Final = "shardwright.dev/pod-template"
"""On a ShardRange: the pod template of its revision, image included, as JSON: the gateway may have gone on since."""
ANNOTATION_RESTART_AT: Final = "shardwright.dev/restart-at"
"""On a DiscordGateway: any text; another one rolls all pods. On a ShardRange: the text that its revision was made with."""
ANNOTATION_PARKED_GENERATION: Final = "shardwright.dev/parked-generation"
"""On a ShardRange: the generation of the gateway when Discord refused the bot."""
PARKED_ANNOTATIONS: Final = (
    ANNOTATION_PARKED_CODE,
    ANNOTATION_PARKED_SECRET,
    ANNOTATION_PARKED_REVISION,
    ANNOTATION_PARKED_GENERATION,
)

UNDER_WAY: Final = frozenset({ShardState.IDENTIFYING})
"""States in which an identify is already spent: it waits for its bucket, perhaps for long, or its session is about to come."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A shard that Discord answered with a fatal code. `renewal`: its old session goes on, only the new one is refused."""

    shard: int
    code: int
    message: str
    renewal: bool = False


@dataclass(frozen=True, slots=True)
class LiveSpec:
    """The fields of a ShardRange that change without a hand-over."""

    hold: bool
    max_concurrency: int
    heartbeat_seconds: float
    gateway_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeSummary:
    """What one range contributes.

    `up`: every shard ready, held by the active pod, sinks available; whether it was heard lately is `freshness`.
    `need`: shards without a session that have not begun to identify, `under_way`: those that have. `renewals`: shards whose
    session goes on and has another identity than new ones. `open`: granted and not spent. `identity`: that with which the
    active pod identifies. `proof`: a shard is READY with it, so the token and these intents are known to be good.
    `moving`: about to change hands, or in the middle of it. `restart_at`: what the revision was made with. `gaps`: shards
    with a gap that is not told yet.
    """

    shards: int
    states: tuple[tuple[ShardState, int], ...]
    up: bool
    holds: bool
    freshness: Freshness
    guilds: int
    latency_sum: int
    latencies: int
    revision: str
    live: LiveSpec
    identity: str
    need: int
    renewals: int
    under_way: int
    open: int
    spent: int
    sessions: int
    proof: bool
    moving: bool
    failed: bool
    parked: Parked | None
    sink_trouble: str
    sinks_known: bool
    restart_at: str
    gaps: int

    @property
    def stuck(self) -> bool:
        """Whether Discord refuses a shard that has no session to go on with."""
        return self.parked is not None and not self.parked.renewal

    @property
    def ready(self) -> bool:
        """Whether the range does its work, and was heard saying so."""
        return self.up and self.freshness is Freshness.FRESH

    @property
    def ready_shards(self) -> int:
        """Count the shards that are READY by a report that is not outdated."""
        return 0 if self.freshness is Freshness.SILENT else dict(self.states).get(ShardState.READY, 0)


def live_spec(spec: RangeSpec) -> LiveSpec:
    """Take the live fields out of a range's spec."""
    return LiveSpec(spec.hold, spec.max_concurrency, spec.config.heartbeat_seconds, spec.config.gateway_url)


def identity_hash(*, intents: int, presence: dict[str, Any] | None, large_threshold: int | None) -> str:
    """Hash what only a new IDENTIFY can change into ten hexadecimal digits."""
    text = msgspec.json.encode([intents, presence, large_threshold], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:10]


def identity(config: ShardConfig) -> str:
    """Give the identity of a configuration, also where an older operator rendered it without one."""
    return config.identity or identity_hash(
        intents=config.intents, presence=config.presence, large_threshold=config.large_threshold
    )


def range_of(spec: RangeSpec) -> Range:
    """Take the shards out of a range's spec."""
    return Range(spec.first, spec.last, spec.total)


def same_identity(row: ShardStatus, config: ShardConfig) -> bool:
    """Say whether a session was identified as a configuration asks. A row without an identity is judged by its intents."""
    return row.intents in {None, config.intents} if not row.identity else row.identity == identity(config)


def needs_identify(row: ShardStatus) -> bool:
    """Say whether a shard must identify and has not begun: it has no session to resume."""
    return row.session is None and row.state not in {*UNDER_WAY, ShardState.PARKED}


def needs_renewal(row: ShardStatus, config: ShardConfig) -> bool:
    """Say whether a shard's session is to be replaced by one with the identity of the range."""
    alive = row.session is not None and row.state not in {*UNDER_WAY, ShardState.PARKED}
    return alive and not same_identity(row, config)


def parked_row(rows: tuple[ShardStatus, ...]) -> ShardStatus | None:
    """Find a shard that says that it is parked."""
    return next((row for row in rows if row.state is ShardState.PARKED), None)


def refused_row(shard_range: ShardRange) -> ShardStatus | None:
    """Find a shard whose renewal Discord refuses."""
    rows, config = shard_range.status.shards, shard_range.spec.config
    return next((row for row in rows if row.refused is not None and needs_renewal(row, config)), None)


def _parked(shard_range: ShardRange, renewals: int) -> Parked | None:
    """Say what Discord refuses of a range: a shard says so, or did, before its container was started anew."""
    row = parked_row(shard_range.status.shards)
    if row is not None:
        return Parked(row.id, row.close or 0, row.message or "")
    row = refused_row(shard_range)
    if row is not None:
        return Parked(row.id, row.refused or 0, row.message or "", renewal=True)
    noted = shard_range.metadata.annotations.get(ANNOTATION_PARKED_CODE, "")
    return Parked(shard_range.spec.first, int(noted), "", renewals > 0) if noted.isdecimal() else None


def _as_served(config: ShardConfig, active: Pod | None) -> ShardConfig:
    """Give the configuration with the identity that the active pod identifies with, be it an older one."""
    known = active.identity if active is not None else ""
    return msgspec.structs.replace(config, identity=known) if known not in {"", config.identity} else config


def _states(rows: tuple[ShardStatus, ...], shards: int) -> tuple[tuple[ShardState, int], ...]:
    counts = Counter(row.state for row in rows)
    counts[ShardState.WAITING] += max(0, shards - len(rows))
    return tuple(sorted((+counts).items()))


def _sink_trouble(shard_range: ShardRange) -> str:
    troubles = (f"{sink.name}: {sink.message}" for sink in shard_range.status.sinks if not sink.available)
    return next(troubles, "")


def summarise(shard_range: ShardRange, active: Pod | None, freshness: Freshness) -> RangeSummary:
    """Sum a range up. `active` is the pod that `spec.activePod` names, if it exists."""
    spec, status = shard_range.spec, shard_range.status
    rows, config = status.shards, _as_served(spec.config, active)
    shards = len(range_of(spec))
    failed = shard_range.metadata.annotations.get(ANNOTATION_FAILED_REVISION) == spec.revision
    holds = bool(status.holder) and status.holder == spec.active_pod and active is not None and not active.dead
    changes = active is None or active.terminating or (active.revision != spec.revision and not failed)
    all_ready = sum(row.state is ShardState.READY for row in rows) >= shards
    trouble = _sink_trouble(shard_range)
    latencies = [row.latency for row in rows if row.latency is not None]
    renewals = sum(needs_renewal(row, config) for row in rows)
    return RangeSummary(
        shards=shards,
        states=_states(rows, shards),
        up=holds and all_ready and not trouble and not (active is not None and active.unready),
        holds=holds,
        freshness=freshness,
        guilds=sum(row.guilds for row in rows),
        latency_sum=sum(latencies),
        latencies=len(latencies),
        revision=spec.revision,
        live=live_spec(spec),
        identity=identity(config),
        under_way=sum(row.state in UNDER_WAY for row in rows),
        need=shards - len(rows) + sum(map(needs_identify, rows)),
        renewals=renewals,
        open=max(0, spec.identify_grant - status.identifies_spent),
        spent=status.identifies_spent,
        sessions=sum(row.session is not None for row in rows),
        proof=holds and any(row.state is ShardState.READY and same_identity(row, config) for row in rows),
        moving=not holds or changes,
        failed=failed,
        parked=_parked(shard_range, renewals),
        sink_trouble=trouble,
        sinks_known=bool(status.sinks),
        restart_at=shard_range.metadata.annotations.get(ANNOTATION_RESTART_AT, ""),
        gaps=sum(row.gap is not None for row in rows),
    )


@dataclass(slots=True)
class GatewayTotals:
    """The sums over all ranges of a gateway, by the gateway's UID."""

    members: set[RangeKey] = field(default_factory=set)
    shards: int = 0
    states: Counter[ShardState] = field(default_factory=Counter)
    ready_shards: int = 0
    ready_ranges: int = 0
    guilds: int = 0
    latency_sum: int = 0
    latencies: int = 0
    need: int = 0
    renewals: int = 0
    open: int = 0
    sinks_known: int = 0
    gaps: int = 0
    revisions: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    live: Counter[LiveSpec] = field(default_factory=Counter)
    not_up: set[RangeKey] = field(default_factory=set)
    unheard: set[RangeKey] = field(default_factory=set)
    moving: set[RangeKey] = field(default_factory=set)
    failed: set[RangeKey] = field(default_factory=set)
    proven: set[RangeKey] = field(default_factory=set)
    renewing: set[RangeKey] = field(default_factory=set)
    parked: dict[RangeKey, Parked] = field(default_factory=dict)
    """What Discord refuses, renewals included."""
    sink_troubles: dict[RangeKey, str] = field(default_factory=dict)

    @property
    def stuck(self) -> dict[RangeKey, Parked]:
        """The ranges with a shard that Discord refuses, and that has no session to go on with."""
        return {key: parked for key, parked in self.parked.items() if not parked.renewal}

    def replace(self, key: RangeKey, old: RangeSummary | None, new: RangeSummary | None) -> None:
        """Take a range's old summary away and add its new one."""
        if old is not None:
            self._count(old, -1)
            self._unmark(key)
        if new is not None:
            self._count(new, 1)
            self._mark(key, new)

    def _count(self, summary: RangeSummary, sign: int) -> None:
        self.shards += sign * summary.shards
        self.ready_shards += sign * summary.ready_shards
        self.ready_ranges += sign * summary.ready
        self.guilds += sign * summary.guilds
        self.latency_sum += sign * summary.latency_sum
        self.latencies += sign * summary.latencies
        self.need += sign * summary.need
        self.renewals += sign * summary.renewals
        self.open += sign * summary.open
        self.sinks_known += sign * summary.sinks_known
        self.gaps += sign * summary.gaps
        self.revisions[summary.revision] += sign
        self.restarts[summary.restart_at] += sign
        self.live[summary.live] += sign
        for state, count in summary.states:
            self.states[state] += sign * count

    def _unmark(self, key: RangeKey) -> None:
        for marks in (
            self.members,
            self.not_up,
            self.unheard,
            self.moving,
            self.failed,
            self.proven,
            self.renewing,
        ):
            marks.discard(key)
        self.parked.pop(key, None)
        self.sink_troubles.pop(key, None)

    def _mark(self, key: RangeKey, summary: RangeSummary) -> None:
        self.members.add(key)
        marks = (
            (self.not_up, not summary.up or summary.freshness is Freshness.SILENT),
            (self.unheard, summary.freshness is Freshness.UNHEARD),
            (self.moving, summary.moving),
            (self.failed, summary.failed),
            (self.proven, summary.proof),
            (self.renewing, summary.renewals > 0),
        )
        for members, marked in marks:
            if marked:
                members.add(key)
        if summary.parked is not None:
            self.parked[key] = summary.parked
        if summary.sink_trouble:
            self.sink_troubles[key] = summary.sink_trouble
