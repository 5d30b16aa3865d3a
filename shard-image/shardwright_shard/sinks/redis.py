"""The Redis sink: streams of Redis or Valkey, one entry per event. Its life: `connected.py`.

The sink writes the protocol itself: whatever stands in the journal is one write of pipelined `XADD`s, and the replies,
which come in the order of the commands, are counted by the run. An entry counts as acknowledged when Redis replied; what
that is worth is the server's choice (`appendfsync always`, replicas).

Entries sent over a connection that was lost before their replies came are sent again, and stored twice where the server
had taken them: Redis 8.6 drops those by their ids, older ones and Valkey do not. What was stored behind a refused entry
(out of memory, wrong type of key) is known by its reply and not sent again.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final, cast

from shardwright_api import resources
from shardwright_shard.errors import ConfigError, SinkUnavailable
from shardwright_shard.sinks.address import Address, Form, in_turn
from shardwright_shard.sinks.connected import ConnectedSink, Line, Surroundings
from shardwright_shard.sinks.flow import Flow, Outlet
from shardwright_shard.sinks.intake import Intake
from shardwright_shard.sinks.redis_encoder import LARGEST, Encoder
from shardwright_shard.sinks.redis_wire import PING, Answer, Failed, Parser, Reply, Stored, command
from shardwright_shard.sinks.template import Template
from shardwright_shard.sinks.window import Window
from shardwright_shard.sinks.wire import Wire, open_wire

FORM: Final = Form(plain="redis", plain_port=6379, secure="rediss", secure_port=6379)
IDEMPOTENT_SINCE: Final = (8, 6)
_LEAVE: Final = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "CLUSTERDOWN")
"""Refusals after which another server, or a new login, may do better."""


class RedisFlow(Flow):
    """Replies to acknowledgements: they come in order, so the next one belongs to `_next`."""

    def __init__(self, reader: Intake, *, outlet: Outlet, window: Window) -> None:
        super().__init__(reader, outlet=outlet, window=window, resends=False)
        self._next = window.high
        self._pings = 0

    @property
    def awaited_pongs(self) -> int:
        """Count the PINGs that the server has not answered."""
        return self._pings

    def stop(self) -> None:
        """Send nothing more over this connection."""
        super().stop()
        self._next = self.window.high
        self._pings = 0

    def ping(self) -> None:
        """Ask the server for a sign of life."""
        self._pings += 1
        self.write(PING)

    def take(self, reply: Reply) -> bool:
        """Take a reply; tell whether it was one of an event or a PING."""
        match reply:
            case Stored(count):
                self._stored(count)
            case Failed(text) if self._next < self.window.high:
                self._next += 1
                self.refuse(text)
            case Answer(("PONG",)):
                self._pings -= 1
            case _:
                return False
        return True

    def _stored(self, count: int) -> None:
        first, self._next = self._next, self._next + count
        if first == self.window.low:
            self.settle(self.window.acknowledge_before(self._next))
        else:
            self.settle(self.window.acknowledge(list(range(first, self._next))))


class Connection(Wire):
    """A connection to Redis."""

    def __init__(self, sink: RedisSink, address: Address) -> None:
        super().__init__(sink)
        self._sink = sink
        self._address = address
        self._parser = Parser()
        self._answers: list[Answer | Failed] = []
        self.version: tuple[int, ...] = ()
        self.used = False
        """Whether events were sent: a refusal may be of the connection before."""

    def feed(self, data: bytes) -> None:
        """Read replies, and hand on what belongs to events."""
        replies = self._parser.feed(data)
        self._answers.extend(reply for reply in self._sink.received(replies) if not isinstance(reply, Stored))

    async def greet(self) -> None:
        """Log in, choose the database, and ask for the version."""
        for arguments in self._login():
            answer = await self.ask(*arguments)
            if isinstance(answer, Failed):
                raise SinkUnavailable(answer.text)
        info = await self.ask("INFO", "server")
        if isinstance(info, Failed) and info.text.startswith("NOAUTH"):
            raise SinkUnavailable(info.text)
        self.version = _version(info)

    async def ask(self, *arguments: str) -> Answer | Failed:
        """Send a command that is no event's, and wait for its reply: it comes behind those of all events."""
        self.write(command(*arguments))
        while not self._answers:
            await self.arrival()
        return self._answers.pop(0)

    def _login(self) -> list[tuple[str, ...]]:
        secrets = self._sink.secrets
        username, password = secrets.key("username"), secrets.key("password")
        commands: list[tuple[str, ...]] = []
        if password is not None:
            commands.append(("AUTH", username, password) if username else ("AUTH", password))
        if self._address.path:
            commands.append(("SELECT", self._address.path))
        return commands


class RedisSink(ConnectedSink):
    """One Redis sink."""

    def __init__(self, spec: resources.RedisSink, around: Surroundings) -> None:
        """Read the configuration. Raise `ConfigError` where it does not fit."""
        super().__init__(around)
        found = FORM.addresses(spec.url)
        if any(address.path and not address.path.isdigit() for address in found):
            raise ConfigError("url: behind the slash stands the number of a database, or nothing")
        self._addresses = in_turn(found, around.random)
        template = Template(spec.stream, bot=around.bot, what="stream")
        self._encoder = Encoder(template=template, selection=self.selection, max_length=spec.max_length)

    def make_flow(self, reader: Intake, window: Window) -> Flow:
        """Make the flow."""
        return RedisFlow(reader, outlet=self._encoder, window=window)

    async def connect(self) -> Connection:
        """Open a connection to the next server."""
        address = next(self._addresses)
        self.where = str(address)
        self.secrets.check()
        tls = self.secrets.context() if address.tls else None
        connection = await open_wire(Connection(self, address), address, tls=tls, within=self.limits.connect_within)
        self._encoder.idempotent = connection.version >= IDEMPOTENT_SINCE
        return connection

    async def fit(self, line: Line) -> tuple[str, str]:
        """Ask for the largest argument; after a refusal this waits for the replies of all that was sent."""
        connection = cast("Connection", line)
        if connection.used and self.flow.refusal.startswith(_LEAVE):
            raise SinkUnavailable(self.flow.refusal)
        connection.used = True
        async with asyncio.timeout(self.limits.connect_within):
            answer = await connection.ask("CONFIG", "GET", "proto-max-bulk-len")
        self._encoder.limit = _number(answer)
        return "", ""

    def received(self, replies: list[Reply]) -> list[Reply]:
        """Take the replies of one read; give back those that belong to no event."""
        flow = cast("RedisFlow", self.flow)
        before = flow.acknowledged
        left = [reply for reply in replies if not flow.take(reply)]
        flow.pump_behind()
        self.judge(before)
        return left


def _version(info: Answer | Failed) -> tuple[int, ...]:
    """Read Redis' version; none for Valkey, which counts on its own."""
    text = info.texts[0] if isinstance(info, Answer) else ""
    found = re.search(r"^redis_version:(\d+)\.(\d+)", text, re.MULTILINE)
    return () if found is None or "valkey" in text else (int(found[1]), int(found[2]))


def _number(answer: Answer | Failed) -> int:
    """Read the value of a setting; where it may not be asked for, Redis' default."""
    texts = answer.texts if isinstance(answer, Answer) else ()
    return int(texts[1]) if len(texts) > 1 and texts[1].isdigit() else LARGEST
