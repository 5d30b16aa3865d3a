"""The pod's door: alive as long as the loop turns, ready only by gateway truth."""

from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, Gauge

from shardwright_shard.http import make_app


@pytest.fixture
async def door():
    pod = SimpleNamespace(reason="standing by", why_not_ready=lambda: pod.reason)
    registry = CollectorRegistry()
    Gauge("discord_gateway_ready", "Whether it is.", registry=registry).set(1)
    async with TestClient(TestServer(make_app(pod, registry))) as client:
        yield SimpleNamespace(pod=pod, get=client.get)


async def test_healthz_does_not_depend_on_discord_or_sinks(door):
    for reason in ("", "standing by", "shard 0 parked; sinks not available"):
        door.pod.reason = reason
        response = await door.get("/healthz")
        assert (response.status, await response.text()) == (200, "ok\n")


async def test_readyz_says_why_not(door):
    door.pod.reason = "shard 3 connecting; sinks not available (events: no broker)"
    response = await door.get("/readyz")
    assert (response.status, await response.text()) == (503, f"{door.pod.reason}\n")
    door.pod.reason = ""
    response = await door.get("/readyz")
    assert (response.status, await response.text()) == (200, "ok\n")


async def test_metrics_are_in_the_exposition_format(door):
    response = await door.get("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert "discord_gateway_ready 1.0" in await response.text()


async def test_there_are_no_other_doors(door):
    assert (await door.get("/")).status == 404
    assert (await door.get("/healthz/x")).status == 404
