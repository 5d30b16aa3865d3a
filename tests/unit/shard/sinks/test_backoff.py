"""Pauses between attempts."""

from __future__ import annotations

from itertools import islice
from random import Random

from shardwright_shard.sinks.backoff import backoff


def test_pauses_double_up_to_the_limit_with_jitter_below():
    pauses = list(islice(backoff(Random(1), first=0.1, limit=5.0), 12))
    bounds = [min(5.0, 0.1 * 2**index) for index in range(12)]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))


def test_two_pods_do_not_pause_alike():
    assert list(islice(backoff(Random(1)), 5)) != list(islice(backoff(Random(2)), 5))
