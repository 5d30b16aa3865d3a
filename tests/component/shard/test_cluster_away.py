"""The cluster's API is away, or another pod holds the range: what a pod still does, and what it must not do."""

from component.shard.stage import now, stays, until
from shardwright_shard import shard as shard_module
from shardwright_simulator import Action, Fault, ResumeMode, Trigger


async def cut_off(stage, pod):
    """Cut a pod off from the cluster's API, once its checkpoint is written."""
    await stage.checkpointed()
    stage.cluster.cut(pod.uid)


async def test_a_pod_that_is_cut_off_goes_on_forwarding(open_stage):
    """Without the API sessions stay open, events flow, and failing reports are counted."""
    stage = await open_stage(shards=2)
    pod = await stage.started()
    await cut_off(stage, pod)
    stage.load(300)
    await stage.arrived()
    await until(lambda: pod.pod.reports_failed >= 1)
    assert pod.pod.ready
    before = stage.status().heartbeat_time
    stage.cluster.restore()
    await until(lambda: stage.status().heartbeat_time > before)
    assert pod.count("resumes") == 0


async def test_a_socket_lost_without_the_api_is_resumed_once_and_then_seldom(open_stage, monkeypatch):
    """The first RESUME goes at once; where it fails, the next goes 30 s (here 600 ms) after the first."""
    monkeypatch.setattr(shard_module, "BLIND_RESUME_INTERVAL", 0.6)
    stage = await open_stage()
    pod = await stage.started()
    await cut_off(stage, pod)
    stage.load(100)
    stage.control.add_fault(Fault(action=Action.ABORT, at=Trigger.RESUME, times=2))
    stage.control.add_fault(Fault(action=Action.ABORT))
    times = []
    for number in (1, 2, 3):
        await until(lambda wanted=number: pod.count("resumes") == wanted)
        times.append(now())
    assert times[1] - times[0] >= 0.55
    assert times[2] - times[1] >= 0.55
    await stage.arrived()


async def test_a_second_cut_without_the_api_is_left_alone_until_the_api_is_back(open_stage, monkeypatch):
    """Another pod may have the session by then: two never take it from each other in turns."""
    monkeypatch.setattr(shard_module, "BLIND_RESUME_INTERVAL", 0.1)
    stage = await open_stage()
    pod = await stage.started()
    await cut_off(stage, pod)
    stage.control.add_fault(Fault(action=Action.ABORT))
    await until(lambda: pod.count("resumed") == 1)
    stage.control.add_fault(Fault(action=Action.ABORT))
    stage.load(100)
    await stays(lambda: pod.count("resumes") == 1, seconds=1.0)
    stage.cluster.restore()
    await pod.ready()
    await stage.arrived()


async def test_nothing_is_identified_without_the_api(open_stage):
    """A session that is over while the API is away is not replaced, whatever grants stand; then it is."""
    stage = await open_stage()
    pod = await stage.started(grant=3)
    await cut_off(stage, pod)
    stage.control.end_session(stage.sessions()[0])
    await until(lambda: not pod.pod.ready)
    await stays(lambda: not stage.control.connections(), seconds=1.2)
    stage.cluster.restore()
    await pod.ready()
    assert len(stage.control.identifies()) == 2


async def test_an_identify_that_is_under_way_when_the_api_goes_is_not_sent(open_stage):
    """Queued for its slot, the shard loses the API: it gives up, and identifies when the API is back."""
    stage = await open_stage(identify_window=0.4)
    pod = stage.start(grant=1)
    await until(lambda: stage.status().identifies_spent == 1)
    stage.cluster.cut(pod.uid)
    await stays(lambda: not stage.control.identifies(), seconds=0.8)
    stage.cluster.restore()
    await pod.ready()
    assert stage.status().identifies_spent == len(stage.control.identifies()) == 1


async def test_a_pod_that_starts_without_the_api_waits_for_it(open_stage):
    """No API at the start: the pod lives, tries again, and comes up."""
    stage = await open_stage()
    stage.cluster.cut("p1")
    pod = stage.start(grant=1)
    await until(lambda: any("API is not available" in line for line in stage.book.lines))
    assert not pod.task.done()
    stage.cluster.restore()
    await pod.ready()


async def test_a_pod_that_is_not_the_holder_any_more_closes_and_writes_nothing(open_stage):
    """Cut off, declared dead and replaced: back again it closes its sockets with 4000 and leaves the checkpoint alone."""
    stage = await open_stage(shards=2, on_resume=ResumeMode.SHARE)
    first = await stage.started("a")
    second = stage.start("b", active=False)
    await cut_off(stage, first)
    stage.cluster.fence(first.range, "a")
    stage.cluster.activate(first.range, "b")
    await second.ready()
    assert len(stage.control.connections()) == 4
    stage.load(200)
    await stage.arrived(twice=True)
    stage.cluster.restore()
    await until(lambda: len(stage.control.connections()) == 2)
    await until(lambda: not first.pod.shards)
    assert stage.status().holder == "b"
    await until(lambda: {row.state for row in stage.rows()} == {"ready"})
    await stays(lambda: {row.state for row in stage.rows()} == {"ready"}, seconds=0.6)
    assert len(stage.control.sessions()) == 2
    stage.load(200)
    await stage.arrived(twice=True)
    assert len(stage.control.identifies()) == 2


async def test_a_socket_lost_by_a_pod_that_is_not_the_holder_is_not_resumed(open_stage):
    """A RESUME goes out only after reading that the range is still ours: two pods never take a session from each other."""
    stage = await open_stage()
    first = await stage.started("a")
    second = stage.start("b", active=False)
    await until(lambda: stage.rows()[0].session)
    stage.cluster.write(first.range, holder="c")
    stage.control.add_fault(Fault(action=Action.ABORT))
    await until(lambda: not first.pod.shards)
    assert not stage.control.resumes()
    stage.cluster.write(first.range, holder="")
    stage.cluster.activate(first.range, "b")
    await second.ready()
    await stage.arrived(twice=True)
    assert first.count("resumes") == 0


async def test_a_standby_that_is_cut_off_takes_over_afterwards(open_stage):
    """The standby loses the API while it is made active: it takes the range when it is back."""
    stage = await open_stage()
    first = await stage.started("a")
    second = stage.start("b", active=False)
    await until(lambda: "b" in stage.status().standby)
    stage.cluster.cut("b")
    stage.cluster.activate(first.range, "b")
    await until(lambda: stage.status().holder == "")
    stage.cluster.restore()
    await second.ready()
    await stage.arrived()
