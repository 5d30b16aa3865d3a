"""Rollouts under load: no identify, no event lost, and nobody notices.

`SHARDWRIGHT_ROLLOUTS`: how many (2; 10 are what is promised).
"""

from __future__ import annotations

import os
import statistics

import pytest
import testbed
from chaos.setting import Measured, Setting
from road import Cluster

ROLLOUTS = int(os.environ.get("SHARDWRIGHT_ROLLOUTS", "2"))
SILENCE = 2.0
DELAY = 0.5


def rolled(setting: Setting, number: int) -> bool:
    """Say whether every pod runs what the last change asks for."""
    shards = [pod["metadata"] for pod in setting.pods if pod["metadata"]["name"].startswith("mybot-")]
    marks = {pod["annotations"].get("rollout") for pod in shards if "deletionTimestamp" not in pod}
    return marks == {str(number)} and not setting.unsettled()


def delays_while_switching(measured: Measured) -> list[float]:
    """Give the delays, in seconds, of the events that were sent while nobody could get their shard's."""
    return [
        delay.seconds
        for silence in measured.silences
        for delay in measured.window.delays
        if delay.shard == silence["shard"] and silence["time"] <= delay.time <= silence["time"] + silence["seconds"]
    ]


@pytest.mark.timeout(60 + 90 * ROLLOUTS)
async def test_a_rollout_costs_no_identify_no_event_and_no_second(operator: Cluster, bed: testbed.Cluster) -> None:
    """4 pods of 4 shards, 500 events/s; a change of the pods' annotations, again and again."""
    async with Setting(bed, own_operator=False) as setting:
        for number in range(1, ROLLOUTS + 1):
            await setting.patch_gateway(pod={"annotations": {"rollout": str(number)}})
            await setting.views.until("the rollout", lambda n=number: rolled(setting, n), seconds=90)
            measured = await setting.close()
            silence = max((record["seconds"] for record in measured.silences), default=0.0)
            delay = statistics.median(delays_while_switching(measured) or [0.0])
            window = measured.window
            print(
                f"\nrollout {number}: {window.sent} sent, {window.received} stored, {measured.resumes} resumes, longest"
                f" silence of a shard {silence:.2f} s (between two events stored: {window.silence:.2f} s), median delay of"
                f" {len(delays_while_switching(measured))} events sent while it switched {delay * 1000:.0f} ms"
            )
            assert (window.lost, window.twice, measured.identifies, measured.violations) == ([], [], 0, [])
            assert (measured.two_holders, measured.fenced) == ([], [])
            assert measured.resumes >= 16
            assert silence < SILENCE
            assert delay < DELAY
