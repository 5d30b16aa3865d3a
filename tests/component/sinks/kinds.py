"""Every kind of sink with its real server, as the conformance suite needs it.

A *kind* starts its server, makes what the sink writes to, gives the sink's specification, and reads what was stored, by
the clients that consumers would use. `found` turns it into what all have in common.
"""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random

import msgspec

from component.sinks.http_server import HttpServer
from component.sinks.kafka_server import KafkaServer
from component.sinks.nats_server import NatsServer
from component.sinks.rabbitmq_server import RabbitServer
from component.sinks.redis_server import RedisServer
from component.sinks.stage import BOT, QUICK
from shardwright_api import resources
from shardwright_shard.sinks.factory import make_sink

SECRET = "hunter2-not-in-any-message"


@dataclass(frozen=True)
class Found:
    """A stored event: its attributes by plain names, and the payload."""

    attributes: dict[str, str]
    data: bytes

    @property
    def id(self):
        return self.attributes["id"]


class Kind:
    """What the suite needs of a kind. `twice`: whether an event may be stored twice after a lost connection."""

    name = ""
    needs_program = True
    twice = False
    throttled_words = ""
    missing_words = ""
    login_words = ""
    user = "shard"
    limits = QUICK

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder
        self.server = None
        self.made = 0
        self.tls = False

    def make_server(self):
        folder = self.folder / f"{self.name}-{self.made}"
        folder.mkdir()
        self.made += 1
        return self.server_kind(self.program, folder)

    def sink(self, *, secrets=None, limits=None, **fields):
        """Make a sink for what `prepare` made."""
        reference = resources.SecretRef("any") if secrets else None
        chosen = {"credentials_secret_ref": reference, **self.fields(), **fields}
        spec = resources.Sink(name="events", **chosen)
        return make_sink(spec, bot=BOT, random=Random(), secrets=secrets, limits=limits or self.limits)

    @property
    def url(self):
        """Give the server's URL, of the scheme that stands for TLS where it speaks that."""
        plain, _, rest = self.server.url.partition("://")
        return f"{self.secure if self.tls else plain}://{rest}"

    def close(self):
        if self.server is not None:
            self.server.kill()


class Nats(Kind):
    name = "nats"
    secure = "tls"
    server_kind = NatsServer
    throttled_words = "maximum messages exceeded"
    missing_words = "stream D does not exist"
    login_words = "Authorization Violation"

    async def start(self, **settings):
        self.server = self.server or self.make_server()
        await self.server.start(**settings)

    async def prepare(self):
        await self.server.add_stream()

    def fields(self):
        return {"nats": resources.NatsSink(url=self.url, stream="D")}

    async def stored(self):
        if self.tls:
            self.server.kill()
            await self.server.start()
        return [
            Found({key.removeprefix("ce-"): value for key, value in message.headers.items()}, message.data)
            for message in await self.server.stored()
        ]

    @asynccontextmanager
    async def throttled(self):
        await self.server.change_stream(max_msgs=100, discard="new")
        yield
        await self.server.change_stream(max_msgs=-1)

    async def start_with_login(self):
        await self.start()
        await self.prepare()
        self.server.kill()
        await self.start(authorization={"user": "shard", "password": SECRET})

    async def start_with_tls(self, folder):
        await self.start()
        await self.prepare()
        self.server.kill()
        self.tls = True
        files = {"ca_file": folder / "ca.crt", "cert_file": folder / "tls.crt", "key_file": folder / "tls.key"}
        await self.start(tls={**{name: str(path) for name, path in files.items()}, "verify": True})


class Redis(Kind):
    name = "redis"
    secure = "rediss"
    twice = True
    server_kind = RedisServer
    user = "default"
    throttled_words = "OOM command not allowed"
    login_words = "WRONGPASS"

    async def start(self, **settings):
        self.server = self.server or self.make_server()
        await self.server.start(**settings)

    async def prepare(self):
        """Have what is written to: XADD makes the stream itself."""

    def fields(self):
        return {"redis": resources.RedisSink(url=self.url)}

    async def stored(self):
        return [
            Found(
                {key.decode().removeprefix("ce-"): value.decode() for key, value in fields.items() if key != b"data"},
                fields[b"data"],
            )
            for fields in await self.server.stored(f"discord:{BOT}")
        ]

    @asynccontextmanager
    async def throttled(self):
        async with self.server.client() as client:
            used = (await client.info("memory"))["used_memory"]
            await client.config_set("maxmemory", used + 200_000)
            yield
            await client.config_set("maxmemory", 0)

    async def start_with_login(self):
        await self.start(requirepass=SECRET)

    async def start_with_tls(self, folder):
        self.tls = True
        files = {"tls_ca_cert_file": "ca.crt", "tls_cert_file": "tls.crt", "tls_key_file": "tls.key"}
        await self.start(port=0, tls_port=self.secure_port(), **{name: folder / file for name, file in files.items()})

    def secure_port(self):
        self.server = self.make_server()
        self.server.tls = True
        return self.server.port


class Kafka(Kind):
    name = "kafka"
    server_kind = KafkaServer
    throttled_words = "nothing was acknowledged"
    missing_words = "topic discord: does not exist"
    login_words = "Authentication failed"
    limits = replace(QUICK, connect_within=5.0, stalled_after=0.5)
    mechanism = None

    async def start(self, **settings):
        self.server = self.server or self.make_server()
        await self.server.start(**settings)

    async def prepare(self):
        await self.server.add_topic("discord")

    def fields(self):
        return {
            "kafka": resources.KafkaSink(
                bootstrap_servers=self.server.servers, sasl_mechanism=self.mechanism, tls=self.tls
            )
        }

    async def stored(self):
        return [
            Found({name.removeprefix("ce_"): value.decode() for name, value in message.headers()}, message.value())
            for message in await self.server.stored("discord")
        ]

    @asynccontextmanager
    async def throttled(self):
        await self.server.limit_producers(["--add-config", "producer_byte_rate=1000"])
        yield
        await self.server.limit_producers(["--delete-config", "producer_byte_rate"])

    async def start_with_login(self):
        """Ask clients for a login; the broker itself and the tests use another door."""
        self.mechanism = "PLAIN"
        await self.start(users={"shard": SECRET})
        await self.prepare()

    async def start_with_tls(self, folder):
        self.tls = True
        await self.start(certificates=folder)
        await self.prepare()


class Rabbit(Kind):
    name = "rabbitmq"
    secure = "amqps"
    server_kind = RabbitServer
    twice = True
    throttled_words = "the broker is blocked"
    missing_words = "NOT_FOUND - no exchange 'discord'"
    login_words = "ACCESS_REFUSED"
    user = "guest"
    limits = replace(QUICK, connect_within=5.0, acks_within=5.0, stalled_after=0.5)

    async def start(self, **settings):
        self.server = self.server or self.make_server()
        await self.server.start(**settings)

    async def prepare(self):
        await self.server.add_queue("events")

    def fields(self):
        return {"amqp": resources.AmqpSink(url=self.url)}

    async def stored(self):
        return [
            Found({name.removeprefix("cloudEvents_"): value for name, value in message.headers.items()}, message.body)
            for message in await self.server.stored("events")
        ]

    @asynccontextmanager
    async def throttled(self):
        await self.server.set_memory_limit("0.0000001")
        yield
        await self.server.set_memory_limit("0.6")

    async def start_with_login(self):
        await self.start(default_pass=SECRET)
        await self.prepare()

    def close(self):
        if self.server is not None:
            self.server.close()

    async def start_with_tls(self, folder):
        self.tls = True
        self.server = self.make_server()
        await self.server.start_secure(folder)
        await self.prepare()


class HttpBinary(Kind):
    name = "http"
    secure = "https"
    needs_program = False
    server_kind = HttpServer
    twice = True
    throttled_words = "429 Too Many Requests"
    login_words = "401 Unauthorized"
    mode = resources.HttpMode.BINARY
    limits = replace(QUICK, acks_within=2.0)

    async def start(self, **settings):
        self.server = self.server or self.make_server()
        await self.server.start(**settings)

    async def prepare(self):
        """Have what is written to: an endpoint is there when its server is."""

    def fields(self):
        return {"http": resources.HttpSink(url=self.url, mode=self.mode)}

    async def stored(self):
        return [
            Found({name.lower().removeprefix("ce-"): value for name, value in headers.items()}, body)
            for headers, body in await self.server.stored()
        ]

    @asynccontextmanager
    async def throttled(self):
        self.server.order(status=429, headers={"retry-after": "1"})
        yield
        self.server.order()

    async def start_with_login(self):
        login = base64.b64encode(f"{self.user}:{SECRET}".encode()).decode()
        await self.start(authorization=f"Basic {login}")

    async def start_with_tls(self, folder):
        self.tls = True
        await self.start(certificates=str(folder))


class HttpBatched(HttpBinary):
    name = "http-batched"
    mode = resources.HttpMode.BATCHED

    async def stored(self):
        batches = [
            msgspec.json.decode(body, type=list[dict[str, msgspec.Raw]]) for _, body in await self.server.stored()
        ]
        found = [event for batch in batches for event in batch]
        return [
            Found({name: str(msgspec.json.decode(value)) for name, value in event.items()}, bytes(event["data"]))
            for event in found
        ]


KINDS = (Nats, Redis, Kafka, Rabbit, HttpBinary, HttpBatched)
