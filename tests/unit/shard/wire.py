"""The bytes of a gateway connection as a server writes them: websocket frames, and the three compressions."""

import sys
import zlib
from itertools import pairwise

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from shardwright_api.resources import Compression
from shardwright_shard.frames import FrameReader
from shardwright_shard.inflate import MAX_EVENT

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def open_protocol():
    """A client protocol past its handshake, with nothing left to send."""
    client, server = ClientProtocol(parse_uri("ws://gateway.example/"), max_size=MAX_EVENT), ServerProtocol()
    client.send_request(client.connect())
    server.receive_data(b"".join(client.data_to_send()))
    server.send_response(server.accept(server.events_received()[0]))
    client.receive_data(b"".join(server.data_to_send()))
    client.events_received()
    return client


def reader():
    return FrameReader(open_protocol())


def frame(payload, opcode=Opcode.BINARY, *, fin=True, mask=False, rsv1=False):
    return Frame(opcode, payload, fin=fin, rsv1=rsv1).serialize(mask=mask)


def fragments(payload, cuts, opcode=Opcode.BINARY):
    """One message as several frames, cut at these places."""
    edges = [0, *sorted(cuts), len(payload)]
    parts = [payload[start:end] for start, end in pairwise(edges)]
    kinds = [opcode] + [Opcode.CONT] * (len(parts) - 1)
    last = len(parts) - 1
    return [frame(part, kind, fin=index == last) for index, (part, kind) in enumerate(zip(parts, kinds, strict=True))]


def split(data, cuts):
    """A stream as the reads of a socket."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if end > start]


class Compressor:
    """One connection's compressor: each message is flushed, the stream never ends."""

    def __init__(self, compression, *, level=3):
        self.compression = compression
        self.context = {
            Compression.NONE: lambda: None,
            Compression.ZLIB: lambda: zlib.compressobj(level),
            Compression.ZSTD: lambda: zstd.ZstdCompressor(level),
        }[compression]()

    def __call__(self, message):
        if self.compression is Compression.NONE:
            return message
        if self.compression is Compression.ZLIB:
            return self.context.compress(message) + self.context.flush(zlib.Z_SYNC_FLUSH)
        return self.context.compress(message, mode=zstd.ZstdCompressor.FLUSH_BLOCK)
