"""Heartbeats: on time, answered, and honest about what is stored."""

import pytest

from unit.shard.driven import Driven, resumable
from unit.shard.messages import ACK, BEAT_REQUEST, dispatch, hello

INTERVAL = 40.0


def beats(driven):
    return [each for each in driven.sent() if each["op"] == 1]


@pytest.mark.parametrize(("random", "first"), [(0.0, 0.0), (0.25, 10.0), (0.999, 39.96)])
def test_the_first_beat_comes_after_a_random_part_of_the_interval(random, first):
    driven = Driven(random=random).greeted()
    start = driven.now
    assert driven.session.next_tick() == pytest.approx(start + first)
    driven.after(first + 0.001)
    assert len(beats(driven)) == 1
    assert driven.session.next_tick() == pytest.approx(start + first + INTERVAL)


@pytest.mark.parametrize("way", ["greeted", "identifying", "live"])
def test_beats_are_sent_from_hello_on_in_every_state(way):
    driven = Driven()
    getattr(driven, way)()
    driven.taken()
    driven.after(INTERVAL)
    assert len(beats(driven)) == 1


def test_every_interval_has_one_beat_as_long_as_they_are_acknowledged():
    driven = Driven(random=0.0).live()
    for _ in range(10):
        driven.after(INTERVAL / 2)
        driven.receive(ACK)
        driven.after(INTERVAL / 2)
    assert len(beats(driven)) == 11, "the one at the start included"
    assert driven.session.counters.heartbeats == 11
    assert driven.state == "LIVE"


def test_a_beat_names_the_last_sequence_that_is_stored_not_the_last_received():
    """So that nothing we may still need is trimmed, if Discord goes by it."""
    driven = Driven(random=0.0).live()
    driven.receive(dispatch("MESSAGE_CREATE", 2))
    driven.receive(BEAT_REQUEST)
    assert [each["d"] for each in beats(driven)] == [None]
    driven.session.stored = 1
    driven.receive(BEAT_REQUEST)
    assert [each["d"] for each in beats(driven)] == [1]


def test_a_resumed_session_beats_with_its_checkpoints_sequence():
    driven = Driven(to_resume=resumable(10)).live()
    driven.receive(BEAT_REQUEST)
    assert [each["d"] for each in beats(driven)] == [10]


def test_a_checkpoint_without_any_acknowledged_event_beats_with_null():
    driven = Driven(to_resume=resumable(0)).greeted()
    driven.taken()
    driven.receive(BEAT_REQUEST)
    assert [each["d"] for each in beats(driven)] == [None]


def test_a_request_is_answered_at_once_without_moving_the_schedule():
    driven = Driven().live()
    before = driven.session.next_tick()
    driven.receive(BEAT_REQUEST)
    assert driven.sent_ops() == [1]
    assert driven.session.next_tick() == before


def test_a_requested_beat_that_is_not_acknowledged_is_no_zombie():
    driven = Driven(random=0.5).live()
    driven.receive(BEAT_REQUEST)
    driven.after(INTERVAL / 2)
    assert driven.state == "LIVE"


def test_a_request_before_hello_is_answered_too():
    driven = Driven().opened()
    driven.receive(BEAT_REQUEST)
    assert driven.sent() == [{"op": 1, "d": None}]
    assert driven.state == "OPEN"


def test_no_ack_between_two_beats_is_a_zombie_closed_with_a_code_that_keeps_the_session():
    driven = Driven(random=0.0).live()
    driven.after(INTERVAL - 0.001)
    assert driven.state == "LIVE"
    driven.after(0.001)
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000
    assert driven.session.counters.zombies == 1
    assert driven.session.resumable is not None


@pytest.mark.parametrize("way", ["greeted", "identifying"])
def test_a_zombie_is_found_before_ready_too(way):
    driven = Driven(random=0.0)
    getattr(driven, way)()
    driven.after(INTERVAL)
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000


def test_the_latency_is_that_of_the_last_scheduled_beat():
    driven = Driven(random=0.0).live()
    driven.after(0.25)
    driven.receive(ACK)
    assert driven.session.latency == pytest.approx(0.25)
    driven.after(5)
    driven.receive(ACK)
    assert driven.session.latency == pytest.approx(0.25), "an ACK too many says nothing"


def test_a_loop_that_stood_still_does_not_make_a_zombie_of_a_beat_that_had_no_time():
    """The process was stopped for two intervals: the beat goes out late, and its ACK gets a whole interval."""
    driven = Driven(random=0.5).live()
    driven.now += 2.7 * INTERVAL
    driven.session.tick(driven.now)
    assert len(beats(driven)) == 1
    assert driven.session.next_tick() == pytest.approx(driven.now + INTERVAL)
    driven.receive(ACK)
    driven.after(INTERVAL)
    assert driven.state == "LIVE"


def test_a_late_tick_does_not_shift_the_schedule():
    driven = Driven(random=0.5).live()
    due = driven.session.next_tick()
    driven.now = due + 3.0
    driven.session.tick(driven.now)
    assert driven.session.next_tick() == pytest.approx(due + INTERVAL)


def test_each_connection_begins_its_own_schedule():
    driven = Driven(random=0.0).live()
    driven.closed(None)
    assert driven.session.next_tick() == float("inf")
    driven.random = 0.5
    driven.greeted(interval_ms=60_000)
    assert driven.session.next_tick() == pytest.approx(driven.now + 30.0)


def test_while_reading_is_paused_beats_go_on_and_nothing_is_a_zombie():
    driven = Driven(random=0.0).live()
    driven.session.reading(paused=True)
    driven.after(3.5 * INTERVAL)
    assert driven.state == "LIVE"
    assert len(beats(driven)) == 4


def test_after_a_pause_the_acks_that_wait_unread_get_their_time():
    driven = Driven(random=0.0).live()
    driven.session.reading(paused=True)
    driven.after(1.99 * INTERVAL)
    driven.session.reading(paused=False)
    driven.after(0.02 * INTERVAL)
    assert driven.state == "LIVE"
    assert driven.session.latency is None, "what a pause delayed is no latency"
    driven.after(INTERVAL)
    assert driven.state == "IDLE", "a socket that is dead is still found"


@pytest.mark.parametrize("interval", [0, -1, "null", '"x"'])
def test_hello_without_a_positive_interval_is_refused(interval):
    driven = Driven().opened()
    driven.receive(b'{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":%s}}' % str(interval).encode())
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000
    assert driven.session.counters.unreadable == 1


def test_the_given_interval_is_used_as_it_is():
    driven = Driven(random=0.0).opened()
    driven.receive(hello(41_250))
    driven.after(0)
    driven.receive(ACK)
    assert driven.session.next_tick() == pytest.approx(driven.now + 41.25)


def test_hello_may_take_its_time_but_not_for_ever():
    driven = Driven().opened()
    driven.after(19.9)
    assert driven.state == "OPEN"
    driven.after(0.2)
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000


def test_a_connection_that_never_opens_is_given_up_too():
    driven = Driven().connecting()
    driven.after(20.1)
    assert driven.state == "IDLE"
