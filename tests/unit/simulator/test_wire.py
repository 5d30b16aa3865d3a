"""Compression and frames, as Discord's clients undo them (Gateway > Encoding and Compression)."""

import zlib

import pytest
from backports.zstd import ZstdDecompressor
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN, Protocol
from websockets.server import ServerProtocol

from shardwright_simulator import Options
from shardwright_simulator.outputs import Bomb, Fragmented, Junk, Ping, Raw, Truncated
from shardwright_simulator.wire import Wire

MESSAGES = [b'{"a":1}', b'{"b":"' + b"x" * 5_000 + b'"}', '{"c":"🎉"}'.encode()] * 3


class Reader:
    """The other end of a wire."""

    def __init__(self, compression=""):
        self.wire = Wire(ServerProtocol(state=OPEN), compression, Options())
        self.protocol = Protocol(CLIENT, state=OPEN, max_size=None)
        decoders = {"zlib-stream": zlib.decompressobj, "zstd-stream": ZstdDecompressor}
        self.decoder = decoders[compression]() if compression else None

    def frames(self, output):
        self.protocol.receive_data(self.wire.write(output))
        return self.protocol.events_received()

    def read(self, output):
        data = b"".join(bytes(frame.data) for frame in self.frames(output))
        return self.decoder.decompress(data) if self.decoder else data


@pytest.mark.parametrize("compression", ["", "zlib-stream", "zstd-stream"])
def test_each_frame_gives_one_message_at_once(compression):
    reader = Reader(compression)
    for message in MESSAGES:
        assert reader.read(message) == message


@pytest.mark.parametrize(
    ("compression", "opcode"), [("", Opcode.TEXT), ("zlib-stream", Opcode.BINARY), ("zstd-stream", Opcode.BINARY)]
)
def test_text_is_text_and_compressed_is_binary(compression, opcode):
    assert Reader(compression).frames(MESSAGES[0])[0].opcode is opcode


def test_zlib_messages_end_with_the_mark():
    reader = Reader("zlib-stream")
    for message in MESSAGES:
        assert bytes(reader.frames(message)[0].data).endswith(b"\x00\x00\xff\xff")


def test_the_context_is_kept_between_messages():
    for compression in ("zlib-stream", "zstd-stream"):
        reader = Reader(compression)
        first, second = (len(reader.frames(MESSAGES[1])[0].data) for _ in range(2))
        assert second < first


def test_the_zstd_frame_does_not_end():
    reader = Reader("zstd-stream")
    reader.read(MESSAGES[0])
    assert not reader.decoder.eof


def test_payload_compression_packs_long_messages_alone():
    reader = Reader()
    reader.wire.payload_compression = True
    assert reader.read(MESSAGES[0]) == MESSAGES[0]
    (frame,) = reader.frames(MESSAGES[1])
    assert frame.opcode is Opcode.BINARY
    assert zlib.decompress(bytes(frame.data)) == MESSAGES[1]


def test_transport_compression_wins_over_payload_compression():
    reader = Reader("zlib-stream")
    reader.wire.payload_compression = True
    assert reader.read(MESSAGES[1]) == MESSAGES[1]


@pytest.mark.parametrize("compression", ["", "zlib-stream", "zstd-stream"])
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_fragments_make_up_the_message(compression, frames):
    reader = Reader(compression)
    received = reader.frames(Fragmented(MESSAGES[1], frames))
    data = b"".join(bytes(frame.data) for frame in received)
    assert (reader.decoder.decompress(data) if reader.decoder else data) == MESSAGES[1]
    assert [frame.fin for frame in received] == [False] * (len(received) - 1) + [True]
    assert 1 <= len(received) <= frames


def test_a_truncated_message_stops_inside_its_frame():
    assert Reader().frames(Truncated(MESSAGES[1])) == []


@pytest.mark.parametrize(("compression", "least"), [("zlib-stream", 900), ("zstd-stream", 10_000)])
def test_a_bomb_is_small_on_the_wire_and_the_stream_goes_on_after_it(compression, least):
    size = 64 * 1024 * 1024
    reader = Reader(compression)
    assert reader.read(MESSAGES[0]) == MESSAGES[0]
    data = bytes(reader.frames(Bomb(size))[0].data)
    assert len(data) * least < size
    assert reader.decoder.decompress(data) == bytes(size)
    assert reader.read(MESSAGES[1]) == MESSAGES[1]


def test_pings_junk_and_raw_bytes():
    reader = Reader("zlib-stream")
    assert reader.frames(Ping())[0].opcode is Opcode.PING
    assert bytes(reader.frames(Junk(b"junk"))[0].data) == b"junk"
    assert reader.wire.write(Raw(b"\x00raw")) == b"\x00raw"
