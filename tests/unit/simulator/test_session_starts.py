"""The daily budget and the buckets (Gateway > Session Start Limit, Gateway > Rate Limiting)."""

import pytest

from shardwright_api.discord import CloseCode, Opcode
from shardwright_simulator import BotConfig


def identify(world, shard, total=64):
    client = world.connect()
    client.identify(shard, total)
    return client


@pytest.mark.parametrize(("shards", "gap", "early"), [
    ((0, 1), 0.0, True),
    ((0, 1), 4.99, True),
    ((0, 1), 5.0, False),
])  # fmt: skip
def test_one_bucket_takes_an_identify_every_five_seconds(world, shards, gap, early):
    identify(world, shards[0])
    world.advance(gap)
    second = identify(world, shards[1])
    assert (not second.session) is early
    if early:
        assert second.messages[-1] == {"t": None, "s": None, "op": Opcode.INVALID_SESSION, "d": False}
        assert world.rules() == ["max-concurrency"]
        assert world.control.identifies()[-1].early == pytest.approx(5 - gap)


def test_shards_of_different_buckets_may_identify_together(make_world):
    world = make_world(bots=[BotConfig(max_concurrency=16)])
    clients = [identify(world, shard) for shard in range(17)]
    assert [bool(client.session) for client in clients] == [True] * 16 + [False]
    assert [i.bucket for i in world.control.identifies()] == [*range(16), 0]


def test_too_early_an_identify_spends_a_start_but_does_not_take_the_bucket(world):
    identify(world, 0)
    world.advance(3)
    identify(world, 1)
    assert world.bot.remaining == 998
    world.advance(2)
    assert identify(world, 1).session


def test_after_op_9_the_same_connection_may_identify_again(world):
    identify(world, 0)
    late = identify(world, 1)
    world.advance(5)
    late.identify(1, 64)
    assert late.session


def test_two_bots_do_not_share_buckets(make_world):
    world = make_world(bots=[BotConfig(id="1"), BotConfig(id="2")])
    assert identify(world, 0).session
    other = world.connect()
    other.identify(0, 64, token=world.control.bot("2").config.token)
    assert other.session


def test_an_overrun_ends_all_sessions_and_resets_the_token(make_world):
    world = make_world(bots=[BotConfig(remaining=2, max_concurrency=4)])
    first, second, third = (identify(world, shard) for shard in range(3))
    assert [client.closed for client in (first, second, third)] == [CloseCode.AUTHENTICATION_FAILED] * 3
    assert world.rules() == ["session-start-limit"]
    assert world.control.sessions() == []
    assert not world.control.bot().token_valid
    assert world.control.bot().overruns == 1
    for client, call in ((world.connect(), "identify"), (world.connect(), "resume")):
        client.identify() if call == "identify" else client.resume(first.session, 1)
        assert client.closed == CloseCode.AUTHENTICATION_FAILED


def test_a_new_token_lets_the_bot_in_again(make_world):
    world = make_world(bots=[BotConfig(remaining=0)])
    identify(world, 0)
    token = world.control.rotate_token()
    world.control.change_bot(remaining=10)
    assert token == world.bot.config.token
    assert identify(world, 0).session


def test_the_budget_is_full_again_after_its_day(make_world):
    world = make_world(bots=[BotConfig(remaining=1, reset_after=100)])
    identify(world, 0)
    assert world.bot.remaining == 0
    world.advance(100)
    assert identify(world, 0).session
    assert world.bot.remaining == 999


def test_resumes_spend_nothing(world):
    client = world.ready()
    before = world.bot.remaining
    client.lose()
    world.connect().resume(client.session, 3)
    assert world.bot.remaining == before
