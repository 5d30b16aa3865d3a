"""What ends a connection, and how the shard comes back: by RESUME where that is possible, without losing an event."""

import asyncio

import pytest

from component.shard.stage import now, stays, until
from shardwright_api.resources import Compression
from shardwright_shard import session
from shardwright_simulator import Action, Fault, ResumeMode, Trigger

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


def resumes(stage):
    """List the shards in the order of their RESUMEs that were answered with RESUMED."""
    return [resume.shard for resume in stage.control.resumes() if resume.result == "resumed"]


async def mid_load(stage, count=400):
    """Begin a load, and wait until half of it was sent."""
    sent = stage.control.state().ledger.last
    stage.load(count)
    await stage.sim.wait_for(lambda: stage.control.state().ledger.last >= sent + count // 2)


@BOTH_LOOPS
@pytest.mark.usefixtures("short_linger")
@pytest.mark.parametrize(("compression", "mode"), list(zip(Compression, ResumeMode, strict=True)))
async def test_a_storm_of_faults_loses_nothing(open_stage, compression, mode):
    """Under load each shard of five is hit by another fault: all resume, whatever Discord does to old connections."""
    stage = await open_stage(shards=5, compression=compression, on_resume=mode, heartbeat_interval=0.4)
    pod = await stage.started()
    await mid_load(stage, 1000)
    for shard, action in enumerate((Action.RECONNECT, Action.ABORT, Action.CUT, Action.CLOSE, Action.SILENT)):
        stage.control.add_fault(Fault(action=action, shards=[shard]))
    await stage.sim.wait_for(lambda: sorted(resumes(stage)) == [0, 1, 2, 3, 4])
    await pod.ready()
    await stage.arrived()
    assert len(stage.control.identifies()) == 5


@pytest.mark.parametrize("action", [Action.RECONNECT, Action.ABORT, Action.CUT], ids=str)
async def test_a_lost_connection_is_resumed_at_once(open_stage, action):
    """Op 7, a lost socket and a frame that stops in the middle cost one RESUME, and no time."""
    stage = await open_stage()
    pod = await stage.started()
    await mid_load(stage)
    stage.control.add_fault(Fault(action=action))
    begun = now()
    await stage.sim.wait_for(lambda: resumes(stage) == [0])
    assert now() - begun < 1.0
    await stage.arrived()
    assert (pod.count("resumes"), pod.count("identifies")) == (1, 1)


@pytest.mark.usefixtures("no_waits")
async def test_op_7_before_hello_is_obeyed(open_stage):
    """Discord may send op 7 instead of HELLO, to a new session as to an old one: connect again, pay nothing twice."""
    stage = await open_stage()
    stage.control.add_fault(Fault(action=Action.RECONNECT, at=Trigger.CONNECT))
    pod = await stage.started()
    await mid_load(stage)
    stage.control.add_fault(Fault(action=Action.RECONNECT))
    await stage.arrived()
    assert (pod.count("resumes"), pod.count("identifies")) == (1, 1)
    assert sum(fault.struck for fault in stage.control.faults()) == 3  # before HELLO: once by each URL
    assert stage.status().identifies_spent == 1


async def test_op_9_true_is_resumed_after_a_pause(open_stage):
    """A session that may be resumable is resumed, after 1 to 5 seconds (staff, discord-api-docs#244)."""
    stage = await open_stage()
    await stage.started()
    await mid_load(stage)
    stage.control.add_fault(Fault(action=Action.INVALID_SESSION, resumable=True))
    begun = now()
    await stage.sim.wait_for(lambda: resumes(stage))
    assert 0.95 < now() - begun < 3
    await stage.arrived()
    assert len(stage.control.identifies()) == 1


async def test_op_9_false_costs_a_pause_and_one_granted_identify(open_stage):
    """A session that is over is not resumed: the shard waits its 1 to 5 seconds, and for a grant, and identifies once."""
    stage = await open_stage()
    pod = await stage.started(random=lambda: 0.05)
    await stage.arrived()
    stage.control.add_fault(Fault(action=Action.INVALID_SESSION))
    await until(lambda: "grant" in pod.message(), within=3)
    assert any("op 9, not resumable" in line for line in stage.book.lines)
    stage.cluster.grant(pod.range, 1)
    await pod.ready()
    stage.load(100)
    await stage.arrived()
    first, second = stage.control.identifies()
    assert second.time - first.time > 1.2
    assert not stage.control.resumes()


@pytest.mark.usefixtures("no_waits")
async def test_op_9_to_an_identify_spends_its_grant(open_stage):
    """An IDENTIFY that Discord refuses is spent: no other one is sent without another grant."""
    stage = await open_stage()
    stage.control.add_fault(Fault(action=Action.INVALID_SESSION, at=Trigger.IDENTIFY))
    pod = stage.start(grant=1)
    await until(lambda: stage.rows() and "grant" in pod.message())
    assert len(stage.control.identifies()) == 1
    stage.cluster.grant(pod.range, 1)
    await pod.ready()
    assert stage.status().identifies_spent == len(stage.control.identifies()) == 2


@pytest.mark.usefixtures("no_waits")
async def test_op_9_to_a_resume_is_followed_by_an_identify(open_stage):
    """A RESUME that Discord refuses ends the session; the standing grant is used for a new one."""
    stage = await open_stage()
    stage.control.add_fault(Fault(action=Action.INVALID_SESSION, at=Trigger.RESUME))
    pod = await stage.started(grant=2)
    await stage.arrived()
    stage.control.add_fault(Fault(action=Action.ABORT))
    await stage.sim.wait_for(lambda: len(stage.control.identifies()) == 2)
    await pod.ready()
    stage.load(100)
    await stage.arrived()


@pytest.mark.usefixtures("short_linger")
async def test_a_silent_connection_is_found_within_two_heartbeats(open_stage):
    """A socket on which nothing comes any more is closed and resumed; the pod is not ready until RESUMED."""
    stage = await open_stage(heartbeat_interval=0.3)
    pod = await stage.started()
    stage.control.add_fault(Fault(action=Action.HOLD_ANSWER, at=Trigger.RESUME, delay=0.2))
    stage.control.add_fault(Fault(action=Action.SILENT))
    stage.load(100)
    begun = now()
    await until(lambda: not pod.pod.ready)
    assert now() - begun < 2 * 0.3 + 0.4
    assert "shard 0" in pod.pod.why_not_ready()
    await pod.ready()
    await stage.arrived()
    assert pod.count("zombies") >= 1
    assert pod.count("identifies") == 1


RESUMABLE = [1000, 1001, 1006, 1011, 1012, 3000, 4000, 4001, 4002, 4999]
ENDING = [4003, 4005, 4006, 4007, 4009]


async def test_close_codes_after_which_a_session_is_resumed(open_stage):
    """Whatever does not say that the session is over is answered by one RESUME."""
    stage = await open_stage(shards=len(RESUMABLE))
    pod = await stage.started()
    stage.load(600, rate=2000)
    for shard, code in enumerate(RESUMABLE):
        stage.control.add_fault(Fault(action=Action.CLOSE, shards=[shard], code=code))
    await stage.sim.wait_for(lambda: sorted(resumes(stage)) == list(range(len(RESUMABLE))))
    await stage.arrived()
    await pod.ready()
    assert [row.close for row in pod.pod._rows()] == [None if code == 1006 else code for code in RESUMABLE]
    assert len(stage.control.identifies()) == len(RESUMABLE)


async def test_close_codes_after_which_a_session_is_new(open_stage):
    """4003, 4005, 4006, 4007 and 4009 end the session: no RESUME, but an IDENTIFY by grant."""
    stage = await open_stage(shards=len(ENDING))
    pod = await stage.started()
    await stage.arrived()
    stage.given_up = set(stage.sessions().values())
    for shard, code in enumerate(ENDING):
        stage.control.add_fault(Fault(action=Action.CLOSE, shards=[shard], code=code))
    await until(lambda: all("grant" in pod.message(shard) for shard in range(len(ENDING))))
    stage.cluster.grant(pod.range, len(ENDING))
    await pod.ready()
    stage.load(100)
    await stage.arrived()
    assert not stage.control.resumes()
    assert len(stage.control.identifies()) == 2 * len(ENDING)


async def test_after_4008_nothing_is_sent_for_a_while(open_stage):
    """Who sent too much waits 5 to 10 seconds before the RESUME; the pod can be stopped meanwhile."""
    stage = await open_stage()
    pod = await stage.started()
    stage.control.add_fault(Fault(action=Action.CLOSE, code=4008))
    await until(lambda: not pod.pod.ready)
    assert 4.5 < pod.pod.shards[0].session.retry_at - now() <= 10
    await stays(lambda: not stage.control.connections(), seconds=0.3)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refused_handshake_is_tried_again_with_growing_waits(open_stage, status):
    """HTTP 429 or 5xx instead of a websocket: at once, then after longer and longer; nothing is paid for it."""
    stage = await open_stage()
    stage.control.add_fault(Fault(action=Action.REFUSE, status=status, times=2))
    begun = now()
    pod = await stage.started()
    assert 0.5 < now() - begun < 3
    assert any(f"refused: HTTP/1.1 {status}" in line for line in stage.book.lines)
    await stage.arrived()
    assert pod.count("identifies") == 1


async def test_a_refused_resume_handshake_is_tried_again(open_stage):
    """A resume URL that answers with an HTTP error keeps its session: the next connection resumes it."""
    stage = await open_stage()
    pod = await stage.started()
    await mid_load(stage)
    stage.control.add_fault(Fault(action=Action.REFUSE, status=503))
    stage.control.add_fault(Fault(action=Action.ABORT))
    await stage.arrived()
    assert (pod.count("resumes"), pod.count("identifies")) == (1, 1)


async def test_a_resume_url_out_of_reach_is_replaced_by_the_gateways(open_stage, monkeypatch):
    """Where nobody answers at the session's own URL, the RESUME goes to the gateway's: it costs no IDENTIFY."""
    monkeypatch.setattr(session, "_URL_TRIES", 2)
    stage = await open_stage(public_host="127.0.0.1:1")
    stage.allowed = {"resume-url"}
    pod = await stage.started()
    await mid_load(stage)
    stage.control.add_fault(Fault(action=Action.ABORT))
    await stage.arrived()
    assert (pod.count("resumes"), pod.count("identifies")) == (1, 1)


async def test_no_ready_is_waited_for_with_patience_and_an_end(open_stage, monkeypatch):
    """An IDENTIFY without an answer is given up in the end, and another one needs another grant."""
    monkeypatch.setattr(session, "READY_TIMEOUT", 0.4)
    stage = await open_stage()
    stage.control.add_fault(Fault(action=Action.HOLD_ANSWER, at=Trigger.IDENTIFY))
    pod = stage.start(grant=1)
    await until(lambda: stage.rows() and "grant" in pod.message())
    await stays(lambda: len(stage.control.identifies()) == 1, seconds=0.4)
    stage.cluster.grant(pod.range, 1)
    await pod.ready()


async def test_a_late_ready_is_waited_for(open_stage):
    """During an outage READY may come late: the connection is kept, with heartbeats, and nothing is identified twice."""
    stage = await open_stage(heartbeat_interval=0.4)
    stage.control.add_fault(Fault(action=Action.HOLD_ANSWER, at=Trigger.IDENTIFY, delay=1.0))
    pod = await stage.started()
    assert pod.count("heartbeats") >= 2
    assert len(stage.control.identifies()) == 1
    await stage.arrived()


async def test_a_resume_without_an_answer_is_sent_again(open_stage, monkeypatch):
    """RESUME without RESUMED is given up after a while and tried on another connection."""
    monkeypatch.setattr(session, "READY_TIMEOUT", 0.4)
    stage = await open_stage()
    pod = await stage.started()
    stage.control.add_fault(Fault(action=Action.HOLD_ANSWER, at=Trigger.RESUME))
    await mid_load(stage)
    stage.control.add_fault(Fault(action=Action.ABORT))
    await stage.arrived()
    assert (pod.count("resumes"), pod.count("resumed"), pod.count("identifies")) == (2, 1, 1)


@pytest.mark.usefixtures("no_waits")
async def test_a_session_that_is_resumed_in_vain_is_given_up(open_stage, monkeypatch):
    """After so many RESUMEs without RESUMED the session is replaced, by grant (discord-api-docs#1619)."""
    monkeypatch.setattr(session, "MAX_FAILED_RESUMES", 3)
    stage = await open_stage()
    pod = await stage.started()
    await stage.arrived()
    stage.given_up = set(stage.sessions().values())
    stage.control.add_fault(Fault(action=Action.CLOSE, at=Trigger.RESUME, code=1011, times=0))
    stage.control.add_fault(Fault(action=Action.ABORT))
    await until(lambda: "grant" in pod.message(), within=6)
    assert [resume.result for resume in stage.control.resumes()] == ["fault"] * 3
    stage.cluster.grant(pod.range, 1)
    await pod.ready()
    stage.load(50)
    await stage.arrived()


async def test_pings_are_harmless(open_stage):
    """Discord's websocket pings are answered, and events go on around them."""
    stage = await open_stage()
    pod = await stage.started()
    stage.control.add_fault(Fault(action=Action.PING, times=10, every=0.02))
    stage.load(300)
    await stage.arrived()
    assert pod.count("resumes") == 0


async def test_a_heartbeat_request_is_answered_at_once(open_stage):
    """Op 1 is answered by a heartbeat, which neither counts as missed nor shifts the schedule."""
    stage = await open_stage(heartbeat_interval=3)
    pod = await stage.started(random=lambda: 0.99)
    before = pod.count("heartbeats")
    stage.control.add_fault(Fault(action=Action.HEARTBEAT_REQUEST, times=3, every=0.01))
    await until(lambda: pod.count("heartbeats") >= before + 3, within=2)
    await until(lambda: pod.count("heartbeats") >= before + 4, within=10)
    assert pod.count("zombies") == pod.count("resumes") == 0
    await until(lambda: pod.pod.shards[0].session.latency is not None)  # 0.0 on a loop that counts milliseconds
    assert pod.pod.shards[0].session.latency < 2


async def test_fragmented_messages_are_put_together(open_stage, compression):
    """A gateway message may come in several websocket frames, pings between them included."""
    stage = await open_stage(compression=compression)
    pod = await stage.started()
    stage.control.add_fault(Fault(action=Action.FRAGMENT, at=Trigger.DISPATCH, frames=4, times=0))
    stage.control.add_fault(Fault(action=Action.PING, times=10, every=0.02))
    stage.load(300)
    await stage.arrived()
    assert pod.count("unreadable") == pod.count("resumes") == 0


async def test_a_slow_network_changes_nothing(open_stage):
    """With 50 to 200 ms each way, and jitter within every chunk, shards start, resume and lose nothing."""
    stage = await open_stage(shards=2, latency=(0.05, 0.2))
    pod = await stage.started()
    await mid_load(stage, 600)
    stage.control.add_fault(Fault(action=Action.RECONNECT, shards=[0]))
    stage.control.add_fault(Fault(action=Action.ABORT, shards=[1]))
    await stage.arrived()
    await asyncio.wait_for(pod.ready(), 5)
    assert 0.1 <= pod.pod.shards[0].session.latency <= 0.6
