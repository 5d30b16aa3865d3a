"""What every sink keeps, whatever it writes to: one suite over all kinds, each against its real server."""

from __future__ import annotations

import asyncio
import base64
import os
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from operator import attrgetter
from pathlib import Path

import pytest

from component.shard.stage import stays
from component.sinks.kinds import KINDS, SECRET
from component.sinks.stage import BOT, Stage, message
from component.sinks.waiting import until
from shardwright_api.resources import EventFilter, Overflow
from shardwright_shard.journal import Event
from shardwright_shard.sinks.memory import MemorySink

pytestmark = pytest.mark.timeout(240)


NAME = attrgetter("name")


@pytest.fixture(params=KINDS, ids=NAME)
def kind(request, tmp_path):
    program = request.getfixturevalue(f"{request.param.name}_program") if request.param.needs_program else None
    made = request.param(program, tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def traffic(stage):
    """Append batches from all sources all the while."""

    async def append():
        while True:
            for source in stage.sources:
                stage.append_messages(5, source=source, size=200)
            await asyncio.sleep(0)
            await until(lambda: stage.sink.statistics()["pending"] < 3000, within=120)

    task = asyncio.create_task(append())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def acknowledged(stage, count):
    """Wait until so many more events are acknowledged."""
    goal = stage.sink.statistics()["acknowledged"] + count
    await until(lambda: stage.sink.statistics()["acknowledged"] >= goal, within=60)


def resident():
    """Give this process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def assert_kept(stage, stored, *, twice=False, ordered=True):
    """Check that each event is there byte for byte, once unless `twice`, its first copies in order per shard."""
    first = {}
    for found in stored:
        first.setdefault(found.id, found)
    assert sorted(first) == sorted(stage.events)
    assert all(found.data == stage.events[found.id].payload for found in stored)
    if not twice:
        assert len(stored) == len(first)
    for source in stage.sources if ordered else []:
        seqs = [int(found.attributes["seq"]) for found in first.values() if found.attributes["source"] == source.uri]
        assert seqs == sorted(seqs)
    return len(stored) - len(first)


async def test_events_are_there_once_in_order_and_byte_for_byte(kind):
    await kind.start()
    await kind.prepare()
    async with Stage(kind.sink()) as stage:
        for _ in range(10):
            for source in stage.sources:
                stage.append_messages(25, source=source)
        await stage.settled()
        assert stage.sink.available
        assert [source.acked for source in stage.sources] == [250] * 4
        statistics = stage.sink.statistics()
        assert (statistics["published"], statistics["acknowledged"], statistics["pending"]) == (1000, 1000, 0)
    stored = await kind.stored()
    assert_kept(stage, stored)
    attributes = stored[0].attributes
    assert attributes["type"] == "discord.gateway.MESSAGE_CREATE"
    assert attributes["specversion"] == "1.0"
    assert attributes["time"] == "2025-01-01T00:00:00.250Z"
    assert attributes["id"] == f"{stage.source.id_prefix}{attributes['seq']}"


async def test_filtered_events_never_hold_the_cursor(kind):
    await kind.start()
    await kind.prepare()
    chosen = kind.sink(events=EventFilter(exclude=("MESSAGE_CREATE",)))
    async with Stage(chosen) as stage:
        await stage.available()
        stage.append_messages(50)
        await stage.settled()
        assert stage.source.acked == 50
        assert stage.sink.statistics()["filtered"] == 50
    assert await kind.stored() == []


async def test_a_server_that_is_killed_and_comes_back_loses_nothing(kind):
    await kind.start()
    await kind.prepare()
    async with Stage(kind.sink()) as stage:
        async with traffic(stage):
            for _ in range(2):
                await acknowledged(stage, 500)
                kind.server.kill()
                await stage.away()
                assert not stage.sink.available
                await kind.start()
                await acknowledged(stage, 500)
                await stage.available()
        await stage.settled(within=60)
    twice = assert_kept(stage, await kind.stored(), twice=kind.twice)
    print(f"{kind.name}: {len(stage.events)} events over two kills, {twice} stored twice")


async def test_while_the_server_is_away_at_the_start_nobody_identifies(kind, open_stage):
    """A pod of the shard program waits with its grants unspent and says for what; then everything sent is stored."""
    kind.server = kind.make_server()
    stage = await open_stage(shards=2, bot={"id": BOT})
    pod = stage.start(sink=kind.sink(), grant=2)
    await until(lambda: pod.pod.shards and str(kind.server.port) in pod.message(), within=20)
    print(f"{kind.name}: {pod.message()}")
    await stays(lambda: not stage.control.identifies(), seconds=0.5)
    await kind.start()
    await kind.prepare()
    await pod.ready(within=60)
    assert len(stage.control.identifies()) == stage.status().identifies_spent == 2
    stage.load(100)
    await stage.sim.wait_for(lambda: not any(load.running for load in stage.control.loads()))
    sent = Counter(entry.digest for entry in stage.control.ledger())
    await until(lambda: pod.sink.statistics()["acknowledged"] == sent.total(), within=60)
    await pod.stop()
    assert Counter(sha256(found.data).digest() for found in await kind.stored()) == sent


async def test_wrong_credentials_are_told_in_the_servers_words_and_read_again(kind, tmp_path):
    folder = tmp_path / "events" / "credentials"
    folder.mkdir(parents=True)
    (folder / "username").write_text(f"{kind.user}\n")
    (folder / "password").write_text(f"{SECRET}-wrong\n")
    await kind.start_with_login()
    async with Stage(kind.sink(secrets=tmp_path)) as stage:
        stage.append_messages(10)
        await stage.away(kind.login_words)
        print(f"{kind.name}: {stage.sink.message}")
        assert SECRET not in stage.sink.message
        assert base64.b64encode(f"{kind.user}:{SECRET}-wrong".encode()).decode() not in stage.sink.message
        (folder / "password").write_text(f"{SECRET}\n")
        await stage.settled(within=60)


async def test_a_missing_secret_is_told(kind, tmp_path):
    kind.server = kind.make_server()
    async with Stage(kind.sink(secrets=tmp_path)) as stage:
        await stage.away("the Secret with the credentials is not there, or empty")


async def test_a_very_large_event_arrives_or_is_told_to_be_too_large(kind):
    await kind.start()
    await kind.prepare()
    async with Stage(kind.sink()) as stage:
        stage.append(message(1), message(2, size=3 * 2**20), message(3))
        await stage.settled(within=60)
        assert stage.source.acked == 3
    stored = await kind.stored()
    assert [found.attributes["seq"] for found in stored] == ["1", "2", "3"]
    if stage.sink.statistics()["oversize"]:
        assert stored[1].attributes["type"] == "shardwright.oversize"
        assert len(stored[1].data) < 300
    else:
        assert stored[1].data == stage.events[stored[1].id].payload
    print(f"{kind.name}: 3 MB {stored[1].attributes['type']}")


async def test_a_server_that_does_not_answer_costs_bounded_memory(kind):
    await kind.start()
    await kind.prepare()
    async with Stage(kind.sink()) as stage:
        stage.append_messages(1)
        await stage.settled()
        kind.server.freeze()
        before = resident()
        for _ in range(64):
            stage.append_messages(32, size=32 * 1024)
        await stage.away()
        window = stage.sink.flow.window
        assert window.under_way <= stage.sink.limits.events
        assert window.size <= stage.sink.limits.size + 64 * 32 * 1024
        grown = (resident() - before) / 2**20
        print(f"{kind.name}: 64 MB wait, {window.under_way} under way; the process grew by {grown:.0f} MB")
        assert grown < 64 + 64
        kind.server.thaw()
        await stage.settled(within=60)
    assert_kept(stage, await kind.stored(), twice=kind.twice)


async def test_a_server_that_throttles_is_told_and_gets_all_in_the_end(kind):
    await kind.start()
    await kind.prepare()
    async with Stage(kind.sink()) as stage:
        await stage.available()
        async with kind.throttled():
            for _ in range(20):
                for source in stage.sources:
                    stage.append_messages(5, source=source, size=1000)
                await asyncio.sleep(0.02)  # several requests, not one
            await stage.away(kind.throttled_words)
            print(f"{kind.name}: {stage.sink.message}")
        await stage.settled(within=60)
        await stage.available()
    assert_kept(stage, await kind.stored(), ordered=False)


async def test_two_sinks_and_one_that_drops_holds_nothing_back(kind):
    """The cursor goes by the blocking sink; the dropping one tells what it dropped, and sends what waits."""
    await kind.start()
    await kind.prepare()
    limits = replace(kind.limits, waiting=64 * 1024, events=20)
    async with Stage(kind.sink(overflow=Overflow.DROP_OLDEST, limits=limits)) as stage:
        other = MemorySink(name="other")
        other.attach(stage.journal.reader(other.wake))
        stage.append_messages(10)
        await stage.settled()
        kind.server.kill()
        for _ in range(40):
            stage.append_messages(5, size=4000)
        assert stage.source.acked == 210
        await stage.away("events are dropped (DropOldest): ")
        print(f"{kind.name}: {stage.sink.message}")
        await kind.start()
        await stage.settled(within=60)
        await stage.available()
        await until(lambda: "dropped" not in stage.sink.message)
        dropped = stage.sink.statistics()["dropped"]
        assert 0 < dropped < 200
    assert len(other.events) == 210
    seqs = {int(found.attributes["seq"]) for found in await kind.stored()}
    assert len(seqs) == 210 - dropped
    assert 210 in seqs


async def test_what_is_too_old_is_counted_and_not_sent(kind):
    await kind.start()
    await kind.prepare()
    async with Stage(kind.sink(max_age={"MESSAGE_CREATE": "3s"})) as stage:
        stage.append(*[message(seq) for seq in range(1, 6)])
        stage.append(Event(6, "GUILD_CREATE", b'{"t":"GUILD_CREATE","s":6,"op":0,"d":{}}'))
        await stage.settled()
        assert stage.source.acked == 6
        assert stage.sink.statistics()["expired"] == 5
    assert [found.attributes["seq"] for found in await kind.stored()] == ["6"]


@pytest.mark.parametrize("kind", [each for each in KINDS if each.missing_words], indirect=True, ids=NAME)
async def test_what_is_missing_is_named_and_used_once_it_is_there(kind):
    await kind.start()
    async with Stage(kind.sink()) as stage:
        stage.append_messages(10)
        await stage.away(kind.missing_words)
        print(f"{kind.name}: {stage.sink.message}")
        await kind.prepare()
        await stage.settled(within=60)
    assert_kept(stage, await kind.stored())
