"""What can go wrong, how often it is drawn, and what is expected then; and the plan that a seed makes of it. Pure.

A plan is an endless list made in blocks. A block holds each kind as often as its weight says, shuffled by the seed and
the block's number: every kind comes in every block, and a longer plan begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from typing import Final

SHARDS: Final = 16
MODES: Final = ("cut", "keep")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of fault. `weight`: how many of a block; the cheaper the more. `short`: part of `make test`."""

    name: str
    weight: int
    short: bool = True
    identifies: int = 0
    """How many the fault makes necessary: Discord ended the session."""
    gap: bool = False
    """Whether an event may be missing that lies inside a told gap."""
    fencing: bool = False
    """Whether a holder dies without a word, so that it may be fenced."""
    rules: frozenset[str] = frozenset()
    """Rules of Discord's that the fault itself breaks."""
    faults: int = 1


_HEARTBEAT: Final = frozenset({"heartbeat-missing"})
HAND_OVER_STEPS: Final = ("launched", "standby", "active", "released", "held", "retired")

SINGLE: Final[tuple[Kind, ...]] = (
    Kind(name="shard-killed", weight=6),
    Kind(name="pod-deleted", weight=6, fencing=True),
    Kind(name="pod-evicted", weight=5, fencing=True),
    *(Kind(name=f"operator-killed-{step}", weight=3) for step in HAND_OVER_STEPS),
    Kind(name="nats-killed", weight=6),
    Kind(name="nats-full", weight=2, short=False),
    Kind(name="publish-refused", weight=8),
    Kind(name="half-open", weight=6, rules=_HEARTBEAT),
    Kind(name="cut-mid-frame", weight=7),
    Kind(name="op7", weight=7),
    Kind(name="op7-before-hello", weight=6),
    Kind(name="op9-true", weight=7),
    Kind(name="op9-false", weight=4, identifies=1, gap=True),
    Kind(name="replay-overrun", weight=2, identifies=4, gap=True),
    Kind(name="acks-withheld", weight=4, rules=_HEARTBEAT),
    Kind(name="clock-jump", weight=2, rules=_HEARTBEAT),
    Kind(name="two-operators", weight=1, short=False),
    Kind(name="node-drained", weight=2, short=False, fencing=True),
    Kind(name="node-lost", weight=1, short=False, fencing=True, rules=_HEARTBEAT),
    Kind(name="api-away", weight=1, short=False),
    Kind(name="nats-away", weight=1, short=False),
    Kind(name="nats-away-shard-killed", weight=1, short=False),
)
DOUBLE: Final[tuple[Kind, ...]] = (
    Kind(name="two-shards-killed", weight=2, faults=2),
    Kind(name="shard-and-operator-killed", weight=2, faults=2),
    Kind(name="shard-and-nats-killed", weight=2, faults=2),
    Kind(name="pod-deleted-nats-killed", weight=2, faults=2, fencing=True),
    Kind(name="shard-killed-api-away", weight=1, faults=2),
    Kind(name="op7-nats-killed", weight=2, faults=2),
    Kind(name="nats-away-pod-deleted", weight=1, faults=2, fencing=True, gap=True),
)
KINDS: Final = {kind.name: kind for kind in (*SINGLE, *DOUBLE)}


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One fault of a plan: what, where (a shard, and with it its range and pod), and how the simulator behaves."""

    index: int
    kind: str
    shard: int
    offset: float
    """Seconds of peace before it strikes: it meets heartbeats and checkpoints at any phase."""
    on_resume: str
    trim: bool


def plan(seed: int, kinds: tuple[Kind, ...] = SINGLE) -> Iterator[Planned]:
    """Give the faults of a seed, without end."""
    index = count()
    for block in count():
        random = Random(f"{seed}/{block}")
        names = [kind.name for kind in kinds for _ in range(kind.weight)]
        random.shuffle(names)
        for name in names:
            yield Planned(
                index=next(index),
                kind=name,
                shard=random.randrange(SHARDS),
                offset=round(random.random(), 2),
                on_resume=random.choice(MODES),
                trim=random.random() < 0.5,
            )


def each_once(kinds: tuple[Kind, ...], seed: int = 0) -> list[Planned]:
    """Give each short kind once."""
    random = Random(seed)
    return [
        Planned(
            index=index,
            kind=kind.name,
            shard=random.randrange(SHARDS),
            offset=0.0,
            on_resume=MODES[index % 2],
            trim=index % 4 < 2,
        )
        for index, kind in enumerate(kind for kind in kinds if kind.short)
    ]


def first(seed: int, faults: int, kinds: tuple[Kind, ...] = SINGLE) -> list[Planned]:
    """Give the first faults of a seed's plan."""
    return list(islice(plan(seed, kinds), faults))
