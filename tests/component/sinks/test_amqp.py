"""What is the AMQP sink's own: unroutable and rejected events, closed channels."""

from __future__ import annotations

from random import Random

import pytest

from component.sinks.rabbitmq_server import RabbitServer
from component.sinks.stage import BOT, QUICK, Stage
from component.sinks.waiting import until
from shardwright_api import resources
from shardwright_shard.sinks.factory import make_sink


@pytest.fixture
async def rabbit(rabbitmq_program, tmp_path):
    server = RabbitServer(rabbitmq_program, tmp_path)
    yield await server.start()
    server.close()


def sink(server, **fields):
    spec = resources.Sink(name="events", amqp=resources.AmqpSink(url=server.url, **fields))
    return make_sink(spec, bot=BOT, random=Random(), limits=QUICK)


async def test_an_event_that_no_queue_takes_stays_with_the_sink_until_one_does(rabbit):
    """What was confirmed behind it is stored once."""
    await rabbit.add_queue("even", keys=[f"discord.{BOT}.0", f"discord.{BOT}.2"])
    async with Stage(sink(rabbit, routing_key="discord.{bot}.{shard}")) as stage:
        await stage.available()
        for shard in (0, 1, 2):
            stage.append_messages(20, source=stage.sources[shard])
        await stage.away(f"no queue takes discord.{BOT}.1 of exchange discord")
        await until(lambda: stage.sources[0].acked == 20)
        assert stage.sources[1].acked is None
        await rabbit.add_queue("odd", keys=[f"discord.{BOT}.1"])
        await stage.settled()
        await stage.available()
        assert stage.sources[2].acked == 20
    assert len(await rabbit.stored("even")) == 40
    assert len(await rabbit.stored("odd")) == 20


async def test_without_mandatory_an_event_that_no_queue_takes_is_gone(rabbit):
    await rabbit.add_queue("none", keys=["other"])
    async with Stage(sink(rabbit, mandatory=False)) as stage:
        stage.append_messages(20)
        await stage.settled()
    assert await rabbit.stored("none") == []


async def test_a_full_queue_that_rejects_is_told_and_gets_all_once_there_is_room(rabbit):
    await rabbit.add_queue("events", **{"x-max-length": 10, "x-overflow": "reject-publish"})
    taken = []
    async with Stage(sink(rabbit)) as stage:
        await stage.available()
        stage.append_messages(15)
        await stage.away("the broker rejected an event")
        while stage.sink.statistics()["pending"]:
            taken += await rabbit.stored("events")
        taken += await rabbit.stored("events")
    assert sorted(int(message.headers["cloudEvents_seq"]) for message in taken) == list(range(1, 16))


async def test_an_exchange_that_is_deleted_while_events_flow_is_told(rabbit):
    await rabbit.add_queue("events")
    async with Stage(sink(rabbit)) as stage:
        stage.append_messages(10)
        await stage.settled()
        async with rabbit.channel() as channel:
            await channel.exchange_delete("discord")
        stage.append_messages(10)
        await stage.away("NOT_FOUND - no exchange 'discord'")
        await rabbit.add_queue("events")
        await stage.settled()
        assert stage.source.acked == 20
    assert [int(message.headers["cloudEvents_seq"]) for message in await rabbit.stored("events")] == list(range(1, 21))


async def test_the_properties_of_a_message(rabbit):
    await rabbit.add_queue("events")
    async with Stage(sink(rabbit)) as stage:
        stage.append_messages(1)
        await until(lambda: stage.source.acked == 1)
    (found,) = await rabbit.stored("events")
    assert found.routing_key == f"discord.{BOT}.MESSAGE_CREATE"
    assert found.content_type == "application/json"
    assert found.message_id == f"{BOT}:s0:1"
    assert found.delivery_mode == 2
