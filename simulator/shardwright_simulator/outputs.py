"""What the core wants done on a socket. A plain message is `bytes`; all else is one of these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Close:
    """Start the closing handshake."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Abort:
    """Cut the TCP connection without a word."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that are put on the socket as they are."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Junk:
    """A well-formed binary frame whose content is this, past the compressor."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """A websocket ping."""


@dataclass(frozen=True, slots=True)
class Fragmented:
    """A message in several frames."""

    message: bytes
    frames: int


@dataclass(frozen=True, slots=True)
class Truncated:
    """The first half of a message's frame, then the end of the TCP connection."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Bomb:
    """A message of so many zero bytes, squeezed by the connection's compressor."""

    size: int


@dataclass(frozen=True, slots=True)
class StopReading:
    """Read no more from the socket."""


Output = bytes | Close | Abort | Raw | Junk | Ping | Fragmented | Truncated | Bomb | StopReading
