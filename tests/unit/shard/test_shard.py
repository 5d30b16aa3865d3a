"""One shard at the edge: when it connects, when it identifies, and what it does with everything that goes wrong.

Time jumps: nothing here waits. Discord is `fake_discord.py`, the cluster is in memory.
"""

import asyncio
import json
import logging
from itertools import pairwise

import pytest

from shardwright_api.resources import Compression, ShardState
from shardwright_shard import shard as module
from shardwright_shard.coordination import bucket
from shardwright_shard.errors import ConfigError, CoordinatorUnavailable, GatewayProtocolError, NotHolder, RangeGone
from shardwright_shard.journal import Event, Source
from shardwright_shard.session_table import Input, State
from unit.shard.messages import RECONNECT, hello, invalid, ready
from unit.shard.stage import RANGE, TOKEN, ShardStage, row


@pytest.fixture
async def stage(monkeypatch):
    stage = ShardStage(monkeypatch)
    yield stage
    for shard in stage.shards.values():
        shard.stop_timer()
    await stage.end()


async def identified(stage, *shards):
    """Run shards until they are READY by an IDENTIFY."""
    await stage.hold(*shards)
    stage.run().grant(len(shards))
    await stage.until(lambda: all(stage.state(shard) == "LIVE" for shard in shards))
    return stage


async def resumed(stage, *shards, **fields):
    """Run shards until they are READY by a RESUME."""
    await stage.hold(*shards, rows=[row(shard, **fields) for shard in shards])
    stage.run()
    await stage.until(lambda: all(stage.state(shard) == "LIVE" for shard in shards))
    return stage


# --- identifies -------------------------------------------------------------------------------------------------------


async def test_without_a_grant_there_is_not_even_a_connection(stage):
    await stage.hold(0, 1)
    stage.run()
    await stage.settle(600)
    assert stage.discord.connections == []
    assert "grant" in stage.shards[0].status().message
    assert stage.status.identifies_spent == 0


async def test_a_grant_leads_to_one_identify_paid_and_slotted_before_it_is_sent(stage):
    await stage.hold(0)
    spent_at_slot = []

    async def slot():
        spent_at_slot.append(stage.status.identifies_spent)
        return await stage.coordinator.inner.slot(0, 0)

    stage.coordinator.errors["slot"] = [slot]
    stage.run().grant(1)
    await stage.until(lambda: stage.state() == "LIVE")
    (identify,) = stage.discord.identifies
    (won,) = stage.cluster.swaps
    assert spent_at_slot == [1]
    assert won.at <= identify.at <= won.at + bucket.SEND_WITHIN
    assert identify.token == TOKEN
    await stage.settle(600)
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 1


async def test_a_grant_for_one_goes_to_the_lowest_shard(stage):
    await stage.hold(0, 1, 2, 3)
    stage.run().grant(1)
    await stage.settle(100)
    assert [each.shard for each in stage.discord.identifies] == [0]
    assert [each.shard for each in stage.discord.connections] == [0]


async def test_no_more_shards_connect_than_there_are_grants(monkeypatch):
    stage = ShardStage(monkeypatch, max_concurrency=4)
    await stage.hold(0, 1, 2, 3)
    stage.run().grant(2)
    await stage.settle(60)
    assert [each.shard for each in stage.discord.connections] == [0, 1]
    await stage.end()


async def test_a_grant_does_not_stay_with_a_shard_that_cannot_connect(stage):
    await stage.hold(0, 1)
    stage.discord.refusals = [OSError("refused")] * 5
    stage.run().grant(1)
    await stage.until(lambda: stage.discord.identifies)
    assert asyncio.get_running_loop().time() < 30
    assert stage.status.identifies_spent == 1


async def test_one_shard_of_a_bucket_at_a_time_is_connected_for_an_identify(stage):
    await stage.hold(0, 1, 2)
    stage.run().grant(3)
    most = 0
    while len(stage.discord.identifies) < 3:
        queued = [shard for shard in (0, 1, 2) if stage.state(shard) in {"CONNECTING", "OPEN", "QUEUED"}]
        most = max(most, len(queued))
        await asyncio.sleep(0.05)
    assert most == 1
    times = [each.at for each in stage.discord.identifies]
    assert [each.shard for each in stage.discord.identifies] == [0, 1, 2]
    assert all(later - earlier >= 5.15 for earlier, later in pairwise(times))


@pytest.mark.parametrize("late", [None, -0.001, -100.0])
async def test_a_slot_that_is_over_is_not_used(stage, late):
    """IDENTIFY soon after the swap was sent, or not at all."""
    await stage.hold(0)

    async def slot():
        await asyncio.sleep(1)
        return None if late is None else asyncio.get_running_loop().time() + late

    stage.coordinator.errors["slot"] = [slot, slot]
    stage.run().grant(1)
    await stage.settle(1.5)
    assert stage.discord.identifies == []
    await stage.until(lambda: stage.state() == "LIVE")
    assert stage.coordinator.calls["slot"] == 3
    assert stage.status.identifies_spent == 1, "it was paid for once"


async def test_a_connection_that_is_lost_while_it_queues_keeps_what_was_paid(stage):
    await stage.hold(0)
    stage.run().grant(1)
    await stage.until(lambda: stage.state() == "QUEUED")
    stage.discord.open(0).drop(None)
    await stage.until(lambda: stage.state() == "LIVE")
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 1
    assert len(stage.discord.connections) == 2


async def test_an_identify_that_was_not_answered_needs_another_grant(stage):
    await stage.hold(0)
    stage.discord.answers = False
    stage.run().grant(1)
    await stage.until(lambda: stage.state() == "IDENTIFYING")
    stage.discord.open(0).drop(None)
    await stage.settle(600)
    assert len(stage.discord.identifies) == 1
    assert len(stage.discord.connections) == 1
    stage.discord.answers = True
    stage.grant(1)
    await stage.until(lambda: stage.state() == "LIVE")
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 2


async def test_nothing_identifies_while_the_sinks_are_away(stage):
    await stage.hold(0)
    stage.sinks_away = "sinks not available (events: no broker)"
    stage.run().grant(1)
    await stage.settle(60)
    assert stage.discord.connections == []
    assert "no broker" in stage.shards[0].status().message
    stage.sinks_away = None
    stage.nudge()
    await stage.until(lambda: stage.state() == "LIVE")


async def test_sinks_that_go_away_while_it_queues_stop_the_identify_and_keep_what_was_paid(stage):
    await stage.hold(0)
    stage.run().grant(1)
    await stage.until(lambda: stage.state() == "QUEUED")
    stage.sinks_away = "sinks not available"
    await stage.settle(60)
    assert stage.discord.identifies == []
    assert stage.discord.connections[0].closed_with == 4000
    assert len(stage.cluster.swaps) <= 1, "no slots are won for nothing"
    stage.sinks_away = None
    await stage.until(lambda: stage.state() == "LIVE")
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 1


async def test_a_hold_while_it_queues_stops_the_identify_and_burns_no_slots(stage):
    await stage.hold(0)
    stage.run().grant(1)
    await stage.until(lambda: stage.state() == "QUEUED")
    stage.cluster.hold(RANGE, on=True)
    await stage.settle(120)
    assert stage.discord.identifies == []
    assert len(stage.cluster.swaps) <= 1
    assert stage.discord.open(0) is None
    stage.cluster.hold(RANGE, on=False)
    await stage.until(lambda: stage.state() == "LIVE")
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 1


async def test_a_fatal_code_elsewhere_stops_a_shard_that_queues_until_a_new_grant_is_paid_for(stage):
    """The gate is slammed by another shard of the pod: a wrong token costs one identify, not two."""
    await stage.hold(0, 1)
    stage.run().grant(2)
    await stage.until(lambda: stage.state(1) == "QUEUED")
    assert stage.status.identifies_spent == 2
    stage.discord.open(0).drop(4004)
    assert stage.state(0) == "PARKED"
    assert stage.fatal == 1
    await stage.coordinator.forfeit()
    await stage.settle(120)
    assert [each.shard for each in stage.discord.identifies] == [0]
    assert stage.discord.open(1) is None
    stage.grant(1)
    await stage.settle(120)
    assert stage.status.identifies_spent == 3
    assert len(stage.discord.identifies) == 2, "the new grant was one, and so was what was sent"


@pytest.mark.parametrize("call", ["spend", "slot"])
@pytest.mark.parametrize(
    "error", [CoordinatorUnavailable("away"), NotHolder("another"), RangeGone("gone"), ConfigError("bad"), OSError("x")]
)
async def test_no_error_of_the_cluster_kills_the_wait_for_a_slot_silently(stage, call, error):
    await stage.hold(0)
    stage.coordinator.errors[call] = [error]
    stage.run().grant(1)
    await stage.until(lambda: stage.state() == "LIVE")
    assert stage.discord.connections[0].closed_with == 4000
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 1


async def test_a_slot_task_ends_with_its_connection(stage):
    await stage.hold(0)
    waits = []

    async def slot():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            waits.append("cancelled")
            raise

    stage.coordinator.errors["slot"] = [slot]
    stage.run().grant(1)
    await stage.until(lambda: "slot" in stage.coordinator.calls)
    await stage.settle()
    stage.discord.open(0).drop(4000)
    await stage.settle()
    assert waits == ["cancelled"]


async def test_op_9_to_an_identify_is_not_answered_by_another_one_on_the_same_grant(stage):
    await stage.hold(0)
    stage.discord.answers = False
    stage.run().grant(1)
    await stage.until(lambda: stage.state() == "IDENTIFYING")
    stage.discord.open(0).push(invalid(resumable=False))
    await stage.settle(60)
    assert len(stage.discord.connections) == 1
    assert stage.discord.connections[0].closed_with == 4000


# --- resumes ----------------------------------------------------------------------------------------------------------


async def test_a_checkpoint_is_resumed_at_its_url_without_grant_slot_or_sinks(stage):
    await stage.hold(0, rows=[row(0, seq=77, compression=Compression.ZLIB)])
    stage.sinks_away = "sinks not available"
    stage.run()
    await stage.until(lambda: stage.state() == "LIVE")
    (resume,) = stage.discord.resumes
    assert resume.data == {"token": TOKEN, "session_id": "old-0", "seq": 77}
    assert resume.uri == "wss://resume.example/?v=10&encoding=json&compress=zlib-stream"
    assert stage.status.identifies_spent == 0
    assert stage.cluster.swaps == []


async def test_a_lost_connection_is_resumed_at_once_from_the_last_event(stage):
    await identified(stage, 0)
    stage.discord.emit(0, count=5)
    stage.discord.open(0).drop(None)
    missed = stage.discord.emit(0, count=2)
    await stage.until(lambda: stage.state() == "LIVE")
    (resume,) = stage.discord.resumes
    assert resume.data["seq"] == 6
    assert [event.payload for _, event in stage.sink.events][-3:-1] == missed
    assert len(stage.discord.identifies) == 1


async def test_the_token_is_read_again_for_each_connection(stage):
    await identified(stage, 0)
    stage.token = "another.token"
    stage.discord.open(0).drop(None)
    await stage.until(lambda: stage.discord.resumes)
    assert stage.discord.resumes[0].token == "another.token"


async def test_a_pod_that_does_not_hold_the_range_any_more_does_not_resume(stage):
    """Two pods never take a session from each other in turns."""
    await resumed(stage, 0)
    stage.cluster.write(RANGE, holder="b")
    stage.discord.open(0).drop(None)
    with pytest.raises(NotHolder):
        await stage.runs[0]
    assert len(stage.discord.resumes) == 1


async def test_a_range_that_is_gone_ends_the_shards_task(stage):
    await resumed(stage, 0)
    stage.cluster.delete(RANGE)
    stage.discord.open(0).drop(None)
    with pytest.raises(RangeGone):
        await stage.runs[0]


async def test_cut_off_from_the_cluster_a_session_is_resumed_at_once_and_then_every_half_minute(stage):
    await resumed(stage, 0)
    stage.cluster.cut("a")
    stage.discord.answers = False
    stage.discord.open(0).drop(None)
    times = []
    for count in range(2, 5):
        await stage.until(lambda count=count: len(stage.discord.resumes) == count)
        times.append(stage.discord.resumes[-1].at)
        stage.discord.open(0).drop(None)
    assert times[0] < 1
    assert all(29 <= later - earlier <= 32 for earlier, later in pairwise(times))


@pytest.mark.parametrize("end", ["a second cut", "op 9"])
async def test_cut_off_from_the_cluster_a_pod_whose_session_another_one_may_have_stops(stage, end):
    """Two pods never take a session from each other in turns."""
    await resumed(stage, 0)
    stage.cluster.cut("a")
    stage.discord.open(0).drop(None)
    await stage.until(lambda: stage.state() == "LIVE")
    if end == "op 9":
        stage.discord.open(0).push(invalid(resumable=True))
    else:
        stage.discord.open(0).drop(None)
    await stage.settle(600)
    assert len(stage.discord.resumes) == 2
    stage.cluster.restore()
    await stage.until(lambda: stage.state() == "LIVE")
    assert len(stage.discord.resumes) == 3
    stage.cluster.cut("a")
    stage.discord.open(0).drop(None)
    await stage.until(lambda: stage.state() == "LIVE", within=5)


async def test_cut_off_from_the_cluster_nothing_is_identified(stage):
    await identified(stage, 0)
    stage.grant(5)
    stage.cluster.cut("a")
    stage.discord.open(0).push(invalid(resumable=False))
    await stage.settle(600)
    assert len(stage.discord.connections) == 1
    stage.cluster.restore()
    await stage.until(lambda: stage.state() == "LIVE")
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 2


async def test_what_a_session_left_behind_stands_before_its_successors_ready(stage):
    await identified(stage, 0)
    stage.grant(1)
    stage.sink.hold()
    old = stage.shards[0].session.source
    stage.discord.emit(0, count=3)
    stage.discord.open(0).push(invalid(resumable=False))
    await stage.until(lambda: stage.state() == "LIVE")
    names = [(source.session, event.name) for source, event in stage.sink.events]
    assert names == [
        ("session-0", "READY"),
        *[("session-0", "MESSAGE_CREATE")] * 3,
        ("session-1", "shardwright.gap"),
        ("session-1", "READY"),
    ]
    assert old.acked == 1
    gap = stage.shards[0].status().gap
    assert (gap.session, gap.seq) == ("session-0", 1), "what is not acknowledged may be lost with this process"
    assert stage.shards[0].status().seq == 0, "the new session's events are not acknowledged"
    stage.sink.release()
    assert (old.acked, stage.shards[0].status().seq) == (4, 1)
    assert stage.shards[0].status().gap is None


async def test_a_dead_resume_url_gives_way_to_the_gateways_own_without_an_identify(stage):
    await stage.hold(0, rows=[row(0, url="wss://gone.example")])
    stage.discord.refusals = [OSError("Name or service not known")] * 3
    stage.run()
    await stage.until(lambda: stage.state() == "LIVE")
    (resume,) = stage.discord.resumes
    assert resume.uri.startswith("wss://gateway.example/?")
    assert resume.data["session_id"] == "old-0"


@pytest.mark.parametrize("url", ["", "nonsense", "https://x", "wss://[::1"])
async def test_a_checkpoint_with_a_url_that_is_none_does_not_stop_the_pod(stage, url, monkeypatch):
    await stage.hold(0, rows=[row(0, url=url)])
    real = module.connect.__self__.connect

    async def connect(uri, *args, **kwargs):
        if "gateway.example" not in uri:
            raise GatewayProtocolError("not a gateway URL")
        return await real(uri, *args, **kwargs)

    monkeypatch.setattr(module, "connect", connect)
    stage.run()
    await stage.until(lambda: stage.state() == "LIVE")
    assert len(stage.discord.resumes) == 1


# --- connections that do not come about -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("refused"), TimeoutError(), ConnectionResetError("reset")])
async def test_a_connect_that_fails_is_tried_again_later_and_later(stage, error):
    await stage.hold(0, rows=[row(0)])
    stage.discord.refusals = [error] * 6
    stage.run()
    await stage.until(lambda: stage.state() == "LIVE")
    assert asyncio.get_running_loop().time() > 0.75 * (1 + 2 + 4 + 8)
    assert len(stage.discord.resumes) == 1


async def test_a_token_that_cannot_be_read_is_waited_for_and_told(stage):
    await stage.hold(0, rows=[row(0)])
    stage.token = ConfigError("the token file is empty")
    stage.run()
    await stage.settle(12)
    assert stage.discord.connections == []
    assert "the token file is empty" in stage.shards[0].status().message
    stage.token = TOKEN
    await stage.until(lambda: stage.state() == "LIVE")


async def test_a_token_that_cannot_be_read_when_the_slot_is_won_keeps_what_was_paid(stage):
    await stage.hold(0)
    stage.run().grant(1)
    await stage.until(lambda: stage.state() == "QUEUED")
    stage.token = ConfigError("the token file is empty")
    await stage.settle(60)
    assert stage.discord.identifies == []
    stage.token = TOKEN
    await stage.until(lambda: stage.state() == "LIVE")
    assert stage.status.identifies_spent == 1


async def test_a_server_without_hello_is_left_after_a_while(stage):
    await stage.hold(0, rows=[row(0)])
    stage.discord.greets = False
    stage.run()
    await stage.settle(19.9)
    assert stage.discord.connections[0].closed_with is None
    await stage.settle(0.2)
    assert stage.discord.connections[0].closed_with == 4000
    stage.discord.greets = True
    await stage.until(lambda: stage.state() == "LIVE")


async def test_op_7_before_hello_leads_to_a_reconnect(stage):
    await stage.hold(0, rows=[row(0)])
    stage.discord.hello = RECONNECT
    stage.run()
    await stage.settle()
    stage.discord.hello = hello()
    await stage.until(lambda: stage.state() == "LIVE")
    assert stage.discord.connections[0].closed_with == 4000


# --- heartbeats and timers --------------------------------------------------------------------------------------------


async def test_heartbeats_go_out_by_the_shards_own_timer(stage):
    await identified(stage, 0)
    stage.discord.beats.clear()
    await stage.settle(400)
    assert len(stage.discord.beats) == 10
    assert stage.state() == "LIVE"


async def test_a_silent_server_is_left_and_the_session_resumed(stage):
    await identified(stage, 0)
    stage.discord.open(0).reading = False
    await stage.settle(85)
    assert stage.discord.connections[0].closed_with == 4000
    assert stage.state() == "LIVE"
    assert len(stage.discord.resumes) == 1


async def test_a_shard_that_is_not_used_any_more_has_no_timer(stage):
    await identified(stage, 0)
    stage.shards[0].end(Input.DRAIN)
    await stage.runs[0]
    stage.shards[0].stop_timer()
    loop = asyncio.get_running_loop()
    assert [each for each in loop._scheduled if not each.cancelled() and "Shard" in repr(each)] == []


# --- a full buffer ----------------------------------------------------------------------------------------------------


async def test_a_full_journal_pauses_reading_and_room_resumes_it(stage):
    await identified(stage, 0)
    stage.sink.hold()
    connection = stage.discord.open(0)
    stage.journal.resize(stage.journal.size + 1000)
    stage.discord.emit(0, count=50)
    assert stage.journal.full
    assert not connection.reading
    before = len(stage.sink.events)
    stage.discord.emit(0, count=5)
    assert len(stage.sink.events) == before
    stage.sink.release()
    assert connection.reading
    assert len(stage.sink.events) == before + 5
    assert stage.discord.open(0) is connection, "a short pause costs no reconnect"


async def test_a_pause_longer_than_an_interval_closes_and_resumes_when_there_is_room(stage):
    await identified(stage, 0)
    stage.sink.hold()
    stage.journal.resize(stage.journal.size + 10)
    stage.discord.emit(0)
    await stage.settle(85)
    assert stage.discord.connections[0].closed_with == 4000
    assert len(stage.discord.connections) == 1, "without room there is no new connection"
    assert "full" in stage.shards[0].status().message
    missed = stage.discord.emit(0, count=3)
    stage.sink.release()
    await stage.until(lambda: stage.state() == "LIVE")
    assert [event.payload for _, event in stage.sink.events][-4:-1] == missed
    assert len(stage.discord.identifies) == 1


async def test_heartbeats_go_on_during_a_pause(stage):
    await identified(stage, 0)
    stage.sink.hold()
    stage.journal.resize(stage.journal.size + 10)
    await stage.settle(1)
    stage.discord.emit(0)
    stage.discord.beats.clear()
    await stage.settle(39)
    assert len(stage.discord.beats) == 1


async def test_a_connection_made_while_the_journal_fills_up_reads_nothing(stage):
    """It was on its way when the buffer became full: nobody could pause it then."""
    await stage.hold(0, rows=[row(0)], limit=1000)
    stage.sink.hold()
    stage.discord.gate = asyncio.Event()
    stage.run()
    await stage.settle()
    other = Source(bot="1", shard=9, total=10, session="x")
    stage.journal.append(other, [Event(1, "MESSAGE_CREATE", b"x" * 2000)], 0.0)
    stage.discord.gate.set()
    await stage.settle()
    (connection,) = stage.discord.connections
    assert not connection.reading
    assert stage.discord.resumes == []
    stage.sink.release()
    await stage.until(lambda: stage.state() == "LIVE")


async def test_a_resume_waits_for_room_in_the_journal(stage):
    await stage.hold(0, rows=[row(0)], limit=1000)
    stage.sink.hold()
    stage.journal.append(Source(bot="1", shard=9, total=10, session="x"), [Event(1, "A", b"x" * 2000)], 0.0)
    stage.run()
    await stage.settle(100)
    assert stage.discord.connections == []
    stage.sink.release()
    await stage.until(lambda: stage.state() == "LIVE")


# --- its end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "code"), [(Input.DRAIN, 4000), (Input.DELETE, 1000)])
async def test_a_live_shard_ends_with_the_code_that_keeps_or_ends_the_session(stage, given, code):
    await identified(stage, 0)
    stage.shards[0].end(given)
    await stage.runs[0]
    assert stage.discord.connections[0].closed_with == code
    assert stage.shards[0].status().state is ShardState.CLOSED
    assert stage.shards[0].status().session == "session-0"


@pytest.mark.parametrize("given", [Input.DRAIN, Input.DELETE])
@pytest.mark.parametrize("moment", ["waiting", "connecting", "greeted", "queued", "resuming", "parked"])
async def test_a_shard_ends_in_every_state_and_leaves_nothing_behind(stage, moment, given, caplog):
    kept = [row(0)] if moment in {"connecting", "greeted", "resuming"} else []
    await stage.hold(0, rows=kept)
    stage.discord.greets = moment != "greeted"
    stage.discord.answers = False
    if moment == "connecting":
        stage.discord.gate = asyncio.Event()
    stage.run().grant(0 if moment == "waiting" else 1)
    await stage.settle(10 if moment == "parked" else 1)
    if moment == "parked":
        stage.discord.open(0).drop(4014)
    stage.shards[0].end(given)
    if moment == "connecting":
        stage.discord.gate.set()
    async with asyncio.timeout(10):
        await stage.runs[0]
    await stage.settle(100)
    assert stage.discord.open(0) is None
    assert len(stage.discord.connections) <= 1
    others = asyncio.all_tasks() - {asyncio.current_task(), *stage.tasks}
    assert [task for task in others if "Shard" in repr(task)] == []
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("moment", [0, 0.5, 3, 6, 100])
async def test_a_cancelled_shard_leaves_no_task_behind(stage, moment):
    await stage.hold(0, 1)
    stage.run().grant(2)
    await stage.settle(moment)
    for run in stage.runs.values():
        run.cancel()
    await asyncio.gather(*stage.runs.values(), return_exceptions=True)
    await stage.settle()
    others = asyncio.all_tasks() - {asyncio.current_task(), *stage.tasks}
    left = [task for task in others if "Shard._serve" in repr(task) or "Shard.run" in repr(task)]
    assert left == []


# --- what it says -----------------------------------------------------------------------------------------------------


async def test_the_row_holds_what_another_pod_needs(stage):
    await identified(stage, 0)
    stage.discord.emit(0, count=4)
    stage.sink.hold()
    stage.discord.emit(0, count=4)
    found = stage.shards[0].status()
    assert (found.id, found.state, found.session) == (0, ShardState.READY, "session-0")
    assert (found.url, found.seq) == ("wss://resume.example", 5)
    assert (found.intents, found.compression) == (513, Compression.ZSTD)
    assert found.message is None


async def test_a_shard_says_why_it_is_not_ready(stage):
    await stage.hold(0, rows=[row(0)])
    stage.discord.refusals = [OSError("Connection refused")] * 3
    stage.run()
    await stage.settle(1)
    found = stage.shards[0].status()
    assert found.state is ShardState.WAITING
    assert "Connection refused" in found.message
    await stage.until(lambda: stage.state() == "LIVE")
    stage.discord.open(0).drop(4014, "Disallowed intent(s).")
    await stage.settle()
    found = stage.shards[0].status()
    assert (found.state, found.close) == (ShardState.PARKED, 4014)
    assert "4014" in found.message


async def test_a_parked_shard_tries_again_by_a_new_grant_alone(stage):
    await identified(stage, 0)
    stage.discord.open(0).drop(4004)
    await stage.settle(600)
    assert len(stage.discord.connections) == 1
    stage.grant(1)
    await stage.until(lambda: stage.state() == "LIVE")
    assert len(stage.discord.resumes) == 1, "what the session was is not lost by a wrong token"
    assert len(stage.discord.identifies) == 1


async def test_the_token_stands_in_no_log_line_and_in_no_row(stage, caplog):
    caplog.set_level(logging.DEBUG)
    await identified(stage, 0)
    stage.grant(3)
    stage.discord.open(0).drop(4000)
    await stage.until(lambda: stage.state() == "LIVE")
    stage.discord.open(0).push(b'{"rubbish')
    await stage.until(lambda: stage.state() == "LIVE")
    stage.discord.open(0).push(invalid(resumable=False))
    stage.coordinator.errors["slot"] = [RuntimeError("a bug")]
    await stage.until(lambda: stage.state() == "LIVE")
    stage.discord.open(0).drop(4004)
    await stage.settle()
    lines = [repr(record.__dict__) + (record.exc_text or "") for record in caplog.records]
    assert len(lines) > 10
    assert TOKEN not in "".join(lines)
    assert TOKEN not in repr(stage.range)
    assert TOKEN not in repr(stage.shards[0].status())


# --- renewals ---------------------------------------------------------------------------------------------------------


async def renewing(stage, *shards, **fields):
    """Run shards whose sessions were identified with other intents, until they are LIVE again."""
    return await resumed(stage, *shards, **{"intents": 1, "identity": "before", **fields})


def told(stage):
    return [(source.session, event.name) for source, event in stage.sink.events if event.name != "RESUMED"]


async def test_a_session_with_another_identity_is_resumed_as_it_is_and_renewed_by_a_grant(stage):
    await renewing(stage, 0)
    await stage.settle(60)
    shard = stage.shards[0]
    assert stage.discord.identifies == []
    assert (shard.status().state, shard.status().intents, shard.status().identity) == (ShardState.READY, 1, "before")
    assert shard.status().message == "to be renewed: waits for the operator's grant to identify"
    old = stage.discord.open(0)
    stage.grant(1)
    await stage.until(lambda: stage.shards[0] is not shard)
    renewed = stage.shards[0]
    stage.discord.emit(0)
    await stage.settle()
    assert told(stage) == [
        ("session-1", "shardwright.gap"),
        ("session-1", "READY"),
        ("session-1", "MESSAGE_CREATE"),
    ]
    assert (old.closed_with, stage.discord.identifies[0].data["intents"]) == (1000, 513)
    assert shard._timer is None, "nothing is left of it"
    row = renewed.status()
    assert (row.session, row.intents, row.message, row.refused) == ("session-1", 513, None, None)
    assert stage.status.identifies_spent == 1
    assert renewed.session.counters.resumed == renewed.session.counters.identifies == 1, "its counters go on"


async def test_the_old_tail_goes_to_disk_before_the_new_identify_and_once_more_when_it_is_ready(stage, monkeypatch):
    await renewing(stage, 0)
    done, old = [], stage.shards[0]

    async def secure():
        done.append(("secured", len(stage.discord.identifies)))

    monkeypatch.setattr(stage.journal, "secure", secure)
    monkeypatch.setattr(stage.journal, "hasten", lambda: done.append(("hastened", old.session.state.name)))
    stage.grant(1)
    await stage.until(lambda: stage.shards[0] is not old)
    assert done == [("secured", 0), ("hastened", "LIVE")]


async def test_a_new_session_that_ends_in_the_read_of_its_ready_has_replaced_the_old_one(stage):
    """The sinks have the gap and READY: what the old session brings after them would be told as lost."""
    await renewing(stage, 0)
    old, connection = stage.shards[0], stage.discord.open(0)
    successor = old.successor
    stage.discord.answers = False
    stage.grant(1)
    await stage.until(lambda: stage.discord.identifies)
    successor.messages([ready(1, session="short"), invalid(resumable=False)])
    await stage.settle(1)
    assert stage.shards[0] is successor
    assert (told(stage)[-2:], connection.closed_with) == ([("short", "shardwright.gap"), ("short", "READY")], 1000)
    assert old.session.state is State.ENDED
    stage.discord.answers = True
    stage.grant(1)
    await stage.until(lambda: told(stage)[-1][0] == "session-1")
    gaps = [json.loads(event.payload) for _, event in stage.sink.events if event.name == "shardwright.gap"]
    assert [(gap["session"], gap["next_session"]) for gap in gaps] == [("old-0", "short"), ("old-0", "session-1")]


async def test_the_old_session_forwards_while_the_new_one_waits_for_its_slot(stage):
    await renewing(stage, 0)
    stage.discord.answers = False
    stage.grant(1)
    await stage.until(lambda: stage.discord.identifies)
    stage.discord.emit(0, count=3)
    await stage.settle()
    assert told(stage) == [("old-0", "MESSAGE_CREATE")] * 3
    assert "to be renewed" not in (stage.shards[0].status().message or "")
    assert stage.state() == "LIVE"


async def test_a_renewal_that_discord_refuses_leaves_the_old_session_alone(stage):
    await renewing(stage, 0)
    stage.discord.answers = False
    stage.grant(1)
    await stage.until(lambda: stage.discord.identifies)
    stage.discord.open(0).drop(4014, "disallowed intents")
    await stage.settle(600)
    row = stage.shards[0].status()
    assert (row.state, row.refused, row.session) == (ShardState.READY, 4014, "old-0")
    assert "4014" in row.message
    assert len(stage.discord.identifies) == stage.fatal == 1
    stage.discord.answers = True
    stage.grant(1)
    await stage.until(lambda: stage.shards[0].status().session != "old-0")
    assert stage.shards[0].status().refused is None


async def test_an_old_session_that_ends_meanwhile_is_replaced_by_one_identify(stage):
    await renewing(stage, 0)
    stage.grant(1)
    await stage.until(lambda: len(stage.discord.connections) == 2)
    stage.discord.connections[0].push(invalid(resumable=False))
    await stage.until(lambda: stage.state() == "LIVE" and stage.shards[0].status().session != "old-0")
    await stage.settle(60)
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 1
    assert [name for _, name in told(stage)] == ["shardwright.gap", "READY"]
    assert [each.is_open for each in stage.discord.connections].count(True) == 1
    assert stage.shards[0].successor is None


async def test_an_old_session_that_ends_after_the_new_ones_identify_waits_for_its_ready(stage):
    await renewing(stage, 0)
    stage.discord.answers = False
    stage.grant(1)
    await stage.until(lambda: stage.discord.identifies)
    old, new = stage.discord.connections
    old.push(invalid(resumable=False))
    await stage.settle(10)
    assert "waits for the session that is to replace this one" in stage.shards[0].status().message
    stage.discord._identified(new)
    await stage.settle(60)
    assert (stage.state(), len(stage.discord.identifies)) == ("LIVE", 1)
    assert [name for _, name in told(stage)] == ["shardwright.gap", "READY"]


@pytest.mark.parametrize("given", [Input.DRAIN, Input.DELETE])
async def test_a_shard_that_ends_takes_the_new_session_with_it(stage, given):
    await renewing(stage, 0)
    stage.grant(1)
    await stage.until(lambda: len(stage.discord.connections) == 2)
    stage.shards[0].end(given)
    await stage.until(stage.runs[0].done)
    assert [each.is_open for each in stage.discord.connections] == [False, False]


async def test_a_pod_that_lost_the_range_hears_it_from_the_new_session_too(stage):
    await renewing(stage, 0)
    stage.coordinator.errors["holds"] = [False]
    stage.grant(1)
    with pytest.raises(NotHolder):
        await stage.runs[0]


async def test_a_renewed_shard_goes_on_like_any_other(stage):
    await renewing(stage, 0)
    stage.grant(1)
    await stage.until(lambda: stage.shards[0].status().session == "session-1")
    stage.discord.open(0).drop(None)
    await stage.until(lambda: stage.state() == "LIVE")
    stage.shards[0].end(Input.DRAIN)
    await stage.until(stage.runs[0].done)


# --- what an identify waits for ---------------------------------------------------------------------------------------


async def test_the_old_tail_is_on_disk_before_an_identify_is_paid_for(stage):
    await identified(stage, 0)
    stage.grant(1)
    paid = []

    async def secure():
        paid.append(stage.status.identifies_spent)

    stage.journal.secure = secure
    stage.discord.open(0).push(invalid(resumable=False))
    await stage.until(lambda: stage.state() == "LIVE")
    assert (paid, stage.status.identifies_spent) == ([1], 2)


async def test_a_disk_that_hangs_keeps_no_identify_for_long(stage):
    await identified(stage, 0)
    stage.grant(1)
    stage.journal.secure = asyncio.Event().wait
    stage.discord.open(0).push(invalid(resumable=False))
    await stage.until(lambda: stage.state() == "LIVE", within=30)


async def test_op_9_right_after_an_identify_makes_the_pod_leave_its_bucket_more_time(stage):
    await stage.hold(0)
    judged = []
    stage.coordinator.identified = lambda bucket, too_early: judged.append((bucket, too_early))
    stage.discord.answers = False
    stage.run().grant(2)
    await stage.until(lambda: stage.discord.identifies)
    stage.discord.open(0).push(invalid(resumable=False))
    stage.discord.answers = True
    await stage.until(lambda: stage.state() == "LIVE")
    assert judged == [(0, True), (0, False)]


async def test_a_socket_that_does_not_answer_our_close_holds_nothing_up(stage):
    await resumed(stage, 0)
    old = stage.discord.open(0)
    old.abandon = lambda: setattr(old, "handler", None)
    before = asyncio.get_running_loop().time()
    old.push(RECONNECT)
    await stage.until(lambda: len(stage.discord.resumes) == 2)
    assert asyncio.get_running_loop().time() - before < 0.5
    assert not old.ended.done()
