"""Sharding maths: ranges, buckets, waves and cold-start time. Source: Discord docs, *Gateway > Sharding*."""

from __future__ import annotations

from typing import NamedTuple, NewType

from shardwright_api.discord import IDENTIFY_WINDOW

ShardId = NewType("ShardId", int)
BucketId = NewType("BucketId", int)
Sequence = NewType("Sequence", int)


class Range(NamedTuple):
    """Shards `first` to `last`, both included, of `total`."""

    first: int
    last: int
    total: int

    def __len__(self) -> int:
        """Count the shards of the range."""
        return self.last - self.first + 1

    def shards(self) -> range:
        """List the shard ids of the range, ascending."""
        return range(self.first, self.last + 1)


def ranges(*, total: int, per_pod: int) -> list[Range]:
    """Cut `total` shards into consecutive ranges of at most `per_pod`, each shard in exactly one."""
    if total < 1 or per_pod < 1:
        raise ValueError(f"total and per_pod must be at least 1, not {total} and {per_pod}")
    return [Range(first, min(first + per_pod, total) - 1, total) for first in range(0, total, per_pod)]


def bucket(shard: int, max_concurrency: int) -> BucketId:
    """Give the identify bucket of a shard, Discord's `rate_limit_key` (Gateway > Sharding > Max Concurrency)."""
    return BucketId(shard % max_concurrency)


def wave(shard: int, max_concurrency: int) -> int:
    """Give the number of identify windows that must pass before this shard's turn in a cold start."""
    return shard // max_concurrency


def waves(total: int, max_concurrency: int) -> int:
    """Count the identify windows that a cold start of `total` shards takes."""
    return -(-total // max_concurrency)


def cold_start_seconds(total: int, max_concurrency: int) -> float:
    """Give the least seconds between the first and the last identify of a cold start."""
    return (waves(total, max_concurrency) - 1) * IDENTIFY_WINDOW


def shard_of_guild(guild_id: int, total: int) -> ShardId:
    """Give the shard that receives a guild's events (Gateway > Sharding formula)."""
    return ShardId((guild_id >> 22) % total)
