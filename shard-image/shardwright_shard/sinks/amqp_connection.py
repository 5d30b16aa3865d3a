"""One connection to RabbitMQ with one channel: AMQP 0-9-1 by `pamqp`, confirms read by the byte.

`greet` logs in and opens the connection. `open_channel` opens a channel in confirm mode and looks for the exchange: a
missing one closes the channel, in the broker's words. From then on confirms, returned events and blocking are told to
the listener; a channel or connection that the broker closes is lost, with its words.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, Protocol, TypeVar

from pamqp import base, commands, frame, header
from pamqp.exceptions import PAMQPException

from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.sinks import wire
from shardwright_shard.sinks.amqp_encoder import CHANNEL
from shardwright_shard.sinks.wire import Wire

HEARTBEAT: Final = 30
"""Seconds: we write one at least every 20, and a broker that was silent for twice as long is gone."""
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_FRAME_LIMIT: Final = 128 * 1024
_ACK: Final = b"\x00\x3c\x00\x50"
_METHOD, _HEADER, _BODY = 1, 2, 3
_TEXT_LIMIT: Final = 300
_NO_LOGIN: Final = ("guest", "guest")
F = TypeVar("F", bound=base.Frame)


class Listener(wire.Listener, Protocol):
    """Who uses a connection."""

    def confirmed(self, tag: int, *, multiple: bool) -> None:
        """Know that the broker has taken an event, or all up to it."""

    def rejected(self, tag: int, *, multiple: bool) -> None:
        """Know that the broker has not."""

    def returned(self, number: int, why: str) -> None:
        """Know that no queue takes an event; its confirm follows."""

    def blocked(self, why: str) -> None:
        """Know that the broker takes nothing more for now."""


class Connection(Wire):
    """The edge of one connection."""

    def __init__(self, listener: Listener, *, login: tuple[str, str] | None, vhost: str, exchange: str) -> None:
        super().__init__(listener)
        self._sink = listener
        self._login = login or _NO_LOGIN
        self._vhost = vhost
        self._exchange = exchange
        self._rest = b""
        self._frames: deque[base.Frame] = deque()
        self._return: commands.Basic.Return | None = None
        self._channel_open = False
        self.frame_max = _FRAME_LIMIT
        self.is_blocked = False
        self.heard = 0.0
        """When the last byte came, on the loop's clock."""

    # The opening

    async def greet(self) -> None:
        """Log in, agree on bounds, open the virtual host."""
        self.write(header.ProtocolHeader().marshal())
        await self._expect(commands.Connection.Start)
        username, password = self._login
        abilities = {"connection.blocked": True, "authentication_failure_close": True, "publisher_confirms": True}
        about: dict[str, Any] = {"product": "shardwright", "capabilities": abilities}
        self._send(commands.Connection.StartOk(about, "PLAIN", f"\0{username}\0{password}"), channel=0)
        tune = await self._expect(commands.Connection.Tune)
        self.frame_max = min(tune.frame_max or _FRAME_LIMIT, _FRAME_LIMIT)
        self._send(commands.Connection.TuneOk(1, self.frame_max, HEARTBEAT), channel=0)
        self._send(commands.Connection.Open(self._vhost), channel=0)
        await self._expect(commands.Connection.OpenOk)

    async def open_channel(self) -> str:
        """Open the channel where it is not. Give the broker's words where the exchange is not there."""
        if self._channel_open:
            return ""
        self._send(commands.Channel.Open())
        await self._expect(commands.Channel.OpenOk)
        self._send(commands.Exchange.Declare(exchange=self._exchange, passive=True))
        answer = await self._next()
        if isinstance(answer, commands.Channel.Close):
            self._send(commands.Channel.CloseOk())
            return answer.reply_text[:_TEXT_LIMIT]
        self._send(commands.Confirm.Select())
        await self._expect(commands.Confirm.SelectOk)
        self._channel_open = True
        return ""

    async def _expect(self, kind: type[F]) -> F:
        while not isinstance(found := await self._next(), kind):
            pass
        return found

    async def _next(self) -> base.Frame:
        while not self._frames:
            await self.arrival()
        return self._frames.popleft()

    def _send(self, method: base.Frame, *, channel: int = CHANNEL) -> None:
        self.write(frame.marshal(method, channel))

    # What comes

    def resume_writing(self) -> None:
        """Go on, unless the broker is blocked still."""
        if not self.is_blocked:
            super().resume_writing()

    def feed(self, data: bytes) -> None:
        """Read frames; those that are not whole wait."""
        self.heard = asyncio.get_running_loop().time()
        data = self._rest + data if self._rest else data
        start, end = 0, len(data)
        while end - start >= 8:  # noqa: PLR2004 - a frame's least size
            size = int.from_bytes(data[start + 3 : start + 7], "big")
            if size > _FRAME_LIMIT:
                raise SinkUnavailable(f"the server does not speak AMQP 0-9-1: {data[start : start + 20]!r}")
            after = start + size + 8
            if after > end:
                break
            if data[start + 7 : start + 11] == _ACK and data[start] == _METHOD:
                tag = int.from_bytes(data[start + 11 : start + 19], "big")
                self._sink.confirmed(tag, multiple=bool(data[start + 19] & 1))
            else:
                self._other(data[start:after])
            start = after
        self._rest = data[start:]

    def _other(self, raw: bytes) -> None:
        """Read any frame but a confirm."""
        if raw[0] == _BODY:
            return  # of a returned event
        try:
            _, _, found = frame.unmarshal(raw)
        except (PAMQPException, ValueError) as error:
            raise SinkUnavailable(f"a frame of the broker cannot be read: {error}") from None
        if isinstance(found, header.ContentHeader):
            self._returned(found)
        elif isinstance(found, base.Frame):
            self._method(found)

    def _method(self, found: base.Frame) -> None:
        match found:
            case commands.Basic.Nack():
                self._sink.rejected(found.delivery_tag, multiple=bool(found.multiple))
            case commands.Basic.Return():
                self._return = found
            case commands.Connection.Blocked():
                self.writable, self.is_blocked = False, True
                self._sink.blocked(f"the broker is blocked: {found.reason}"[:_TEXT_LIMIT])
            case commands.Connection.Unblocked():
                self.is_blocked = False
                self.resume_writing()
            case commands.Connection.Close():
                raise SinkUnavailable(found.reply_text[:_TEXT_LIMIT])
            case commands.Channel.Close() if self._channel_open:
                raise SinkUnavailable(found.reply_text[:_TEXT_LIMIT])
            case _:
                self._frames.append(found)

    def _returned(self, found: header.ContentHeader) -> None:
        """Tell of an event that no queue takes."""
        told = self._return
        number = found.properties.correlation_id if found.properties is not None else None
        if told is not None and number is not None and str(number).isdigit():
            self._sink.returned(int(number), f"no queue takes {told.routing_key} of exchange {told.exchange}")
