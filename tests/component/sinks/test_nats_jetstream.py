"""The NATS sink against JetStream, when all is well."""

from __future__ import annotations

import json

from component.sinks.nats_stage import BOT, QUICK, Stage, message
from shardwright_shard.journal import Event


async def test_events_arrive_byte_for_byte_with_their_headers(nats_server):
    await nats_server.add_stream()
    payload = '{"t":"MESSAGE_CREATE","s":17,"op":0,"d":{"content":"Grüße \U0001f389\\u0000"}}'.encode() + b"\r\n\x00"
    async with Stage(nats_server.url) as stage:
        stage.append(Event(17, "MESSAGE_CREATE", payload), Event(18, "GUILD_CREATE", b"{}", True))
        await stage.settled()
    first, second = await nats_server.stored()
    assert (first.subject, first.data) == (f"discord.{BOT}.MESSAGE_CREATE", payload)
    assert first.headers == {
        "ce-specversion": "1.0",
        "ce-datacontenttype": "application/json",
        "ce-type": "discord.gateway.MESSAGE_CREATE",
        "ce-source": f"/discord/{BOT}/shards/0/4",
        "ce-time": "2025-01-01T00:00:00.250Z",
        "ce-seq": "17",
        "ce-id": f"{BOT}:s0:17",
        "Nats-Msg-Id": f"{BOT}:s0:17",
    }
    assert second.headers["ce-backfill"] == "true"


async def test_acknowledgements_move_each_sessions_cursor(nats_server):
    await nats_server.add_stream()
    async with Stage(nats_server.url) as stage:
        for source in stage.sources:
            stage.append_messages(100 + source.shard, source=source)
        await stage.settled()
        assert [source.acked for source in stage.sources] == [100, 101, 102, 103]
        statistics = stage.sink.statistics()
        assert statistics["published"] == statistics["acknowledged"] == 406
    stage.assert_all_stored(await nats_server.stored())


async def test_an_event_that_is_sent_twice_is_stored_once(nats_server):
    """Two pods that replay the same session, as after a crash: `Nats-Msg-Id` is the same."""
    await nats_server.add_stream()
    for _ in range(2):
        async with Stage(nats_server.url) as stage:
            stage.append_messages(50)
            await stage.settled()
    stage.assert_all_stored(await nats_server.stored())


async def test_an_event_with_a_mark_is_stored_once_however_often_it_is_sent(nats_server):
    await nats_server.add_stream()
    async with Stage(nats_server.url) as stage:
        first, second = (Event(None, "RESUMED", b"{}", mark=f"resumed-{n}") for n in range(2))
        stage.append(first, second, first)
        await stage.settled()
    assert len([found.headers["ce-id"] for found in await nats_server.stored()]) == 2


async def test_filtered_events_do_not_arrive(nats_server):
    await nats_server.add_stream()
    async with Stage(nats_server.url, exclude=("TYPING_START",)) as stage:
        stage.append(message(1), Event(2, "TYPING_START", b"{}"))
        await stage.settled()
        assert stage.source.acked == 2
    assert [found.headers["ce-seq"] for found in await nats_server.stored()] == ["1"]


async def test_a_stream_for_some_events_only_fits_a_filter_for_these(nats_server):
    subjects = [f"discord.{BOT}.{name}" for name in ("MESSAGE_CREATE", "shardwright_oversize", "shardwright_gap")]
    await nats_server.add_stream(subjects=[*subjects, f"discord.{BOT}.shardwright_unreadable"])
    async with Stage(nats_server.url, include=("MESSAGE_CREATE",)) as stage:
        await stage.available()
    async with Stage(nats_server.url) as stage:
        await stage.away(f"stream D does not take discord.{BOT}.*")


async def test_a_subject_by_shard_and_guild(nats_server):
    await nats_server.add_stream()
    async with Stage(nats_server.url, subject="discord.{shard}.{guild}.{event}") as stage:
        stage.append(Event(1, "MESSAGE_CREATE", b'{"d":{"guild_id":"77"}}'), source=stage.sources[2])
        await stage.settled()
    assert [found.subject for found in await nats_server.stored()] == ["discord.2.77.MESSAGE_CREATE"]


async def test_an_event_larger_than_the_server_takes_is_told(make_server):
    server = await make_server().start(max_payload=4096)
    await server.add_stream()
    async with Stage(server.url) as stage:
        stage.append(message(1), message(2, size=8000), message(3))
        await stage.settled()
        assert stage.sink.statistics()["oversize"] == 1
        assert stage.sink.statistics()["reconnects"] == 0
    found = await server.stored()
    assert [each.headers["ce-seq"] for each in found] == ["1", "2", "3"]
    assert found[1].subject == f"discord.{BOT}.shardwright_oversize"
    assert json.loads(found[1].data)["type"] == "discord.gateway.MESSAGE_CREATE"


async def test_an_event_larger_than_the_stream_takes_is_told(nats_server):
    await nats_server.add_stream(max_msg_size=4096)
    async with Stage(nats_server.url) as stage:
        stage.append(message(1), message(2, size=8000), message(3))
        await stage.settled()
        assert stage.sink.statistics()["refused"] == 0
    found = await nats_server.stored()
    assert [each.headers["ce-type"].rpartition(".")[2] for each in found] == [
        "MESSAGE_CREATE",
        "oversize",
        "MESSAGE_CREATE",
    ]


async def test_the_largest_event_that_fits_arrives_whole(nats_server):
    """A GUILD_CREATE can be larger than NATS' default of 1 MB; one that is just below must pass."""
    await nats_server.add_stream()
    async with Stage(nats_server.url) as stage:
        stage.append(message(1, size=2**20 - 1000))
        await stage.settled()
        assert stage.sink.statistics()["oversize"] == 0
    stage.assert_all_stored(await nats_server.stored())


async def test_a_short_duplicate_window_is_warned_of(nats_server):
    await nats_server.add_stream(duplicate_window=120)
    async with Stage(nats_server.url) as stage:
        await stage.available()
        assert "duplicate_window 120s" in stage.sink.message


async def test_a_burst_of_50000_events_is_taken_in_bounded_memory(nats_server):
    await nats_server.add_stream()
    async with Stage(nats_server.url) as stage:
        await stage.available()
        largest = 0
        for _ in range(125):
            for source in stage.sources:
                stage.append_messages(100, source=source, size=1000)
            largest = max(largest, stage.sink.flow.window.size)
        assert stage.sink.statistics()["pending"] > 0
        await stage.settled(within=60)
        assert largest <= QUICK.size + 1400
        assert [source.acked for source in stage.sources] == [12500] * 4
    stage.assert_all_stored(await nats_server.stored())
