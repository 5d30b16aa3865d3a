"""How a bot comes up: IDENTIFYs are granted, paid for, and sent one a bucket and window, in ascending order."""

from itertools import pairwise

import pytest

from component.shard.stage import now, stays, until
from shardwright_shard.coordination.bucket import WINDOW
from shardwright_shard.sinks.memory import MemorySink
from shardwright_simulator import Action, Fault, Trigger


def identified(stage):
    """List the shards in the order of their IDENTIFYs."""
    return [identify.shard for identify in stage.control.identifies()]


async def test_a_cold_start_over_buckets_breaks_no_rule(open_stage, compression):
    """Six shards over two buckets: the canary first, then all in ascending order, each IDENTIFY paid for once."""
    stage = await open_stage(shards=6, max_concurrency=2, compression=compression)
    pod = stage.start(grant=1)
    await stage.sim.wait_for(lambda: len(stage.control.sessions()) == 1)
    stage.cluster.grant(pod.range, 5)
    await pod.ready()
    shards = identified(stage)
    assert shards[0] == 0
    assert [[s for s in shards if s % 2 == bucket] for bucket in (0, 1)] == [[0, 2, 4], [1, 3, 5]]
    assert {identify.result for identify in stage.control.identifies()} == {"ready"}
    assert stage.status().identifies_spent == 6
    await stage.arrived()


async def test_the_canary_grant_goes_to_the_lowest_shard(open_stage):
    """With one grant only shard 0 connects; the others do not even open a socket."""
    stage = await open_stage(shards=4)
    pod = stage.start(grant=1)
    await stage.sim.wait_for(stage.control.identifies)
    await stays(lambda: len(stage.control.connections()) == 1, seconds=0.4)
    assert identified(stage) == [0]
    assert "grant" in pod.message(1)
    assert not pod.pod.ready


async def test_nothing_identifies_without_a_grant(open_stage):
    """A pod that was granted nothing opens no connection, and its rows say what it waits for."""
    stage = await open_stage(shards=2)
    stage.start()
    await until(lambda: [row.message for row in stage.rows()] == ["waits for the operator's grant to identify"] * 2)
    await stays(lambda: not stage.control.connections(), seconds=0.5)


async def test_nothing_identifies_while_on_hold(open_stage):
    """The emergency stop beats a grant; released, the shard goes on."""
    stage = await open_stage()
    name = stage.add_range(0, 0)
    stage.cluster.hold(name, on=True)
    pod = stage.start(name=name, grant=1)
    await until(lambda: stage.rows() and "hold" in pod.message())
    await stays(lambda: not stage.control.connections(), seconds=0.4)
    stage.cluster.hold(name, on=False)
    await pod.ready()
    assert stage.status().identifies_spent == 1


async def test_nothing_identifies_while_a_sink_is_away(open_stage):
    """An IDENTIFY needs the sinks: without them its events would wait in memory from the first on."""
    stage = await open_stage()
    sink = MemorySink()
    sink.leave("no route to the broker")
    pod = stage.start(grant=1, sink=sink)
    await until(lambda: stage.rows() and "no route to the broker" in pod.message())
    await stays(lambda: not stage.control.connections(), seconds=0.4)
    assert not stage.status().sinks[0].available
    sink.come_back()
    await pod.ready()
    await stage.arrived()


async def queued(stage, **settings):
    """Start a pod and wait until its shard has HELLO and waits for a long identify window."""
    pod = stage.start(grant=1, **settings)
    await until(lambda: stage.status().identifies_spent == 1)
    assert not stage.control.identifies()
    return pod


async def test_a_hold_while_queued_keeps_the_shard_from_identifying(open_stage):
    """The emergency stop works up to the last moment; what was paid for is used afterwards and not paid twice."""
    stage = await open_stage(identify_window=0.3)
    pod = await queued(stage)
    stage.cluster.hold(pod.range, on=True)
    await until(lambda: not stage.control.connections())
    await stays(lambda: not stage.control.identifies(), seconds=0.5)
    stage.cluster.hold(pod.range, on=False)
    await pod.ready()
    assert stage.status().identifies_spent == len(stage.control.identifies()) == 1


async def test_a_sink_that_leaves_while_queued_keeps_the_shard_from_identifying(open_stage):
    """The sinks are asked again right before the IDENTIFY."""
    stage = await open_stage(identify_window=0.3)
    pod = await queued(stage)
    pod.sink.leave()
    await until(lambda: not stage.control.connections())
    await stays(lambda: not stage.control.identifies(), seconds=0.5)
    pod.sink.come_back()
    await pod.ready()
    assert stage.status().identifies_spent == len(stage.control.identifies()) == 1


async def test_a_grant_that_is_taken_back_while_connecting_is_not_used(open_stage):
    """The grant is spent by compare-and-swap after HELLO: gone by then, the connection is dropped."""
    stage = await open_stage(latency=(0.1, 0.1))
    pod = stage.start(grant=1)
    await stage.sim.wait_for(stage.control.connections)
    stage.cluster.change(pod.range, identify_grant=0)
    await until(lambda: not stage.control.connections())
    await stays(lambda: not stage.control.connections(), seconds=0.5)
    assert not stage.control.identifies()
    assert stage.status().identifies_spent == 0
    stage.cluster.grant(pod.range, 1)
    await pod.ready()


async def test_a_paid_right_survives_a_lost_connection(open_stage):
    """A connection that breaks between payment and slot costs nothing: the next one uses what was paid."""
    stage = await open_stage(identify_window=0.3)
    pod = await queued(stage)
    stage.control.add_fault(Fault(action=Action.ABORT))
    await pod.ready()
    assert stage.status().identifies_spent == len(stage.control.identifies()) == 1


async def test_a_crash_loop_cannot_spend_more_than_was_granted(open_stage):
    """A container that dies after each IDENTIFY and comes back stops when its grants are spent."""
    stage = await open_stage()
    stage.control.add_fault(Fault(action=Action.HOLD_ANSWER, at=Trigger.IDENTIFY, times=0))
    name = stage.add_range(0, 0)
    stage.cluster.grant(name, 2)
    for number in (1, 2):
        pod = stage.start(name=name)
        await stage.sim.wait_for(lambda wanted=number: len(stage.control.identifies()) == wanted)
        await pod.crash()
    pod = stage.start(name=name)
    await until(lambda: pod.pod.shards and "grant" in pod.message())
    await stays(lambda: not stage.control.connections(), seconds=0.4)
    assert stage.control.bot().remaining == 998


async def test_two_pods_share_their_bots_buckets(open_stage):
    """Two ranges of one bot at max_concurrency 1: one IDENTIFY a window, whichever pod sends it."""
    stage = await open_stage(shards=4, max_concurrency=1, identify_window=0.1)
    pods = [stage.start(f"p{first}", name=stage.add_range(first, last), grant=2) for first, last in ((0, 1), (2, 3))]
    for pod in pods:
        await pod.ready()
    assert sorted(identified(stage)) == [0, 1, 2, 3]
    assert all(a < b for a, b in pairwise(s for s in identified(stage) if s < 2))
    stage.load(200)
    await stage.arrived()


async def test_eight_pods_of_one_shard_queue_for_one_bucket(open_stage):
    """Eight pods at max_concurrency 1 come up one window apart each: no op 9, and hardly any window unused."""
    stage = await open_stage(shards=8, max_concurrency=1, identify_window=0.1)
    pods = [stage.start(f"p{n}", name=stage.add_range(n, n), grant=1) for n in range(8)]
    for pod in pods:
        await pod.ready()
    times = [identify.time for identify in stage.control.identifies()]
    assert len(times) == 8
    assert times[-1] - times[0] <= 7 * stage.cluster.window * 1.1 + 1.0
    await stage.arrived()


@pytest.mark.timeout(40)
async def test_the_real_window_holds_over_a_slow_network(open_stage):
    """At Discord's own 5 s with 50-200 ms of latency each way, nothing is too early, and the wait is hardly longer."""
    stage = await open_stage(shards=2, max_concurrency=1, identify_window=5.0, latency=(0.05, 0.2))
    stage.cluster.window = WINDOW
    begun = now()
    pod = stage.start(grant=2)
    await pod.ready(within=20)
    first, second = stage.control.identifies()
    assert 5.0 <= second.time - first.time <= 1.1 * 5.0 + 2.0
    assert now() - begun < 14
    await stage.arrived()
