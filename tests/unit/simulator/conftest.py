"""A gateway without sockets and with a clock that only moves when told to."""

import json
from random import Random

import pytest

from shardwright_api.discord import Opcode
from shardwright_simulator import BotConfig, Options
from shardwright_simulator.connection import Handshake
from shardwright_simulator.control import Control
from shardwright_simulator.gateway import Gateway
from shardwright_simulator.outputs import Close

USER_AGENT = "DiscordBot (https://example.invalid, 1.0)"
URL = "/?v=10&encoding=json"


class World:
    """A gateway, its time and its clients."""

    def __init__(self, *, bots=(), **options):
        self.now = 1_000.0
        bots = list(bots) or [BotConfig(guilds=8, shards=4, max_concurrency=1)]
        self.gateway = Gateway(Options(**options), bots, clock=lambda: self.now, random=Random(1))
        self.control = Control(self.gateway, self.flush)
        self.clients = {}

    @property
    def bot(self):
        return next(iter(self.gateway.bots.values()))

    def flush(self):
        for connection, outputs in self.gateway.drain():
            self.clients[connection.id].outputs += outputs

    def advance(self, seconds):
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while (due := self.gateway.timers.next_due) is not None and due <= end:
            self.now = max(self.now, due)
            self.gateway.timers.run(self.now)
        self.now = end
        self.flush()

    def connect(self, url=URL, user_agent=USER_AGENT):
        connection = self.gateway.connect(Handshake(url, "localhost:1", user_agent))
        client = self.clients[connection.id] = Client(self, connection)
        self.flush()
        return client

    def ready(self, shard=0, total=4, intents=513, **more):
        """Connect and identify a shard, after waiting for its bucket."""
        self.advance(self.gateway.options.identify_window)
        client = self.connect()
        client.identify(shard, total, intents, **more)
        assert client.session, client.outputs
        self.advance(0.2)
        return client

    def rules(self):
        return [violation.rule for violation in self.control.violations()]

    def notes(self):
        return [v.rule for v in self.control.violations(severity=None) if v.severity == "note"]


class Client:
    """One connection's other end."""

    def __init__(self, world, connection):
        self.world = world
        self.connection = connection
        self.outputs = []

    def send(self, op, d=None):
        self.send_raw(json.dumps({"op": op, "d": d}))

    def send_raw(self, data):
        self.world.gateway.receive(self.connection, data)
        self.world.flush()

    def identify(self, number=0, total=4, intents=513, **more):
        d = {
            "token": self.world.bot.config.token,
            "properties": {"os": "linux"},
            "intents": intents,
            "shard": [number, total],
        }
        self.send(Opcode.IDENTIFY, d | more)

    def resume(self, session, seq, token=None):
        d = {"token": token or self.world.bot.config.token, "session_id": session, "seq": seq}
        self.send(Opcode.RESUME, d)

    def beat(self, d=None):
        self.send(Opcode.HEARTBEAT, d)

    def lose(self, code=None):
        self.world.gateway.lost(self.connection, code)
        self.world.flush()

    @property
    def messages(self):
        """All messages that can be read."""
        return [json.loads(output) for output in self.outputs if isinstance(output, bytes) and output.endswith(b"}")]

    @property
    def ops(self):
        return [message["op"] for message in self.messages]

    @property
    def events(self):
        return [message["t"] for message in self.messages if message["op"] == 0]

    @property
    def seqs(self):
        return [message["s"] for message in self.messages if message["op"] == 0]

    @property
    def closed(self):
        """The code this connection was closed with; None while it is open."""
        return next((output.code for output in self.outputs if isinstance(output, Close)), None)

    @property
    def session(self):
        ready = [message for message in self.messages if message["t"] == "READY"]
        return ready[-1]["d"]["session_id"] if ready else ""


@pytest.fixture
def world():
    return World()


@pytest.fixture
def make_world():
    return World
