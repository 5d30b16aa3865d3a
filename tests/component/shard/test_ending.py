"""How a pod ends: with 4000 and its final cursors, so that the next one resumes; with 1000 where the bot shall go offline."""

import asyncio
import os
import signal

import aiohttp
import pytest

from component.ports import free_port
from component.shard.stage import GATEWAY, now, until
from shardwright_api.resources import MemorySink as MemorySinkSpec
from shardwright_api.resources import Sink
from shardwright_shard import pod as pod_module
from shardwright_shard.__main__ import run_pod
from shardwright_shard.errors import RangeGone
from shardwright_shard.sinks.memory import MemorySink
from shardwright_simulator import Action, Fault, Trigger


async def ended(actor):
    """Stop a pod, and give how long that took."""
    begun = now()
    await actor.stop()
    return now() - begun


async def test_sigterm_closes_with_4000_and_writes_the_final_cursors(open_stage, compression):
    """After SIGTERM the sessions live on, the holder is empty, and the cursors say what was acknowledged last."""
    stage = await open_stage(shards=3, compression=compression)
    pod = await stage.started()
    stage.load(600)
    await stage.sim.wait_for(lambda: stage.control.state().ledger.last > 300)
    assert await ended(pod) < 2
    status = stage.status()
    assert status.holder == ""
    assert stage.closes == [4000] * 3
    assert [row.state for row in status.shards] == ["closed"] * 3
    assert {row.session for row in status.shards} == set(stage.sessions().values())
    keys = sorted(stage.times_received())
    assert {row.session: row.seq for row in status.shards} == dict(keys)  # the last sequence of each session
    assert not stage.control.connections()
    assert (await stage.started("p2", grant=0)).count("resumed") == 3
    await stage.arrived()


async def test_sigterm_waits_for_the_sinks_but_not_for_ever(open_stage, monkeypatch):
    """What the sink does not acknowledge in time is left to the next pod: the cursor stays before it."""
    monkeypatch.setattr(pod_module, "DRAIN_TIMEOUT", 0.3)
    stage = await open_stage()
    pod = await stage.started()
    await stage.arrived()
    acked = pod.pod.shards[0].session.resumable.source.acked
    pod.sink.hold()
    stage.load(100)
    await stage.sim.wait_for(lambda: not stage.control.loads()[-1].running)
    assert 0.25 < await ended(pod) < 3
    assert stage.rows()[0].seq == acked
    assert stage.status().holder == ""


async def test_sigterm_of_a_deleted_gateway_takes_the_bot_offline(open_stage):
    """Where the DiscordGateway is gone the sessions are closed with 1000: Discord forgets them."""
    stage = await open_stage(shards=2)
    pod = await stage.started()
    await stage.arrived()
    stage.allowed_closes = {1000}
    stage.cluster.delete_gateway(GATEWAY)
    await pod.stop()
    await stage.sim.wait_for(lambda: not stage.control.sessions())


@pytest.mark.parametrize(("fate", "sessions"), [("there", 2), ("deleted", 0), ("another", 0)])
async def test_a_range_that_vanishes_is_given_up_by_what_became_of_its_gateway(open_stage, fate, sessions):
    """Gateway still there: 4000, so that a new range resumes. Gone, or another of the same name: 1000, offline."""
    stage = await open_stage(shards=2)
    pod = await stage.started()
    await stage.arrived()
    stage.allowed_closes = {4000 if sessions else 1000}
    if fate == "deleted":
        stage.cluster.delete_gateway(GATEWAY)
    elif fate == "another":
        stage.cluster.recreate_gateway(GATEWAY)
    stage.cluster.delete(pod.range)
    await stage.sim.wait_for(lambda: not stage.control.connections())
    await until(lambda: not pod.pod.shards)
    assert len(stage.control.sessions()) == sessions
    assert stage.closes == [*stage.allowed_closes] * 2
    assert not pod.task.done()


async def test_a_pod_without_a_range_ends_with_an_error(open_stage):
    """A pod whose ShardRange was never there cannot run; it says so and identifies nothing."""
    stage = await open_stage()
    name = stage.add_range(0, 0)
    pod = stage.start(name=name)
    stage.cluster.delete(name)
    with pytest.raises(RangeGone):
        await pod.task


async def test_sigterm_before_the_range_is_held(open_stage):
    """A standby leaves at once and touches nothing."""
    stage = await open_stage()
    first = await stage.started("a")
    standby = stage.start("b", active=False)
    await until(lambda: "b" in stage.status().standby)
    assert await ended(standby) < 1.5
    assert stage.status().holder == "a"
    await first.ready()


@pytest.mark.usefixtures("short_linger")
@pytest.mark.parametrize("state", ["no grant", "queued", "identifying", "resuming", "waiting", "connecting"])
async def test_sigterm_ends_a_pod_whatever_its_shard_does(open_stage, state):
    """A pod ends soon from every state of a session, and leaves no connection and no holder behind."""
    stage = await open_stage(identify_window=0.5 if state == "queued" else 0.05)
    hold = {"identifying": Trigger.IDENTIFY, "resuming": Trigger.RESUME}.get(state)
    if hold:
        stage.control.add_fault(Fault(action=Action.HOLD_ANSWER, at=hold))
    if state == "connecting":
        stage.control.add_fault(Fault(action=Action.SILENT, at=Trigger.CONNECT))
    if state == "waiting":
        stage.control.add_fault(Fault(action=Action.REFUSE, times=0))
    pod = await stage.started() if state == "resuming" else stage.start(grant=0 if state == "no grant" else 1)
    if state == "resuming":
        stage.control.add_fault(Fault(action=Action.ABORT))
    await until(lambda: pod.pod.shards and pod.pod.shards[0].session.state.name == REACHED[state])
    assert await ended(pod) < 3
    assert not stage.control.connections()
    assert stage.status().holder == ""


REACHED = {
    "no grant": "IDLE",
    "queued": "QUEUED",
    "identifying": "IDENTIFYING",
    "resuming": "RESUMING",
    "waiting": "IDLE",
    "connecting": "OPEN",
}


async def test_sigterm_without_the_clusters_api_still_closes_with_4000(open_stage):
    """The final write fails: the sessions live on all the same, and the next pod resumes from the last checkpoint."""
    stage = await open_stage()
    pod = await stage.started()
    stage.load(200)
    await stage.checkpointed()
    stage.cluster.cut(pod.uid)
    assert await ended(pod) < 2
    assert len(stage.control.sessions()) == 1
    stage.cluster.restore()
    stage.cluster.fence(pod.range, pod.uid)
    await stage.start("p2").ready()
    await stage.arrived(twice=True)
    assert len(stage.control.identifies()) == 1


async def test_a_sink_whose_task_ends_ends_the_pod(open_stage):
    """Without its sink's task events would wait for ever: the pod closes with 4000, writes its cursors and fails."""
    stage = await open_stage()
    pod = stage.start(grant=1, sink=SinkWithABug())
    await pod.ready()
    await stage.arrived()
    pod.sink.strike.set()
    with pytest.raises(RuntimeError, match="a bug in the sink"):
        await pod.task
    assert len(stage.control.sessions()) == 1
    assert stage.status().holder == ""
    stage.book.errors.clear()


class SinkWithABug(MemorySink):
    """Its task raises when it is told to."""

    def __init__(self):
        super().__init__()
        self.strike = asyncio.Event()

    async def run(self):
        await self.strike.wait()
        raise RuntimeError("a bug in the sink")


async def test_the_program_ends_on_sigterm(open_stage, tmp_path):
    """The entry point, on the cluster in memory: it serves its probes, and a real SIGTERM ends it with 4000.

    It serves on until another pod is named active, as a drained one does.
    """
    stage = await open_stage(config={"sinks": (Sink(name="memory", memory=MemorySinkSpec()),)})
    name, port, file = stage.add_range(0, 0), free_port(), tmp_path / "token"
    file.write_text(stage.sim.token)
    program = asyncio.create_task(
        run_pod(stage.cluster.coordinator(name, pod="p1"), token_file=file, http_port=port, state_dir=tmp_path),
        name="the program",
    )
    stage.cluster.activate(name, "p1")
    stage.cluster.grant(name, 1)
    await stage.sim.wait_for(stage.control.sessions)
    await until(lambda: any("live" in line for line in stage.book.lines))
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: any("serving on" in line for line in stage.book.lines))
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/readyz") as answer:
        assert answer.status == 200
    stage.cluster.activate(name, "p2")
    async with asyncio.timeout(3):
        await program
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
    assert (stage.closes, stage.status(name).holder, len(stage.control.sessions())) == ([4000], "", 1)
