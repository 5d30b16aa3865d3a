"""Fixtures: a stage in namespaces of its own."""

import pytest

from cluster.operator.stage import Stage


@pytest.fixture
async def stage(kubeconfig, tmp_path):
    made = Stage(kubeconfig, tmp_path)
    await made.set_up()
    yield made
    await made.tear_down()


@pytest.fixture
async def running(stage):
    """A stage with the operator on it."""
    await stage.operator.start()
    return stage
