"""Layouts, parking rules, limits on repetition, lists and sweeps, settings, logs, metrics, names."""

import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from shardwright_api import names
from shardwright_api.resources import GatewayStatus, PlanStatus, Shards
from shardwright_api.sharding import ranges
from shardwright_operator import layout, metrics, parking
from shardwright_operator.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    ServerError,
    ThrottledError,
    api_error,
)
from shardwright_operator.keys import RangeKey
from shardwright_operator.kube import GATEWAYS, LEASES, NODES, PODS
from shardwright_operator.layout import Layout
from shardwright_operator.lists import Lists
from shardwright_operator.logs import TextFormatter
from shardwright_operator.memory import FenceLimit, Paces, note
from shardwright_operator.plan_bot import grant_pace
from shardwright_operator.settings import parse
from shardwright_operator.store import Store
from shardwright_operator.sums import (
    ANNOTATION_PARKED_CODE,
    ANNOTATION_PARKED_GENERATION,
    ANNOTATION_PARKED_REVISION,
    ANNOTATION_PARKED_SECRET,
)
from unit.operator import builders
from unit.operator.memory_kube import MemoryKube

A = RangeKey("n", "a")

# --- layout


@given(st.integers(1, 300), st.integers(1, 40), st.data())
def test_the_layout_in_force_is_found_again_from_any_of_its_ranges_and_the_status(total, per_pod, data):
    all_of_them = ranges(total=total, per_pod=per_pod)
    kept = data.draw(st.lists(st.sampled_from(all_of_them), min_size=1, unique=True))
    plan = layout.plan_status(Layout(total, per_pod), 1)
    found = layout.in_force(kept, GatewayStatus(plan=plan), Shards(count=data.draw(st.integers(1, 300))))
    assert found.ranges() == all_of_them


@given(st.integers(1, 300), st.integers(1, 40))
def test_without_a_status_the_spec_and_then_the_ranges_tell_the_layout(total, per_pod):
    all_of_them = ranges(total=total, per_pod=per_pod)
    found = layout.in_force(all_of_them, GatewayStatus(), Shards(per_pod=16))
    assert found.ranges() == all_of_them


def test_without_ranges_there_is_no_layout_in_force():
    assert layout.in_force([], GatewayStatus(), Shards()) is None
    assert layout.fresh(Shards(), 7) == Layout(7, 16)
    assert layout.fresh(Shards(count=3), 7) == Layout(3, 16)


def test_a_plan_is_told_in_numbers():
    assert layout.plan_status(Layout(100, 16), 16) == PlanStatus(100, 16, 7, 16, 16, 7, 30.0)


# --- parking


NOTED = {
    ANNOTATION_PARKED_CODE: "4004",
    ANNOTATION_PARKED_SECRET: "100",
    ANNOTATION_PARKED_REVISION: "r1",
    ANNOTATION_PARKED_GENERATION: "3",
}


def cause(**changes):
    given = {"secret_version": "100", "same_token": False, "revision": "r1", "generation": 3}
    return parking.Cause(**(given | changes))


@pytest.mark.parametrize(
    ("code", "changes", "stands"),
    [
        (4004, {}, True),
        (4004, {"secret_version": "101"}, False),
        (4004, {"secret_version": "101", "same_token": True}, True),
        (4004, {"generation": 4, "revision": "r2"}, True),
        (4014, {}, True),
        (4014, {"secret_version": "101"}, True),
        (4014, {"generation": 4}, False),
        (4014, {"revision": "r2"}, False),
        (4010, {"generation": 4}, False),
    ],
)
def test_what_discord_refused_stands_until_its_own_cause_changes(code, changes, stands):
    of = builders.shard_range(annotations=NOTED)
    assert parking.stands(of, code, cause(**changes)) is stands


def test_what_has_not_been_noted_stands():
    assert parking.stands(builders.shard_range(), 4014, cause(generation=9))


def test_only_a_pod_that_knows_of_the_change_is_granted_a_retry():
    row = builders.row(0, builders.ShardState.PARKED, session=None, close=4004)
    of = builders.with_status(
        builders.shard_range(annotations=NOTED, active_pod="pod-a", revision="r1"), holder="pod-a", shards=(row,)
    )
    changed = cause(secret_version="101")
    old, new = builders.pod(secret="100", revision="r1"), builders.pod(secret="101", revision="r1")
    assert not parking.may_retry(of, builders.summary(of, [old]), old, changed)
    assert parking.may_retry(of, builders.summary(of, [new]), new, changed)
    assert not parking.may_retry(of, builders.summary(of, [new]), new, cause())
    released = builders.with_status(of, holder="")
    assert not parking.may_retry(released, builders.summary(released, [new]), new, changed)


# --- limits on repetition


def test_a_pace_grows_with_each_time_and_begins_anew_when_it_lasts():
    paces = Paces(grant_pace)
    assert paces.wait(A, 0.0) == 0.0
    for _ in range(4):
        paces.note(A, 0.0)
    assert (paces.count(A), paces.wait(A, 10.0)) == (4, 50.0)
    paces.reset_if_lasting(A, 600.0)
    assert paces.count(A) == 4
    paces.reset_if_lasting(A, 601.0)
    assert paces.count(A) == 0


@pytest.mark.parametrize(("number", "allowed"), [(0, 16), (4, 16), (339, 16), (340, 17), (1250, 62)])
def test_at_most_sixteen_ranges_or_one_in_twenty_are_fenced_in_a_minute(number, allowed):
    limit = FenceLimit()
    count = 0
    while limit.allows(0.0, number):
        limit.note(0.0)
        count += 1
    assert count == allowed
    assert not limit.allows(60.0, number)
    assert limit.allows(60.1, number)


def test_a_trouble_is_news_once():
    troubles = {}
    assert note(troubles, A, "quota")
    assert not note(troubles, A, "quota")
    assert note(troubles, A, "")
    assert not note(troubles, A, "")
    assert troubles == {}


# --- lists and sweeps


def store():
    return Store(clock=lambda: 0.0, enqueue=lambda _: None)


def wire(thing):
    return msgspec.to_builtins(thing)


async def test_a_resync_brings_what_was_missed_and_drops_what_is_gone():
    kube, filled = MemoryKube(), store()
    gone = builders.pod("gone", version="5")
    filled.put_pod(gone)
    kube.put(GATEWAYS, wire(builders.GATEWAY_OBJECT))
    kube.put(PODS, wire(builders.pod("there")))
    await Lists(kube, filled, ()).read()
    assert [pod.uid for pod in filled.pods(builders.key())] == ["there"]
    assert len(filled.gateways) == 1


async def test_a_gateway_that_does_not_fit_hides_no_other(caplog):
    kube, filled = MemoryKube(), store()
    kube.put(GATEWAYS, {"metadata": {"name": "bad", "namespace": "n"}, "spec": {"sinks": 7}})
    kube.put(GATEWAYS, wire(builders.GATEWAY_OBJECT))
    await Lists(kube, filled, ()).read()
    assert [key.name for key in filled.gateways] == ["mybot"]
    assert "bad" in caplog.text


async def test_without_rights_on_nodes_the_operator_goes_on():
    kube, filled = MemoryKube(), store()
    kube.fail["list", "nodes"] = ForbiddenError(403, "Forbidden", "")
    assert not await Lists(kube, filled, ()).read_nodes()
    assert not filled.nodes_known
    kube.put(NODES, {"metadata": {"name": "n"}})
    assert await Lists(kube, filled, ()).read_nodes()
    assert list(filled.nodes) == ["n"]


async def test_leases_of_bots_without_a_gateway_are_swept_a_day_after_their_last_use():
    kube, filled = MemoryKube(), store()
    filled.put_gateway(builders.GATEWAY_OBJECT)
    filled.bind(next(iter(filled.gateways)), "1")

    def lease(name, bot, used):
        labels = {names.LABEL_BOT: bot}
        meta = {"name": name, "namespace": "bots", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
        kube.put(LEASES, {"metadata": meta, "spec": {"renewTime": used} if used else {}})

    lease("in-use", "1", None)
    lease("old", "2", None)
    lease("young", "2", "2026-01-02T12:00:00.000000Z")
    swept = await Lists(kube, filled, ()).sweep_leases(builders.moment("2026-01-03T00:00:00Z"))
    assert swept == 1
    assert {name for plural, _, name in kube.objects if plural == "leases"} == {"in-use", "young"}


# --- settings, logs, metrics, names


def test_settings_come_from_the_environment_and_arguments_stand_above():
    environ = {"SHARDWRIGHT_NAMESPACES": "a, b", "SHARDWRIGHT_SHARD_IMAGE": "x", "SHARDWRIGHT_LOG_LEVEL": "debug"}
    settings = parse(["--shard-image", "y"], environ)
    assert (settings.namespaces, settings.shard_image, settings.log_level) == (("a", "b"), "y", "DEBUG")
    assert parse([], {}).namespaces == ()
    assert parse([], {"SHARDWRIGHT_SHARD_IMAGE_PULL_POLICY": "Never"}).pull_policy == "Never"


def test_a_line_for_people_ends_with_the_details():
    record = logging.makeLogRecord({"name": "root", "levelname": "INFO", "msg": "granted", "range": "r"})
    assert TextFormatter().format(record).endswith("INFO root: granted range=r")


def test_metrics_are_named_for_the_operator():
    filled = store()
    filled.put_gateway(builders.GATEWAY_OBJECT)
    filled.put_range(builders.serving())
    made = metrics.registry(
        filled, gauges=lambda: {"queue_depth": 1}, counters=lambda: {"turns": 2}, actions=lambda: {"Create": 3}
    )
    families = {one.name: one for one in text_string_to_metric_families(metrics.render(made).decode())}
    assert families["discord_gateway_operator_turns"].samples[0].value == 2
    (sample,) = families["discord_gateway_operator_shards"].samples
    assert (sample.labels, sample.value) == ({"namespace": "bots", "gateway": "mybot", "state": "ready"}, 2)
    (action,) = families["discord_gateway_operator_actions"].samples
    assert (action.labels, action.value) == ({"action": "Create"}, 3)


def test_paths_are_spelled_as_the_api_server_wants_them():
    assert PODS.path("n", "p") == "/api/v1/namespaces/n/pods/p"
    assert NODES.path() == "/api/v1/nodes"
    assert GATEWAYS.path("n", "g", "status") == "/apis/shardwright.dev/v1alpha1/namespaces/n/discordgateways/g/status"
    assert GATEWAYS.path("", "") == "/apis/shardwright.dev/v1alpha1/discordgateways"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFoundError), (409, ConflictError), (410, GoneError), (401, ForbiddenError), (403, ForbiddenError),
        (422, InvalidError), (429, ThrottledError), (500, ServerError), (504, ServerError), (418, ApiError),
    ],
)  # fmt: skip
def test_each_answer_has_its_exception(status, kind):
    assert type(api_error(status, "reason", "message")) is kind
