"""Lines on standard output: their text, and what happens when nobody reads. (A pipe is no network: these stay units.)"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api.resources import EventFilter
from shardwright_shard.journal import Event
from shardwright_shard.sinks import stdout
from shardwright_shard.sinks.stdout import AT_MOST_ONCE, StdoutSink, line
from unit.shard.sinks.making import BOT, TIME, journal, message, messages, source

NOW = "2025-01-01T00:00:00.250Z"


def written(event, *, of=None):
    return line(of or source(), event, time=NOW, run="cafe", position=9)


def test_a_line_is_a_structured_cloud_event_with_the_message_inside():
    raw = written(message(17))
    assert raw.endswith(b',"data":' + message(17).payload + b"}\n")
    assert json.loads(raw) == {
        "specversion": "1.0",
        "id": f"{BOT}:f0a1:17",
        "source": f"/discord/{BOT}/shards/3/16",
        "type": "discord.gateway.MESSAGE_CREATE",
        "time": NOW,
        "datacontenttype": "application/json",
        "seq": 17,
        "data": json.loads(message(17).payload),
    }


def test_an_event_without_a_sequence_still_has_an_id():
    found = json.loads(written(Event(None, "RESUMED", b"{}")))
    assert found["id"] == f"{BOT}:f0a1:cafe-9"
    assert "seq" not in found


def test_backfill_is_marked():
    assert json.loads(written(Event(1, "GUILD_CREATE", b"{}", True)))["backfill"] is True


@given(
    data=st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)),
    indent=st.sampled_from([None, 1]),
    session=st.text(max_size=10),
)
def test_an_event_is_one_line_of_json_whatever_it_holds(data, indent, session):
    raw = written(Event(1, "A", json.dumps(data, indent=indent).encode()), of=source(session=session))
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"\n")
    assert json.loads(raw)["data"] == data


class Pipe:
    """A pipe of the smallest size, and a sink that writes into it."""

    def __init__(self, spec):
        self.read_end, self.write_end = os.pipe()
        self.journal = journal()
        self.source = source()
        self.sink = StdoutSink(name="out", events=spec, random=Random(1), descriptor=self.write_end)
        self.sink.attach(self.journal.reader(self.sink.wake))

    def append(self, *events):
        self.journal.append(self.source, list(events), TIME)

    async def read_lines(self, count):
        """Read so many lines in a thread, as another process would."""
        raw = b""
        while raw.count(b"\n") < count:
            raw += await asyncio.to_thread(os.read, self.read_end, 65536)
        return [json.loads(text) for text in raw.splitlines()]

    async def until(self, condition):
        while not condition():
            await asyncio.sleep(0)

    def close_reader(self):
        os.close(self.read_end)
        self.read_end = None


@asynccontextmanager
async def piped(spec=EventFilter()):
    pipe = Pipe(spec)
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
        await pipe.until(lambda: pipe.source.acked == 4)
        assert (pipe.sink.available, pipe.sink.message) == (True, AT_MOST_ONCE)
        assert pipe.sink.statistics()["acknowledged"] == 4


async def test_filtered_events_do_not_come_out_and_are_acknowledged():
    async with piped(EventFilter(exclude=("TYPING_START",))) as pipe:
        pipe.append(Event(1, "TYPING_START", b"{}"))
        await pipe.until(lambda: pipe.source.acked == 1)
        pipe.append(message(2))
        assert [found["seq"] for found in await pipe.read_lines(1)] == [2]


async def test_a_pipe_that_nobody_reads_holds_back_and_says_so(monkeypatch):
    """The loop goes on, the cursor stands, and when somebody reads nothing is missing."""
    monkeypatch.setattr(stdout, "STALLED_AFTER", 0.01)
    async with piped() as pipe:
        pipe.append(*messages(400, size=1000))
        await pipe.until(lambda: not pipe.sink.available)
        assert pipe.sink.message == "nobody reads standard output"
        assert pipe.sink.statistics()["pending"] > 0
        assert [found["seq"] for found in await pipe.read_lines(400)] == list(range(1, 401))
        await pipe.until(lambda: pipe.source.acked == 400)
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
        await pipe.until(lambda: not pipe.sink.available)
        assert pipe.sink.message == "standard output cannot be written: Broken pipe"
        assert pipe.source.acked is None


async def test_one_event_larger_than_a_write_is_written_whole():
    async with piped() as pipe:
        pipe.append(message(1, size=stdout.WRITE_SIZE * 2), message(2))
        found = await pipe.read_lines(2)
        assert len(found[0]["data"]["d"]["content"]) == stdout.WRITE_SIZE * 2


@pytest.mark.parametrize("size", [1, 100])
async def test_what_gathers_during_a_write_goes_with_the_next(size):
    async with piped() as pipe:
        for first in range(0, 1000, size):
            pipe.append(*messages(size, first=first))
        assert [found["seq"] for found in await pipe.read_lines(1000)] == list(range(1000))
