"""The flow of events over an open connection to NATS: what the replies mean. No I/O, no clock. See `flow.py`.

JetStream: each event asks for a reply at `<inbox>.<number>`. A reply that is no acknowledgement by our stream is a
refusal; replies to what was sent before it still count.

Core NATS: at most one PING of ours is under way; its PONG acknowledges what was written before it, and is followed by
the next PING when more was written since. A failure such as a missing permission comes before that PONG.
"""

from __future__ import annotations

from collections import deque

from shardwright_shard.sinks import flow
from shardwright_shard.sinks.flow import Outlet
from shardwright_shard.sinks.intake import Intake
from shardwright_shard.sinks.nats_wire import PING, Acks, Failure, Message, Operation, Pong, refusal
from shardwright_shard.sinks.window import Window


class Flow(flow.Flow):
    """Replies to acknowledgements. `stream` None: core NATS."""

    def __init__(self, reader: Intake, *, outlet: Outlet, window: Window, inbox: str, stream: str | None) -> None:
        super().__init__(reader, outlet=outlet, window=window)
        self._inbox = f"{inbox}.".encode()
        self._stream = stream
        self._pings: deque[int] = deque()

    @property
    def awaited_pongs(self) -> int:
        """Count the PINGs that the server has not answered."""
        return len(self._pings)

    def stop(self) -> None:
        """Send nothing more over this connection."""
        super().stop()
        self._pings.clear()

    def ping(self) -> None:
        """Ask the server for a sign of life."""
        self.write(self._ping())

    def tail(self) -> bytes:
        """Ask core NATS whether it has the events before."""
        return self._ping() if self._stream is None and not self._pings and self.window.under_way else b""

    def received(self, operations: list[Operation]) -> None:
        """Take the replies of one read."""
        for operation in operations:
            if type(operation) is Acks:
                self.settle(self.window.acknowledge(operation.numbers))
            else:
                self._take(operation)
        self.pump_behind()

    def _ping(self) -> bytes:
        self._pings.append(self.window.high)
        return PING

    def _take(self, operation: Operation) -> None:
        """Take a reply that is no run of acknowledgements."""
        match operation:
            case Message():
                self._judge(operation)
            case Pong():
                self.settle(self._answered())
            case Failure(text):
                self.refuse(text)
            case _:
                pass

    def _answered(self) -> int:
        """Take a PONG. Core NATS: it acknowledges what was written before its PING."""
        before = self._pings.popleft() if self._pings else 0
        if self._stream is not None or self.refusal:
            return 0
        moved = self.window.acknowledge_before(before)
        if self.window.under_way and not self._pings:
            self.ping()
        return moved

    def _judge(self, message: Message) -> None:
        """Take a reply that is not plainly an acknowledgement."""
        number = message.subject.removeprefix(self._inbox)[:18]
        if self._stream is None or not number.isdigit() or int(number) < self.window.low:
            return
        why = refusal(message, self._stream)
        if why is None:
            self.settle(self.window.acknowledge([int(number)]))
        else:
            self.refuse(why)
