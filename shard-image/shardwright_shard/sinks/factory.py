"""Sinks from the resource: one place that knows every kind."""

from __future__ import annotations

from pathlib import Path
from random import Random

from shardwright_api import names, resources
from shardwright_shard.errors import ConfigError
from shardwright_shard.sinks import max_age
from shardwright_shard.sinks.base import Sink
from shardwright_shard.sinks.connected import Limits, Surroundings
from shardwright_shard.sinks.memory import MemorySink
from shardwright_shard.sinks.nats import NatsSink
from shardwright_shard.sinks.redis import RedisSink
from shardwright_shard.sinks.secrets import Secrets
from shardwright_shard.sinks.stdout import StdoutSink

Kind = (
    resources.NatsSink
    | resources.RedisSink
    | resources.KafkaSink
    | resources.AmqpSink
    | resources.HttpSink
    | resources.StdoutSink
    | resources.MemorySink
)


def make_sink(
    spec: resources.Sink,
    *,
    bot: str,
    random: Random | None = None,
    secrets: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Sink:
    """Make a sink of the resource for a bot's events. Raise `ConfigError` naming the sink and the field.

    `random` makes inboxes, ids and pauses; tests pass one with a seed. `secrets`: the folder that holds a folder for
    each sink, see `secrets.py`.
    """
    folder = (secrets or Path(names.SINKS_DIR)) / spec.name
    found = Secrets(folder, credentials=spec.credentials_secret_ref is not None, tls=spec.tls_secret_ref is not None)
    around = Surroundings(spec=spec, bot=bot, random=random or Random(), secrets=found, limits=limits)  # noqa: S311 - no secret
    kinds = [kind for kind in _kinds(spec) if kind is not None]
    if len(kinds) != 1:
        raise ConfigError(f"sink {spec.name}: exactly one kind is needed (nats, redis, kafka, amqp, http, stdout)")
    try:
        return _make(kinds[0], around)
    except ConfigError as error:
        raise ConfigError(f"sink {spec.name}: {error}") from error


def _kinds(spec: resources.Sink) -> tuple[Kind | None, ...]:
    return spec.nats, spec.redis, spec.kafka, spec.amqp, spec.http, spec.stdout, spec.memory


def _make(kind: Kind, around: Surroundings) -> Sink:  # noqa: PLR0911 - one for each kind
    """Make a sink. What a pod does not use is not imported: client libraries take memory."""
    match kind:
        case resources.NatsSink():
            return NatsSink(kind, around)
        case resources.StdoutSink():
            spec = around.spec
            ages = max_age.seconds(spec.max_age)
            return StdoutSink(
                name=spec.name, events=spec.events, random=around.random, max_age=ages, overflow=spec.overflow
            )
        case resources.MemorySink():
            return MemorySink(name=around.spec.name, events=around.spec.events)
        case resources.RedisSink():
            return RedisSink(kind, around)
        case resources.KafkaSink():
            from shardwright_shard.sinks.kafka import KafkaSink  # noqa: PLC0415

            return KafkaSink(kind, around)
        case resources.AmqpSink():
            from shardwright_shard.sinks.amqp import AmqpSink  # noqa: PLC0415

            return AmqpSink(kind, around)
        case resources.HttpSink():
            from shardwright_shard.sinks.http import HttpSink  # noqa: PLC0415

            return HttpSink(kind, around)
