"""Whether what Discord refused has changed since: pure rules on a parked range.

A parked range is noted (annotations of its ShardRange) with what it ran: the version of the Secret, the revision and
the generation of its gateway. Trying again is worth an identify only when one of these changed:

- 4004 (the token): the Secret has another version, and not the same content again.
- all other codes (intents, shard count): the spec of the gateway changed, in whatever way: people who switch an intent
  on in the Developer Portal touch the spec to say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardwright_api.discord import CloseCode
from shardwright_api.resources import ShardRange
from shardwright_operator.observed import Wanted
from shardwright_operator.sums import (
    ANNOTATION_PARKED_CODE,
    ANNOTATION_PARKED_GENERATION,
    ANNOTATION_PARKED_REVISION,
    ANNOTATION_PARKED_SECRET,
    RangeSummary,
)
from shardwright_operator.views import Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What is there now. `same_token`: the Secret holds a token that was refused before."""

    secret_version: str
    same_token: bool
    revision: str
    generation: int


def cause_now(wanted: Wanted, *, same_token: bool) -> Cause:
    """Take the present causes from what a gateway wants."""
    return Cause(
        secret_version=wanted.secret_version,
        same_token=same_token,
        revision=wanted.revision,
        generation=wanted.gateway.metadata.generation,
    )


def stands(shard_range: ShardRange, code: int, cause: Cause) -> bool:
    """Say whether what Discord refused with this code is unchanged."""
    noted = shard_range.metadata.annotations
    if ANNOTATION_PARKED_CODE not in noted:
        return True
    if code == CloseCode.AUTHENTICATION_FAILED:
        return noted.get(ANNOTATION_PARKED_SECRET) == cause.secret_version or cause.same_token
    same_generation = noted.get(ANNOTATION_PARKED_GENERATION) == str(cause.generation)
    return same_generation and noted.get(ANNOTATION_PARKED_REVISION) == cause.revision


def unaware(summary: RangeSummary, active: Pod | None, cause: Cause) -> bool:
    """Say whether a range is about to be given a pod that has read the present token, and should identify then."""
    return summary.sessions == 0 and active is not None and active.secret_version != cause.secret_version


def may_retry(shard_range: ShardRange, summary: RangeSummary, active: Pod | None, cause: Cause) -> bool:
    """Say whether a grant now would be used by a pod that knows of the change."""
    if summary.parked is None or active is None or not summary.holds or stands(shard_range, summary.parked.code, cause):
        return False
    if summary.parked.code == CloseCode.AUTHENTICATION_FAILED:
        return active.secret_version == cause.secret_version
    return active.revision == cause.revision == shard_range.spec.revision
