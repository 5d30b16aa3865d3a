"""The contract, on a real API server and with the rights of a shard pod."""

import pytest

from unit.shard.coordination.contract import CoordinatorContract

pytestmark = pytest.mark.cluster


class TestKubernetesCoordinator(CoordinatorContract):
    """Every promise of a coordinator."""
