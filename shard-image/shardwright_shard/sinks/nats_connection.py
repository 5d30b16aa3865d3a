"""One connection to a NATS server: sockets and the opening, nothing of sinks.

`connect` dials, reads INFO, starts TLS where the scheme or the server wants it, sends CONNECT and the one subscription,
and returns when the server has answered a PING: from then on every read of the socket is one call of the listener's
`received`, and the end of the connection one call of `lost`. A connection is used once.

Writing never waits: `writable` tells whether the transport's buffer has room, and the listener's `resumed` is called
when it has again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from shardwright_shard.errors import ConfigError, SinkUnavailable
from shardwright_shard.sinks.nats_login import login
from shardwright_shard.sinks.nats_wire import (
    PING,
    PONG,
    Failure,
    Info,
    Operation,
    Parser,
    Ping,
    Pong,
    connect,
    subscribe,
)
from shardwright_shard.sinks.secrets import Secrets

_PORT: Final = 4222
_SCHEMES: Final = ("nats", "tls")
WRITE_BUFFER: Final = 1024 * 1024
"""Bytes that may wait in the transport before `writable` is false."""
CLOSE_WITHIN: Final = 1.0
"""Seconds for what was written last to leave."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where a server listens, and whether TLS is a must."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        """Name it for people."""
        return f"{'tls' if self.tls else 'nats'}://{self.host}:{self.port}"


class Listener(Protocol):
    """Who uses a connection. None of these may raise or block."""

    def received(self, operations: list[Operation]) -> None:
        """Take what one read of the socket held; PING and INFO are dealt with already."""

    def resumed(self) -> None:
        """Go on writing."""

    def lost(self, reason: str) -> None:
        """Know that the connection is gone: called once, and nothing after it."""


def servers(url: str) -> list[Server]:
    """Read a sink's `url`: one server or several with commas between. Raise `ConfigError` for any other form."""
    return [_server(part.strip()) for part in url.split(",")]


def _server(url: str) -> Server:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port or _PORT
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise ConfigError(f"NATS server: {error}") from error
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ConfigError("NATS server: expected nats://host:port or tls://host:port, several with commas between")
    if parts.username or parts.password:
        raise ConfigError("NATS server: no user or password in a URL; credentials come from a Secret")
    return Server(host=parts.hostname, port=port, tls=parts.scheme == "tls")


class Connection(asyncio.Protocol):
    """The edge of one connection. Made by `open_connection`."""

    def __init__(self, listener: Listener, *, inbox: str, ack_stream: str | None, secrets: Secrets) -> None:
        self._listener = listener
        self._secrets = secrets
        self._parser = Parser(inbox=inbox, ack_stream=ack_stream)
        self._inbox = inbox
        self._transport: asyncio.Transport | None = None
        self._early: deque[Operation] = deque()
        self._arrived = asyncio.Event()
        self._ended = asyncio.Event()
        self._open = False
        self.info = Info()
        self.writable = True
        self.lost_because: str | None = None

    # What the sink does

    def write(self, data: bytes) -> None:
        """Write without waiting; harmless when the connection is gone."""
        if self._transport is not None and self.lost_because is None:
            self._transport.write(data)

    async def close(self) -> None:
        """Close after what was written, or without it when that takes too long; the listener is told nothing more."""
        self._open = False
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

    async def greet(self, server: Server, tls: ssl.SSLContext | None) -> None:
        """Do the opening. Raise `SinkUnavailable` where the server refuses, `OSError` where TLS fails."""
        await self._expect(Info)
        secure = server.tls or self.info.tls_required
        if secure:
            await self._start_tls(server, tls)
        if not self.info.headers:
            raise SinkUnavailable("the server has no headers: NATS 2.2 or later is needed")
        options = _options(tls=secure) | login(self._secrets, self.info.nonce)
        self.write(connect(options) + subscribe(f"{self._inbox}.*") + PING)
        await self._expect(Pong)
        self._open = True

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        """Parse one read, answer PINGs, and hand the rest on."""
        try:
            operations = self._parser.feed(data)
        except SinkUnavailable as error:
            self.abort(str(error))
            return
        left = [operation for operation in operations if not self._handled(operation)]
        if self._open:
            self._listener.received(left)
        else:
            self._early.extend(left)
            self._arrived.set()

    def pause_writing(self) -> None:
        """Stop: the transport's buffer is full."""
        self.writable = False

    def resume_writing(self) -> None:
        """Go on: the transport's buffer has room."""
        self.writable = True
        if self._open:
            self._listener.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the listener once."""
        self._give_up(f"connection lost: {exc}" if exc else "the server closed the connection")
        self._arrived.set()
        self._ended.set()
        if self._open:
            self._listener.lost(self.lost_because or "")

    # Inside

    def _handled(self, operation: Operation) -> bool:
        """Deal with what needs no listener."""
        match operation:
            case Ping():
                self.write(PONG)
                return True
            case Info():
                self.info = operation
                return self._open
            case _:
                return False

    def _give_up(self, reason: str) -> None:
        """Keep the first reason."""
        self.lost_because = self.lost_because or reason

    async def _expect(self, kind: type[Info | Pong]) -> None:
        """Wait for an operation of the opening."""
        while True:
            while self._early:
                operation = self._early.popleft()
                if isinstance(operation, Failure):
                    raise SinkUnavailable(operation.text)
                if isinstance(operation, kind):
                    return
            if self.lost_because is not None:
                raise SinkUnavailable(self.lost_because)
            self._arrived.clear()
            await self._arrived.wait()

    async def _start_tls(self, server: Server, tls: ssl.SSLContext | None) -> None:
        """Go on under TLS, with the system's roots unless told otherwise."""
        if not (self.info.tls_required or self.info.tls_available):
            raise SinkUnavailable("the server offers no TLS")
        assert self._transport is not None
        context = tls or self._secrets.context()
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(self._transport, self, context, server_hostname=server.host)
        if transport is None:
            raise SinkUnavailable("connection lost while TLS was starting")
        self.connection_made(transport)


async def open_connection(
    server: Server,
    listener: Listener,
    *,
    inbox: str,
    ack_stream: str | None,
    secrets: Secrets | None = None,
    tls: ssl.SSLContext | None = None,
    timeout: float = 5.0,  # noqa: ASYNC109 - one limit for all steps
) -> Connection:
    """Connect to a server. Raise `SinkUnavailable`, `OSError` or `TimeoutError`."""
    connection = Connection(listener, inbox=inbox, ack_stream=ack_stream, secrets=secrets or Secrets())
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().create_connection(lambda: connection, server.host, server.port)
            await connection.greet(server, tls)
    except BaseException:
        connection.abort("given up")
        raise
    return connection


def _options(*, tls: bool) -> dict[str, Any]:
    """Give the options of CONNECT."""
    return {
        "verbose": False,
        "pedantic": False,
        "tls_required": tls,
        "name": "shardwright",
        "lang": "python",
        "version": "1",
        "protocol": 1,
        "echo": False,
        "headers": True,
        "no_responders": True,
    }
