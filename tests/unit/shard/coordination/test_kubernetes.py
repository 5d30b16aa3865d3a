"""The coordinator on Kubernetes, with an API server that is scripted: what only bad timing shows."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from shardwright_api.resources import ObjectMeta, RangeSpec, RangeStatus, ShardConfig, ShardRange
from shardwright_shard.coordination import kubernetes
from shardwright_shard.coordination.api_client import Conflict, EventType, Invalid, PatchType, WatchEvent
from shardwright_shard.coordination.kubernetes import KubernetesCoordinator, Lease, in_cluster
from shardwright_shard.errors import ConfigError, CoordinatorUnavailable, NotHolder
from unit.shard.coordination.contract import ROW, SINK, stays_asleep

CONFIG = ShardConfig(gateway="mybot", gateway_url="wss://x", intents=1)
SPEC = RangeSpec(
    first=0, last=0, total=1, bot_id="1", max_concurrency=1, config=CONFIG, active_pod="a", epoch=1, identify_grant=3
)


def a_range(version, **status):
    meta = ObjectMeta(name="r", uid="u", resource_version=str(version), generation=4)
    return ShardRange(metadata=meta, spec=SPEC, status=RangeStatus(**status))


class Api:
    """An API server with one range: `stored` is what a read gives; `answers` are given to patches, or raised."""

    def __init__(self, stored):
        self.stored = stored
        self.answers = []
        self.patches = []
        self.before_answer = lambda: None
        self.events = asyncio.Queue()

    async def get(self, _path, _kind):
        return self.stored

    async def patch(self, _path, _kind, body, patch_type):
        self.patches.append((body, patch_type))
        self.before_answer()
        await asyncio.sleep(0.01)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @asynccontextmanager
    async def watch(self, _collection, _name, _kind):
        async def events():
            while True:
                event = await self.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event

        yield events()

    async def close(self):
        """Nothing to close."""


async def started(stored):
    api = Api(stored)
    coordinator = KubernetesCoordinator(
        api, namespace="n", range_name="r", pod_name="pod-a", pod_uid="a", wall=lambda: "now"
    )
    await coordinator.start()
    await asyncio.sleep(0.1)
    return coordinator, api


@pytest.fixture
async def start():
    made = []

    async def make(stored):
        made.append(await started(stored))
        return made[-1]

    yield make
    for coordinator, _ in made:
        await coordinator.close()


def modified(found):
    return WatchEvent(EventType.MODIFIED, found)


async def test_an_older_state_never_replaces_a_newer_one(start):
    coordinator, api = await start(a_range(9, holder="a"))
    api.events.put_nowait(modified(a_range(8)))
    assert await stays_asleep(coordinator)
    assert coordinator.view.holding


async def test_the_watch_may_tell_of_an_own_write_before_its_answer_comes(start):
    coordinator, api = await start(a_range(1))
    taken = a_range(2, holder="a", epoch=1)
    api.answers, api.before_answer = [taken], lambda: api.events.put_nowait(modified(taken))
    assert await coordinator.take()
    assert await stays_asleep(coordinator)


async def test_a_change_of_the_spec_that_comes_with_an_own_write_wakes(start):
    coordinator, api = await start(a_range(1, holder="a"))
    api.answers = [replace(a_range(2, holder="a"), spec=replace(SPEC, hold=True))]
    await coordinator.report([ROW], [SINK])
    await coordinator.changed()
    assert coordinator.view.spec.hold


async def test_the_range_is_taken_only_in_the_state_that_was_judged(start):
    coordinator, api = await start(a_range(5, identifies_spent=2))
    api.answers = [a_range(6, holder="a", identifies_spent=2)]
    assert await coordinator.take()
    taken = {"holder": "a", "epoch": 1, "identifiesSpent": 2, "heartbeatTime": "now", "standby": None}
    assert api.patches == [({"metadata": {"resourceVersion": "5"}, "status": taken}, PatchType.MERGE)]


async def test_a_spend_tests_all_that_it_rests_on_in_the_write_itself(start):
    coordinator, api = await start(a_range(5, holder="a", identifies_spent=2))
    api.answers = [a_range(6, holder="a", identifies_spent=3)]
    assert await coordinator.spend()
    assert api.patches == [
        (
            [
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "test", "path": "/status/holder", "value": "a"},
                {"op": "test", "path": "/metadata/generation", "value": 4},
                {"op": "test", "path": "/status/identifiesSpent", "value": 2},
                {"op": "add", "path": "/status/identifiesSpent", "value": 3},
            ],
            PatchType.JSON,
        )
    ]


async def test_a_report_tests_object_and_holder_in_the_write_itself(start):
    coordinator, api = await start(a_range(5, holder="a"))
    api.answers = [a_range(6, holder="a")]
    await coordinator.report([ROW], [SINK], spool_bytes=3)
    [(body, patch_type)] = api.patches
    assert patch_type is PatchType.JSON
    assert body[:2] == [
        {"op": "test", "path": "/metadata/uid", "value": "u"},
        {"op": "test", "path": "/status/holder", "value": "a"},
    ]
    written = {step["path"]: step["value"] for step in body[2:]}
    assert written == {
        "/status/heartbeatTime": "now",
        "/status/shards": [ROW],
        "/status/sinks": [SINK],
        "/status/spoolBytes": 3,
    }


async def test_a_report_that_does_not_fit_the_schema_is_told_as_that(start):
    coordinator, api = await start(a_range(5, holder="a"))
    api.answers = [Invalid("status.shards[0].latency must not be negative")]
    with pytest.raises(CoordinatorUnavailable, match="latency"):
        await coordinator.report([ROW], [SINK])


async def test_a_report_refused_because_another_holds_is_not_retryable(start):
    coordinator, api = await start(a_range(5, holder="a"))
    api.answers, api.stored = [Invalid("test failed")], a_range(6, holder="b")
    with pytest.raises(NotHolder, match="pod b holds"):
        await coordinator.report([ROW], [SINK])


@pytest.mark.parametrize("refusal", [Conflict("409"), Invalid("test failed")])
async def test_a_spend_that_loses_is_judged_anew(start, refusal):
    coordinator, api = await start(a_range(5, holder="a"))
    api.answers, api.stored = [refusal], a_range(6, holder="a", identifies_spent=3)
    assert not await coordinator.spend()


async def test_a_storm_of_other_writers_ends_in_unavailable(start):
    coordinator, api = await start(a_range(5, holder="a"))
    api.answers = [Conflict("409")] * 100
    with pytest.raises(CoordinatorUnavailable, match="others wrote"):
        await coordinator.spend()
    assert len(api.patches) == kubernetes.ATTEMPTS + 1


async def test_a_bug_of_the_watch_is_not_kept_secret(start):
    coordinator, api = await start(a_range(5))
    api.events.put_nowait(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await coordinator.changed()


def test_a_swap_keeps_what_it_does_not_know_of_the_lease():
    lease = Lease(
        metadata={"name": "l", "resourceVersion": "9", "labels": {"kept": "yes"}},
        spec={"leaseDurationSeconds": 5, "strategy": "odd", "leaseTransitions": 41, "holderIdentity": None},
    )
    assert (lease.state.version, lease.state.holder) == ("9", "")
    swapped = lease.swapped("pod/3", version="8", now="now")
    assert swapped.metadata == {"name": "l", "resourceVersion": "8", "labels": {"kept": "yes"}}
    assert swapped.spec == {
        "leaseDurationSeconds": 5,
        "strategy": "odd",
        "leaseTransitions": 42,
        "holderIdentity": "pod/3",
        "acquireTime": "now",
        "renewTime": "now",
    }
    assert lease.metadata["resourceVersion"] == "9"


@pytest.mark.parametrize(("name", "uid"), [("", "u"), ("n", "")])
def test_a_pod_that_does_not_know_itself_cannot_run(name, uid):
    with pytest.raises(ConfigError, match="SHARDWRIGHT_POD_UID"):
        in_cluster(namespace="n", range_name="r", pod_name=name, pod_uid=uid)
