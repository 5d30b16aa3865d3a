"""What the planners look at: one frozen value each, read in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shardwright_api.resources import DiscordGateway, RangeSpec, ShardRange
from shardwright_operator.asker import NOT_ASKED, Answer
from shardwright_operator.keys import GatewayKey, RangeKey
from shardwright_operator.sums import GatewayTotals, RangeSummary
from shardwright_operator.tokens import TokenState
from shardwright_operator.views import Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a gateway wants of its pods, as its own key last found out.

    `secret_version`: the version of the Secret that a pod made now would mount. `blamed_version`: the version that pods
    which Discord refuses now had read, since the kubelet brings a new one to running pods only after a minute or two.
    `healed`: the token was changed since it was refused, and Discord's HTTP API takes it. `paused`: nothing is done.
    """

    gateway: DiscordGateway
    revision: str
    image: str
    pull_policy: str
    create_pods: bool
    secret_version: str = ""
    blamed_version: str = ""
    healed: bool = False
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeObserved:
    """A range and all that belongs to it. Seconds are the operator's own: for how long it has seen something be so.

    `pods` are those of this very ShardRange. `lost`: UIDs of pods whose node is gone or does not report;
    `cordoned`: of those whose node takes no new pods. `may_move`: not too many ranges are in a hand-over. `launch_in`:
    seconds until another pod may be made for a range that none works for; `replace_in`: for one that has a pod that works;
    `launched`: one was made since all was well. `released_for`: how long the active pod has had its chance to take over;
    `tried_for`: how long ago a hand-over to this revision was taken back.
    """

    shard_range: ShardRange
    summary: RangeSummary
    pods: tuple[Pod, ...]
    wanted: Wanted
    silent: bool = False
    lost: frozenset[str] = frozenset()
    cordoned: frozenset[str] = frozenset()
    may_move: bool = True
    may_fence: bool = True
    launch_in: float = 0.0
    replace_in: float = 0.0
    launched: bool = False
    crashed_for: float = 0.0
    released_for: float = 0.0
    tried_for: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetVerdict:
    """What the bot's key says of a gateway's identifies.

    `short`: those that are needed and cannot be granted yet. `held`: ranges whose open grants the budget no longer covers.
    """

    total: int
    remaining: int
    reserve: int
    short: int
    reset_time: str
    held: frozenset[RangeKey] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayObserved:
    """A gateway and all that belongs to it.

    `ranges` are all ShardRanges that the operator knows, whoever owns them. `rival`: the gateway in another namespace
    to which the bot belongs. `refused`: why Discord's gateway refuses the token, where it does. `down`: ranges that
    are not up, and not just for a moment: Discord makes sessions reconnect all the time. `stalled`: ranges whose
    new pod does not get ready to take over. `handed_over`: ranges in a hand-over because of their node. `waiting`: what
    hand-overs wait for before they begin. `children_due`: the children are to be applied again. `buckets`: those whose
    Lease exists. `troubles`: why pods of ranges are refused by the API server; `trouble`: why another child is. `gauges_due`: a minute has passed since the gauges were written.
    """

    gateway: DiscordGateway
    token: TokenState
    answer: Answer = NOT_ASKED
    rival: GatewayKey | None = None
    refused: str = ""
    totals: GatewayTotals
    ranges: Mapping[RangeKey, ShardRange]
    summaries: Mapping[RangeKey, RangeSummary]
    pods: int = 0
    budget: BudgetVerdict | None = None
    down: frozenset[RangeKey] = frozenset()
    stalled: frozenset[RangeKey] = frozenset()
    handed_over: frozenset[RangeKey] = frozenset()
    waiting: Mapping[RangeKey, str] = field(default_factory=dict)
    troubles: Mapping[RangeKey, str] = field(default_factory=dict)
    trouble: str = ""
    default_image: str
    pull_policy: str
    blamed_version: str = ""
    children_due: bool = True
    buckets: frozenset[int] = frozenset()
    gauges_due: bool = True
    now: str

    @property
    def owned(self) -> list[RangeKey]:
        """The gateway's own ranges, ascending by shard."""
        return sorted(self.totals.members, key=lambda key: self.ranges[key].spec.first)

    @property
    def any_spec(self) -> RangeSpec | None:
        """The spec of one of its ranges, for what all of them share."""
        key = next(iter(self.totals.members), None)
        return None if key is None else self.ranges[key].spec


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeBudget:
    """A range as the bot's key sees it.

    `blocked`: parked, and what caused it has not changed; or its pod knows an old token only. `retry`: parked, the cause has changed, and the pod that
    holds the range knows. `paced_for`: seconds until identifies beyond the first of each shard may be granted again;
    `one_at_a_time`: the last ones did not last. `unsettled`: identifies that the range spent, and whose outcome has not
    been seen; `quiet_for`: seconds since it spent the last of these; `queue`: such identifies of all ranges of the bot.
    """

    shard_range: ShardRange
    summary: RangeSummary
    blocked: bool = False
    retry: bool = False
    paced_for: float = 0.0
    one_at_a_time: bool = False
    quiet_for: float = float("inf")
    unsettled: int = 0
    queue: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayBudget:
    """A gateway as the bot's key sees it. `eligible`: its token works, it is not on hold, the bot is its own."""

    key: GatewayKey
    eligible: bool
    reserve_percent: int
    ranges: tuple[RangeBudget, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BotObserved:
    """A bot: all gateways that share it, oldest first.

    `spent`: identifies that Discord's answer does not count yet. `age`: seconds since Discord was asked.
    `until_reset`: seconds until the budget is full again.
    """

    answer: Answer
    gateways: tuple[GatewayBudget, ...]
    spent: int = 0
    age: float = 0.0
    until_reset: float = 0.0
