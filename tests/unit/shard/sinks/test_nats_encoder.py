"""Batches to bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api.resources import EventFilter
from shardwright_shard.journal import Batch, Event
from shardwright_shard.sinks.filter import predicate
from shardwright_shard.sinks.nats_encoder import SMALLEST_LIMIT, Encoder
from shardwright_shard.sinks.nats_subject import SubjectTemplate
from shardwright_shard.sinks.selection import Selection
from unit.shard.sinks.making import BOT, TIME, message, messages, source
from unit.shard.sinks.published import read

INBOX = "_INBOX.7f2c"


def encoder(*, subject="discord.{bot}.{event}", inbox=INBOX, events=None):
    selection = Selection(events or EventFilter())
    return Encoder(template=SubjectTemplate(subject, bot=BOT), selection=selection, inbox=inbox)


def batch(*events, position=0, of=None):
    return Batch(position=position, source=of or source(), events=list(events), time=TIME)


def encoded(made, *events, position=0, number=0):
    made.add(batch(*events, position=position), number)
    return read(made.flush())


def test_an_event_and_its_headers():
    (found,) = encoded(encoder(), message(17), number=41)
    assert found.subject == f"discord.{BOT}.MESSAGE_CREATE"
    assert found.reply == f"{INBOX}.41"
    assert found.payload == message(17).payload
    assert found.headers == {
        "ce-specversion": "1.0",
        "ce-datacontenttype": "application/json",
        "ce-type": "discord.gateway.MESSAGE_CREATE",
        "ce-source": f"/discord/{BOT}/shards/3/16",
        "ce-time": "2025-01-01T00:00:00.250Z",
        "ce-seq": "17",
        "ce-id": f"{BOT}:f0a1:17",
        "Nats-Msg-Id": f"{BOT}:f0a1:17",
    }


def test_several_batches_are_one_write_with_numbers_counted_up():
    made = encoder()
    assert list(made.add(batch(*messages(2), position=5), 0)) == [5, 6]
    assert list(made.add(batch(*messages(3, first=3), position=7, of=source(shard=4)), 2)) == [7, 8, 9]
    found = read(made.flush(b"PING\r\n"))
    assert found.pop() == "PING"
    assert [event.number for event in found] == [0, 1, 2, 3, 4]
    assert [event.headers["ce-seq"] for event in found] == ["1", "2", "3", "4", "5"]
    assert found[4].headers["ce-source"] == f"/discord/{BOT}/shards/4/16"
    assert made.flush() == b""


def test_core_nats_asks_for_no_reply():
    (found,) = encoded(encoder(inbox=None), message(1))
    assert found.reply is None


def test_backfill_is_marked():
    first, second = encoded(encoder(), Event(1, "GUILD_CREATE", b"{}", True), Event(2, "GUILD_CREATE", b"{}"))
    assert first.headers["ce-backfill"] == "true"
    assert "ce-backfill" not in second.headers


def test_an_event_without_a_sequence_has_its_mark_in_its_id():
    (found,) = encoded(encoder(), Event(None, "shardwright.gap", b"{}", mark="gap"), position=9)
    assert found.headers["ce-id"] == found.headers["Nats-Msg-Id"] == f"{BOT}:f0a1:gap"
    assert "ce-seq" not in found.headers


def test_filtered_events_take_no_number():
    made = encoder(events=EventFilter(exclude=("TYPING_START", "backfill")))
    typing, backfill = Event(2, "TYPING_START", b"{}"), Event(4, "GUILD_CREATE", b"{}", True)
    sent = made.add(batch(message(1), typing, message(3), backfill, message(5), position=10), 100)
    assert list(sent) == [10, 12, 14]
    assert [(event.number, event.headers["ce-seq"]) for event in read(made.flush())] == [
        (100, "1"),
        (101, "3"),
        (102, "5"),
    ]


def test_a_subject_by_guild():
    event = Event(1, "MESSAGE_CREATE", b'{"d":{"guild_id":"77"}}')
    found = encoded(encoder(subject="d.{guild}.{event}"), event, Event(2, "READY", b'{"d":{}}'))
    assert [event.subject for event in found] == ["d.77.MESSAGE_CREATE", "d.-.READY"]
    assert found[0].headers["Nats-Msg-Id"] == f"{BOT}:f0a1:1"


def test_an_event_larger_than_the_limit_is_replaced_under_its_own_id():
    made = encoder()
    made.limit = SMALLEST_LIMIT
    large, small = Event(6, "GUILD_CREATE", b"x" * 5000, True), message(7)
    first, second = encoded(made, large, small)
    assert first.subject == f"discord.{BOT}.shardwright_oversize"
    assert first.headers["ce-type"] == "shardwright.oversize"
    assert first.headers["Nats-Msg-Id"] == first.headers["ce-id"] == f"{BOT}:f0a1:6"
    assert json.loads(first.payload) == {
        "id": f"{BOT}:f0a1:6",
        "type": "discord.gateway.GUILD_CREATE",
        "size": 5000,
        "shard": 3,
        "seq": 6,
    }
    assert second.payload == small.payload
    assert made.oversize == 1


@pytest.mark.parametrize("subject", ["discord.{bot}.{event}", "d.{guild}"])
def test_the_limit_holds_to_the_byte(subject):
    """Headers and payload together, as the server counts."""
    made = encoder(subject=subject)
    first = len(encoded(made, message(1))[0].payload)
    made.add(batch(message(1)), 0)
    head, total = map(int, made.flush().partition(b"\r\n")[0].split()[-2:])
    made.limit = SMALLEST_LIMIT
    fits = SMALLEST_LIMIT - head
    assert total == head + first
    exact, over = message(1, size=fits - first), message(2, size=fits - first + 1)
    assert [event.headers["ce-type"] for event in encoded(made, exact, over)] == [
        "discord.gateway.MESSAGE_CREATE",
        "shardwright.oversize",
    ]


def test_an_unnumbered_event_can_be_too_large_too():
    made = encoder()
    made.limit = SMALLEST_LIMIT
    (found,) = encoded(made, Event(None, "RESUMED", b"x" * 5000, mark="resumed-4-cafe"), position=4)
    assert json.loads(found.payload)["id"] == found.headers["ce-id"] == f"{BOT}:f0a1:resumed-4-cafe"
    assert json.loads(found.payload)["seq"] is None


def test_a_session_or_name_that_is_not_what_discord_sends_cannot_break_the_protocol():
    made = encoder()
    strange = source(session="a b\r\nNats-Msg-Id: x")
    made.add(batch(Event(1, "A.B >\r\nPUB x 0", b"{}"), of=strange), 0)
    (found,) = read(made.flush())
    assert found.subject == f"discord.{BOT}.A_B____PUB_x_0"
    assert found.headers["Nats-Msg-Id"] == found.headers["ce-id"]


def test_the_sources_of_ended_sessions_do_not_pile_up():
    made = encoder()
    for session in range(3000):
        made.add(batch(message(1), of=source(session=str(session))), 0)
        made.flush()
    assert len(made._sources) <= 1024


def test_the_names_of_events_do_not_pile_up():
    made = encoder()
    of = source()
    for index in range(2000):
        made.add(batch(Event(1, f"NAME_{index}", b"{}"), of=of), 0)
        made.flush()
    assert len(made._sources[of].plain) <= 512


EVENTS = st.builds(
    Event,
    seq=st.none() | st.integers(1, 2**53),
    name=st.sampled_from(["MESSAGE_CREATE", "GUILD_CREATE", "RESUMED", "shardwright.gap"]),
    payload=st.binary(max_size=3000),
    backfill=st.booleans(),
    mark=st.none() | st.sampled_from(["gap", "resumed-17-00cafe"]),
)


@given(
    events=st.lists(EVENTS, min_size=1, max_size=8),
    subject=st.sampled_from(["discord.{bot}.{event}", "d.{guild}.{event}"]),
    spec=st.sampled_from([None, EventFilter(exclude=("backfill",))]),
    position=st.integers(0, 10**12),
)
def test_every_event_goes_byte_for_byte_or_is_told_to_be_too_large(events, subject, spec, position):
    made = encoder(subject=subject, events=spec)
    made.limit = SMALLEST_LIMIT
    sent = list(made.add(batch(*events, position=position), 5))
    found = read(made.flush())
    kept = [(position + i, e) for i, e in enumerate(events) if spec is None or predicate(spec)(e.name, e.backfill)]
    assert sent == [where for where, _ in kept]
    assert [event.number for event in found] == list(range(5, 5 + len(kept)))
    for published, (_, event) in zip(found, kept, strict=True):
        if published.headers["ce-type"] == "shardwright.oversize":
            assert json.loads(published.payload)["size"] == len(event.payload)
        else:
            assert published.payload == event.payload
