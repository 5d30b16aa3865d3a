"""A real Kafka: one node, KRaft, no replication."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from component.ports import free_port
from component.sinks.server import Server

_JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"


class KafkaServer(Server):
    """Kafka on a port of its own; its log outlives its process."""

    def __init__(self, program, folder):
        super().__init__(program, folder)
        self._controller, self._tests = free_port(), free_port()

    @property
    def servers(self):
        return f"127.0.0.1:{self.port}"

    def prepare(self, *, users=None, certificates=None, **settings):
        """Open one door for the sink, with a login where there are users, and one for the tests."""
        sink = "SASL_PLAINTEXT" if users else "SSL" if certificates else "PLAINTEXT"
        config = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"SINK://127.0.0.1:{self.port},TESTS://127.0.0.1:{self._tests},"
            f"CONTROLLER://127.0.0.1:{self._controller}",
            "listener.security.protocol.map": f"SINK:{sink},TESTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "TESTS",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self._folder / "data",
            "auto.create.topics.enable": "false",
            "broker.session.timeout.ms": 1000,
            "broker.heartbeat.interval.ms": 100,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            **settings,
        }
        if users:
            listed = " ".join(f'user_{name}="{password}"' for name, password in users.items())
            config["sasl.enabled.mechanisms"] = "PLAIN"
            config["listener.name.sink.plain.sasl.jaas.config"] = (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {listed};"
            )
        if certificates:
            config |= self._secured(certificates)
        path = self._folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
        java = [*_JAVA, "-cp", f"{self._program}/*"]
        if not (self._folder / "data").exists():
            tool = [*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", path]
            ended = subprocess.run(tool, check=False, capture_output=True, text=True)
            assert ended.returncode == 0, ended.stdout + ended.stderr
        return [*java, "kafka.Kafka", path], None

    def _secured(self, folder):
        store = self._folder / "store.pem"
        store.write_text((folder / "tls.key").read_text() + (folder / "tls.crt").read_text())
        options = {"keystore.type": "PEM", "keystore.location": store}
        options |= {"truststore.type": "PEM", "truststore.location": folder / "ca.crt", "client.auth": "required"}
        return {f"listener.name.sink.ssl.{name}": value for name, value in options.items()}

    @property
    def _own(self):
        return {"bootstrap.servers": f"127.0.0.1:{self._tests}", "log_level": 0}

    async def limit_producers(self, change):
        """Change the quota of all producers by Kafka's own tool: `producer_byte_rate`."""
        tool = [*_JAVA, "-cp", f"{self._program}/*", "kafka.admin.ConfigCommand", "--alter", *change]
        door = ["--bootstrap-server", self._own["bootstrap.servers"], "--entity-type", "clients", "--entity-default"]
        await asyncio.to_thread(subprocess.run, [*tool, *door], check=True, capture_output=True)

    async def add_topic(self, name, *, partitions=4, **config):
        """Make a topic; the broker may still be loading."""
        admin = AdminClient(self._own)
        while True:
            with suppress(KafkaException):
                topic = NewTopic(name, partitions, 1, config={key.replace("_", "."): v for key, v in config.items()})
                await asyncio.to_thread(admin.create_topics([topic])[name].result)
                return

    async def delete_topic(self, name):
        admin = AdminClient(self._own)
        await asyncio.to_thread(admin.delete_topics([name])[name].result)

    async def stored(self, name, **options):
        """Give all messages of a topic, by partition in order."""
        return await asyncio.to_thread(self._read, name, options)

    def _read(self, name, options):
        base = {**self._own, "group.id": "tests", "enable.partition.eof": True}
        consumer = Consumer({**base, "fetch.message.max.bytes": 2**25, **options})
        partitions = consumer.list_topics(name, timeout=20).topics[name].partitions
        consumer.assign([TopicPartition(name, partition, 0) for partition in partitions])
        found, ended = [], set()
        while len(ended) < len(partitions):
            message = consumer.poll(20)
            assert message is not None, "Kafka does not answer"
            if message.error():
                ended.add(message.partition())
            else:
                found.append(message)
        consumer.close()
        return found
