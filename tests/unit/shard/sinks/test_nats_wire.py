"""The NATS protocol as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.sinks import nats_wire
from shardwright_shard.sinks.nats_wire import (
    Acks,
    Failure,
    Info,
    Message,
    Parser,
    Ping,
    Pong,
    connect,
    publish,
    refusal,
)

INBOX = "_INBOX.7f2c"
STREAM = "DISCORD"


def parser(stream=STREAM):
    return Parser(inbox=INBOX, ack_stream=stream)


def reply(number, body, *, inbox=INBOX):
    return b"MSG %s.%d 1 %d\r\n%b\r\n" % (inbox.encode(), number, len(body), body)


def ack(number, seq=9, *, stream=STREAM):
    return reply(number, b'{"stream":"%s","seq":%d}' % (stream.encode(), seq))


def no_responders(number):
    return b"HMSG %s.%d 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n" % (INBOX.encode(), number)


def flattened(operations):
    """Take runs apart: how acknowledgements are grouped depends on how they came."""
    found = []
    for operation in operations:
        found.extend([Acks([number]) for number in operation.numbers] if isinstance(operation, Acks) else [operation])
    return found


def test_a_run_of_acknowledgements_is_one_operation():
    assert parser().feed(ack(7) + ack(8) + ack(9)) == [Acks([7, 8, 9])]


def test_a_duplicate_is_acknowledged():
    """The server: `"duplicate": true` with a blank."""
    assert parser().feed(reply(1, b'{"stream":"DISCORD","seq":5,"duplicate": true}')) == [Acks([1])]


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"DISCORD","seq":0}',
        b'{"stream":"DISCORD","seq":0}',
        b'{"stream":"OTHER","seq":5}',
        b'{"stream":"DISCORD","seq":5,"error":{}}',
        b'{"stream":"DISCORD","seq":5,"domain":"hub"}',
        b"",
    ],
)
def test_what_is_not_plainly_an_acknowledgement_is_given_as_it_is(body):
    assert parser().feed(reply(3, body)) == [Message(f"{INBOX}.3".encode(), body)]


def test_an_acknowledgement_for_another_inbox_is_a_message():
    (found,) = parser().feed(reply(3, b'{"stream":"DISCORD","seq":5}', inbox="_INBOX.7f2d"))
    assert isinstance(found, Message)


def test_without_a_stream_nothing_is_an_acknowledgement():
    (found,) = parser(stream=None).feed(ack(3))
    assert isinstance(found, Message)


def test_the_status_of_a_header_is_given():
    assert parser().feed(no_responders(4)) == [Message(f"{INBOX}.4".encode(), b"", 503)]


def test_headers_without_a_status_are_left_out():
    raw = b"HMSG x 1 18 20\r\nNATS/1.0\r\na: b\r\n\r\nhi\r\n"
    assert parser().feed(raw) == [Message(b"x", b"hi", 0)]


def test_a_message_may_hold_what_looks_like_the_protocol():
    body = b"PING\r\n" + ack(1)
    assert parser().feed(reply(2, body)) == [Message(f"{INBOX}.2".encode(), body)]


def test_the_small_operations():
    raw = b"+OK\r\nPING\r\npong\r\n-ERR 'Authorization Violation'\r\n"
    assert parser().feed(raw) == [Ping(), Pong(), Failure("Authorization Violation")]


def test_info_is_read_and_what_is_unknown_in_it_ignored():
    (info,) = parser().feed(b'INFO {"max_payload":4096,"headers":true,"tls_required":true,"future":[1]} \r\n')
    assert info == Info(max_payload=4096, headers=True, tls_required=True)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"INFO {\r\n",
        b"INFO []\r\n",
        b"MSG\r\n",
        b"MSG x 1 -5\r\n",
        b"MSG x 1 abc\r\n",
        b"MSG x 1 5 6 7 8\r\n",
        b"MSG x 1 2\r\nabcd",
        b"MSG x 1 99999999999\r\n",
        b"HMSG x 1 30 20\r\n",
        b"INFO " + b"x" * nats_wire.LINE_LIMIT,
    ],
)
def test_what_is_not_the_protocol_is_told(raw):
    with pytest.raises(SinkUnavailable):
        parser().feed(raw)


PIECES = st.sampled_from(
    [
        ack(1),
        ack(2, 10**15),
        ack(3, stream="OTHER"),
        reply(4, b'{"stream":"DISCORD","seq":5,"duplicate": true}'),
        reply(5, b'{"error":{"code":400,"description":"no"}}'),
        reply(6, b"\r\nMSG \r\n"),
        no_responders(7),
        b"PING\r\n",
        b"PONG\r\n",
        b"+OK\r\n",
        b"-ERR 'Slow Consumer'\r\n",
        b'INFO {"headers":true}\r\n',
    ]
)


@given(pieces=st.lists(PIECES, max_size=12), data=st.data())
def test_any_cut_of_the_stream_gives_the_same_operations(pieces, data):
    raw = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    cut = parser()
    found = [
        operation
        for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)
        for operation in cut.feed(raw[start:stop])
    ]
    assert flattened(found) == flattened(parser().feed(raw))
    assert len(flattened(found)) == sum(piece != b"+OK\r\n" for piece in pieces)


@settings(max_examples=300)
@given(raw=st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=4).map(b"".join)), junk=st.binary(max_size=30))
def test_any_bytes_are_read_or_rejected_with_a_documented_exception(raw, junk):
    fed = parser()
    try:
        fed.feed(raw + junk)
        fed.feed(junk)
    except SinkUnavailable:
        return  # input rejected with a documented exception


def test_an_acknowledgement_by_the_stream_is_no_refusal():
    domain = b'{"stream":"DISCORD", "domain":"hub", "seq":5}'
    assert refusal(Message(b"x.1", domain), STREAM) is None


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message(b"x.1", b"", 503), "no stream takes DISCORD's subjects (no responders)"),
        (
            Message(b"x.1", b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}'),
            "maximum bytes exceeded (10077)",
        ),
        (Message(b"x.1", b'{"stream":"OTHER","seq":5}'), "stream OTHER took the event instead of DISCORD"),
        (Message(b"x.1", b'{"stream":"DISCORD","seq":0}'), "the acknowledgement has no sequence"),
        (Message(b"x.1", b'{"seq":5}'), "stream ? took the event instead of DISCORD"),
        (Message(b"x.1", b"thanks"), "the reply is no acknowledgement of JetStream"),
        (Message(b"x.1", b'{"stream":5}'), "the reply is no acknowledgement of JetStream"),
    ],
)
def test_a_refusal_says_why(message, text):
    assert refusal(message, STREAM) == text


def test_what_a_client_writes():
    assert connect({"verbose": False}) == b'CONNECT {"verbose":false}\r\n'
    assert publish("a.b", "r", b"xy") == b"PUB a.b r 2\r\nxy\r\n"
    assert nats_wire.subscribe("r.*") == b"SUB r.* 1\r\n"
