"""What sinks over a connection share: their life, and what they say of themselves.

One life of a connection, by `run`:

1. Connect to the next server (`connect`); credentials and certificates are read from their files here.
2. Ask whether events can be sent, until they can (`until_fit`): sizes, streams, rights.
3. Flow: rewind the reader to the first event that is not acknowledged, and send whatever `wake` finds, as far as window
   and writer have room. Acknowledgements make room, move the cursor and send on.
4. Refused: stop, pause, back to 2 (see `flow.py`). Order per shard holds except across such a refusal.
5. Lost, or nothing acknowledged for `acks_within` seconds although something is under way: pause, back to 1.

`available` is false from the moment a connection is lost or an event is refused until events are acknowledged again (or
nothing is pending), and while nothing was acknowledged for `stalled_after` seconds. Faults of a server never leave `run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from shardwright_api import resources
from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.journal import Reader
from shardwright_shard.sinks import max_age
from shardwright_shard.sinks.backoff import backoff
from shardwright_shard.sinks.flow import Flow
from shardwright_shard.sinks.intake import DroppingIntake, Intake, intake
from shardwright_shard.sinks.secrets import Secrets
from shardwright_shard.sinks.selection import Selection
from shardwright_shard.sinks.window import Window


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds and times of a sink; seconds and bytes."""

    events: int = 4096
    size: int = 8 * 1024 * 1024
    waiting: int = 16 * 1024 * 1024
    """Bytes that may wait for a sink that drops what overflows."""
    connect_within: float = 5.0
    acks_within: float = 10.0
    stalled_after: float = 2.0
    ping_every: float = 20.0
    look_every: float = 1.0
    first_pause: float = 0.1
    longest_pause: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every sink is made of beside its own fields."""

    spec: resources.Sink
    bot: str
    random: Random
    secrets: Secrets = field(default_factory=Secrets)
    limits: Limits = Limits()


class Line(Protocol):
    """An open connection, as the life needs it."""

    writable: bool
    lost_because: str | None

    def write(self, data: bytes) -> None:
        """Write without waiting."""

    async def close(self) -> None:
        """Close it, whatever state it is in."""


class ConnectedSink:
    """A sink with a connection. A kind of sink gives `connect` and `make_flow`, and overrides what it has to ask."""

    def __init__(self, around: Surroundings) -> None:
        """Read what is common to all kinds. Raise `ConfigError` where it does not fit."""
        self.name = around.spec.name
        self.available = False
        self._text = "not connected yet"
        self.random = around.random
        self.limits = around.limits
        self.secrets = around.secrets
        self.selection = Selection(around.spec.events, max_age=max_age.seconds(around.spec.max_age))
        self.where = ""
        """The server, for messages: set by `connect`."""
        self._overflow = around.spec.overflow
        self.blocking = self._overflow is resources.Overflow.BLOCK
        self._dropping: DroppingIntake | None = None
        self._flow: Flow | None = None
        self._pauses = self._backoff()
        self._trouble = asyncio.Event()
        self._warning = ""
        self._connects = 0
        self._watch = Watch(self.limits, now=0.0)

    @property
    def message(self) -> str:
        """Say why events are not taken, or what is to be said all the same: that some are dropped at present."""
        if self._dropping is None or not self._dropping.dropping:
            return self._text
        told = f"events are dropped ({self._overflow}): {self._dropping.dropped} so far"
        return f"{self._text}; {told}" if self._text else told

    # What a kind of sink gives

    def make_flow(self, reader: Intake, window: Window) -> Flow:
        """Make the flow: once, when the reader is there."""
        raise NotImplementedError

    async def connect(self) -> Line:
        """Open a connection to the next server. Raise `SinkUnavailable`, `OSError` or `TimeoutError`."""
        raise NotImplementedError

    async def fit(self, line: Line) -> tuple[str, str]:
        """Ask whether events can be sent: a problem that forbids it, and a warning that does not."""
        del line
        return "", ""

    def retiring(self, line: Line) -> str:
        """Say why a connection that works should be left when nothing is under way; empty: it should not."""
        del line
        return ""

    def told_to_wait(self, line: Line) -> bool:
        """Tell whether the server itself said that it takes nothing for now: the connection is kept then."""
        del line
        return False

    # The plug-in point

    def attach(self, reader: Reader) -> None:
        """Take the reader."""
        taken = intake(reader, self._overflow, limit=self.limits.waiting)
        self._dropping = taken if isinstance(taken, DroppingIntake) else None
        self._flow = self.make_flow(taken, Window(events=self.limits.events, size=self.limits.size))

    def wake(self) -> None:
        """Send what stands behind the read position, as far as window and writer have room."""
        if self._dropping is not None:
            self._dropping.gather()
        self.flow.pump()

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled."""
        while True:
            try:
                await self._live()
            except (SinkUnavailable, OSError, TimeoutError) as error:
                why = str(error) or "no answer in time"
                self.away(f"{self.where}: {why}" if self.where else why)
            await asyncio.sleep(next(self._pauses))

    def statistics(self) -> dict[str, int]:
        """Give the counters of every sink."""
        flow = self.flow
        return {
            "published": flow.published,
            "acknowledged": flow.acknowledged,
            "filtered": self.selection.filtered,
            "expired": self.selection.expired,
            "dropped": self._dropping.dropped if self._dropping is not None else 0,
            "oversize": flow.outlet.oversize,
            "refused": flow.refused,
            "reconnects": max(0, self._connects - 1),
            "pending": flow.pending,
        }

    @property
    def flow(self) -> Flow:
        """Give the flow of events: there from `attach` on."""
        assert self._flow is not None, "attach() was not called"
        return self._flow

    # What a connection tells

    def judge(self, before: int) -> None:
        """Look at what replies changed; `before`: the events that had been acknowledged before them."""
        flow = self.flow
        if flow.refusal:
            self.away(flow.refusal)
            self._trouble.set()
        elif not self.available and flow.acknowledged != before:
            self.present()

    def resumed(self) -> None:
        """Go on sending."""
        self.flow.pump()

    def lost(self, reason: str) -> None:
        """Know at once that the connection is gone; `run` does the rest."""
        self.flow.stop()
        self.away(reason)
        self._trouble.set()

    def away(self, why: str) -> None:
        """Say that events are not taken, and why."""
        self.available = False
        self._text = why

    # The life of a connection

    async def _live(self) -> None:
        """Live one connection to its end. Raise what ended it."""
        line = await self.connect()
        self._connects += 1
        try:
            while True:
                await self._until_fit(line)
                self._begin(line)
                await self._until_refused(line)
                await asyncio.sleep(next(self._pauses))
        finally:
            self.flow.stop()
            await line.close()

    async def _until_fit(self, line: Line) -> None:
        """Wait until events can be sent, asking again and again."""
        while True:
            if line.lost_because is not None:
                raise SinkUnavailable(line.lost_because)
            problem, self._warning = await self.fit(line)
            if not problem:
                return
            self.away(problem)
            await asyncio.sleep(next(self._pauses))

    def _begin(self, line: Line) -> None:
        """Let events flow. With events pending, the first acknowledgement tells that it works."""
        self._trouble.clear()
        self._watch = Watch(self.limits, now=_now())
        self.flow.begin(line)
        if not self.flow.pending:
            self.present()

    async def _until_refused(self, line: Line) -> None:
        """Look after the flow until an event is refused. Raise `SinkUnavailable` when the connection is of no use."""
        while not self.flow.refusal:
            if line.lost_because is not None:
                raise SinkUnavailable(line.lost_because)
            await _happens(self._trouble, self.limits.look_every)
            if self.told_to_wait(line):
                self._watch = Watch(self.limits, now=_now())
            elif self._watch.look(self.flow, now=_now()) > self.limits.stalled_after:
                self.away(f"nothing was acknowledged for more than {self.limits.stalled_after:g} s")
            if not self.flow.window.under_way and (why := self.retiring(line)):
                raise SinkUnavailable(why)

    def present(self) -> None:
        """Say that events are taken."""
        self.available = True
        self._text = self._warning
        self._pauses = self._backoff()

    def _backoff(self) -> Iterator[float]:
        return backoff(self.random, first=self.limits.first_pause, limit=self.limits.longest_pause)


class Watch:
    """How long a connection has shown no progress: looked at once in a while, so that events need no clock."""

    def __init__(self, limits: Limits, *, now: float) -> None:
        self._limits = limits
        self._low = 0
        self._moved = now
        self._pinged = now

    def look(self, flow: Flow, *, now: float) -> float:
        """Give the seconds without an acknowledgement though one is due. Raise `SinkUnavailable` where it is too long."""
        if not flow.window.under_way or flow.window.low != self._low:
            self._low, self._moved = flow.window.low, now
        if now - self._moved > self._limits.acks_within:
            raise SinkUnavailable(f"nothing was acknowledged for more than {self._limits.acks_within:g} s")
        if flow.awaited_pongs and now - self._pinged > self._limits.acks_within and not flow.window.under_way:
            raise SinkUnavailable("the server does not answer")
        if now - self._pinged >= self._limits.ping_every and not flow.awaited_pongs:
            self._pinged = now
            flow.ping()
        return now - self._moved


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _happens(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, or so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
