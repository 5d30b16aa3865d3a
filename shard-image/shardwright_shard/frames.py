"""Websocket frames from a byte stream: whole data frames at once, everything else by the `websockets` library.

Nearly every frame that Discord sends is one unmasked, final text or binary frame: its payload is sliced out of the
receive buffer without a copy (RFC 6455, section 5.2). Control frames, fragments, masked frames and reserved bits go to
a `websockets` `ClientProtocol`, frame by frame, and what it gathers comes back in order.

`feed` takes any split of the stream and gives the same payloads. What breaks the rules sets `failure`; the messages
before it are given nevertheless, and the connection must then be dropped. The slices are valid until the next `feed`.
"""

from __future__ import annotations

from typing import Final

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode

from shardwright_shard.errors import GatewayProtocolError, TooLarge
from shardwright_shard.inflate import MAX_EVENT

_WHOLE: Final = (0x82, 0x81)
"""First bytes of a whole binary and a whole text frame."""
_LENGTH: Final = 0x7F
_MASK: Final = 0x80
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127


class FrameReader:
    """Cuts one connection's bytes into messages. `protocol` must be past its handshake."""

    def __init__(self, protocol: ClientProtocol) -> None:
        self._protocol = protocol
        self._partial = bytearray()
        self._need = 0
        self._fragments: list[bytes] | None = None
        self.failure: GatewayProtocolError | None = None
        """Why the stream cannot be read any further."""

    def feed(self, data: memoryview) -> list[memoryview | bytes]:
        """Give the payloads of all messages that are complete with `data`, in order."""
        if self._partial:
            self._partial += data
            if len(self._partial) < self._need:
                return []
            data, self._partial = memoryview(bytes(self._partial)), bytearray()
        return self._cut(data)

    def _cut(self, data: memoryview) -> list[memoryview | bytes]:
        messages: list[memoryview | bytes] = []
        try:
            self._cut_into(messages, data)
        except GatewayProtocolError as failure:
            self.failure = failure
        return messages

    def _cut_into(self, messages: list[memoryview | bytes], data: memoryview) -> None:
        position, end = 0, len(data)
        while True:
            head, length = _measure(data, position, end)
            stop = position + head + length
            if head == 0 or stop > end:
                break
            first = data[position]
            if first in _WHOLE and self._fragments is None and not data[position + 1] & _MASK:
                messages.append(data[position + head : stop])
            else:
                self._hand_over(bytes(data[position:stop]), messages)
            position = stop
        if position < end:
            self._partial += data[position:]
            self._need = stop - position if head else 0

    def _hand_over(self, frame: bytes, messages: list[memoryview | bytes]) -> None:
        self._protocol.receive_data(frame)
        if self._protocol.parser_exc is not None:
            raise GatewayProtocolError(f"websocket: {self._protocol.parser_exc}")
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._gather(event, messages)

    def _gather(self, frame: Frame, messages: list[memoryview | bytes]) -> None:
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return
        self._fragments = [*(self._fragments or []), bytes(frame.data)]
        if frame.fin:
            messages.append(b"".join(self._fragments))
            self._fragments = None


def _measure(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """Give the sizes of the frame's header and payload; (0, 0) if the header is not complete."""
    have = end - position
    if have < 2:  # noqa: PLR2004 - the shortest header
        return 0, 0
    second = data[position + 1]
    length = second & _LENGTH
    head = 2
    if length == _TWO_BYTES:
        head = 4
    elif length == _EIGHT_BYTES:
        head = 10
    if have < head:
        return 0, 0
    if head > 2:  # noqa: PLR2004 - the shortest header
        length = int.from_bytes(data[position + 2 : position + head])
        if length > MAX_EVENT:
            raise TooLarge(f"a websocket frame of {length} bytes is larger than {MAX_EVENT}")
    return (head + 4, length) if second & _MASK else (head, length)
