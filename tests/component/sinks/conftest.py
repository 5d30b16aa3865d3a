"""Real servers for the sinks' tests, on both event loops."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from component.shard.conftest import book, open_stage  # noqa: F401 - fixtures
from component.sinks import programs
from component.sinks.nats_server import NatsServer

SLOW = ("test_conformance.py", "test_amqp.py", "test_tls.py", "test_kafka.py")


def pytest_asyncio_loop_factories(item):
    """Run on both loops; the conformance suite, whose servers take long to start, on the pod's."""
    loops = {"uvloop": uvloop.new_event_loop}
    return loops if item.path.name in SLOW else {"asyncio": asyncio.new_event_loop, **loops}


@pytest.fixture(scope="session")
def nats_program():
    """Find nats-server on PATH or in the cache, or build it."""
    return programs.nats()


@pytest.fixture(scope="session")
def redis_program():
    """Give the folder of Redis, unpacked."""
    return programs.debian("redis", programs.REDIS)


@pytest.fixture(scope="session")
def rabbitmq_program():
    """Give the folder of RabbitMQ and Erlang, unpacked."""
    return programs.debian("rabbitmq", programs.RABBITMQ)


@pytest.fixture(scope="session")
def kafka_program():
    """Give the folder of Kafka's jars."""
    return programs.kafka()


@pytest.fixture
def make_server(nats_program, tmp_path):
    """Make servers that are not started; they end with the test."""
    made = []

    def make():
        folder = tmp_path / f"nats-{len(made)}"
        folder.mkdir()
        made.append(NatsServer(nats_program, folder))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
async def nats_server(make_server):
    """Start a server without streams."""
    return await make_server().start()
