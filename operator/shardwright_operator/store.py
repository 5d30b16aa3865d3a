"""The operator's memory of the cluster: objects as last seen, and the sums over them.

Who writes: kopf's events (gateways, pods, nodes), our own watch (ranges), our own full lists (all of them, at start and
at every resync), and the answers to our own writes, so that a decision always sees what the one before it did. An
object is replaced by a newer version only (`resourceVersion` compared as a number), and one that was deleted does not
come back from a list that began before: the last deleted UIDs are remembered.

Who reads: the three controllers. They get frozen structs and the running sums, and never wait.

`enqueue` is called with the keys that a change concerns. A heartbeat that says nothing new concerns none.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from shardwright_api.resources import DiscordGateway, ObjectMeta, ShardRange, ShardState, ShardStatus
from shardwright_operator.keys import BotKey, GatewayKey, Key, RangeKey
from shardwright_operator.silence import Silence, Since, silence_limit
from shardwright_operator.sums import (
    ANNOTATION_RESTART_AT,
    GatewayTotals,
    RangeSummary,
    needs_renewal,
    parked_row,
    range_of,
    refused_row,
    summarise,
)
from shardwright_operator.views import Node, Pod, gateway_key, gateway_key_of, owner_uid, range_key


class _Object(Protocol):
    """What every object has."""

    @property
    def metadata(self) -> ObjectMeta:
        """Its name, version and the like."""
        ...


_O = TypeVar("_O", bound=_Object)

_TOMBSTONES: Final = 20_000
_IN_FLIGHT_SECONDS: Final = 10.0
"""An identify that was counted this lately may not be in Discord's `remaining` yet."""


def newer(candidate: _Object, known: _Object | None) -> bool:
    """Say whether an object is a newer version of what is known, or another object under the same name."""
    if known is None or candidate.metadata.uid != known.metadata.uid:
        return True
    return version(candidate.metadata.resource_version) > version(known.metadata.resource_version)


def version(text: str) -> int:
    """Read a resource version as the number that it is since Kubernetes 1.35 says so (KEP 5504)."""
    return int(text) if text.isdecimal() else 0


def _rows(rows: tuple[ShardStatus, ...]) -> tuple[object, ...]:
    return tuple(
        (
            row.id,
            row.state,
            row.session is None,
            row.intents,
            row.identity,
            row.close,
            row.refused,
            row.gap,
            row.message,
        )
        for row in rows
    )


def gateway_concerns(old: DiscordGateway, new: DiscordGateway) -> bool:
    """Say whether a change of a gateway is more than a status."""

    def relevant(gateway: DiscordGateway) -> object:
        meta = gateway.metadata
        return meta.uid, meta.generation, meta.deletion_timestamp, meta.annotations.get(ANNOTATION_RESTART_AT)

    return relevant(old) != relevant(new)


def range_concerns(old: ShardRange, new: ShardRange) -> bool:
    """Say whether a change of a range is more than a heartbeat."""
    before, after = old.status, new.status
    return (
        old.metadata.generation != new.metadata.generation
        or old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        or old.metadata.annotations != new.metadata.annotations
        or (before.holder, before.epoch, before.identifies_spent) != (after.holder, after.epoch, after.identifies_spent)
        or before.sinks != after.sinks
        or before.standby != after.standby
        or (before.spool_bytes == 0) != (after.spool_bytes == 0)
        or _rows(before.shards) != _rows(after.shards)
    )


def budget_concerns(old: RangeSummary | None, new: RangeSummary | None) -> bool:
    """Say whether a change of a range may change what the bot's budget is used for."""

    def relevant(summary: RangeSummary | None) -> object:
        if summary is None:
            return None
        rest = (summary.parked, summary.holds, summary.up)
        return (summary.need, summary.renewals, summary.open, summary.spent, summary.proof, *rest)

    return relevant(old) != relevant(new)


class Identifies:
    """How many identifies a bot has spent since the operator came up, by the ranges' counters."""

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[tuple[float, int]] = deque()

    def count(self, number: int, now: float) -> None:
        """Count identifies that a range reported."""
        self.total += number
        self._recent.append((now, number))

    def settled(self, now: float) -> int:
        """Count those that are old enough to be in what Discord answers now."""
        while self._recent and now - self._recent[0][0] > _IN_FLIGHT_SECONDS:
            self._recent.popleft()
        return self.total - sum(number for _, number in self._recent)


class Unsettled(NamedTuple):
    """Identifies that a range has spent, and whose outcome has not been seen; `since` the last was spent.

    A range that may have one under way when the operator first sees it counts as having one.
    """

    number: int
    since: float


def may_be_under_way(shard_range: ShardRange) -> int:
    """Count the identifies that a range may have spent, and whose outcome is not in its rows: at least for a while."""
    status, shards = shard_range.status, len(range_of(shard_range.spec))
    if not status.identifies_spent or parked_row(status.shards) is not None or refused_row(shard_range) is not None:
        return 0
    renewals = sum(needs_renewal(row, shard_range.spec.config) for row in status.shards)
    incomplete = sum(row.session is not None for row in status.shards) < shards
    return renewals or int(incomplete)


def outcomes(known: ShardRange, new: ShardRange) -> int:
    """Count the identifies whose outcome a change of a range shows: new sessions, and refusals."""
    before = {row.id: row for row in known.status.shards}

    def shows(row: ShardStatus) -> bool:
        old = before.get(row.id)
        session = row.session is not None and (old is None or old.session != row.session)
        parked = row.state is ShardState.PARKED and (old is None or old.state is not ShardState.PARKED)
        refused = row.refused is not None and (old is None or old.refused != row.refused)
        return session or parked or refused

    return sum(map(shows, new.status.shards))


class Store:
    """All that the operator has seen."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        enqueue: Callable[[Key], None],
        namespaces: Sequence[str] = (),
    ) -> None:
        self.gateways: dict[GatewayKey, DiscordGateway] = {}
        self.ranges: dict[RangeKey, ShardRange] = {}
        self.nodes: dict[str, Node] = {}
        self.nodes_known = False
        self.summaries: dict[RangeKey, RangeSummary] = {}
        self._silences = {namespace: Silence() for namespace in namespaces or ("",)}
        self.since = Since()
        self._unsettled: dict[RangeKey, Unsettled] = {}
        self.identifies: defaultdict[str, Identifies] = defaultdict(Identifies)
        self.down_since: dict[RangeKey, float] = {}
        """When each range that is not up ceased to be so; a range that never was up is not in it."""
        self._pods: defaultdict[RangeKey, dict[str, Pod]] = defaultdict(dict)
        self._pod_counts: Counter[GatewayKey] = Counter()
        self._totals: defaultdict[str, GatewayTotals] = defaultdict(GatewayTotals)
        self._bots: dict[GatewayKey, str] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._clock = clock
        self._enqueue = enqueue

    # --- reading

    def pods(self, key: RangeKey) -> tuple[Pod, ...]:
        """List the pods of a range, by name."""
        return tuple(self._pods.get(key, {}).values())

    def pod_count(self, key: GatewayKey) -> int:
        """Count the pods of a gateway."""
        return self._pod_counts[key]

    def totals(self, gateway_uid: str) -> GatewayTotals:
        """Give the sums over the ranges that a gateway owns."""
        return self._totals[gateway_uid]

    def gateways_of(self, bot_id: str) -> list[DiscordGateway]:
        """List the gateways whose token is this bot's."""
        keys = [key for key, bot in self._bots.items() if bot == bot_id]
        return [self.gateways[key] for key in keys if key in self.gateways]

    def bot_of(self, key: GatewayKey) -> str:
        """Give the bot that a gateway's token belongs to, or an empty string."""
        return self._bots.get(key, "")

    def silence(self, namespace: str) -> Silence:
        """Give the clocks of the ranges in a namespace: those of its own watch, or of the one for the whole cluster."""
        own = self._silences.get(namespace)
        return own if own is not None else self._silences[""]

    def quiet_for(self, key: RangeKey) -> float:
        """Say for how long no identify of a range has been under way; for ever, when each one's outcome is known."""
        unsettled = self._unsettled.get(key)
        return self._clock() - unsettled.since if unsettled is not None and unsettled.number else float("inf")

    def unsettled(self, key: RangeKey) -> int:
        """Count the identifies that a range has spent, and whose outcome has not been seen."""
        unsettled = self._unsettled.get(key)
        return unsettled.number if unsettled is not None else 0

    def silent(self) -> int:
        """Count the ranges whose holder is silent."""
        return sum(silence.silent for silence in self._silences.values())

    def live(self) -> bool:
        """Say whether all watches of ranges stand."""
        return all(silence.live for silence in self._silences.values())

    # --- gateways and bots

    def put_gateway(self, gateway: DiscordGateway) -> None:
        """Remember a gateway."""
        key = gateway_key(gateway)
        known = self.gateways.get(key)
        if gateway.metadata.uid in self._gone or not newer(gateway, known):
            return
        self.gateways[key] = gateway
        if key not in self._bots and gateway.status.bot_id:
            self.bind(key, gateway.status.bot_id)
        if known is None or gateway_concerns(known, gateway):
            self._enqueue(key)

    def drop_gateway(self, key: GatewayKey, uid: str) -> None:
        """Forget a gateway that was deleted."""
        known = self.gateways.get(key)
        self._bury(uid)
        if known is not None and known.metadata.uid == uid:
            del self.gateways[key]
            self._totals.pop(uid, None)
            self._enqueue(key)
            self.bind(key, "")

    def bind(self, key: GatewayKey, bot_id: str) -> None:
        """Note whose token a gateway has. All gateways of a bot look again when one joins or leaves."""
        before = self._bots.get(key, "")
        if before == bot_id:
            return
        self._bots[key] = bot_id
        if not bot_id:
            del self._bots[key]
        for bot in filter(None, (before, bot_id)):
            self._enqueue(BotKey(bot))
            for gateway in self.gateways_of(bot):
                if gateway_key(gateway) != key:
                    self._enqueue(gateway_key(gateway))

    # --- ranges

    def put_range(self, shard_range: ShardRange) -> None:
        """Remember a range, and note its heartbeat."""
        key, now = range_key(shard_range), self._clock()
        known = self.ranges.get(key)
        if shard_range.metadata.uid in self._gone or not newer(shard_range, known):
            return
        if known is not None and known.metadata.uid != shard_range.metadata.uid:
            self.drop_range(key, known.metadata.uid)
            known = None
        self.ranges[key] = shard_range
        self._hear(key, known, shard_range, now)
        self.refresh(key)
        if known is None or range_concerns(known, shard_range):
            self._enqueue(key)
            self._enqueue(gateway_key_of(shard_range))

    def drop_range(self, key: RangeKey, uid: str) -> None:
        """Forget a range that was deleted."""
        known = self.ranges.get(key)
        self._bury(uid)
        if known is None or known.metadata.uid != uid:
            return
        del self.ranges[key]
        self.silence(key.namespace).forget(key)
        self.since.forget(key)
        self._unsettled.pop(key, None)
        self._replace_summary(key, known, None)
        self._enqueue(key)
        self._enqueue(gateway_key_of(known))

    def refresh(self, key: RangeKey) -> None:
        """Sum a range up anew."""
        shard_range = self.ranges.get(key)
        if shard_range is not None:
            active = self.active_pod(shard_range)
            freshness = self.silence(key.namespace).freshness(key)
            self._replace_summary(key, shard_range, summarise(shard_range, active, freshness))

    def active_pod(self, shard_range: ShardRange) -> Pod | None:
        """Give the pod that a range's `activePod` names."""
        uid = shard_range.spec.active_pod
        return next((pod for pod in self.pods(range_key(shard_range)) if pod.uid == uid), None)

    def watch_connected(self, namespace: str) -> None:
        """Say that the watch of a namespace's ranges stands."""
        self._silences[namespace].connected(self._clock())

    def watch_disconnected(self, namespace: str) -> None:
        """Say that the watch of a namespace's ranges broke."""
        self._silences[namespace].disconnected()

    def expire(self) -> None:
        """Find the ranges that have just become silent."""
        now, limit = self._clock(), silence_limit(len(self.ranges))
        for key in [key for silence in self._silences.values() for key in silence.expire(now, limit)]:
            self.refresh(key)
            self._enqueue(key)
            self._enqueue(gateway_key_of(self.ranges[key]))

    def _hear(self, key: RangeKey, known: ShardRange | None, new: ShardRange, now: float) -> None:
        silence = self.silence(key.namespace)
        if known is None:
            silence.seen(key, now)
            under_way = may_be_under_way(new)
            if under_way:
                self._unsettled[key] = Unsettled(under_way, now)
            return
        if known.status.heartbeat_time != new.status.heartbeat_time:
            quiet = silence.freshness(key)
            silence.heard(key, now)
            if quiet is not silence.freshness(key):
                self._enqueue(gateway_key_of(new))
        self._count_identifies(key, known, new, now)

    def _count_identifies(self, key: RangeKey, known: ShardRange, new: ShardRange, now: float) -> None:
        spent = max(0, new.status.identifies_spent - known.status.identifies_spent)
        if spent:
            self.identifies[new.spec.bot_id].count(spent, now)
        settled = outcomes(known, new)
        before = self._unsettled.get(key, Unsettled(0, now))
        if spent or (settled and before.number):
            since = now if spent else before.since
            self._unsettled[key] = Unsettled(max(0, before.number + spent - settled), since)

    def _replace_summary(self, key: RangeKey, shard_range: ShardRange, new: RangeSummary | None) -> None:
        old = self.summaries.get(key)
        if new is None:
            self.summaries.pop(key, None)
            self.down_since.pop(key, None)
        else:
            self.summaries[key] = new
            self._note_down(key, old, new)
        self._totals[owner_uid(shard_range.metadata)].replace(key, old, new)
        if budget_concerns(old, new):
            self._enqueue(BotKey(shard_range.spec.bot_id))

    def _note_down(self, key: RangeKey, old: RangeSummary | None, new: RangeSummary) -> None:
        if new.ready:
            self.down_since.pop(key, None)
        elif old is not None and old.ready:
            self.down_since[key] = self._clock()

    # --- pods and nodes

    def put_pod(self, pod: Pod) -> None:
        """Remember a pod."""
        pods = self._pods[pod.range_key]
        known = pods.get(pod.metadata.name)
        if pod.uid in self._gone or not newer(pod, known):
            return
        pods[pod.metadata.name] = pod
        if known is None:
            self._pod_counts[pod.gateway_key] += 1
        self._pod_changed(pod)

    def drop_pod(self, pod: Pod) -> None:
        """Forget a pod that was deleted."""
        self._bury(pod.uid)
        pods = self._pods.get(pod.range_key, {})
        known = pods.get(pod.metadata.name)
        if known is None or known.uid != pod.uid:
            return
        del pods[pod.metadata.name]
        if not pods:
            del self._pods[pod.range_key]
        self._pod_counts[pod.gateway_key] -= 1
        self._pod_changed(pod)

    def put_node(self, node: Node) -> None:
        """Remember a node."""
        known = self.nodes.get(node.metadata.name)
        if not newer(node, known):
            return
        self.nodes[node.metadata.name] = node
        if known is None or (known.ready, known.spec) != (node.ready, node.spec):
            self._node_changed(node.metadata.name)

    def drop_node(self, name: str) -> None:
        """Forget a node that was deleted."""
        if self.nodes.pop(name, None) is not None:
            self._node_changed(name)

    def node_lost(self, pod: Pod) -> bool:
        """Say whether the pod's node is gone or does not report. Without rights on nodes, nothing is known."""
        if not self.nodes_known or not pod.spec.node_name:
            return False
        node = self.nodes.get(pod.spec.node_name)
        return node is None or not node.ready

    def node_cordoned(self, pod: Pod) -> bool:
        """Say whether the pod's node takes no new pods. Without rights on nodes, nothing is known."""
        node = self.nodes.get(pod.spec.node_name)
        return node is not None and node.spec.unschedulable

    def _pod_changed(self, pod: Pod) -> None:
        self.refresh(pod.range_key)
        self._enqueue(pod.range_key)
        self._enqueue(pod.gateway_key)

    def _node_changed(self, name: str) -> None:
        for key, pods in self._pods.items():
            if any(pod.spec.node_name == name for pod in pods.values()):
                self._enqueue(key)

    # --- whole lists: of one namespace, or of all (an empty name), read at resource version `at`

    def all_gateways(
        self, listed: Iterable[DiscordGateway], namespace: str, at: str, unreadable: Container[str] = ()
    ) -> None:
        """Take a full list of gateways; `unreadable`: UIDs of those in it that could not be decoded."""
        present = {gateway.metadata.uid: gateway for gateway in listed}
        for gateway in present.values():
            self.put_gateway(gateway)
        for gateway in _vanished(self.gateways.values(), present, namespace, at):
            if gateway.metadata.uid in unreadable:
                continue
            self.drop_gateway(gateway_key(gateway), gateway.metadata.uid)

    def all_ranges(
        self, listed: Iterable[ShardRange], namespace: str, at: str, unreadable: Container[str] = ()
    ) -> None:
        """Take a full list of ranges; `unreadable`: UIDs of those in it that could not be decoded."""
        present = {shard_range.metadata.uid: shard_range for shard_range in listed}
        for shard_range in present.values():
            self.put_range(shard_range)
        for shard_range in _vanished(self.ranges.values(), present, namespace, at):
            if shard_range.metadata.uid not in unreadable:
                self.drop_range(range_key(shard_range), shard_range.metadata.uid)

    def all_pods(self, listed: Iterable[Pod], namespace: str, at: str) -> None:
        """Take a full list of pods."""
        present = {pod.uid: pod for pod in listed}
        for pod in present.values():
            self.put_pod(pod)
        known = [pod for pods in self._pods.values() for pod in pods.values()]
        for pod in _vanished(known, present, namespace, at):
            self.drop_pod(pod)

    def all_nodes(self, listed: Iterable[Node], at: str) -> None:
        """Take a full list of nodes."""
        present = {node.metadata.uid: node for node in listed}
        self.nodes_known = True
        for node in present.values():
            self.put_node(node)
        for node in _vanished(self.nodes.values(), present, "", at):
            self.drop_node(node.metadata.name)

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        while len(self._gone) > _TOMBSTONES:
            self._gone.popitem(last=False)


def _vanished(known: Iterable[_O], present: Container[str], namespace: str, at: str) -> list[_O]:
    """List what is known, is not in the list, and is no newer than the list."""
    return [
        thing
        for thing in known
        if thing.metadata.uid not in present
        and (not namespace or thing.metadata.namespace == namespace)
        and version(thing.metadata.resource_version) <= version(at)
    ]
