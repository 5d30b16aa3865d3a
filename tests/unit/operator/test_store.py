"""The store believes newer versions only, keeps sums without recounting, and wakes whom a change concerns."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api.resources import GatewayStatus, ObjectMeta, ShardState, SinkStatus
from shardwright_operator.keys import BotKey, GatewayKey
from shardwright_operator.store import Identifies, Store
from shardwright_operator.sums import GatewayTotals
from shardwright_operator.views import Node, NodeSpec, NodeStatus, Trait
from unit.operator import builders

GATEWAY = GatewayKey(builders.NAMESPACE, builders.GATEWAY)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def made():
    woken = []
    clock = Clock()
    store = Store(clock=clock, enqueue=woken.append)
    store.put_gateway(builders.GATEWAY_OBJECT)
    store.watch_connected("")
    woken.clear()
    return store, woken, clock


def version(thing, number):
    meta = msgspec.structs.replace(thing.metadata, resource_version=str(number))
    return msgspec.structs.replace(thing, metadata=meta)


def test_a_pure_heartbeat_wakes_nobody():
    store, woken, clock = made()
    of = builders.serving()
    store.put_pod(builders.pod(of=of))
    store.put_range(of)
    store.put_range(version(builders.with_status(of, heartbeat_time="a"), 11))
    woken.clear()
    clock.now += 5
    rows = tuple(msgspec.structs.replace(row, seq=99, latency=33, guilds=7) for row in of.status.shards)
    store.put_range(version(builders.with_status(of, heartbeat_time="b", shards=rows), 12))
    assert woken == []
    assert store.totals(builders.GATEWAY_UID).guilds == 14


def test_each_change_that_matters_wakes_range_and_gateway():
    of = builders.serving()
    key = builders.key()
    changes = [
        builders.with_status(of, holder=""),
        builders.with_status(of, sinks=(SinkStatus("events", available=False),)),
        builders.with_status(of, shards=builders.rows(of, ShardState.RESUMING)),
        builders.with_status(of, shards=(of.status.shards[0],)),
        builders.with_status(of, standby={"pod-b": {}}),
    ]
    for change in changes:
        store, woken, _ = made()
        store.put_range(of)
        woken.clear()
        store.put_range(version(change, 11))
        assert {key, GATEWAY} <= set(woken)


def test_a_spent_identify_wakes_the_bot_and_is_counted():
    store, woken, _ = made()
    of = builders.serving()
    store.put_range(of)
    woken.clear()
    store.put_range(version(builders.with_status(of, identifies_spent=3), 11))
    assert BotKey(builders.BOT) in woken
    assert store.identifies[builders.BOT].total == 1


def test_a_range_is_quiet_when_the_outcome_of_each_identify_is_known():
    store, _, clock = made()
    of = builders.with_status(builders.serving(), identifies_spent=0, shards=())
    key = builders.key()
    store.put_range(of)
    assert store.quiet_for(key) == float("inf")
    paid = builders.with_status(of, identifies_spent=2)
    store.put_range(version(paid, 11))
    clock.now += 5
    assert store.quiet_for(key) == 5.0
    store.put_range(version(builders.with_status(paid, shards=(builders.row(0),)), 12))
    assert store.quiet_for(key) == 5.0
    refused = builders.row(1, ShardState.PARKED, session=None, close=4014)
    store.put_range(version(builders.with_status(paid, shards=(builders.row(0), refused)), 13))
    assert store.quiet_for(key) == float("inf")


def test_an_operator_that_comes_up_in_the_middle_waits_for_outcomes_it_may_have_missed():
    half = builders.with_status(builders.serving(), shards=(builders.row(0),))
    refused = builders.row(1, ShardState.PARKED, session=None, close=4014)
    parked = builders.with_status(builders.serving(), shards=(builders.row(0), refused))
    for of, quiet_for in ((half, 7.0), (builders.serving(), float("inf")), (parked, float("inf"))):
        store, _, clock = made()
        store.put_range(of)
        clock.now += 7
        assert store.quiet_for(builders.key()) == quiet_for


def test_an_older_version_is_not_believed():
    store, woken, _ = made()
    of = builders.serving()
    store.put_range(version(of, 20))
    woken.clear()
    store.put_range(version(builders.with_status(of, holder=""), 19))
    assert store.ranges[builders.key()].status.holder == "pod-a"
    assert woken == []


def test_a_renewal_settles_by_its_new_session_or_its_refusal():
    store, _, _ = made()
    of = builders.with_spec(builders.serving(), config=builders.config(identity="new"))
    store.put_range(builders.with_status(of, shards=tuple(builders.row(shard, identity="new") for shard in (0, 1))))
    assert store.unsettled(builders.key()) == 0
    paid = builders.with_status(version(of, 11), identifies_spent=4)
    store.put_range(paid)
    assert store.unsettled(builders.key()) == 2
    renewed = (builders.row(0, session="other", identity="new"), builders.row(1, refused=4014))
    store.put_range(builders.with_status(version(paid, 12), shards=renewed))
    assert store.unsettled(builders.key()) == 0


def test_renewals_that_may_be_under_way_when_a_range_is_first_seen_count():
    store, _, _ = made()
    of = builders.with_spec(builders.serving(), config=builders.config(identity="new"))
    rows = tuple(builders.row(shard, identity="old") for shard in (0, 1))
    store.put_range(builders.with_status(of, shards=rows))
    assert store.unsettled(builders.key()) == 2


def test_a_restart_is_asked_for_by_an_annotation_alone():
    store, asked, _ = made()
    of = builders.gateway()
    store.put_gateway(of)
    asked.clear()
    for number, (name, news) in enumerate([("other", False), ("shardwright.dev/restart-at", True)]):
        meta = msgspec.structs.replace(of.metadata, resource_version=str(10 + number), annotations={name: "now"})
        store.put_gateway(msgspec.structs.replace(of, metadata=meta))
        assert bool(asked) is news


def test_a_cordon_is_news_for_the_ranges_on_the_node():
    store, asked, _ = made()
    pod = builders.pod()
    store.put_pod(pod)
    node = Node(ObjectMeta("node-1", uid="n", resource_version="1"), status=NodeStatus((Trait("Ready", "True"),)))
    store.put_node(node)
    asked.clear()
    cordoned = Node(ObjectMeta("node-1", uid="n", resource_version="2"), NodeSpec(unschedulable=True), node.status)
    store.put_node(cordoned)
    assert builders.key() in asked
    assert store.node_cordoned(pod)


def test_what_was_deleted_does_not_come_back_from_an_older_list():
    store, _, _ = made()
    of, pod = builders.serving(), builders.pod()
    store.put_range(of)
    store.put_pod(pod)
    store.drop_range(builders.key(), of.metadata.uid)
    store.drop_pod(pod)
    store.all_ranges([of], "", "500")
    store.all_pods([pod], "", "500")
    assert not store.ranges
    assert store.pods(builders.key()) == ()
    assert store.totals(builders.GATEWAY_UID) == GatewayTotals(
        states=store.totals(builders.GATEWAY_UID).states,
        revisions=store.totals(builders.GATEWAY_UID).revisions,
        restarts=store.totals(builders.GATEWAY_UID).restarts,
        live=store.totals(builders.GATEWAY_UID).live,
    )


def test_a_list_removes_what_is_missing_but_not_what_is_newer_than_the_list():
    store, _, _ = made()
    old, young = version(builders.pod("old"), 10), version(builders.pod("young", incarnation=2), 600)
    store.put_pod(old)
    store.put_pod(young)
    store.all_pods([], "", "500")
    assert [pod.uid for pod in store.pods(builders.key())] == ["young"]
    store.all_pods([], "elsewhere", "900")
    assert [pod.uid for pod in store.pods(builders.key())] == ["young"]


def test_a_range_made_anew_under_its_old_name_is_another_range():
    store, _, _ = made()
    store.put_range(builders.serving())
    anew = builders.shard_range(uid="anew", version="5")
    store.put_range(anew)
    assert store.ranges[builders.key()].metadata.uid == "anew"
    assert store.totals(builders.GATEWAY_UID).ready_shards == 0


def test_ranges_of_a_gateway_that_was_made_anew_do_not_count_for_it():
    store, _, _ = made()
    store.put_range(builders.shard_range(gateway_uid="before"))
    assert not store.totals(builders.GATEWAY_UID).members


def test_a_silent_holder_wakes_its_range_and_gateway_once():
    store, woken, clock = made()
    of = builders.serving()
    store.put_pod(builders.pod(of=of))
    store.put_range(of)
    store.put_range(version(builders.with_status(of, heartbeat_time="later"), 11))
    assert store.totals(builders.GATEWAY_UID).ready_ranges == 1
    woken.clear()
    clock.now += 15
    store.expire()
    store.expire()
    assert woken == [builders.key(), GATEWAY]
    assert store.totals(builders.GATEWAY_UID).ready_ranges == 0


def test_a_broken_watch_of_one_namespace_stops_no_clocks_of_others():
    clock = Clock()
    store = Store(clock=clock, enqueue=lambda _: None, namespaces=(builders.NAMESPACE, "elsewhere"))
    of = builders.serving()
    store.watch_connected(builders.NAMESPACE)
    store.watch_connected("elsewhere")
    store.watch_disconnected("elsewhere")
    store.put_range(of)
    clock.now += 15
    store.expire()
    assert store.silent() == 1
    assert not store.live()


def test_a_status_write_of_our_own_wakes_nobody():
    store, woken, _ = made()
    changed = msgspec.structs.replace(version(builders.GATEWAY_OBJECT, 9), status=GatewayStatus(phase="Ready"))
    store.put_gateway(changed)
    assert woken == []
    assert store.gateways[GATEWAY].status.phase == "Ready"


def test_gateways_of_one_bot_wake_each_other_when_one_joins_or_leaves():
    store, woken, _ = made()
    other = builders.gateway(uid="other", namespace="elsewhere")
    store.put_gateway(other)
    store.bind(GATEWAY, "1")
    woken.clear()
    store.bind(GatewayKey("elsewhere", builders.GATEWAY), "1")
    assert GATEWAY in woken
    woken.clear()
    store.drop_gateway(GatewayKey("elsewhere", builders.GATEWAY), "other")
    assert GATEWAY in woken
    assert [one.metadata.uid for one in store.gateways_of("1")] == [builders.GATEWAY_UID]


def test_a_node_that_stops_reporting_wakes_the_ranges_on_it():
    store, woken, _ = made()
    pod = builders.pod(node="node-9")
    store.put_pod(pod)
    assert not store.node_lost(pod), "without rights on nodes nothing is known"
    node = Node(
        builders.ObjectMeta("node-9", uid="n", resource_version="5"), status=NodeStatus((Trait("Ready", "True"),))
    )
    store.all_nodes([node], "5")
    assert not store.node_lost(pod)
    woken.clear()
    store.put_node(version(msgspec.structs.replace(node, status=NodeStatus()), 6))
    assert woken == [builders.key()]
    assert store.node_lost(pod)
    store.drop_node("node-9")
    assert store.node_lost(pod)


def test_an_identify_counts_as_settled_after_ten_seconds():
    counted = Identifies()
    counted.count(3, 0.0)
    counted.count(2, 8.0)
    assert (counted.total, counted.settled(5.0), counted.settled(10.5), counted.settled(19.0)) == (5, 0, 3, 5)


states = st.sampled_from(list(ShardState))


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(states, max_size=2), st.booleans()), max_size=20))
def test_the_running_sums_equal_a_recount(changes):
    store, _, _ = made()
    number = 100
    for which, given_states, drop in changes:
        number += 1
        of = builders.shard_range(
            first=2 * which, last=2 * which + 1, total=6, uid=f"u{which}-{number if drop else ''}"
        )
        rows = tuple(builders.row(2 * which + at, state) for at, state in enumerate(given_states))
        store.put_range(version(builders.with_status(of, shards=rows), number))
        if drop:
            store.drop_range(builders.key(2 * which, 2 * which + 1, 6), of.metadata.uid)
    recount = GatewayTotals()
    for key, summary in store.summaries.items():
        recount.replace(key, None, summary)
    totals = store.totals(builders.GATEWAY_UID)
    assert totals == recount or (+totals.states, +totals.runs, +totals.live, totals.members, totals.not_up, totals.need) == (
        +recount.states, +recount.runs, +recount.live, recount.members, recount.not_up, recount.need
    )  # fmt: skip


def test_what_is_there_and_cannot_be_read_is_not_taken_for_deleted():
    store, _, _ = made()
    of = builders.serving()
    store.put_range(of)
    store.all_ranges([], "", "500", {of.metadata.uid})
    store.all_gateways([], "", "500", {builders.GATEWAY_UID})
    assert builders.key() in store.ranges
    assert GATEWAY in store.gateways
    store.put_gateway(version(builders.gateway(generation=2), 501))
    assert store.gateways[GATEWAY].metadata.generation == 2


def test_a_rival_that_disappears_wakes_who_waits_for_its_bot():
    store, woken, _ = made()
    other = builders.gateway(uid="other", namespace="elsewhere")
    store.put_gateway(other)
    key = GatewayKey("elsewhere", builders.GATEWAY)
    for one in (GATEWAY, key):
        store.bind(one, builders.BOT)
    woken.clear()
    store.drop_gateway(key, "other")
    assert GATEWAY in woken
    assert store.gateways_of(builders.BOT) == [builders.GATEWAY_OBJECT]
