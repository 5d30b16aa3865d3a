"""The pod: standing by, holding, handing over, parking, and ending, on the cluster in memory.

Time jumps: nothing here waits. Discord is `fake_discord.py`; nobody but the tests plays the operator.
"""

import asyncio
import json
import logging

import msgspec
import pytest

from shardwright_api.resources import Compression, Gap, ShardState
from shardwright_shard.errors import CoordinatorUnavailable, NotHolder, RangeGone, ShardError
from shardwright_shard.sinks.memory import MemorySink
from shardwright_shard.spool import Damaged
from unit.shard.messages import invalid
from unit.shard.stage import RANGE, TOKEN, PodStage, config, row


@pytest.fixture
async def stage(monkeypatch):
    stage = PodStage(monkeypatch)
    yield stage
    await stage.end()


ROWS = [row(shard) for shard in range(4)]


# --- standing by ------------------------------------------------------------------------------------------------------


async def test_a_pod_that_is_not_active_stands_by_and_says_so(stage):
    pod = stage.run(active=False)
    await stage.settle(20)
    assert not pod.ready
    assert "standing by" in pod.why_not_ready()
    assert stage.status.holder == ""
    assert stage.status.standby["a"].sinks_available
    assert stage.discord.connections == []


async def test_an_active_pod_waits_for_a_range_that_another_one_holds(stage):
    stage.cluster.write(RANGE, holder="other")
    pod = stage.run()
    await stage.settle(60)
    assert stage.status.holder == "other"
    assert not pod.ready
    assert stage.discord.connections == []


async def test_a_restarted_container_lets_go_of_what_its_former_process_held(stage):
    """The operator made another pod active while the container was away: nobody else could free the range."""
    stage.give_checkpoint(*ROWS)
    stage.cluster.write(RANGE, holder="a")
    stage.run(active=False)
    await stage.settle(10)
    assert stage.status.holder == ""
    assert [(each.session, each.seq) for each in stage.status.shards] == [(each.session, each.seq) for each in ROWS]
    assert stage.discord.connections == []


async def test_a_fenced_holder_is_replaced(stage):
    stage.give_checkpoint(*ROWS)
    stage.cluster.write(RANGE, holder="dead")
    stage.run()
    await stage.settle(10)
    stage.cluster.fence(RANGE, "dead")
    await stage.ready()
    assert stage.status.holder == "a"
    assert len(stage.discord.resumes) == 4


async def test_a_standby_whose_sinks_are_away_says_so(stage):
    sink = MemorySink()
    sink.leave("no broker")
    stage.run(active=False, sinks=[sink])
    await stage.settle(1)
    assert not stage.status.standby["a"].sinks_available


@pytest.mark.parametrize("call", ["start", "take", "report_standby", "report"])
async def test_a_cluster_that_does_not_answer_is_asked_again(stage, call):
    stage.give_checkpoint(*ROWS)
    stage.run(active=call != "report_standby")
    stage.coordinators[0].errors[call] = [CoordinatorUnavailable("away")] * 3
    if call == "report_standby":
        await stage.until(lambda: stage.status.standby)
        stage.cluster.activate(RANGE, "a")
    await stage.ready()
    await stage.until(lambda: stage.coordinators[0].calls[call] >= 4)


async def test_a_pod_without_a_range_ends_at_once(stage):
    stage.cluster.delete(RANGE)
    pod = stage.pod()
    with pytest.raises(RangeGone):
        await pod.run()


# --- cold start -------------------------------------------------------------------------------------------------------


async def test_a_cold_start_identifies_each_shard_once_in_ascending_order(stage):
    pod = await stage.cold_start()
    assert [each.shard for each in stage.discord.identifies] == [0, 1, 2, 3]
    assert stage.status.identifies_spent == 4
    assert pod.why_not_ready() == ""
    await stage.settle(600)
    assert len(stage.discord.identifies) == 4


async def test_the_first_grant_goes_to_the_lowest_shard_alone(stage):
    """The canary: a wrong token or intent costs one identify."""
    stage.run()
    await stage.settle(13.37)
    stage.cluster.grant(RANGE, 1)
    await stage.settle(60)
    assert [each.shard for each in stage.discord.identifies] == [0]
    assert stage.states() == ["ready", "waiting", "waiting", "waiting"]
    stage.cluster.grant(RANGE, 3)
    await stage.ready()
    assert [each.shard for each in stage.discord.identifies] == [0, 1, 2, 3]


async def test_shards_with_a_session_resume_and_the_others_wait_for_grants(stage):
    stage.give_checkpoint(row(0), row(2))
    stage.run()
    await stage.settle(30)
    assert sorted(each.shard for each in stage.discord.resumes) == [0, 2]
    assert stage.discord.identifies == []
    stage.cluster.grant(RANGE, 1)
    await stage.settle(30)
    assert [each.shard for each in stage.discord.identifies] == [1]


async def test_a_pod_is_ready_only_while_every_shard_is(stage):
    pod = await stage.cold_start()
    stage.discord.refusals = [OSError("refused")] * 3
    stage.discord.open(2).drop(None)
    assert not pod.ready
    assert "shard 2" in pod.why_not_ready()
    await stage.ready()


async def test_a_pod_is_not_ready_while_a_sink_is_away(stage):
    pod = await stage.cold_start()
    stage.sinks["a"].leave("no broker")
    assert not pod.ready
    assert "no broker" in pod.why_not_ready()
    stage.sinks["a"].come_back()
    assert pod.ready


async def test_a_pod_is_not_ready_while_reading_is_paused(stage):
    pod = await stage.cold_start(memory_limit=20_000)
    stage.sinks["a"].hold()
    stage.discord.emit(0, count=500)
    assert pod.journal.full
    assert not pod.ready
    stage.sinks["a"].release()
    assert pod.ready


async def test_nothing_identifies_while_a_sink_is_away_and_everything_when_it_is_back(stage):
    sink = MemorySink()
    sink.leave("no broker")
    stage.run(sinks=[sink])
    stage.cluster.grant(RANGE, 4)
    await stage.settle(60)
    assert stage.discord.connections == []
    assert not stage.status.sinks[0].available
    sink.come_back()
    await stage.ready()


async def test_a_hold_stops_a_cold_start_and_its_end_lets_it_go_on(stage):
    stage.run()
    stage.cluster.grant(RANGE, 4)
    await stage.until(lambda: len(stage.discord.identifies) == 2)
    stage.cluster.hold(RANGE, on=True)
    await stage.settle(120)
    assert len(stage.discord.identifies) == 2
    stage.cluster.hold(RANGE, on=False)
    await stage.ready()
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 4


# --- the checkpoint ---------------------------------------------------------------------------------------------------


async def test_a_change_of_state_is_written_at_once_and_a_heartbeat_every_few_seconds(stage):
    await stage.cold_start()
    await stage.settle(1)
    writes = stage.coordinators[0].calls["report"]
    await stage.settle(50)
    assert 8 <= stage.coordinators[0].calls["report"] - writes <= 11
    stage.discord.refusals = [OSError("refused")] * 2
    stage.discord.open(1).drop(None)
    await stage.settle(0.5)
    assert stage.status.shards[1].state is not ShardState.READY


async def test_the_checkpoint_says_what_every_sink_has_acknowledged_and_no_more(stage):
    slow = MemorySink(name="slow")
    await stage.cold_start(sinks=[MemorySink(), slow])
    stage.discord.emit(0, count=5)
    slow.hold()
    stage.discord.emit(0, count=5)
    await stage.settle(10)
    assert stage.status.shards[0].seq == 6
    slow.release()
    await stage.settle(10)
    assert stage.status.shards[0].seq == 11


async def test_heartbeats_to_discord_say_what_is_stored(stage):
    await stage.cold_start()
    stage.discord.emit(0, count=9)
    await stage.settle(60)
    assert (0, 10) in stage.discord.beats
    stage.cluster.cut("a")
    stage.discord.emit(0, count=9)
    stage.discord.beats.clear()
    await stage.settle(60)
    assert {said for shard, said in stage.discord.beats if shard == 0} == {10}


@pytest.mark.parametrize("change", [{"compression": None}, {"url": None}])
async def test_a_checkpoint_that_may_not_be_resumed_leads_to_an_identify(stage, change):
    stage.give_checkpoint(row(0, **change), row(1))
    stage.run()
    await stage.settle(30)
    assert [each.shard for each in stage.discord.resumes] == [1]
    stage.cluster.grant(RANGE, 1)
    await stage.until(lambda: stage.discord.identifies)
    assert [each.shard for each in stage.discord.identifies] == [0]
    await stage.settle(1)
    (gap,) = [json.loads(e.payload) for _, e in stage.sinks["a"].events if e.name == "shardwright.gap"]
    assert (gap["session"], gap["seq"], gap["time"]) == ("old-0", 10, None)


async def test_the_gap_of_a_row_is_kept_and_told_by_the_next_pod(stage):
    kept = Gap(session="older", seq=7, time="2025-01-01T10:00:00Z")
    stage.give_checkpoint(row(0, session=None, url=None, gap=kept), row(1))
    stage.run()
    await stage.settle(30)
    assert stage.status.shards[0].gap == kept
    stage.cluster.grant(RANGE, 1)
    await stage.until(lambda: stage.status.shards[0].state == "ready" and stage.status.shards[0].gap is None)
    (gap,) = [json.loads(e.payload) for _, e in stage.sinks["a"].events if e.name == "shardwright.gap"]
    assert (gap["session"], gap["seq"], gap["time"]) == ("older", 7, kept.time)


async def test_a_row_says_when_its_sequence_came(stage):
    await stage.cold_start()
    stage.discord.emit(0)
    await stage.settle(10)
    first = stage.status.shards[0].seq_time
    assert first is not None
    assert stage.status.shards[0].seq == 2


async def test_sessions_of_another_identity_are_renewed_one_by_one_by_grants(stage):
    stage.give_checkpoint(*(row(shard, identity="before", intents=1) for shard in range(4)))
    stage.cluster.change(RANGE, config=config(identity="now"))
    stage.run()
    await stage.ready()
    assert {each.identity for each in stage.status.shards} == {"before"}
    for granted in (1, 2, 3, 4):
        stage.cluster.grant(RANGE, 1)
        await stage.until(lambda wanted=granted: [e.identity for e in stage.status.shards].count("now") == wanted)
        assert stage.pods["a"].ready
    await stage.settle(60)
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 4
    assert [each.id for each in stage.status.shards] == [0, 1, 2, 3]
    assert {each.refused for each in stage.status.shards} == {None}


async def test_a_session_keeps_its_compression_when_the_gateways_changes(stage):
    stage.give_checkpoint(row(0, compression=Compression.ZLIB))
    stage.cluster.change(RANGE, config=config(compression=Compression.NONE))
    stage.run()
    stage.cluster.grant(RANGE, 4)
    await stage.ready()
    assert "compress=zlib-stream" in stage.discord.resumes[0].uri
    assert all("compress" not in each.uri for each in stage.discord.identifies)
    await stage.settle(5)
    assert stage.status.shards[0].compression is Compression.ZLIB
    stage.cluster.grant(RANGE, 1)
    stage.discord.open(0).push(invalid(resumable=False))
    await stage.until(lambda: len(stage.discord.identifies) == 4)
    assert "compress" not in stage.discord.identifies[-1].uri


async def test_guild_counts_survive_a_hand_over(stage):
    stage.give_checkpoint(*(row(shard, guilds=100 + shard) for shard in range(4)))
    await stage.cold_start()
    await stage.settle(5)
    assert [each.guilds for each in stage.status.shards] == [100, 101, 102, 103]


# --- hand-over --------------------------------------------------------------------------------------------------------


async def test_a_hand_over_closes_with_4000_and_the_other_pod_resumes_without_an_identify(stage):
    await stage.cold_start()
    before = list(stage.discord.connections)
    stage.run("b")
    await stage.ready("b")
    assert [each.closed_with for each in before] == [4000] * 4
    assert stage.status.holder == "b"
    assert sorted(each.shard for each in stage.discord.resumes) == [0, 1, 2, 3]
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 4
    assert not stage.pods["a"].ready
    assert "a" in stage.status.standby


async def test_no_event_is_lost_over_a_hand_over_and_none_is_behind_us_before_it_is_acknowledged(stage):
    await stage.cold_start()
    first = stage.discord.emit(0, count=10)
    stage.sinks["a"].hold()
    unsure = stage.discord.emit(0, count=5)
    stage.cluster.activate(RANGE, "b")
    await stage.until(lambda: stage.status.holder == "")
    assert stage.status.shards[0].seq == 11, "what was not acknowledged is not behind us"
    missed = stage.discord.emit(0, count=5)
    stage.run("b")
    await stage.ready("b")
    kept = [event.payload for source, event in stage.sinks["b"].events if source.shard == 0 and event.seq]
    assert kept == unsure + missed
    assert first[-1] in [event.payload for _, event in stage.sinks["a"].events]


async def test_a_release_waits_for_acknowledgements_so_that_nothing_is_sent_twice(stage):
    await stage.cold_start()
    stage.sinks["a"].hold()
    stage.discord.emit(0, count=5)
    stage.run("b")
    await stage.settle(5)
    assert stage.status.holder == "a"
    stage.sinks["a"].release()
    await stage.ready("b")
    assert stage.discord.resumes[0].data["seq"] == 6
    assert [event.name for source, event in stage.sinks["b"].events if source.shard == 0] == ["RESUMED"]


async def test_a_range_goes_there_and_back_again(stage):
    await stage.cold_start()
    for number in range(4):
        name = "ba"[number % 2]
        stage.run(name) if number == 0 else stage.cluster.activate(RANGE, name)
        await stage.ready(name)
        stage.discord.emit(2, count=3)
        await stage.settle(1)
    assert len(stage.discord.identifies) == 4
    seqs = [event.seq for name in "ab" for source, event in stage.sinks[name].events if source.shard == 2 and event.seq]
    assert len(seqs) == len(set(seqs)) == 13


async def test_a_pod_that_dies_before_ready_was_acknowledged_is_followed_without_an_identify(stage):
    """Its checkpoint holds the session with sequence 0: the replay begins with READY itself."""
    stage.run()
    stage.sinks["a"].hold()
    stage.cluster.grant(RANGE, 1)
    await stage.until(lambda: stage.pods["a"].shards and stage.pods["a"].shards[0].session.state.name == "LIVE")
    stage.discord.emit(0, count=2)
    await stage.settle(6)
    assert (stage.status.shards[0].session, stage.status.shards[0].seq) == ("session-0", 0)
    stage.runs["a"].cancel()
    stage.run("b")
    stage.cluster.fence(RANGE, "a")
    await stage.until(lambda: len(stage.sinks["b"].events) >= 3)
    names = [event.name for _, event in stage.sinks["b"].events]
    assert names == ["READY", "MESSAGE_CREATE", "MESSAGE_CREATE", "RESUMED"]
    assert len(stage.discord.identifies) == 1


async def test_a_final_write_that_fails_does_not_keep_the_sockets_open(stage):
    await stage.cold_start()
    stage.coordinators[0].errors["release"] = [CoordinatorUnavailable("away")] * 100
    stage.cluster.activate(RANGE, "b")
    await stage.settle(30)
    assert all(each.closed_with == 4000 for each in stage.discord.connections)
    assert stage.status.holder == "a"
    stage.cluster.fence(RANGE, "a")
    stage.run("b")
    await stage.ready("b")
    assert len(stage.discord.identifies) == 4


async def test_a_final_write_that_fails_is_made_up_for_without_waiting_for_a_fence(stage):
    await stage.cold_start()
    stage.sinks["a"].hold()
    stage.discord.emit(0, count=3)
    stage.coordinators[0].errors["release"] = [CoordinatorUnavailable("away")] * 2
    stage.run("b")
    await stage.ready("b")
    assert stage.status.holder == "b"
    assert stage.discord.resumes[0].data["seq"] == 1
    assert stage.coordinators[0].calls["release"] == 3


async def test_a_final_write_that_comes_too_late_harms_nobody(stage):
    await stage.cold_start()
    stage.cluster.cut("a")
    stage.pods["a"].coordinator.inner._seen = stage.range
    stage.cluster.activate(RANGE, "b")
    stage.cluster.fence(RANGE, "a")
    stage.run("b")
    await stage.ready("b")
    stage.discord.emit(0, count=5)
    await stage.settle(6)
    stored = stage.status.shards
    stage.cluster.restore()
    await stage.settle(60)
    assert stage.status.holder == "b"
    assert [each.seq for each in stage.status.shards] == [each.seq for each in stored]
    assert stage.pods["b"].ready


async def test_a_pod_that_lost_the_range_closes_with_4000_and_writes_nothing(stage):
    await stage.cold_start()
    await stage.settle(6)
    stage.cluster.write(RANGE, holder="b")
    stored = stage.status.shards
    stage.discord.emit(0, count=5)
    await stage.settle(10)
    assert all(each.closed_with == 4000 for each in stage.discord.connections)
    assert stage.status.shards == stored
    assert stage.status.holder == "b"
    assert not stage.pods["a"].ready
    assert not stage.runs["a"].done()


# --- the cluster away -------------------------------------------------------------------------------------------------


async def test_cut_off_from_the_cluster_a_pod_keeps_its_sockets_and_forwards(stage):
    pod = await stage.cold_start()
    stage.cluster.cut("a")
    made = stage.discord.emit(0, count=5)
    await stage.settle(600)
    stage.discord.emit(0, count=5)
    assert len(stage.discord.connections) == 4
    assert pod.ready
    assert pod.reports_failed > 0
    assert [event.payload for source, event in stage.sinks["a"].events if source.shard == 0][1:6] == made
    stage.cluster.restore()
    await stage.settle(10)
    assert stage.status.shards[0].seq == 11


@pytest.mark.parametrize("error", [NotHolder("another pod holds it"), RangeGone("gone")])
async def test_a_report_that_is_refused_for_good_ends_the_holding(stage, error):
    await stage.cold_start()
    stage.coordinators[0].errors["report"] = [error]
    await stage.until(lambda: stage.discord.connections[0].closed_with == 4000)
    assert not stage.runs["a"].done(), "the pod itself stays: it is not for it to decide"


async def test_a_bug_in_a_task_ends_the_pod_with_its_error(stage):
    await stage.cold_start()
    stage.coordinators[0].errors["report"] = [RuntimeError("a bug")]
    with pytest.raises(RuntimeError, match="a bug"):
        await stage.runs["a"]


# --- fatal codes ------------------------------------------------------------------------------------------------------


async def test_a_fatal_code_parks_gives_the_grants_up_and_does_not_end_the_pod(stage):
    stage.run()
    stage.cluster.grant(RANGE, 4)
    await stage.until(lambda: len(stage.discord.identifies) == 1)
    stage.discord.open(0).drop(4014, "Disallowed intent(s).")
    await stage.settle(300)
    assert not stage.runs["a"].done()
    assert len(stage.discord.identifies) == 1, "the others do not try the same"
    assert stage.status.identifies_spent == stage.range.spec.identify_grant == 4
    assert stage.states()[0] == "parked"
    assert stage.status.shards[0].close == 4014
    assert not stage.pods["a"].ready


async def test_grants_are_given_up_as_soon_as_the_cluster_answers(stage):
    stage.run()
    stage.cluster.grant(RANGE, 4)
    await stage.until(lambda: len(stage.discord.identifies) == 1)
    stage.coordinators[0].errors["forfeit"] = [CoordinatorUnavailable("away")] * 5
    stage.discord.open(0).drop(4004)
    await stage.settle(3)
    assert stage.status.identifies_spent < 4
    await stage.settle(10)
    assert stage.status.identifies_spent == 4
    assert len(stage.discord.identifies) == 1


async def test_a_new_grant_is_the_sign_to_try_again(stage):
    stage.run()
    stage.cluster.grant(RANGE, 1)
    await stage.until(lambda: len(stage.discord.identifies) == 1)
    stage.discord.open(0).drop(4014)
    await stage.settle(60)
    stage.cluster.grant(RANGE, 4)
    await stage.ready()
    assert [each.shard for each in stage.discord.resumes] == [0], "its READY had come: it is not identified again"
    assert stage.status.identifies_spent == 4


async def test_a_parked_pod_still_hands_over(stage):
    await stage.cold_start()
    stage.discord.open(0).drop(4004)
    stage.cluster.activate(RANGE, "b")
    await stage.settle(5)
    assert stage.status.holder == ""
    assert stage.status.shards[0].session == "session-0"


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_sigterm_keeps_the_sessions_and_frees_the_range(stage):
    await stage.cold_start()
    stage.discord.emit(3, count=7)
    await stage.stopped()
    assert all(each.closed_with == 4000 for each in stage.discord.connections)
    assert stage.status.holder == ""
    assert [each.seq for each in stage.status.shards] == [1, 1, 1, 8]
    assert stage.states() == ["closed"] * 4


async def test_a_pod_told_to_stop_serves_on_until_its_successor_takes_over(stage):
    stage.give_checkpoint(*ROWS)
    first = stage.run(hold_on=20.0)
    await stage.ready()
    first.stop()
    await stage.settle(5)
    assert first.ready, "the sockets were closed before anybody could take over"
    stage.run("b")
    await stage.until(lambda: stage.status.holder == "b", within=2.0)
    await stage.until(stage.runs["a"].done, within=2.0)
    assert stage.discord.identifies == []


async def test_a_pod_told_to_stop_does_not_wait_for_ever(stage):
    stage.give_checkpoint(*ROWS)
    pod = stage.run(hold_on=20.0)
    await stage.ready()
    pod.stop()
    await stage.until(stage.runs["a"].done, within=23.0)
    assert stage.status.holder == ""


async def test_a_pod_told_to_stop_ends_at_once_where_its_spool_turns_out_damaged(stage):
    stage.give_checkpoint(*ROWS)
    pod = stage.run(hold_on=20.0)
    await stage.ready()
    pod.stop()
    await stage.settle(5)
    pod.journal._on_broken(Damaged("a checksum is wrong"))
    await stage.until(stage.runs["a"].done, within=3.0)
    assert isinstance(stage.runs["a"].exception(), Damaged)
    assert stage.status.holder == ""


async def test_a_pod_told_to_stop_ends_at_once_where_the_gateway_is_gone(stage):
    stage.give_checkpoint(*ROWS)
    pod = stage.run(hold_on=20.0)
    await stage.ready()
    stage.cluster.delete_gateway("mybot")
    pod.stop()
    await stage.until(stage.runs["a"].done, within=3.0)
    assert {each.closed_with for each in stage.discord.connections} == {1000}


async def test_sigterm_with_the_gateway_deleted_takes_the_bot_offline(stage):
    await stage.cold_start()
    stage.cluster.delete_gateway("mybot")
    await stage.stopped()
    assert all(each.closed_with == 1000 for each in stage.discord.connections)


async def test_sigterm_without_an_answer_about_the_gateway_keeps_the_sessions(stage):
    await stage.cold_start()
    stage.coordinators[0].errors["gateway_gone"] = [CoordinatorUnavailable("away")]
    await stage.stopped()
    assert all(each.closed_with == 4000 for each in stage.discord.connections)


@pytest.mark.parametrize("moment", ["standing by", "cold start", "api away"])
async def test_sigterm_ends_a_pod_at_any_time(stage, moment):
    stage.run(active=moment != "standing by")
    stage.cluster.grant(RANGE, 4)
    if moment == "api away":
        stage.coordinators[0].errors["start"] = [CoordinatorUnavailable("away")] * 100
    await stage.settle(6)
    run = await stage.stopped()
    assert isinstance(run.exception(), CoordinatorUnavailable if moment == "api away" else type(None))
    assert stage.discord.open(0) is None


@pytest.mark.parametrize(("gone", "code"), [(True, 1000), (False, 4000)])
async def test_a_range_that_vanishes_ends_the_sessions_only_with_its_gateway(stage, gone, code):
    await stage.cold_start()
    if gone:
        stage.cluster.delete_gateway("mybot")
    stage.cluster.delete(RANGE)
    await stage.until(lambda: all(each.closed_with == code for each in stage.discord.connections))
    await stage.settle(60)
    assert not stage.runs["a"].done(), "it waits to be deleted"
    assert not stage.pods["a"].ready
    await stage.stopped()


async def test_sigterm_with_a_sink_that_does_not_acknowledge_ends_in_time(stage):
    await stage.cold_start()
    stage.sinks["a"].hold()
    stage.discord.emit(0, count=5)
    start = asyncio.get_running_loop().time()
    await stage.stopped()
    assert asyncio.get_running_loop().time() - start < 15
    assert stage.status.shards[0].seq == 1
    assert stage.status.holder == ""


async def test_a_stopped_pod_leaves_no_task_and_no_watch_behind(stage):
    await stage.cold_start()
    await stage.stopped()
    await stage.settle(1)
    assert asyncio.all_tasks() - {asyncio.current_task()} == set()
    assert stage.cluster._watchers == []


# --- sinks that fail --------------------------------------------------------------------------------------------------


class Broken(MemorySink):
    """Its task ends, by an error or by itself, after a while."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    async def run(self):
        await asyncio.sleep(60)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(("error", "kind"), [(RuntimeError("a bug"), RuntimeError), (None, ShardError)])
async def test_a_sink_whose_task_has_ended_ends_the_pod_in_good_order(stage, error, kind, caplog):
    """Else nobody would ever notice that nothing is published any more."""
    await stage.cold_start(sinks=[MemorySink(name="good"), Broken(error)])
    with pytest.raises(kind):
        await stage.runs["a"]
    assert all(each.closed_with == 4000 for each in stage.discord.connections)
    assert stage.status.holder == ""
    assert "a task has failed" in [record.message for record in caplog.records]


async def test_a_full_buffer_pauses_every_shard_of_the_pod_and_keeps_memory_bounded(stage):
    pod = await stage.cold_start(memory_limit=50_000)
    stage.sinks["a"].hold()
    sizes = []
    for _ in range(50):
        for shard in range(4):
            stage.discord.emit(shard, count=10, data={"content": "x" * 400})
        sizes.append(pod.journal.size)
    assert max(sizes) < 60_000
    await stage.settle(200)
    assert pod.journal.size == sizes[-1]
    stage.sinks["a"].release()
    await stage.ready()
    await stage.settle(5)
    counted = [event.seq for source, event in stage.sinks["a"].events if source.shard == 1 and event.seq]
    assert counted == sorted(set(counted))
    assert len(counted) == 501
    assert len(stage.discord.identifies) == 4


# --- secrets ----------------------------------------------------------------------------------------------------------


async def test_the_token_stands_in_no_log_line_and_no_object(stage, caplog):
    caplog.set_level(logging.DEBUG)
    await stage.cold_start()
    stage.run("b")
    await stage.ready("b")
    stage.discord.open(0).drop(4004, "Authentication failed.")
    await stage.settle(30)
    await stage.stopped("b")
    said = "".join(repr(record.__dict__) + (record.exc_text or "") for record in caplog.records)
    assert len(said) > 1000
    assert TOKEN not in said
    assert TOKEN not in repr(stage.range)


# --- checkpoint and spool ---------------------------------------------------------------------------------------------


@pytest.fixture
def spooling(stage, tmp_path):
    """Give the pods disks of their own."""
    stage.cluster.change(RANGE, config=config(buffer_disk=10_000_000))
    folders = {name: tmp_path / name for name in "ab"}
    for folder in folders.values():
        folder.mkdir()
    return folders


def payloads(sink, shard=0):
    return [event.payload for source, event in sink.events if source.shard == shard and event.seq]


async def test_a_new_session_is_reported_at_once(stage):
    """A container that dies a moment after READY must not have won its session for nothing."""
    stage.run()
    stage.cluster.grant(RANGE, 4)
    await stage.until(lambda: len(stage.discord.identifies) == 4)
    for shard, session in enumerate(sorted(stage.discord.sessions)):
        await stage.until(lambda at=shard, name=session: stage.status.shards[at].session == name, within=0.1)


async def test_what_waits_for_a_sink_is_told_and_on_disk(stage, spooling):
    pod = await stage.cold_start(state_dir=spooling["a"])
    stage.sinks["a"].leave("no broker")
    stage.discord.emit(0, count=30, data={"content": "x" * 1000})
    await stage.settle(10)
    assert (pod.journal.size, pod.journal.statistics()["spool_events"]) == (0, 30)
    assert stage.status.spool_bytes > 30_000
    assert "no broker" in pod.why_not_ready()
    stage.sinks["a"].come_back()
    await stage.settle(10)
    assert stage.status.spool_bytes == 0
    assert stage.status.shards[0].seq == 31
    assert list((spooling["a"] / "spool").iterdir()) == []


async def test_a_session_is_resumed_into_the_spool_while_a_sink_is_away(stage, spooling):
    await stage.cold_start(state_dir=spooling["a"], memory_limit=20_000)
    stage.sinks["a"].leave("no broker")
    for _ in range(5):
        stage.discord.emit(0, count=15, data={"content": "x" * 1000})
        await stage.settle(3)
        stage.discord.open(0).drop(4000)
        await stage.until(lambda: stage.discord.open(0) is not None and stage.states()[0] == "ready")
    assert len(stage.discord.resumes) == 5
    stage.sinks["a"].come_back()
    await stage.settle(3)
    assert len(payloads(stage.sinks["a"])) == 76


async def test_a_container_that_dies_resumes_behind_its_spool(stage, spooling):
    await stage.cold_start(state_dir=spooling["a"])
    stage.sinks["a"].leave("no broker")
    spooled = stage.discord.emit(0, count=20)
    await stage.settle(10)
    in_memory = stage.discord.emit(0, count=3)
    first = stage.pods["a"]
    stage.runs["a"].cancel()
    await stage.settle(1)
    assert stage.status.shards[0].seq == 1
    stage.cluster.write(RANGE, shards=stage.status.shards)
    stage.run(state_dir=spooling["a"], active=False)
    await stage.ready()
    assert stage.pods["a"] is not first
    assert [each.data["seq"] for each in stage.discord.resumes if each.shard == 0] == [21]
    assert payloads(stage.sinks["a"]) == spooled + in_memory
    await stage.settle(10)
    assert stage.status.shards[0].seq == 24
    assert len(stage.discord.identifies) == 4


def forget_in_the_range(stage, shard=0):
    """Make the ShardRange say what it said before the shard's session was won: the crash came before the report."""
    rows = list(stage.status.shards)
    rows[shard] = msgspec.structs.replace(rows[shard], session="before", seq=900)
    stage.cluster.write(RANGE, shards=tuple(rows), heartbeat_time="2025-01-01T00:00:00.000000Z")


async def die(stage, name="a"):
    stage.runs[name].cancel()
    await stage.settle(1)


async def test_a_second_crash_while_the_range_is_taken_makes_nothing_look_newer(stage, spooling):
    await stage.cold_start(state_dir=spooling["a"])
    won = stage.status.shards[0].session
    await die(stage)
    forget_in_the_range(stage)
    opening = asyncio.Event()

    async def never(*_, **__):
        opening.set()
        await asyncio.Event().wait()

    stage.run(state_dir=spooling["a"], active=False).keeper.open = never
    await opening.wait()
    await die(stage)
    stage.run(state_dir=spooling["a"], active=False)
    await stage.ready()
    assert [each.data["session_id"] for each in stage.discord.resumes if each.shard == 0] == [won]
    assert len(stage.discord.identifies) == 4


async def test_a_container_that_is_no_longer_active_hands_on_what_only_its_files_know(stage, spooling):
    await stage.cold_start(state_dir=spooling["a"])
    stage.sinks["a"].leave("no broker")
    waiting = stage.discord.emit(0, count=5)
    await stage.settle(10)
    await die(stage)
    forget_in_the_range(stage)
    stage.run("b", state_dir=spooling["b"])
    stage.run("a", state_dir=spooling["a"], active=False)
    await stage.ready("b")
    assert len(stage.discord.identifies) == 4, "the session that the ShardRange did not know is resumed"
    await stage.until(lambda: payloads(stage.sinks["a"]) == waiting)
    assert stage.status.holder == "b"


async def test_a_hand_over_does_not_wait_for_a_disk_that_does_not_answer(stage, spooling):
    pod = await stage.cold_start(state_dir=spooling["a"])
    await stage.settle(5)
    answers = asyncio.Event()

    async def hung(function, *args):
        await answers.wait()
        return function(*args)

    pod.keeper._in_thread = pod.journal._in_thread = hung
    stage.sinks["a"].leave("no broker")
    stage.discord.emit(0, count=3)
    await stage.settle(10)
    start = asyncio.get_running_loop().time()
    stage.run("b", state_dir=spooling["b"])
    await stage.ready("b")
    print(f"handed over in {asyncio.get_running_loop().time() - start:.1f} s")
    assert len(stage.discord.identifies) == 4
    assert pod.keeper.failing
    answers.set()
    await stage.until(lambda: not pod.keeper.failing)


async def test_a_directory_that_does_not_answer_keeps_no_pod_from_holding(stage, spooling):
    async def hung(*_):
        await asyncio.Event().wait()

    stage.run(state_dir=spooling["a"]).keeper._in_thread = hung
    stage.cluster.grant(RANGE, 4)
    await stage.ready()
    assert stage.pods["a"].keeper.failing
    await stage.stopped()


async def test_a_pod_that_gave_its_range_up_goes_on_forwarding_its_spool(stage, spooling):
    await stage.cold_start(state_dir=spooling["a"])
    stage.sinks["a"].leave("no broker")
    waiting = stage.discord.emit(0, count=20)
    await stage.settle(10)
    stage.run("b", state_dir=spooling["b"])
    await stage.ready("b")
    assert stage.discord.resumes[0].data["seq"] == 1, "the spool is A's own: B resumes from what is acknowledged"
    assert payloads(stage.sinks["b"]) == waiting
    stage.sinks["a"].come_back()
    assert payloads(stage.sinks["a"])[1:] == waiting
    stage.cluster.activate(RANGE, "a")
    await stage.ready("a")
    later = stage.discord.emit(0, count=2)
    await stage.settle(10)
    assert payloads(stage.sinks["a"])[-2:] == later
    assert stage.status.shards[0].seq == stage.discord.sessions["session-0"].events[-1][0]


async def test_sigterm_with_a_sink_away_leaves_everything_on_disk(stage, spooling):
    await stage.cold_start(state_dir=spooling["a"])
    stage.sinks["a"].leave("no broker")
    waiting = stage.discord.emit(0, count=5)
    start = asyncio.get_running_loop().time()
    await stage.stopped()
    assert asyncio.get_running_loop().time() - start < 15
    assert stage.status.holder == ""
    stage.cluster.activate(RANGE, "a")
    stage.run(state_dir=spooling["a"], active=False)
    await stage.ready()
    assert [each.data["seq"] for each in stage.discord.resumes if each.shard == 0] == [6]
    assert payloads(stage.sinks["a"]) == waiting


async def test_a_spool_that_cannot_be_read_back_ends_the_pod_so_that_its_next_start_cuts_it_off(stage, spooling):
    await stage.cold_start(state_dir=spooling["a"])
    stage.sinks["a"].leave("no broker")
    stage.discord.emit(0, count=5)
    await stage.settle(10)
    (file,) = (spooling["a"] / "spool").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    stage.sinks["a"].come_back()
    with pytest.raises(Damaged):
        await stage.runs["a"]
    stage.run(state_dir=spooling["a"])
    await stage.ready()
    assert len(payloads(stage.sinks["a"])) == 5
    assert len(stage.discord.identifies) == 4
