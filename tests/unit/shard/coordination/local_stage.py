"""The contract's `Stage` in memory."""

from shardwright_api.resources import RangeSpec, ShardConfig
from shardwright_shard.coordination.local import LocalCluster

RANGE = "mybot-4-0-3"
BOT = "81384788765712384"


class LocalStage:
    """A `LocalCluster` with one range, and the coordinators that a test made."""

    def __init__(self):
        self.cluster = LocalCluster(make_leases=False)
        self.coordinators = []
        self._add()

    async def coordinator(self, pod, *, start=True):
        coordinator = self.cluster.coordinator(RANGE, pod=pod)
        if start:
            await coordinator.start()
            self.coordinators.append(coordinator)
        return coordinator

    async def change(self, **fields):
        self.cluster.change(RANGE, **fields)

    async def range(self):
        return self.cluster.range(RANGE)

    async def delete(self):
        self.cluster.delete(RANGE)

    async def recreate(self):
        self.cluster.delete(RANGE)
        self._add()

    async def delete_gateway(self):
        self.cluster.delete_gateway("mybot")

    async def recreate_gateway(self):
        self.cluster.recreate_gateway("mybot")

    async def make_lease(self, bucket):
        self.cluster.make_lease(BOT, bucket)

    async def lease_holder(self, bucket):
        return self.cluster.lease(BOT, bucket).holder

    def cut(self, pod):
        self.cluster.cut(pod)

    def restore(self):
        self.cluster.restore()

    async def close(self):
        for coordinator in self.coordinators:
            await coordinator.close()

    def _add(self):
        config = ShardConfig(gateway="mybot", gateway_url="wss://gateway.example", intents=1)
        spec = RangeSpec(first=0, last=3, total=4, bot_id=BOT, max_concurrency=2, config=config)
        self.cluster.add_range(RANGE, spec)
