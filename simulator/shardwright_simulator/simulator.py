"""The simulator as one object: start it in a test with `async with`, or let the command line serve it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from random import Random
from types import TracebackType
from typing import Self, TypeVar

from shardwright_api.discord import API_VERSION
from shardwright_simulator.control import Control
from shardwright_simulator.gateway import Gateway
from shardwright_simulator.options import BotConfig, Options
from shardwright_simulator.server import Server

T = TypeVar("T")


class Simulator:
    """A Discord gateway on a port of its own (`port` 0: a free one)."""

    def __init__(
        self,
        *,
        bots: Sequence[BotConfig] = (),
        options: Options | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        seed: int | None = None,
    ) -> None:
        random = Random(seed)  # noqa: S311  fake traffic, no secrets
        self.gateway = Gateway(options or Options(), list(bots) or [BotConfig()], clock=epoch_clock(), random=random)
        self._server = Server(self.gateway, random=random, tls=tls)
        self._host = host
        self.port = port
        self._secure = tls is not None

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        self.port = await self._server.start(self._host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut all connections and stop."""
        await self._server.stop()

    @property
    def control(self) -> Control:
        """Everything that a test may ask or do."""
        return self._server.control

    @property
    def gateway_url(self) -> str:
        """The websocket URL, without a path, as `GET /gateway` would give it."""
        return f"{'wss' if self._secure else 'ws'}://{self._host}:{self.port}"

    @property
    def api_url(self) -> str:
        """The REST URL."""
        return f"{self.base_url}/api/v{API_VERSION}"

    @property
    def control_url(self) -> str:
        """The URL of the control API."""
        return f"{self.base_url}/control"

    @property
    def base_url(self) -> str:
        """The HTTP URL of the port."""
        return f"{'https' if self._secure else 'http'}://{self._host}:{self.port}"

    @property
    def token(self) -> str:
        """The first bot's token."""
        return self.control.bot().config.token

    async def wait_for(self, predicate: Callable[[], T], *, within: float = 10.0) -> T:
        """Wait until `predicate` gives something true, and give that; it is asked after all that happens here."""
        async with asyncio.timeout(within):
            while not (value := predicate()):
                await self._server.next_change()
            return value


def epoch_clock() -> Callable[[], float]:
    """Make a clock that counts seconds since 1970 and never jumps."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()
