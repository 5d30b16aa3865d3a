"""The NATS sink when servers, streams and connections fail: nothing is lost, and order per shard is kept."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from component.sinks.nats_server import FalseServer
from component.sinks.nats_stage import QUICK, Stage
from component.sinks.waiting import until


@asynccontextmanager
async def traffic(stage):
    """Append batches from all sources all the while."""

    async def append():
        while True:
            for source in stage.sources:
                stage.append_messages(5, source=source, size=200)
            await asyncio.sleep(0)
            await until(lambda: stage.sink.statistics()["pending"] < 5000)

    task = asyncio.create_task(append())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def acknowledged(stage, count):
    """Wait until so many more events are acknowledged."""
    goal = stage.sink.statistics()["acknowledged"] + count
    await until(lambda: stage.sink.statistics()["acknowledged"] >= goal)


async def test_a_server_that_is_killed_and_comes_back_loses_nothing(make_server):
    server = await make_server().start()
    await server.add_stream()
    async with Stage(server.url) as stage:
        async with traffic(stage):
            for _ in range(3):
                await acknowledged(stage, 500)
                server.kill()
                await stage.away()
                await server.start()
                await stage.available()
        await stage.settled()
        assert stage.sink.statistics()["reconnects"] >= 3
    stage.assert_all_stored(await server.stored())


async def test_a_sink_starts_before_its_server(make_server):
    server = make_server()
    async with Stage(server.url) as stage:
        stage.append_messages(10)
        await stage.away(server.url)
        await server.start()
        await server.add_stream()
        await stage.settled()
    stage.assert_all_stored(await server.stored())


async def test_a_stream_that_is_missing_is_named_and_used_once_it_is_there(nats_server):
    async with Stage(nats_server.url) as stage:
        stage.append_messages(10)
        await stage.away("stream D does not exist; create it: nats stream add D --subjects 'discord.")
        await nats_server.add_stream()
        await stage.settled()
        assert stage.sink.available
        assert stage.sink.statistics()["reconnects"] == 0
    stage.assert_all_stored(await nats_server.stored())


async def test_a_stream_that_is_deleted_while_events_flow(nats_server):
    """What was acknowledged went with the stream; everything after it is in the new one, without a hole."""
    await nats_server.add_stream()
    async with Stage(nats_server.url) as stage:
        async with traffic(stage):
            await acknowledged(stage, 500)
            await nats_server.delete_stream()
            await stage.away()
            await nats_server.add_stream()
            await acknowledged(stage, 500)
        await stage.settled()
    stored = await nats_server.stored()
    for source in stage.sources:
        seqs = {int(found.headers["ce-seq"]) for found in stored if found.headers["ce-source"] == source.uri}
        assert seqs == set(range(min(seqs), source.acked + 1))


async def tried_again(stage, times):
    """Wait for so many more attempts, each answered but the last: nothing that was sent before is under way then."""
    goal = stage.sink.statistics()["published"] + times
    await until(lambda: stage.sink.statistics()["published"] >= goal)


async def test_a_stream_that_is_full_refuses_and_heals(nats_server):
    await nats_server.add_stream(max_bytes=200_000, discard="new")
    async with Stage(nats_server.url) as stage:
        for _ in range(100):
            stage.append_messages(10, size=500)
        await stage.away("maximum bytes exceeded")
        await tried_again(stage, 3)
        acked = stage.source.acked
        assert 0 < acked < 1000
        await tried_again(stage, 3)
        assert stage.source.acked == acked
        await nats_server.change_stream(max_bytes=10_000_000)
        await stage.settled()
        assert stage.sink.available
        assert stage.sink.statistics()["reconnects"] == 0
    stage.assert_all_stored(await nats_server.stored())


async def test_a_stream_that_takes_less_than_before_makes_an_event_oversize(nats_server):
    """The refusal makes the sink ask again; nobody waits for an event that can never be stored."""
    await nats_server.add_stream()
    async with Stage(nats_server.url) as stage:
        await stage.available()
        await nats_server.change_stream(max_msg_size=4096)
        stage.append_messages(1, size=8000)
        await stage.settled()
        assert stage.sink.statistics()["oversize"] == 1
        assert stage.sink.statistics()["refused"] == 1


async def test_a_missing_permission_to_ask_for_the_stream_is_named(make_server):
    user = {"user": "shard", "password": "x", "permissions": {"publish": ["discord.>"]}}
    server = await make_server().start(no_auth_user="shard", accounts={"A": {"jetstream": True, "users": [user]}})
    async with Stage(server.url) as stage:
        await stage.away('Permissions Violation for Publish to "$JS.API.STREAM.INFO.D"')


async def test_while_a_stream_refuses_one_event_is_tried_at_a_time(nats_server):
    await nats_server.add_stream(max_bytes=100_000, discard="new")
    under_way = set()
    async with Stage(nats_server.url) as stage:
        stage.append_messages(500, size=500)
        await stage.away("maximum bytes exceeded")
        await tried_again(stage, 1)
        goal = stage.sink.statistics()["published"] + 3
        window = stage.sink.flow.window
        await until(lambda: under_way.add(window.under_way) or stage.sink.statistics()["published"] >= goal)
    assert under_way <= {0, 1}


async def test_another_stream_that_takes_the_events_is_refused(nats_server):
    """The subject moves to another stream behind our back: an acknowledgement by it is none."""
    await nats_server.add_stream()
    async with Stage(nats_server.url) as stage:
        await stage.available()
        await nats_server.change_stream(subjects=["elsewhere"])
        await nats_server.add_stream("OTHER")
        stage.append_messages(1)
        await stage.away("stream D does not take discord.")
        assert stage.sink.statistics()["refused"] == 1
        assert stage.source.acked is None
        await nats_server.delete_stream("OTHER")
        await nats_server.change_stream(subjects=["discord.>"])
        await stage.settled()
    stage.assert_all_stored(await nats_server.stored())


async def test_a_server_that_hangs_holds_back_in_bounded_memory(nats_server):
    await nats_server.add_stream()
    async with Stage(nats_server.url) as stage:
        await stage.available()
        nats_server.freeze()
        for _ in range(200):
            stage.append_messages(100, size=1000)
        assert stage.sink.flow.window.size <= QUICK.size + 1400
        await stage.away("nothing was acknowledged for more than 0.2 s")
        nats_server.thaw()
        await stage.settled()
        assert stage.sink.available
    stage.assert_all_stored(await nats_server.stored())


async def test_missing_permission_is_named(make_server):
    user = {"user": "shard", "password": "x", "permissions": {"publish": ["$JS.API.>"]}}
    server = await make_server().start(no_auth_user="shard", accounts={"A": {"jetstream": True, "users": [user]}})
    await server.add_stream()
    async with Stage(server.url) as stage:
        stage.append_messages(1)
        await stage.away("Permissions Violation for Publish")
        assert stage.source.acked is None


async def test_acknowledgements_that_never_come_make_it_connect_again():
    async with FalseServer() as server, Stage(server.url) as stage:
        stage.append_messages(3)
        await stage.away("nothing was acknowledged")
        await until(lambda: server.connections >= 2)
        await until(lambda: server.written.count(b"Nats-Msg-Id: ") >= 6)
        assert stage.source.acked is None


async def test_a_server_that_never_acknowledges_is_never_available():
    """It connects again and again, and the stream fits: only an acknowledgement tells that it works."""
    seen = []
    async with FalseServer() as server, Stage(server.url) as stage:
        stage.append_messages(3)
        await until(lambda: seen.append(stage.sink.available) or server.connections >= 3)
    assert not any(seen)


async def test_a_server_that_is_about_to_stop_is_left():
    async with FalseServer() as server, Stage(server.url) as stage:
        await stage.available()
        server.say(b'INFO {"headers":true,"ldm":true}\r\n')
        await until(lambda: server.connections >= 2)


async def test_a_server_that_stops_answering_is_left():
    """Nothing is under way: only the PING tells."""
    limits = replace(QUICK, ping_every=0.05, acks_within=0.2)
    async with FalseServer() as server, Stage(server.url, limits=limits) as stage:
        await stage.available()
        server.mute = True
        await stage.away("the server does not answer")


async def test_it_ends_soon_though_the_server_hangs(nats_server):
    """More is written than socket buffers take; nobody reads it."""
    async with Stage(nats_server.url, stream=None) as stage:
        await stage.available()
        nats_server.freeze()
        stage.append_messages(100, size=500_000)
        await until(lambda: not stage.sink.available)
        async with asyncio.timeout(5):
            await stage.__aexit__()


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak NATS"),
        (b'INFO {"headers":false}\r\n', "no headers"),
        (b"INFO {\"headers\":true}\r\n-ERR 'Authorization Violation'\r\n", "Authorization Violation"),
        (b"", "no answer in time"),
    ],
)
async def test_a_server_that_is_no_use_is_named_and_tried_again(greeting, words):
    limits = replace(QUICK, connect_within=0.2)
    async with FalseServer() as server:
        server.greeting = greeting
        async with Stage(server.url, limits=limits) as stage:
            await stage.away(words)
            await until(lambda: server.connections >= 2)


async def test_a_server_that_takes_next_to_nothing_is_named():
    async with FalseServer(max_payload=100) as server, Stage(server.url) as stage:
        await stage.away("max_payload")
        server.say(b'INFO {"headers":true,"max_payload":100000}\r\n')
        await stage.available()


async def test_the_next_server_of_the_list_is_tried(nats_server, make_server):
    await nats_server.add_stream()
    dead = make_server()
    for _ in range(4):
        async with Stage(f"{dead.url},{nats_server.url}") as stage:
            await stage.available()
