"""An event that cannot be read: fetched once more, and skipped the second time, never silently."""

import json

import pytest

from shardwright_shard.errors import TooLarge, Unreadable
from shardwright_shard.session import MAX_FAILED_RESUMES, MAX_SKIPS
from unit.shard.driven import Driven, resumable
from unit.shard.messages import dispatch, resumed

POISON = b'{"t":"MESSAGE_CREATE","s":'


def again(driven, *messages):
    """The next connection: HELLO, RESUME, then these messages."""
    driven.now = max(driven.now, driven.session.retry_at)
    driven.taken()
    driven.greeted().receive(*messages)
    return driven


def test_the_first_time_it_is_fetched_again():
    driven = Driven().live()
    driven.receive(POISON)
    assert driven.session.counters.skipped == 0
    again(driven, dispatch("MESSAGE_CREATE", 2), resumed(3))
    assert driven.state == "LIVE"
    assert [event.seq for event in driven.events()] == [2, None]


def test_the_second_time_at_one_place_it_is_skipped_counted_and_told():
    driven = Driven().live()
    driven.receive(POISON)
    again(driven, POISON)
    assert driven.session.counters.skipped == 1
    assert driven.session.counters.unreadable == 2
    (event,) = driven.events()
    assert (event.seq, event.name) == (2, "shardwright.unreadable")
    told = json.loads(event.payload)
    assert (told["seq"], told["shard"]) == (2, 3)
    assert "unreadable" in told["reason"]
    driven.greeted()
    assert driven.sent()[-1]["d"]["seq"] == 2, "RESUME goes on behind it"


def test_poison_found_in_a_replay_is_tried_twice_there():
    driven = Driven(to_resume=resumable(10)).greeted()
    driven.receive(dispatch("MESSAGE_CREATE", 11), POISON)
    assert driven.session.counters.skipped == 0
    again(driven, POISON)
    assert driven.session.counters.skipped == 1
    again(driven, dispatch("MESSAGE_CREATE", 13), resumed(14))
    assert driven.state == "LIVE"


def test_rubbish_at_two_different_places_is_not_poison():
    driven = Driven(to_resume=resumable(10)).greeted()
    driven.receive(POISON)
    again(driven, dispatch("MESSAGE_CREATE", 11), POISON)
    assert driven.session.counters.skipped == 0


def test_a_replay_that_worked_clears_the_suspicion():
    driven = Driven().live()
    driven.receive(POISON)
    again(driven, resumed(2))
    driven.receive(POISON)
    assert driven.session.counters.skipped == 0
    again(driven, dispatch("MESSAGE_CREATE", 3), resumed(4))
    assert driven.session.counters.skipped == 0


def test_two_poisoned_events_in_a_row_are_both_skipped():
    driven = Driven().live()
    driven.receive(POISON)
    for _ in range(3):
        again(driven, POISON)
    assert driven.session.counters.skipped == 2
    assert driven.session.resumable.seq == 3


def test_what_fails_for_ever_does_not_skip_one_event_after_another():
    """Something on the way answers each RESUME with rubbish: that is no poison, and the session is given up in the end."""
    driven = Driven(to_resume=resumable(10))
    for _ in range(4 * MAX_FAILED_RESUMES):
        if driven.session.resumable is None:
            break
        again(driven, POISON)
    assert driven.session.resumable is None
    assert driven.session.counters.skipped <= MAX_SKIPS + MAX_FAILED_RESUMES // 2


def test_what_is_unreadable_before_the_replay_is_no_events_fault():
    driven = Driven(to_resume=resumable(10)).opened()
    driven.receive(b"{")
    again(driven, POISON)
    assert driven.session.counters.skipped == 0


@pytest.mark.parametrize("error", [Unreadable("zlib: incorrect header check"), TooLarge("more than 16777216 bytes")])
def test_bytes_that_cannot_be_inflated_count_like_messages_that_cannot_be_read(error):
    driven = Driven().live()
    driven.session.rubbish(error, driven.now)
    assert driven.close_code() == 4000
    driven.greeted().session.rubbish(error, driven.now)
    assert driven.session.counters.skipped == 1
    assert driven.events()[0].seq == 2


def test_rubbish_without_a_session_skips_nothing():
    driven = Driven().identifying()
    driven.receive(POISON)
    assert driven.state == "IDLE"
    assert driven.events() == []
    assert driven.session.counters.skipped == 0


def test_nothing_of_the_payload_is_told():
    driven = Driven().live()
    secret = b'{"t":"MESSAGE_CREATE","s":2,"op":0,"d":{"content":"private words"'
    driven.session._expected = b""
    driven.receive(secret)
    again(driven, b'{"t":"message","s":2,"op":0,"d":{"content":"private words"}}')
    (event,) = driven.events()
    assert b"private" not in event.payload
    assert "private" not in driven.session.last_reason


def test_three_poisoned_events_in_a_row_do_not_exhaust_the_patience_with_the_session():
    driven = Driven().live()
    driven.receive(POISON)
    for _ in range(5):
        again(driven, POISON)
    assert driven.session.counters.skipped == 3
    again(driven, dispatch("MESSAGE_CREATE", 5), resumed(6))
    assert driven.state == "LIVE"
