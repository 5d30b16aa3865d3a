"""The NATS sink without a stream: core NATS, at most once."""

from __future__ import annotations

from component.sinks.nats_stage import Stage
from component.sinks.waiting import until


async def test_events_reach_whoever_listens(nats_server):
    found = []

    async def take(message):
        found.append(message)

    async with nats_server.client() as client:
        await client.subscribe("discord.>", cb=take)
        await client.flush()
        async with Stage(nats_server.url, stream=None) as stage:
            for source in stage.sources:
                stage.append_messages(250, source=source)
            await stage.settled()
            await until(lambda: len(found) == 1000)
            assert [source.acked for source in stage.sources] == [250] * 4
    assert all(message.reply == "" for message in found)
    stage.assert_all_stored(found)


async def test_it_says_that_it_is_at_most_once(nats_server):
    async with Stage(nats_server.url, stream=None) as stage:
        await stage.available()
        assert stage.sink.message.startswith("at most once")


async def test_events_wait_while_the_server_is_away(make_server):
    server = make_server()
    async with Stage(server.url, stream=None) as stage:
        stage.append_messages(10)
        await stage.away()
        assert stage.source.acked is None
        await server.start()
        await stage.settled()
        assert stage.source.acked == 10


async def test_a_missing_permission_acknowledges_nothing(make_server):
    server = await make_server().start(
        no_auth_user="shard",
        accounts={"A": {"users": [{"user": "shard", "password": "x", "permissions": {"publish": ["other.>"]}}]}},
    )
    async with Stage(server.url, stream=None) as stage:
        stage.append_messages(5)
        await stage.away("Permissions Violation for Publish")
        assert stage.source.acked is None


async def test_a_burst_is_bounded(nats_server):
    async with Stage(nats_server.url, stream=None) as stage:
        await stage.available()
        for _ in range(500):
            stage.append_messages(100, size=1000)
        await stage.settled()
        assert stage.source.acked == 50000
