"""Event loops of the shard core's tests: real ones for sockets, jumping time for all else."""

import asyncio

import uvloop

from unit.shard.coordination.jumping_loop import JumpingLoop

OWN_LOOPS = {
    "test_connection.py": {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop},
    "test_shard.py": {"jumping": JumpingLoop},
    "test_pod.py": {"jumping": JumpingLoop},
    "test_pod_chaos.py": {"jumping": JumpingLoop},
    "test_identify_gate.py": {"jumping": JumpingLoop},
    "test_metrics.py": {"jumping": JumpingLoop},
}


def pytest_asyncio_loop_factories(item):
    return OWN_LOOPS.get(item.path.name, {"asyncio": asyncio.new_event_loop})
