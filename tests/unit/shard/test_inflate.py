"""Transport decompression: right for whatever Discord sends, bounded for whatever anybody sends."""

import random
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright_api.resources import Compression
from shardwright_shard.errors import TooLarge, Unreadable
from shardwright_shard.inflate import MAX_EVENT, make_inflater
from unit.shard.wire import Compressor, zstd

STREAMS = [Compression.ZLIB, Compression.ZSTD]
MIB = 1024 * 1024


@pytest.mark.parametrize("compression", list(Compression))
@settings(max_examples=50, deadline=None)
@given(messages=st.lists(st.binary(max_size=2000), max_size=10))
def test_each_message_comes_out_as_it_went_in(compression, messages):
    compress, inflater = Compressor(compression), make_inflater(compression)
    packed = [compress(message) for message in messages]
    assert [inflater.inflate(memoryview(part)) for part in packed] == messages
    assert inflater.compressed == sum(map(len, packed))
    assert inflater.inflated == sum(map(len, messages))


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("size", [300, 30_000, 3 * MIB, MAX_EVENT - 1, MAX_EVENT])
def test_messages_of_every_size_up_to_the_limit_come_out_whole(compression, size):
    message = random.Random(size).randbytes(1024) * (size // 1024) + b"x" * (size % 1024)
    compress, inflater = Compressor(compression, level=1), make_inflater(compression)
    for _ in range(2):
        assert inflater.inflate(compress(message)) == message


def test_plain_messages_are_copied_out_of_the_shared_buffer():
    buffer = bytearray(b"event")
    message = make_inflater(Compression.NONE).inflate(memoryview(buffer))
    buffer[:] = b"other"
    assert message == b"event"


@pytest.mark.parametrize("cut", [1, 5, -1, -2, -3, -4])
def test_a_zlib_message_is_held_until_its_flush_point(cut):
    compress, inflater = Compressor(Compression.ZLIB), make_inflater(Compression.ZLIB)
    packed = compress(b"the first message") + b""
    assert inflater.inflate(memoryview(packed[:cut])) is None
    assert inflater.inflate(memoryview(packed[cut:])) == b"the first message"
    assert inflater.inflate(compress(b"the second")) == b"the second"


def test_what_zlib_holds_does_not_hang_on_the_shared_buffer():
    compress, inflater = Compressor(Compression.ZLIB), make_inflater(Compression.ZLIB)
    packed = compress(b"a message")
    buffer = bytearray(packed[:8])
    assert inflater.inflate(memoryview(buffer)) is None
    buffer[:] = bytes(8)
    assert inflater.inflate(packed[8:]) == b"a message"


def test_the_end_of_a_flush_point_may_come_alone():
    compress, inflater = Compressor(Compression.ZLIB), make_inflater(Compression.ZLIB)
    packed = compress(b"a message")
    for byte in packed[:-1]:
        assert inflater.inflate(bytes([byte])) is None
    assert inflater.inflate(packed[-1:]) == b"a message"


@pytest.mark.parametrize("compression", STREAMS)
def test_a_context_lives_for_one_connection_only(compression):
    compress = Compressor(compression)
    first, second = make_inflater(compression), make_inflater(compression)
    assert first.inflate(compress(b"one")) == b"one"
    with pytest.raises(Unreadable):
        second.inflate(compress(b"two"))


@pytest.mark.parametrize("compression", STREAMS)
@pytest.mark.parametrize("rubbish", [b"\x00" * 16 + b"\x00\x00\xff\xff", b"plain text\x00\x00\xff\xff"])
def test_what_is_no_stream_is_unreadable(compression, rubbish):
    with pytest.raises(Unreadable):
        make_inflater(compression).inflate(rubbish)


@pytest.mark.parametrize("compression", STREAMS)
def test_a_stream_that_is_damaged_on_the_way_is_unreadable_or_not_what_was_sent(compression):
    """Neither stream has a checksum per message: whoever reads must check the envelope."""
    compress, inflater = Compressor(compression), make_inflater(compression)
    packed = bytearray(compress(random.Random(1).randbytes(500)))
    packed[len(packed) // 2] ^= 0x55
    try:
        assert inflater.inflate(bytes(packed)) != random.Random(1).randbytes(500)
    except Unreadable:
        return


@pytest.mark.parametrize("compression", STREAMS)
@settings(max_examples=80, deadline=None)
@given(noise=st.binary(max_size=200), ending=st.sampled_from([b"", b"\x00\x00\xff\xff"]))
def test_any_bytes_are_inflated_or_refused_with_a_documented_exception(compression, noise, ending):
    inflater = make_inflater(compression)
    try:
        inflater.inflate(noise + ending)
        inflater.inflate(noise + ending)
    except Unreadable:
        return  # input rejected with a documented exception


@pytest.mark.parametrize("compression", STREAMS)
def test_a_stream_that_ends_gives_nothing_more(compression):
    compress, inflater = Compressor(compression), make_inflater(compression)
    last = compress.context.compress(b"bye") + compress.context.flush()
    if compression is Compression.ZLIB:
        last += b"\x00\x00\xff\xff"
    assert inflater.inflate(last) == b"bye"
    with pytest.raises(Unreadable):
        inflater.inflate(Compressor(compression)(b"more"))


# --- bounds -----------------------------------------------------------------------------------------------------------


def bomb(compression, size):
    """`size` zeros as one message."""
    compress = Compressor(compression, level=9 if compression is Compression.ZLIB else 3)
    piece = bytes(MIB)
    packed = b"".join(compress.context.compress(piece) for _ in range(size // MIB))
    return packed + compress(b"")


@pytest.mark.parametrize("compression", STREAMS)
@pytest.mark.parametrize("size", [17 * MIB, 256 * MIB])
def test_a_bomb_is_refused_in_bounded_memory(compression, size):
    packed, inflater = bomb(compression, size), make_inflater(compression)
    assert len(packed) < MIB
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflater.inflate(packed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_EVENT


@pytest.mark.parametrize("compression", STREAMS)
def test_one_byte_over_the_limit_is_too_much(compression):
    compress, inflater = Compressor(compression, level=1), make_inflater(compression)
    with pytest.raises(TooLarge):
        inflater.inflate(compress(bytes(MAX_EVENT + 1)))


def test_zlib_holds_no_more_than_the_limit_of_a_message_that_never_ends():
    inflater, piece = make_inflater(Compression.ZLIB), b"\x01" * MIB
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            [inflater.inflate(piece) for _ in range(1000)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_EVENT


@pytest.mark.parametrize(("log", "fits"), [(17, True), (21, True), (23, True), (24, False), (27, False)])
def test_a_zstd_window_is_bounded_whatever_the_frame_asks_for(log, fits):
    options = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.window_log: log}
    packed = zstd.ZstdCompressor(options=options).compress(b"message", mode=zstd.ZstdCompressor.FLUSH_BLOCK)
    inflater = make_inflater(Compression.ZSTD)
    if fits:
        assert inflater.inflate(packed) == b"message"
    else:
        with pytest.raises(Unreadable):
            inflater.inflate(packed)


def test_zlib_compressed_at_every_level_is_read():
    for level in range(10):
        inflater = make_inflater(Compression.ZLIB)
        compress = zlib.compressobj(level)
        message = b'{"t":"MESSAGE_CREATE","s":2,"op":0,"d":{"content":"%d"}}' % level
        assert inflater.inflate(compress.compress(message) + compress.flush(zlib.Z_SYNC_FLUSH)) == message
