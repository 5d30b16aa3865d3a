"""A change of the spec reaches the pods range by range, and costs no identify."""

import asyncio

import pytest

REVISION = "shardwright.dev/revision"


async def running_revisions(stage):
    """Give what the pods run that are not on their way out."""
    pods = [pod["metadata"] for pod in await stage.list("pods")]
    return [pod["annotations"][REVISION] for pod in pods if "deletionTimestamp" not in pod]


async def test_a_change_of_the_pods_is_handed_over_range_by_range(running):
    await running.put_secret()
    await running.apply(shards={"count": 6, "perPod": 2})
    await running.ready()
    spent = len(running.pods.identifies)
    (old,) = set(await running_revisions(running))
    await running.patch("dgw", "mybot", {"spec": {"pod": {"labels": {"team": "discord"}}}})
    most = 0

    async def done():
        nonlocal most
        revisions = await running_revisions(running)
        most = max(most, len(revisions))
        return len(revisions) == 3 and old not in revisions

    await running.until("all pods on the new revision", done, 60)
    assert most <= 4, "one range at a time"
    await running.until_condition("Progressing", "True", "Complete")
    await running.ready()
    assert len(running.pods.identifies) == spent
    staying = [pod["metadata"] for pod in await running.list("pods") if "deletionTimestamp" not in pod["metadata"]]
    assert [metadata["labels"].get("team") for metadata in staying] == ["discord"] * 3


@pytest.mark.timeout(300)
async def test_a_revision_that_twice_does_not_take_over_is_taken_back_and_stops_the_rollout(running):
    await running.put_secret()
    await running.apply()
    await running.ready()
    (old,) = set(await running_revisions(running))
    spent = len(running.pods.identifies)
    act = running.pods._act

    async def bad_pods_only_stand_by(pod, shard_range):
        bad = pod["metadata"]["annotations"][REVISION] != old
        if not (bad and shard_range["spec"].get("activePod") == pod["metadata"]["uid"]):
            await act(pod, shard_range)

    running.pods._act = bad_pods_only_stand_by
    await running.patch("dgw", "mybot", {"spec": {"pod": {"labels": {"team": "discord"}}}})
    _, _, message = await running.until_condition("Progressing", "False", "HandOverFailed", seconds=180)
    assert "mybot-4-0-1" in message
    await running.ready()
    await asyncio.sleep(3)
    assert await running_revisions(running) == [old, old]
    assert len(running.pods.identifies) == spent
    await running.patch("dgw", "mybot", {"spec": {"pod": {"labels": None}}})
    await running.until_condition("Progressing", "True", "Complete")


async def test_a_live_change_moves_no_pod(running):
    await running.put_secret()
    await running.apply()
    await running.ready()
    before = {pod["metadata"]["uid"] for pod in await running.list("pods")}
    await running.patch("dgw", "mybot", {"spec": {"identify": {"reservePercent": 20}}})
    await running.put_secret("MTAwMDAwMDAwMDAwMDAwMDAwMQ.abc.other")
    await asyncio.sleep(5)
    assert {pod["metadata"]["uid"] for pod in await running.list("pods")} == before
    await running.ready()


async def test_a_restart_by_annotation_rolls_all_ranges_to_the_present_image(running):
    await running.put_secret()
    await running.apply(pod={"imagePullPolicy": "Never"})
    await running.ready()
    before = {pod["metadata"]["uid"] for pod in await running.list("pods")}
    pinned, spent = (await running.get("dgw", "mybot"))["status"]["image"], len(running.pods.identifies)

    await running.operator.end()
    await running.operator.start("--shard-image", "none.example/none:2")
    await running.annotate(other="x")
    await running.until_condition("Progressing", "True", "Complete")
    assert {pod["metadata"]["uid"] for pod in await running.list("pods")} == before, "another operator moves no pod"
    assert (await running.get("dgw", "mybot"))["status"]["image"] == pinned

    await running.annotate(restart_at="now")

    async def rolled():
        staying = [pod for pod in await running.list("pods") if "deletionTimestamp" not in pod["metadata"]]
        images = [pod["spec"]["containers"][0]["image"] for pod in staying]
        fresh = not before & {pod["metadata"]["uid"] for pod in staying}
        return fresh and images == ["none.example/none:2"] * 2

    await running.until("all pods made anew", rolled, 60)
    await running.until_condition("Progressing", "True", "Complete")
    await running.ready()
    assert (await running.get("dgw", "mybot"))["status"]["image"] == "none.example/none:2"
    assert len(running.pods.identifies) == spent


async def test_a_paused_gateway_is_left_alone_and_goes_on_when_the_pause_ends(running):
    await running.put_secret()
    await running.apply()
    await running.ready()
    await running.patch("dgw", "mybot", {"spec": {"paused": True}})
    await running.until_condition("Progressing", "False", "Paused")
    ranges = {one["metadata"]["name"]: one["spec"] for one in await running.list("sr")}
    victim = min(pod["metadata"]["name"] for pod in await running.list("pods"))
    await running.delete("pods", victim)
    await running.patch("dgw", "mybot", {"spec": {"pod": {"labels": {"team": "discord"}}}})
    await running.until_condition("Ready", "False", "Degraded")
    await asyncio.sleep(2)
    assert {one["metadata"]["name"]: one["spec"] for one in await running.list("sr")} == ranges
    assert victim not in {pod["metadata"]["name"] for pod in await running.list("pods")}
    spent = len(running.pods.identifies)
    await running.patch("dgw", "mybot", {"spec": {"paused": False}})
    await running.until_condition("Progressing", "True", "Complete", seconds=60)
    await running.ready()
    assert len(running.pods.identifies) == spent


async def test_a_claim_per_range_is_made_before_its_pod_and_goes_with_its_range(running):
    await running.put_secret()
    await running.apply(buffer={"volumeClaim": {"size": "64Mi", "storageClassName": "none"}})
    await running.ready()
    claims = {one["metadata"]["name"]: one for one in await running.list("claims")}
    assert set(claims) == {"mybot-4-0-1-spool", "mybot-4-2-3-spool"}
    for pod in await running.list("pods"):
        (state,) = [one for one in pod["spec"]["volumes"] if one["name"] == "state"]
        assert state["persistentVolumeClaim"]["claimName"] in claims
    ranges = await running.list("sr")
    assert {one["spec"]["config"]["bufferDisk"] for one in ranges} == {64 * 1024**2}
    owners = {one["metadata"]["ownerReferences"][0]["uid"] for one in claims.values()}
    assert owners == {one["metadata"]["uid"] for one in ranges}
