"""A change of the spec reaches the pods range by range, and costs no identify."""

import asyncio

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


async def test_a_revision_that_does_not_take_over_is_taken_back_and_stops_the_rollout(running):
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
    _, _, message = await running.until_condition("Progressing", "False", "HandOverFailed", seconds=60)
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


async def test_other_intents_wait_for_the_next_identify_of_the_range(running):
    await running.put_secret()
    await running.apply()
    await running.ready()
    spent = len(running.pods.identifies)
    await running.patch("dgw", "mybot", {"spec": {"intents": ["GUILDS"]}})
    _, _, message = await running.until_condition("Progressing", "False", "ReidentifyNotSupported", seconds=60)
    assert "2 ranges keep the intents" in message
    await running.ready()
    assert len(running.pods.identifies) == spent
