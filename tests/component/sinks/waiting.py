"""Waiting for conditions: the one place where these tests look again and again."""

from __future__ import annotations

import asyncio


async def until(condition, *, within=20.0):
    """Wait until `condition()` is true; fail after `within` seconds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - sinks have no event for what tests look at
            await asyncio.sleep(0.002)
