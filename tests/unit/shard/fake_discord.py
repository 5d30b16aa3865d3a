"""Discord as a shard's edge sees it: `connect` and `Connection`, with whole gateway messages and no sockets.

It greets, answers IDENTIFY with READY, RESUME with the missed events and RESUMED, and heartbeats with ACKs, unless a
test tells it otherwise. Every event of a session is remembered, so that a RESUME replays what came after its sequence.
"""

import asyncio
import json
from types import SimpleNamespace
from typing import NamedTuple

from unit.shard.messages import ACK, dispatch, hello, ready, resumed


class Seen(NamedTuple):
    at: float
    shard: int
    token: str
    data: dict
    uri: str


class FakeConnection:
    """One connection. Tests use `push`, `drop`, `is_open`, `reading`, `closed_with`."""

    def __init__(self, discord, uri, compression, handler):
        self.discord, self.uri, self.compression, self.handler = discord, uri, compression, handler
        self.loop = asyncio.get_running_loop()
        self.shard = handler.id
        self.inflater = SimpleNamespace(compressed=0, inflated=0)
        self.ended = self.loop.create_future()
        self.closed_with = None
        self.reading = True
        self.session = None
        self._unread = []

    # --- what a shard calls ------------------------------------------------------------------------------------

    def send(self, text):
        if self.is_open:
            self.discord.take(self, json.loads(text))

    def close(self, code):
        if self.handler is not None:
            self.closed_with = code
        self.abandon()

    def abandon(self):
        self.handler = None
        self.loop.call_soon(self._end)

    abort = abandon

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True
        unread, self._unread = self._unread, []
        self.push(*unread)

    # --- what a test and the fake do ----------------------------------------------------------------------------

    @property
    def is_open(self):
        return self.handler is not None

    def greet(self):
        if self.is_open:
            self.handler.opened()
        if self.discord.greets:
            self.push(self.discord.hello)

    def push(self, *messages):
        """Send messages in one read."""
        if not self.reading:
            self._unread += messages
        elif self.is_open and messages:
            self.handler.messages(list(messages))

    def drop(self, code=None, reason=""):
        """End it as the server, with a close code or without."""
        handler, self.handler = self.handler, None
        if handler is not None:
            self._end()
            handler.lost(code, reason)

    def _end(self):
        if not self.ended.done():
            self.ended.set_result(None)


class FakeDiscord:
    """`refusals`: what the next connects raise. `greets`, `answers`: whether HELLO, READY and RESUMED are sent.

    `shares`: whether an old connection stays and gets everything too when its session is resumed on another one; else
    it is cut. What Discord does is not documented.
    """

    def __init__(self):
        self.refusals = []
        self.greets = self.answers = True
        self.shares = False
        self.hello = hello(40_000)
        self.gate = None
        self.connections = []
        self.identifies = []
        self.resumes = []
        self.beats = []
        self.sessions = {}
        self.guilds = ()

    async def connect(self, uri, compression, handler, *, tls):
        if self.refusals:
            raise self.refusals.pop(0)
        connection = FakeConnection(self, uri, compression, handler)
        self.connections.append(connection)
        if self.gate is not None:
            await self.gate.wait()
        handler.made(connection)
        connection.loop.call_soon(connection.greet)
        return connection

    # --- what tests ask and do ----------------------------------------------------------------------------------

    def open(self, shard):
        """Give the shard's open connection, None if there is none."""
        found = [each for each in self.connections if each.shard == shard and each.is_open]
        return found[-1] if found else None

    def emit(self, shard, name="MESSAGE_CREATE", count=1, data=None):
        """Make events of a shard's newest session; send them in one read if it is connected."""
        session = next(name for name, each in reversed(self.sessions.items()) if each.shard == shard)
        made = [self._remember(session, lambda seq: dispatch(name, seq, data)) for _ in range(count)]
        for connection in self._receivers(session):
            connection.push(*made)
        return made

    # --- the dialogue -------------------------------------------------------------------------------------------

    def take(self, connection, message):
        op, data = message["op"], message["d"]
        if op == 1:
            self.beats.append((connection.shard, data))
            connection.push(ACK)
        elif op == 2:
            self.identifies.append(Seen(connection.loop.time(), data["shard"][0], data["token"], data, connection.uri))
            self._soon(connection, lambda: self._identified(connection))
        elif op == 6:
            self.resumes.append(Seen(connection.loop.time(), connection.shard, data["token"], data, connection.uri))
            self._soon(connection, lambda: self._resumed(connection, data))

    def _soon(self, connection, answer):
        if self.answers:
            connection.loop.call_soon(answer)

    def _identified(self, connection):
        session = connection.session = f"session-{len(self.sessions)}"
        self.sessions[session] = SimpleNamespace(shard=connection.shard, events=[], seq=0)
        text = self._remember(session, lambda seq: ready(seq, session=session, guilds=self.guilds))
        connection.push(text)

    def _resumed(self, connection, data):
        session = self.sessions.setdefault(
            data["session_id"], SimpleNamespace(shard=connection.shard, events=[], seq=data["seq"])
        )
        for other in self._receivers(data["session_id"]):
            if not self.shares:
                other.drop(None)
        connection.session = data["session_id"]
        missed = [text for seq, text in session.events if seq > data["seq"]]
        session.seq += 1
        connection.push(*missed, resumed(session.seq))

    def _receivers(self, session):
        return [each for each in self.connections if each.is_open and each.session == session]

    def _remember(self, name, make):
        session = self.sessions[name]
        session.seq += 1
        text = make(session.seq)
        session.events.append((session.seq, text))
        return text
