"""What ends a connection: op 7, op 9, close codes, pauses, and our own will."""

import pytest

from shardwright_shard.session_table import Input
from unit.shard.driven import Driven, resumable
from unit.shard.messages import ACK, RECONNECT, dispatch, hello, invalid


@pytest.mark.parametrize("way", ["opened", "greeted", "identifying", "live"])
def test_op_7_closes_and_reconnects_in_every_state_also_before_hello(way):
    driven = Driven()
    getattr(driven, way)()
    driven.receive(RECONNECT)
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000
    assert driven.delay() == 0


def test_op_7_keeps_a_session_that_is_being_resumed():
    driven = Driven(to_resume=resumable(10)).greeted()
    driven.receive(dispatch("MESSAGE_CREATE", 11), RECONNECT, dispatch("MESSAGE_CREATE", 12))
    assert [event.seq for event in driven.events()] == [11], "what follows comes again by the next replay"
    assert driven.session.resumable.seq == 11


@pytest.mark.parametrize("way", ["greeted", "live"])
def test_op_9_true_keeps_the_session_and_waits_one_to_five_seconds(way):
    for random, delay in [(0.0, 1.0), (0.5, 3.0), (1.0, 5.0)]:
        driven = Driven(to_resume=resumable(), random=random)
        getattr(driven, way)()
        driven.receive(invalid(resumable=True))
        assert driven.state == "IDLE"
        assert driven.session.resumable is not None
        assert driven.close_code() == 4000
        assert driven.delay() == pytest.approx(delay)


@pytest.mark.parametrize("way", ["greeted", "live"])
def test_op_9_false_forgets_the_session_and_waits_one_to_five_seconds(way):
    driven = Driven(to_resume=resumable(), random=0.5)
    getattr(driven, way)()
    driven.receive(invalid(resumable=False))
    assert driven.session.resumable is None
    assert driven.delay() == pytest.approx(3.0)
    driven.now = driven.session.retry_at
    driven.greeted()
    assert driven.state == "QUEUED"


def test_op_9_to_an_identify_leads_to_another_turn_in_the_queue():
    driven = Driven().identifying()
    driven.receive(invalid(resumable=False))
    driven.now = driven.session.retry_at
    driven.greeted()
    assert driven.state == "QUEUED"


@pytest.mark.parametrize("data", [b"null", b'"x"', b"{}", b"1"])
def test_op_9_that_says_neither_true_nor_false_keeps_the_session(data):
    driven = Driven().live()
    driven.receive(b'{"t":null,"s":null,"op":9,"d":%s}' % data)
    assert driven.state == "IDLE"
    assert driven.session.resumable is not None


def test_repeated_op_9_makes_the_wait_grow():
    """During outages Discord answers op 9 on purpose, to spread the load."""
    driven = Driven(random=0.5)
    delays = []
    for _ in range(9):
        driven.greeted().receive(invalid(resumable=False))
        delays.append(driven.delay())
        driven.now = driven.session.retry_at
    assert delays[0] == 3.0
    assert delays == sorted(delays)
    assert delays[-1] > 20


def test_a_wait_after_op_9_is_not_kept_for_later():
    driven = Driven(random=0.5)
    driven.greeted().receive(invalid(resumable=False))
    driven.now = driven.session.retry_at
    driven.live()
    driven.after(5)
    driven.receive(ACK)
    driven.after(30)
    driven.closed(None)
    assert driven.delay() == 0


def test_the_first_reconnect_is_at_once_and_the_following_wait_longer_up_to_a_minute():
    driven = Driven(random=1.0)
    delays = []
    for _ in range(10):
        driven.connecting().closed(None)
        delays.append(driven.delay())
        driven.now = driven.session.retry_at
    assert delays == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("random", "delay"), [(0.0, 0.5), (1.0, 1.0)])
def test_waits_have_jitter_so_that_shards_do_not_come_back_in_step(random, delay):
    driven = Driven(random=random)
    driven.connecting().closed(None)
    driven.connecting().closed(None)
    assert driven.delay() == pytest.approx(delay)


@pytest.mark.parametrize(("lived", "waits"), [(29.0, True), (31.0, False)])
def test_only_a_resumed_session_that_lived_for_a_while_clears_what_failed_before(lived, waits):
    driven = Driven(random=1.0, to_resume=resumable())
    for _ in range(4):
        driven.connecting().closed(None)
    driven.now = driven.session.retry_at
    driven.live()
    driven.after(lived)
    driven.closed(None)
    assert (driven.delay() > 0) == waits


def test_4008_means_a_pause():
    driven = Driven(random=0.5).live()
    driven.closed(4008)
    assert driven.delay() == pytest.approx(7.5)
    assert driven.session.resumable is not None


def test_the_pause_after_4008_is_over_with_the_next_connection():
    driven = Driven(random=0.5).live()
    driven.closed(4008)
    driven.now = driven.session.retry_at
    driven.live()
    driven.after(10)
    driven.receive(ACK)
    driven.after(30)
    driven.receive(RECONNECT)
    assert driven.delay() == 0
    assert driven.session.last_close == 4008, "for people it stays the last code that Discord sent"


@pytest.mark.parametrize("code", [4003, 4005, 4006, 4007, 4009])
def test_codes_that_end_the_session_lead_to_a_new_identify(code):
    driven = Driven().live()
    driven.closed(code)
    assert driven.session.resumable is None
    driven.greeted()
    assert driven.state == "QUEUED"


@pytest.mark.parametrize("code", [4004, 4010, 4011, 4012, 4013, 4014])
def test_fatal_codes_park_and_keep_what_a_resume_would_need(code):
    """A token that was changed alone is tried: Discord decides."""
    driven = Driven().live()
    driven.closed(code)
    assert driven.state == "PARKED"
    assert driven.session.resumable is not None
    assert driven.session.last_close == code
    driven.session.give(Input.UNPARK, driven.now)
    driven.greeted()
    assert driven.state == "RESUMING"


def test_codes_before_the_connection_is_open_mean_nothing_for_the_session():
    driven = Driven(to_resume=resumable()).connecting()
    driven.closed(4009)
    assert driven.session.resumable is not None


def test_a_pause_longer_than_an_interval_closes_and_keeps_the_session():
    driven = Driven().live()
    driven.session.give(Input.PAUSED, driven.now)
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000
    assert driven.session.resumable is not None


@pytest.mark.parametrize("way", ["connecting", "opened", "greeted", "identifying", "live"])
def test_a_drain_ends_for_good_and_leaves_the_session_to_others(way):
    driven = Driven()
    getattr(driven, way)()
    driven.session.give(Input.DRAIN, driven.now)
    assert driven.state == "ENDED"
    assert driven.close_code() == 4000
    assert driven.session.next_tick() == float("inf")
    driven.closed(1000)
    assert driven.state == "ENDED"


def test_a_drain_keeps_what_the_next_holder_needs():
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2))
    driven.session.give(Input.DRAIN, driven.now)
    assert driven.session.resumable.seq == 2


def test_a_deletion_takes_the_bot_offline():
    driven = Driven().live()
    driven.session.give(Input.DELETE, driven.now)
    assert driven.close_code() == 1000


def test_late_news_of_a_connection_that_is_over_change_nothing():
    driven = Driven().live()
    driven.receive(RECONNECT)
    before = driven.session.retry_at
    driven.closed(4004)
    driven.session.rubbish(ValueError("late"), driven.now)
    driven.session.tick(driven.now + 1000)
    assert driven.state == "IDLE"
    assert driven.session.retry_at == before
    assert driven.session.last_close is None


def test_closes_are_counted_by_code():
    driven = Driven()
    for code in (None, 4000, 4000, 1001):
        driven.live().closed(code)
        driven.now = driven.session.retry_at
    assert driven.session.counters.closes == {0: 1, 4000: 2, 1001: 1}


@pytest.mark.parametrize("way", ["greeted", "live"])
def test_a_second_hello_breaks_the_rules(way):
    driven = Driven(to_resume=resumable())
    getattr(driven, way)()
    driven.receive(hello())
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000


def test_op_9_right_after_each_ready_makes_the_wait_grow_all_the_same():
    driven = Driven(random=0.5)
    delays = []
    for _ in range(9):
        driven.live().receive(invalid(resumable=False))
        delays.append(driven.delay())
        driven.now = driven.session.retry_at
    assert delays == [3.0, 6.0, 12.0, 24.0, *[45.0] * 5]


def test_what_failed_before_the_first_ready_does_not_slow_the_first_resume():
    driven = Driven(random=1.0)
    for _ in range(6):
        driven.connecting().closed(None)
    driven.now = driven.session.retry_at
    driven.live().closed(None)
    assert driven.delay() == 0
