"""From apply to Ready on a real API server."""

import asyncio
import itertools


async def test_a_gateway_comes_up_with_one_canary_and_all_its_children(running):
    await running.put_secret()
    await running.apply()
    await running.ready()

    names = {one["metadata"]["name"] for one in await running.list("sr")}
    assert names == {"mybot-4-0-1", "mybot-4-2-3"}
    assert len(await running.list("pods")) == 2
    leases = await running.list("leases")
    assert [one["metadata"]["name"] for one in leases] == ["1000000000000000001-identify-0"]
    assert not leases[0]["metadata"].get("ownerReferences")
    (budget,) = await running.list("pdb")
    assert budget["spec"]["minAvailable"] == 1
    identified = [shard for _, _, shard in running.pods.identifies]
    assert identified[0] == 0
    assert sorted(identified) == [0, 1, 2, 3]

    gateway = await running.get("dgw", "mybot")
    assert not gateway["metadata"].get("finalizers")
    assert not gateway["metadata"].get("annotations")
    status = gateway["status"]
    assert status["phase"] == "Ready"
    assert status["observedGeneration"] == gateway["metadata"]["generation"]
    assert status["plan"] == {
        "total": 4, "perPod": 2, "ranges": 2, "maxConcurrency": 1, "buckets": 1, "waves": 4, "coldStartSeconds": 15,
    }  # fmt: skip
    assert status["shards"] == {"total": 4, "ready": 4, "byState": {"ready": 4}}
    assert all(one["observedGeneration"] == status["observedGeneration"] for one in status["conditions"])


async def test_no_second_identify_is_granted_before_the_first_shard_is_ready(running):
    running.pods.hold_back = lambda pod, shard_range: True
    await running.put_secret()
    await running.apply()

    async def granted():
        return sum(one["spec"].get("identifyGrant", 0) for one in await running.list("sr"))

    await running.until("a first grant", granted)
    for _ in range(20):
        ranges = {one["metadata"]["name"]: one["spec"].get("identifyGrant", 0) for one in await running.list("sr")}
        assert ranges == {"mybot-4-0-1": 1, "mybot-4-2-3": 0}
        await asyncio.sleep(0.2)
    running.pods.hold_back = lambda pod, shard_range: False
    await running.ready()


async def test_each_range_keeps_a_standing_grant_and_a_dropped_session_is_replaced(running):
    await running.put_secret()
    await running.apply()
    await running.ready()

    async def standing():
        ranges = await running.list("sr")
        return all(one["spec"]["identifyGrant"] == one["status"]["identifiesSpent"] + 1 for one in ranges)

    await running.until("standing grants", standing, 45)
    await running.operator.end()
    running.pods.drop["mybot-4-0-1", 1] = True
    await running.until("the session's successor", lambda: _identified(running, 5))
    assert running.pods.identifies[-1][1:] == ("mybot-4-0-1", 1)


async def _identified(stage, number):
    return len(stage.pods.identifies) >= number


async def test_a_small_budget_is_kept_in_reserve_and_named(running):
    running.discord.remaining = 102
    await running.put_secret()
    await running.apply()
    _, _, message = await running.until_condition("IdentifyBudget", "False", "BudgetExhausted")
    assert "100 of 1000 are held in reserve" in message
    assert "full again at 20" in message
    assert await running.until_condition("Ready", "False", "WaitingForBudget")
    await asyncio.sleep(3)
    assert running.discord.remaining == 100
    assert len(running.pods.identifies) == 2


async def test_a_shard_that_must_identify_and_crash_loops_spends_no_more_than_allowed(running):
    running.discord.total, running.discord.remaining = 10, 3
    await running.put_secret()
    await running.apply(shards={"count": 1, "perPod": 1}, identify={"reservePercent": 20})
    await running.until("its first session", lambda: _identified(running, 1))

    async def lose_every_session():
        while True:
            running.pods.drop["mybot-1-0-0", 0] = True
            await asyncio.sleep(0.3)

    losing = asyncio.create_task(lose_every_session())
    try:
        _, _, message = await running.until_condition("IdentifyBudget", "False", "BudgetExhausted")
        assert "1 more identifies are needed than may be granted today: 2 of 10 are held in reserve" in message
        await running.until_condition("Ready", "False", "WaitingForBudget")
        await asyncio.sleep(3)
    finally:
        losing.cancel()
    assert (len(running.pods.identifies), running.discord.remaining) == (1, 2)


async def test_an_identify_on_hold_waits_and_comes_when_the_hold_ends(running):
    await running.put_secret()
    await running.apply(identify={"hold": True})
    await running.until_condition("Ready", "False", "OnHold")
    assert not running.pods.identifies
    assert all(one["spec"]["hold"] for one in await running.list("sr"))
    await running.patch("dgw", "mybot", {"spec": {"identify": {"hold": False}}})
    await running.ready()


async def test_a_count_left_out_is_what_discord_recommends(running):
    running.discord.shards = 3
    await running.put_secret()
    await running.apply(shards={"perPod": 2})
    await running.ready()
    names = {one["metadata"]["name"] for one in await running.list("sr")}
    assert names == {"mybot-3-0-1", "mybot-3-2-2"}


async def test_discord_is_asked_with_a_user_agent_and_waited_for(running):
    running.discord.status, running.discord.retry_after = 429, 3
    await running.put_secret()
    await running.apply()
    await running.until_condition("Ready", "False", "DiscordUnreachable")
    running.discord.status = 200
    await running.ready()
    assert running.discord.asked_at[1] - running.discord.asked_at[0] >= 3
    assert all(agent.startswith("DiscordBot (") for _, agent in running.discord.questions)


async def test_two_gateways_of_one_bot_share_buckets_and_budget(running):
    running.discord.max_concurrency = 2
    await running.put_secret()
    await running.apply()
    await running.apply("second", intents=["GUILDS"], shards={"count": 2, "perPod": 1})
    await running.ready()
    await running.ready("second")
    assert len(await running.list("leases")) == 2
    first_of_each = {}
    for _, name, shard in running.pods.identifies:
        first_of_each.setdefault(name.split("-")[0], shard)
    assert first_of_each == {"mybot": 0, "second": 0}
    assert running.discord.remaining == 1000 - 6


async def test_the_operator_serves_probes_and_metrics(running):
    async def in_sync():
        status, _ = await running.operator.get("/readyz")
        return status == 200

    await running.until("readiness", in_sync)
    status, _ = await running.operator.get("/healthz")
    _, text = await running.operator.get("/metrics")
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert status == 200
    assert "discord_gateway_operator_queue_depth" in names
    ours = itertools.filterfalse(lambda name: name.startswith(("python_", "process_")), names)
    assert all(name.startswith("discord_gateway_operator_") for name in ours)
