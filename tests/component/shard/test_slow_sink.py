"""A sink that is slow or away: memory is bounded, heartbeats go on, and whatever waits at Discord is fetched later."""

import pytest

from component.shard.stage import stays, until
from shardwright_simulator import Action, Fault

LIMIT = 100_000
PLENTY = {"rate": 5000, "sizes": [(2_000, 1)]}
"""More than the limit in a fraction of a second."""


async def full(stage, pod, count=300):
    """Send more than the pod may hold, and wait until it stops reading."""
    stage.load(count, **PLENTY)
    await until(lambda: pod.pod.journal.full)


async def test_a_short_pause_keeps_the_connection(open_stage):
    """At the memory limit reading pauses; acknowledged in time, the same connection goes on and nothing is lost."""
    stage = await open_stage()
    pod = await stage.started(memory_limit=LIMIT)
    await stage.arrived()
    pod.sink.hold()
    await full(stage, pod)
    assert "the buffer is full" in pod.pod.why_not_ready()
    await stays(lambda: pod.pod.journal.size < LIMIT + 600_000, seconds=0.3)
    pod.sink.release()
    await pod.ready()
    await stage.arrived()
    assert pod.count("resumes") == 0


@pytest.mark.parametrize("way", ["slow", "away"])
async def test_a_long_pause_ends_in_a_resume(open_stage, way):
    """Paused for longer than a heartbeat interval the socket is closed with 4000, and resumed when there is room."""
    stage = await open_stage(shards=2, heartbeat_interval=0.5)
    pod = await stage.started(memory_limit=LIMIT)
    await stage.arrived()
    leave, come_back = {"slow": (pod.sink.hold, pod.sink.release), "away": (pod.sink.leave, pod.sink.come_back)}[way]
    leave()
    beats = pod.count("heartbeats")
    await full(stage, pod, 600)
    await until(lambda: pod.count("heartbeats") >= beats + 2)
    await until(lambda: not stage.control.connections())
    assert "paused for longer than a heartbeat interval" in pod.pod.shards[0].session.last_reason
    await stays(lambda: not stage.control.connections(), seconds=0.3)
    assert (len(stage.control.sessions()), stage.closes) == (2, [4000] * 2)
    come_back()
    await pod.ready()
    await stage.arrived()
    assert (pod.count("zombies"), pod.count("resumed"), pod.count("identifies")) == (0, 2, 2)


@pytest.mark.usefixtures("no_waits")
async def test_a_replay_that_is_paused_again_and_again_is_not_in_vain(open_stage, monkeypatch):
    """Each pause in a long replay brings it further: the session is not given up, however often that happens."""
    monkeypatch.setattr("shardwright_shard.session.MAX_FAILED_RESUMES", 2)
    stage = await open_stage(heartbeat_interval=0.15)
    pod = await stage.started(memory_limit=LIMIT)
    await stage.arrived()
    pod.sink.hold()
    await full(stage, pod, 2000)
    for _ in range(4):
        await until(lambda: not stage.control.connections())
        resumes = pod.count("resumes")
        pod.sink.release(pod.sink.reader.next)
        await until(lambda before=resumes: pod.count("resumes") > before and pod.pod.journal.full)
    pod.sink.release()
    await stage.arrived()
    assert pod.count("identifies") == 1


async def test_a_session_is_resumed_while_a_sink_is_away_if_there_is_room(open_stage):
    """A lost socket is resumed at once: what Discord holds for us is little, our memory is more."""
    stage = await open_stage()
    pod = await stage.started()
    await stage.arrived()
    pod.sink.leave()
    stage.control.add_fault(Fault(action=Action.ABORT))
    await until(lambda: pod.count("resumed") == 1)
    assert not pod.pod.ready
    stage.load(200)
    await until(lambda: pod.pod.journal.statistics()["events"] >= 200)
    pod.sink.come_back()
    await stage.arrived()
    await pod.ready()


async def test_a_socket_that_is_lost_during_a_pause_is_resumed_when_there_is_room(open_stage):
    """Who does not read does not see the end of a socket either: it is seen, and resumed, as soon as reading goes on."""
    stage = await open_stage()
    pod = await stage.started(memory_limit=LIMIT)
    await stage.arrived()
    pod.sink.hold()
    await full(stage, pod)
    stage.control.add_fault(Fault(action=Action.ABORT))
    await until(lambda: not stage.control.connections())
    await stays(lambda: not stage.control.connections(), seconds=0.3)
    pod.sink.release()
    await stage.arrived()
    assert (pod.count("resumed"), pod.count("identifies")) == (1, 1)


async def test_a_connection_that_is_made_while_the_buffer_fills_up_does_not_read(open_stage):
    """One shard fills the buffer while the other's RESUME is on its way: neither reads on without a bound."""
    stage = await open_stage(shards=2, latency=(0.05, 0.05))
    pod = await stage.started(memory_limit=LIMIT)
    await stage.arrived()
    pod.sink.hold()
    stage.control.add_fault(Fault(action=Action.ABORT, shards=[1]))
    stage.load(2000, **PLENTY)
    await until(lambda: pod.pod.journal.full)
    await stays(lambda: pod.pod.journal.size < LIMIT + 2 * 600_000, seconds=0.6)
    pod.sink.release()
    await pod.ready()
    await stage.arrived()
    assert pod.count("identifies") == 2


async def test_refused_events_are_sent_again(open_stage):
    """A sink that refuses reads the same events once more: each arrives once, in order."""
    stage = await open_stage()
    pod = await stage.started()
    await stage.arrived()
    pod.sink.refuse(3)
    stage.load(300)
    await stage.arrived()


async def test_a_crash_with_a_full_buffer_loses_nothing(open_stage):
    """What stood in memory is replayed: Discord still has everything after the checkpoint."""
    stage = await open_stage()
    pod = await stage.started(memory_limit=LIMIT)
    await until(lambda: stage.rows()[0].session)
    pod.sink.hold()
    await full(stage, pod)
    await pod.crash()
    await stage.start().ready()
    await stage.arrived(twice=True)
    assert len(stage.control.identifies()) == 1
