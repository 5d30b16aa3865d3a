"""Which ranges a gateway has: the layout in force is what its ShardRanges say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from shardwright_api import sharding
from shardwright_api.resources import GatewayStatus, PlanStatus, Shards
from shardwright_api.sharding import Range


@dataclass(frozen=True, slots=True)
class Layout:
    """So many shards, so many to a pod."""

    total: int
    per_pod: int

    def ranges(self) -> list[Range]:
        """Cut the shards into ranges."""
        return sharding.ranges(total=self.total, per_pod=self.per_pod)

    def contains(self, existing: set[Range]) -> bool:
        """Say whether all these ranges belong to the layout."""
        return existing <= set(self.ranges())


def in_force(existing: Iterable[Range], status: GatewayStatus, wanted: Shards) -> Layout | None:
    """Infer the layout of existing ranges, some of which may be missing. None when there are none at all."""
    found = list(existing)
    if not found:
        return None
    total = Counter(one.total for one in found).most_common(1)[0][0]
    present = {one for one in found if one.total == total}
    sizes = [status.plan.per_pod] if status.plan is not None and status.plan.total == total else []
    sizes += [wanted.per_pod, max(len(one) for one in present)]
    candidates = [Layout(total, size) for size in sizes]
    return next((layout for layout in candidates if layout.contains(present)), candidates[-1])


def fresh(wanted: Shards, recommended: int) -> Layout:
    """Lay out a gateway that has no ranges yet."""
    return Layout(wanted.count if wanted.count is not None else recommended, wanted.per_pod)


def differs(wanted: Shards, layout: Layout) -> str:
    """Say how the wish differs from the layout in force; an empty string if it does not."""
    if wanted.count is not None and wanted.count != layout.total:
        return f"spec.shards.count is {wanted.count}, the running layout has {layout.total} shards"
    if wanted.per_pod != layout.per_pod:
        return f"spec.shards.perPod is {wanted.per_pod}, the running layout has {layout.per_pod} shards to a pod"
    return ""


def plan_status(layout: Layout, max_concurrency: int) -> PlanStatus:
    """Describe a layout in numbers."""
    return PlanStatus(
        total=layout.total,
        per_pod=layout.per_pod,
        ranges=len(layout.ranges()),
        max_concurrency=max_concurrency,
        buckets=min(layout.total, max_concurrency),
        waves=sharding.waves(layout.total, max_concurrency),
        cold_start_seconds=sharding.cold_start_seconds(layout.total, max_concurrency),
    )
