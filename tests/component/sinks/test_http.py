"""What is the HTTP sink's own: signatures, pauses, sizes, answers of all sorts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from random import Random

import pytest

from component.sinks.http_server import HttpServer
from component.sinks.stage import BOT, QUICK, Stage, message
from shardwright_api import resources
from shardwright_api.resources import HttpMode
from shardwright_shard.sinks.factory import make_sink


@pytest.fixture
async def endpoint(tmp_path):
    (tmp_path / "server").mkdir()
    server = HttpServer(None, tmp_path / "server")
    yield await server.start()
    server.kill()


def sink(server, *, secrets=None, **fields):
    reference = resources.SecretRef("any") if secrets else None
    http = resources.HttpSink(url=server.url, **fields)
    spec = resources.Sink(name="events", http=http, credentials_secret_ref=reference)
    return make_sink(spec, bot=BOT, random=Random(), limits=QUICK, secrets=secrets)


async def test_the_pause_that_the_endpoint_asks_for_is_kept(endpoint):
    async with Stage(sink(endpoint)) as stage:
        await stage.available()
        endpoint.order(status=503, headers={"retry-after": "1"})
        started = time.monotonic()
        stage.append_messages(1)
        await stage.away("503 Service Unavailable: come back later")
        endpoint.order()
        await stage.settled()
        waited = time.monotonic() - started
    print(f"asked for 1 s, came back after {waited:.2f} s")
    assert waited >= 1.0
    assert endpoint.seen() == 2


async def test_a_batch_holds_what_has_gathered_up_to_its_bound(endpoint):
    async with Stage(sink(endpoint, mode=HttpMode.BATCHED, max_batch=40)) as stage:
        await stage.available()
        stage.append_messages(100)
        await stage.settled()
    batches = [json.loads(body) for _, body in await endpoint.stored()]
    assert [len(batch) for batch in batches] == [40, 40, 20]
    assert [event["seq"] for batch in batches for event in batch] == list(range(1, 101))


@pytest.mark.parametrize("mode", HttpMode)
async def test_what_the_endpoint_finds_too_large_is_told_and_the_rest_is_there(endpoint, mode):
    endpoint.order(limit=20_000)
    async with Stage(sink(endpoint, mode=mode)) as stage:
        stage.append(*[message(seq, size=30_000 if seq == 5 else 1000) for seq in range(1, 41)])
        await stage.settled()
        assert stage.source.acked == 40
        assert stage.sink.statistics()["oversize"] == 1
    found = await endpoint.stored()
    if mode is HttpMode.BATCHED:
        types = [event["type"] for _, body in found for event in json.loads(body)]
    else:
        types = [headers["ce-type"] for headers, _ in found]
    assert len(types) == 40
    assert [index for index, type_ in enumerate(types) if type_ == "shardwright.oversize"] == [4]


async def test_requests_are_signed_as_standard_webhooks_says(endpoint, tmp_path):
    key = b"0123456789abcdef0123456789abcdef"
    folder = tmp_path / "events" / "credentials"
    folder.mkdir(parents=True)
    (folder / "hmac-key").write_text(f"whsec_{base64.b64encode(key).decode()}\n")
    (folder / "token").write_text("t0ken\n")
    async with Stage(sink(endpoint, secrets=tmp_path)) as stage:
        stage.append_messages(3)
        await stage.settled()
    for headers, body in await endpoint.stored():
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert headers["webhook-id"] == headers["ce-id"]
        assert headers["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize("status", [301, 400, 404, 500])
async def test_any_other_answer_keeps_the_event(endpoint, status):
    async with Stage(sink(endpoint)) as stage:
        await stage.available()
        endpoint.order(status=status)
        stage.append_messages(3)
        await stage.away(f"{status} ")
        assert stage.source.acked is None
        endpoint.order()
        await stage.settled()
        await stage.available()
    assert [headers["ce-seq"] for headers, _ in await endpoint.stored()] == ["1", "2", "3"]
