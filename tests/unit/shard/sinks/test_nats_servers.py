"""The servers of a NATS sink's URL."""

from __future__ import annotations

import pytest

from shardwright_shard.errors import ConfigError
from shardwright_shard.sinks.nats_connection import Server, servers


def test_one_server_or_several_with_commas():
    assert servers("nats://a:4222") == [Server(host="a", port=4222, tls=False)]
    assert servers("nats://a, tls://b:5222,nats://[::1]:4333/") == [
        Server(host="a", port=4222, tls=False),
        Server(host="b", port=5222, tls=True),
        Server(host="::1", port=4333, tls=False),
    ]


def test_a_server_names_itself_for_people():
    assert [str(server) for server in servers("nats://a,tls://b:1")] == ["nats://a:4222", "tls://b:1"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        ",",
        "nats://",
        "ws://a",
        "nats://a:b",
        "nats://a:70000",
        "nats://a/path",
        "nats://a?x=1",
        "nats://u@a",
        "nats://[::1",
        f"nats://{'x' * 64}.example",
    ],
)
def test_what_is_no_server_is_told(url):
    with pytest.raises(ConfigError, match="NATS server"):
        servers(url)
