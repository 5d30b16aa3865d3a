"""The CloudEvents attributes of an event."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_shard.sinks.headers import Timestamps, constant_headers, encoded, event_type
from unit.shard.sinks.making import BOT, source


def test_what_a_source_and_a_name_share():
    assert constant_headers(source(), "MESSAGE_CREATE").split("\r\n") == [
        "ce-specversion: 1.0",
        "ce-datacontenttype: application/json",
        "ce-type: discord.gateway.MESSAGE_CREATE",
        f"ce-source: /discord/{BOT}/shards/3/16",
        "",
    ]


def test_backfill_is_marked_and_only_then():
    assert "ce-backfill: true\r\n" in constant_headers(source(), "GUILD_CREATE", backfill=True)
    assert "backfill" not in constant_headers(source(), "GUILD_CREATE")


def test_events_of_our_own_keep_their_names():
    assert event_type("shardwright.gap") == "shardwright.gap"


@given(name=st.text(max_size=80), session=st.text(max_size=80))
def test_no_name_and_no_session_can_add_a_header(name, session):
    block = constant_headers(source(session=session), name) + encoded(session)
    assert block.count("\r\n") == 4
    assert block.isascii()


@given(value=st.text(max_size=40))
def test_values_are_percent_encoded_as_the_binding_says(value):
    """CloudEvents NATS binding 3.1.3.2: space, quote, percent and all outside U+0021-U+007E."""
    text = encoded(value)
    assert all(0x21 <= ord(char) <= 0x7E and char != '"' for char in text)
    assert unquote(text, errors="strict") == value


def test_an_ordinary_value_is_not_changed():
    ordinary = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"')
    assert encoded(ordinary) == ordinary


@pytest.mark.parametrize(
    ("unix", "text"),
    [
        (1735689600.25, "2025-01-01T00:00:00.250Z"),
        (1735689600.9999, "2025-01-01T00:00:00.999Z"),
        (0, "1970-01-01T00:00:00.000Z"),
    ],
)
def test_times_are_rfc_3339_with_milliseconds(unix, text):
    assert Timestamps().text(unix) == text


@given(times=st.lists(st.floats(0, 4e9), max_size=20))
def test_the_kept_second_never_shows(times):
    """Times may come in any order: each is formatted as if it were the first."""
    timestamps = Timestamps()
    for unix in times:
        parsed = datetime.fromisoformat(timestamps.text(unix))
        assert abs(parsed.timestamp() - unix) < 0.0011
        assert parsed.tzinfo == UTC
