"""The simulator's control API, asynchronous, and its ledger as the book takes it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import msgspec

from chaos.book import Sent

_ledger_line = msgspec.json.Decoder(Sent)
JOURNALS = ("identifies", "resumes", "violations", "overlaps", "silences")
_LOOK_AGAIN = 0.15


class Simulator:
    """The controls of a simulator at `base`, such as `http://10.96.0.7:8080/control`."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        self._ledger_read = 0

    async def call(self, method: str, path: str, **body: Any) -> Any:
        """Make one call; give its JSON."""
        data = json.dumps(body) if body else None
        async with self._session.request(method, f"{self._base}/{path}", data=data) as answer:
            answer.raise_for_status()
            return await answer.json(content_type=None)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def read_ledger(self) -> list[Sent]:
        """Read what was sent since the last reading."""
        async with self._session.get(f"{self._base}/ledger?after={self._ledger_read}") as answer:
            entries = [_ledger_line.decode(line) for line in (await answer.read()).splitlines()]
        if entries:
            self._ledger_read = entries[-1].n
        return entries

    async def records(self, journal: str, after: int = 0) -> list[dict[str, Any]]:
        """List a journal's records after a number."""
        found: list[dict[str, Any]] = await self.call("GET", f"{journal}?after={after}")
        return found

    async def marks(self) -> dict[str, int]:
        """Give the number of the last record of each journal."""
        return {name: max((record["n"] for record in await self.records(name)), default=0) for name in JOURNALS}

    async def until(self, journal: str, after: int, result: str, shards: list[int], *, seconds: float) -> None:
        """Wait until each of these shards has a record with this result. Raise `TimeoutError`."""
        missing = set(shards)
        async with asyncio.timeout(seconds):
            while missing:
                for record in await self.records(journal, after):
                    if record["result"] == result:
                        missing.discard(record["shard"])
                if missing:
                    await asyncio.sleep(_LOOK_AGAIN)
