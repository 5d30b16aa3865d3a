"""Addresses, templates and versions: what a sink reads before it connects."""

from __future__ import annotations

from random import Random

import pytest

from shardwright_shard.errors import ConfigError
from shardwright_shard.sinks.address import Form, in_turn
from shardwright_shard.sinks.redis import IDEMPOTENT_SINCE, _version
from shardwright_shard.sinks.redis_wire import Answer, Failed
from shardwright_shard.sinks.template import Template

FORM = Form(plain="amqp", plain_port=5672, secure="amqps", secure_port=5671)


def test_several_addresses_stand_with_commas_between():
    first, second = FORM.addresses("amqp://a/prod%2Fx, amqps://[::1]:7")
    assert (first.host, first.port, first.path, first.tls) == ("a", 5672, "prod/x", False)
    assert (second.host, second.port, second.path, second.tls) == ("::1", 7, "", True)


def test_the_port_goes_by_the_scheme():
    assert FORM.addresses("amqps://a")[0].port == 5671
    assert str(FORM.addresses("amqps://a/secret-vhost")[0]) == "amqps://a:5671"


@pytest.mark.parametrize("url", ["a", "http://a", "amqp://", "amqp://a?x=1", "amqp://a:port", "", "amqp://a,"])
def test_any_other_form_is_told(url):
    with pytest.raises(ConfigError, match="url: "):
        FORM.addresses(url)


@pytest.mark.parametrize("url", ["amqp://me:hunter2@a", "amqp://me@a", "amqp://a,amqp://:hunter2@b"])
def test_a_password_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="credentials come from a Secret") as refused:
        FORM.addresses(url)
    assert "hunter2" not in str(refused.value)


def test_every_address_comes_in_turn():
    found = FORM.addresses("amqp://a,amqp://b,amqp://c")
    turn = in_turn(found, Random(1))
    assert sorted(next(turn).host for _ in range(6)) == ["a", "a", "b", "b", "c", "c"]


def test_a_template_names_bot_event_shard_and_guild():
    template = Template("d:{bot}:{shard}:{event}:{guild}", bot="81", what="stream")
    assert template.name("A.B", 3, b'{"d":{"guild_id":"7"}}') == "d:81:3:A_B:7"
    assert template.by_guild


@pytest.mark.parametrize("text", ["", "a b", "{user}", "a{", "x" * 256, "a\r\nb"])
def test_a_template_that_gives_no_names_is_told(text):
    with pytest.raises(ConfigError, match="stream"):
        Template(text, bot="81", what="stream")


@pytest.mark.parametrize(
    ("info", "idempotent"),
    [
        ("# Server\r\nredis_version:8.6.1\r\n", True),
        ("# Server\r\nredis_version:10.0.0\r\n", True),
        ("# Server\r\nredis_version:7.4.2\r\n", False),
        ("# Server\r\nredis_version:8.6.0\r\nserver_name:valkey\r\nvalkey_version:9.0.0\r\n", False),
        ("", False),
    ],
)
def test_redis_drops_duplicates_since_8_6_and_valkey_does_not(info, idempotent):
    assert (_version(Answer((info,))) >= IDEMPOTENT_SINCE) is idempotent


def test_a_version_that_may_not_be_asked_for_is_none():
    assert _version(Failed("NOPERM")) == ()
