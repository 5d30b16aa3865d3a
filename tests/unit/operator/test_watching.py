"""The watch of ShardRanges: lists, follows, starts anew after 410 and failures, and says when it is blind."""

import asyncio
import json

import pytest

from shardwright_operator.errors import ApiUnreachableError
from shardwright_operator.kube import RANGES
from shardwright_operator.watch import RangeWatch
from unit.operator.memory_kube import MemoryKube
from unit.operator.waiting import until


class Sink:
    def __init__(self):
        self.heard = []

    def all_ranges(self, listed, namespace, at, unreadable):
        self.heard.append(("list", [one.metadata.name for one in listed]))
        self.unreadable = unreadable

    def put_range(self, shard_range):
        self.heard.append(("put", shard_range.metadata.name))

    def drop_range(self, key, uid):
        self.heard.append(("drop", key.name, uid))

    def watch_connected(self, namespace):
        self.heard.append(("connected", namespace))

    def watch_disconnected(self, namespace):
        self.heard.append(("disconnected", namespace))


def body(name):
    config = {"gateway": "g", "gatewayURL": "wss://x", "intents": 1}
    spec = {"first": 0, "last": 0, "total": 1, "botId": "1", "maxConcurrency": 1, "config": config}
    return {"metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "5"}, "spec": spec}


def line(kind, what):
    return json.dumps({"type": kind, "object": what}).encode() + b"\n"


@pytest.fixture
async def watching():
    kube, sink = MemoryKube(), Sink()
    for number in range(3):
        kube.put(RANGES, body(f"r{number}"))
    watch = RangeWatch(kube, "n", sink)
    task = asyncio.create_task(watch.run())
    await watch.synced.wait()
    yield kube, sink, watch
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_happens_is_heard_in_order(watching):
    kube, sink, _ = watching
    kube.lines.put_nowait(line("ADDED", body("new")))
    kube.lines.put_nowait(line("MODIFIED", body("new")))
    kube.lines.put_nowait(line("DELETED", body("new")))
    await until(lambda: len(sink.heard) >= 5)
    assert sink.heard == [
        ("list", ["r0", "r1", "r2"]),
        ("connected", "n"),
        ("put", "new"),
        ("put", "new"),
        ("drop", "new", "new"),
    ]


async def test_a_watch_that_ends_goes_on_from_the_last_version_bookmarks_included(watching):
    kube, sink, _ = watching
    kube.lines.put_nowait(line("BOOKMARK", {"metadata": {"name": "", "resourceVersion": "777"}}))
    kube.lines.put_nowait(None)
    await until(lambda: sink.heard.count(("connected", "n")) == 2)
    assert [call[2] for call in kube.calls if call[0] == "watch"][1] == "777"
    assert ("disconnected", "n") in sink.heard
    assert sum(call[0] == "list" for call in kube.calls) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        line("ERROR", {"code": 410, "reason": "Expired", "message": "too old"}),
        line("ERROR", {"code": 500, "reason": "", "message": ""}),
        b"rubbish\n",
        ApiUnreachableError("gone"),
    ],
)
async def test_after_trouble_everything_is_listed_anew(watching, trouble):
    kube, sink, watch = watching
    kube.lines.put_nowait(trouble)
    await until(lambda: [one[0] for one in sink.heard].count("list") == 2)
    assert ("disconnected", "n") in sink.heard
    assert watch.restarts == 1


async def test_long_lists_are_read_in_pages():
    kube, sink = MemoryKube(), Sink()
    for number in range(1201):
        kube.put(RANGES, body(f"r{number:04}"))
    watch = RangeWatch(kube, "", sink)
    task = asyncio.create_task(watch.run())
    await watch.synced.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(sink.heard[0][1]) == 1201
    assert sum(call[0] == "list" for call in kube.calls) == 3


def unreadable(name):
    whole = body(name)
    return whole | {"spec": whole["spec"] | {"first": "nought"}}


async def test_a_range_that_cannot_be_read_hides_no_other():
    kube, sink = MemoryKube(), Sink()
    kube.put(RANGES, unreadable("r0"))
    kube.put(RANGES, body("r1"))
    watch = RangeWatch(kube, "n", sink)
    task = asyncio.create_task(watch.run())
    await watch.synced.wait()
    kube.lines.put_nowait(line("MODIFIED", unreadable("r0")))
    kube.lines.put_nowait(line("MODIFIED", body("r1")))
    kube.lines.put_nowait(line("DELETED", unreadable("r0")))
    await until(lambda: len(sink.heard) >= 4)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (sink.heard[0], sink.unreadable) == (("list", ["r1"]), {"r0"})
    assert sink.heard[2:4] == [("put", "r1"), ("drop", "r0", "r0")]
    assert watch.restarts == 0
