"""From outputs to bytes: compression and frames of one connection.

Source: Gateway > Encoding and Compression. One compression context a connection, flushed after each message: zlib so
that it ends with 00 00 FF FF, zstd so that a block ends and the frame does not.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from backports.zstd import CompressionParameter, ZstdCompressor
from websockets.server import ServerProtocol

from shardwright_simulator.options import Options
from shardwright_simulator.outputs import Bomb, Fragmented, Junk, Output, Ping, Raw, Truncated

PAYLOAD_COMPRESSION_FROM = 1_024
"""With `compress: true` in IDENTIFY, messages of at least so many bytes come compressed, the others as text."""
_CHUNK = 1024 * 1024


class Squeezer(Protocol):
    """A transport compression's context."""

    def squeeze(self, message: bytes) -> bytes:
        """Compress one message and flush."""

    def bomb(self, size: int) -> bytes:
        """Compress so many zero bytes as one message."""


class Zlib:
    """`zlib-stream`."""

    def __init__(self, level: int) -> None:
        self._context = zlib.compressobj(level)

    def squeeze(self, message: bytes) -> bytes:
        """Compress one message; it ends with 00 00 FF FF."""
        return self._context.compress(message) + self._context.flush(zlib.Z_SYNC_FLUSH)

    def bomb(self, size: int) -> bytes:
        """Repeat a chunk that was compressed on its own: a full flush keeps the context away from what it does not know."""
        return self._context.flush(zlib.Z_FULL_FLUSH) + _zero_chunk() * (size // _CHUNK) + b"\0\0\0\xff\xff"


@lru_cache
def _zero_chunk() -> bytes:
    context = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return context.compress(bytes(_CHUNK)) + context.flush(zlib.Z_SYNC_FLUSH)


class Zstd:
    """`zstd-stream`."""

    def __init__(self, level: int, window_log: int) -> None:
        parameters: dict[int, int] = {
            CompressionParameter.compression_level: level,
            CompressionParameter.window_log: window_log,
        }
        self._context = ZstdCompressor(options=parameters)

    def squeeze(self, message: bytes) -> bytes:
        """Compress one message; the block ends, the frame goes on."""
        return self._context.compress(message, ZstdCompressor.FLUSH_BLOCK)

    def bomb(self, size: int) -> bytes:
        """Compress zeros in chunks."""
        zeros = bytes(_CHUNK)
        parts = [self._context.compress(zeros) for _ in range(size // _CHUNK)]
        return b"".join(parts) + self._context.flush(ZstdCompressor.FLUSH_BLOCK)


def squeezer(compression: str, options: Options) -> Squeezer | None:
    """Make the context for a transport compression; None without one."""
    if compression == "zlib-stream":
        return Zlib(options.zlib_level)
    return Zstd(options.zstd_level, options.zstd_window_log) if compression == "zstd-stream" else None


class Wire:
    """Writes outputs as frames. `protocol` collects them; the edge takes the bytes from there."""

    def __init__(self, protocol: ServerProtocol, compression: str, options: Options) -> None:
        self._protocol = protocol
        self._squeezer = squeezer(compression, options)
        self.payload_compression = False
        self._writers: dict[type, Callable[..., bytes]] = {
            Raw: lambda output: bytes(output.data),
            Junk: lambda output: self._binary(output.data),
            Ping: lambda _: self._ping(),
            Fragmented: self._fragmented,
            Truncated: self._truncated,
            Bomb: self._bomb,
        }

    def write(self, output: Output) -> bytes:
        """Give the bytes of an output."""
        if isinstance(output, bytes):
            return self.message(output)
        return self._writers[type(output)](output)

    def message(self, message: bytes) -> bytes:
        """Give the frame of a message."""
        if self._squeezer is not None:
            return self._binary(self._squeezer.squeeze(message))
        if self.payload_compression and len(message) >= PAYLOAD_COMPRESSION_FROM:
            return self._binary(zlib.compress(message))
        self._protocol.send_text(message)
        return self._taken()

    def _binary(self, data: bytes) -> bytes:
        self._protocol.send_binary(data)
        return self._taken()

    def _taken(self) -> bytes:
        return b"".join(self._protocol.data_to_send())

    def _ping(self) -> bytes:
        self._protocol.send_ping(b"simulator")
        return self._taken()

    def _fragmented(self, output: Fragmented) -> bytes:
        data = self._squeezer.squeeze(output.message) if self._squeezer else output.message
        step = max(1, -(-len(data) // output.frames))
        pieces = [data[i : i + step] for i in range(0, len(data), step)]
        send_first = self._protocol.send_binary if self._squeezer else self._protocol.send_text
        send_first(pieces[0], fin=len(pieces) == 1)
        for index, piece in enumerate(pieces[1:], start=2):
            self._protocol.send_continuation(piece, fin=index == len(pieces))
        return self._taken()

    def _truncated(self, output: Truncated) -> bytes:
        frame = self.message(output.message)
        return frame[: len(frame) // 2]

    def _bomb(self, output: Bomb) -> bytes:
        return self._binary(self._squeezer.bomb(output.size) if self._squeezer else bytes(output.size))
