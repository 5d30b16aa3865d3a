"""Probes and metrics over real HTTP: truthful, complete from the start, and counted right."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from component.shard.stage import until
from shardwright_api.discord import EVENT_NAMES, CloseCode
from shardwright_simulator import Action, Fault, Trigger


async def samples(get):
    """Scrape, and give values by name and labels (as the text has them: in the order of their names)."""
    status, text = await get("/metrics")
    assert status == 200
    families = text_string_to_metric_families(text)
    return {(s.name.removeprefix("discord_gateway_"), *s.labels.values()): s.value for f in families for s in f.samples}


async def test_a_standby_is_alive_and_not_ready(open_stage, open_door):
    """/healthz never depends on Discord; /readyz says that another pod holds the range."""
    stage = await open_stage()
    await stage.started("a")
    get = await open_door(stage.start("b", active=False))
    assert await get("/healthz") == (200, "ok\n")
    status, text = await get("/readyz")
    assert (status, "standing by" in text) == (503, True)


async def test_ready_means_every_shard_and_every_sink(open_stage, open_door):
    """One shard that waits, or one sink that is away, makes the pod unready, and the answer names it."""
    stage = await open_stage(shards=2)
    pod = stage.start(grant=1)
    get = await open_door(pod)
    await stage.sim.wait_for(stage.control.sessions)
    await until(lambda: pod.pod.shards[0].session.state.name == "LIVE")
    status, text = await get("/readyz")
    assert (status, text) == (503, "shard 1 waiting (waits for the operator's grant to identify)\n")
    stage.cluster.grant(pod.range, 1)
    await pod.ready()
    assert await get("/readyz") == (200, "ok\n")
    pod.sink.leave("no route")
    assert await get("/readyz") == (503, "sinks not available (memory: no route)\n")
    pod.sink.blocking = False  # one that drops
    assert await get("/readyz") == (200, "ok\n")
    pod.sink.blocking = True
    pod.sink.come_back()
    assert (await get("/readyz"))[0] == 200


async def test_every_series_is_there_from_the_start(open_stage, open_door):
    """Event names, close codes and states are zero, not absent, before anything happened: a `rate()` sees the first one."""
    stage = await open_stage()
    pod = stage.start()
    get = await open_door(pod)
    await until(lambda: pod.pod.shards)
    found = await samples(get)
    assert {key[1] for key in found if key[0] == "events_total"} == EVENT_NAMES | {"other"}
    assert {f"{code}" for code in (0, 1000, 1001, *map(int, CloseCode))} <= {
        key[1] for key in found if key[0] == "disconnects_total"
    }
    assert {value for key, value in found.items() if key[0] in {"events_total", "disconnects_total"}} == {0.0}
    assert found["shards", "waiting"] == 1
    assert found["identifies_total", "0"] == 0


async def test_the_counters_are_right(open_stage, open_door):
    """After a known load and known faults the metrics say exactly that."""
    stage = await open_stage(shards=2)
    pod = await stage.started()
    get = await open_door(pod)
    stage.load(200)
    await stage.arrived()
    stage.control.add_fault(Fault(action=Action.CLOSE, code=4000, shards=[0]))
    stage.control.add_fault(Fault(action=Action.ABORT, shards=[1]))
    await until(lambda: pod.count("resumed") == 2)
    found = await samples(get)
    names = [e.t for e in stage.control.ledger()]
    for name in ("READY", "RESUMED", "GUILD_CREATE", "MESSAGE_CREATE", "PRESENCE_UPDATE"):
        assert found["events_total", name] == names.count(name)
    assert found["events_total", "other"] == names.count("SHARDWRIGHT_FUTURE_EVENT")
    assert (found["disconnects_total", "4000"], found["disconnects_total", "0"]) == (1, 1)
    for shard in ("0", "1"):
        assert found["identifies_total", shard] == found["resumes_total", shard] == found["resumed_total", shard] == 1
        assert found["heartbeats_total", shard] >= 1
        assert 0 <= found["heartbeat_latency_seconds", shard] < 1
        assert found["guilds", shard] == 2
        assert 0 < found["inflater_bytes_total", "in", shard] < found["inflater_bytes_total", "out", shard]
    assert (found["ready",], found["shards", "ready"]) == (1, 2)
    assert found["sink_events_total", "published", "memory"] == len(pod.sink.events)
    assert (found["buffered_events",], found["sink_pending", "memory"]) == (0, 0)


async def test_the_buffer_and_a_sink_that_is_away_are_shown(open_stage, open_door):
    """What waits for a sink is a number of events and of bytes."""
    stage = await open_stage()
    pod = await stage.started()
    get = await open_door(pod)
    await stage.arrived()
    pod.sink.leave()
    stage.load(50)
    await until(lambda: pod.pod.journal.statistics()["events"] == 50)
    found = await samples(get)
    assert found["buffered_events",] == found["sink_pending", "memory"] == 50
    assert found["sink_available", "memory"] == 0
    assert found["buffered_bytes",] == sum(e.size for e in stage.control.ledger() if not e.flags)
    pod.sink.come_back()
    await stage.arrived()


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
async def test_a_pod_answers_while_it_is_busy(open_stage, open_door, path):
    """Under load, and with all sinks away, the probes are answered."""
    stage = await open_stage(shards=2)
    pod = await stage.started()
    get = await open_door(pod)
    stage.control.add_fault(Fault(action=Action.HOLD_ANSWER, at=Trigger.RESUME, delay=0.3))
    stage.load(2000, rate=4000)
    stage.control.add_fault(Fault(action=Action.ABORT))
    pod.sink.leave()
    assert (await get(path))[0] == 200
    pod.sink.come_back()
    await stage.arrived()
