"""What was broken by hand, by a crash or by the network is mended, and nothing else is touched."""

import asyncio
import signal

import pytest
import yaml
from coordination.proxy import Proxy


def uids(objects):
    return {one["metadata"]["name"]: one["metadata"]["uid"] for one in objects}


@pytest.fixture
async def ready(running):
    await running.put_secret()
    await running.apply()
    await running.ready()
    return running


async def test_children_deleted_by_hand_come_back(ready):
    before = {}
    for kind in ("sa", "roles", "rolebindings", "pdb", "leases"):
        (before[kind],) = [one for one in await ready.list(kind) if one["metadata"]["name"] != "default"]
        await ready.delete(kind, before[kind]["metadata"]["name"])
    for kind, old in before.items():
        name = old["metadata"]["name"]
        new = await ready.until(f"{kind} {name}", lambda kind=kind, name=name: ready.get(kind, name), 45)
        assert new["metadata"]["uid"] != old["metadata"]["uid"]


async def test_a_pod_deleted_by_hand_is_replaced_at_once_and_no_identify_is_spent(ready):
    before = uids(await ready.list("pods"))
    spent = len(ready.pods.identifies)
    victim = min(before)
    await ready.delete("pods", victim)

    async def replaced():
        pods = uids(await ready.list("pods"))
        return len(pods) == 2 and victim not in pods

    await ready.until("a new pod", replaced)
    await ready.ready()
    (kept,) = set(before) - {victim}
    assert uids(await ready.list("pods"))[kept] == before[kept]
    assert len(ready.pods.identifies) == spent


async def test_a_shard_range_deleted_by_hand_comes_back_with_a_new_pod(ready):
    before = uids(await ready.list("sr"))
    await ready.delete("sr", "mybot-4-0-1")

    async def back():
        return uids(await ready.list("sr")).get("mybot-4-0-1") not in {None, before["mybot-4-0-1"]}

    await ready.until("the ShardRange", back)
    await ready.until_condition("Ready", "False", seconds=5)
    await ready.ready()
    assert uids(await ready.list("sr"))["mybot-4-2-3"] == before["mybot-4-2-3"]


async def test_ready_turns_false_within_seconds_of_a_lost_session_and_true_again(ready):
    ready.pods.hold_back = lambda pod, shard_range: True
    for shard in (0, 1):
        ready.pods.drop["mybot-4-0-1", shard] = True
    _, _, message = await ready.until_condition("Ready", "False", "Degraded", seconds=5)
    assert "2 of 4 shards are ready" in message
    ready.pods.hold_back = lambda pod, shard_range: False
    await ready.ready(seconds=60)


async def test_a_killed_operator_finds_everything_as_it_was(ready):
    async def picture():
        gateway = await ready.get("dgw", "mybot")
        since = {one["type"]: one["lastTransitionTime"] for one in gateway["status"]["conditions"]}
        ranges = {one["metadata"]["name"]: one["spec"]["epoch"] for one in await ready.list("sr")}
        return uids(await ready.list("pods")), ranges, since

    await asyncio.sleep(2)
    before = await picture()
    await ready.operator.end(signal.SIGKILL)
    await asyncio.sleep(2)
    await ready.operator.start()

    async def in_sync():
        return (await ready.operator.get("/readyz"))[0] == 200

    await ready.until("the operator's caches", in_sync)
    for _ in range(20):
        assert await picture() == before
        await asyncio.sleep(0.5)


async def test_a_killed_operator_finishes_what_was_half_made(running):
    await running.put_secret()
    await running.apply(shards={"count": 12, "perPod": 1})

    async def some():
        return await running.list("sr")

    await running.until("the first range", some)
    await running.operator.end(signal.SIGKILL)
    await running.operator.start()
    await running.ready(seconds=60)
    assert len(await running.list("sr")) == 12
    assert len(await running.list("pods")) == 12


async def test_a_pod_lost_while_the_operator_is_away_is_replaced_when_it_comes_back(ready):
    await ready.operator.end(signal.SIGKILL)
    victim = min(uids(await ready.list("pods")))
    await ready.delete("pods", victim)
    await asyncio.sleep(2)
    assert len(await ready.list("pods")) == 1
    await ready.operator.start()

    async def replaced():
        return len(await ready.list("pods")) == 2

    await ready.until("the successor", replaced)
    await ready.ready()


async def test_a_holder_that_vanished_silently_is_fenced_and_its_successor_takes_over(ready):
    (pod,) = [one for one in await ready.list("pods") if "mybot-4-0-1" in one["metadata"]["name"]]
    spent = len(ready.pods.identifies)
    ready.pods.mute.add(pod["metadata"]["uid"])
    await ready.delete("pods", pod["metadata"]["name"], gracePeriodSeconds=0)

    async def fenced():
        return (await ready.get("sr", "mybot-4-0-1"))["spec"].get("fencedHolder") == pod["metadata"]["uid"]

    started = asyncio.get_running_loop().time()
    await ready.until("the fence", fenced, 40)
    assert asyncio.get_running_loop().time() - started > 8
    await ready.ready()
    assert len(ready.pods.identifies) == spent
    reasons = {one["reason"] for one in await ready.list("events")}
    assert "HolderFenced" in reasons


async def test_deleted_and_applied_again_at_once_it_comes_up_anew_in_the_same_buckets(ready):
    leases, ranges = uids(await ready.list("leases")), uids(await ready.list("sr"))
    await ready.delete("dgw", "mybot", propagationPolicy="Background")
    await ready.apply()

    async def anew():
        found = uids(await ready.list("sr"))
        return len(found) == 2 and not set(found.values()) & set(ranges.values())

    await ready.until("new ranges", anew, 40)
    await ready.ready()
    assert uids(await ready.list("leases")) == leases


async def test_a_deleted_gateway_takes_everything_along_but_the_leases(ready):
    await ready.delete("dgw", "mybot", propagationPolicy="Background")

    async def gone():
        kinds = ("sr", "pods", "pdb", "roles", "rolebindings")
        return not [one for kind in kinds for one in await ready.list(kind)]

    await ready.until("nothing left", gone, 60)
    assert len(await ready.list("leases")) == 1


@pytest.mark.timeout(180)
async def test_thirty_seconds_without_the_api_server_change_nothing(stage):
    host, _, port = stage.api.server.removeprefix("https://").partition(":")
    proxy = Proxy(host, int(port))
    await proxy.start()
    loaded = yaml.safe_load(stage.kubeconfig.read_text())
    loaded["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    behind = stage.folder / "behind-proxy.kubeconfig"
    behind.write_text(yaml.safe_dump(loaded))
    stage.operator.kubeconfig = behind
    await stage.operator.start()
    await stage.put_secret()
    await stage.apply()
    await stage.ready()
    before = uids(await stage.list("pods"))
    process = stage.operator.process

    proxy.cut()
    await asyncio.sleep(30)
    await proxy.start()
    await asyncio.sleep(3)

    ranges = await stage.list("sr")
    assert process.returncode is None
    assert uids(await stage.list("pods")) == before
    assert not any(one["spec"].get("fencedHolder") for one in ranges)
    assert (await stage.operator.get("/healthz"))[0] == 200
    victim = min(before)
    await stage.delete("pods", victim)

    async def replaced():
        pods = uids(await stage.list("pods"))
        return len(pods) == 2 and victim not in pods

    await stage.until("the operator at work again", replaced, 30)
    await stage.ready()
    await proxy.close()
