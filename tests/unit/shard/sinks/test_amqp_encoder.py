"""Events as AMQP frames, read back by another implementation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from shardwright_api.resources import AmqpSink
from shardwright_shard.journal import Batch, Event
from shardwright_shard.sinks.amqp_encoder import Encoder
from shardwright_shard.sinks.selection import Selection
from unit.shard.sinks.making import BOT, TIME, message, source


def encoder(**fields):
    made = Encoder(AmqpSink(url="amqp://rabbit", **fields), bot=BOT, selection=Selection())
    made.frame = 256
    return made


def encoded(made, *events, number=0, of=None):
    made.add(Batch(position=0, source=of or source(), events=list(events), time=TIME), number)
    return published(made.flush())


def published(raw):
    """Read `(publish, properties, payload)`, strictly."""
    found = []
    while raw:
        size, channel, part = frame.unmarshal(raw)
        assert channel == 1
        raw = raw[size:]
        match part:
            case commands.Basic.Publish():
                found.append([part])
            case header.ContentHeader():
                found[-1] += [part.properties, part.body_size, b""]
            case body.ContentBody():
                assert size <= 256
                found[-1][3] += part.value
    for _, _, size, payload in found:
        assert size == len(payload)
    return [(publish, properties, payload) for publish, properties, _, payload in found]


def test_an_event_and_its_properties():
    ((publish, properties, payload),) = encoded(encoder(), message(17), number=41)
    assert (publish.exchange, publish.routing_key) == ("discord", f"discord.{BOT}.MESSAGE_CREATE")
    assert (publish.mandatory, publish.immediate) == (True, False)
    assert payload == message(17).payload
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.correlation_id == "41"
    assert properties.message_id == f"{BOT}:f0a1:17"
    assert properties.headers == {
        "cloudEvents_specversion": "1.0",
        "cloudEvents_type": "discord.gateway.MESSAGE_CREATE",
        "cloudEvents_source": f"/discord/{BOT}/shards/3/16",
        "cloudEvents_time": "2025-01-01T00:00:00.250Z",
        "cloudEvents_id": f"{BOT}:f0a1:17",
        "cloudEvents_seq": "17",
    }


def test_the_choices_of_the_resource():
    made = encoder(exchange="x", routing_key="{shard}.{guild}", mandatory=False, persistent=False)
    ((publish, properties, _),) = encoded(made, Event(1, "MESSAGE_CREATE", b'{"d":{"guild_id":"77"}}'))
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("x", "3.77", False)
    assert properties.delivery_mode == 1


@given(
    sizes=st.lists(st.integers(2, 1200), max_size=6),
    session=st.text(min_size=1, max_size=300),
    marked=st.booleans(),
)
def test_every_event_goes_byte_for_byte_in_frames_of_the_agreed_size(sizes, session, marked):
    events = [Event(seq, "GUILD_CREATE", b"x" * size, marked) for seq, size in enumerate(sizes)]
    of = source(session=session)
    made = encoder()
    made.frame = 4096
    made.add(Batch(position=0, source=of, events=events, time=TIME), 5)
    raw, found = made.flush(), []
    while raw:
        size, _, part = frame.unmarshal(raw)
        raw = raw[size:]
        if isinstance(part, body.ContentBody):
            found.append(part.value)
        if isinstance(part, header.ContentHeader):
            assert part.properties.headers["cloudEvents_id"].startswith(f"{of.id_prefix}")
            assert ("cloudEvents_backfill" in part.properties.headers) == marked
    assert found == [event.payload for event in events]


def test_a_large_event_is_cut_into_frames():
    ((_, _, payload),) = encoded_large(message(1, size=1000))
    assert payload == message(1, size=1000).payload


def encoded_large(event):
    made = encoder()
    made.add(Batch(position=0, source=source(), events=[event], time=TIME), 0)
    raw, found, value = made.flush(), 0, b""
    while raw:
        size, _, part = frame.unmarshal(raw)
        raw = raw[size:]
        if isinstance(part, body.ContentBody):
            found += 1
            assert size <= 256
            value += part.value
    assert found == -(-len(event.payload) // 248)
    return [(None, None, value)]
