"""How each kind of fault strikes: one small function a kind, looked up in `STRIKES`.

A function returns when the fault has been *felt* and is over (the network is back, the process was replaced): that all
is well again is for the caller to see.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from road import BOT, OPERATOR_NAMESPACE

from chaos import processes
from chaos.api import ApiFailed, Object
from chaos.kinds import Planned
from chaos.setting import FIRST_NODE, Setting, ready

RELEASE: Final = "shardwright"
REVISION: Final = "shardwright.dev/revision"
SECOND_NODE: Final = "node-2"
Strike = Callable[[Setting, Planned], Awaitable[None]]
Step = Callable[[Object, str, int], bool]


# --- pods ---------------------------------------------------------------------------------------------------------


async def shard_killed(setting: Setting, planned: Planned) -> None:
    """SIGKILL the process that holds the shard."""
    shards = setting.shards_with(planned.shard)
    assert processes.send(setting.shard_processes(planned.shard), signal.SIGKILL)
    await setting.resumed(shards)


async def pod_deleted(setting: Setting, planned: Planned) -> None:
    """Delete the pod that holds the shard."""
    shards = setting.shards_with(planned.shard)
    await setting.api("DELETE", setting.pod_path(setting.holder(planned.shard)))
    await setting.resumed(shards)


async def pod_evicted(setting: Setting, planned: Planned) -> None:
    """Evict the pod that holds the shard; the disruption budget may ask for patience."""
    shards, pod = setting.shards_with(planned.shard), setting.holder(planned.shard)
    meta = {"name": pod["metadata"]["name"], "namespace": setting.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    async with asyncio.timeout(60):
        while not await _evicted(setting, pod, body):
            await asyncio.sleep(0.5)
    await setting.resumed(shards)


async def _evicted(setting: Setting, pod: Object, body: Object) -> bool:
    try:
        await setting.api("POST", f"{setting.pod_path(pod)}/eviction", body)
    except ApiFailed as error:
        if error.status == 429:
            return False
        raise
    return True


async def clock_jump(setting: Setting, planned: Planned) -> None:
    """Let the process stand still for 12 s: when it goes on, all its clocks have jumped."""
    pids = setting.shard_processes(planned.shard)
    assert processes.send(pids, signal.SIGSTOP)
    try:
        await asyncio.sleep(12)
    finally:
        processes.send(pids, signal.SIGCONT)
    await setting.resumed(setting.shards_with(planned.shard))


# --- nodes --------------------------------------------------------------------------------------------------------


async def _inhabit_second_node(setting: Setting, planned: Planned) -> list[int]:
    """Bring a range to the second node if none is there; give the shards that are."""
    if not shards_there(setting):
        await asyncio.to_thread(setting.cluster.kubectl, "cordon", FIRST_NODE)
        await setting.api("DELETE", setting.pod_path(setting.holder(planned.shard)))
        await setting.views.until("a range on the second node", lambda: shards_there(setting), seconds=60)
        await asyncio.to_thread(setting.cluster.kubectl, "uncordon", FIRST_NODE)
        await setting.healed()
    return shards_there(setting)


def shards_there(setting: Setting) -> list[int]:
    """List the shards that are held on the second node."""
    there = {pod["metadata"]["uid"] for pod in setting.pods if pod["spec"].get("nodeName") == SECOND_NODE}
    ranges = [item for item in setting.ranges if item.get("status", {}).get("holder") in there]
    return [shard for item in ranges for shard in range(item["spec"]["first"], item["spec"]["last"] + 1)]


async def node_drained(setting: Setting, planned: Planned) -> None:
    """`kubectl drain`, with the disruption budget in force; then the node is let in again."""
    await _inhabit_second_node(setting, planned)
    kubectl = functools.partial(asyncio.to_thread, setting.cluster.kubectl)
    try:
        await kubectl("drain", SECOND_NODE, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
        await setting.views.until("no range on it", lambda: not shards_there(setting), seconds=60)
    finally:
        await kubectl("uncordon", SECOND_NODE)


async def node_lost(setting: Setting, planned: Planned) -> None:
    """Pull the second node's network cable until its ranges are served elsewhere."""
    await _inhabit_second_node(setting, planned)
    await asyncio.to_thread(setting.bed.second_node_link, up=False)
    try:
        await setting.views.until("its ranges elsewhere", lambda: not shards_there(setting), seconds=180)
    finally:
        await asyncio.to_thread(setting.bed.second_node_link, up=True)


# --- the operator -------------------------------------------------------------------------------------------------

STEPS: Final[dict[str, Step]] = {
    "launched": lambda item, _, before: item["spec"].get("incarnation", 0) > before,
    "standby": lambda item, old, _: any(uid != old for uid in item.get("status", {}).get("standby", {})),
    "active": lambda item, old, _: item["spec"].get("activePod") != old,
    "released": lambda item, old, _: item["spec"].get("activePod") != old and not _holder(item),
    "held": lambda item, old, _: _holder(item) not in {"", old},
}
"""When a step of a hand-over is seen in the ShardRange; arguments: the old holder, the incarnation before."""


def _holder(item: Object) -> str:
    return str(item.get("status", {}).get("holder", ""))


def _step_seen(step: str, name: str, old: str, before: int) -> Callable[[Object], bool]:
    if step == "retired":
        return lambda item: item["metadata"]["uid"] == old and "deletionTimestamp" in item["metadata"]
    return lambda item: item["metadata"]["name"] == name and STEPS[step](item, old, before)


async def operator_killed(setting: Setting, planned: Planned, *, step: str) -> None:
    """SIGKILL the operator at a step of a hand-over; it comes back, and the hand-over ends."""
    await _hand_over(setting, planned, step, setting.operator_processes(), signal.SIGKILL)


async def two_operators(setting: Setting, planned: Planned) -> None:
    """Run two operators by mistake; one stands still in the middle of a hand-over, and wakes when it is over."""
    await _scale_operator(setting, 2)
    pids = setting.operator_processes()[:1]
    try:
        await _hand_over(setting, planned, "standby", pids, signal.SIGSTOP)
    finally:
        processes.send(pids, signal.SIGCONT)
    await asyncio.sleep(3)  # what it wrote if it did not look again
    await _scale_operator(setting, 1)


async def _scale_operator(setting: Setting, replicas: int) -> None:
    scale = ["scale", f"deployment/{RELEASE}", "-n", OPERATOR_NAMESPACE, f"--replicas={replicas}"]
    await asyncio.to_thread(setting.cluster.kubectl, *scale)
    await setting.views.until("operators", lambda: len(list(filter(ready, setting.operators))) == replicas, seconds=60)


async def _hand_over(setting: Setting, planned: Planned, step: str, pids: list[int], what: signal.Signals) -> None:
    """Hand the shard's range over, and send a signal at a step; return when the old pod is on its way out."""
    item, pod = setting.range_of(planned.shard), setting.holder(planned.shard)
    old, struck = pod["metadata"]["uid"], asyncio.Event()
    seen = _step_seen(step, item["metadata"]["name"], old, item["spec"].get("incarnation", 0))
    assert pids

    def trap(changed: Object) -> None:
        if not struck.is_set() and seen(changed):
            processes.send(pids, what)
            struck.set()

    setting.traps.append(trap)
    await start_hand_over(setting, pod)
    async with asyncio.timeout(60):
        await struck.wait()
    if what is signal.SIGKILL:
        await new_operator(setting)
    await setting.resumed(setting.shards_with(planned.shard))
    await setting.views.until("the old pod goes", lambda: _gone(setting, old), seconds=90)


def _gone(setting: Setting, uid: str) -> bool:
    return not any(pod["metadata"]["uid"] == uid and "deletionTimestamp" not in pod["metadata"] for pod in setting.pods)


async def start_hand_over(setting: Setting, pod: Object) -> None:
    """Make one range be handed over: its pod no longer runs the wanted revision."""
    await setting.api.patch(setting.pod_path(pod), metadata={"annotations": {REVISION: "chaos"}})


async def new_operator(setting: Setting) -> None:
    """Let the killed operator come back in a new pod: the kubelet makes a container that died often wait long."""
    old = [pod["metadata"]["uid"] for pod in setting.operators]
    for pod in setting.operators:
        await setting.api("DELETE", f"{setting.pod_path(pod)}?gracePeriodSeconds=0")

    def replaced() -> bool:
        return any(ready(pod) and pod["metadata"]["uid"] not in old for pod in setting.operators)

    await setting.views.until("a new operator", replaced, seconds=60)


# --- the API server -----------------------------------------------------------------------------------------------


async def api_away(setting: Setting, planned: Planned, *, seconds: float = 30) -> None:
    """Take the API server away for 30 s."""
    await asyncio.to_thread(setting.bed.stop_api_server)
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(setting.bed.start_api_server)
    await asyncio.sleep(6)  # a heartbeat of every pod: what the views show is no longer from before


# --- the sink -----------------------------------------------------------------------------------------------------


async def nats_killed(setting: Setting, planned: Planned) -> None:
    """SIGKILL the NATS server; it is back after a moment."""
    setting.nats.kill()
    await asyncio.sleep(planned.offset)
    await setting.nats.start()


async def nats_away(setting: Setting, planned: Planned, *, seconds: float = 60) -> None:
    """Take the NATS server away for 60 s."""
    setting.nats.kill()
    await asyncio.sleep(seconds)
    await setting.nats.start()


async def nats_away_shard_killed(setting: Setting, planned: Planned) -> None:
    """SIGKILL a shard's process in the middle of an outage of NATS: what was spooled is not lost."""
    setting.nats.kill()
    await asyncio.sleep(30)
    assert processes.send(setting.shard_processes(planned.shard), signal.SIGKILL)
    await asyncio.sleep(30)
    await setting.nats.start()
    await setting.resumed(setting.shards_with(planned.shard))


async def nats_full(setting: Setting, planned: Planned) -> None:
    """Let the stream be full for 20 s (discard new: every publish is refused)."""
    await setting.stream.limit(full=True)
    await asyncio.sleep(20)
    await setting.stream.limit(full=False)


async def publish_refused(setting: Setting, planned: Planned) -> None:
    """Refuse publishes for an instant, again and again: some are refused between accepted ones."""
    for _ in range(4):
        await setting.stream.limit(full=True)
        await asyncio.sleep(0.05)
        await setting.stream.limit(full=False)
        await asyncio.sleep(0.2)


# --- Discord ------------------------------------------------------------------------------------------------------


async def _strike_shard(setting: Setting, planned: Planned, **fault: object) -> None:
    await setting.simulator.call("POST", "faults", shards=[planned.shard], **fault)


async def discord(setting: Setting, planned: Planned, **fault: object) -> None:
    """Strike the shard's connection; it resumes."""
    await _strike_shard(setting, planned, **fault)
    await setting.resumed([planned.shard])


async def op7_before_hello(setting: Setting, planned: Planned) -> None:
    """Answer the next connection of the shard with op 7 instead of HELLO."""
    await _strike_shard(setting, planned, action="reconnect", at="connect")
    await discord(setting, planned, action="abort")


async def op9_false(setting: Setting, planned: Planned) -> None:
    """End the shard's session."""
    await _strike_shard(setting, planned, action="invalid-session", resumable=False)
    await setting.identified([planned.shard])


async def replay_overrun(setting: Setting, planned: Planned) -> None:
    """SIGKILL a shard's process while Discord keeps so few events that no session of it can be resumed."""
    shards = setting.shards_with(planned.shard)
    await setting.simulator.call("PATCH", f"bots/{BOT}", replay_limit=5)
    try:
        assert processes.send(setting.shard_processes(planned.shard), signal.SIGKILL)
        await setting.identified(shards)
    finally:
        await setting.simulator.call("PATCH", f"bots/{BOT}", replay_limit=0)


# --- two at a time ------------------------------------------------------------------------------------------------


async def two_shards_killed(setting: Setting, planned: Planned) -> None:
    """SIGKILL two pods' processes."""
    other = Planned(**{**vars(planned), "shard": (planned.shard + 4) % 16})
    await asyncio.gather(shard_killed(setting, planned), shard_killed(setting, other))


async def shard_and_operator_killed(setting: Setting, planned: Planned) -> None:
    """SIGKILL a shard's process and the operator."""
    processes.send(setting.operator_processes(), signal.SIGKILL)
    await asyncio.gather(new_operator(setting), shard_killed(setting, planned))


def both(first: Strike, second: Strike) -> Strike:
    """Let two faults strike together."""

    async def strike(setting: Setting, planned: Planned) -> None:
        await asyncio.gather(first(setting, planned), second(setting, planned))

    return strike


async def shard_killed_api_away(setting: Setting, planned: Planned) -> None:
    """SIGKILL a shard's process while the API server is away."""
    shards, pids = setting.shards_with(planned.shard), setting.shard_processes(planned.shard)
    away = asyncio.create_task(api_away(setting, planned, seconds=15))
    await asyncio.sleep(3)
    processes.send(pids, signal.SIGKILL)
    await away
    await setting.resumed(shards)


async def nats_away_pod_deleted(setting: Setting, planned: Planned) -> None:
    """Take NATS away and the pod with what it has spooled: what is lost is told."""
    setting.nats.kill()
    await asyncio.sleep(10)
    pod = setting.holder(planned.shard)
    await setting.api("DELETE", f"{setting.pod_path(pod)}?gracePeriodSeconds=0")
    for pid in processes.of_pod(pod["metadata"]["uid"], "shardwright_shard"):
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(10)
    await setting.nats.start()


STRIKES: Final[dict[str, Strike]] = {
    "shard-killed": shard_killed,
    "pod-deleted": pod_deleted,
    "pod-evicted": pod_evicted,
    **{f"operator-killed-{step}": functools.partial(operator_killed, step=step) for step in (*STEPS, "retired")},
    "nats-killed": nats_killed,
    "nats-full": nats_full,
    "publish-refused": publish_refused,
    "half-open": functools.partial(discord, action="silent"),
    "cut-mid-frame": functools.partial(discord, action="cut", at="now"),
    "op7": functools.partial(discord, action="reconnect"),
    "op7-before-hello": op7_before_hello,
    "op9-true": functools.partial(discord, action="invalid-session", resumable=True),
    "op9-false": op9_false,
    "replay-overrun": replay_overrun,
    "acks-withheld": functools.partial(discord, action="stop-reading"),
    "clock-jump": clock_jump,
    "two-operators": two_operators,
    "node-drained": node_drained,
    "node-lost": node_lost,
    "api-away": api_away,
    "nats-away": nats_away,
    "nats-away-shard-killed": nats_away_shard_killed,
    "two-shards-killed": two_shards_killed,
    "shard-and-operator-killed": shard_and_operator_killed,
    "shard-and-nats-killed": both(shard_killed, nats_killed),
    "pod-deleted-nats-killed": both(pod_deleted, nats_killed),
    "shard-killed-api-away": shard_killed_api_away,
    "op7-nats-killed": both(functools.partial(discord, action="reconnect"), nats_killed),
    "nats-away-pod-deleted": nats_away_pod_deleted,
}
