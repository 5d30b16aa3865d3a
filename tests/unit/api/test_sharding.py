"""Sharding maths: each shard in one range, buckets and waves as Discord counts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api import sharding
from shardwright_api.discord import (
    EVENT_NAMES,
    EVENTS_ALWAYS_SENT,
    EVENTS_BY_INTENT,
    PRIVILEGED_INTENTS,
    Intent,
    intent_bits,
    intent_names,
)

TOTALS = st.integers(1, 30_000)
PER_POD = st.integers(1, 2_000)
CONCURRENCY = st.integers(1, 200)


@given(total=TOTALS, per_pod=PER_POD)
def test_every_shard_stands_in_exactly_one_range(total, per_pod):
    ranges = sharding.ranges(total=total, per_pod=per_pod)
    assert [shard for each in ranges for shard in each.shards()] == list(range(total))
    assert sum(map(len, ranges)) == total


@given(total=TOTALS, per_pod=PER_POD)
def test_ranges_are_consecutive_and_full_but_for_the_last(total, per_pod):
    *full, last = sharding.ranges(total=total, per_pod=per_pod)
    assert all(len(each) == per_pod for each in full)
    assert 1 <= len(last) <= per_pod
    assert all(each.total == total for each in [*full, last])
    assert len(full) + 1 == -(-total // per_pod)


@pytest.mark.parametrize(("total", "per_pod"), [(0, 1), (1, 0), (-1, 16), (16, -1)])
def test_no_shards_make_no_ranges(total, per_pod):
    with pytest.raises(ValueError, match="at least 1"):
        sharding.ranges(total=total, per_pod=per_pod)


def test_twenty_thousand_shards_in_pods_of_sixteen():
    ranges = sharding.ranges(total=20_000, per_pod=16)
    assert len(ranges) == 1_250
    assert ranges[-1] == sharding.Range(19_984, 19_999, 20_000)


@given(total=TOTALS, concurrency=CONCURRENCY)
def test_each_wave_uses_each_bucket_at_most_once_and_waves_ascend(total, concurrency):
    shards = range(min(total, 3 * concurrency))
    places = [(sharding.wave(shard, concurrency), sharding.bucket(shard, concurrency)) for shard in shards]
    assert len(set(places)) == len(places)
    assert places == sorted(places)
    assert sharding.wave(total - 1, concurrency) == sharding.waves(total, concurrency) - 1


@pytest.mark.parametrize(
    ("total", "concurrency", "waves", "seconds"),
    [
        # Facts sheet section 9: N shards finish identifying after (ceil(N/mc)-1)*5 s.
        (1, 1, 1, 0),
        (4, 1, 4, 15),
        (100, 1, 100, 495),
        (16, 16, 1, 0),
        (32, 16, 2, 5),
        (100, 16, 7, 30),
        (1_024, 16, 64, 315),
        (17, 16, 2, 5),
    ],
)
def test_a_cold_start_takes_what_the_limit_allows(total, concurrency, waves, seconds):
    assert sharding.waves(total, concurrency) == waves
    assert sharding.cold_start_seconds(total, concurrency) == seconds


def test_pods_share_buckets_where_their_size_is_no_multiple_of_the_concurrency():
    """mc=16 with pods of 8: pods 0 and 1 use disjoint buckets, pod 2 shares those of pod 0."""
    zero, one, two = (
        {sharding.bucket(shard, 16) for shard in each.shards()} for each in sharding.ranges(total=24, per_pod=8)
    )
    assert zero == set(range(8))
    assert one == set(range(8, 16))
    assert two == zero


@given(shard=st.integers(0, 100_000))
def test_with_a_concurrency_of_one_everybody_shares_a_bucket(shard):
    assert sharding.bucket(shard, 1) == 0
    assert sharding.wave(shard, 1) == shard


@pytest.mark.parametrize(
    ("guild", "total", "shard"),
    [
        (197_038_439_483_310_086, 1, 0),
        (41_771_983_423_143_937, 4, (41_771_983_423_143_937 >> 22) % 4),
        ((7 << 22) | 0x3FFFFF, 8, 7),
        (8 << 22, 8, 0),
        (0, 16, 0),
        (2**63 - 1, 16, 15),
    ],
)
def test_a_guilds_shard_follows_discords_formula(guild, total, shard):
    """(guild_id >> 22) % num_shards: the low 22 bits do not count."""
    assert sharding.shard_of_guild(guild, total) == shard


@given(guild=st.integers(0, 2**64 - 1), total=TOTALS, factor=st.integers(1, 8))
def test_a_shard_splits_into_children_that_share_its_guilds(guild, total, factor):
    """Events of [i, n] are the union of [i + k*n, m*n]."""
    child = sharding.shard_of_guild(guild, total * factor)
    assert child % total == sharding.shard_of_guild(guild, total)


def test_the_intents_sum_up_as_the_documentation_says():
    """Facts sheet section 13."""
    every = sum(Intent)
    assert every == 53_608_447
    assert int(PRIVILEGED_INTENTS) == 33_026
    assert every - int(PRIVILEGED_INTENTS) == 53_575_421


def test_intents_are_added_by_name_and_read_back():
    assert intent_bits(["GUILDS", "GUILD_MESSAGES", "MESSAGE_CONTENT"]) == 1 | 512 | 32_768
    assert intent_bits(["GUILDS", "GUILDS"], extra_bits=1 << 30) == 1 | 1 << 30
    assert intent_bits([]) == 0
    assert intent_names(513 | 1 << 30) == ["GUILDS", "GUILD_MESSAGES"]
    assert intent_bits(intent_names(53_608_447)) == 53_608_447


def test_a_name_that_discord_does_not_have_is_refused():
    with pytest.raises(KeyError):
        intent_bits(["GUILDS", "GUILD_MESSAGE"])


def test_every_intent_but_message_content_gates_events():
    assert set(EVENTS_BY_INTENT) == set(Intent) - {Intent.MESSAGE_CONTENT}
    assert all(EVENTS_BY_INTENT.values())


def test_event_names_are_proper_and_known_once():
    assert all(name.isascii() and name.upper() == name and len(name) <= 64 for name in EVENT_NAMES)
    assert not any(EVENTS_ALWAYS_SENT & gated for gated in EVENTS_BY_INTENT.values())
    assert {"READY", "RESUMED", "INTERACTION_CREATE", "RATE_LIMITED", "CHANNEL_INFO"} <= EVENTS_ALWAYS_SENT
    assert "VOICE_CHANNEL_START_TIME_UPDATE" in EVENTS_BY_INTENT[Intent.GUILDS]
