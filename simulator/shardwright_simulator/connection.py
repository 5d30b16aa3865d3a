"""One gateway connection as the core sees it: what the client asked for, where the dialogue stands, what is to be sent.

A connection never touches a socket. It collects outputs; the edge fetches them with `Gateway.drain`, puts what arrives
into `Gateway.receive` and reports the end with `Gateway.lost`. Once it has been told to close, nothing more goes out.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from shardwright_api.discord import SEND_LIMIT, SEND_WINDOW
from shardwright_simulator.faults import Fault
from shardwright_simulator.outputs import Abort, Close, Output, StopReading, Truncated
from shardwright_simulator.session import Query, Session
from shardwright_simulator.timers import Timer


class Phase(Enum):
    """Where a connection stands."""

    OPENING = "opening"
    """No HELLO was sent."""
    GREETED = "greeted"
    """HELLO was sent; IDENTIFY or RESUME is awaited (again, after an op 9)."""
    STARTING = "starting"
    """IDENTIFY or RESUME was taken; its answer is held back by a fault."""
    ACTIVE = "active"
    """READY or RESUMED was sent."""
    CLOSED = "closed"
    """The connection is gone or told to go."""


class Handshake(NamedTuple):
    """What the opening handshake told."""

    path: str
    host: str = ""
    user_agent: str = ""
    secure: bool = False

    @property
    def query(self) -> Query:
        """The query string as sorted pairs."""
        return tuple(sorted(parse_qsl(urlsplit(self.path).query, keep_blank_values=True)))


class Connection:
    """One gateway connection."""

    def __init__(self, *, id: int, handshake: Handshake, now: float, touched: list[Connection]) -> None:  # noqa: A002
        self.id = id
        self.handshake = handshake
        self.opened = now
        self.phase = Phase.OPENING
        self.session: Session | None = None
        self.bot = ""
        self.shard: int | None = None
        self.total: int | None = None
        self.last_heard = now
        self.last_beat = now
        self.muted = False
        """A fault: nothing is sent any more."""
        self.deaf = False
        """A fault: nothing is read any more."""
        self.payload_compression = False
        self.messages_sent = 0
        self.bytes_sent = 0
        self.held: Fault | None = None
        """A fault: it holds the answer to IDENTIFY or RESUME back."""
        self._timers: list[Timer] = []
        self.member_requests: dict[str, float] = {}
        self._arrivals: deque[float] = deque()
        self._outbox: list[Output] = []
        self._touched = touched

    @property
    def query(self) -> Query:
        """The query string as sorted pairs."""
        return self.handshake.query

    @property
    def compression(self) -> str:
        """The transport compression asked for: `zlib-stream`, `zstd-stream` or empty."""
        return dict(self.query).get("compress", "")

    @property
    def resume_path(self) -> str:
        """The path of the URL this connection came by; `/` for the plain one."""
        return urlsplit(self.handshake.path).path.rstrip("/") or "/"

    @property
    def listening(self) -> bool:
        """Whether events reach the client, as far as can be told."""
        return self.phase is Phase.ACTIVE and not self.muted

    def put(self, output: Output) -> bool:
        """Queue an output; False when it is lost because the connection is silent or closed."""
        if self.phase is Phase.CLOSED or self.muted:
            return False
        if not self._outbox:
            self._touched.append(self)
        self._outbox.append(output)
        return True

    def send(self, message: bytes) -> bool:
        """Queue a message and count it."""
        if not self.put(message):
            return False
        self.messages_sent += 1
        self.bytes_sent += len(message)
        return True

    def finish(self, output: Close | Abort | Truncated) -> None:
        """Queue the last output of this connection."""
        self.muted = False
        self.put(output)
        self.phase = Phase.CLOSED
        self.cancel_timers()

    def stop_reading(self) -> None:
        """Read no more, a fault."""
        self.deaf = True
        self.put(StopReading())

    def cancel_timers(self) -> None:
        """Drop all that was to happen later on this connection."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def later(self, timer: Timer) -> None:
        """Keep a timer that ends with this connection."""
        self._timers = [t for t in self._timers if t.callback]
        self._timers.append(timer)

    def drain(self) -> list[Output]:
        """Hand over what is to be sent."""
        outputs, self._outbox = self._outbox, []
        return outputs

    def count_arrival(self, now: float) -> bool:
        """Count a message from the client; False when it is one too many (Gateway > Rate Limiting)."""
        self.last_heard = now
        while self._arrivals and self._arrivals[0] <= now - SEND_WINDOW:
            self._arrivals.popleft()
        self._arrivals.append(now)
        return len(self._arrivals) <= SEND_LIMIT
