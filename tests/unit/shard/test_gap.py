"""Gaps: from the last event of a session that Discord ended to the next READY, told until every sink knows."""

import json

import pytest

from shardwright_api.resources import Gap
from shardwright_shard.gap import Ending, Timeline, rfc3339
from shardwright_shard.session import GIVE_UP_AFTER, MAX_FAILED_RESUMES, Session
from unit.shard.driven import CONFIG, Driven, resumable
from unit.shard.messages import BOT, dispatch, invalid, ready, resumed

NOON = 1735732800.0


def lost(driven, *, guilds=()):
    """The session is over; a new one is READY. Gives the events since."""
    driven.now = max(driven.now, driven.session.retry_at)
    driven.taken()
    driven.identifying().receive(ready(1, session="new", guilds=guilds))
    return driven.events()


def told(events):
    gap, then = events
    assert (gap.name, gap.seq, gap.last, then.name) == ("shardwright.gap", None, "gap", "READY")
    return json.loads(gap.payload)


# --- when events came -------------------------------------------------------------------------------------------------


def test_a_timeline_gives_a_time_no_later_than_the_events():
    timeline = Timeline()
    times = {seq: NOON + seq * 0.3 for seq in range(1, 1000)}
    for seq, time in times.items():
        timeline.note(seq, time)
    for seq in (1, 2, 3, 77, 500, 999):
        found = timeline.until(seq)
        assert found <= rfc3339(times[seq])
        assert found > rfc3339(times[seq] - 1.7)
    assert timeline.last == rfc3339(times[999])


def test_what_came_before_the_first_mark_has_the_time_of_the_checkpoint():
    timeline = Timeline("2025-01-01T10:00:00Z")
    assert (timeline.until(10), timeline.last) == ("2025-01-01T10:00:00Z", "2025-01-01T10:00:00Z")
    timeline.note(12, NOON)
    assert timeline.until(11) == "2025-01-01T10:00:00Z"
    assert timeline.until(12) == timeline.last == "2025-01-01T12:00:00.000Z"
    assert Timeline().until(5) is None


def test_a_timeline_that_nobody_asks_stays_small_and_right():
    timeline = Timeline()
    for seq in range(36_000):
        timeline.note(seq, NOON + 1.1 * seq)
    assert len(timeline._marks) <= 1000
    for seq in (0, 1, 17_000, 35_999):
        assert rfc3339(NOON + 1.1 * (seq - 100)) <= timeline.until(seq) <= rfc3339(NOON + 1.1 * seq)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_jumps_leaves_the_timeline_whole(jump):
    timeline = Timeline()
    timeline.note(1, NOON)
    timeline.note(2, NOON + jump)
    assert timeline.until(1) == rfc3339(NOON)
    assert timeline.until(2) == timeline.last == rfc3339(NOON + jump)


# --- the event --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda d: d.receive(invalid(resumable=False)), "op 9"),
        (lambda d: d.closed(4009), "close code 4009"),
        (lambda d: d.closed(4007), "close code 4007"),
    ],
)
def test_a_session_that_discord_ends_leaves_a_gap_that_is_told_before_the_next_ready(end, reason):
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2), dispatch("MESSAGE_CREATE", 3))
    driven.events()
    at = driven.session.wall()
    driven.now += 60
    end(driven)
    assert told(lost(driven)) == {
        "bot": BOT,
        "shard": 3,
        "total": 8,
        "session": "one",
        "seq": 3,
        "time": rfc3339(at),
        "next_session": "new",
        "next_ready": rfc3339(driven.session.wall()),
        "reason": reason,
    }
    assert driven.session.counters.gaps == 1
    assert driven.session.source.session == "new", "its id begins with the new session"


def test_events_of_the_read_that_ends_the_session_lie_before_the_gap():
    driven = Driven().live()
    driven.now += 60
    driven.receive(dispatch("MESSAGE_CREATE", 2), invalid(resumable=False))
    at = driven.session.wall()
    gap = told(lost(driven))
    assert (gap["seq"], gap["time"]) == (2, rfc3339(at))


def test_the_first_session_of_all_has_no_gap_before_it():
    driven = Driven().identifying()
    driven.receive(ready(1))
    assert driven.names() == ["READY"]
    assert driven.session.gap() is None


def test_a_session_from_a_checkpoint_that_is_over_leaves_a_gap_from_there():
    driven = Driven(to_resume=resumable(10)).greeted()
    driven.session.resumable.timeline = Timeline("2025-01-01T10:00:00Z")
    driven.receive(invalid(resumable=False))
    gap = told(lost(driven))
    assert (gap["session"], gap["seq"], gap["time"]) == ("old", 10, "2025-01-01T10:00:00Z")


def test_a_session_given_up_after_resumes_in_vain_says_so():
    driven = Driven(to_resume=resumable())
    for _ in range(MAX_FAILED_RESUMES):
        driven.now = max(driven.now, driven.session.retry_at)
        driven.greeted().session.closed(4000, driven.now, reason="not today")
    assert told(lost(driven))["reason"] == "no RESUME worked: not today"


def test_resumes_that_bring_nothing_for_five_minutes_end_a_session_however_few_they_were():
    driven = Driven(to_resume=resumable())
    driven.greeted().closed(None)
    driven.now += GIVE_UP_AFTER + 1
    driven.greeted().closed(None)
    assert driven.session.resumable is None


def test_the_time_in_which_discord_is_out_of_reach_does_not_count():
    driven = Driven(to_resume=resumable())
    driven.greeted().closed(None)
    driven.now += 10
    driven.connecting().closed(None)
    driven.now += 10 * GIVE_UP_AFTER
    driven.greeted().closed(None)
    assert driven.session.resumable is not None


# --- the row ----------------------------------------------------------------------------------------------------------


def test_the_gap_stands_in_the_row_until_the_new_sessions_ready_is_acknowledged():
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2))
    driven.events()
    old = driven.session.source
    old.acked = 2
    driven.receive(invalid(resumable=False))
    assert (driven.session.gap().session, driven.session.gap().seq) == ("one", 2)
    lost(driven)
    assert driven.session.gap().seq == 2
    driven.session.source.acked = 1
    assert driven.session.gap() is None


def test_while_the_old_tail_is_not_acknowledged_the_rows_gap_begins_before_it():
    driven = Driven().live()
    for seq in range(2, 10):
        driven.now += 10
        driven.receive(dispatch("MESSAGE_CREATE", seq))
        driven.events()
    driven.session.source.acked = 4
    driven.receive(invalid(resumable=False))
    row = driven.session.gap()
    assert row.seq == 4
    assert rfc3339(driven.session.wall() - 61) < row.time <= rfc3339(driven.session.wall() - 50)
    driven.session.resumable, events = None, lost(driven)
    assert told(events)["seq"] == 9, "this process has the tail: it stands in the journal before the gap"


def test_another_process_tells_the_same_gap_again_under_the_same_id():
    """It resumes the new session from 0, so that READY comes again."""
    ending = Ending.from_row(Gap(session="one", seq=4, time="2025-01-01T10:00:00Z"), bot=BOT, shard=3, total=8)
    driven = Driven(to_resume=resumable(0, session="new"), ending=ending).greeted()
    driven.receive(ready(1, session="new"), dispatch("MESSAGE_CREATE", 2), resumed(3))
    gap, then, *_ = driven.events()
    told = json.loads(gap.payload)
    assert (told["session"], told["seq"], told["next_session"]) == ("one", 4, "new")
    assert (driven.session.source.id_prefix + gap.last, then.name) == (f"{BOT}:new:gap", "READY")
    driven.session.source.acked = 1
    assert driven.session.gap() is None


def test_a_session_that_ends_before_its_gap_is_acknowledged_extends_it():
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2))
    driven.events()
    driven.receive(invalid(resumable=False))
    lost(driven)
    driven.closed(4009)
    gap = told(lost(driven))
    assert (gap["session"], gap["seq"], gap["reason"]) == ("one", 2, "close code 4009")


def test_a_failed_identify_changes_nothing_in_what_is_told():
    driven = Driven().live()
    driven.closed(4009)
    driven.now = max(driven.now, driven.session.retry_at)
    driven.identifying().receive(invalid(resumable=False))
    assert told(lost(driven))["reason"] == "close code 4009"


def test_a_renewal_tells_the_gap_from_the_old_sessions_last_event():
    driven = Driven(to_resume=resumable(10)).live()
    successor = Driven()
    successor.session = Session(CONFIG, random=lambda: 0.5, wall=driven.session.wall, replaces=driven.session)
    successor.identifying()
    driven.receive(dispatch("MESSAGE_CREATE", 12), dispatch("MESSAGE_CREATE", 13))
    driven.events()
    successor.receive(ready(1, session="new"))
    gap = told(successor.events())
    assert (gap["session"], gap["seq"], gap["reason"]) == ("old", 13, "renewal")
