"""Whether a stream can be used."""

from __future__ import annotations

import json

import pytest

from shardwright_shard.errors import ConfigError
from shardwright_shard.sinks.nats_stream import StreamReport, judge, valid_name
from shardwright_shard.sinks.nats_wire import Message

MINUTE = 60 * 10**9


def report(*wanted, **config):
    config = {"subjects": ["discord.>"], "duplicate_window": 10 * MINUTE, **config}
    reply = Message(b"r", json.dumps({"config": config}).encode())
    return judge(reply, stream="D", subjects=wanted or ["discord.42.*"])


def test_a_stream_that_fits():
    assert report() == StreamReport()


def test_a_stream_that_is_not_there_is_named_with_the_fix():
    body = b'{"error":{"code":404,"err_code":10059,"description":"stream not found"}}'
    found = judge(Message(b"r", body), stream="D", subjects=["discord.42.*"])
    assert found.problem == "stream D does not exist; create it: nats stream add D --subjects 'discord.42.*'"


def test_another_error_is_told_as_the_server_says_it():
    body = b'{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}'
    found = judge(Message(b"r", body), stream="D", subjects=[])
    assert found.problem == "stream D: JetStream system temporarily unavailable (503)"


def test_a_server_without_jetstream_is_told():
    assert "not enabled" in judge(Message(b"r", b"", 503), stream="D", subjects=[]).problem


def test_an_answer_that_cannot_be_read_is_a_problem():
    assert "cannot be read" in judge(Message(b"r", b"hello"), stream="D", subjects=[]).problem


def test_subjects_that_the_stream_does_not_take_are_named():
    found = report("discord.42.READY", "discord.42.RESUMED", subjects=["x", "discord.42.READY"])
    assert found.problem == "stream D does not take discord.42.RESUMED: add them to its subjects"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"no_ack": True}, "no_ack"),
        ({"sealed": True}, "sealed"),
        ({"max_msg_size": 100}, "max_msg_size 100"),
        ({"subjects": None}, "does not take discord.42.*"),
    ],
)
def test_a_stream_that_could_never_acknowledge_is_a_problem(config, words):
    assert words in report(**config).problem


def test_a_short_duplicate_window_is_a_warning_and_no_problem():
    found = report(duplicate_window=2 * MINUTE)
    assert found.problem == ""
    assert "duplicate_window 120s" in found.warning


def test_the_largest_message_is_told_where_there_is_a_limit():
    assert report(max_msg_size=5000).largest == 5000
    assert report(max_msg_size=-1).largest is None


@pytest.mark.parametrize("name", ["D", "my_stream-1", None])
def test_names_that_fit(name):
    assert valid_name(name) == name


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "a\r\n"])
def test_names_that_are_no_token_are_told(name):
    with pytest.raises(ConfigError, match="stream"):
        valid_name(name)
