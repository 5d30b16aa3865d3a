"""REST and control on the same port, and the program itself."""

import asyncio
import json
import signal
import sys

import aiohttp
import pytest

from shardwright_simulator import BotConfig, LoadSpec, Options, Simulator

AGENT = {"User-Agent": "DiscordBot (https://example.invalid, 1.0)"}


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(headers=AGENT, timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


async def test_rest_and_control_and_health(http):
    async with Simulator(bots=[BotConfig(guilds=2_500)]) as sim:
        async with http.get(f"{sim.api_url}/gateway/bot", headers={"Authorization": f"Bot {sim.token}"}) as response:
            body = await response.json()
            assert (body["url"], body["shards"]) == (sim.gateway_url, 3)
        async with http.get(f"{sim.base_url}/healthz") as response:
            assert response.status == 200
        async with http.patch(f"{sim.control_url}/options", json={"heartbeat_interval": 3}) as response:
            assert (await response.json())["heartbeat_interval"] == 3
        async with http.post(f"{sim.control_url}/faults", json={"action": "explode"}) as response:
            assert response.status == 400


async def test_a_large_ledger_is_streamed_while_the_gateway_goes_on(http, open_client):
    async with Simulator(bots=[BotConfig(guilds=0)]) as sim, open_client(sim.gateway_url) as client:
        await client.identify(sim)
        load = sim.control.start_load(
            LoadSpec(rate=50_000, count=20_000, mix={"ENTITLEMENT_CREATE": 1}, sizes=[(100, 1)])
        )
        while load.events != 20_000:
            await client.receive_raw()
        async with http.get(f"{sim.control_url}/ledger", params={"after": 1}) as response:
            lines = [json.loads(line) async for line in response.content]
        assert [line["seq"] for line in lines] == list(range(2, 20_002))
        async with http.get(f"{sim.control_url}/ledger", params={"after": 20_000}) as response:
            assert len((await response.text()).splitlines()) == 1


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"]
)
async def test_what_is_no_http_is_refused_and_the_port_lives_on(http, data):
    async with Simulator() as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
        async with http.get(f"{sim.base_url}/healthz") as response:
            assert response.status == 200


async def test_the_user_agent_of_a_websocket_can_be_demanded(http):
    async with Simulator(options=Options(require_user_agent=True)) as sim:
        url = f"{sim.gateway_url}/?v=10"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(url, headers={"User-Agent": "curl"})
        assert caught.value.status == 403
        assert [v.rule for v in sim.control.violations()] == ["user-agent"]
        await (await http.ws_connect(url)).close()


async def program(*arguments):
    command = [sys.executable, "-m", "shardwright_simulator", *arguments]
    return await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)


async def test_the_program_serves_what_its_configuration_says_until_sigterm(http, tmp_path):
    config = tmp_path / "simulator.json"
    config.write_text(
        '{"bots": [{"id": "5", "guilds": 3}], "options": {"heartbeat_interval": 7}, "loads": [{"rate": 5}]}'
    )
    process = await program("--port", "0", "--config", str(config), "--on-resume", "keep", "--latency", "0", "0.001")
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), 20)).decode()
        assert "rest http://127.0.0.1:" in line
        async with http.get(line.split()[-1] + "/state") as response:
            state = await response.json()
        assert state["bots"][0]["config"]["id"] == "5"
        assert (state["options"]["heartbeat_interval"], state["options"]["on_resume"]) == (7, "keep")
        assert state["loads"][0]["running"]
    finally:
        process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0


@pytest.mark.parametrize(
    "arguments", [["--guilds", "-1"], ["--config", "/nowhere.json"], ["--heartbeat-interval", "0"], ["--rate", "-5"]]
)
async def test_the_program_refuses_what_makes_no_sense(arguments):
    process = await program("--port", "0", *arguments)
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert b"Traceback" not in errors
