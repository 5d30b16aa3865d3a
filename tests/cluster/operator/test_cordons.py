"""A cordon moves the ranges before the eviction comes, and leaves them where they are when there is no other place.

The nodes are objects without a kubelet, tainted for everybody else: nobody's pods but ours know of them.
"""

import asyncio
import contextlib

import pytest

from cluster.operator.stage import ApiFailed, now

NODES = "/api/v1/nodes"


class Nodes:
    """Nodes that the scheduler takes for real, and pods on them that end when they are told to."""

    def __init__(self, stage):
        self.stage, self.mark = stage, stage.namespace
        self.names = [f"{self.mark}-{number}" for number in (1, 2)]

    async def make(self):
        taint = {"key": "stage", "value": self.mark, "effect": "NoSchedule"}
        for name in self.names:
            meta = {"name": name, "labels": {"stage": self.mark, "kubernetes.io/hostname": name}}
            await self.stage.api("POST", NODES, {"metadata": meta, "spec": {"taints": [taint]}})
        await self._report()

    async def _report(self):
        ready = {"type": "Ready", "status": "True", "reason": "Played", "lastHeartbeatTime": now()}
        room = {"cpu": "8", "memory": "8Gi", "pods": "50", "ephemeral-storage": "100Gi"}
        status = {"conditions": [ready], "capacity": room, "allocatable": room}
        for name in self.names:
            path = f"{NODES}/{name}/status"
            await self.stage.api("PATCH", path, {"status": status}, "application/merge-patch+json")

    async def run(self):
        """Report, and end the pods that are on their way out once they hold nothing."""
        while True:
            with contextlib.suppress(ApiFailed):
                await self._report()
                holders = {one.get("status", {}).get("holder") for one in await self.stage.list("sr")}
                for pod in await self.stage.list("pods"):
                    if "deletionTimestamp" in pod["metadata"] and pod["metadata"]["uid"] not in holders:
                        await self.stage.delete("pods", pod["metadata"]["name"], gracePeriodSeconds=0)
            await asyncio.sleep(0.5)

    async def cordon(self, name, *, on=True):
        body = {"spec": {"unschedulable": on}}
        await self.stage.api("PATCH", f"{NODES}/{name}", body, "application/merge-patch+json")

    async def remove(self):
        for name in self.names:
            with contextlib.suppress(ApiFailed):
                await self.stage.api("DELETE", f"{NODES}/{name}")

    def pod_spec(self):
        tolerations = [{"key": "stage", "value": self.mark, "effect": "NoSchedule"}]
        return {"nodeSelector": {"stage": self.mark}, "tolerations": tolerations, "image": "none.example/none:1"}

    async def holders(self):
        """Give the node that each range's holder is on."""
        where = {pod["metadata"]["uid"]: pod["spec"].get("nodeName") for pod in await self.stage.list("pods")}
        return [where.get(one.get("status", {}).get("holder")) for one in await self.stage.list("sr")]


@pytest.fixture
async def nodes(running):
    made = Nodes(running)
    await made.make()
    playing = asyncio.create_task(made.run())
    yield made
    playing.cancel()
    await made.remove()


async def test_a_cordon_moves_the_ranges_and_without_another_place_they_stay(running, nodes):
    stands_by = running.pods._act

    async def only_where_there_is_a_node(pod, shard_range):
        if pod["spec"].get("nodeName"):
            await stands_by(pod, shard_range)

    running.pods._act = only_where_there_is_a_node
    await running.put_secret()
    await running.apply(shards={"count": 6, "perPod": 2}, pod=nodes.pod_spec())
    await running.ready(seconds=60)
    spent, (first, second) = len(running.pods.identifies), nodes.names
    assert set(await nodes.holders()) == {first, second}, "spread over both"
    most = 0

    async def moved():
        nonlocal most
        most = max(most, sum("deletionTimestamp" not in pod["metadata"] for pod in await running.list("pods")))
        return await nodes.holders() == [second] * 3

    await nodes.cordon(first)
    await running.until("all ranges on the other node", moved, 60)
    await running.until_condition("Progressing", "True", "Complete")
    await running.ready()
    assert most <= 4, "one range at a time"

    before = {one["metadata"]["name"]: one["status"]["holder"] for one in await running.list("sr")}
    await nodes.cordon(second)
    await running.until("a pod that waits for a node", lambda: _waiting(running), 20)
    await asyncio.sleep(3)
    assert {one["metadata"]["name"]: one["status"]["holder"] for one in await running.list("sr")} == before
    await running.ready()
    assert len(running.pods.identifies) == spent
    await nodes.cordon(second, on=False)
    await running.until("the waiting pod to go again", lambda: _settled(running, 3), 30)


async def _waiting(stage):
    return [pod for pod in await stage.list("pods") if not pod["spec"].get("nodeName")]


async def _settled(stage, number):
    return len(await stage.list("pods")) == number
