"""The Kafka sink: one topic, written by librdkafka's idempotent producer. Its life: `connected.py`.

librdkafka owns the connections: it finds the brokers, batches, compresses, retries for ever (`message.timeout.ms=0`) and
keeps the order of a partition, without storing anything twice while the producer lives. So an outage ends in no new
connection here: the sink says that nothing is acknowledged, and goes on when it is. A new producer is made after a fatal
error, or when brokers cannot be reached at the start; what was under way then may be stored twice.

A daemon thread serves the producer's delivery reports and hands them to the loop by the batch: one wake-up for all that
came together. The queue of librdkafka is larger than our window, so it never overflows.

Key: the shard (`<bot>:<shard>`), so that a shard's events stay in order; or the guild, which spreads them by guild, and
keeps the order of a guild only. Headers: CloudEvents' Kafka binding, `ce_` before each name.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from shardwright_api import resources
from shardwright_shard.errors import ConfigError, SinkUnavailable
from shardwright_shard.journal import Batch, Event, Source
from shardwright_shard.sinks import oversize
from shardwright_shard.sinks.connected import ConnectedSink, Line, Surroundings
from shardwright_shard.sinks.flow import HEADER_ESTIMATE, Flow
from shardwright_shard.sinks.headers import DATA_TYPE, Timestamps, attributes
from shardwright_shard.sinks.intake import Intake
from shardwright_shard.sinks.nats_subject import NO_GUILD, guild
from shardwright_shard.sinks.prepared import Prepared
from shardwright_shard.sinks.selection import Selection
from shardwright_shard.sinks.template import Template
from shardwright_shard.sinks.window import Window

_OVERHEAD: Final = 2 * HEADER_ESTIMATE
"""Bytes that a record's headers, key and batch take at most."""
_BATCH: Final = 1_000_000
_LARGEST: Final = 64 * 1024 * 1024
_QUEUE_KIB: Final = 128 * 1024
_POLL: Final = 0.5
_COMPRESSIONS: Final = frozenset({"none", "gzip", "snappy", "lz4", "zstd"})
_MECHANISMS: Final = frozenset({None, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
_TEXT_LIMIT: Final = 200


class Report(NamedTuple):
    """What became of an event. `size`: bytes of its payload."""

    number: int
    error: str = ""
    too_large: bool = False
    size: int = 0


class Encoder:
    """Events to the producer: `add` hands them on at once, there are no bytes to write. `limit`: of a record."""

    def __init__(self, spec: resources.KafkaSink, *, bot: str, selection: Selection) -> None:
        self.selection = selection
        self.oversize = 0
        self.limit = _LARGEST
        self.line: Connection | None = None
        self._topic = Template(spec.topic, bot=bot, what="topic").name("", 0)
        self._by_guild = spec.key is resources.KafkaKey.GUILD
        self._prepared = Prepared(_constants)
        self._timestamps = Timestamps()

    def flush(self, tail: bytes = b"") -> bytes:
        """Give nothing: librdkafka writes."""
        return tail

    def add(self, batch: Batch, number: int) -> Sequence[int]:
        """Hand a batch to the producer. Give the journal positions of those that are sent."""
        assert self.line is not None, "nothing is sent without a producer"
        source, line = batch.source, self.line
        positions, events = self.selection.of(batch)
        plain, marked = self._prepared.lines(source)
        time = ("ce_time", self._timestamps.text(batch.time).encode())
        key = f"{source.bot}:{source.shard}".encode()
        prefix, limit = source.id_prefix, self.limit - _OVERHEAD
        produce, topic, report = line.producer.produce, self._topic, line.report
        for count, event in enumerate(events, number):
            if len(event.payload) > limit:
                self.oversize += 1
                event = oversize.replacement(source, event)  # noqa: PLW2901 - what is sent in its place
            seq, name, payload, backfill, _ = event
            headers: list[tuple[str, str | bytes | None]] = [
                *(marked if backfill else plain)[name],
                time,
                ("ce_id", f"{prefix}{event.last}".encode()),
            ]
            if seq is not None:
                headers.append(("ce_seq", str(seq).encode()))
            if self._by_guild and (found := guild(name, payload)) != NO_GUILD:
                key = found.encode()
            try:
                produce(topic, payload, key, headers=headers, on_delivery=partial(report, count))
            except (BufferError, KafkaException) as error:
                line.failed(Report(count, str(error)))
        return positions


def _constants(source: Source, name: str, backfill: bool) -> tuple[tuple[str, bytes], ...]:  # noqa: FBT001 - an event's mark
    given = attributes(source, Event(None, name, b"", backfill), time="")
    names = ("specversion", "type", "source", "backfill")
    constant = [(f"ce_{key}", given[key].encode()) for key in names if key in given]
    return ("content-type", DATA_TYPE.encode()), *constant


class Connection:
    """A producer, and the thread that serves its reports."""

    writable = True

    def __init__(self, config: dict[str, Any], sink: KafkaSink) -> None:
        """Make the producer. Raise `SinkUnavailable` where librdkafka takes the configuration for wrong."""
        self.lost_because: str | None = None
        self.trouble = ""
        """What librdkafka said last of brokers that cannot be reached."""
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._reports: list[Report] = []
        self._closed = False
        try:
            self.producer = Producer({**config, "error_cb": self._error})
        except (KafkaException, ValueError) as error:
            raise SinkUnavailable(_words(error)) from None
        threading.Thread(target=self._serve, name="kafka-sink", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Write nothing: librdkafka does."""

    async def close(self) -> None:
        """Give up what is under way. The thread lets the producer go: that may take seconds, and would stop the loop."""
        with suppress(KafkaException):
            self.producer.purge(blocking=False)
        self._closed = True

    def report(self, number: int, error: KafkaError | None, message: Message) -> None:
        """Take the report of one event, in the thread."""
        if error is None:
            self._reports.append(Report(number))
        else:
            large = error.code() == KafkaError.MSG_SIZE_TOO_LARGE
            self._reports.append(Report(number, error.str(), large, len(message)))

    def failed(self, report: Report) -> None:
        """Take what the producer would not have, on the loop, once the window knows of it."""
        self._loop.call_soon(self._sink.delivered, self, [report])

    def _serve(self) -> None:
        """Serve reports until closed; what came together is handed over together."""
        while not self._closed:
            self.producer.poll(_POLL)
            if self._reports:
                reports, self._reports = self._reports, []
                self._tell(reports)
        del self.producer

    def _tell(self, reports: list[Report]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._sink.delivered, self, reports)

    def _error(self, error: KafkaError) -> None:
        """Take what librdkafka says of brokers and logins, in the thread."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's name; it says less than those before
            self.trouble = error.str()[:_TEXT_LIMIT]
        if error.fatal():
            self.lost_because = self.trouble
        elif error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - librdkafka's name
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._sink.renew_login, self)


class KafkaFlow(Flow):
    """Reports to acknowledgements."""

    def __init__(self, reader: Intake, *, outlet: Encoder, window: Window) -> None:
        super().__init__(reader, outlet=outlet, window=window, resends=False)
        self._limited = outlet

    def take(self, reports: list[Report]) -> None:
        """Take reports of this producer, in any order."""
        if landed := [report.number for report in reports if not report.error]:
            self.settle(self.window.acknowledge(landed))
        for report in reports:
            if report.error:
                if report.too_large:
                    self._limited.limit = min(self._limited.limit, report.size)
                self.refuse(report.error)


class KafkaSink(ConnectedSink):
    """One Kafka sink."""

    def __init__(self, spec: resources.KafkaSink, around: Surroundings) -> None:
        """Read the configuration. Raise `ConfigError` where it does not fit."""
        super().__init__(replace(around, limits=replace(around.limits, acks_within=float("inf"))))
        if "{" in spec.topic:
            raise ConfigError("topic: one topic, without fields; the key decides the partition")
        if spec.compression not in _COMPRESSIONS or spec.sasl_mechanism not in _MECHANISMS:
            raise ConfigError("compression or saslMechanism: unknown")
        if "@" in spec.bootstrap_servers or "/" in spec.bootstrap_servers:
            raise ConfigError("bootstrapServers: host:port, several with commas between; no scheme, user or password")
        self.where = spec.bootstrap_servers
        self._spec = spec
        self._encoder = Encoder(spec, bot=around.bot, selection=self.selection)
        self._line: Connection | None = None
        self._batch = _BATCH

    def make_flow(self, reader: Intake, window: Window) -> Flow:
        """Make the flow."""
        return KafkaFlow(reader, outlet=self._encoder, window=window)

    async def connect(self) -> Connection:
        """Make a producer: it connects by itself."""
        self.secrets.check()
        self._line = self._encoder.line = Connection({**self._client(), **self._producer()}, self)
        return self._line

    async def fit(self, line: Line) -> tuple[str, str]:
        """Ask for the topic and for the largest record. Raise `SinkUnavailable` where no broker can be reached."""
        connection = cast("Connection", line)
        await self._drained(connection)
        try:
            problem, limit = await asyncio.to_thread(self._ask, connection)
        except (KafkaException, TimeoutError) as error:
            raise SinkUnavailable(connection.trouble or _words(error)) from None
        if limit:
            self._encoder.limit = limit
            self._check_batches(limit)
        return problem, ""

    def delivered(self, line: Connection, reports: list[Report]) -> None:
        """Take reports; those of a producer that was given up are of no use."""
        if line is not self._line:
            return
        flow = cast("KafkaFlow", self.flow)
        before = flow.acknowledged
        flow.take(reports)
        flow.pump_behind()
        self.judge(before)

    def renew_login(self, line: Connection) -> None:
        """Read the login again: the Secret may have changed since the producer was made."""
        if line is not self._line or line.lost_because is not None:
            return
        with suppress(SinkUnavailable, KafkaException, AttributeError):  # the producer may be gone already
            if (login := self.secrets.login()) is not None:
                line.producer.set_sasl_credentials(*login)

    # Inside

    async def _drained(self, line: Connection) -> None:
        """After a refusal: wait for the reports of all that was sent, so that nothing is sent twice."""
        async with asyncio.timeout(self.limits.connect_within):
            while len(line.producer):  # noqa: ASYNC110 - librdkafka tells nobody
                await asyncio.sleep(self.limits.first_pause)

    def _ask(self, line: Connection) -> tuple[str, int]:
        """Describe the topic: a problem, and its largest record; in a thread."""
        topic, within = self._spec.topic, self.limits.connect_within
        error = line.producer.list_topics(topic, timeout=within).topics[topic].error
        if error is not None:
            words = "does not exist: create it" if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART else error.str()
            return f"topic {topic}: {words}", 0
        admin = AdminClient({**self._client(), "log_level": 0})
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            found = admin.describe_configs([resource], request_timeout=within)[resource].result(within)
        except KafkaException:
            return "", 0  # not every principal may ask
        return "", int(found["max.message.bytes"].value)

    def _check_batches(self, limit: int) -> None:
        """Make another producer where the batches of this one would be too large for the topic."""
        if self._batch > limit or self._batch < min(_BATCH, limit):
            self._batch = min(_BATCH, limit)
            raise SinkUnavailable("the topic's max.message.bytes asks for other batches")

    def _client(self) -> dict[str, Any]:
        """Give what producer and administrator share. Raise `SinkUnavailable` where a Secret does not fit."""
        secrets, mechanism = self.secrets, self._spec.sasl_mechanism
        secure = self._spec.tls or secrets.has_tls
        config: dict[str, Any] = {
            "bootstrap.servers": self._spec.bootstrap_servers,
            "client.id": "shardwright",
            "security.protocol": ("SASL_" if mechanism else "") + ("SSL" if secure else "PLAINTEXT"),
            "log_level": 0,  # what matters comes to `error_cb`
        }
        if mechanism:
            login = secrets.login()
            if login is None:
                raise SinkUnavailable("saslMechanism needs credentialsSecretRef")
            config |= {"sasl.mechanism": mechanism, "sasl.username": login[0], "sasl.password": login[1]}
        files = {"ssl.ca.location": "ca.crt", "ssl.certificate.location": "tls.crt", "ssl.key.location": "tls.key"}
        found = {option: secrets.file(name) for option, name in files.items() if secure}
        return config | {option: str(path) for option, path in found.items() if path is not None}

    def _producer(self) -> dict[str, Any]:
        return {
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": 0,
            "compression.type": self._spec.compression,
            "partitioner": "murmur2_random",
            "message.max.bytes": _LARGEST,
            "batch.size": self._batch,
            "queue.buffering.max.messages": 4 * self.limits.events,
            "queue.buffering.max.kbytes": _QUEUE_KIB,
            "reconnect.backoff.max.ms": int(1000 * self.limits.longest_pause),
        }


def _words(error: Exception) -> str:
    """Give librdkafka's own words."""
    inner = error.args[0] if error.args else error
    return (inner.str() if isinstance(inner, KafkaError) else str(inner))[:_TEXT_LIMIT]
