"""Redis' protocol as bytes, and events as commands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright_api.resources import EventFilter
from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.journal import Batch, Event
from shardwright_shard.sinks.redis_encoder import Encoder
from shardwright_shard.sinks.redis_wire import Answer, Failed, Parser, Stored, command
from shardwright_shard.sinks.selection import Selection
from shardwright_shard.sinks.template import Template
from unit.shard.sinks.making import BOT, TIME, message, messages, source

ENTRY = b"$15\r\n1735689600250-0\r\n"


def read(raw):
    """Read commands strictly, so that a wrong length anywhere fails the test."""
    commands = []
    while raw:
        line, _, raw = raw.partition(b"\r\n")
        assert line[:1] == b"*"
        arguments = []
        for _ in range(int(line[1:])):
            line, _, raw = raw.partition(b"\r\n")
            assert line[:1] == b"$"
            size = int(line[1:])
            arguments.append(raw[:size])
            assert raw[size : size + 2] == b"\r\n"
            raw = raw[size + 2 :]
        commands.append(arguments)
    return commands


def encoder(*, stream="discord:{bot}", max_length=1000, events=EventFilter()):  # noqa: B008 - frozen
    template = Template(stream, bot=BOT, what="stream")
    return Encoder(template=template, selection=Selection(events), max_length=max_length)


def encoded(made, *events, of=None):
    batch = Batch(position=0, source=of or source(), events=list(events), time=TIME)
    made.add(batch, 0)
    return read(made.flush())


def test_an_event_is_one_command_with_its_attributes_as_fields():
    (found,) = encoded(encoder(), message(17))
    assert found[:6] == [b"XADD", f"discord:{BOT}".encode(), b"MAXLEN", b"~", b"1000", b"*"]
    assert dict(zip(found[6::2], found[7::2], strict=True)) == {
        b"ce-specversion": b"1.0",
        b"ce-datacontenttype": b"application/json",
        b"ce-type": b"discord.gateway.MESSAGE_CREATE",
        b"ce-source": f"/discord/{BOT}/shards/3/16".encode(),
        b"ce-time": b"2025-01-01T00:00:00.250Z",
        b"ce-seq": b"17",
        b"ce-id": f"{BOT}:f0a1:17".encode(),
        b"data": message(17).payload,
    }


def test_without_a_bound_the_stream_is_not_trimmed():
    (found,) = encoded(encoder(max_length=0), message(1))
    assert found[2] == b"*"


def test_a_server_that_drops_duplicates_gets_the_ids_to_do_it_by():
    made = encoder()
    made.idempotent = True
    first, second = encoded(made, message(1), Event(None, "RESUMED", b"{}", mark="resumed-1"))
    assert first[2:5] == [b"IDMP", f"{BOT}:3".encode(), f"{BOT}:f0a1:1".encode()]
    assert second[2:5] == [b"IDMP", f"{BOT}:3".encode(), f"{BOT}:f0a1:resumed-1".encode()]


def test_an_event_that_is_too_large_is_replaced():
    made = encoder()
    made.limit = 200
    small, large = encoded(made, message(1), message(2, size=500))
    assert small[-1] == message(1).payload
    assert b"shardwright.oversize" in large
    assert made.oversize == 1


@given(
    events=st.lists(
        st.builds(
            Event,
            st.one_of(st.none(), st.integers(0, 10**12)),
            st.sampled_from(["MESSAGE_CREATE", "GUILD_CREATE", "shardwright.gap"]),
            st.binary(min_size=2, max_size=80),
            st.booleans(),
            st.none(),
        ).map(lambda event: event if event.seq is not None else event._replace(mark="resumed-7")),
        max_size=8,
    ),
    session=st.text(min_size=1, max_size=6),
    stream=st.sampled_from(["discord:{bot}", "d:{shard}:{event}", "d:{guild}"]),
    idempotent=st.booleans(),
)
def test_every_event_goes_byte_for_byte(events, session, stream, idempotent):
    made = encoder(stream=stream)
    made.idempotent = idempotent
    of = source(session=session)
    found = encoded(made, *events, of=of)
    assert [command_[-1] for command_ in found] == [event.payload for event in events]
    for command_, event in zip(found, events, strict=True):
        fields = command_[command_.index(b"*") + 1 :]
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        assert named[b"ce-id"] == f"{of.id_prefix}{event.last}".encode()
        assert (b"ce-seq" in named) == (event.seq is not None)
        assert (b"ce-backfill" in named) == event.backfill


def flattened(replies):
    return [part for reply in replies for part in ([Stored(1)] * reply.entries if type(reply) is Stored else [reply])]


def test_replies():
    raw = ENTRY * 3 + b"-OOM command not allowed\r\n+PONG\r\n:5\r\n*2\r\n$1\r\na\r\n$2\r\nbc\r\n$-1\r\n*0\r\n"
    assert Parser().feed(raw) == [
        Stored(3),
        Failed("OOM command not allowed"),
        Answer(("PONG",)),
        Answer(("5",)),
        Answer(("a", "bc")),
        Answer(("",)),
        Answer(()),
    ]


@pytest.mark.parametrize("raw", [b"HTTP/1.1 400\r\n", b"$x\r\n", b"$99999999999\r\n", b"+" + b"x" * 70000])
def test_what_is_not_the_protocol_is_told(raw):
    with pytest.raises(SinkUnavailable):
        Parser().feed(raw)


PIECES = st.sampled_from([ENTRY, b"-ERR no\r\n", b"+PONG\r\n", b":17\r\n", b"*1\r\n$3\r\na\r\n\r\n", b"$2\r\nOK\r\n"])


@given(pieces=st.lists(PIECES, max_size=12), data=st.data())
def test_any_cut_of_the_stream_gives_the_same_replies(pieces, data):
    raw = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    cut, found = Parser(), []
    for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += cut.feed(raw[start:stop])
    assert flattened(found) == flattened(Parser().feed(raw))


@settings(max_examples=300)
@given(raw=st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=4).map(b"".join)), junk=st.binary(max_size=30))
def test_any_bytes_are_read_or_rejected_with_a_documented_exception(raw, junk):
    fed = Parser()
    try:
        fed.feed(raw + junk)
        fed.feed(junk)
    except SinkUnavailable:
        return  # input rejected with a documented exception


def test_a_command_counts_bytes_not_letters():
    assert command("AUTH", "ä") == b"*2\r\n$4\r\nAUTH\r\n$2\r\n\xc3\xa4\r\n"


def test_a_batch_is_as_many_commands():
    assert len(encoded(encoder(), *messages(5))) == 5
