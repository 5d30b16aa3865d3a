"""The rules of identify slots: when a try is due, and that two identifies are never less than 5 s apart at Discord."""

import itertools

import pytest
from hypothesis import given, settings, target
from hypothesis import strategies as st

from shardwright_api.discord import IDENTIFY_WINDOW
from shardwright_shard.coordination import bucket as rule
from shardwright_shard.coordination.bucket import LeaseState, Sight
from unit.shard.coordination.bucket_race import Contender, Delays, Race

FREE = LeaseState("7", "")
ROUNDING = 1e-6


def test_the_first_sight_counts_as_a_change_now():
    assert rule.see(None, FREE, 3.0) == Sight(FREE, 3.0)


def test_the_same_version_seen_again_keeps_its_time():
    assert rule.see(Sight(FREE, 3.0), LeaseState("7", "anything"), 9.0) == Sight(FREE, 3.0)


def test_another_version_counts_from_when_it_is_seen():
    assert rule.see(Sight(FREE, 3.0), LeaseState("8", "a/0"), 9.0) == Sight(LeaseState("8", "a/0"), 9.0)


def test_a_lease_that_is_not_there_is_no_sight_and_its_successor_is_new():
    assert rule.see(Sight(FREE, 3.0), None, 9.0) is None
    assert rule.see(None, FREE, 10.0) == Sight(FREE, 10.0)


def test_a_try_is_due_a_window_after_the_change_was_seen():
    assert rule.next_try_at(Sight(FREE, 3.0), shard=0, max_concurrency=1) == 8.4


@pytest.mark.parametrize(
    ("holder", "shard", "places"),
    [
        ("pod/3", 4, 0),
        ("pod/3", 5, 1),
        ("pod/3", 6, 2),
        ("pod/3", 2, 0),
        ("pod/3", 3, 0),
        ("", 0, 0),
        ("", 2, 2),
        ("somebody else's", 1, 1),
        ("pod/-3", 1, 1),
        ("pod/²", 1, 1),
    ],
)
def test_who_is_next_in_turn_waits_for_nothing_and_the_others_by_their_place(holder, shard, places):
    assert rule.stagger(holder, shard=shard, max_concurrency=1) == pytest.approx(places * rule.STEP)


def test_places_are_counted_within_the_bucket():
    assert rule.stagger("pod/3", shard=19, max_concurrency=16) == 0
    assert rule.stagger("pod/3", shard=35, max_concurrency=16) == rule.STEP


def test_nobody_waits_long_for_the_sake_of_order():
    assert rule.stagger("pod/0", shard=90_000, max_concurrency=1) == rule.MAX_STAGGER


def test_an_identity_names_pod_and_shard_and_is_read_back():
    assert rule.identity("mybot-128-0-15-abc-1", 14) == "mybot-128-0-15-abc-1/14"
    assert rule.last_shard("mybot-128-0-15-abc-1/14") == 14


def test_an_identify_is_sent_within_a_quarter_of_a_second_of_the_swap_or_never():
    assert rule.send_until(1.0, 1.05) == pytest.approx(1.25)
    assert rule.send_until(1.0, 1.25) is None
    assert rule.send_until(1.0, 4.0) is None


def cycle(draw, values, size=40):
    """Give a function that gives drawn delays in turns."""
    drawn = draw(st.lists(values, min_size=1, max_size=size))
    position = iter(range(10**9))
    return lambda: drawn[next(position) % len(drawn)]


@st.composite
def races(draw):
    delays = Delays(
        swap=cycle(draw, st.floats(0, 0.3)),
        answer=cycle(draw, st.floats(0, 0.3)),
        watch=cycle(draw, st.one_of(st.floats(0, 0.05), st.floats(0, 20))),
        discord=cycle(draw, st.floats(0.02, 0.17)),
        dawdle=cycle(draw, st.floats(0, 1)),
    )
    count = draw(st.integers(1, 6))
    clocks = draw(st.lists(st.floats(-1e5, 1e5), min_size=count, max_size=count))
    return Race([Contender(shard, clock, left=3) for shard, clock in enumerate(clocks)], delays)


def least_gap(arrivals):
    """Give the least time between two arrivals."""
    return min((later - earlier for (earlier, _), (later, _) in itertools.pairwise(arrivals)), default=9.0)


@given(races())
@settings(max_examples=300, deadline=None)
def test_two_identifies_are_never_less_than_5_s_apart_whatever_the_delays(race):
    gap = least_gap(race.run())
    target(-gap)
    assert gap >= IDENTIFY_WINDOW - ROUNDING


def exact(**changes):
    """Give delays that are the same each time."""
    values = {"swap": 0.0, "answer": 0.0, "watch": 0.0, "discord": 0.1, "dawdle": 0.0} | changes
    return Delays(**{name: (lambda value=value: value) for name, value in values.items()})


def worst_race(**changes):
    """Let one identify be sent as late and travel as slowly as allowed, and the next be as fast as can be."""
    latencies, dawdles = iter([0.17, 0.02]), iter([1.0, 0.0])
    delays = exact()
    delays.discord, delays.dawdle = lambda: next(latencies), lambda: next(dawdles)
    return Race([Contender(0, 0.0, left=1), Contender(1, 0.0, left=1)], delays, **changes)


def test_the_worst_case_leaves_5_s():
    assert least_gap(worst_race().run()) == pytest.approx(IDENTIFY_WINDOW)


def test_a_shorter_window_would_not_do():
    assert least_gap(worst_race(window=5.35).run()) < IDENTIFY_WINDOW - 0.01


def test_a_cold_start_goes_in_order_at_one_window_each_and_loses_few_swaps():
    delays = exact(swap=0.004, answer=0.004, watch=0.005, discord=0.03)
    race = Race([Contender(shard, 0.0, left=1) for shard in range(16)], delays)
    arrivals = race.run()
    assert [shard for _, shard in arrivals] == list(range(16))
    assert arrivals[-1][0] - arrivals[0][0] <= 1.1 * 15 * IDENTIFY_WINDOW + 2
    assert race.lost <= 16


def test_a_late_answer_wastes_the_slot_and_the_shard_tries_again():
    delays = exact()
    answers = iter([0.5, 0.0])
    delays.answer = lambda: next(answers)
    race = Race([Contender(0, 0.0, left=1)], delays)
    assert len(race.run()) == 1
    assert race.swaps == 2
