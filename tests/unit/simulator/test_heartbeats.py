"""Heartbeats (Gateway > Sending Heartbeats)."""

import pytest

from shardwright_api.discord import CloseCode, Opcode


@pytest.mark.parametrize("d", [None, 0, 1, 3])
def test_a_heartbeat_is_acknowledged(world, d):
    client = world.ready()
    client.beat(d)
    assert client.ops[-1] == Opcode.HEARTBEAT_ACK
    assert world.rules() == []


def test_a_heartbeat_before_identify_is_acknowledged(world):
    client = world.connect()
    client.beat()
    assert client.ops == [Opcode.HELLO, Opcode.HEARTBEAT_ACK]


@pytest.mark.parametrize("d", ["5", 1.5, [], True])
def test_a_heartbeat_that_is_no_number_closes_with_4002(world, d):
    client = world.ready()
    client.beat(d)
    assert client.closed == CloseCode.DECODE_ERROR


def test_a_heartbeat_that_names_what_was_never_sent_is_a_violation(world):
    client = world.ready()
    client.beat(4)
    assert world.rules() == ["heartbeat-sequence"]
    assert client.closed is None


def test_who_does_not_beat_is_closed_and_may_resume(make_world):
    world = make_world(heartbeat_interval=10)
    client = world.ready()
    world.advance(15)
    assert client.closed is None
    world.advance(2)
    assert client.closed == CloseCode.UNKNOWN_ERROR
    assert world.rules() == ["heartbeat-missing"]
    again = world.connect()
    again.resume(client.session, 3)
    assert again.events == ["RESUMED"]


def test_who_beats_in_time_stays(make_world):
    world = make_world(heartbeat_interval=10)
    client = world.ready()
    for _ in range(20):
        client.beat()
        world.advance(10)
    assert client.closed is None


def test_heartbeats_trim_the_replay_buffer_only_when_asked_to(make_world):
    for trim, buffered in ((False, 3), (True, 1)):
        world = make_world(trim_by_heartbeat=trim)
        world.ready().beat(2)
        assert world.control.sessions()[0].buffered == buffered
