"""The edge: sockets, the loop's clock and timers around the core. One port serves REST, control and websockets.

Each connection is one `Peer`. It starts as HTTP; an upgrade that is not refused turns it into a gateway connection for
good. Whatever happens, `Server.flush` follows: it writes what the core wants written and sets the timer for what it
wants done next. With latency, what comes and what goes is held up in two `DelayLine`s, which keep the order.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from http import HTTPStatus
from random import Random
from typing import Any, cast

from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as HandshakeRequest
from websockets.protocol import State
from websockets.server import ServerProtocol

from shardwright_simulator.connection import Connection, Handshake
from shardwright_simulator.control import Control
from shardwright_simulator.control_http import PREFIX, ControlRoutes
from shardwright_simulator.errors import HttpError
from shardwright_simulator.gateway import Gateway
from shardwright_simulator.handshakes import refusal
from shardwright_simulator.http import Request, RequestReader, Response, json_response
from shardwright_simulator.outputs import Abort, Close, Output, StopReading, Truncated
from shardwright_simulator.rest import Rest
from shardwright_simulator.wire import Wire

MAX_CLIENT_MESSAGE = 1024 * 1024
"""What we read at all; the gateway refuses far shorter messages, with a close code."""
CLOSE_PATIENCE = 5.0
"""Seconds a client has to answer a close frame."""
NO_STATUS = 1005
_MESSAGE_OPCODES = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class DelayLine:
    """Calls functions later, each after a random delay, in the order they came."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: Callable[[], float]) -> None:
        self._loop = loop
        self._delay = delay
        self._waiting: deque[Callable[[], None]] = deque()
        self._last = 0.0

    def push(self, call: Callable[[], None]) -> None:
        """Call a function after a delay; at once without one, if nothing waits before it."""
        delay = self._delay()
        if delay <= 0 and not self._waiting:
            call()
            return
        self._waiting.append(call)
        self._last = max(self._last, self._loop.time() + delay)
        self._loop.call_at(self._last, self._next)

    def _next(self) -> None:
        self._waiting.popleft()()


class Peer(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        loop = asyncio.get_running_loop()
        self._inward = DelayLine(loop, server.delay)
        self._outward = DelayLine(loop, server.delay)
        self._reader = RequestReader()
        self._protocol: ServerProtocol | None = None
        self._connection: Connection | None = None
        self._wire: Wire | None = None
        self._fragments: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = False

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.peers.add(self)

    def data_received(self, data: bytes) -> None:
        """Take what arrived, after its delay."""
        self._inward.push(lambda: self._take(data))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Take note that the connection is gone, after what arrived before."""
        self._writable.set()
        self._inward.push(self._lost)

    def pause_writing(self) -> None:
        """Hold a streamed answer up."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on with a streamed answer."""
        self._writable.set()

    # HTTP

    def _take(self, data: bytes) -> None:
        try:
            if self._protocol is not None:
                self._feed(data)
            else:
                self._take_requests(data)
        except HttpError as error:
            self._respond(json_response({"error": str(error)}, error.status), keep=False)
        self._server.flush()

    def _take_requests(self, data: bytes) -> None:
        request = self._reader.feed(data)
        while request is not None:
            self._take_request(request)
            request = self._reader.feed(b"") if self._protocol is None else None

    def _take_request(self, request: Request) -> None:
        if request.is_websocket:
            self._upgrade(request)
        else:
            self._respond(self._server.answer(request), keep=request.keeps_alive)

    def _respond(self, response: Response, *, keep: bool) -> None:
        pieces = response.pieces()
        self._write(next(pieces))
        if response.stream is not None:
            self._transport.pause_reading()
            self._server.spawn(self._stream(pieces, keep=keep))
        elif not keep:
            self._close_transport()

    async def _stream(self, pieces: Iterator[bytes], *, keep: bool) -> None:
        for piece in pieces:
            await self._writable.wait()
            if self._transport.is_closing():
                return
            self._write(piece)
            await asyncio.sleep(0)
        if not keep:
            self._close_transport()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    # Websocket

    def _upgrade(self, request: Request) -> None:
        handshake = Handshake(request.target, request.header("Host"), request.header("User-Agent"), self._server.secure)
        status = refusal(self._server.gateway, handshake)
        if status is not None:
            self._respond(json_response({"error": status.phrase}, status), keep=False)
            return
        self._protocol = ServerProtocol(max_size=MAX_CLIENT_MESSAGE)
        self._protocol.receive_data(request.raw)
        if not self._accept(self._protocol):
            self._close_transport()
            return
        self._connection = self._server.gateway.connect(handshake)
        self._server.sockets[self._connection.id] = self
        self._wire = Wire(self._protocol, self._connection.compression, self._server.gateway.options)
        self._feed(self._reader.rest())

    def _accept(self, protocol: ServerProtocol) -> bool:
        """Answer the opening handshake; False when it was not one."""
        events = protocol.events_received()
        if not events or not isinstance(events[0], HandshakeRequest):
            raise HttpError(HTTPStatus.BAD_REQUEST, f"no websocket handshake: {protocol.handshake_exc}")
        protocol.send_response(protocol.accept(events[0]))
        self._write(b"".join(protocol.data_to_send()))
        return not isinstance(protocol.handshake_exc, InvalidHandshake)

    def _feed(self, data: bytes) -> None:
        protocol = self._protocol
        if protocol is None or self._gone or not data:
            return
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event)
        self._answer_frames(protocol.data_to_send())

    def _take_frame(self, frame: Frame) -> None:
        connection = self._connection
        if connection is None:
            return
        if frame.opcode in _MESSAGE_OPCODES:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                message, self._fragments = b"".join(self._fragments), []
                self._server.gateway.receive(connection, message)
        elif frame.opcode is Opcode.CLOSE and self._protocol is not None:
            received = self._protocol.close_rcvd
            code = None if received is None or received.code == NO_STATUS else received.code
            self._server.gateway.lost(connection, code)

    def _answer_frames(self, written: list[bytes]) -> None:
        """Send pongs and the echo of a close frame, and end the connection where the protocol is at its end."""
        if self._connection is not None and self._connection.muted:
            return  # a silent peer answers nothing, not even a close
        self._write(b"".join(written))
        if b"" in written:
            self._close_transport()

    def perform(self, outputs: list[Output]) -> None:
        """Do what the core wants done on this connection, unless its client has closed it in the same read."""
        wire, connection = self._wire, self._connection
        if wire is None or connection is None or self._gone or not self._is_open():
            return
        wire.payload_compression = connection.payload_compression
        pending: list[bytes] = []
        for output in outputs:
            if isinstance(output, Close | Abort | StopReading):
                self._write(b"".join(pending))
                pending.clear()
                self._perform_last(output)
            else:
                pending.append(wire.write(output))
        self._write(b"".join(pending))
        if any(isinstance(output, Truncated) for output in outputs):
            self._close_transport()
        self._check_backlog(connection)

    def _is_open(self) -> bool:
        """Whether anything can still be written: a transport of uvloop that is closed takes no call at all."""
        is_open = self._protocol is not None and self._protocol.state is State.OPEN
        return is_open and not self._transport.is_closing()

    def _perform_last(self, output: Close | Abort | StopReading) -> None:
        if isinstance(output, StopReading):
            self._transport.pause_reading()
        elif isinstance(output, Abort):
            self._outward.push(self._transport.abort)
        elif self._protocol is not None:
            self._protocol.send_close(output.code, output.reason)
            self._write(b"".join(self._protocol.data_to_send()))
            asyncio.get_running_loop().call_later(CLOSE_PATIENCE, self._transport.abort)

    def _check_backlog(self, connection: Connection) -> None:
        if self._transport.is_closing():
            return
        waiting = self._transport.get_write_buffer_size()
        if waiting > self._server.gateway.options.write_limit:
            self._server.gateway.note(connection, "slow-client", f"{waiting} bytes were left unread")
            self._server.gateway.lost(connection, None)
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if data:
            self._outward.push(lambda: self._write_now(data))

    def _write_now(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _close_transport(self) -> None:
        self._outward.push(self._transport.close)

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _lost(self) -> None:
        self._gone = True
        self._server.peers.discard(self)
        if self._connection is not None:
            self._server.sockets.pop(self._connection.id, None)
            self._server.gateway.lost(self._connection, None)
        self._server.flush()


class Server:
    """The port, and what drives the core."""

    def __init__(self, gateway: Gateway, *, random: Random, tls: ssl.SSLContext | None = None) -> None:
        self.gateway = gateway
        self.control = Control(gateway, self.flush)
        self.secure = tls is not None
        self.peers: set[Peer] = set()
        self.sockets: dict[int, Peer] = {}
        self._tls = tls
        self._random = random
        self._rest = Rest(gateway)
        self._control_routes = ControlRoutes(self.control)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Peer(self), host, port, ssl=self._tls, backlog=1024)
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Cut all connections and stop listening."""
        if self._listener is not None:
            self._listener.close()
        for peer in list(self.peers):
            peer.abort()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.sleep(0)

    def delay(self) -> float:
        """Draw the delay of a chunk of bytes."""
        least, most = self.gateway.options.latency
        return self._random.uniform(least, most) if most else 0.0

    def answer(self, request: Request) -> Response:
        """Answer a plain HTTP request."""
        if request.path.startswith(PREFIX + "/"):
            return self._control_routes.answer(request)
        if request.path == "/healthz":
            return json_response({"ok": True})
        return self._rest.answer(request, secure=self.secure)

    def spawn(self, work: Any) -> None:
        """Run a coroutine beside."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def flush(self) -> None:
        """Write what the core wants written, set the timer, wake who waits for a change."""
        for connection, outputs in self.gateway.drain():
            peer = self.sockets.get(connection.id)
            if peer is not None:
                peer.perform(outputs)
        self._set_timer()
        self._changed.set()

    async def next_change(self) -> None:
        """Wait until something has happened."""
        self._changed.clear()
        await self._changed.wait()

    def _set_timer(self) -> None:
        due = self.gateway.timers.next_due
        if due is None or (self._timer is not None and self._timer_due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        wait = max(0.0, due - self.gateway.clock())
        self._timer = asyncio.get_running_loop().call_later(wait, self._run_timers)

    def _run_timers(self) -> None:
        self._timer = None
        try:
            self.gateway.timers.run(self.gateway.clock())
        finally:
            self.flush()
