"""The custom resources as typed structs: decoded from and encoded to what the API server stores.

Field names are snake_case here and camelCase on the wire. Unknown fields are ignored on decoding, so that an older
program reads a newer object. The CRDs in `crds/` hold the validation; these structs hold the defaults' twins.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

GROUP: Final = "shardwright.dev"
VERSION: Final = "v1alpha1"
_M = TypeVar("_M", bound="Model")

API_VERSION: Final = f"{GROUP}/{VERSION}"


class Model(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """Base of all that goes over the wire."""


def _camel_acronyms(name: str) -> str:
    """Rename `gateway_url` to `gatewayURL`, as Kubernetes spells acronyms; all else to camelCase."""
    head, *tail = name.split("_")
    return head + "".join("URL" if part == "url" else part.capitalize() for part in tail)


# --- DiscordGateway -----------------------------------------------------------------------------------------------


class Compression(StrEnum):
    """Transport compression, as Discord's `compress` query parameter names it."""

    NONE = "none"
    ZLIB = "zlib-stream"
    ZSTD = "zstd-stream"


class SecretKeyRef(Model, frozen=True):
    """A key of a Secret in the same namespace."""

    name: str
    key: str = "token"


class Shards(Model, frozen=True):
    """How many shards, and how many of them share a pod. `count` None: what Discord recommends."""

    count: int | None = None
    per_pod: int = 16


class EventFilter(Model, frozen=True):
    """Which events a sink takes: `include` empty means all; `exclude` is taken away from that."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class NatsSink(Model, frozen=True):
    """NATS: JetStream with acknowledgements when `stream` is named, else core NATS (at most once)."""

    url: str
    stream: str | None = None
    subject: str = "discord.{bot}.{event}"


class RedisSink(Model, frozen=True):
    """A stream of Redis or Valkey, kept at about `max_length` entries (0: without a bound)."""

    url: str
    stream: str = "discord:{bot}"
    max_length: int = 1_000_000


class KafkaKey(StrEnum):
    """What decides an event's partition, and with it what is kept in order."""

    SHARD = "shard"
    GUILD = "guild"


class KafkaSink(Model, frozen=True):
    """A topic of Kafka, written by an idempotent producer. `sasl_mechanism` None: no SASL."""

    bootstrap_servers: str
    topic: str = "discord"
    key: KafkaKey = KafkaKey.SHARD
    compression: str = "zstd"
    tls: bool = False
    sasl_mechanism: str | None = None


class AmqpSink(Model, frozen=True):
    """An exchange of RabbitMQ. `mandatory`: an event that no queue takes is refused rather than lost."""

    url: str
    exchange: str = "discord"
    routing_key: str = "discord.{bot}.{event}"
    mandatory: bool = True
    persistent: bool = True


class HttpMode(StrEnum):
    """CloudEvents over HTTP: one event a request with attributes as headers, or a JSON array of them."""

    BINARY = "binary"
    BATCHED = "batched"


class HttpSink(Model, frozen=True):
    """An HTTP endpoint. `max_batch`: events in one request of batched mode."""

    url: str
    mode: HttpMode = HttpMode.BINARY
    max_batch: int = 100


class Overflow(StrEnum):
    """What happens to events that a sink does not take in time."""

    BLOCK = "Block"
    DROP_OLDEST = "DropOldest"
    DROP_NEWEST = "DropNewest"


class SecretRef(Model, frozen=True):
    """A Secret in the same namespace; which of its keys are read, its field says."""

    name: str


class StdoutSink(Model, frozen=True):
    """One structured CloudEvents JSON line per event on standard output (at most once)."""


class MemorySink(Model, frozen=True):
    """Events kept in the process, for tests: no field of a CRD."""


class Sink(Model, frozen=True):
    """One sink: a name and exactly one kind."""

    name: str
    nats: NatsSink | None = None
    redis: RedisSink | None = None
    kafka: KafkaSink | None = None
    amqp: AmqpSink | None = None
    http: HttpSink | None = None
    stdout: StdoutSink | None = None
    memory: MemorySink | None = None
    events: EventFilter = EventFilter()
    overflow: Overflow = Overflow.BLOCK
    max_age: dict[str, str] = {}
    """Seconds, minutes or hours (`3s`) by event name or `*`: what is older is not sent."""
    credentials_secret_ref: SecretRef | None = None
    """Keys: `username`, `password`; NATS also `token`, `nkey`, `creds`; HTTP `hmac-key`, `token`."""
    tls_secret_ref: SecretRef | None = None
    """Keys: `ca.crt`, `tls.crt`, `tls.key`, as cert-manager writes them; each may be left out."""


class Transport(Model, rename=_camel_acronyms, frozen=True):
    """How to reach Discord. URLs left out are asked of Discord."""

    compression: Compression = Compression.ZSTD
    gateway_url: str | None = None
    api_url: str | None = None


class Identify(Model, frozen=True):
    """The part of the daily budget that grants never touch (percent), and the emergency stop."""

    reserve_percent: int = 10
    hold: bool = False


class VolumeClaim(Model, frozen=True):
    """A claim per range that outlives its pods: storage class (None: the cluster's default) and size, a quantity."""

    size: str
    storage_class_name: str | None = None


class Buffer(Model, frozen=True):
    """Where events wait while a sink is slow or away: memory, then disk (quantities; disk `0` switches it off)."""

    memory: str = "64Mi"
    disk: str = "1Gi"
    volume_claim: VolumeClaim | None = None


class Rollout(Model, frozen=True):
    """How many ranges may change hands at the same time."""

    max_parallel: int = 1


class PodTemplate(Model, frozen=True):
    """What the user may say of the shard pods, in Kubernetes' own shapes."""

    image: str | None = None
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[dict[str, Any], ...] = ()
    resources: dict[str, Any] = {}
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    env: tuple[dict[str, Any], ...] = ()
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] | None = None
    topology_spread_constraints: tuple[dict[str, Any], ...] | None = None
    priority_class_name: str | None = None
    security_context: dict[str, Any] | None = None


class GatewaySpec(Model, frozen=True):
    """What the user declares of a bot's gateway."""

    token_secret_ref: SecretKeyRef
    sinks: tuple[Sink, ...]
    intents: tuple[str, ...] = ()
    intent_bits: int = 0
    shards: Shards = Shards()
    transport: Transport = Transport()
    identify: Identify = Identify()
    presence: dict[str, Any] | None = None
    large_threshold: int | None = None
    buffer: Buffer = Buffer()
    rollout: Rollout = Rollout()
    paused: bool = False
    pod: PodTemplate = PodTemplate()


class Condition(Model, omit_defaults=False, frozen=True):
    """A Kubernetes condition; `status` is True, False or Unknown."""

    type: str
    status: str
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


class ConditionType(StrEnum):
    """The conditions of a DiscordGateway."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    TOKEN_VALID = "TokenValid"  # noqa: S105 - the name of a condition
    INTENTS_ALLOWED = "IntentsAllowed"
    SINKS_AVAILABLE = "SinksAvailable"
    IDENTIFY_BUDGET = "IdentifyBudget"


class PlanStatus(Model, omit_defaults=False, frozen=True):
    """The layout in force. `cold_start_seconds` is Discord's limit, not a forecast."""

    total: int
    per_pod: int
    ranges: int
    max_concurrency: int
    buckets: int
    waves: int
    cold_start_seconds: float


class ShardTotals(Model, omit_defaults=False, frozen=True):
    """Shards by state: totals only, a list would outgrow an object at 20,000."""

    total: int = 0
    ready: int = 0
    by_state: dict[str, int] = {}


class PodTotals(Model, omit_defaults=False, frozen=True):
    """Pods of the gateway: one per range when all is well."""

    total: int = 0
    ready: int = 0


class SessionStarts(Model, omit_defaults=False, frozen=True):
    """Discord's session start limit as last asked; `reset_time` in RFC 3339."""

    total: int
    remaining: int
    reset_time: str


class GatewayStatus(Model, frozen=True):
    """What the operator says of a gateway. `latency` is the mean heartbeat latency in milliseconds."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    bot_id: str | None = None
    plan: PlanStatus | None = None
    shards: ShardTotals | None = None
    pods: PodTotals | None = None
    session_starts: SessionStarts | None = None
    image: str | None = None
    guilds: int = 0
    latency: int | None = None
    phase: str | None = None
    """The Status column: one word for people (the Ready condition's reason)."""


# --- ShardRange ---------------------------------------------------------------------------------------------------


class ShardConfig(Model, rename=_camel_acronyms, frozen=True):
    """What a shard pod needs to know of its gateway, rendered by the operator."""

    gateway: str
    gateway_url: str
    intents: int
    compression: Compression = Compression.ZSTD
    sinks: tuple[Sink, ...] = ()
    presence: dict[str, Any] | None = None
    large_threshold: int | None = None
    heartbeat_seconds: float = 5.0
    """How often the pod writes its heartbeat into the ShardRange."""
    identity: str = ""
    """Hash of what only a new IDENTIFY can change: intents, presence, large threshold."""
    buffer_memory: int = 64 * 1024 * 1024
    """Bytes of events that may wait in memory."""
    buffer_disk: int = 0
    """Bytes that the spool's volume may take; 0: no spool."""


class RangeSpec(Model, frozen=True):
    """What the operator wants of a range. Pods are named by their UID; counters only rise."""

    first: int
    last: int
    total: int
    bot_id: str
    max_concurrency: int
    config: ShardConfig
    incarnation: int = 0
    epoch: int = 0
    active_pod: str = ""
    fenced_holder: str = ""
    identify_grant: int = 0
    hold: bool = False
    revision: str = ""
    """Hash of the spec that the active pod is to run."""


class ShardState(StrEnum):
    """Where a shard's session stands. `READY` covers both READY and RESUMED."""

    WAITING = "waiting"
    """No connection: waits for a grant, a bucket, its sinks or its turn to reconnect."""
    CONNECTING = "connecting"
    IDENTIFYING = "identifying"
    """Has HELLO, and its identify is paid for or about to be: waits for its bucket's slot, or for READY."""
    RESUMING = "resuming"
    READY = "ready"
    PARKED = "parked"
    """Discord answered with a fatal code: nothing is tried until what caused it changes."""
    CLOSED = "closed"
    """Closed by us; the session lives on for whoever resumes it."""


class Gap(Model, frozen=True):
    """A session that ended with events still to come: the last that every sink has. Told before the next READY."""

    session: str
    seq: int
    time: str | None = None
    """RFC 3339: no later than when that event was received; None: not known."""


class ShardStatus(Model, frozen=True):
    """A shard's row: its state, and all that another pod needs to resume it.

    `seq` is the last sequence before which every sink has acknowledged every event. A resume is legal only with the
    same `intents` and the same `compression`, so both stand here.
    """

    id: int
    state: ShardState
    session: str | None = None
    url: str | None = None
    seq: int | None = None
    seq_time: str | None = None
    """RFC 3339: no later than when `seq` was received."""
    intents: int | None = None
    compression: Compression | None = None
    guilds: int = 0
    latency: int | None = None
    """Heartbeat latency in milliseconds."""
    close: int | None = None
    """The last close code that Discord sent."""
    message: str | None = None
    """For people: why the shard is not ready."""
    identity: str | None = None
    """The `identity` of the config that the session was identified with. Another one is renewed, within the grants."""
    refused: int | None = None
    """The fatal close code that answered the identify of a renewal. The old session goes on."""
    gap: Gap | None = None
    """The session that ended before this one, until every sink has been told of the gap."""


class SinkStatus(Model, omit_defaults=False, frozen=True):
    """Whether a sink takes events, as the holder of the range sees it."""

    name: str
    available: bool
    message: str = ""


class StandbyStatus(Model, omit_defaults=False, frozen=True):
    """A pod that waits to take the range over."""

    since: str
    sinks_available: bool = False


class RangeStatus(Model, frozen=True):
    """What the pods write: each merge-patches its own keys; `holder`, `epoch`, `identifies_spent` by compare-and-swap."""

    holder: str = ""
    epoch: int = 0
    heartbeat_time: str = ""
    identifies_spent: int = 0
    shards: tuple[ShardStatus, ...] = ()
    sinks: tuple[SinkStatus, ...] = ()
    spool_bytes: int = 0
    standby: dict[str, StandbyStatus] = {}


class ObjectMeta(Model, frozen=True):
    """The part of Kubernetes' metadata that we read."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[dict[str, Any], ...] = ()


class DiscordGateway(Model, frozen=True):
    """A bot's gateway: what users apply."""

    metadata: ObjectMeta
    spec: GatewaySpec
    status: GatewayStatus = GatewayStatus()


class ShardRange(Model, frozen=True):
    """One pod's range of shards: heartbeat, checkpoint and hand-over in one small object."""

    metadata: ObjectMeta
    spec: RangeSpec
    status: RangeStatus = RangeStatus()


def decode(kind: type[_M], raw: bytes) -> _M:
    """Decode the API server's JSON. Raise `msgspec.ValidationError` naming the field that does not fit."""
    return msgspec.json.decode(raw, type=kind)


def to_wire(value: Model) -> Any:
    """Turn a struct into plain JSON-ready values with wire names."""
    return msgspec.to_builtins(value)
