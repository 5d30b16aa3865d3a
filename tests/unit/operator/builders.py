"""Short ways to the structs that the operator's tests talk about."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from shardwright_api import names
from shardwright_api.resources import (
    DiscordGateway,
    GatewaySpec,
    GatewayStatus,
    NatsSink,
    ObjectMeta,
    RangeSpec,
    RangeStatus,
    SecretKeyRef,
    ShardConfig,
    ShardRange,
    Shards,
    ShardState,
    ShardStatus,
    Sink,
)
from shardwright_operator.asker import Answer, Verdict
from shardwright_operator.discord_rest import GatewayBot, SessionStartLimit
from shardwright_operator.keys import RangeKey
from shardwright_operator.observed import GatewayObserved, RangeBudget, RangeObserved, Wanted
from shardwright_operator.render import buffer_version
from shardwright_operator.revision import revision
from shardwright_operator.silence import Freshness
from shardwright_operator.sums import GatewayTotals, summarise
from shardwright_operator.tokens import Token, TokenState
from shardwright_operator.views import (
    ANNOTATION_BUFFER,
    ANNOTATION_SECRET_VERSION,
    ContainerState,
    ContainerStatus,
    Pod,
    PodSpec,
    PodStatus,
    Trait,
    Waiting,
    range_key,
)

NAMESPACE = "bots"
GATEWAY = "mybot"
GATEWAY_UID = "gateway-uid"
BOT = "1000000000000000001"
TOKEN = "MTAwMDAwMDAwMDAwMDAwMDAwMQ.abc.def"
SECRET_VERSION = "100"
INTENTS = 513
NOW = "2026-01-02T03:04:05Z"


def gateway(*, generation=1, status=None, uid=GATEWAY_UID, namespace=NAMESPACE, created=NOW, **spec: Any):
    given = {
        "token_secret_ref": SecretKeyRef("mybot-token"),
        "sinks": (Sink("events", nats=NatsSink("nats://nats:4222", stream="DISCORD")),),
        "intents": ("GUILDS", "GUILD_MESSAGES"),
        "shards": Shards(count=4, per_pod=2),
    }
    return DiscordGateway(
        ObjectMeta(GATEWAY, namespace, uid, "1", generation=generation, creation_timestamp=created),
        GatewaySpec(**(given | spec)),
        status or GatewayStatus(),
    )


GATEWAY_OBJECT = gateway()
REVISION = revision(GATEWAY_OBJECT.spec)


def config(**changes: Any):
    given = {"gateway": GATEWAY, "gateway_url": "wss://gateway.discord.gg", "intents": INTENTS}
    return ShardConfig(**(given | {"sinks": GATEWAY_OBJECT.spec.sinks} | changes))


def owner(kind: str, uid: str):
    return ({"kind": kind, "uid": uid, "controller": True},)


def shard_range(
    *,
    first=0,
    last=1,
    total=4,
    uid="",
    annotations=None,
    status=None,
    version="10",
    gateway_uid=GATEWAY_UID,
    **spec: Any,
):
    name = f"{GATEWAY}-{total}-{first}-{last}"
    given = {"bot_id": BOT, "max_concurrency": 1, "config": config(), "revision": REVISION}
    return ShardRange(
        ObjectMeta(
            name,
            NAMESPACE,
            uid or f"range-uid-{first}",
            version,
            generation=1,
            labels={names.LABEL_GATEWAY: GATEWAY},
            annotations=annotations or {},
            owner_references=owner("DiscordGateway", gateway_uid),
        ),
        RangeSpec(first, last, total, **(given | spec)),
        status or RangeStatus(),
    )


def pod(
    uid="pod-a",
    *,
    of=None,
    incarnation=1,
    revision=REVISION,
    secret=SECRET_VERSION,
    phase="Running",
    ready=True,
    terminating=False,
    looping=False,
    node="node-1",
    version="10",
    buffer=None,
):
    of = of or shard_range()
    waiting = Waiting("CrashLoopBackOff") if looping else None
    annotations = {
        names.ANNOTATION_REVISION: revision,
        names.ANNOTATION_INCARNATION: str(incarnation),
        ANNOTATION_SECRET_VERSION: secret,
        ANNOTATION_BUFFER: buffer_version(of.spec.config) if buffer is None else buffer,
    }
    return Pod(
        ObjectMeta(
            f"{of.metadata.name}-{incarnation}-{uid}",
            NAMESPACE,
            uid,
            version,
            deletion_timestamp=NOW if terminating else None,
            labels={names.LABEL_RANGE: of.metadata.name, names.LABEL_GATEWAY: GATEWAY},
            annotations=annotations,
            owner_references=owner("ShardRange", of.metadata.uid),
        ),
        PodSpec(node),
        PodStatus(phase, (Trait("Ready", "True" if ready else "False"),), (ContainerStatus(ContainerState(waiting)),)),
    )


def row(shard: int, state=ShardState.READY, *, session: str | None = "s", intents=INTENTS, **rest: Any):
    return ShardStatus(shard, state, session=session, intents=intents if session else None, **rest)


def rows(of, state=ShardState.READY, **rest: Any):
    return tuple(row(shard, state, **rest) for shard in range(of.spec.first, of.spec.last + 1))


def with_status(of, **changes: Any):
    return msgspec.structs.replace(of, status=msgspec.structs.replace(of.status, **changes))


def with_spec(of, **changes: Any):
    return msgspec.structs.replace(of, spec=msgspec.structs.replace(of.spec, **changes))


def wanted(of=None, **changes: Any):
    of = of or GATEWAY_OBJECT
    given = {
        "gateway": of,
        "revision": revision(of.spec),
        "image": "shard:1",
        "pull_policy": "IfNotPresent",
        "create_pods": True,
        "secret_version": SECRET_VERSION,
        "blamed_version": SECRET_VERSION,
        "healed": True,
    }
    return Wanted(**(given | changes))


def summary(of, pods=(), freshness=Freshness.FRESH):
    active = next((one for one in pods if one.uid == of.spec.active_pod), None)
    return summarise(of, active, freshness)


def range_seen(of, pods=(), **changes: Any):
    given = {"wanted": wanted(), "summary": summary(of, pods)}
    return RangeObserved(shard_range=of, pods=tuple(pods), **(given | changes))


def serving(first=0, last=1, **spec: Any):
    """A range that its active pod holds, every shard READY."""
    given = {"active_pod": "pod-a", "incarnation": 1, "epoch": 1, "identify_grant": 2}
    of = shard_range(first=first, last=last, **(given | spec))
    return with_status(of, holder="pod-a", epoch=1, heartbeat_time=NOW, identifies_spent=2, shards=rows(of))


def token_state(value=TOKEN, version=SECRET_VERSION):
    return TokenState(Token(value), BOT, version)


def answer(*, total=1000, remaining=1000, shards=4, max_concurrency=1, asked_at=0.0, verdict=Verdict.ACCEPTED):
    limit = SessionStartLimit(total, remaining, 3_600_000, max_concurrency)
    return Answer(verdict, GatewayBot("wss://gateway.discord.gg", shards, limit), asked_at, 0, 3600.0, NOW)


def gateway_seen(of=None, ranges=(), pods=(), *, freshness=Freshness.FRESH, **changes: Any):
    """A gateway with these ranges; `pods` may name the active ones."""
    of = of or GATEWAY_OBJECT
    totals, known, summaries = GatewayTotals(), {}, {}
    for one in ranges:
        key = range_key(one)
        known[key] = one
        summaries[key] = summary(one, pods, freshness)
        totals.replace(key, None, summaries[key])
    given = {
        "gateway": of,
        "token": token_state(),
        "answer": answer(),
        "totals": totals,
        "ranges": known,
        "summaries": summaries,
        "default_image": "shard:1",
        "pull_policy": "IfNotPresent",
        "blamed_version": SECRET_VERSION,
        "now": NOW,
    }
    return GatewayObserved(**(given | changes))


def budget(of, pods=(), **changes: Any):
    return RangeBudget(shard_range=of, summary=summary(of, pods), **changes)


def key(first=0, last=1, total=4):
    return RangeKey(NAMESPACE, f"{GATEWAY}-{total}-{first}-{last}")


def moment(text=NOW):
    return dt.datetime.fromisoformat(text)
