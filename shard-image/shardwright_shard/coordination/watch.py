"""Following one object: a watch that is opened again and again, until cancelled.

Each round opens a watch and then reads the object: whatever changes after the watch stood is an event, whatever changed
before is in the read, and an object that vanished in between is missing from the read. So nothing is missed, and no
`resourceVersion` is kept across rounds (410 has nothing to expire). The watch begins with the API server's cache, which may be
older than the read: `on_state` may see a state twice or an older one, and must not mind.

`on_error` is told each time a round fails. The waits between rounds grow with jitter up to `LONGEST_WAIT`; after a round
that lasted they begin at `FIRST_WAIT` again, be it that it failed or that the API server ended it after its minutes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, TypeVar

from shardwright_shard.coordination.api_client import ApiClient, EventType, NotFound, WatchEvent
from shardwright_shard.errors import CoordinatorUnavailable

FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 5.0
GOOD_ROUND: Final = 10.0
"""Seconds after which a round counts as good: waits begin small again."""

T = TypeVar("T")


def waits(uniform: Callable[[float, float], float] = random.uniform) -> Iterator[float]:
    """Give the seconds to wait after each failure in a row: doubling, with jitter over the upper half."""
    wait = FIRST_WAIT
    while True:
        yield uniform(wait / 2, wait)
        wait = min(wait * 2, LONGEST_WAIT)


async def follow(
    client: ApiClient,
    *,
    collection: str,
    name: str,
    kind: type[T],
    on_state: Callable[[T | None], None],
    on_error: Callable[[CoordinatorUnavailable], None],
) -> None:
    """Call `on_state` with the object and again after each change; with None while there is no such object."""
    clock = asyncio.get_running_loop().time
    pauses = waits()
    while True:
        began = clock()
        try:
            await _round(client, collection, name, kind, on_state)
        except CoordinatorUnavailable as error:
            on_error(error)
        if clock() - began >= GOOD_ROUND:
            pauses = waits()
        await asyncio.sleep(next(pauses))


async def _round(
    client: ApiClient, collection: str, name: str, kind: type[T], on_state: Callable[[T | None], None]
) -> None:
    """Watch and read once, until the watch ends."""
    async with client.watch(collection, name, kind) as events:
        on_state(await _read(client, f"{collection}/{name}", kind))
        await _hand_on(events, on_state)


async def _read(client: ApiClient, path: str, kind: type[T]) -> T | None:
    try:
        return await client.get(path, kind)
    except NotFound:
        return None


async def _hand_on(events: AsyncIterator[WatchEvent[T]], on_state: Callable[[T | None], None]) -> None:
    async for event in events:
        on_state(None if event.type is EventType.DELETED else event.object)
