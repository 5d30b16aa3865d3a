"""The NATS sink: JetStream with acknowledgements, or core NATS at most once.

The cost of an event is the product, so the sink has a publisher connection of its own: whatever stands in the journal
is written as one `transport.write`, the replies come to one inbox and are counted by the run.

| | JetStream (`stream` is set) | core NATS |
|---|---|---|
| acknowledged when | the stream's own acknowledgement came | a PONG came for the PING behind the event |
| promise | at least once; `Nats-Msg-Id` drops what was sent twice | at most once: the server has it, perhaps no consumer |

One life of a connection, by `run`:

1. Connect to the next server of the list.
2. JetStream: ask for the stream until it is there and takes the subjects.
3. Flow: rewind the reader to the first event that is not acknowledged, and publish whatever `wake` finds, as far as the
   window and the transport have room. Acknowledgements make room, move the cursor and publish on.
4. Refused (the stream is full, gone, too busy, or another one took the event): stop, pause, back to 2. The first event
   goes alone until it is acknowledged. Order per shard holds except across such a refusal: what was sent behind the
   refused event may be stored before it.
5. Lost, or nothing acknowledged for `acks_within` seconds although something is under way: pause, back to 1.

`available` is false from the moment a connection is lost or an event is refused until events are acknowledged again (or
nothing is pending), and while nothing was acknowledged for `stalled_after` seconds. Faults of a server never leave `run`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Final

from shardwright_api import resources
from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.journal import Reader
from shardwright_shard.sinks import nats_stream
from shardwright_shard.sinks.backoff import backoff
from shardwright_shard.sinks.filter import names, predicate
from shardwright_shard.sinks.nats_connection import Connection, Server, open_connection, servers
from shardwright_shard.sinks.nats_encoder import SMALLEST_LIMIT, Encoder
from shardwright_shard.sinks.nats_flow import Flow
from shardwright_shard.sinks.nats_subject import SubjectTemplate
from shardwright_shard.sinks.nats_wire import Failure, Message, Operation, publish
from shardwright_shard.sinks.window import Window

_DESCRIPTION: Final = "stream"
AT_MOST_ONCE: Final = "at most once: core NATS does not acknowledge"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds and times of a NATS sink; seconds and bytes."""

    events: int = 4096
    size: int = 8 * 1024 * 1024
    connect_within: float = 5.0
    acks_within: float = 10.0
    stalled_after: float = 2.0
    ping_every: float = 20.0
    look_every: float = 1.0
    first_pause: float = 0.1
    longest_pause: float = 5.0


class NatsSink:
    """One NATS sink; see the module for its life."""

    def __init__(
        self,
        spec: resources.NatsSink,
        *,
        name: str,
        bot: str,
        events: resources.EventFilter,
        random: Random,
        limits: Limits = Limits(),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Read the configuration. Raise `ConfigError` where it does not fit."""
        self.name = name
        self.available = False
        self.message = "not connected yet"
        self._stream = nats_stream.valid_name(spec.stream)
        self._servers = servers(spec.url)
        random.shuffle(self._servers)
        self._random = random
        self._limits = limits
        self._tls = tls
        self._inbox = f"_INBOX.{random.getrandbits(64):016x}"
        template = SubjectTemplate(spec.subject, bot=bot)
        self._subjects = template.patterns(names(events))
        self._encoder = Encoder(
            template=template,
            takes=predicate(events) if events.include or events.exclude else None,
            inbox=self._inbox if spec.stream else None,
        )
        self._flow: Flow | None = None
        self._pauses = self._backoff()
        self._trouble = asyncio.Event()
        self._described: asyncio.Future[Message | str] | None = None
        self._warning = ""
        self._connects = 0
        self._watch = Watch(limits, now=0.0)

    # The plug-in point

    def attach(self, reader: Reader) -> None:
        """Take the reader."""
        window = Window(events=self._limits.events, size=self._limits.size)
        self._flow = Flow(reader, encoder=self._encoder, window=window, inbox=self._inbox, stream=self._stream)

    def wake(self) -> None:
        """Publish what stands behind the read position, as far as window and transport have room."""
        self.flow.pump()

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled."""
        for server in cycle(self._servers):
            try:
                await self._live(server)
            except (SinkUnavailable, OSError, TimeoutError) as error:
                self._away(f"{server}: {str(error) or 'no answer in time'}")
            await asyncio.sleep(next(self._pauses))

    def statistics(self) -> dict[str, int]:
        """Give the counters of every sink."""
        flow = self.flow
        return {
            "published": flow.published,
            "acknowledged": flow.acknowledged,
            "filtered": self._encoder.filtered,
            "oversize": self._encoder.oversize,
            "refused": flow.refused,
            "reconnects": max(0, self._connects - 1),
            "pending": flow.pending,
        }

    @property
    def flow(self) -> Flow:
        """Give the flow of events: there from `attach` on."""
        assert self._flow is not None, "attach() was not called"
        return self._flow

    # What the connection tells

    def received(self, operations: list[Operation]) -> None:
        """Take the replies of one read."""
        flow = self.flow
        if self._described is not None:
            operations = [operation for operation in operations if not self._answers(operation)]
        before = flow.acknowledged
        flow.received(operations)
        if flow.refusal:
            self._away(flow.refusal)
            self._trouble.set()
        elif not self.available and flow.acknowledged != before:
            self._present()

    def resumed(self) -> None:
        """Go on publishing."""
        self.flow.pump()

    def lost(self, reason: str) -> None:
        """Know at once that the connection is gone; `run` does the rest."""
        self.flow.stop()
        self._away(reason)
        self._trouble.set()
        self._answer(reason)

    # The life of a connection

    async def _live(self, server: Server) -> None:
        """Live one connection to its end. Raise what ended it."""
        connection = await open_connection(
            server,
            self,
            inbox=self._inbox,
            ack_stream=self._stream,
            tls=self._tls,
            timeout=self._limits.connect_within,
        )
        self._connects += 1
        try:
            while True:
                await self._until_fit(connection)
                self._begin(connection)
                await self._until_refused(connection)
                await asyncio.sleep(next(self._pauses))
        finally:
            self.flow.stop()
            await connection.close()

    async def _until_fit(self, connection: Connection) -> None:
        """Wait until events can be published, asking again and again."""
        while (report := await self._report(connection)).problem:
            self._away(report.problem)
            await asyncio.sleep(next(self._pauses))
        self._warning = report.warning
        self._encoder.limit = min(connection.info.max_payload, report.largest or connection.info.max_payload)

    async def _report(self, connection: Connection) -> nats_stream.StreamReport:
        """Ask for the stream. Core NATS needs none."""
        if connection.lost_because is not None:
            raise SinkUnavailable(connection.lost_because)
        if connection.info.max_payload < SMALLEST_LIMIT:
            return nats_stream.StreamReport(problem=f"the server's max_payload is below {SMALLEST_LIMIT}")
        if self._stream is None:
            return nats_stream.StreamReport(warning=AT_MOST_ONCE)
        reply = await self._ask(connection, nats_stream.info_subject(self._stream))
        return nats_stream.judge(reply, stream=self._stream, subjects=self._subjects)

    async def _ask(self, connection: Connection, subject: str) -> Message:
        """Send a request and wait for its reply. Raise `SinkUnavailable` where it may not be asked."""
        self._described = asyncio.get_running_loop().create_future()
        connection.write(publish(subject, f"{self._inbox}.{_DESCRIPTION}", b""))
        try:
            async with asyncio.timeout(self._limits.connect_within):
                answer = await self._described
        finally:
            self._described = None
        if isinstance(answer, str):
            raise SinkUnavailable(answer)
        return answer

    def _answers(self, operation: Operation) -> bool:
        """Take what answers `_ask`: the reply, or the failure that comes instead."""
        match operation:
            case Message(subject) if subject.endswith(f".{_DESCRIPTION}".encode()):
                self._answer(operation)
                return True
            case Failure(text):
                self._answer(text)
                return True
            case _:
                return False

    def _answer(self, answer: Message | str) -> None:
        if self._described is not None and not self._described.done():
            self._described.set_result(answer)

    def _begin(self, connection: Connection) -> None:
        """Let events flow. With events pending, the first acknowledgement tells that it works."""
        self._trouble.clear()
        self._watch = Watch(self._limits, now=_now())
        self.flow.begin(connection)
        if not self.flow.pending:
            self._present()

    async def _until_refused(self, connection: Connection) -> None:
        """Look after the flow until an event is refused. Raise `SinkUnavailable` when the connection is of no use."""
        while not self.flow.refusal:
            if connection.lost_because is not None:
                raise SinkUnavailable(connection.lost_because)
            await _happens(self._trouble, self._limits.look_every)
            if self._watch.look(self.flow, now=_now()) > self._limits.stalled_after:
                self._away(f"nothing was acknowledged for more than {self._limits.stalled_after:g} s")
            if connection.info.ldm and not self.flow.window.under_way:
                raise SinkUnavailable("the server is about to stop (lame duck mode)")

    def _present(self) -> None:
        """Say that events are taken."""
        self.available = True
        self.message = self._warning
        self._pauses = self._backoff()

    def _away(self, why: str) -> None:
        """Say that events are not taken, and why."""
        self.available = False
        self.message = why

    def _backoff(self) -> Iterator[float]:
        return backoff(self._random, first=self._limits.first_pause, limit=self._limits.longest_pause)


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
