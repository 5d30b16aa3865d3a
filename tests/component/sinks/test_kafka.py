"""What is the Kafka sink's own: keys and partitions, the topic's limit, a login that is renewed."""

from __future__ import annotations

from random import Random

import pytest

from component.sinks.kafka_server import KafkaServer
from component.sinks.kinds import Kafka
from component.sinks.stage import BOT, Stage, message
from shardwright_api import resources
from shardwright_shard.journal import Event
from shardwright_shard.sinks.factory import make_sink

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def kafka(kafka_program, tmp_path):
    server = KafkaServer(kafka_program, tmp_path)
    yield await server.start()
    server.kill()


def sink(server, **fields):
    spec = resources.Sink(name="events", kafka=resources.KafkaSink(bootstrap_servers=server.servers, **fields))
    return make_sink(spec, bot=BOT, random=Random(), limits=Kafka.limits)


async def test_a_key_by_guild_keeps_a_guild_in_one_partition_and_in_order(kafka):
    await kafka.add_topic("discord")
    async with Stage(sink(kafka, key=resources.KafkaKey.GUILD)) as stage:
        for seq in range(1, 201):
            payload = b'{"t":"MESSAGE_CREATE","s":%d,"op":0,"d":{"guild_id":"%d"}}' % (seq, seq % 7)
            stage.append(Event(seq, "MESSAGE_CREATE", payload))
        stage.append(Event(201, "USER_UPDATE", b'{"t":"USER_UPDATE","s":201,"op":0,"d":{}}'))
        await stage.settled(within=60)
    found = await kafka.stored("discord")
    where = {}
    for record in found:
        where.setdefault(record.key(), []).append((record.partition(), int(dict(record.headers())["ce_seq"])))
    assert set(where) == {*(b"%d" % guild for guild in range(7)), f"{BOT}:0".encode()}
    for places in where.values():
        assert len({partition for partition, _ in places}) == 1
        assert [seq for _, seq in places] == sorted(seq for _, seq in places)
    assert len({partition for places in where.values() for partition, _ in places}) > 1


async def test_the_topics_own_limit_is_asked_for_and_batches_stay_below_it(kafka):
    await kafka.add_topic("discord", max_message_bytes=20_000)
    async with Stage(sink(kafka, compression="none")) as stage:
        stage.append(*[message(seq, size=30_000 if seq == 50 else 900) for seq in range(1, 201)])
        await stage.settled(within=60)
        assert stage.sink.statistics()["oversize"] == 1
        assert stage.sink.statistics()["refused"] == 0
    found = await kafka.stored("discord")
    assert [int(dict(record.headers())["ce_seq"]) for record in found] == list(range(1, 201))


async def test_a_topic_that_is_deleted_while_events_flow_loses_nothing_that_comes_after(kafka):
    await kafka.add_topic("discord")
    async with Stage(sink(kafka)) as stage:
        stage.append_messages(10)
        await stage.settled(within=60)
        await kafka.delete_topic("discord")
        stage.append_messages(10)
        await stage.away()
        print(stage.sink.message)
        await kafka.add_topic("discord")
        await stage.settled(within=90)
    found = await kafka.stored("discord")
    assert sorted({int(dict(record.headers())["ce_seq"]) for record in found}) == list(range(11, 21))
