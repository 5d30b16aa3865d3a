"""A sink at a journal, run against a server."""

from __future__ import annotations

import asyncio

from component.sinks.waiting import until
from shardwright_shard.journal import Event, Journal, Source
from shardwright_shard.sinks.connected import Limits

BOT = "81384788765712384"
QUICK = Limits(
    connect_within=2.0,
    acks_within=1.0,
    stalled_after=0.2,
    look_every=0.02,
    first_pause=0.01,
    longest_pause=0.1,
)


def message(seq, *, size=0):
    return Event(seq, "MESSAGE_CREATE", b'{"t":"MESSAGE_CREATE","s":%d,"op":0,"d":{"x":"%b"}}' % (seq, b"x" * size))


class Stage:
    """A journal with sources, and one sink."""

    def __init__(self, sink):
        self.sink = sink
        self.journal = Journal(limit=64 * 2**20)
        self.sources = [Source(bot=BOT, shard=shard, total=4, session=f"s{shard}") for shard in range(4)]
        self.source = self.sources[0]
        self.sent = dict.fromkeys(self.sources, 0)
        self.events = {}
        self._task = None

    async def __aenter__(self):
        self.sink.attach(self.journal.reader(self.sink.wake))
        self._task = asyncio.create_task(self.sink.run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def append(self, *events, source=None):
        source = source or self.source
        self.journal.append(source, list(events), 1735689600.25)
        for event in events:
            self.events[f"{source.id_prefix}{event.seq}"] = event
            self.sent[source] = event.seq or self.sent[source]

    def append_messages(self, count, *, source=None, size=0):
        first = self.sent[source or self.source] + 1
        self.append(*[message(seq, size=size) for seq in range(first, first + count)], source=source)

    async def available(self):
        await until(lambda: self.sink.available)

    async def away(self, words=""):
        await until(lambda: not self.sink.available and words in self.sink.message)

    async def settled(self, *, within=20.0):
        """Wait until every event is acknowledged."""
        await until(lambda: not self.sink.statistics()["pending"], within=within)

    def assert_all_stored(self, stored, *, ordered=True):
        """Check that each event is there once, byte for byte, and in order per shard."""
        ids = [found.headers["ce-id"] for found in stored]
        assert sorted(ids) == sorted(self.events)
        assert all(found.data == self.events[found.headers["ce-id"]].payload for found in stored)
        for source in self.sources if ordered else []:
            seqs = [int(found.headers["ce-seq"]) for found in stored if found.headers["ce-source"] == source.uri]
            assert seqs == sorted(seqs)
