"""The contract, on the cluster in memory."""

from unit.shard.coordination.contract import CoordinatorContract


class TestLocalCoordinator(CoordinatorContract):
    """Every promise of a coordinator."""
