"""The load generator: pace, mix, aim, twins, and that intents are respected."""

import json
from collections import Counter

import pytest

from shardwright_api.discord import Intent
from shardwright_api.sharding import shard_of_guild
from shardwright_simulator import BotConfig, ControlError, LoadSpec
from shardwright_simulator.errors import NotFoundError
from shardwright_simulator.identify import DEFINED_INTENTS


def entries(world):
    return [entry for entry in world.control.ledger() if not entry.flags or entry.flags == "twin"]


@pytest.fixture
def four(make_world):
    """A world with four shards that see everything."""
    world = make_world(bots=[BotConfig(guilds=8, shards=4, guild_bytes=100)], identify_window=0)
    world.shards = [world.ready(shard, intents=DEFINED_INTENTS) for shard in range(4)]
    return world


@pytest.mark.parametrize("rate", [0.5, 3, 50, 2_000])
def test_it_keeps_its_pace(four, rate):
    load = four.control.start_load(LoadSpec(rate=rate, seconds=10))
    four.advance(11)
    assert load.events == pytest.approx(rate * 10, abs=1)
    assert not load.running
    assert load.skipped == 0


def test_it_ends_after_its_count(four):
    load = four.control.start_load(LoadSpec(rate=1_000, count=77))
    four.advance(5)
    assert (load.events, load.running) == (77, False)


def test_a_stall_is_not_followed_by_a_flood(four):
    load = four.control.start_load(LoadSpec(rate=100))
    four.now += 60
    four.gateway.timers.run(four.now)
    assert load.events == 100
    assert load.skipped == 5_900


def test_it_can_be_stopped(four):
    load = four.control.start_load(LoadSpec(rate=100))
    four.advance(1)
    four.control.stop_load(load.id)
    events = load.events
    four.advance(5)
    assert load.events == events
    with pytest.raises(NotFoundError):
        four.control.stop_load(99)


def test_all_shards_get_the_same(four):
    four.control.start_load(LoadSpec(rate=400, count=400, mix={"MESSAGE_CREATE": 1}))
    four.advance(2)
    assert Counter(entry.shard for entry in entries(four)) == dict.fromkeys(range(4), 100)


def test_it_can_be_aimed_at_shards(four):
    four.control.start_load(LoadSpec(rate=400, count=40, shards=[1, 3], mix={"MESSAGE_CREATE": 1}))
    four.advance(2)
    assert Counter(entry.shard for entry in entries(four)) == {1: 20, 3: 20}


def test_events_lie_on_the_shard_of_their_guild(four):
    four.control.start_load(LoadSpec(rate=400, count=100, mix={"MESSAGE_CREATE": 1}))
    four.advance(2)
    for number, client in enumerate(four.shards):
        for message in client.messages:
            if message["t"] == "MESSAGE_CREATE":
                assert shard_of_guild(int(message["d"]["guild_id"]), 4) == number


def test_direct_messages_go_to_shard_0(four):
    four.control.start_load(LoadSpec(rate=400, count=10, mix={"DIRECT_MESSAGE": 1}))
    four.advance(2)
    assert {(entry.shard, entry.t) for entry in entries(four)} == {(0, "MESSAGE_CREATE")}
    assert "guild_id" not in four.shards[0].messages[-1]["d"]


def test_every_event_has_a_serial_of_its_own(four):
    four.control.start_load(LoadSpec(rate=400, count=200))
    four.advance(2)
    serials = [entry.serial for entry in entries(four)]
    assert len(set(serials)) == len(serials)
    sent = [
        m["d"]["shardwright_serial"] for client in four.shards for m in client.messages if m["s"] and m["t"] != "READY"
    ]
    assert set(serials) <= set(sent)


def test_twins_are_the_same_byte_for_byte_and_follow_each_other(four):
    four.control.start_load(LoadSpec(rate=400, count=20, twins=1.0))
    four.advance(2)
    twins = [entry for entry in entries(four) if entry.flags == "twin"]
    assert len(twins) == 20
    for twin in twins:
        first, second = (
            json.dumps(m["d"]) for m in four.shards[twin.shard].messages if m["s"] in (twin.seq - 1, twin.seq)
        )
        assert first == second
        assert {e.serial for e in entries(four) if e.session == twin.session and e.seq in (twin.seq - 1, twin.seq)} == {
            twin.serial
        }


def test_intents_are_respected(make_world):
    world = make_world(bots=[BotConfig(guilds=8, shards=1)])
    client = world.ready(0, 1, intents=int(Intent.GUILD_MESSAGE_TYPING))
    load = world.control.start_load(LoadSpec(rate=1_000, count=500))
    world.advance(2)
    assert set(client.events) == {"READY", "TYPING_START", "INTERACTION_CREATE", "SHARDWRIGHT_FUTURE_EVENT"}
    assert load.unseen == 500 - load.copies


@pytest.mark.parametrize("intents", [513, 513 | int(Intent.MESSAGE_CONTENT)])
def test_content_is_empty_without_its_intent(make_world, intents):
    world = make_world(bots=[BotConfig(guilds=8, shards=1)])
    client = world.ready(0, 1, intents=intents)
    world.control.start_load(LoadSpec(rate=100, count=10, mix={"MESSAGE_CREATE": 1}, sizes=[(1_000, 1)]))
    world.advance(1)
    contents = {bool(m["d"]["content"]) for m in client.messages if m["t"] == "MESSAGE_CREATE"}
    assert contents == {bool(intents & Intent.MESSAGE_CONTENT)}


def test_two_sessions_of_one_shard_and_other_counts_get_copies(make_world):
    world = make_world(bots=[BotConfig(guilds=8, shards=1)], identify_window=0)
    for shard, total in ((0, 1), (0, 1), (0, 2), (1, 2)):
        world.ready(shard, total)
    load = world.control.start_load(LoadSpec(rate=100, count=10, mix={"MESSAGE_CREATE": 1}))
    world.advance(1)
    assert load.copies == 30
    assert set(Counter(entry.serial for entry in entries(world)).values()) == {3}


def test_events_of_a_session_without_a_connection_are_made_as_well(world):
    client = world.ready()
    client.lose()
    world.control.start_load(LoadSpec(rate=100, count=10, shards=[0], mix={"MESSAGE_CREATE": 1}))
    world.advance(1)
    assert len(entries(world)) == 10
    again = world.connect()
    again.resume(client.session, 3)
    assert len(again.events) == 11


def test_a_shard_without_guilds_sees_nothing(make_world):
    world = make_world(bots=[BotConfig(guilds=0, shards=2)])
    world.ready(0, 2)
    load = world.control.start_load(LoadSpec(rate=100, count=10, mix={"MESSAGE_CREATE": 1}))
    world.advance(1)
    assert load.unseen == 10


@pytest.mark.parametrize("wrong", [
    {"rate": 0}, {"twins": 2}, {"mix": {}}, {"mix": {"bad name": 1}}, {"mix": {"X": 0}}, {"mix": {"X": -1}},
    {"sizes": []}, {"sizes": [(9_000_000, 1)]}, {"seconds": -1}, {"shards": []},
])  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ControlError):
        LoadSpec(**wrong)


def test_an_unknown_bot_is_refused(world):
    with pytest.raises(NotFoundError):
        world.control.start_load(LoadSpec(bot="5"))
