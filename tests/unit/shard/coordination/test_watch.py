"""Following one object: nothing is missed between two watches, and failures are waited out longer and longer."""

import asyncio
import itertools
from contextlib import asynccontextmanager

import pytest

from shardwright_shard.coordination.api_client import EventType, NotFound, WatchEvent
from shardwright_shard.coordination.watch import FIRST_WAIT, LONGEST_WAIT, follow, waits
from shardwright_shard.errors import CoordinatorUnavailable


class Client:
    """Plays rounds: each is what a read gives, then events; an error among them ends the round."""

    def __init__(self, *rounds):
        self.rounds = list(rounds)
        self.log = []

    @asynccontextmanager
    async def watch(self, _collection, _name, _kind):
        self.log.append("watch")
        if not self.rounds:
            await asyncio.sleep(10_000)
        self.stored, *self.coming = self.rounds.pop(0)
        yield self._events()

    async def get(self, path, _kind):
        assert path == "/things/x"
        self.log.append("read")
        if isinstance(self.stored, Exception):
            raise self.stored
        return self.stored

    async def _events(self):
        for event in self.coming:
            if isinstance(event, Exception):
                raise event
            if isinstance(event, float):
                await asyncio.sleep(event)
            else:
                yield event


def added(value):
    return WatchEvent(EventType.ADDED, value)


async def followed(*rounds, seconds=600):
    """Follow for a while; give the client's log, the states and the errors."""
    client, states, errors = Client(*rounds), [], []
    task = asyncio.create_task(
        follow(client, collection="/things", name="x", kind=str, on_state=states.append, on_error=errors.append)
    )
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    return client.log, states, errors


async def test_the_object_is_read_once_the_watch_stands_so_that_no_change_falls_between():
    log, states, _ = await followed(["one", added("one"), added("two")])
    assert log[:2] == ["watch", "read"]
    assert states == ["one", "one", "two"]


async def test_an_object_that_is_not_there_and_one_that_is_deleted_are_both_none():
    _, states, _ = await followed([NotFound("404"), added("one"), WatchEvent(EventType.DELETED, "one")])
    assert states == [None, "one", None]


async def test_after_a_failure_the_object_is_read_again():
    cut = CoordinatorUnavailable("cut")
    _, states, errors = await followed(["one", cut], ["two"])
    assert (states, errors) == (["one", "two"], [cut])


async def test_a_read_that_fails_is_tried_again_with_a_new_watch():
    log, states, errors = await followed([CoordinatorUnavailable("503")], ["one"])
    assert (log, states, len(errors)) == (["watch", "read", "watch", "read", "watch"], ["one"], 1)


async def test_a_watch_that_ends_in_order_is_opened_again_without_an_error():
    log, _, errors = await followed(["one", 300.0], ["one", 200.0])
    assert (log.count("watch"), errors) == (3, [])


async def test_an_api_server_that_is_away_is_asked_less_and_less_often():
    began = asyncio.get_running_loop().time()
    log, _, errors = await followed(*([CoordinatorUnavailable("away")] for _ in range(100)), seconds=60)
    assert asyncio.get_running_loop().time() - began == pytest.approx(60)
    assert 60 / LONGEST_WAIT < log.count("watch") < 40
    assert len(errors) == log.count("watch")


def test_waits_double_with_jitter_up_to_the_longest():
    longest = list(itertools.islice(waits(lambda _low, high: high), 8))
    shortest = list(itertools.islice(waits(lambda low, _high: low), 8))
    assert longest[:3] == [FIRST_WAIT, FIRST_WAIT * 2, FIRST_WAIT * 4]
    assert longest[-1] == LONGEST_WAIT
    assert shortest == [wait / 2 for wait in longest]
