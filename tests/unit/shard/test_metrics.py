"""What a scrape says: gathered from plain integers, with every known series there from the start."""

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shardwright_api.discord import EVENT_NAMES, CloseCode
from shardwright_api.resources import ShardState
from shardwright_shard.metrics import make_registry
from shardwright_shard.sinks.memory import MemorySink
from unit.shard.messages import invalid
from unit.shard.stage import RANGE, TOKEN, Stage, config


@pytest.fixture
async def stage(monkeypatch):
    stage = Stage(monkeypatch)
    stage.sink = MemorySink(name="events")
    stage.one = stage.pod(sinks=[stage.sink])
    stage.registry = make_registry(stage.one)
    yield stage
    await stage.end()


async def hold(stage):
    stage.start(stage.one.run())
    stage.cluster.activate(RANGE, "a")
    stage.cluster.grant(RANGE, 4)
    await stage.until(lambda: stage.one.ready)


def scrape(stage):
    """Every sample by name and labels."""
    text = generate_latest(stage.registry).decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.name.startswith("discord_gateway_") for family in families)
    assert all(family.documentation.endswith(".") for family in families)
    return {
        (sample.name.removeprefix("discord_gateway_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_a_standby_can_be_scraped_even_before_it_has_seen_the_cluster(stage):
    found = scrape(stage)
    assert found["ready",] == 0
    assert found["shards", "ready"] == 0


async def test_every_known_label_value_is_there_from_the_start(stage):
    found = scrape(stage)
    assert {key[1] for key in found if key[0] == "events_total"} == {*EVENT_NAMES, "other"}
    assert {key[1] for key in found if key[0] == "shards"} == set(ShardState)
    codes = {key[1] for key in found if key[0] == "disconnects_total"}
    assert codes == {"0", "1000", "1001", *(str(int(code)) for code in CloseCode)}


async def test_a_holder_says_what_happened(stage):
    stage.discord.guilds = (1, 2, 3)
    await hold(stage)
    stage.discord.emit(0, count=7)
    stage.discord.emit(1, "SOME_NEW_EVENT", count=2)
    stage.discord.open(2).drop(4000)
    await stage.until(lambda: stage.one.ready)
    found = scrape(stage)
    assert found["ready",] == 1
    assert found["shards", "ready"] == 4
    assert found["events_total", "MESSAGE_CREATE"] == 7
    assert found["events_total", "other"] == 2
    assert found["events_total", "READY"] == 4
    assert found["disconnects_total", "4000"] == 1
    assert found["identifies_total", "2"] == 1
    assert found["resumes_total", "2"] == found["resumed_total", "2"] == 1
    assert found["guilds", "0"] == 3
    assert found["sink_available", "events"] == 1


async def test_the_buffer_and_the_sinks_are_seen(stage):
    await hold(stage)
    stage.sink.hold()
    stage.discord.emit(0, count=5)
    stage.sink.leave("no broker")
    found = scrape(stage)
    assert found["buffered_events",] == found["sink_pending", "events"] == 5
    assert found["buffered_bytes",] > 100
    assert found["sink_available", "events"] == 0
    assert found["ready",] == 0


async def test_the_spool_is_seen(monkeypatch, tmp_path):
    stage = Stage(monkeypatch, config=config(buffer_disk=1_000_000))
    stage.sink = MemorySink(name="events")
    stage.one = stage.pod(sinks=[stage.sink], state_dir=tmp_path)
    stage.registry = make_registry(stage.one)
    await hold(stage)
    stage.sink.leave("no broker")
    stage.discord.emit(0, count=5)
    await stage.settle(5)
    found = scrape(stage)
    assert (found["buffered_events",], found["buffered_bytes",], found["spool_events",]) == (0, 0, 5)
    assert found["spool_bytes",] > 100
    assert found["spool_full",] == found["reading_paused",] == found["checkpoint_failing",] == 0
    stage.discord.emit(0, count=50, data={"content": "x" * 20_000})
    await stage.settle(5)
    assert scrape(stage)["spool_full",] == 1
    await stage.end()


async def test_event_names_do_not_become_series_however_many_there_are(stage):
    await hold(stage)
    before = len(scrape(stage))
    for number in range(200):
        stage.discord.emit(0, f"INVENTED_{number}")
    assert len(scrape(stage)) == before


async def test_nothing_secret_is_said(stage):
    await hold(stage)
    stage.discord.open(0).push(invalid(resumable=False))
    assert TOKEN not in generate_latest(stage.registry).decode()
