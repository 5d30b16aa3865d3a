"""The stdout sink at a real pipe: order, and what happens when nobody reads."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from random import Random

import pytest

from component.sinks.nats_stage import message
from component.sinks.waiting import until
from shardwright_api.resources import EventFilter
from shardwright_shard.journal import Event, Journal, Source
from shardwright_shard.sinks import stdout
from shardwright_shard.sinks.stdout import AT_MOST_ONCE, StdoutSink


def messages(count, *, first=1, size=0):
    return [message(seq, size=size) for seq in range(first, first + count)]


class Pipe:
    """A pipe of the smallest size, and a sink that writes into it."""

    def __init__(self, spec):
        self.read_end, self.write_end = os.pipe()
        self.journal = Journal(limit=2**30)
        self.source = Source(bot="42", shard=3, total=16, session="f0a1")
        self.sink = StdoutSink(name="out", events=spec, random=Random(1), descriptor=self.write_end)
        self.sink.attach(self.journal.reader(self.sink.wake))

    def append(self, *events):
        self.journal.append(self.source, list(events), 1735689600.25)

    async def read_lines(self, count):
        """Read so many lines in a thread, as another process would."""
        raw = b""
        while raw.count(b"\n") < count:
            raw += await asyncio.to_thread(os.read, self.read_end, 65536)
        return [json.loads(text) for text in raw.splitlines()]

    def close_reader(self):
        os.close(self.read_end)
        self.read_end = None


@asynccontextmanager
async def piped(**events):
    pipe = Pipe(EventFilter(**events))
    task = asyncio.create_task(pipe.sink.run())
    try:
        yield pipe
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if pipe.read_end is not None:
            os.close(pipe.read_end)
        threads = [thread for thread in stdout.threading.enumerate() if thread.name == "stdout-sink"]
        for thread in threads:
            await asyncio.to_thread(thread.join)
        os.close(pipe.write_end)


async def test_events_come_out_in_order_and_are_acknowledged():
    async with piped() as pipe:
        pipe.append(*messages(3))
        pipe.append(message(4))
        assert [found["seq"] for found in await pipe.read_lines(4)] == [1, 2, 3, 4]
        await until(lambda: pipe.source.acked == 4)
        assert (pipe.sink.available, pipe.sink.message) == (True, AT_MOST_ONCE)
        assert pipe.sink.statistics()["acknowledged"] == 4


async def test_filtered_events_do_not_come_out_and_are_acknowledged():
    async with piped(exclude=("TYPING_START",)) as pipe:
        pipe.append(Event(1, "TYPING_START", b"{}"))
        await until(lambda: pipe.source.acked == 1)
        pipe.append(message(2))
        assert [found["seq"] for found in await pipe.read_lines(1)] == [2]


async def test_a_pipe_that_nobody_reads_holds_back_and_says_so(monkeypatch):
    """The loop goes on, the cursor stands, and when somebody reads nothing is missing."""
    monkeypatch.setattr(stdout, "STALLED_AFTER", 0.01)
    async with piped() as pipe:
        pipe.append(*messages(400, size=1000))
        await until(lambda: not pipe.sink.available)
        assert pipe.sink.message == "nobody reads standard output"
        assert pipe.sink.statistics()["pending"] > 0
        assert [found["seq"] for found in await pipe.read_lines(400)] == list(range(1, 401))
        await until(lambda: pipe.source.acked == 400)
        assert pipe.sink.available


async def test_a_descriptor_that_somebody_made_non_blocking_works_too():
    async with piped() as pipe:
        os.set_blocking(pipe.write_end, False)
        pipe.append(*messages(400, size=1000))
        assert [found["seq"] for found in await pipe.read_lines(400)] == list(range(1, 401))


async def test_a_closed_pipe_makes_the_sink_unavailable_and_acknowledges_nothing():
    async with piped() as pipe:
        pipe.close_reader()
        pipe.append(message(1))
        await until(lambda: not pipe.sink.available)
        assert pipe.sink.message == "standard output cannot be written: Broken pipe"
        assert pipe.source.acked is None


async def test_one_event_larger_than_a_write_is_written_whole():
    async with piped() as pipe:
        pipe.append(message(1, size=stdout.WRITE_SIZE * 2), message(2))
        found = await pipe.read_lines(2)
        assert len(found[0]["data"]["d"]["x"]) == stdout.WRITE_SIZE * 2


@pytest.mark.parametrize("size", [1, 100])
async def test_what_gathers_during_a_write_goes_with_the_next(size):
    async with piped() as pipe:
        for first in range(0, 1000, size):
            pipe.append(*messages(size, first=first))
        assert [found["seq"] for found in await pipe.read_lines(1000)] == list(range(1000))
