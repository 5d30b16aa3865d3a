"""One websocket to Discord: the edge that turns reads of a socket into gateway messages.

Theory of operation. `Connection` is an `asyncio.BufferedProtocol`: the transport reads into one buffer that all
connections of the process share, which is safe because a read is worked off before the next one begins. What is left
of a frame that is not complete is kept by the connection's `FrameReader`. The opening handshake, everything that is
sent and everything that is not a whole data frame is done by `websockets`' sans-I/O `ClientProtocol`.

The handler hears `opened` once, then `messages` once per read, `unreadable` at most once, and `lost` exactly once,
with the close code that the server sent or None. After `close` nothing but `lost` is heard; the connection lingers for
a moment, reading and forgetting, so that a close frame is not swallowed by a TCP reset.

(Never inherit `asyncio.Protocol` as well: uvloop would then copy each read. Never return an empty buffer.)
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.protocol import SEND_EOF, State
from websockets.uri import parse_uri

from shardwright_api.discord import API_VERSION, USER_AGENT
from shardwright_api.resources import Compression
from shardwright_shard.errors import GatewayProtocolError, TooLarge
from shardwright_shard.frames import FrameReader
from shardwright_shard.inflate import MAX_EVENT, Inflater, make_inflater

RECEIVE_BUFFER: Final = 256 * 1024
CONNECT_TIMEOUT: Final = 10.0
LINGER: Final = 1.0
"""Seconds to wait for the peer's end of the closing handshake."""
MAX_READ: Final = 4 * MAX_EVENT
"""Bytes that one read may inflate to. What is more is fetched again by the next RESUME, in other pieces."""
_MAX_HEAD: Final = 64 * 1024

_buffer = memoryview(bytearray(RECEIVE_BUFFER))


class Handler(Protocol):
    """Who hears of a connection. Called on the event loop; must not block."""

    def made(self, connection: Connection) -> None:
        """Hear of the connection before anything else."""

    def opened(self) -> None:
        """Hear that the opening handshake is done."""

    def messages(self, messages: list[bytes]) -> None:
        """Hear the gateway messages of one read, in order."""

    def unreadable(self, error: GatewayProtocolError) -> None:
        """Hear that the stream cannot be read any further: the connection must be closed."""

    def lost(self, code: int | None, reason: str) -> None:
        """Hear that the connection has ended."""


def gateway_uri(url: str, compression: Compression) -> str:
    """Add Discord's query to a gateway URL (Gateway > Connecting): version, encoding, transport compression.

    Raise GatewayProtocolError for a URL that is none.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise GatewayProtocolError(f"not a gateway URL: {error}") from None
    query = f"v={API_VERSION}&encoding=json"
    if compression is not Compression.NONE:
        query += f"&compress={compression}"
    return parts._replace(path=parts.path or "/", query=query).geturl()


class Connection(asyncio.BufferedProtocol):
    """One connection, from its handshake to its end."""

    def __init__(self, uri: str, compression: Compression, handler: Handler) -> None:
        self._protocol = ClientProtocol(parse_uri(uri), max_size=MAX_EVENT)
        self._frames = FrameReader(self._protocol)
        self._handler: Handler | None = handler
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._open = False
        self._reason = ""
        self.inflater: Inflater = make_inflater(compression)
        self.ended = asyncio.get_running_loop().create_future()
        """Done when the socket is closed."""

    # --- what the transport calls -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the opening handshake."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports inherit nothing
        if self._handler is not None:
            self._handler.made(self)
        request = self._protocol.connect()
        request.headers["User-Agent"] = USER_AGENT
        self._protocol.send_request(request)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the interface's
        """Lend the buffer that all connections share."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Work off one read."""
        if self._handler is None:
            return
        try:
            if self._open:
                self._read(_buffer[:nbytes])
            else:
                self._shake_hands(bytes(_buffer[:nbytes]))
        except GatewayProtocolError as error:
            self._fail(error)

    def eof_received(self) -> bool:
        """Let the transport close itself."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the handler how it ended."""
        if not self.ended.done():
            self.ended.set_result(None)
        if exc is not None and not self._reason:
            self._reason = str(exc)
        self._tell_lost()

    # --- what the shard calls -----------------------------------------------------------------------------------

    def send(self, text: bytes) -> None:
        """Send one text message, unless the connection is ending."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text)
            self._flush()

    def close(self, code: int) -> None:
        """Send a close frame and end the connection soon; the handler hears nothing more."""
        self._handler = None
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code)
            self._flush()
            self.resume_reading()
            asyncio.get_running_loop().call_later(LINGER, self.abort)
        else:
            self.abort()

    def abandon(self) -> None:
        """Drop the socket; the handler hears nothing more."""
        self._handler = None
        self.abort()

    def abort(self) -> None:
        """Drop the socket."""
        if self._transport is not None:
            self._transport.abort()
        elif not self.ended.done():
            self.ended.set_result(None)

    def pause_reading(self) -> None:
        """Stop reading: nothing is lost, the peer's sends fill the kernel's buffers."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    # --- inside -------------------------------------------------------------------------------------------------

    def _shake_hands(self, data: bytes) -> None:
        """Feed the library through the blank line that ends the handshake; what follows in this read is ours."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > _MAX_HEAD:
                raise GatewayProtocolError("the opening handshake's answer is too long")
            return
        rest = bytes(self._head[end + 4 :])
        self._protocol.receive_data(bytes(self._head[: end + 4]))
        if self._protocol.state is not State.OPEN:
            status = bytes(self._head[: self._head.find(b"\r\n")])
            raise GatewayProtocolError(f"the opening handshake was refused: {status[:80].decode('latin-1')}")
        self._protocol.events_received()
        self._head, self._open = bytearray(), True
        if self._handler is not None:
            self._handler.opened()
        if rest and self._handler is not None:
            self._read(memoryview(rest))

    def _read(self, data: memoryview) -> None:
        found: list[bytes] = []
        failure: GatewayProtocolError | None = None
        size = 0
        try:
            for part in self._frames.feed(data):
                message = self.inflater.inflate(part)
                if message is not None:
                    found.append(message)
                    size += len(message)
                    if size > MAX_READ:
                        raise TooLarge(f"one read inflates to more than {MAX_READ} bytes")
            failure = self._frames.failure
        except GatewayProtocolError as error:
            failure = error
        if found and self._handler is not None:
            self._handler.messages(found)
        if failure is not None:
            raise failure
        if self._protocol.writes:
            self._flush()
        if self._protocol.close_rcvd is not None:
            self._closed_by_peer()

    def _closed_by_peer(self) -> None:
        self._tell_lost()
        if self._transport is not None:
            self._transport.close()
            asyncio.get_running_loop().call_later(LINGER, self.abort)  # TLS would wait 30 s for the peer's part

    def _fail(self, error: GatewayProtocolError) -> None:
        self._reason = str(error)
        if self._open and self._handler is not None:
            self._handler.unreadable(error)
        if not self._open or self._handler is not None:
            self.abort()

    def _tell_lost(self) -> None:
        handler, self._handler = self._handler, None
        if handler is None:
            return
        received = self._protocol.close_rcvd
        code = received.code if received is not None and received.code != _NO_STATUS else None
        handler.lost(code, received.reason if received is not None else self._reason)

    def _flush(self) -> None:
        if self._transport is None:
            return
        for data in self._protocol.data_to_send():
            if data is SEND_EOF:
                self._transport.close()
            elif not self._transport.is_closing():
                self._transport.write(data)


_NO_STATUS: Final = 1005


async def connect(uri: str, compression: Compression, handler: Handler, *, tls: ssl.SSLContext | None) -> Connection:
    """Open a connection; its handshake goes on by itself.

    Raise OSError or TimeoutError where there is no way, and GatewayProtocolError for a URL that is none.
    """
    try:
        parsed = parse_uri(uri)
    except (InvalidURI, ValueError) as error:
        raise GatewayProtocolError(f"not a gateway URL: {error}") from None
    connection = Connection(uri, compression, handler)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                parsed.host,
                parsed.port,
                ssl=tls if parsed.secure else None,
                server_hostname=parsed.host if parsed.secure else None,
            )
    except UnicodeError as error:
        connection.abandon()
        raise GatewayProtocolError(f"not a host name: {parsed.host[:100]}: {error}") from None
    except BaseException:
        connection.abandon()  # it may have been made already
        raise
    return connection
