"""Sinks from the resource."""

from __future__ import annotations

from random import Random

import pytest

from shardwright_api import resources
from shardwright_shard.errors import ConfigError
from shardwright_shard.sinks.factory import make_sink
from shardwright_shard.sinks.memory import MemorySink
from shardwright_shard.sinks.nats import NatsSink
from shardwright_shard.sinks.stdout import StdoutSink

NATS = resources.NatsSink(url="nats://nats:4222", stream="DISCORD")


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (resources.Sink(name="a", nats=NATS), NatsSink),
        (resources.Sink(name="a", stdout=resources.StdoutSink()), StdoutSink),
        (resources.Sink(name="a", memory=resources.MemorySink()), MemorySink),
    ],
)
def test_each_kind_is_made(spec, kind):
    sink = make_sink(spec, bot="42")
    assert isinstance(sink, kind)
    assert sink.name == "a"


@pytest.mark.parametrize(
    "spec",
    [resources.Sink(name="a"), resources.Sink(name="a", nats=NATS, stdout=resources.StdoutSink())],
)
def test_a_sink_has_exactly_one_kind(spec):
    with pytest.raises(ConfigError, match="sink a: exactly one kind"):
        make_sink(spec, bot="42")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "nats://user:hunter2@nats:4222"}, "no user or password in a URL"),
        ({"url": "http://nats:4222"}, "expected nats://host:port"),
        ({"url": "nats://nats:99999"}, "NATS server: Port"),
        ({"subject": "discord.{nope}"}, "unknown field nope"),
        ({"stream": "a.b"}, "letters, digits"),
    ],
)
def test_what_does_not_fit_is_told_with_the_sinks_name_and_without_secrets(fields, words):
    spec = resources.Sink(name="events", nats=resources.NatsSink(**{"url": "nats://nats", **fields}))
    with pytest.raises(ConfigError, match=f"sink events: .*{words}") as caught:
        make_sink(spec, bot="42")
    assert "hunter2" not in str(caught.value)


def test_two_pods_never_share_an_inbox_or_a_run():
    spec = resources.Sink(name="a", nats=NATS)
    inboxes = {make_sink(spec, bot="42")._inbox for _ in range(20)}
    assert len(inboxes) == 20
    assert make_sink(spec, bot="42", random=Random(1))._inbox == make_sink(spec, bot="42", random=Random(1))._inbox
