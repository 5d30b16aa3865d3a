"""Fixtures of the coordination tests: time that jumps, and the cluster in memory."""

import pytest

from unit.shard.coordination.jumping_loop import JumpingLoop
from unit.shard.coordination.local_stage import LocalStage


def pytest_asyncio_loop_factories():
    return {"jumping": JumpingLoop}


@pytest.fixture
async def stage():
    found = LocalStage()
    yield found
    await found.close()
