"""Faults as a client's socket feels them."""

import asyncio
import zlib

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from shardwright_simulator import BotConfig, Fault, LoadSpec, Simulator


@pytest.fixture
async def sim():
    async with Simulator(bots=[BotConfig(guilds=0)]) as simulator:
        yield simulator


@pytest.fixture
async def ready(sim, open_client):
    async with open_client(sim.gateway_url, "zlib-stream") as client:
        await client.identify(sim)
        yield client


async def test_op_7_is_followed_by_a_close(sim, ready):
    sim.control.add_fault(Fault(action="reconnect", delay=0.05))
    assert (await ready.receive())["op"] == 7
    assert await ready.closed() == 4000


async def test_op_7_before_hello(sim, open_client):
    sim.control.add_fault(Fault(action="reconnect", at="connect"))
    async with open_client(sim.gateway_url) as client:
        assert (await client.receive())["op"] == 7


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 4000, 4004, 4014])
async def test_any_close_code(sim, ready, code):
    sim.control.add_fault(Fault(action="close", code=code, reason="because"))
    assert await ready.closed() == code
    assert ready.socket.close_reason == "because"


@pytest.mark.parametrize("fault", [{"action": "abort"}, {"action": "close", "code": 1006}, {"action": "cut"}])
async def test_a_cut_comes_without_a_close_frame(sim, ready, fault):
    sim.control.add_fault(Fault(**fault))
    with pytest.raises(ConnectionClosedError):
        await ready.receive()
    assert await ready.closed() == 1006
    assert len(sim.control.sessions()) == 1


async def test_rubbish_breaks_the_websocket(sim, ready):
    sim.control.add_fault(Fault(action="rubbish"))
    with pytest.raises(ConnectionClosed):
        await ready.socket.recv()


async def test_a_junk_frame_breaks_the_inflater(sim, ready):
    sim.control.add_fault(Fault(action="junk-frame"))
    with pytest.raises(zlib.error):
        await ready.receive_raw()


async def test_a_zip_bomb_is_small_on_the_wire(sim, ready):
    sim.control.add_fault(Fault(action="zip-bomb"))
    data = await asyncio.wait_for(ready.socket.recv(decode=False), 20)
    assert len(data) < 1_000_000
    assert len(ready.decoder.decompress(data, 4 * 1024 * 1024)) == 4 * 1024 * 1024


async def test_fragments_are_put_together(sim, ready):
    sim.control.add_fault(Fault(action="fragment", frames=5))
    assert (await ready.receive())["t"] == "INTERACTION_CREATE"


async def test_a_ping_is_answered_and_nothing_else_happens(sim, ready):
    sim.control.add_fault(Fault(action="ping"))
    await ready.send(1, 1)
    assert (await ready.receive())["op"] == 11


async def test_a_heartbeat_is_asked_for(sim, ready):
    sim.control.add_fault(Fault(action="heartbeat-request"))
    assert (await ready.receive())["op"] == 1


async def test_a_silent_socket_answers_nothing(sim, ready):
    sim.control.add_fault(Fault(action="silent"))
    await ready.send(1, 1)
    sim.control.start_load(LoadSpec(rate=100, count=3, mix={"ENTITLEMENT_CREATE": 1}))
    await sim.wait_for(lambda: sim.control.sessions()[0].seq == 4)
    await sim.wait_for(lambda: sim.control.connections()[0].last_beat > sim.control.sessions()[0].created)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ready.socket.recv(), 0.1)
    assert sim.control.sessions()[0].sent_through == 1


async def test_a_socket_that_is_not_read_takes_no_heartbeat(sim, ready):
    sim.control.add_fault(Fault(action="stop-reading"))
    await ready.send(1, 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ready.socket.recv(), 0.1)


async def test_a_refused_handshake(sim, open_client):
    sim.control.add_fault(Fault(action="refuse", status=503))
    with pytest.raises(InvalidStatus) as caught:
        async with open_client(sim.gateway_url):
            pass
    assert caught.value.response.status_code == 503
    async with open_client(sim.gateway_url) as client:
        assert (await client.receive())["op"] == 10


async def test_an_unknown_path_is_refused(sim, open_client):
    with pytest.raises(InvalidStatus) as caught:
        async with open_client(sim.gateway_url + "/elsewhere"):
            pass
    assert caught.value.response.status_code == 404


async def test_a_resume_is_answered_by_cuts_and_then_works(sim, ready, open_client):
    sim.control.add_fault(Fault(action="abort", at="resume", times=2))
    await ready.socket.close(4000)
    for _ in range(2):
        async with open_client(ready.resume_url, "zlib-stream") as client:
            await client.resume(sim, ready.session, 1)
            with pytest.raises(ConnectionClosedError):
                await client.receive()
    async with open_client(ready.resume_url, "zlib-stream") as client:
        await client.resume(sim, ready.session, 1)
        assert (await client.receive())["t"] == "RESUMED"
