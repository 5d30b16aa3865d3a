"""The edge of a connection that speaks a protocol of its own: sockets and bounds, nothing of sinks.

A protocol's connection derives from `Wire` and gives `feed`, which reads what one read of the socket held, and `greet`,
the opening. `open_wire` dials, greets and returns; from then on `lost` of the listener is called once, when the
connection ends. Writing never waits: `writable` tells whether the transport's buffer has room, and the listener's
`resumed` is called when it has again. A connection is used once.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Final, Protocol, TypeVar, cast

from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.sinks.address import Address

WRITE_BUFFER: Final = 1024 * 1024
"""Bytes that may wait in the transport before `writable` is false."""
CLOSE_WITHIN: Final = 1.0
"""Seconds for what was written last to leave."""


class Listener(Protocol):
    """Who uses a connection. None of these may raise or block."""

    def resumed(self) -> None:
        """Go on writing."""

    def lost(self, reason: str) -> None:
        """Know that the connection is gone: called once, and nothing after it."""


class Wire(asyncio.Protocol):
    """One connection. `open`: whether the opening is done."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._arrived = asyncio.Event()
        self._ended = asyncio.Event()
        self.open = False
        self.writable = True
        self.lost_because: str | None = None

    # What a protocol gives

    def feed(self, data: bytes) -> None:
        """Read what came. Raise `SinkUnavailable` where it breaks the protocol."""
        raise NotImplementedError

    async def greet(self) -> None:
        """Do the opening. Raise `SinkUnavailable` where the server refuses."""
        raise NotImplementedError

    # What the sink does

    def write(self, data: bytes) -> None:
        """Write without waiting; harmless when the connection is gone."""
        if self._transport is not None and self.lost_because is None:
            self._transport.write(data)

    async def close(self) -> None:
        """Close after what was written, or without it when that takes too long; the listener is told nothing more."""
        self.open = False
        self._give_up("closed")
        assert self._transport is not None
        self._transport.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN):
                    await self._ended.wait()
        finally:
            self._transport.abort()

    def abort(self, reason: str) -> None:
        """Close at once; `lost` follows with this reason, unless there was one before."""
        self._give_up(reason)
        if self._transport is not None:
            self._transport.abort()

    async def arrival(self) -> None:
        """Wait for the next read of the socket. Raise `SinkUnavailable` where the connection is gone."""
        if self.lost_because is not None:
            raise SinkUnavailable(self.lost_because)
        self._arrived.clear()
        await self._arrived.wait()

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        try:
            self.feed(data)
        except SinkUnavailable as error:
            self.abort(str(error))
        self._arrived.set()

    def pause_writing(self) -> None:
        """Stop: the transport's buffer is full."""
        self.writable = False

    def resume_writing(self) -> None:
        """Go on: the transport's buffer has room."""
        self.writable = True
        if self.open:
            self._listener.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the listener once."""
        self._give_up(f"connection lost: {exc}" if exc else "the server closed the connection")
        self._arrived.set()
        self._ended.set()
        if self.open:
            self._listener.lost(self.lost_because or "")

    def _give_up(self, reason: str) -> None:
        """Keep the first reason."""
        self.lost_because = self.lost_because or reason


W = TypeVar("W", bound=Wire)


async def open_wire(wire: W, address: Address, *, tls: ssl.SSLContext | None, within: float) -> W:
    """Connect to a server, by TLS where there is a context. Raise `SinkUnavailable`, `OSError` or `TimeoutError`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within):
            host = address.host if tls is not None else None
            await loop.create_connection(lambda: wire, address.host, address.port, ssl=tls, server_hostname=host)
            await wire.greet()
    except BaseException:
        wire.abort("given up")
        raise
    wire.open = True
    return wire
