"""Carrying out: in order, by compare-and-swap, and with every answer remembered at once."""

import asyncio

import msgspec
import pytest

from shardwright_api.resources import GatewayStatus, to_wire
from shardwright_operator import render
from shardwright_operator.actions import Announce, Apply, Batch, Create, DeletePod, PatchRange, WriteStatus
from shardwright_operator.errors import ConflictError, ForbiddenError, NotFoundError
from shardwright_operator.events import Announcement, EventReason, EventWriter, body
from shardwright_operator.executor import Executor
from shardwright_operator.kube import EVENTS, GATEWAYS, LEASES, PODS, RANGES
from shardwright_operator.store import Store
from unit.operator import builders
from unit.operator.memory_kube import MemoryKube
from unit.operator.waiting import until


class Made:
    def __init__(self):
        self.kube = MemoryKube()
        self.store = Store(clock=lambda: 0.0, enqueue=lambda _: None)
        self.events = EventWriter(self.kube, instance="me")
        self.executor = Executor(self.kube, self.store, self.events)

    def seed(self, of):
        """Put a range on the server and into the store; give it as stored."""
        wire = to_wire(of)
        stored = msgspec.convert(self.kube.put(RANGES, wire), type=type(of))
        self.store.put_range(stored)
        return stored

    async def do(self, *actions):
        await self.executor.run(actions)


@pytest.fixture
def made():
    return Made()


async def test_what_was_created_is_in_the_store_before_the_watch_tells(made):
    of = made.seed(builders.shard_range())
    await made.do(Create(PODS, render.pod(builders.wanted(), of, 1)))
    (pod,) = made.store.pods(builders.key())
    assert pod.owner_uid == of.metadata.uid


async def test_that_something_exists_already_is_fine(made):
    of = made.seed(builders.shard_range())
    await made.do(*[Create(PODS, render.pod(builders.wanted(), of, 1))] * 2)
    assert len(made.store.pods(builders.key())) == 1


async def test_a_range_is_changed_only_as_it_was_seen(made):
    of = made.seed(builders.shard_range())
    await made.do(PatchRange(of, msgspec.structs.replace(of.spec, incarnation=1), {"note": "x"}))
    now = made.store.ranges[builders.key()]
    assert (now.spec.incarnation, now.metadata.annotations) == (1, {"note": "x"})
    with pytest.raises(ConflictError):
        await made.do(PatchRange(of, msgspec.structs.replace(of.spec, incarnation=2)))
    assert made.store.ranges[builders.key()].spec.incarnation == 1


async def test_after_a_lost_swap_the_range_is_read_again_and_nothing_behind_it_is_done(made):
    of = made.seed(builders.shard_range())
    made.kube.put(RANGES, to_wire(builders.with_spec(of, epoch=7)))
    with pytest.raises(ConflictError):
        await made.do(
            PatchRange(of, msgspec.structs.replace(of.spec, incarnation=1)),
            Create(PODS, render.pod(builders.wanted(), of, 1)),
        )
    assert made.store.ranges[builders.key()].spec.epoch == 7
    assert not made.store.pods(builders.key())


async def test_a_patch_that_changes_nothing_is_not_sent(made):
    of = made.seed(builders.shard_range())
    await made.do(PatchRange(of, of.spec, {"absent": None}))
    assert not [call for call in made.kube.calls if call[0] == "patch"]


async def test_a_range_that_is_gone_is_forgotten(made):
    of = made.seed(builders.shard_range())
    made.kube.objects.clear()
    with pytest.raises(NotFoundError):
        await made.do(PatchRange(of, msgspec.structs.replace(of.spec, incarnation=1)))
    assert not made.store.ranges


async def test_a_pod_that_is_gone_already_is_forgotten(made):
    pod = builders.pod()
    made.store.put_pod(pod)
    await made.do(DeletePod(pod))
    assert not made.store.pods(builders.key())


async def test_a_status_goes_to_the_gateway_with_this_uid_only(made):
    of = msgspec.convert(made.kube.put(GATEWAYS, to_wire(builders.GATEWAY_OBJECT)), type=type(builders.GATEWAY_OBJECT))
    await made.do(WriteStatus(of, GatewayStatus(phase="Ready")))
    assert made.kube.objects["discordgateways", "bots", "mybot"]["status"] == {"phase": "Ready"}
    other = msgspec.structs.replace(of, metadata=msgspec.structs.replace(of.metadata, uid="other"))
    await made.do(WriteStatus(other, GatewayStatus(phase="Starting")))
    assert made.kube.objects["discordgateways", "bots", "mybot"]["status"] == {"phase": "Ready"}


async def test_one_failure_in_a_batch_does_not_keep_the_others_from_being_done(made):
    made.kube.fail["create", "leases"] = ForbiddenError(403, "Forbidden", "")
    with pytest.raises(ForbiddenError):
        await made.do(Batch(tuple(Create(LEASES, render.lease("bots", "1", bucket)) for bucket in range(3))))
    assert sum(plural == "leases" for plural, _, _ in made.kube.objects) == 2


async def test_what_was_done_is_counted(made):
    await made.do(Apply(PODS, {"metadata": {"name": "x", "namespace": "n"}}))
    assert made.executor.done == {"Apply": 1}


def announcement(note="note"):
    return Announcement("ShardRange", builders.shard_range().metadata, EventReason.POD_CREATED, note)


async def test_an_event_is_written_once_and_a_courtesy(made):
    await made.do(Announce(announcement()), Announce(announcement()), Announce(announcement("other")))
    made.kube.fail["create", "events"] = ForbiddenError(403, "Forbidden", "")
    task = asyncio.create_task(made.events.run())
    await until(lambda: sum(call[1] == "events" for call in made.kube.calls) == 2)
    task.cancel()
    assert made.events.dropped == 1


async def test_too_many_events_are_dropped(made):
    for number in range(1001):
        made.events.announce(announcement(str(number)))
    assert made.events.dropped == 1


def test_an_event_looks_as_kubernetes_wants_it():
    event = body(announcement("n" * 2000), moment=builders.moment(), instance="me")
    assert event["metadata"] == {"generateName": "mybot-4-0-1-", "namespace": "bots"}
    assert event["eventTime"] == "2026-01-02T03:04:05.000000Z"
    assert (event["reason"], event["action"], event["type"]) == ("PodCreated", "PodCreated", "Normal")
    assert event["regarding"]["kind"] == "ShardRange"
    assert len(event["note"]) == 1024
    assert event["apiVersion"] == EVENTS.api_version
