"""The gateway over real sockets: every compression, TLS, latency, load, and the ledger's word for it."""

import asyncio
import hashlib
import time
import zlib

import pytest
from websockets.exceptions import ConnectionClosedError

from shardwright_simulator import BotConfig, LoadSpec, Options, Simulator
from shardwright_simulator.__main__ import tls_context

COMPRESSIONS = ["", "zlib-stream", "zstd-stream"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_what_arrives_is_what_the_ledger_says(open_client, compression):
    async with Simulator(bots=[BotConfig(guilds=5)]) as sim, open_client(sim.gateway_url, compression) as client:
        await client.identify(sim)
        sizes = [(300, 5), (5_000, 5), (300_000, 1)]
        load = sim.control.start_load(LoadSpec(rate=500, count=200, twins=0.2, sizes=sizes))
        await sim.wait_for(lambda: not load.running)
        entries = list(sim.control.ledger())[1:]
        assert len(entries) == load.copies + 5
        for entry in entries:
            message = await client.receive_raw()
            assert len(message) == entry.size
            assert hashlib.sha256(message).digest() == entry.digest
        assert sim.control.violations() == []


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_an_event_of_3_megabytes_arrives(open_client, compression):
    async with Simulator(bots=[BotConfig(guilds=0)]) as sim, open_client(sim.gateway_url, compression) as client:
        await client.identify(sim)
        sim.control.start_load(
            LoadSpec(rate=10, count=1, mix={"INTERACTION_CREATE": 1, "DIRECT_MESSAGE": 0}, sizes=[(3_000_000, 1)])
        )
        sim.control.start_load(LoadSpec(rate=10, count=1, mix={"ENTITLEMENT_CREATE": 1}, sizes=[(3_000_000, 1)]))
        message = await client.receive_raw()
        assert len(message) == pytest.approx(3_000_000, abs=1_000)


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_a_session_goes_on_after_a_resume_on_a_new_connection(open_client, compression):
    async with Simulator(bots=[BotConfig(guilds=2)]) as sim:
        async with open_client(sim.gateway_url, compression) as client:
            await client.identify(sim)
            await client.until("GUILD_CREATE")
            await client.until("GUILD_CREATE")
            await client.socket.close(4000)
        await sim.wait_for(lambda: not sim.control.connections())
        sim.control.start_load(LoadSpec(rate=1_000, count=50, mix={"MESSAGE_CREATE": 1}))
        await sim.wait_for(lambda: sim.control.sessions()[0].seq == 53)
        async with open_client(client.resume_url, compression) as again:
            await again.resume(sim, client.session, 3)
            replay = await again.until("RESUMED")
            assert [message["s"] for message in replay] == list(range(4, 55))
        assert sim.control.violations(severity=None) == []


async def test_payload_compression_packs_ready(open_client):
    async with Simulator(bots=[BotConfig(guilds=100)]) as sim, open_client(sim.gateway_url) as client:
        await client.receive()
        d = {"token": sim.token, "properties": {}, "intents": 513, "compress": True}
        await client.send(2, d)
        assert b'"READY"' in zlib.decompress(await client.receive_raw())


async def test_closing_with_1000_ends_the_session(open_client):
    async with Simulator() as sim, open_client(sim.gateway_url) as client:
        await client.identify(sim)
        await client.socket.close(1000)
        await sim.wait_for(lambda: not sim.control.sessions())


async def test_over_tls_all_urls_are_secure(open_client, certificate, client_tls):
    async with Simulator(tls=tls_context(*certificate), bots=[BotConfig(guilds=1)]) as sim:
        assert sim.gateway_url.startswith("wss://")
        async with open_client(sim.gateway_url, "zstd-stream", client_tls) as client:
            await client.identify(sim)
            assert client.resume_url.startswith("wss://")
            assert (await client.receive())["t"] == "GUILD_CREATE"


async def test_latency_delays_each_way_and_keeps_the_order(open_client):
    async with Simulator(options=Options(latency=(0.03, 0.08)), bots=[BotConfig(guilds=0)]) as sim:
        begin = time.monotonic()
        async with open_client(sim.gateway_url) as client:
            await client.identify(sim)
            assert time.monotonic() - begin >= 4 * 0.03
            sim.control.start_load(LoadSpec(rate=500, count=100, mix={"ENTITLEMENT_CREATE": 1}))
            assert [(await client.receive())["s"] for _ in range(100)] == list(range(2, 102))


async def test_who_does_not_read_loses_the_connection_and_not_the_session(open_client):
    options = Options(write_limit=1_000_000)
    async with Simulator(options=options, bots=[BotConfig(guilds=0)]) as sim, open_client(sim.gateway_url) as client:
        await client.identify(sim)
        client.socket.transport.pause_reading()
        sim.control.start_load(LoadSpec(rate=1_000, mix={"ENTITLEMENT_CREATE": 1}, sizes=[(200_000, 1)]))
        await sim.wait_for(lambda: not sim.control.connections())
        assert len(sim.control.sessions()) == 1
        assert [note.rule for note in sim.control.violations(severity=None)] == ["slow-client"]
        sim.control.stop_loads()


async def test_a_silent_client_is_closed(open_client):
    async with Simulator(options=Options(heartbeat_interval=0.1)) as sim, open_client(sim.gateway_url) as client:
        await client.identify(sim)
        await client.until("GUILD_CREATE")
        with pytest.raises(ConnectionClosedError):
            await client.until("never")
        assert await client.closed() == 4000
        assert [v.rule for v in sim.control.violations()] == ["heartbeat-missing"]


async def test_two_live_connections_of_a_session_are_told(open_client):
    options = Options(on_resume="keep")
    async with (
        Simulator(options=options, bots=[BotConfig(guilds=0)]) as sim,
        open_client(sim.gateway_url) as old,
        open_client(sim.gateway_url) as new,
    ):
        await old.identify(sim)
        await new.resume(sim, old.session, 1)
        await new.until("RESUMED")
        await asyncio.wait_for(old.socket.close(4000), 5)
        overlap = await sim.wait_for(lambda: next((o for o in sim.control.overlaps() if o.seconds is not None), None))
        assert overlap.ended_by == "old"
        assert overlap.seconds < 5


def client_frame(opcode, payload):
    """A masked frame with a mask of zeros (RFC 6455, 5.2)."""
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


@pytest.mark.parametrize("latency", [0.0, 0.05])
async def test_a_heartbeat_and_a_close_in_one_read(open_client, latency):
    """The acknowledgement has nowhere to go any more, and the session is kept all the same."""
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with Simulator(options=Options(latency=(latency, latency))) as sim, open_client(sim.gateway_url) as client:
        await client.identify(sim)
        beat = client_frame(1, b'{"op":1,"d":null}')
        client.socket.transport.write(beat + client_frame(8, (4000).to_bytes(2)))
        await sim.wait_for(lambda: not sim.control.connections())
        await asyncio.wait_for(client.socket.wait_closed(), 20)
        assert client.socket.close_code in {1006, 4000}
        assert len(sim.control.sessions()) == 1
    assert errors == []


async def test_what_is_delayed_for_a_connection_that_is_gone_goes_nowhere(open_client):
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with Simulator(options=Options(latency=(0.02, 0.02))) as sim:
        async with open_client(sim.gateway_url) as client:
            await client.identify(sim)
            sim.control.set_options(latency=(0.2, 0.2))
            sim.control.start_load(LoadSpec(rate=500, count=100))
            await sim.wait_for(lambda: sim.control.state().ledger.entries > 50)
            client.socket.transport.abort()
        await sim.wait_for(lambda: not sim.control.connections())
    assert errors == []
