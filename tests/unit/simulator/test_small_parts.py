"""Timers, ids and options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api.sharding import shard_of_guild
from shardwright_simulator import BotConfig, ConfigError, Options, make_token
from shardwright_simulator.ids import bot_id_of, guild_id, guild_index, shard_guild_indices
from shardwright_simulator.timers import Timers


def test_timers_run_in_order_and_only_when_due():
    timers, seen = Timers(), []
    for due in (3, 1, 2, 1):
        timers.at(due, lambda due=due: seen.append(due))
    timers.run(2)
    assert seen == [1, 1, 2]
    assert timers.next_due == 3


def test_a_cancelled_timer_does_not_run():
    timers, seen = Timers(), []
    timers.at(1, lambda: seen.append(1)).cancel()
    assert timers.next_due is None
    timers.run(5)
    assert seen == []


def test_a_timer_may_plan_the_next():
    timers, seen = Timers(), []
    timers.at(1, lambda: timers.at(2, lambda: seen.append(2)))
    timers.run(2)
    assert seen == [2]


@given(shard=st.integers(0, 63), total=st.integers(1, 64), guilds=st.integers(0, 500))
def test_every_guild_lies_on_the_shard_that_discord_computes(shard, total, guilds):
    shard %= total
    expected = [index for index in range(guilds) if shard_of_guild(guild_id(index), total) == shard]
    assert list(shard_guild_indices(shard=shard, total=total, guilds=guilds)) == expected


@given(st.integers(0, 10**6))
def test_a_guilds_number_can_be_read_from_its_id(index):
    assert guild_index(guild_id(index)) == index


def test_a_token_names_its_bot():
    assert bot_id_of(make_token("80351110224678912", 3)) == "80351110224678912"


@pytest.mark.parametrize("token", ["", "x", "....", "YWJj.x.y", "\xff.x.y"])
def test_what_is_no_token_names_nobody(token):
    assert bot_id_of(token) == ""


@pytest.mark.parametrize(("config", "shards", "total"), [
    ({"guilds": 0}, 1, 1_000),
    ({"guilds": 1_000}, 1, 1_000),
    ({"guilds": 1_001}, 2, 1_000),
    ({"guilds": 150_000, "large_multiple": 16}, 160, 2_000),
    ({"guilds": 1_000_000, "large_multiple": 16}, 1_008, 5_000),
    ({"guilds": 5, "shards": 7, "total": 9}, 7, 9),
])  # fmt: skip
def test_what_a_bot_leaves_out_is_filled_in(config, shards, total):
    bot = BotConfig(**config)
    assert (bot.shards, bot.total, bot.remaining) == (shards, total, total)


@pytest.mark.parametrize("wrong", [
    {"id": "x"}, {"max_concurrency": 0}, {"large_multiple": 0}, {"guilds": -1}, {"privileged_intents": ["NOPE"]},
])  # fmt: skip
def test_a_bot_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError):
        BotConfig(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"heartbeat_interval": 0}, {"latency": (2, 1)}, {"on_resume": "maybe"}, {"backfill_rate": 0}]
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        Options(**wrong)


def test_two_bots_of_one_id_or_token_are_refused(make_world):
    for second in (BotConfig(id="1", token="x"), BotConfig(id="2", token=make_token("1"))):
        with pytest.raises(ConfigError):
            make_world(bots=[BotConfig(id="1"), second])
