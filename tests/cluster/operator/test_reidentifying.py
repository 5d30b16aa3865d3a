"""Other intents reach running sessions by renewals: forecast, one canary, range by range, the old ones going on."""

import asyncio

import pytest


@pytest.fixture
async def ready(running):
    await running.put_secret()
    await running.apply()
    await running.ready()
    return running


async def sessions(stage):
    """Give session and intents of each shard."""
    rows = [row for one in await stage.list("sr") for row in one["status"]["shards"]]
    return {row["id"]: (row["session"], row["intents"]) for row in rows}


async def test_other_intents_renew_each_session_once_range_by_range(ready):
    before, spent = await sessions(ready), len(ready.pods.identifies)
    held = True
    ready.pods.hold_back = lambda pod, shard_range: held
    await ready.patch("dgw", "mybot", {"spec": {"intents": ["GUILDS"]}})

    async def first():
        specs = [one["spec"] for one in await ready.list("sr")]
        return [spec["config"]["intents"] for spec in specs] == [1, 513] and specs

    await ready.until("the first range's turn", first)
    _, _, message = await ready.until_condition("Progressing", "True", "RollingOut")
    await ready.until("the sessions, resumed", lambda: _is(ready, before))
    grants = [one["spec"]["identifyGrant"] - one["status"]["identifiesSpent"] for one in await ready.list("sr")]
    assert grants[0] <= 1, "one canary"
    assert (await ready.condition("Ready"))[0] == "True"
    held = False
    await ready.until_condition("Progressing", "True", "Complete", seconds=90)
    identified = [shard for _, _, shard in ready.pods.identifies[spent:]]
    assert identified == [0, 1, 2, 3], message
    after = await sessions(ready)
    assert {intents for _, intents in after.values()} == {1}
    assert not {one for one, _ in after.values()} & {one for one, _ in before.values()}
    await ready.ready()


async def _is(stage, before):
    return await sessions(stage) == before


async def test_a_rollout_that_the_budget_does_not_cover_does_not_begin(ready):
    before, spent = await sessions(ready), len(ready.pods.identifies)
    await ready.operator.end()
    ready.discord.remaining = 103
    await ready.operator.start()
    await ready.patch("dgw", "mybot", {"spec": {"intents": ["GUILDS"]}})
    _, _, message = await ready.until_condition("Progressing", "False", "WaitingForBudget")
    assert "take 4 identifies, and 3 may be granted" in message
    assert "full again at 20" in message
    await ready.until_condition("IdentifyBudget", "False")
    await asyncio.sleep(2)
    assert await sessions(ready) == before
    assert len(ready.pods.identifies) == spent
    assert (await ready.condition("Ready"))[0] == "True"
    await ready.operator.end()
    ready.discord.remaining = 104
    await ready.operator.start()
    await ready.until_condition("Progressing", "True", "Complete", seconds=90)
    assert len(ready.pods.identifies) == spent + 4


async def test_intents_that_discord_refuses_cost_one_identify_and_end_no_session(ready):
    before, spent = await sessions(ready), len(ready.pods.identifies)
    ready.pods.refuse = lambda *_: 4014
    await ready.patch("dgw", "mybot", {"spec": {"intents": ["GUILDS", "GUILD_MEMBERS"]}})
    _, _, message = await ready.until_condition("IntentsAllowed", "False", "IntentsDisallowed", seconds=60)
    assert "GUILD_MEMBERS" in message
    await ready.until_condition("Progressing", "False", "RenewalRefused")
    await asyncio.sleep(3)
    assert len(ready.pods.identifies) == spent + 1
    assert await sessions(ready) == before
    assert (await ready.condition("Ready"))[0] == "True"
    await ready.operator.end()
    await ready.operator.start()
    await asyncio.sleep(5)
    assert len(ready.pods.identifies) == spent + 1, "an operator that comes up anew must not try again"
    ready.pods.refuse = lambda *_: None
    await ready.patch("dgw", "mybot", {"spec": {"intents": ["GUILDS", "GUILD_MESSAGES"]}})
    await ready.until_condition("Progressing", "True", "Complete", seconds=60)
    assert await sessions(ready) == before
    assert len(ready.pods.identifies) == spent + 1
