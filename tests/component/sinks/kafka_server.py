"""A real Kafka: one node, KRaft, no replication."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from component.sinks.server import Server, free_port

_JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"


class KafkaServer(Server):
    """Kafka on a port of its own; its log outlives its process."""

    def __init__(self, program, folder):
        super().__init__(program, folder)
        self._controller = free_port()

    @property
    def servers(self):
        return f"127.0.0.1:{self.port}"

    def prepare(self, *, protocol="PLAINTEXT", **settings):
        config = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"{protocol}://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller}",
            "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": protocol,
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self._folder / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            **settings,
        }
        path = self._folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
        java = [*_JAVA, "-cp", f"{self._program}/*"]
        if not (self._folder / "data").exists():
            tool = [*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", path]
            subprocess.run(tool, check=True, capture_output=True)
        return [*java, "kafka.Kafka", path], None

    async def add_topic(self, name, *, partitions=4, **config):
        """Make a topic; the broker may still be loading."""
        admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        while True:
            with suppress(KafkaException):
                topic = NewTopic(name, partitions, 1, config={key.replace("_", "."): v for key, v in config.items()})
                await asyncio.to_thread(admin.create_topics([topic])[name].result)
                return

    async def stored(self, name, **options):
        """Give all messages of a topic, by partition in order."""
        return await asyncio.to_thread(self._read, name, options)

    def _read(self, name, options):
        base = {"bootstrap.servers": self.servers, "group.id": "tests", "enable.partition.eof": True, "log_level": 0}
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
