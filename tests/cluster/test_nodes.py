"""One of two nodes is emptied: the ranges move, no identify is spent, no event is lost."""

from __future__ import annotations

import asyncio

import pytest
import testbed
from chaos.faults import SECOND_NODE, shards_there
from chaos.setting import Setting
from road import Cluster


async def assert_nothing_lost(setting: Setting) -> None:
    measured = await setting.close()
    print(f"\nsent {measured.window.sent}, stored {measured.window.received}, silence {measured.window.silence:.2f} s")
    assert (measured.window.lost, measured.window.twice, measured.identifies, measured.violations) == ([], [], 0, [])
    assert measured.two_holders == []


@pytest.mark.timeout(240)
async def test_drain_completes_with_the_disruption_budget_in_force(operator: Cluster, bed: testbed.Cluster) -> None:
    """`kubectl drain` of one of two nodes ends by itself, and evicts no pod before its range is served elsewhere."""
    async with Setting(bed, second_node=True, own_operator=False) as setting:
        assert shards_there(setting), "the pods are spread over the nodes"
        flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"]
        await asyncio.to_thread(operator.kubectl, "drain", SECOND_NODE, *flags)
        await setting.healed()
        assert not shards_there(setting)
        await assert_nothing_lost(setting)


@pytest.mark.timeout(240)
async def test_cordon_alone_moves_the_ranges(operator: Cluster, bed: testbed.Cluster) -> None:
    """A node that takes no new pods will be drained: its ranges are handed over before the evictions come."""
    async with Setting(bed, second_node=True, own_operator=False) as setting:
        assert shards_there(setting), "the pods are spread over the nodes"
        await asyncio.to_thread(operator.kubectl, "cordon", SECOND_NODE)
        await setting.views.until("no range on it", lambda: not shards_there(setting), seconds=90)
        await setting.healed()
        await assert_nothing_lost(setting)
