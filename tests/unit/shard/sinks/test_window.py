"""What is under way, and how far acknowledgements reach without a hole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_shard.sinks.window import Window


def filled(*positions, size=10):
    window = Window(events=100, size=1000)
    window.sent(positions, size, positions[-1] + 1)
    return window


def test_nothing_is_under_way_at_first():
    window = Window(events=4, size=100)
    assert (window.under_way, window.room, window.size_room, window.position) == (0, 4, 100, 0)


def test_an_acknowledgement_moves_the_position_to_the_next_event():
    window = filled(5, 6, 9)
    assert window.acknowledge([0, 1]) == 2
    assert window.position == 9


def test_with_all_acknowledged_the_position_is_behind_what_was_looked_at():
    """Events after the last one that was sent did not pass the filter."""
    window = Window(events=10, size=100)
    window.sent([5, 6], 10, 20)
    assert window.acknowledge([0, 1]) == 2
    assert window.position == 20


def test_what_was_filtered_alone_needs_no_acknowledgement():
    window = Window(events=10, size=100)
    window.sent([], 0, 7)
    assert (window.position, window.under_way) == (7, 0)


def test_a_hole_holds_the_position():
    window = filled(0, 1, 2, 3)
    assert window.acknowledge([1, 2]) == 0
    assert window.position == 0
    assert window.acknowledge([0]) == 3
    assert window.position == 3


def test_unknown_and_repeated_numbers_are_harmless():
    window = filled(0, 1)
    assert window.acknowledge([7]) == 0
    assert window.acknowledge([0]) == 1
    assert window.acknowledge([0]) == 0
    assert window.acknowledge([1, 7]) == 1
    assert (window.under_way, window.size) == (0, 0)


def test_a_full_window_has_no_room_for_events():
    window = Window(events=2, size=100)
    window.sent([0, 1], 10, 2)
    assert window.room == 0
    window.acknowledge([0])
    assert window.room == 1


def test_a_full_window_has_no_room_for_bytes():
    window = Window(events=10, size=100)
    window.sent([0], 100, 1)
    assert window.room == 0
    window.acknowledge([0])
    assert window.room == 10


def test_what_comes_for_an_event_before_a_reset_is_ignored():
    window = filled(0, 1, 2)
    window.reset(1)
    window.sent([1, 2], 10, 3)
    assert window.acknowledge([0, 1, 2]) == 0
    assert window.position == 1
    assert window.acknowledge([3, 4]) == 2


def test_a_reset_forgets_what_came_ahead_of_a_hole():
    window = filled(0, 1, 2)
    window.acknowledge([1, 2])
    window.reset(0)
    assert (window.under_way, window.size, window._ahead) == (0, 0, set())


def test_acknowledging_before_a_number_never_goes_back_or_ahead_of_what_was_sent():
    window = filled(0, 1, 2)
    assert window.acknowledge_before(2) == 2
    assert window.acknowledge_before(1) == 0
    assert window.acknowledge_before(99) == 1
    assert window.position == 3


@st.composite
def journeys(draw):
    """Give flights of rising positions and the order in which their events are acknowledged, in runs."""
    steps = draw(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), min_size=1, max_size=6))
    flights, position = [], 0
    for flight in steps:
        positions = []
        for step in flight:
            position += step
            positions.append(position)
        flights.append(positions)
    numbers = draw(st.permutations(range(sum(map(len, flights)))))
    cuts = draw(st.lists(st.integers(1, 4), min_size=len(numbers), max_size=len(numbers)))
    runs, start = [], 0
    for cut in cuts:
        if numbers[start : start + cut]:
            runs.append(numbers[start : start + cut])
        start += cut
    return flights, runs


@given(journey=journeys())
def test_acknowledgements_in_any_order_never_move_the_position_past_a_hole(journey):
    flights, runs = journey
    every = [position for flight in flights for position in flight]
    window = Window(events=1000, size=10**6)
    for flight in flights:
        window.sent(flight, 7, flight[-1] + 1)
    left, moved = set(range(len(every))), 0
    for run in runs:
        moved += window.acknowledge(run)
        left -= set(run)
        expected = every[min(left)] if left else every[-1] + 1
        assert window.position == expected
        assert moved == (min(left) if left else len(every))
    assert (window.under_way, window.size) == (0, 0)


@pytest.mark.parametrize("numbers", [[0, 2, 1], [0, 0, 2], [0, 2, 2], [2, 1, 0]])
def test_a_run_that_only_looks_like_one_is_taken_apart(numbers):
    window = filled(10, 11, 12, 13)
    window.acknowledge(numbers)
    assert window.low == (3 if set(numbers) == {0, 1, 2} else 1)
