"""Sinks from the resource: one place that knows every kind."""

from __future__ import annotations

from random import Random

from shardwright_api import resources
from shardwright_shard.errors import ConfigError
from shardwright_shard.sinks.base import Sink
from shardwright_shard.sinks.memory import MemorySink
from shardwright_shard.sinks.nats import NatsSink
from shardwright_shard.sinks.stdout import StdoutSink


def make_sink(spec: resources.Sink, *, bot: str, random: Random | None = None) -> Sink:
    """Make a sink of the resource for a bot's events. Raise `ConfigError` naming the sink and the field.

    `random` makes inboxes, ids and pauses; tests pass one with a seed.
    """
    kinds = [kind for kind in (spec.nats, spec.stdout, spec.memory) if kind is not None]
    if len(kinds) != 1:
        raise ConfigError(f"sink {spec.name}: exactly one kind is needed (nats, stdout)")
    try:
        return _make(kinds[0], spec, bot=bot, random=random or Random())  # noqa: S311 - no secret
    except ConfigError as error:
        raise ConfigError(f"sink {spec.name}: {error}") from error


def _make(
    kind: resources.NatsSink | resources.StdoutSink | resources.MemorySink,
    spec: resources.Sink,
    *,
    bot: str,
    random: Random,
) -> Sink:
    match kind:
        case resources.NatsSink():
            return NatsSink(kind, name=spec.name, bot=bot, events=spec.events, random=random)
        case resources.StdoutSink():
            return StdoutSink(name=spec.name, events=spec.events, random=random)
        case resources.MemorySink():
            return MemorySink(name=spec.name, events=spec.events)
