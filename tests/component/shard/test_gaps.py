"""Discord ends a session: what may be lost is told before the next READY, to every sink, whoever lives to tell it."""

import json
from datetime import datetime

import pytest

from component.shard.stage import GAP, now, until
from shardwright_shard.sinks.memory import MemorySink
from shardwright_simulator import Action, Fault, Trigger


def unix(text):
    return datetime.fromisoformat(text).timestamp()


def gaps(*pods):
    """Every gap as it was told, with its id."""
    found = [(source, event) for pod in pods for source, event in pod.sink.events if event.name == GAP]
    return [(source.id_prefix + event.last, json.loads(event.payload)) for source, event in found]


def assert_told(stage, *pods):
    """Every event that no sink has lies inside a gap: by its session and sequence, and by its time."""
    received = stage.times_received()
    lost = [e for e in stage.control.ledger() if e.t != "RESUMED" and (e.session, e.seq) not in received]
    told = [gap for _, gap in gaps(*pods)]
    for entry in lost:
        around = [gap for gap in told if gap["session"] == entry.session and gap["seq"] < entry.seq]
        assert any(unix(gap["time"]) - 0.01 <= entry.time <= unix(gap["next_ready"]) for gap in around), entry
    return lost


@pytest.mark.usefixtures("no_waits")
async def test_what_discord_drops_lies_inside_the_gap(open_stage):
    stage = await open_stage(shards=2)
    pod = await stage.started(grant=4)
    await stage.arrived()
    stage.load(0, rate=500)
    await stage.sim.wait_for(lambda: stage.control.state().ledger.last > 200)
    old = stage.sessions()
    stage.given_up = set(old.values())
    for session in old.values():
        stage.control.end_session(session)
    await until(lambda: len(gaps(pod)) == 2 and pod.pod.ready)
    stage.control.stop_loads()
    await stage.arrived()
    lost = assert_told(stage, pod)
    print(f"\n{len(lost)} events lost, all inside of {len(gaps(pod))} gaps")
    assert {gap["reason"] for _, gap in gaps(pod)} == {"op 9"}
    assert all(name == f"{gap['bot']}:{gap['next_session']}:gap" for name, gap in gaps(pod))
    await until(lambda: all(row.gap is None for row in stage.rows()))


@pytest.mark.usefixtures("no_waits")
async def test_a_replay_buffer_that_ran_over_while_nobody_was_there(open_stage):
    """The gap begins no later than what the last holder had acknowledged, of which its row gives the time."""
    stage = await open_stage(bot={"replay_limit": 20})
    first = await stage.started("a")
    stage.load(50)
    await stage.checkpointed()
    await first.crash()
    stage.given_up = set(stage.sessions().values())
    stage.load(100)
    await stage.sim.wait_for(lambda: not any(load.running for load in stage.control.loads()))
    second = stage.start("b", grant=1)
    stage.cluster.fence(first.range, "a")
    await second.ready()
    await stage.arrived()
    lost = assert_told(stage, first, second)
    assert len(lost) == 100
    ((_, gap),) = gaps(second)
    assert gap["seq"] == 53


@pytest.mark.usefixtures("no_waits")
async def test_a_pod_that_dies_before_its_sinks_know_the_gap_leaves_it_to_the_next(open_stage):
    """The tail that only the dead pod had is inside the gap that the next one tells, under the same id."""
    stage = await open_stage()
    sink = MemorySink()
    first = await stage.started("a", grant=2, sink=sink)
    await stage.checkpointed()
    sink.hold()
    stage.load(50)
    await stage.arrived()
    stage.given_up = set(stage.sessions().values())
    stage.control.end_session(stage.sessions()[0])
    await until(lambda: gaps(first))
    await until(lambda: stage.rows()[0].gap is not None and stage.rows()[0].state == "ready")
    assert stage.rows()[0].gap.seq == 3
    await first.crash()
    second = stage.start("b")
    stage.cluster.fence(first.range, "a")
    await second.ready()
    await until(lambda: gaps(second))
    (before,), (after,) = gaps(first), gaps(second)
    assert before[0] == after[0]
    assert (before[1]["seq"], after[1]["seq"]) == (53, 3)
    assert len(stage.control.identifies()) == 2
    await until(lambda: stage.rows()[0].gap is None)


@pytest.mark.usefixtures("no_waits")
async def test_a_gap_whose_session_found_no_successor_yet_waits_in_the_row(open_stage):
    """Without a grant no READY comes: the row keeps the gap, and a pod without the session tells it."""
    stage = await open_stage()
    first = await stage.started("a")
    await stage.checkpointed()
    stage.given_up = set(stage.sessions().values())
    stage.control.add_fault(Fault(action=Action.INVALID_SESSION, at=Trigger.RESUME))
    stage.control.add_fault(Fault(action=Action.ABORT))
    await until(lambda: stage.rows()[0].session is None and stage.rows()[0].gap)
    second = stage.start("b")
    await until(lambda: not first.pod.shards)
    began = now()
    stage.cluster.grant(first.range, 1)
    await second.ready()
    ((_, gap),) = gaps(second)
    print(f"\ntold {now() - began:.2f} s after the grant: {gap}")
    assert gap["seq"] == 3
    await stage.arrived()
