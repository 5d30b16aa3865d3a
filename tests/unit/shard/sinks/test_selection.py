"""Which events of a batch a sink sends."""

from __future__ import annotations

import pytest

from shardwright_api.resources import EventFilter
from shardwright_shard.errors import ConfigError
from shardwright_shard.journal import Batch, Event
from shardwright_shard.sinks.max_age import seconds
from shardwright_shard.sinks.selection import Selection
from unit.shard.sinks.making import TIME, message, messages, source


def batch(*events, position=10):
    return Batch(position=position, source=source(), events=list(events), time=TIME)


def test_without_a_filter_everything_is_sent_as_it_is():
    taken = batch(*messages(3))
    assert Selection().of(taken) == (range(10, 13), taken.events)


def test_what_the_filter_leaves_out_is_counted():
    selection = Selection(EventFilter(exclude=("TYPING_START",)))
    positions, events = selection.of(batch(message(1), Event(2, "TYPING_START", b"{}"), message(3)))
    assert (list(positions), [event.seq for event in events], selection.filtered) == ([10, 12], [1, 3], 1)


def test_what_is_too_old_by_its_name_is_counted_and_not_sent():
    now = TIME + 2.0
    selection = Selection(max_age={"INTERACTION_CREATE": 3.0, "*": 60.0}, clock=lambda: now)
    taken = batch(message(1), Event(2, "INTERACTION_CREATE", b"{}"), Event(3, "shardwright.gap", b"{}"))
    assert len(selection.of(taken)[1]) == 3
    now = TIME + 4.0
    assert [event.seq for event in selection.of(taken)[1]] == [1, 3]
    now = TIME + 61.0
    assert [event.name for event in selection.of(taken)[1]] == ["shardwright.gap"]
    assert selection.expired == 3


def test_what_is_stored_already_is_not_sent_again_and_counted_nowhere():
    selection = Selection()
    selection.stored = {11}
    positions, _ = selection.of(batch(*messages(3)))
    assert list(positions) == [10, 12]
    assert (selection.filtered, selection.expired) == (0, 0)


def test_ages_are_read_with_their_units():
    assert seconds({"A": "500ms", "B": "3s", "C": "5m", "*": "1h"}) == {"A": 0.5, "B": 3, "C": 300, "*": 3600}


@pytest.mark.parametrize("text", ["3", "s", "-1s", "1.5s", "1d", "1234567s", ""])
def test_an_age_that_cannot_be_read_is_named(text):
    with pytest.raises(ConfigError, match="maxAge of A"):
        seconds({"A": text})
