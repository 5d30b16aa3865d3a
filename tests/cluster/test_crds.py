"""The CRDs on a real API server: good objects are taken and defaulted, bad ones refused by a message that names the field."""

from __future__ import annotations

import copy
import json
import secrets
from typing import Any

import msgspec
import pytest
import yaml
from kubectl import Kubectl, install_crds, merge_patch

from shardwright_api import resources

pytestmark = pytest.mark.cluster

MINIMAL = {
    "apiVersion": "shardwright.dev/v1alpha1",
    "kind": "DiscordGateway",
    "metadata": {"name": "mybot"},
    "spec": {
        "tokenSecretRef": {"name": "mybot-token"},
        "intents": ["GUILDS", "GUILD_MESSAGES"],
        "sinks": [{"name": "events", "nats": {"url": "nats://nats:4222"}}],
    },
}
FULL = yaml.safe_load("""
apiVersion: shardwright.dev/v1alpha1
kind: DiscordGateway
metadata: {name: everything}
spec:
  tokenSecretRef: {name: mybot-token, key: bot.token}
  intents: [GUILDS, GUILD_MESSAGES, MESSAGE_CONTENT]
  intentBits: 134217728
  shards: {count: 128, perPod: 16}
  sinks:
    - name: events
      nats: {url: "tls://nats.example:4222", stream: DISCORD, subject: "discord.{bot}.{shard}.{guild}.{event}"}
      events: {exclude: [PRESENCE_UPDATE, TYPING_START, backfill]}
    - name: log
      stdout: {}
      events: {include: [MESSAGE_CREATE]}
    - name: cache
      redis: {url: "rediss://redis-1:6380/2,rediss://redis-2", stream: "discord:{bot}:{shard}", maxLength: 0}
      overflow: DropOldest
      maxAge: {INTERACTION_CREATE: 3s, "*": 10m}
      credentialsSecretRef: {name: redis-login}
      tlsSecretRef: {name: redis-tls}
    - name: log2
      kafka: {bootstrapServers: "a:9092,b:9092", topic: discord, key: guild, compression: lz4, tls: true, saslMechanism: SCRAM-SHA-512}
    - name: queue
      amqp: {url: "amqps://rabbit:5671/prod", exchange: discord, routingKey: "{event}.{guild}", mandatory: false, persistent: false}
    - name: hook
      http: {url: "https://example.com/hook?a=b", mode: batched, maxBatch: 10}
  transport: {compression: zlib-stream, gatewayURL: "ws://simulator:8080", apiURL: "http://simulator:8080/api/v10"}
  identify: {reservePercent: 25, hold: true}
  buffer: {memory: 32Mi, disk: 512Mi, volumeClaim: {size: 2Gi, storageClassName: fast}}
  rollout: {maxParallel: 2}
  paused: true
  presence:
    status: idle
    afk: false
    since: null
    activities: [{name: chess, type: 3}, {name: custom, type: 4, state: thinking}]
  largeThreshold: 250
  pod:
    image: example/shard@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    imagePullPolicy: Always
    imagePullSecrets: [{name: pull}]
    resources: {requests: {cpu: 250m, memory: 64Mi}, limits: {memory: 128Mi, cpu: 1}}
    labels: {team: discord}
    annotations: {example.com/note: anything at all}
    env:
      - {name: HTTPS_PROXY, value: "http://proxy:3128"}
      - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    nodeSelector: {kubernetes.io/arch: amd64}
    tolerations: [{key: spot, operator: Exists, effect: NoExecute, tolerationSeconds: 60}]
    affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{}]}}}
    topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}
    priorityClassName: high
    securityContext: {fsGroup: 65532}
""")
NATS = {"url": "nats://nats:4222"}


def sink(**fields: Any) -> dict[str, Any]:
    """Give a spec with one sink."""
    return {"sinks": [{"name": "a", **fields}]}


BAD_SPECS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what is wrong: (the spec's change, the field that the message names, what else it says)
    "an unknown intent": ({"intents": ["GUILDS", "GUILD_MESAGES"]}, "spec.intents[1]", '"GUILD_MESAGES"'),
    "an intent named twice": ({"intents": ["GUILDS", "GUILDS"]}, "spec.intents[1]", "Duplicate"),
    "no intent": ({"intents": []}, "spec:", "intents or intentBits"),
    "negative intent bits": ({"intentBits": -1}, "spec.intentBits", "greater than or equal to 0"),
    "no shards": ({"shards": {"count": 0}}, "spec.shards.count", "greater than or equal to 1"),
    "too many shards": ({"shards": {"count": 100_001}}, "spec.shards.count", "less than or equal to 100000"),
    "no shards in a pod": ({"shards": {"perPod": 0}}, "spec.shards.perPod", "greater than or equal to 1"),
    "too many shards in a pod": ({"shards": {"perPod": 201}}, "spec.shards.perPod", "less than or equal to 200"),
    "no token": ({"tokenSecretRef": None}, "spec.tokenSecretRef", "Required"),
    "a Secret that cannot be": ({"tokenSecretRef": {"name": "My_Token"}}, "spec.tokenSecretRef.name", "My_Token"),
    "no sinks": ({"sinks": None}, "spec.sinks", "Required"),
    "an empty list of sinks": ({"sinks": []}, "spec.sinks", "at least 1"),
    "two sinks of one name": (
        {"sinks": [{"name": "a", "stdout": {}}, {"name": "a", "nats": NATS}]},
        "spec.sinks[1]",
        "Duplicate",
    ),
    "a sink without a kind": (
        sink(),
        "spec.sinks[0]",
        "sink a needs exactly one kind, one of nats, redis, kafka, amqp, http, stdout",
    ),
    "a sink of two kinds": (
        sink(nats=NATS, stdout={}),
        "spec.sinks[0]",
        "sink a needs exactly one kind, one of nats, redis, kafka, amqp, http, stdout",
    ),
    "two sinks into one stream": (
        {"sinks": [{"name": "a", "nats": {**NATS, "stream": "ONE"}}, {"name": "b", "nats": {**NATS, "stream": "ONE"}}]},
        "spec.sinks",
        "the same nats.stream",
    ),
    "a sink's name with a dot": ({"sinks": [{"name": "a.b", "stdout": {}}]}, "spec.sinks[0].name", "a.b"),
    "a sink without a server": (sink(nats={}), "spec.sinks[0].nats.url", "Required"),
    "a NATS URL of another scheme": (sink(nats={"url": "redis://a"}), "spec.sinks[0].nats.url", "nats://host:port"),
    "a NATS URL with a path": (sink(nats={"url": "nats://a/b"}), "spec.sinks[0].nats.url", "nats://host:port"),
    "a Redis URL of another scheme": (sink(redis={"url": "nats://a"}), "spec.sinks[0].redis.url", "redis://host:port"),
    "a broker without a port": (
        sink(kafka={"bootstrapServers": "a"}),
        "spec.sinks[0].kafka.bootstrapServers",
        "host:port",
    ),
    "a key of another kind": (
        sink(kafka={"bootstrapServers": "a:1", "key": "user"}),
        "spec.sinks[0].kafka.key",
        "user",
    ),
    "an AMQP URL of another scheme": (sink(amqp={"url": "http://a"}), "spec.sinks[0].amqp.url", "amqp://host:port"),
    "an HTTP URL of another scheme": (sink(http={"url": "amqp://a"}), "spec.sinks[0].http.url", "https://host:port"),
    "a batch of nothing": (sink(http={"url": "http://a", "maxBatch": 0}), "spec.sinks[0].http.maxBatch", "1"),
    "an age without a unit": (sink(stdout={}, maxAge={"A": "3"}), "spec.sinks[0].maxAge", "3"),
    "an age of a name that is none": (
        sink(stdout={}, maxAge={"a b": "3s"}),
        "spec.sinks[0].maxAge",
        "INTERACTION_CREATE",
    ),
    "an unknown overflow": (sink(stdout={}, overflow="Drop"), "spec.sinks[0].overflow", "Drop"),
    "a stream with a dot": (sink(nats={**NATS, "stream": "a.b"}), "spec.sinks[0].nats.stream", "a.b"),
    "a subject with a wildcard": (sink(nats={**NATS, "subject": "a.>"}), "spec.sinks[0].nats.subject", "a.>"),
    "a subject with a space": (sink(nats={**NATS, "subject": "a b"}), "spec.sinks[0].nats.subject", "a b"),
    "a subject with an empty word": (sink(nats={**NATS, "subject": "a..b"}), "spec.sinks[0].nats.subject", "a..b"),
    "an unknown placeholder": (sink(nats={**NATS, "subject": "a.{user}"}), "spec.sinks[0].nats.subject", "a.{user}"),
    "an event in lower case": (
        sink(stdout={}, events={"exclude": ["typing_start"]}),
        "spec.sinks[0].events.exclude[0]",
        "typing_start",
    ),
    "an unknown compression": ({"transport": {"compression": "gzip"}}, "spec.transport.compression", '"gzip"'),
    "a gateway that is no websocket": (
        {"transport": {"gatewayURL": "https://a"}},
        "spec.transport.gatewayURL",
        "wss://",
    ),
    "a gateway with a query": ({"transport": {"gatewayURL": "wss://a?v=10"}}, "spec.transport.gatewayURL", "query"),
    "an API that is not HTTP": ({"transport": {"apiURL": "ftp://a"}}, "spec.transport.apiURL", "https://"),
    "a reserve of everything": ({"identify": {"reservePercent": 100}}, "spec.identify.reservePercent", "90"),
    "a presence that Discord lacks": ({"presence": {"status": "away"}}, "spec.presence.status", '"away"'),
    "an activity that Discord lacks": (
        {"presence": {"activities": [{"name": "a", "type": 6}]}},
        "spec.presence.activities[0].type",
        "5",
    ),
    "a threshold below Discord's": ({"largeThreshold": 49}, "spec.largeThreshold", "50"),
    "a variable of the operator": (
        {"pod": {"env": [{"name": "SHARDWRIGHT_X", "value": "1"}]}},
        "spec.pod.env[0].name",
        "must not begin with SHARDWRIGHT_",
    ),
    "a variable with value and source": (
        {"pod": {"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}},
        "spec.pod.env[0]",
        "either value or valueFrom",
    ),
    "a label of the operator": (
        {"pod": {"labels": {"shardwright.dev/gateway": "b"}}},
        "spec.pod.labels",
        "to the operator",
    ),
    "a label that kopf selects by": (
        {"pod": {"labels": {"app.kubernetes.io/managed-by": "me"}}},
        "spec.pod.labels",
        "to the operator",
    ),
    "an annotation of the operator": (
        {"pod": {"annotations": {"shardwright.dev/revision": "b"}}},
        "spec.pod.annotations",
        "to the operator",
    ),
    "a quantity that is none": (
        {"pod": {"resources": {"limits": {"memory": "lots"}}}},
        "spec.pod.resources.limits.memory",
        "lots",
    ),
    "an unknown pull policy": ({"pod": {"imagePullPolicy": "Sometimes"}}, "spec.pod.imagePullPolicy", "Sometimes"),
    "a field that does not exist": ({"shardCount": 4}, "spec.shardCount", "unknown field"),
}
WITH_CREDENTIALS = {
    "spec.sinks[0].nats.url": sink(nats={"url": "nats://me:hunter2@nats:4222"}),
    "spec.sinks[0].redis.url": sink(redis={"url": "redis://me:hunter2@redis"}),
    "spec.sinks[0].kafka.bootstrapServers": sink(kafka={"bootstrapServers": "me:hunter2@kafka:9092"}),
    "spec.sinks[0].amqp.url": sink(amqp={"url": "amqp://me:hunter2@rabbit"}),
    "spec.sinks[0].http.url": sink(http={"url": "https://me:hunter2@hook"}),
    "spec.transport.gatewayURL": {"transport": {"gatewayURL": "wss://me:hunter2@gateway"}},
    "spec.transport.apiURL": {"transport": {"apiURL": "https://me:hunter2@api/v10"}},
}
RANGE = {
    "apiVersion": "shardwright.dev/v1alpha1",
    "kind": "ShardRange",
    "metadata": {"name": "mybot-32-0-15"},
    "spec": {
        "first": 0,
        "last": 15,
        "total": 32,
        "botId": "123456789012345678",
        "maxConcurrency": 1,
        "config": {"gateway": "mybot", "gatewayURL": "wss://gateway", "intents": 513},
    },
}


@pytest.fixture(scope="module")
def admin(kubeconfig):
    """kubectl with the CRDs installed, and a namespace of its own."""
    kubectl = Kubectl(kubeconfig, f"crds-{secrets.token_hex(4)}")
    install_crds(kubectl)
    kubectl("create", "namespace", kubectl.namespace)
    yield kubectl
    kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture
def shard_range(admin):
    """A stored ShardRange that was granted two identifies."""
    manifest = copy.deepcopy(RANGE)
    manifest["metadata"] = {"name": f"range-{secrets.token_hex(4)}-32-0-15"}
    manifest["spec"]["identifyGrant"] = 2
    return "sr/" + admin.create(manifest)["metadata"]["name"]


def with_spec(change: dict[str, Any]) -> str:
    """Give the minimal DiscordGateway with some of its spec replaced, as kubectl reads it."""
    return json.dumps({**MINIMAL, "spec": {**MINIMAL["spec"], **change}})


def decoded(manifest: dict[str, Any]) -> resources.GatewaySpec:
    """Give the spec as the operator reads it."""
    return resources.decode(resources.DiscordGateway, msgspec.json.encode(manifest)).spec


def test_a_minimal_gateway_is_taken_and_the_servers_defaults_are_the_structs(admin):
    stored = admin.create(MINIMAL, "--dry-run=server")
    assert stored["spec"]["shards"] == {"perPod": 16}
    assert stored["spec"]["transport"] == {"compression": "zstd-stream"}
    assert stored["spec"]["identify"] == {"reservePercent": 10, "hold": False}
    assert decoded(stored) == decoded(MINIMAL)


def test_a_gateway_that_uses_every_field_is_stored_as_written(admin):
    stored = admin.create(FULL, "--dry-run=server")
    assert decoded(stored) == decoded(FULL)
    written = {name for name in resources.GatewaySpec.__struct_encode_fields__ if name in FULL["spec"]}
    assert written == set(resources.GatewaySpec.__struct_encode_fields__)


@pytest.mark.parametrize(("change", "field", "says"), BAD_SPECS.values(), ids=BAD_SPECS.keys())
def test_a_bad_spec_is_refused_by_a_message_that_names_the_field(admin, change, field, says):
    message = admin.refused("create", "--dry-run=server", "-f-", stdin=with_spec(change))
    assert field in message
    assert says in message


@pytest.mark.parametrize(("field", "change"), WITH_CREDENTIALS.items(), ids=WITH_CREDENTIALS.keys())
def test_a_password_in_a_url_is_refused_and_not_repeated(admin, field, change):
    message = admin.refused("create", "--dry-run=server", "-f-", stdin=with_spec(change))
    assert field in message
    assert "user name or password" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(("name", "says"), [("b" * 41, "at most 40 characters"), ("my.bot", "DNS label")])
def test_a_name_that_labels_cannot_carry_is_refused(admin, name, says):
    manifest = json.dumps({**MINIMAL, "metadata": {"name": name}})
    message = admin.refused("create", "--dry-run=server", "-f-", stdin=manifest)
    assert "metadata.name" in message
    assert says in message


def test_a_name_of_forty_characters_is_taken(admin):
    admin.create({**MINIMAL, "metadata": {"name": "b" * 40}}, "--dry-run=server")


def test_get_shows_what_people_ask_first(admin):
    admin.create({**MINIMAL, "metadata": {"name": "columns"}})
    status = resources.GatewayStatus(
        shards=resources.ShardTotals(total=128, ready=127),
        pods=resources.PodTotals(total=9, ready=7),
        guilds=4711,
        session_starts=resources.SessionStarts(total=1000, remaining=872, reset_time="2026-01-01T00:00:00Z"),
        phase="Progressing",
        conditions=(
            resources.Condition(
                type="Ready",
                status="True",
                reason="Ready",
                observed_generation=1,  # kubectl wait takes no condition that speaks of an older generation
                last_transition_time="2026-01-01T00:00:00.123456Z",
            ),
        ),
    )
    admin(*merge_patch("dgw/columns", {"status": resources.to_wire(status)}, "--subresource=status"))
    header, row = admin("get", "discord", "columns").splitlines()
    assert header.split() == ["NAME", "SHARDS", "READY", "PODS", "GUILDS", "IDENTIFIES-LEFT", "STATUS", "AGE"]
    assert row.split()[:-1] == ["columns", "128", "127", "9", "4711", "872", "Progressing"]
    admin("wait", "--for=condition=Ready", "dgw/columns", "--timeout=5s")


def test_a_gateway_status_does_not_raise_the_generation(admin):
    stored = admin.create({**MINIMAL, "metadata": {"name": "generation"}})
    admin(*merge_patch("dgw/generation", {"status": {"phase": "Ready"}}, "--subresource=status"))
    assert admin("get", "dgw/generation", "-ojsonpath={.metadata.generation}") == str(stored["metadata"]["generation"])


def test_explain_describes_every_field(admin):
    assert "A change is a re-identify." in " ".join(admin("explain", "dgw.spec.intents").split())
    for path in (
        "dgw.spec",
        "dgw.spec.sinks.nats",
        "dgw.spec.pod",
        "dgw.status",
        "sr.spec",
        "sr.spec.config",
        "sr.status",
    ):
        assert "<no description>" not in admin("explain", path)


def test_get_of_ranges_tells_which_are_not_ready_and_what_was_spent(admin, shard_range):
    status = resources.RangeStatus(
        holder="2f0c9a52-8a1f-4d0e-a6a5-0c9f5a1f0b11",
        epoch=3,
        heartbeat_time="2026-01-01T00:00:00.123456Z",
        identifies_spent=1,
        shards=(
            resources.ShardStatus(id=0, state=resources.ShardState.READY, session="s", url="wss://r", seq=5),
            resources.ShardStatus(id=1, state=resources.ShardState.RESUMING, message="the socket was lost"),
        ),
        spool_bytes=42,
        standby={"8d8a3bb5-0000-4d0e-a6a5-0c9f5a1f0b11": resources.StandbyStatus(since="2026-01-01T00:00:00Z")},
    )
    admin(*merge_patch(shard_range, {"status": resources.to_wire(status)}, "--subresource=status"))
    header, row = admin("get", shard_range).splitlines()
    assert header.split() == ["NAME", "FIRST", "LAST", "NOT-READY", "EPOCH", "GRANT", "SPENT", "HEARTBEAT", "AGE"]
    assert row.split()[1:7] == ["0", "15", "resuming", "3", "2", "1"]
    wide = admin("get", shard_range, "-owide")
    assert "the socket was lost" in wide
    assert "2f0c9a52-8a1f-4d0e-a6a5-0c9f5a1f0b11" in wide


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"first": 16}, "first <= last"),
        ({"last": 32}, "last < total"),
        ({"last": 250, "total": 300}, "at most 200 shards"),
        ({"botId": "abc"}, "spec.botId"),
        ({"maxConcurrency": 0}, "spec.maxConcurrency"),
    ],
)
def test_a_range_that_cannot_be_is_refused(admin, change, says):
    manifest = json.dumps({**RANGE, "spec": {**RANGE["spec"], **change}})
    assert says in admin.refused("create", "--dry-run=server", "-f-", stdin=manifest)


@pytest.mark.parametrize(("field", "value"), [("first", 1), ("last", 14), ("total", 33)])
def test_a_range_never_moves(admin, shard_range, field, value):
    assert f"{field} never changes" in admin.refused(*merge_patch(shard_range, {"spec": {field: value}}))


def spend(number: int | None) -> dict[str, Any]:
    """Give the status that a pod writes before it identifies."""
    return {"status": {"identifiesSpent": number}}


def test_an_identify_that_was_not_granted_cannot_be_written(admin, shard_range):
    admin(*merge_patch(shard_range, spend(2), "--subresource=status"))
    message = admin.refused(*merge_patch(shard_range, spend(3), "--subresource=status"))
    assert "identifiesSpent must not exceed spec.identifyGrant" in message


@pytest.mark.parametrize("status", [spend(1), spend(None), {"status": None}], ids=["lowered", "removed", "no status"])
def test_what_was_spent_is_never_forgotten(admin, shard_range, status):
    admin(*merge_patch(shard_range, spend(2), "--subresource=status"))
    admin.refused(*merge_patch(shard_range, status, "--subresource=status"))
    assert admin("get", shard_range, "-ojsonpath={.status.identifiesSpent}") == "2"


@pytest.mark.parametrize("counter", ["incarnation", "epoch", "identifyGrant"])
def test_the_operators_counters_only_rise(admin, shard_range, counter):
    admin(*merge_patch(shard_range, {"spec": {counter: 5}}))
    assert f"{counter} only rises" in admin.refused(*merge_patch(shard_range, {"spec": {counter: 4}}))
    assert f"{counter} only rises" in admin.refused(*merge_patch(shard_range, {"spec": {counter: None}}))
