"""Silences: a shard that was served and is not any more, until READY or RESUMED."""

import pytest

from shardwright_simulator import Fault


def silences(world):
    return [(found.shard, found.seconds) for found in world.control.silences()]


def test_a_shard_that_was_never_served_is_not_silent(world):
    world.connect()
    world.advance(30)
    assert silences(world) == []


def test_a_silence_lasts_until_the_session_is_resumed(world):
    client = world.ready()
    client.lose()
    assert silences(world) == [(0, None)]
    world.advance(3)
    world.connect().resume(client.session, 3)
    assert silences(world) == [(0, pytest.approx(3))]


def test_a_new_session_ends_a_silence_too(world):
    world.ready(2).lose(1000)
    world.ready(2)
    assert silences(world) == [(2, pytest.approx(5))]


def test_a_connection_struck_dumb_does_not_serve(world):
    client = world.ready()
    world.control.add_fault(Fault(action="silent"))
    world.advance(2)
    client.lose()
    world.connect().resume(client.session, 3)
    assert silences(world) == [(0, pytest.approx(2))]


def test_a_second_session_of_the_shard_serves_it(world):
    first = world.ready()
    world.ready()
    first.lose(1000)
    assert silences(world) == []


@pytest.mark.parametrize("mode", ["cut", "keep", "share"])
def test_a_resume_whose_answer_is_held_back_is_silent_unless_the_old_connection_still_gets_the_events(make_world, mode):
    world = make_world(on_resume=mode)
    client = world.ready()
    world.control.add_fault(Fault(action="hold-answer", at="resume", delay=4))
    world.connect().resume(client.session, 3)
    world.advance(10)
    assert silences(world) == ([] if mode == "share" else [(0, pytest.approx(4))])
