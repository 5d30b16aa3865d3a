"""What the checkpoint says, and what a crash, a hand-over or a change of the configuration makes of it."""

import pytest

from component.shard.stage import now, stays, until
from shardwright_api.resources import Compression
from shardwright_shard import pod as pod_module
from shardwright_shard.sinks.memory import MemorySink
from shardwright_simulator import Action, Fault


def seqs(stage):
    """Read the sequences of the checkpoint."""
    return [row.seq for row in stage.rows()]


async def test_the_checkpoint_moves_with_the_acknowledgements(open_stage):
    """A sink that holds its acknowledgements holds the checkpoint; what it acknowledges moves it exactly so far."""
    stage = await open_stage()
    pod = await stage.started()
    await stage.checkpointed()
    before = seqs(stage)
    pod.sink.hold()
    stage.load(100)
    await stage.arrived()
    await stays(lambda: seqs(stage) == before, seconds=0.6)
    pod.sink.release(pod.sink.reader.acked + 37)
    await until(lambda: seqs(stage) == [before[0] + 37])
    pod.sink.release()
    await until(lambda: seqs(stage) == [before[0] + 100])


async def test_heartbeats_name_what_the_checkpoint_holds(open_stage):
    """Should Discord trim its replay buffer by a heartbeat's `d`, a crash still finds everything after the checkpoint."""
    stage = await open_stage(trim_by_heartbeat=True, heartbeat_interval=0.1)
    pod = await stage.started()
    await stage.arrived()
    pod.sink.hold()
    stage.load(200)
    await until(lambda: pod.pod.journal.statistics()["events"] == 200)
    beats = pod.count("heartbeats")
    await until(lambda: pod.count("heartbeats") > beats + 3)
    await pod.crash()
    await (stage.start()).ready()
    await stage.arrived(twice=True)
    assert len(stage.control.identifies()) == 1
    assert {resume.replayed >= 200 for resume in stage.control.resumes()} == {True}


async def test_a_crashed_container_resumes_from_the_checkpoint(open_stage, compression):
    """The same pod's next container resumes every shard: nothing lost, what comes twice is the same, no IDENTIFY."""
    stage = await open_stage(shards=3, compression=compression)
    pod = await stage.started()
    stage.load(300)
    await stage.arrived()
    pod.sink.hold()
    stage.load(300)
    await until(lambda: pod.pod.journal.statistics()["events"] == 300)
    await pod.crash()
    stage.load(300)
    await stage.start().ready()
    await stage.arrived(twice=True)
    assert len(stage.control.identifies()) == 3
    assert len(stage.control.resumes()) == 3
    assert sum(count > 1 for count in stage.times_received().values()) >= 300


async def test_a_crash_before_ready_is_acknowledged_resumes_from_the_beginning(open_stage):
    """The session is in the checkpoint before its READY is acknowledged: the replay brings READY and the guilds."""
    stage = await open_stage(bot={"guilds": 7})
    sink = MemorySink()
    sink.hold()
    pod = await stage.started(sink=sink)
    await until(lambda: stage.rows()[0].session is not None)
    assert seqs(stage) in ([None], [0])
    await pod.crash()
    second = stage.start()
    await second.ready()
    await stage.arrived(twice=True)
    assert len(stage.control.identifies()) == 1
    assert [event.name for _, event in second.sink.events][:2] == ["READY", "GUILD_CREATE"]
    await until(lambda: stage.rows()[0].guilds == 7)


async def test_a_hand_over_resumes_every_shard_on_the_other_pod(open_stage, compression):
    """A closes with 4000 and writes its cursors, B resumes: no IDENTIFY, nothing lost or twice, silent for a moment only."""
    stage = await open_stage(shards=4, compression=compression)
    first = await stage.started("a")
    second = stage.start("b", active=False)
    await until(lambda: "b" in stage.status().standby and stage.status().standby["b"].sinks_available)
    stage.load(1000)
    await stage.sim.wait_for(lambda: stage.control.state().ledger.last > 300)
    begun = now()
    stage.cluster.activate(first.range, "b")
    await second.ready()
    assert now() - begun < 2.0
    assert stage.status().holder == "b"
    assert "standing by" in first.pod.why_not_ready()
    assert stage.closes == [4000] * 4
    await stage.arrived()
    assert len(stage.control.identifies()) == len(stage.control.resumes()) == 4
    assert not first.task.done()


async def test_a_hand_over_and_back(open_stage):
    """A warm standby takes its range back as it was given: the sessions are still the same."""
    stage = await open_stage(shards=2)
    first = await stage.started("a")
    sessions = stage.sessions()
    second = stage.start("b", active=False)
    stage.load(1000)
    for pod, other in ((second, first), (first, second), (second, first)):
        stage.cluster.activate(pod.range, pod.uid)
        await pod.ready()
        await until(lambda other=other: not other.pod.shards)
    await stage.arrived()
    assert stage.sessions() == sessions
    assert len(stage.control.identifies()) == 2


async def test_what_is_not_acknowledged_at_a_hand_over_is_replayed_to_the_next_holder(open_stage, monkeypatch):
    """A release waits a while for the sinks, and then writes the last acknowledged sequence, not the last received."""
    monkeypatch.setattr(pod_module, "DRAIN_TIMEOUT", 0.2)
    stage = await open_stage()
    first = await stage.started("a")
    await stage.arrived()
    acked = first.pod.shards[0].session.resumable.source.acked
    first.sink.hold()
    second = stage.start("b", active=False)
    stage.load(100)
    await stage.sim.wait_for(lambda: not stage.control.loads()[-1].running)
    stage.cluster.activate(first.range, "b")
    await second.ready()
    assert stage.control.resumes()[0].seq == acked
    await stage.arrived(twice=True)


@pytest.mark.usefixtures("no_waits")
async def test_a_session_keeps_its_compression_until_its_next_identify(open_stage):
    """A resume must use the query of its session, whatever the configuration says by now; an IDENTIFY takes the new one."""
    stage = await open_stage(compression=Compression.ZLIB)
    first = await stage.started("a")
    stage.change_config(compression=Compression.ZSTD)
    second = stage.start("b")
    await until(lambda: not first.pod.shards)
    await second.ready()
    assert [c.compression for c in stage.control.connections()] == ["zlib-stream"]
    stage.load(100)
    await stage.arrived()
    stage.control.end_session(stage.sessions()[0])
    stage.cluster.grant(first.range, 1)
    await stage.sim.wait_for(lambda: len(stage.control.identifies()) == 2)
    await second.ready()
    assert [c.compression for c in stage.control.connections()] == ["zstd-stream"]
    stage.load(100)
    await stage.arrived()


async def test_a_dead_pod_is_fenced_and_its_range_resumed(open_stage):
    """The operator declares the holder dead: the other pod takes the range and resumes from the last checkpoint."""
    stage = await open_stage(shards=2)
    first = await stage.started("a")
    second = stage.start("b", active=False)
    stage.load(400)
    await stage.sim.wait_for(lambda: stage.control.state().ledger.last > 200)
    await first.crash()
    stage.cluster.activate(first.range, "b")
    await stays(lambda: not second.pod.shards, seconds=0.2)
    stage.cluster.fence(first.range, "a")
    await second.ready()
    await stage.arrived(twice=True)
    assert len(stage.control.identifies()) == 2
    assert stage.status().holder == "b"


@pytest.mark.usefixtures("no_waits")
async def test_a_session_that_is_gone_at_a_hand_over_is_replaced_by_grant(open_stage):
    """Discord dropped the session while nobody was connected: op 9, and one IDENTIFY from the standing grant."""
    stage = await open_stage()
    first = await stage.started("a", grant=2)
    await stage.arrived()
    await first.stop()
    stage.control.end_session(stage.sessions()[0])
    second = stage.start("b")
    await second.ready()
    assert len(stage.control.identifies()) == 2
    stage.load(50)
    await stage.arrived()


async def test_guilds_are_counted_on_across_a_hand_over(open_stage):
    """The row's number of guilds is taken over: READY is not sent again."""
    stage = await open_stage(bot={"guilds": 9})
    first = await stage.started("a")
    await stage.arrived()
    second = stage.start("b")
    await until(lambda: not first.pod.shards)
    await second.ready()
    stage.control.add_fault(Fault(action=Action.RECONNECT))
    stage.load(2, mix={"GUILD_CREATE": 1})
    await stage.arrived()
    await until(lambda: stage.rows()[0].guilds == 11)
