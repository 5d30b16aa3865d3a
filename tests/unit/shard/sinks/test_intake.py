"""Sinks that drop rather than hold the cursor back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api.resources import Overflow
from shardwright_shard.sinks.intake import DroppingIntake, intake
from unit.shard.sinks.making import TIME, journal, message, source

SIZE = len(message(1, size=100).payload)


class Stage:
    """A journal, and one sink's intake that takes at most so many messages of 100 bytes."""

    def __init__(self, overflow, *, messages=5):
        self.journal = journal()
        self.source = source()
        self.intake = intake(self.journal.reader(lambda: None), overflow, limit=messages * SIZE)
        self.last = 0

    def append(self, count):
        for _ in range(count):
            self.last += 1
            self.journal.append(self.source, [message(self.last, size=100)], TIME)
            self.intake.gather()

    def take(self, limit=1024):
        return [event.seq for batch in self.intake.take(limit) for event in batch.events]


def test_a_blocking_sink_reads_the_journal_itself():
    made = journal()
    reader = made.reader(lambda: None)
    assert intake(reader, Overflow.BLOCK) is reader


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
def test_while_it_keeps_up_a_dropping_sink_is_as_safe_as_a_blocking_one(overflow):
    stage = Stage(overflow)
    stage.append(4)
    assert stage.take() == [1, 2, 3, 4]
    assert stage.source.acked is None
    stage.intake.ack(2)
    assert stage.source.acked == 2
    stage.intake.rewind()
    assert stage.take() == [3, 4]
    assert stage.intake.pending == 2


def test_the_oldest_are_dropped_and_nothing_is_held_back():
    stage = Stage(Overflow.DROP_OLDEST)
    stage.append(8)
    assert stage.source.acked == 8
    assert (stage.intake.dropped, stage.intake.dropping, stage.intake.pending) == (3, True, 5)
    assert stage.take() == [4, 5, 6, 7, 8]


def test_what_is_under_way_is_not_dropped():
    stage = Stage(Overflow.DROP_OLDEST)
    stage.append(3)
    assert stage.take(2) == [1, 2]
    stage.append(5)
    assert stage.intake.dropped == 3
    stage.intake.rewind()
    assert stage.take() == [1, 2, 6, 7, 8]


def test_the_newest_are_dropped_and_nothing_is_held_back():
    stage = Stage(Overflow.DROP_NEWEST)
    stage.append(8)
    assert stage.source.acked == 8
    assert stage.take() == [1, 2, 3, 4, 5]
    assert stage.intake.dropped == 3


def test_after_it_has_caught_up_it_holds_the_cursor_again():
    stage = Stage(Overflow.DROP_NEWEST)
    stage.append(8)
    stage.take()
    stage.intake.ack(8)
    assert not stage.intake.dropping
    stage.append(1)
    assert stage.source.acked == 8
    assert stage.take() == [9]


@given(
    overflow=st.sampled_from([Overflow.DROP_OLDEST, Overflow.DROP_NEWEST]),
    steps=st.lists(st.tuples(st.sampled_from(["append", "take", "ack", "rewind"]), st.integers(1, 7)), max_size=60),
)
def test_in_any_order_of_things_events_are_taken_in_order_and_none_is_forgotten(overflow, steps):
    """Each event is acknowledged, waiting, or dropped; what waits stays within the bound and what is under way."""
    stage = Stage(overflow)
    assert isinstance(stage.intake, DroppingIntake)
    taken, done = [], 0
    for step, count in steps:
        if step == "append":
            stage.append(count)
            under_way = stage.intake.next - stage.intake.acked
            assert stage.intake._size <= (5 + 1 + under_way) * SIZE
        elif step == "take":
            taken += stage.take(count)
        elif step == "rewind":
            stage.intake.rewind()
            taken = [seq for seq in taken if seq <= stage.intake.acked]
        elif taken:
            done = taken[min(count, len(taken)) - 1]
            stage.intake.ack(done)
        assert taken == sorted(set(taken))
    stage.intake.rewind()
    assert len(stage.take()) == stage.intake.pending
    stage.intake.ack(stage.journal.end)
    assert stage.source.acked == (stage.last or None)
    assert stage.intake.pending == 0
