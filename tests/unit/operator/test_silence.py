"""Silence is measured on our own clock, and only while our watch stands."""

from shardwright_operator.keys import RangeKey
from shardwright_operator.silence import Freshness, Silence, Since, silence_limit

A, B = RangeKey("n", "a"), RangeKey("n", "b")


def live():
    made = Silence()
    made.connected(0.0)
    return made


def test_a_holder_is_unheard_then_fresh_then_silent():
    made = live()
    made.seen(A, 0.0)
    assert made.freshness(A) is Freshness.UNHEARD
    made.heard(A, 5.0)
    assert made.freshness(A) is Freshness.FRESH
    assert made.expire(19.9, 15.0) == []
    assert made.expire(20.0, 15.0) == [A]
    assert made.freshness(A) is Freshness.SILENT
    assert made.silent == 1
    made.heard(A, 21.0)
    assert made.freshness(A) is Freshness.FRESH


def test_while_the_watch_is_broken_nobody_becomes_silent():
    made = live()
    made.heard(A, 0.0)
    made.disconnected()
    assert made.expire(1000.0, 15.0) == []


def test_after_a_reconnect_all_clocks_start_anew_but_the_silent_stay_silent():
    made = live()
    made.heard(A, 0.0)
    made.heard(B, 10.0)
    assert made.expire(16.0, 15.0) == [A]
    made.disconnected()
    made.connected(100.0)
    assert made.expire(114.0, 15.0) == []
    assert made.freshness(A) is Freshness.SILENT
    assert made.expire(115.0, 15.0) == [B]


def test_a_forgotten_range_is_unheard_when_it_comes_back():
    made = live()
    made.heard(A, 0.0)
    made.forget(A)
    assert made.expire(100.0, 15.0) == []
    assert made.freshness(A) is Freshness.UNHEARD


def test_many_ranges_report_less_often_and_may_be_silent_for_longer():
    assert (silence_limit(200), silence_limit(201)) == (15.0, 25.0)


def test_since_measures_how_long_a_value_has_been_the_same():
    since = Since()
    assert since.held(A, "x", "pod-a", 0.0) == 0.0
    assert since.held(A, "x", "pod-a", 3.0) == 3.0
    assert since.held(A, "x", "pod-b", 4.0) == 0.0
    assert since.held(A, "x", "", 5.0) == 0.0
    assert since.held(A, "x", "pod-b", 6.0) == 0.0
    since.forget(A)
    assert since.held(A, "x", "pod-b", 9.0) == 0.0
