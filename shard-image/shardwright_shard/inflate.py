"""Transport decompression with a bound: one inflater per connection, one call per websocket message.

Each inflater gives one gateway message (JSON bytes) per complete websocket message, or None where a message spans
several. A message larger than `MAX_EVENT` raises `TooLarge` before it is held in memory; what cannot be inflated raises
`Unreadable`. After either the stream's context is lost: the connection must be dropped.

Source: Discord docs, *Gateway > Transport Compression*.
"""

from __future__ import annotations

import sys
import zlib
from typing import Final, Protocol

from shardwright_api.resources import Compression
from shardwright_shard.errors import TooLarge, Unreadable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_EVENT: Final = 16 * 1024 * 1024
"""Bytes that one event may inflate to: five times the largest that is known."""

_ZLIB_SUFFIX: Final = b"\x00\x00\xff\xff"
_WINDOW_LOG_MAX: Final = 23
"""A zstd window of 8 MiB at the most, whatever the frame's header asks for."""


class Inflater(Protocol):
    """One connection's decompressor. Counts what went in and came out, in bytes."""

    compressed: int
    inflated: int

    def inflate(self, message: memoryview | bytes) -> bytes | None:
        """Give the gateway message that ends with this websocket message, or None if none does."""


class PlainInflater:
    """No compression: a message is its own content."""

    def __init__(self) -> None:
        self.compressed = 0
        self.inflated = 0

    def inflate(self, message: memoryview | bytes) -> bytes:
        """Copy the message out of the receive buffer."""
        self.compressed += len(message)
        self.inflated += len(message)
        return bytes(message)


class ZlibInflater:
    """`zlib-stream`: one context for the connection; a gateway message ends where a message ends in 00 00 FF FF."""

    def __init__(self) -> None:
        self._context = zlib.decompressobj()
        self._held = bytearray()
        self.compressed = 0
        self.inflated = 0

    def inflate(self, message: memoryview | bytes) -> bytes | None:
        """Inflate up to the flush point; hold what does not reach one yet."""
        self.compressed += len(message)
        if self._held or message[-4:] != _ZLIB_SUFFIX:
            return self._hold(message)
        return self._inflate(message)

    def _hold(self, message: memoryview | bytes) -> bytes | None:
        self._held += message
        if len(self._held) > MAX_EVENT:
            raise TooLarge(f"a compressed event is larger than {MAX_EVENT} bytes")
        if self._held[-4:] != _ZLIB_SUFFIX:
            return None
        whole, self._held = bytes(self._held), bytearray()
        return self._inflate(whole)

    def _inflate(self, data: memoryview | bytes) -> bytes:
        try:
            out = self._context.decompress(data, MAX_EVENT + 1)
        except zlib.error as error:
            raise Unreadable(f"zlib: {error}") from None
        if len(out) > MAX_EVENT or self._context.unconsumed_tail:
            raise TooLarge(f"an event inflates to more than {MAX_EVENT} bytes")
        if not out and self._context.eof:
            raise Unreadable("zlib: the stream has ended")
        self.inflated += len(out)
        return out


class ZstdInflater:
    """`zstd-stream`: one context for the connection; each message is flushed, the frame never ends."""

    def __init__(self) -> None:
        self._context = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
        self.compressed = 0
        self.inflated = 0

    def inflate(self, message: memoryview | bytes) -> bytes:
        """Inflate one message whole."""
        self.compressed += len(message)
        try:
            out = self._context.decompress(message, MAX_EVENT + 1)
        except (zstd.ZstdError, EOFError) as error:
            raise Unreadable(f"zstd: {error}") from None
        if len(out) > MAX_EVENT or not (self._context.needs_input or self._context.eof):
            raise TooLarge(f"an event inflates to more than {MAX_EVENT} bytes")
        self.inflated += len(out)
        return out


_INFLATERS: Final[dict[Compression, type[PlainInflater | ZlibInflater | ZstdInflater]]] = {
    Compression.NONE: PlainInflater,
    Compression.ZLIB: ZlibInflater,
    Compression.ZSTD: ZstdInflater,
}


def make_inflater(compression: Compression) -> Inflater:
    """Make the inflater of a new connection: contexts never outlive their connection, resumed or not."""
    return _INFLATERS[compression]()
