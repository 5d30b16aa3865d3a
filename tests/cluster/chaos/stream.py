"""The stream that the shards write to: made, limited, read from where the last reading ended, and cut off behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from hashlib import sha256
from typing import Any

import nats
from nats.js.api import DiscardPolicy, StreamConfig

from chaos.book import Gap, Stored

STREAM = "DISCORD"
SUBJECTS = "discord.>"
DEDUPE_WINDOW = 600
KEPT = 60_000
"""Messages left in the stream behind what has been read: about two minutes, longer than any outage here."""
_NANOSECONDS = 1e9
_STREAM_SEQUENCE, _TIME = -4, -2
"""Tokens of the reply subject `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`."""


class Stream:
    """The stream at a NATS server. Each call has a connection of its own, for the server dies often."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._read = 0

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        client = await nats.connect(self._url, allow_reconnect=False, connect_timeout=5)
        try:
            yield client
        finally:
            await client.close()

    async def make(self) -> None:
        """Make the stream."""
        async with self._client() as client:
            await client.jetstream().add_stream(_config())

    async def limit(self, *, full: bool) -> None:
        """Let the stream take no more messages than it has, or as many as come."""
        async with self._client() as client:
            stream = client.jetstream()
            most = (await stream.stream_info(STREAM)).state.messages if full else -1
            await stream.update_stream(_config(max_msgs=most))

    async def read(self) -> tuple[list[Stored], list[Gap]]:
        """Read what has come since the last reading: headers only, but gaps."""
        async with self._client() as client:
            last = (await client.jetstream().stream_info(STREAM)).state.last_seq
            if last <= self._read:
                return [], []
            messages = await _deliver(client, self._read + 1, last)
            self._read = last
            stored = [found for message in messages if (found := _stored(message)) is not None]
            gaps = [await _gap(client, message) for message in messages if _type(message) == "shardwright.gap"]
            return stored, gaps

    async def forget(self) -> None:
        """Remove what has been read, but for the last part: bounded on disk, and a restart still knows recent ids."""
        if self._read > KEPT:
            async with self._client() as client:
                await client.jetstream().purge_stream(STREAM, seq=self._read - KEPT)


def _config(max_msgs: int = -1) -> StreamConfig:
    return StreamConfig(
        name=STREAM, subjects=[SUBJECTS], duplicate_window=DEDUPE_WINDOW, discard=DiscardPolicy.NEW, max_msgs=max_msgs
    )


async def _deliver(client: Any, first: int, last: int) -> list[Any]:
    """Let the server push a stretch of the stream, both ends included."""
    found: list[Any] = []
    done = asyncio.Event()

    async def take(message: Any) -> None:
        sequence = int(message.reply.split(".")[_STREAM_SEQUENCE])
        if sequence <= last:
            found.append(message)
        if sequence >= last:
            done.set()

    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    config = {
        "deliver_subject": inbox,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": first,
        "ack_policy": "none",
        "mem_storage": True,
        "inactive_threshold": 5 * 10**9,
        "max_deliver": 1,
    }
    body = json.dumps({"stream_name": STREAM, "config": config}).encode()
    answer = json.loads((await client.request(f"$JS.API.CONSUMER.CREATE.{STREAM}", body, timeout=5)).data)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    await asyncio.wait_for(done.wait(), 60)
    return found


def _type(message: Any) -> str:
    return (message.headers or {}).get("ce-type", "")


def _stored(message: Any) -> Stored | None:
    """Give a message as the book knows it; None for what is no numbered event of Discord's."""
    headers = message.headers or {}
    _, _, rest = headers.get("Nats-Msg-Id", "").partition(":")
    session, _, seq = rest.rpartition(":")
    if not session or not seq.isdigit() or headers["ce-type"] == "shardwright.gap":
        return None
    time = int(message.reply.split(".")[_TIME]) / _NANOSECONDS
    shard = int(headers["ce-source"].split("/")[-2])
    digest = sha256(message.data).hexdigest()
    return Stored(time=time, shard=shard, session=session, seq=int(seq), sha256=digest)


async def _gap(client: Any, message: Any) -> Gap:
    raw = await client.jetstream().get_msg(STREAM, int(message.reply.split(".")[_STREAM_SEQUENCE]))
    told = json.loads(raw.data)
    return Gap(session=told["session"], seq=int(told["seq"]))


def unix(text: str) -> float:
    """Read an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()
