"""Fixtures of the shard program's component tests; what they give is described in `stage.py`."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
import uvloop

from component.shard.stage import MARGIN, Actor, LogBook, Stage, make_config, make_simulator
from shardwright_api.resources import Compression
from shardwright_shard import connection, http, session
from shardwright_shard.coordination.local import LocalCluster
from shardwright_shard.metrics import make_registry

Get = Callable[[str], Awaitable[tuple[int, str]]]
OpenStage = Callable[..., Awaitable[Stage]]


def pytest_asyncio_loop_factories(item: pytest.Item):
    """Run on uvloop, as the program does; a test that names its loops gets those."""
    marker = item.get_closest_marker("asyncio")
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return loops if marker is not None and "loop_factories" in marker.kwargs else {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def frozen_heap() -> Iterator[None]:
    """Keep what is there before the tests out of the garbage collections that end each of them: they take half the time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=list(Compression), ids=str)
def compression(request) -> Compression:
    """Each transport compression in turn."""
    return request.param


@pytest.fixture
def book() -> Iterator[LogBook]:
    """Keep every log line that the program would write at its most talkative (`logs.set_up`)."""
    root, own, handler = logging.getLogger(), logging.getLogger("shardwright_shard"), LogBook()
    root.addHandler(handler)
    own.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    own.setLevel(logging.NOTSET)


@pytest.fixture
def no_waits(monkeypatch) -> None:
    """Let a shard reconnect at once, where its waits are not the point."""
    monkeypatch.setattr(session.Session, "_delay", lambda _: 0.0)


@pytest.fixture
def short_linger(monkeypatch) -> None:
    """Wait hardly for a silent peer to close as well, where that is not the point."""
    monkeypatch.setattr(connection, "LINGER", 0.1)


@pytest.fixture
async def open_stage(book) -> AsyncIterator[OpenStage]:
    """Open stages; each is closed, and what must always hold is checked, after the test."""
    async with AsyncExitStack() as stack:

        async def open_stage(
            *, shards=1, max_concurrency=0, compression=Compression.ZSTD, bot=None, tls=None, config=None, **options
        ) -> Stage:
            concurrency = max_concurrency or shards
            sim = make_simulator(shards=shards, max_concurrency=concurrency, bot=bot or {}, options=options, tls=tls)
            await stack.enter_async_context(sim)
            cluster = LocalCluster(window=sim.control.state().options.identify_window + MARGIN)
            shard_config = make_config(sim.gateway_url, compression, **(config or {}))
            stage = Stage(sim, cluster, book, shards=shards, config=shard_config)
            stack.push_async_callback(stage.close)
            return stage

        yield open_stage
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, "tasks were left behind"


@pytest.fixture
async def open_door() -> AsyncIterator[Callable[[Actor], Awaitable[Get]]]:
    """Serve a pod's probes and metrics on a real port; what is given takes a path and gives status and text."""
    async with AsyncExitStack() as stack:

        async def open_door(actor: Actor) -> Get:
            runner = await http.serve(http.make_app(actor.pod, make_registry(actor.pod)), 0)
            stack.push_async_callback(runner.cleanup)
            port = runner.addresses[0][1]
            client = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))

            async def get(path: str) -> tuple[int, str]:
                async with client.get(path) as response:
                    return response.status, await response.text()

            return get

        yield open_door
