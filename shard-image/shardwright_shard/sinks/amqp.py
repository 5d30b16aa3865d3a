"""The AMQP sink: an exchange of RabbitMQ, by publisher confirms. Its life: `connected.py`.

An event counts as acknowledged when the broker confirmed it: for a persistent one in a durable queue that means on disk,
in a quorum queue on most nodes. With `mandatory`, an event that no queue takes comes back first, and is refused: it stays
with the sink, loudly, until a queue is bound or the sink's filter leaves it out.

Events sent over a connection that was lost before their confirms came are sent again, and may be stored twice: RabbitMQ
drops no duplicates, consumers have `message_id`. What was confirmed behind a refused event is not sent again.

The sink writes the frames itself, in one write for all that stands in the journal: a client library that awaits each
confirm, as aio-pika does, costs many times as much per event (`bench/sinks.py`). The opening and all that is not an
event is `pamqp`'s.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from shardwright_api import resources
from shardwright_shard.sinks.address import Form, in_turn
from shardwright_shard.sinks.amqp_connection import HEARTBEAT, HEARTBEAT_FRAME, Connection
from shardwright_shard.sinks.amqp_encoder import Encoder
from shardwright_shard.sinks.connected import ConnectedSink, Line, Surroundings
from shardwright_shard.sinks.flow import Flow, Outlet
from shardwright_shard.sinks.intake import Intake
from shardwright_shard.sinks.window import Window
from shardwright_shard.sinks.wire import open_wire

FORM: Final = Form(plain="amqp", plain_port=5672, secure="amqps", secure_port=5671)


class AmqpFlow(Flow):
    """Confirms to acknowledgements: the first event that is sent over a channel has tag 1, and so on."""

    def __init__(self, reader: Intake, *, outlet: Outlet, window: Window) -> None:
        super().__init__(reader, outlet=outlet, window=window, resends=False)
        self._base = 0
        self._told = 0
        """The number before which every event was confirmed or rejected."""
        self._ahead: set[int] = set()
        self._bad: set[int] = set()

    @property
    def awaits(self) -> bool:
        """Whether confirms are due."""
        return self._told < self.window.high

    def stop(self) -> None:
        """Send nothing more over this connection; the next has a new channel."""
        super().stop()
        self._base = self._told = self.window.high
        self._ahead.clear()
        self._bad.clear()

    def ping(self) -> None:
        """Give the broker a sign of life."""
        self.write(HEARTBEAT_FRAME)

    def confirmed(self, tag: int, *, multiple: bool) -> None:
        """Take a confirm."""
        numbers = self._numbers(tag, multiple=multiple)
        if self._bad:
            numbers = [number for number in numbers if number not in self._bad]
        if numbers:
            self.settle(self.window.acknowledge(numbers))

    def rejected(self, tag: int, *, multiple: bool) -> None:
        """Take the opposite of a confirm."""
        self._numbers(tag, multiple=multiple)
        self.refuse("the broker rejected an event: is a queue full?")

    def returned(self, number: int, why: str) -> None:
        """Take an event that came back; its confirm means nothing."""
        self._bad.add(number)
        self.refuse(why)

    def _numbers(self, tag: int, *, multiple: bool) -> list[int]:
        """Give the numbers that a confirm is about, and note that they were told of."""
        last = self._base + tag - 1
        numbers = list(range(self._told, last + 1)) if multiple else [last]
        self._ahead.update(number for number in numbers if number >= self._told)
        while self._told in self._ahead:
            self._ahead.discard(self._told)
            self._told += 1
        return numbers


class AmqpSink(ConnectedSink):
    """One AMQP sink."""

    def __init__(self, spec: resources.AmqpSink, around: Surroundings) -> None:
        """Read the configuration. Raise `ConfigError` where it does not fit."""
        super().__init__(around)
        self._addresses = in_turn(FORM.addresses(spec.url), around.random)
        self._exchange = spec.exchange
        self._encoder = Encoder(spec, bot=around.bot, selection=self.selection)

    def make_flow(self, reader: Intake, window: Window) -> Flow:
        """Make the flow."""
        return AmqpFlow(reader, outlet=self._encoder, window=window)

    async def connect(self) -> Connection:
        """Open a connection to the next server."""
        address = next(self._addresses)
        self.where = str(address)
        self.secrets.check()
        tls = self.secrets.context() if address.tls else None
        login, vhost = self.secrets.login(), address.path or "/"
        made = Connection(self, login=login, vhost=vhost, exchange=self._exchange)
        connection = await open_wire(made, address, tls=tls, within=self.limits.connect_within)
        self._encoder.frame = connection.frame_max
        return connection

    async def fit(self, line: Line) -> tuple[str, str]:
        """Look for the exchange; after a refusal, wait for the confirms of all that was sent."""
        async with asyncio.timeout(self.limits.connect_within):
            while self._amqp.awaits:
                await cast("Connection", line).arrival()
            return await cast("Connection", line).open_channel(), ""

    def retiring(self, line: Line) -> str:
        """Leave a broker that is silent: it should send a heartbeat every 15 seconds."""
        silence = asyncio.get_running_loop().time() - cast("Connection", line).heard
        return "the broker is silent" if silence > 2 * HEARTBEAT else ""

    def told_to_wait(self, line: Line) -> bool:
        """Tell whether the broker is blocked."""
        return cast("Connection", line).is_blocked

    # What the connection tells

    def confirmed(self, tag: int, *, multiple: bool) -> None:
        """Take a confirm."""
        before = self._amqp.acknowledged
        self._amqp.confirmed(tag, multiple=multiple)
        self._amqp.pump_behind()
        self.judge(before)

    def rejected(self, tag: int, *, multiple: bool) -> None:
        """Take the opposite of a confirm."""
        self._amqp.rejected(tag, multiple=multiple)
        self.judge(self._amqp.acknowledged)

    def returned(self, number: int, why: str) -> None:
        """Take an event that came back."""
        self._amqp.returned(number, why)
        self.judge(self._amqp.acknowledged)

    def blocked(self, why: str) -> None:
        """Say that the broker takes nothing; what it has not confirmed waits for it."""
        self.away(why)

    def resumed(self) -> None:
        """Go on sending, and say so: the broker may have been blocked."""
        super().resumed()
        if not self.available and not self.flow.window.under_way:
            self.present()

    @property
    def _amqp(self) -> AmqpFlow:
        return cast("AmqpFlow", self.flow)
