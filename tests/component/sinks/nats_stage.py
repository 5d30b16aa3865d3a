"""A NATS sink at a journal, run against a server."""

from __future__ import annotations

from random import Random

from component.sinks import stage
from component.sinks.stage import BOT, QUICK, message
from shardwright_api import resources
from shardwright_shard.sinks.connected import Surroundings
from shardwright_shard.sinks.nats import NatsSink

__all__ = ["BOT", "QUICK", "Stage", "message"]


class Stage(stage.Stage):
    """A journal with sources, and one NATS sink."""

    def __init__(self, url, *, stream="D", subject="discord.{bot}.{event}", limits=QUICK, tls=None, **events):
        nats = resources.NatsSink(url=url, stream=stream, subject=subject)
        spec = resources.Sink(name="events", nats=nats, events=resources.EventFilter(**events))
        super().__init__(NatsSink(nats, Surroundings(spec=spec, bot=BOT, random=Random(), limits=limits), tls=tls))
