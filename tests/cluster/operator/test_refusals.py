"""What Discord, the Secret or another gateway refuses: parked with a reason, mended by what mends it, never retried."""

import asyncio

from cluster.operator.stage import BOT, OTHER_TOKEN, TOKEN


async def test_a_missing_secret_is_named_and_heals(running):
    await running.apply()
    _, _, message = await running.until_condition("TokenValid", "False", "SecretNotFound")
    assert "mybot-token" in message
    assert await running.until_condition("Ready", "False", "TokenInvalid")
    assert not await running.list("pods")
    await running.put_secret(key="other")
    await running.until_condition("TokenValid", "False", "SecretKeyNotFound", seconds=10)
    await running.put_secret("nonsense")
    await running.until_condition("TokenValid", "False", "TokenMalformed", seconds=10)
    assert not running.discord.questions
    assert not await running.list("pods")
    await running.put_secret()
    await running.ready()


async def test_a_rejected_token_is_asked_with_once_and_makes_nothing(running):
    running.discord.tokens = {OTHER_TOKEN}
    await running.put_secret()
    await running.apply()
    await running.until_condition("TokenValid", "False", "TokenRejected")
    await asyncio.sleep(8)
    assert [token for token, _ in running.discord.questions] == [TOKEN]
    assert not await running.list("pods")
    assert not await running.list("sr")
    await running.put_secret(OTHER_TOKEN)
    await running.ready()
    assert TOKEN not in running.operator.log.read_text()


async def test_a_token_that_the_gateway_refuses_costs_one_identify_until_the_secret_changes(running):
    bad = {"version": None}

    def refuse(pod, _):
        version = pod["metadata"]["annotations"]["shardwright.dev/secret-version"]
        bad["version"] = bad["version"] or version
        return 4004 if version == bad["version"] else None

    running.pods.refuse = refuse
    await running.put_secret()
    await running.apply()
    await running.until_condition("TokenValid", "False", "AuthenticationFailed")
    await asyncio.sleep(3)
    assert len(running.pods.identifies) == 1
    ranges = await running.list("sr")
    assert all(one["spec"]["hold"] for one in ranges)
    await running.operator.end()
    await running.operator.start()
    await asyncio.sleep(6)
    assert len(running.pods.identifies) == 1, "an operator that comes up anew must not try again"
    await running.put_secret(OTHER_TOKEN)
    await running.ready(seconds=60)
    assert len(running.pods.identifies) == 5


async def test_disallowed_intents_are_named_and_mended_by_the_spec(running):
    running.pods.refuse = lambda _, shard_range: 4014 if shard_range["spec"]["config"]["intents"] & 2 else None
    await running.put_secret()
    await running.apply(intents=["GUILDS", "GUILD_MEMBERS"])
    _, _, message = await running.until_condition("IntentsAllowed", "False", "IntentsDisallowed")
    assert "GUILD_MEMBERS" in message
    assert "Developer Portal" in message
    await running.until_condition("Ready", "False", "IntentsDisallowed")
    await asyncio.sleep(3)
    assert len(running.pods.identifies) == 1
    await running.patch("dgw", "mybot", {"spec": {"intents": ["GUILDS"]}})
    await running.ready(seconds=60)
    assert len(running.pods.identifies) == 5


async def test_intents_switched_on_in_the_portal_are_tried_again_when_the_spec_is_touched(running):
    allowed = []
    running.pods.refuse = lambda *_: None if allowed else 4014
    await running.put_secret()
    await running.apply(intents=["GUILDS", "GUILD_MEMBERS"])
    await running.until_condition("IntentsAllowed", "False", "IntentsDisallowed")
    allowed.append(True)
    await asyncio.sleep(3)
    assert len(running.pods.identifies) == 1
    await running.patch("dgw", "mybot", {"spec": {"identify": {"reservePercent": 11}}})
    await running.ready(seconds=60)


async def test_a_wrong_shard_count_is_named(running):
    running.pods.refuse = lambda *_: 4010
    await running.put_secret()
    await running.apply()
    _, _, message = await running.until_condition("Ready", "False", "InvalidShard")
    assert "4010" in message
    assert "spec.shards.count" in message


async def test_a_sink_that_is_away_is_named_with_the_pods_words(running):
    running.pods.sink_trouble = "stream DISCORD does not exist"
    await running.put_secret()
    await running.apply()
    _, _, message = await running.until_condition("SinksAvailable", "False", "SinkUnavailable")
    assert "stream DISCORD does not exist" in message
    await running.until_condition("Ready", "False", "SinkUnavailable")
    running.pods.sink_trouble = ""
    await running.ready()


async def test_a_bot_belongs_to_one_namespace(running):
    here, there = running.namespaces
    await running.put_secret()
    await running.apply()
    await running.ready()
    await running.put_secret(namespace=there)
    await running.apply(namespace=there)
    _, _, message = await running.until_condition("Ready", "False", "BotInUse", namespace=there)
    assert here in message
    assert BOT in message
    await asyncio.sleep(2)
    for kind in ("sr", "pods", "leases", "pdb"):
        assert not await running.list(kind, there)
    await running.operator.end()
    await running.operator.start()
    await asyncio.sleep(5)
    assert not await running.list("sr", there)
    await running.delete("dgw", "mybot", propagationPolicy="Background")

    async def begun():
        return await running.list("sr", there)

    await running.until("the other's turn", begun)


async def test_a_new_layout_is_refused_and_the_old_one_runs_on(running):
    await running.put_secret()
    await running.apply()
    await running.ready()
    await running.patch("dgw", "mybot", {"spec": {"shards": {"count": 8}}})
    _, _, message = await running.until_condition("Degraded", "True", "ReshardingNotSupported")
    assert "spec.shards.count is 8, the running layout has 4 shards" in message
    assert (await running.condition("Ready"))[0] == "True"
    await asyncio.sleep(2)
    assert {one["metadata"]["name"] for one in await running.list("sr")} == {"mybot-4-0-1", "mybot-4-2-3"}
    await running.patch("dgw", "mybot", {"spec": {"shards": {"count": 4}}})
    await running.until_condition("Degraded", "False")
