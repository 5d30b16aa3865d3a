"""What the tests of the sinks are made of: sources, events, journals."""

from __future__ import annotations

from shardwright_shard.journal import Event, Journal, Source

BOT = "81384788765712384"
TIME = 1735689600.25


def source(*, shard=3, session="f0a1"):
    return Source(bot=BOT, shard=shard, total=16, session=session)


def message(seq, *, size=0):
    return Event(
        seq, "MESSAGE_CREATE", b'{"t":"MESSAGE_CREATE","s":%d,"op":0,"d":{"content":"%b"}}' % (seq, b"x" * size)
    )


def messages(count, *, first=1, size=0):
    return [message(seq, size=size) for seq in range(first, first + count)]


def journal(*, limit=10**9):
    return Journal(limit=limit)
