"""What passes an event filter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api.resources import EventFilter
from shardwright_shard.sinks.filter import OWN_EVENTS, names, predicate

WORDS = ["MESSAGE_CREATE", "GUILD_CREATE", "PRESENCE_UPDATE", "backfill"]
FILTERS = st.builds(
    EventFilter,
    include=st.lists(st.sampled_from(WORDS), unique=True).map(tuple),
    exclude=st.lists(st.sampled_from(WORDS), unique=True).map(tuple),
)


def test_an_empty_filter_takes_everything():
    takes = predicate(EventFilter())
    assert takes("MESSAGE_CREATE", False)
    assert takes("NEVER_SEEN_BEFORE", False)
    assert takes("GUILD_CREATE", True)


def test_include_takes_only_what_it_names():
    takes = predicate(EventFilter(include=("MESSAGE_CREATE",)))
    assert takes("MESSAGE_CREATE", False)
    assert not takes("MESSAGE_UPDATE", False)
    assert not takes("GUILD_CREATE", True)


def test_exclude_is_taken_away_from_include():
    takes = predicate(EventFilter(include=("MESSAGE_CREATE", "TYPING_START"), exclude=("TYPING_START",)))
    assert takes("MESSAGE_CREATE", False)
    assert not takes("TYPING_START", False)


@pytest.mark.parametrize(
    ("spec", "join", "backfill"),
    [
        (EventFilter(exclude=("backfill",)), True, False),
        (EventFilter(include=("backfill",)), False, True),
        (EventFilter(exclude=("GUILD_CREATE",)), False, False),
        (EventFilter(include=("GUILD_CREATE",)), True, True),
        (EventFilter(include=("GUILD_CREATE",), exclude=("backfill",)), True, False),
    ],
)
def test_backfill_means_the_guilds_that_follow_ready(spec, join, backfill):
    takes = predicate(spec)
    assert takes("GUILD_CREATE", False) is join
    assert takes("GUILD_CREATE", True) is backfill


@given(spec=FILTERS, name=st.sampled_from(OWN_EVENTS))
def test_events_of_our_own_always_pass(spec, name):
    assert predicate(spec)(name, False)


@given(spec=FILTERS, name=st.sampled_from(WORDS[:3]))
def test_the_names_that_may_pass_hold_every_event_that_passes(spec, name):
    takes = predicate(spec)
    passes = takes(name, False) or (name == "GUILD_CREATE" and takes(name, True))
    assert not passes or not names(spec) or name in names(spec)


def test_a_filter_without_include_may_pass_names_nobody_knows_yet():
    assert names(EventFilter(exclude=("TYPING_START",))) == []
