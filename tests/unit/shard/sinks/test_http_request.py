"""CloudEvents as HTTP requests, and what answers mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api.resources import HttpMode
from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.sinks.http_request import LONGEST_WAIT, Item, Login, login, request, retry_after
from shardwright_shard.sinks.secrets import Secrets
from unit.shard.sinks.making import BOT, message, source

NOW = 1735689600.0
TIME = "2025-01-01T00:00:00.250Z"


def item(seq, *, of=None):
    return Item(seq, of or source(), message(seq), TIME)


def test_binary_mode_is_the_message_itself_with_attributes_as_headers():
    body, headers = request(HttpMode.BINARY, [item(17)], Login(), now=NOW)
    assert body == message(17).payload
    assert headers == {
        "ce-specversion": "1.0",
        "ce-type": "discord.gateway.MESSAGE_CREATE",
        "ce-source": f"/discord/{BOT}/shards/3/16",
        "ce-time": TIME,
        "ce-id": f"{BOT}:f0a1:17",
        "ce-seq": "17",
        "content-type": "application/json",
    }


def test_batched_mode_is_an_array_of_structured_events():
    body, headers = request(HttpMode.BATCHED, [item(1), item(2)], Login(), now=NOW)
    assert headers == {"content-type": "application/cloudevents-batch+json"}
    assert [event["seq"] for event in json.loads(body)] == [1, 2]
    assert json.loads(body)[0]["data"] == json.loads(message(1).payload)


def test_a_signature_covers_id_time_and_body():
    body, headers = request(HttpMode.BINARY, [item(1)], Login({}, b"key", ("key",)), now=NOW)
    signed = f"{headers['webhook-id']}.1735689600.".encode() + body
    expected = base64.b64encode(hmac.new(b"key", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-timestamp"] == "1735689600"
    assert headers["webhook-signature"] == f"v1,{expected}"


@given(session=st.text(min_size=1, max_size=20))
def test_no_session_can_break_a_header(session):
    _, headers = request(HttpMode.BINARY, [item(1, of=source(session=session))], Login({}, b"k"), now=NOW)
    assert all(value.isascii() and value.isprintable() for value in headers.values())


def secrets(tmp_path, **keys):
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name, text in keys.items():
        (folder / name.replace("_", "-")).write_text(f"{text}\n")
    return Secrets(tmp_path, credentials=True)


def test_a_token_a_login_and_a_key(tmp_path):
    found = login(secrets(tmp_path, token="t", hmac_key="k"))
    assert (found.headers, found.key) == ({"authorization": "Bearer t"}, b"k")
    assert set(found.secrets) == {"t", "k"}


def test_a_login_hides_all_of_its_forms(tmp_path):
    found = login(secrets(tmp_path, username="u", password="p"))
    assert found.headers == {"authorization": "Basic dTpw"}
    assert set(found.secrets) == {"p", "dTpw"}


def test_a_key_in_base64_is_read_as_such(tmp_path):
    assert login(secrets(tmp_path, hmac_key="whsec_a2V5")).key == b"key"


def test_a_key_that_only_looks_like_base64_is_told(tmp_path):
    with pytest.raises(SinkUnavailable, match="hmac-key"):
        login(secrets(tmp_path, hmac_key="whsec_*"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("99999999", LONGEST_WAIT),
        ("Wed, 01 Jan 2025 00:00:30 GMT", 30.0),
        ("Wed, 01 Jan 2020 00:00:30 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after(value, now=NOW) == seconds
