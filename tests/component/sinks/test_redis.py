"""What is the Redis sink's own: replicas, keys of another type, bounds, databases."""

from __future__ import annotations

from random import Random

import pytest

from component.sinks.redis_server import RedisServer
from component.sinks.stage import BOT, QUICK, Stage
from shardwright_api import resources
from shardwright_shard.sinks.factory import make_sink

KEY = f"discord:{BOT}"


@pytest.fixture
def make_redis(redis_program, tmp_path):
    made = []

    def make():
        folder = tmp_path / f"redis-{len(made)}"
        folder.mkdir()
        made.append(RedisServer(redis_program, folder))
        return made[-1]

    yield make
    for server in made:
        server.kill()


def sink(url, *, seed=0, **fields):
    spec = resources.Sink(name="events", redis=resources.RedisSink(url=url, **fields))
    return make_sink(spec, bot=BOT, random=Random(seed), limits=QUICK)


async def test_a_replica_is_left_for_the_primary(make_redis):
    primary, replica = await make_redis().start(), make_redis()
    await replica.start(replicaof=f"127.0.0.1 {primary.port}")
    for seed in range(4):
        async with Stage(sink(f"{replica.url},{primary.url}", seed=seed)) as stage:
            stage.append_messages(10)
            await stage.settled()
            await stage.available()
    assert len(await primary.stored(KEY)) == 40


async def test_a_key_of_another_type_is_told_and_waited_for(make_redis):
    server = await make_redis().start()
    async with server.client() as client:
        await client.set(KEY, "x")
        async with Stage(sink(server.url)) as stage:
            stage.append_messages(10)
            await stage.away("WRONGTYPE Operation against a key")
            assert stage.source.acked is None
            await client.delete(KEY)
            await stage.settled()
    assert [fields[b"ce-seq"] for fields in await server.stored(KEY)] == [b"%d" % seq for seq in range(1, 11)]


async def test_what_was_stored_behind_a_refused_event_is_not_sent_again(make_redis):
    """One shard's stream is of another type: the others' events are stored once all the same."""
    server = await make_redis().start()
    async with server.client() as client:
        await client.set(f"{KEY}:1", "x")
        async with Stage(sink(server.url, stream="discord:{bot}:{shard}")) as stage:
            await stage.available()
            for shard in (0, 1, 2):
                stage.append_messages(20, source=stage.sources[shard])
            await stage.away("WRONGTYPE")
            await client.delete(f"{KEY}:1")
            await stage.settled()
            assert [source.acked for source in stage.sources[:3]] == [20] * 3
    for shard in (0, 1, 2):
        found = await server.stored(f"{KEY}:{shard}")
        assert [int(fields[b"ce-seq"]) for fields in found] == list(range(1, 21))


async def test_a_stream_is_kept_at_about_its_bound(make_redis):
    server = await make_redis().start()
    async with Stage(sink(server.url, max_length=200)) as stage:
        for _ in range(50):
            stage.append_messages(100)
        await stage.settled()
    stored = await server.stored(KEY)
    assert 200 <= len(stored) < 1000
    assert stored[-1][b"ce-seq"] == b"5000"


async def test_a_database_is_chosen_by_its_number(make_redis):
    server = await make_redis().start()
    async with Stage(sink(f"{server.url}/3")) as stage:
        stage.append_messages(5)
        await stage.settled()
    assert len(await server.stored(KEY, db=3)) == 5


async def test_what_is_no_redis_is_told(nats_server):
    async with Stage(sink(f"redis://127.0.0.1:{nats_server.port}")) as stage:
        await stage.away("does not speak Redis' protocol")
