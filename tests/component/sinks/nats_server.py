"""A real nats-server as a process, and a false one that breaks the rules."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager, suppress

import nats
from nats.js.api import StreamConfig

from component.sinks.server import Server


class NatsServer(Server):
    """A nats-server with JetStream on a port of its own; its store outlives its process."""

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    def prepare(self, **settings):
        jetstream = {"store_dir": str(self._folder / "store")}
        config = {"listen": f"127.0.0.1:{self.port}", "jetstream": jetstream, **settings}
        path = self._folder / "nats.conf"
        path.write_text(json.dumps(config))
        return [self._program, "-c", path], None

    @asynccontextmanager
    async def client(self, **options):
        """Give a nats-py client: another program's view of what was published."""
        client = await nats.connect(self.url, allow_reconnect=False, **options)
        try:
            yield client
        finally:
            await client.close()

    async def add_stream(self, name="D", **config):
        config = {"subjects": ["discord.>"], "duplicate_window": 600, **config}
        async with self.client() as client:
            await client.jetstream().add_stream(StreamConfig(name=name, **config))

    async def change_stream(self, name="D", **config):
        async with self.client() as client:
            stream = (await client.jetstream().stream_info(name)).config
            await client.jetstream().update_stream(stream.evolve(**config))

    async def delete_stream(self, name="D"):
        async with self.client() as client:
            await client.jetstream().delete_stream(name)

    async def stored(self, name="D"):
        """Give all messages of a stream, in order."""
        async with self.client(pending_size=2**26) as client:
            stream = client.jetstream()
            count = (await stream.stream_info(name)).state.messages
            reader = await stream.subscribe(">", stream=name, ordered_consumer=True, pending_bytes_limit=2**30)
            messages = [await reader.next_msg(timeout=20) for _ in range(count)]
            await reader.unsubscribe()
            return messages

    def answers(self):
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as door:
            return door.recv(4) == b"INFO"
        return False


class FalseServer:
    """A server that does the opening, describes a stream, and then what a test wants."""

    def __init__(self, **info):
        self.info = {"headers": True, "max_payload": 2**20, "jetstream": True, **info}
        self.written = b""
        self.connections = 0
        self.greeting = None
        self.mute = False
        self.url = ""
        self.writer = None

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        if self.writer is not None:
            self.writer.close()

    def say(self, data):
        self.writer.write(data)

    async def _serve(self, reader, writer):
        self.connections += 1
        self.writer = writer
        if self.greeting is not None:
            writer.write(self.greeting)
        else:
            writer.write(b"INFO %b\r\n" % json.dumps(self.info).encode())
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                self.written += data
                if self.mute:
                    continue
                writer.write(b"PONG\r\n" * data.count(b"PING\r\n"))
                self._describe(data, writer)
        writer.close()

    def _describe(self, data, writer):
        """Answer the request for the stream's description."""
        if b"PUB $JS.API.STREAM.INFO.D " not in data:
            return
        reply = data.partition(b"$JS.API.STREAM.INFO.D ")[2].split()[0]
        body = json.dumps({"config": {"subjects": ["discord.>"], "duplicate_window": 600 * 10**9}}).encode()
        writer.write(b"MSG %b 1 %d\r\n%b\r\n" % (reply, len(body), body))
