"""Our own list and watch of ShardRanges, decoded straight into structs.

Each round lists all pages, hands the whole list over, then follows the watch from the list's version. A watch that ends
(the API server closes it every few minutes) goes on from the last version seen, bookmarks included; *410 Gone* and any
failure lead to a new list. Between failing rounds stands a backoff with jitter. What the `Sink` hears is always the
truth in order; `connected` and `disconnected` frame the time in which silence means something.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container
from typing import Final, NamedTuple, Protocol

import msgspec

from shardwright_api.resources import ShardRange
from shardwright_operator.errors import ApiError, GoneError, NotFoundError, OperatorError, api_error
from shardwright_operator.keys import RangeKey
from shardwright_operator.kube import RANGES, Kube
from shardwright_operator.views import Named, RangeList
from shardwright_operator.workqueue import backoff

log = logging.getLogger(__name__)

_FOLLOWS: Final = 6
"""Watches of some minutes each, after which everything is listed anew: our own resync."""


class _Event(msgspec.Struct, frozen=True):
    """A line of a watch."""

    type: str
    object: msgspec.Raw


class _BookmarkMeta(msgspec.Struct, frozen=True, rename="camel"):
    """All that a bookmark says."""

    resource_version: str


class _Bookmark(msgspec.Struct, frozen=True):
    """An object without a name: how far the watch has come."""

    metadata: _BookmarkMeta


class _Failure(msgspec.Struct, frozen=True):
    """A `Status` inside a watch."""

    code: int = 0
    reason: str = ""
    message: str = ""


class Sink(Protocol):
    """Who takes what the watch sees."""

    def all_ranges(self, listed: list[ShardRange], namespace: str, at: str, unreadable: Container[str]) -> None:
        """Take a full list; `unreadable`: UIDs of those in it that could not be decoded."""

    def put_range(self, shard_range: ShardRange) -> None:
        """Take a range that appeared or changed."""

    def drop_range(self, key: RangeKey, uid: str) -> None:
        """Take note of a range that was deleted."""

    def watch_connected(self, namespace: str) -> None:
        """Take note that the watch of a namespace stands."""

    def watch_disconnected(self, namespace: str) -> None:
        """Take note that the watch of a namespace broke."""


class Listed(NamedTuple):
    """A full list: what is in it, the UIDs of what could not be decoded, and the list's version."""

    ranges: list[ShardRange]
    unreadable: set[str]
    version: str


def read(raw: msgspec.Raw) -> ShardRange | Named:
    """Decode a ShardRange; of one that does not fit, which is logged, its metadata alone."""
    try:
        return msgspec.json.decode(raw, type=ShardRange)
    except msgspec.ValidationError as error:
        named = msgspec.json.decode(raw, type=Named)
        log.error("ShardRange %s/%s: %s", named.metadata.namespace, named.metadata.name, error)  # noqa: TRY400 - the message says it all
        return named


async def list_ranges(kube: Kube, namespace: str) -> Listed:
    """Read all pages."""
    found = Listed([], set(), "")
    after = ""
    while True:
        page = msgspec.json.decode(await kube.list(RANGES, namespace, after=after), type=RangeList)
        for one in map(read, page.items):
            if isinstance(one, ShardRange):
                found.ranges.append(one)
            else:
                found.unreadable.add(one.metadata.uid)
        after = page.metadata.continue_
        if not after:
            return found._replace(version=page.metadata.resource_version)


class RangeWatch:
    """Follows the ShardRanges of one namespace, or of all (an empty name)."""

    def __init__(self, kube: Kube, namespace: str, sink: Sink, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._namespace = namespace
        self._sink = sink
        self._clock = clock
        self.synced = asyncio.Event()
        self.restarts = 0
        self.last_try = clock()
        """When the API server last said anything, or we last tried to reach it, on our clock."""

    async def run(self) -> None:
        """Follow until cancelled."""
        failures = 0
        while True:
            started = self.last_try = self._clock()
            try:
                await self._round()
            except (OperatorError, msgspec.MsgspecError) as error:
                lasted = self._clock() - started
                self.restarts += 1
                failures = 1 if lasted > 60 else failures + 1  # noqa: PLR2004 - a minute of health ends a series
                delay = 0.0 if isinstance(error, GoneError) and failures == 1 else backoff(failures)
                self._log_failure(error, delay)
                await asyncio.sleep(delay)

    def _log_failure(self, error: Exception, delay: float) -> None:
        hint = " (are the CRDs installed?)" if isinstance(error, NotFoundError) else ""
        log.warning("The watch of ShardRanges broke%s, again in %.1f s: %s", hint, delay, error)

    async def _round(self) -> None:
        version = await self._list()
        self.synced.set()
        self.last_try = self._clock()
        for _ in range(_FOLLOWS):
            version = await self._follow(version)

    async def _list(self) -> str:
        """List everything; give the list's version."""
        listed = await list_ranges(self._kube, self._namespace)
        self._sink.all_ranges(listed.ranges, self._namespace, listed.version, listed.unreadable)
        return listed.version

    async def _follow(self, version: str) -> str:
        """Follow one watch to its end; give the version to go on from."""
        try:
            async for line in self._kube.watch(RANGES, self._namespace, version):
                self.last_try = self._clock()
                version = self._take(line) or version
        finally:
            self._sink.watch_disconnected(self._namespace)
        return version

    def _take(self, line: bytes) -> str:
        if not line.strip():
            self._sink.watch_connected(self._namespace)
            return ""
        event = msgspec.json.decode(line, type=_Event)
        if event.type == "ERROR":
            raise _failure(event.object)
        if event.type == "BOOKMARK":
            return msgspec.json.decode(event.object, type=_Bookmark).metadata.resource_version
        one = read(event.object)
        if event.type == "DELETED":
            self._sink.drop_range(RangeKey(one.metadata.namespace, one.metadata.name), one.metadata.uid)
        elif isinstance(one, ShardRange):
            self._sink.put_range(one)
        return one.metadata.resource_version


def _failure(raw: msgspec.Raw) -> ApiError:
    failure = msgspec.json.decode(raw, type=_Failure)
    return api_error(failure.code, failure.reason, failure.message)
