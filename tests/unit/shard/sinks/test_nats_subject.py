"""Subjects: templates, tokens, and what a stream covers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_shard.errors import ConfigError
from shardwright_shard.sinks.nats_subject import SubjectTemplate, covers, guild, token

SAFE = re.compile(r"[A-Za-z0-9_-]+")
TOKENS = st.sampled_from(["a", "b", "*", ">"])


def subject(template, **values):
    return SubjectTemplate(template, bot="42").subject(**{"event": "MESSAGE_CREATE", "shard": 3, **values})


def test_a_template_names_bot_event_shard_and_guild():
    assert subject("discord.{bot}.{event}") == "discord.42.MESSAGE_CREATE"
    assert subject("x.s{shard}.{guild}", guild="123") == "x.s3.123"
    assert subject("x.{guild}") == "x.-"


def test_an_event_of_our_own_is_one_token():
    assert subject("d.{event}", event="shardwright.oversize") == "d.shardwright_oversize"


@given(text=st.text(max_size=80))
def test_any_text_becomes_one_safe_token(text):
    assert SAFE.fullmatch(token(text))


@pytest.mark.parametrize("template", ["discord", "{event}", "a.{bot}_{event}.x-1", "{bot}{shard}"])
def test_templates_that_fit(template):
    assert SAFE.fullmatch(subject(template).replace(".", ""))


@pytest.mark.parametrize(
    "template",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a.*",
        "a.>",
        "$JS.API",
        "a.{nope}",
        "a.{bot",
        "a.bot}",
        "a.{}",
        "{{bot}}",
        "a\r\n",
        "é",
        "x" * 300,
        "{bot!r}",
        "{event.x}",
        "{0}",
    ],
)
def test_templates_that_do_not_fit_are_told(template):
    with pytest.raises(ConfigError, match="subject"):
        SubjectTemplate(template, bot="42")


def test_the_patterns_of_a_template():
    template = SubjectTemplate("d.{bot}.{event}.x{shard}", bot="42")
    assert template.patterns([]) == ["d.42.*.*"]
    assert template.patterns(["READY", "shardwright.gap"]) == ["d.42.READY.*", "d.42.shardwright_gap.*"]
    assert SubjectTemplate("fixed", bot="42").patterns(["A", "B"]) == ["fixed"]


@pytest.mark.parametrize(
    ("pattern", "wanted", "answer"),
    [
        ("discord.>", "discord.42.*", True),
        ("discord.*.*", "discord.42.*", True),
        ("discord.42.*", "discord.42.*", True),
        (">", "discord.42.*", True),
        ("discord.*", "discord.42.*", False),
        ("discord.42.READY", "discord.42.*", False),
        ("discord.42.*.>", "discord.42.*", False),
        ("discord.7.*", "discord.42.*", False),
    ],
)
def test_whether_a_stream_covers_a_subject(pattern, wanted, answer):
    assert covers(pattern, wanted) is answer


def matches(pattern, name):
    parts, tokens = pattern.split("."), name.split(".")
    if parts[-1] == ">":
        return len(tokens) >= len(parts) and all(p in ("*", t) for p, t in zip(parts[:-1], tokens, strict=False))
    return len(tokens) == len(parts) and all(p in ("*", t) for p, t in zip(parts, tokens, strict=True))


def patterns():
    return st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([".".join(parts), ".".join([*parts, ">"])])
    )


@given(pattern=patterns(), wanted=patterns(), name=st.lists(st.sampled_from("abc"), min_size=1, max_size=5))
def test_what_is_covered_matches_whatever_the_wanted_one_matches(pattern, wanted, name):
    name = ".".join(name)
    assert not (covers(pattern, wanted) and matches(wanted, name)) or matches(pattern, name)


@pytest.mark.parametrize(
    ("name", "payload", "found"),
    [
        ("MESSAGE_CREATE", b'{"t":"MESSAGE_CREATE","s":1,"d":{"x":{"guild_id":"1"},"guild_id":"22"}}', "22"),
        ("MESSAGE_CREATE", b'{"d":{"content":"\\"guild_id\\":\\"1\\""}}', "-"),
        ("MESSAGE_CREATE", b'{"d":{"guild_id":null}}', "-"),
        ("MESSAGE_CREATE", b'{"d":{"guild_id":5}}', "-"),
        ("MESSAGE_CREATE", b'{"d":{"guild_id":"a.b"}}', "-"),
        ("MESSAGE_CREATE", b'{"d":{"guild_id":"\xd9\xa1"}}', "-"),
        ("MESSAGE_CREATE", b'{"d":[1]}', "-"),
        ("MESSAGE_CREATE", b"\xff", "-"),
        ("GUILD_CREATE", b'{"d":{"id":"33","members":[{"guild_id":"1"}]}}', "33"),
        ("GUILD_DELETE", b'{"d":{"id":"33","unavailable":true}}', "33"),
        ("CHANNEL_CREATE", b'{"d":{"id":"33","guild_id":"44"}}', "44"),
    ],
)
def test_the_guild_of_an_event_is_read_at_depth_one(name, payload, found):
    assert guild(name, payload) == found
