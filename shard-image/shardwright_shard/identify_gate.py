"""How many of a pod's shards may go for an IDENTIFY: the grants of the range, handed to its shards one by one.

A shard *reserves* before it connects, so that no more connections queue at Discord than there are grants. It *pays*
(`identifiesSpent` + 1 in the cluster) once it has HELLO, and only then waits for the bucket's slot. A paid right that
was not used, because the connection broke, stays with its shard for the next try. A fatal close code shuts the gate:
what was reserved or paid is void, and a new grant alone opens it again.

Within the pod one shard at a time tries for each bucket; the others need no connection while they wait.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from shardwright_api.sharding import bucket
from shardwright_shard.coordination.base import Coordinator


class IdentifyGate:
    """The pod's view of its grants."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._reserved: set[int] = set()
        self._paid: set[int] = set()
        self._turns: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._fatal_at_grant: int | None = None

    @property
    def shut(self) -> bool:
        """Whether a fatal close code stands and no new grant has come since."""
        return self._fatal_at_grant is not None and self._coordinator.view.spec.identify_grant <= self._fatal_at_grant

    def turn(self, shard: int) -> asyncio.Lock:
        """Give the lock under which a shard connects and identifies: one per bucket."""
        return self._turns[self.bucket(shard)]

    def bucket(self, shard: int) -> int:
        """Give a shard's identify bucket."""
        return bucket(shard, self._coordinator.view.spec.max_concurrency)

    def obstacle(self, shard: int) -> str | None:
        """Say what keeps this shard from reserving; None if nothing does."""
        view = self._coordinator.view
        if view.spec.hold:
            return "identifies are on hold"
        if self.shut:
            return "parked until what Discord refused has changed"
        if shard in self._paid or shard in self._reserved:
            return None
        open_grants = view.spec.identify_grant - view.status.identifies_spent - len(self._reserved)
        return None if open_grants > 0 else "waits for the operator's grant to identify"

    def reserve(self, shard: int) -> None:
        """Reserve one open grant. Only where `obstacle` is None."""
        if shard not in self._paid:
            self._reserved.add(shard)

    def unreserve(self, shard: int) -> None:
        """Give an unpaid reservation back."""
        self._reserved.discard(shard)

    async def pay(self, shard: int) -> bool:
        """Write the spend into the cluster, once per right; say whether the shard may go on."""
        if shard not in self._paid and await self._coordinator.spend() and not self.shut:
            self._paid.add(shard)
        self._reserved.discard(shard)
        return shard in self._paid and not self.shut

    def paid(self, shard: int) -> bool:
        """Say whether this shard has paid for an IDENTIFY that it has not sent yet."""
        return shard in self._paid

    def use(self, shard: int) -> None:
        """Note that the IDENTIFY which was paid for has been sent."""
        self._paid.discard(shard)

    def slam(self) -> None:
        """Shut the gate at once: Discord answered with a fatal code."""
        self._fatal_at_grant = self._coordinator.view.spec.identify_grant
        self._reserved.clear()
        self._paid.clear()
