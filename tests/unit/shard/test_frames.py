"""Websocket frames out of any split of the byte stream."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Opcode

from shardwright_api.resources import Compression
from shardwright_shard.errors import GatewayProtocolError, TooLarge
from shardwright_shard.frames import FrameReader
from shardwright_shard.inflate import MAX_EVENT, make_inflater
from unit.shard.driven import Driven, resumable
from unit.shard.messages import ACK, dispatch, guild_create, resumed
from unit.shard.wire import Compressor, fragments, frame, open_protocol, reader, split


def feed(frames, *reads):
    """Give the payloads, or raise why the stream cannot be read any further."""
    found = []
    for data in reads:
        found += map(bytes, frames.feed(memoryview(data)))
        if frames.failure is not None:
            raise frames.failure
    return found


SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("size", SIZES)
def test_a_whole_frame_of_every_length_form_gives_its_payload(size, opcode):
    payload = bytes(index % 251 for index in range(size))
    assert feed(reader(), frame(payload, opcode)) == [payload]


def test_all_frames_of_one_read_come_in_one_pass():
    payloads = [b"a", b"", b"ccc" * 1000]
    assert feed(reader(), b"".join(frame(payload) for payload in payloads)) == payloads


def test_a_whole_frame_is_sliced_out_of_the_read_without_a_copy():
    data = bytearray(frame(b"one") + frame(b"two"))
    one, two = reader().feed(memoryview(data))
    data[2:5] = b"ONE"
    assert (bytes(one), bytes(two)) == (b"ONE", b"two")


@pytest.mark.parametrize("size", [0, 1, 126, 300, 65_536])
def test_one_byte_per_read_gives_the_same(size):
    payload = bytes(size)
    data = frame(payload) + frame(b"next")
    assert feed(reader(), *(data[index : index + 1] for index in range(len(data)))) == [payload, b"next"]


def test_what_is_kept_of_a_partial_frame_does_not_hang_on_the_shared_buffer():
    data = frame(b"0123456789")
    frames, buffer = reader(), bytearray(64)
    buffer[:6] = data[:6]
    assert frames.feed(memoryview(buffer)[:6]) == []
    buffer[:] = b"x" * 64
    buffer[: len(data) - 6] = data[6:]
    assert feed(frames, bytes(buffer[: len(data) - 6])) == [b"0123456789"]


def test_fragments_are_joined_and_whole_frames_go_on_afterwards():
    stream = b"".join([*fragments(b"0123456789", [3, 3, 9]), frame(b"whole")])
    assert feed(reader(), stream) == [b"0123456789", b"whole"]


def test_control_frames_may_stand_between_fragments():
    one, two, three = fragments(b"abcdef", [2, 4], Opcode.TEXT)
    stream = one + frame(b"?", Opcode.PING) + two + frame(b"", Opcode.PONG) + three
    protocol = open_protocol()
    assert feed(FrameReader(protocol), stream) == [b"abcdef"]
    (pong,) = protocol.data_to_send()
    assert pong[0] == 0x80 | Opcode.PONG


def test_pings_are_answered_with_their_own_content():
    protocol = open_protocol()
    assert feed(FrameReader(protocol), frame(b"a") + frame(b"", Opcode.PING) + frame(b"b")) == [b"a", b"b"]
    assert len(protocol.data_to_send()) == 1


def test_messages_before_a_close_frame_are_given_and_its_code_is_known():
    protocol = open_protocol()
    stream = frame(b"last") + frame(Close(4004, "Authentication failed.").serialize(), Opcode.CLOSE)
    assert feed(FrameReader(protocol), stream) == [b"last"]
    assert protocol.close_rcvd == Close(4004, "Authentication failed.")


def test_messages_before_what_breaks_the_rules_are_given():
    """Else a RESUME would fetch them again, and the wrong one would count as what cannot be read."""
    frames = reader()
    assert list(map(bytes, frames.feed(memoryview(frame(b"one") + frame(b"two") + b"\xf2\x01a")))) == [b"one", b"two"]
    assert isinstance(frames.failure, GatewayProtocolError)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(frame(b"abc", mask=True), id="masked data"),
        pytest.param(frame(b"", Opcode.PING, mask=True), id="masked ping"),
        pytest.param(b"\xc2\x03abc", id="reserved bit 1"),
        pytest.param(b"\xa2\x03abc", id="reserved bit 2"),
        pytest.param(b"\x92\x03abc", id="reserved bit 3"),
        pytest.param(b"\x83\x01a", id="reserved opcode"),
        pytest.param(b"\x8b\x01a", id="reserved control opcode"),
        pytest.param(frame(b"a", Opcode.CONT), id="continuation of nothing"),
        pytest.param(frame(b"a", fin=False) + frame(b"b"), id="a new message among fragments"),
        pytest.param(b"\x09\x01a", id="fragmented ping"),
        pytest.param(b"\x89\x7e\x00\x80" + bytes(128), id="long ping"),
        pytest.param(b"\x88\x01\x03", id="close frame of one byte"),
        pytest.param(b"\x88\x02\x00\x01", id="close code that does not exist"),
    ],
)
def test_what_breaks_the_rules_is_refused(stream):
    with pytest.raises(GatewayProtocolError):
        feed(reader(), stream)


def test_the_header_alone_of_a_frame_that_is_too_large_is_refused():
    with pytest.raises(TooLarge):
        feed(reader(), b"\x82\x7f" + (MAX_EVENT + 1).to_bytes(8))
    with pytest.raises(TooLarge):
        feed(reader(), b"\x82\x7f" + (2**63 - 1).to_bytes(8))
    with pytest.raises(TooLarge):
        feed(reader(), b"\x89\xff" + (2**64 - 1).to_bytes(8) + bytes(4))


def test_a_frame_of_just_the_limit_passes_in_reads_of_a_buffer():
    payload = bytes(MAX_EVENT)
    data = b"\x82\x7f" + MAX_EVENT.to_bytes(8) + payload
    reads = [data[index : index + 262_144] for index in range(0, len(data), 262_144)]
    assert feed(reader(), *reads) == [payload]


def test_fragments_that_are_too_large_together_are_refused_in_bounded_memory():
    frames, piece = reader(), bytes(1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(GatewayProtocolError):
            [feed(frames, frame(piece, Opcode.CONT if n else Opcode.BINARY, fin=False)) for n in range(1000)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_EVENT


def test_after_an_idle_time_nothing_of_earlier_reads_is_kept():
    frames = reader()
    feed(frames, *split(frame(bytes(500_000)), [100, 200_000]))
    assert (len(frames._partial), frames._fragments) == (0, None)


# --- the whole way: frames, inflater, session -------------------------------------------------------------------------

BODIES = st.dictionaries(st.sampled_from(["a", "id", "content"]), st.text(max_size=60), max_size=3)
EVENTS = st.lists(
    st.tuples(st.sampled_from(["MESSAGE_CREATE", "TYPING_START", "GUILD_CREATE", "NEW_ONE", "ack"]), BODIES),
    max_size=12,
)


def gateway_messages(events):
    """A replay from sequence 11 on, RESUMED, and what follows; with ACKs in between."""
    found, seq = [], 10
    for name, body in events:
        if name == "ack":
            found.append(ACK)
            continue
        seq += 1
        found.append(guild_create(seq, seq, **body) if name == "GUILD_CREATE" else dispatch(name, seq, body))
    return [*found, resumed(seq + 1), dispatch("MESSAGE_CREATE", seq + 2, {"n": "last"})]


def on_the_wire(message, draw):
    """A message's frames: whole, or in fragments, with pings in between."""
    if not draw(st.booleans()):
        return frame(message)
    cuts = draw(st.lists(st.integers(0, len(message)), min_size=1, max_size=3))
    ping = frame(b"ping", Opcode.PING) if draw(st.booleans()) else b""
    return ping.join(fragments(message, cuts))


def received(reads, compression):
    """What a session hands on of these reads of a socket."""
    frames, inflater = reader(), make_inflater(compression)
    driven = Driven(to_resume=resumable(10)).greeted()
    for data in reads:
        found = [inflater.inflate(part) for part in frames.feed(memoryview(data))]
        driven.receive(*(message for message in found if message is not None))
    return driven


@pytest.mark.parametrize("compression", list(Compression))
@settings(max_examples=60, deadline=None)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 3000), max_size=40), data=st.data())
def test_any_split_of_the_byte_stream_gives_the_same_events(compression, events, cuts, data):
    messages = gateway_messages(events)
    compress = Compressor(compression)
    stream = b"".join(on_the_wire(compress(message), data.draw) for message in messages)
    driven = received(split(stream, cuts), compression)
    expected = Driven(to_resume=resumable(10)).greeted()
    expected.receive(*messages)
    assert driven.state == expected.state == "LIVE"
    assert [event.payload for event in driven.session.events] == [m for m in messages if m != ACK]
    assert driven.session.events == expected.session.events
    assert driven.session.resumable.seq == expected.session.resumable.seq


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(1, 400), max_size=6), message_cuts=st.lists(st.integers(0, 4000), max_size=20))
def test_a_zlib_message_may_span_several_websocket_messages(cuts, message_cuts):
    compress = Compressor(Compression.ZLIB)
    messages = gateway_messages([("MESSAGE_CREATE", {"content": "x" * 50 + str(n)}) for n in range(5)])
    stream = b""
    for message in messages:
        packed = compress(message)
        stream += b"".join(frame(part) for part in split(packed, cuts))
    driven = received(split(stream, message_cuts), Compression.ZLIB)
    assert [event.payload for event in driven.session.events] == messages


@settings(max_examples=80, deadline=None)
@given(noise=st.binary(min_size=1, max_size=400), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_any_bytes_are_read_or_refused_with_a_documented_exception(noise, cuts):
    frames = reader()
    try:
        feed(frames, *split(noise, cuts))
    except GatewayProtocolError:
        return  # input rejected with a documented exception
