"""Many at once on a real API server: contenders for a bucket, two clients that spend, writers that storm."""

import asyncio
import itertools
import time

import pytest

from shardwright_shard.coordination.api_client import ApiClient
from unit.shard.coordination.contract import ROW, SINK, WINDOW, holder

pytestmark = pytest.mark.cluster


@pytest.fixture
def puts(monkeypatch):
    """Count the swaps that were sent."""
    sent = []
    put = ApiClient.put

    async def counted(self, path, kind, body):
        sent.append(path)
        return await put(self, path, kind, body)

    monkeypatch.setattr(ApiClient, "put", counted)
    return sent


async def test_eight_pods_identify_one_window_apart_and_lose_few_swaps(stage, puts):
    now, won, late = asyncio.get_running_loop().time, [], []
    await stage.make_lease(0)

    async def identify(shard):
        coordinator = await stage.coordinator(f"pod-{shard}")
        while (until := await coordinator.slot(0, shard)) is None:
            late.append(shard)
        won.append((now(), shard, until - now()))

    await asyncio.gather(*(identify(shard) for shard in range(0, 16, 2)))
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(won)]
    transitions = (await stage.lease(0))["spec"]["leaseTransitions"]
    figures = {
        "order": [shard for _, shard, _ in won],
        "gaps": [round(gap, 3) for gap in gaps],
        "left to send, least": round(min(left for _, _, left in won), 3),
        "swaps stored": transitions,
        "swaps sent": len(puts),
        "late": late,
    }
    print(figures)
    assert sorted(shard for _, shard, _ in won) == list(range(0, 16, 2))
    assert min(gaps) > WINDOW - 0.1
    assert sum(gaps) < (transitions - 1) * WINDOW * 1.04
    assert transitions == len(won) + len(late)
    assert len(puts) <= 2 * transitions
    assert (await stage.lease(0))["metadata"]["labels"] == {"kept": "yes"}


async def test_two_clients_of_one_pod_never_spend_more_than_was_granted(stage):
    one = await holder(stage, "a")
    same = await stage.coordinator("a")
    await stage.change(identify_grant=25)
    spent = await asyncio.gather(*(coordinator.spend() for _ in range(20) for coordinator in (one, same)))
    assert sum(spent) == 25
    assert (await stage.range()).status.identifies_spent == 25


async def test_a_storm_of_writes_stops_neither_heartbeats_nor_spending(stage):
    coordinator = await holder(stage, "a")
    await stage.change(identify_grant=20)
    written = itertools.count()

    async def storm():
        while True:
            entry = {"since": f"2030-01-01T00:00:00.{next(written):06}Z"}
            await stage.admin.merge(f"{stage.range_path}/status", {"status": {"standby": {"storm": entry}}})

    storming = asyncio.create_task(storm())
    began, reports = time.monotonic(), []
    for _ in range(20):
        asked = time.monotonic()
        await coordinator.report([ROW], [SINK])
        reports.append(time.monotonic() - asked)
    asked = time.monotonic()
    spent = [await coordinator.spend() for _ in range(20)]
    paying = (time.monotonic() - asked) / 20
    rate = next(written) / (time.monotonic() - began)
    storming.cancel()
    await asyncio.wait([storming])
    print(f"storm {rate:.0f} writes/s; report {max(reports) * 1000:.0f} ms at most; spend {paying * 1000:.0f} ms")
    assert all(spent)
    assert (await stage.range()).status.identifies_spent == 20
