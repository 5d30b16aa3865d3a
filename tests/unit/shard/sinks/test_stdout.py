"""The text of a line on standard output."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from shardwright_shard.journal import Event
from shardwright_shard.sinks.stdout import line
from unit.shard.sinks.making import BOT, message, source

NOW = "2025-01-01T00:00:00.250Z"


def written(event, *, of=None):
    return line(of or source(), event, time=NOW)


def test_a_line_is_a_structured_cloud_event_with_the_message_inside():
    raw = written(message(17))
    assert raw.endswith(b',"data":' + message(17).payload + b"}\n")
    assert json.loads(raw) == {
        "specversion": "1.0",
        "id": f"{BOT}:f0a1:17",
        "source": f"/discord/{BOT}/shards/3/16",
        "type": "discord.gateway.MESSAGE_CREATE",
        "time": NOW,
        "datacontenttype": "application/json",
        "seq": 17,
        "data": json.loads(message(17).payload),
    }


def test_an_event_without_a_sequence_still_has_an_id():
    found = json.loads(written(Event(None, "RESUMED", b"{}", mark="resumed-4-cafe")))
    assert found["id"] == f"{BOT}:f0a1:resumed-4-cafe"
    assert "seq" not in found


def test_backfill_is_marked():
    assert json.loads(written(Event(1, "GUILD_CREATE", b"{}", True)))["backfill"] is True


@given(
    data=st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)),
    indent=st.sampled_from([None, 1]),
    session=st.text(max_size=10),
)
def test_an_event_is_one_line_of_json_whatever_it_holds(data, indent, session):
    raw = written(Event(1, "A", json.dumps(data, indent=indent).encode()), of=source(session=session))
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"\n")
    assert json.loads(raw)["data"] == data
