"""The NATS sink: JetStream with acknowledgements, or core NATS at most once. Its life: `connected.py`.

The cost of an event is the product, so the sink has a publisher connection of its own: whatever stands in the journal
is written as one `transport.write`, the replies come to one inbox and are counted by the run.

| | JetStream (`stream` is set) | core NATS |
|---|---|---|
| acknowledged when | the stream's own acknowledgement came | a PONG came for the PING behind the event |
| promise | at least once; `Nats-Msg-Id` drops what was sent twice | at most once: the server has it, perhaps no consumer |

JetStream is asked for the stream until it is there and takes the subjects. An event is refused when the stream is full,
gone, too busy, or another one took the event: what was sent behind the refused event may be stored before it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from itertools import cycle
from typing import Final, cast

from shardwright_api import resources
from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.sinks import nats_stream
from shardwright_shard.sinks.connected import ConnectedSink, Limits, Line, Surroundings
from shardwright_shard.sinks.filter import names
from shardwright_shard.sinks.intake import Intake
from shardwright_shard.sinks.nats_connection import Connection, Server, open_connection, servers
from shardwright_shard.sinks.nats_encoder import SMALLEST_LIMIT, Encoder
from shardwright_shard.sinks.nats_flow import Flow
from shardwright_shard.sinks.nats_subject import SubjectTemplate
from shardwright_shard.sinks.nats_wire import Failure, Message, Operation, publish
from shardwright_shard.sinks.window import Window

__all__ = ["AT_MOST_ONCE", "Limits", "NatsSink"]

_DESCRIPTION: Final = "stream"
AT_MOST_ONCE: Final = "at most once: core NATS does not acknowledge"


class NatsSink(ConnectedSink):
    """One NATS sink."""

    def __init__(self, spec: resources.NatsSink, around: Surroundings, *, tls: ssl.SSLContext | None = None) -> None:
        """Read the configuration. Raise `ConfigError` where it does not fit."""
        super().__init__(around)
        self._stream = nats_stream.valid_name(spec.stream)
        self._servers = _endless(servers(spec.url), around)
        self._tls = tls
        self._inbox = f"_INBOX.{around.random.getrandbits(64):016x}"
        template = SubjectTemplate(spec.subject, bot=around.bot)
        self._subjects = template.patterns(names(around.spec.events))
        inbox = self._inbox if spec.stream else None
        self._encoder = Encoder(template=template, selection=self.selection, inbox=inbox)
        self._described: asyncio.Future[Message | str] | None = None

    # What the life asks

    def make_flow(self, reader: Intake, window: Window) -> Flow:
        """Make the flow."""
        return Flow(reader, outlet=self._encoder, window=window, inbox=self._inbox, stream=self._stream)

    async def connect(self) -> Connection:
        """Open a connection to the next server."""
        server = next(self._servers)
        self.where = str(server)
        self.secrets.check()
        return await open_connection(
            server,
            self,
            inbox=self._inbox,
            ack_stream=self._stream,
            secrets=self.secrets,
            tls=self._tls,
            timeout=self.limits.connect_within,
        )

    async def fit(self, line: Line) -> tuple[str, str]:
        """Ask for the stream, and for what is the largest event."""
        connection = cast("Connection", line)
        report = await self._report(connection)
        self._encoder.limit = min(connection.info.max_payload, report.largest or connection.info.max_payload)
        return report.problem, report.warning

    def retiring(self, line: Line) -> str:
        """Leave a server that is about to stop."""
        return "the server is about to stop (lame duck mode)" if cast("Connection", line).info.ldm else ""

    # What the connection tells

    def received(self, operations: list[Operation]) -> None:
        """Take the replies of one read."""
        flow = cast("Flow", self.flow)
        if self._described is not None:
            operations = [operation for operation in operations if not self._answers(operation)]
        before = flow.acknowledged
        flow.received(operations)
        self.judge(before)

    def lost(self, reason: str) -> None:
        """Know at once that the connection is gone."""
        super().lost(reason)
        self._answer(reason)

    # Asking

    async def _report(self, connection: Connection) -> nats_stream.StreamReport:
        """Ask for the stream. Core NATS needs none."""
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
            async with asyncio.timeout(self.limits.connect_within):
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


def _endless(found: list[Server], around: Surroundings) -> Iterator[Server]:
    """Give the servers in turn, each pod in an order of its own."""
    around.random.shuffle(found)
    return cycle(found)
