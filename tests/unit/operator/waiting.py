"""Waiting for something that happens in another task."""

import asyncio


async def until(probe):
    """Let other tasks run until `probe` gives something true."""
    async with asyncio.timeout(5):
        while True:
            if probe():
                return
            await asyncio.sleep(0.005)
