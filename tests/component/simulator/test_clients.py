"""Independent public clients: they log in, get every event, and survive op 7 and a cut without breaking a rule.

What the simulator calls a violation here is the simulator's misreading: these libraries work with Discord every day.
Their programs are in `simulator/clients/`; each is installed by its ordinary package client into
`$SHARDWRIGHT_CACHE/clients/`, once for each content of its folder.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardwright_simulator import BotConfig, Fault, LoadSpec, Options, Simulator

SOURCES = Path(__file__).parents[3] / "simulator" / "clients"
CACHE = Path(os.environ.get("SHARDWRIGHT_CACHE", "~/.cache/shardwright")).expanduser() / "clients"
SHARDS = 2
KNOWN_EVENTS = {"MESSAGE_CREATE": 5, "TYPING_START": 1, "GUILD_UPDATE": 1, "INTERACTION_CREATE": 1, "DIRECT_MESSAGE": 1}
"""disgo shows no event whose name it does not know."""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def install_python(folder):
    run(sys.executable, "-m", "venv", "venv", cwd=folder)
    run("venv/bin/python", "-m", "pip", "install", "--quiet", "-r", "requirements.txt", cwd=folder)
    return "venv/bin/python", "client.py"


def install_node(folder):
    run("npm", "ci", "--no-audit", "--no-fund", cwd=folder)
    return "node", "client.js"


def install_go(folder):
    run("go", "build", "-o", "client", ".", cwd=folder)
    return ("./client",)


CLIENTS = {"discord-py": install_python, "hikari": install_python, "discordjs-ws": install_node, "disgo": install_go}


def installed(name):
    """Install a client unless it is there; return its folder and command."""
    source = SOURCES / name
    files = sorted(path for path in source.iterdir() if path.is_file())
    digest = hashlib.sha256(b"\0".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()[:16]
    folder = CACHE / f"{name}-{digest}"
    command = folder / "command.json"
    if not command.exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        command.write_text(json.dumps(CLIENTS[name](folder)))
    return folder, json.loads(command.read_text())


class Client:
    """A running client and what it has printed."""

    def __init__(self, process):
        self.process = process
        self.serials = set()
        self.changed = asyncio.Condition()

    async def read(self):
        async for line in self.process.stdout:
            if line.startswith(b'{"'):
                self.serials.add(json.loads(line)["serial"])
                async with self.changed:
                    self.changed.notify_all()

    async def has(self, serials):
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: serials <= self.serials)


@asynccontextmanager
async def started(name, sim):
    folder, command = await asyncio.to_thread(installed, name)
    errors = folder / "stderr.txt"
    with errors.open("wb") as stderr:
        arguments = (sim.api_url, sim.gateway_url, sim.token)
        process = await asyncio.create_subprocess_exec(
            *command, *arguments, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr
        )
    client = Client(process)
    reading = asyncio.create_task(client.read())
    try:
        yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reading


async def load(sim):
    """Make some events; return the serials of those that some session saw."""
    last = sim.control.state().ledger.last
    status = sim.control.start_load(LoadSpec(rate=400, count=100, mix=KNOWN_EVENTS))
    await sim.wait_for(lambda: not status.running)
    return {entry.serial for entry in sim.control.ledger(after=last) if entry.serial}


def live(sim):
    """Whether all shards have a session with a connection, and got their guilds."""
    sessions = [s for s in sim.control.sessions() if s.connections and not s.backfilling]
    return len(sessions) == SHARDS and all(session.seq > SHARDS for session in sessions)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CLIENTS)
async def test_a_foreign_client_gets_every_event_and_resumes(name):
    bot = BotConfig(guilds=8, shards=SHARDS, max_concurrency=1)
    async with Simulator(bots=[bot], options=Options(heartbeat_interval=5)) as sim, started(name, sim) as client:
        await sim.wait_for(lambda: live(sim), within=60)
        await client.has(await load(sim))
        for number, action in enumerate(("reconnect", "abort"), start=1):
            sim.control.add_fault(Fault(action=action))
            missed = await load(sim)
            await sim.wait_for(lambda wanted=number * SHARDS: len(sim.control.resumes()) >= wanted, within=60)
            await client.has(missed | await load(sim))
        assert [resume.result for resume in sim.control.resumes()] == ["resumed"] * 2 * SHARDS
        assert [identify.result for identify in sim.control.identifies()] == ["ready"] * SHARDS
        assert sim.control.violations() == []
