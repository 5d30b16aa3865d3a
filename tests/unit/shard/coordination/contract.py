"""What every `Coordinator` must do: one suite, run against the one in memory and the one on a real API server.

A `Stage` is a cluster with one range and its gateway, whose operator and whose faults the test plays.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from shardwright_api.resources import ShardRange, ShardState, ShardStatus, SinkStatus
from shardwright_shard.coordination.base import Coordinator
from shardwright_shard.errors import CoordinatorUnavailable, NotHolder, RangeGone

WINDOW = 5.4
ROW = ShardStatus(id=0, state=ShardState.READY, session="abc", url="wss://x", seq=7, guilds=3, latency=41)
LAST_ROW = ShardStatus(id=0, state=ShardState.CLOSED, session="abc", url="wss://x", seq=9)
SINK = SinkStatus(name="events", available=True)


class Stage(Protocol):
    """A cluster with the range `RANGE` of bot `BOT`, max_concurrency 2, and its gateway."""

    async def coordinator(self, pod: str, *, start: bool = True) -> Coordinator:
        """Give a pod's coordinator, started."""

    async def change(self, **fields: Any) -> None:
        """Change fields of the range's spec, named as in `RangeSpec`."""

    async def range(self) -> ShardRange:
        """Read the range as stored."""

    async def delete(self) -> None:
        """Delete the range."""

    async def recreate(self) -> None:
        """Delete the range and make another one of the same name."""

    async def delete_gateway(self) -> None:
        """Delete the gateway. The range may follow."""

    async def recreate_gateway(self) -> None:
        """Delete the gateway and make another one of the same name."""

    async def make_lease(self, bucket: int) -> None:
        """Make a bucket's Lease."""

    async def lease_holder(self, bucket: int) -> str:
        """Read who swapped a bucket's Lease last."""

    def cut(self, pod: str) -> None:
        """Cut a pod off from the API."""

    def restore(self) -> None:
        """Let every pod reach the API again."""


async def sees(coordinator: Coordinator, what: Callable[[], bool]) -> None:
    """Wait until the coordinator's view shows something."""
    async with asyncio.timeout(10):
        while not what():
            await coordinator.changed()


async def stays_asleep(coordinator: Coordinator) -> bool:
    """Say whether `changed` does not return within a second."""
    try:
        async with asyncio.timeout(1):
            await coordinator.changed()
    except TimeoutError:
        return True
    return False


async def holder(stage: Stage, pod: str) -> Coordinator:
    """Make a pod the holder of the range."""
    epoch = (await stage.range()).spec.epoch + 1
    await stage.change(active_pod=pod, epoch=epoch)
    coordinator = await stage.coordinator(pod)
    assert await coordinator.take()
    return coordinator


async def successor(stage: Stage, pod: str, *, of: str) -> Coordinator:
    """Fence the holder and make another pod take the range."""
    await stage.change(fenced_holder=of)
    return await holder(stage, pod)


class Starting:
    async def test_without_a_range_nothing_starts(self, stage):
        await stage.delete()
        coordinator = await stage.coordinator("a", start=False)
        with pytest.raises(RangeGone):
            await coordinator.start()

    async def test_the_view_shows_the_range_from_the_start(self, stage):
        view = (await stage.coordinator("a")).view
        assert (view.spec.first, view.spec.last, view.active, view.holding) == (0, 3, False, False)

    async def test_the_view_follows_the_operator(self, stage):
        coordinator = await stage.coordinator("a")
        await stage.change(active_pod="a", identify_grant=2)
        await sees(coordinator, lambda: coordinator.view.active and coordinator.view.spec.identify_grant == 2)


class Waking:
    async def test_a_change_wakes_once(self, stage):
        coordinator = await stage.coordinator("a")
        await stage.change(hold=True)
        await coordinator.changed()
        assert coordinator.view.spec.hold
        assert await stays_asleep(coordinator)

    async def test_own_writes_wake_nobody(self, stage):
        coordinator = await holder(stage, "a")
        await stage.change(identify_grant=2)
        await coordinator.changed()
        await coordinator.report([ROW], [SINK])
        assert await coordinator.spend()
        await coordinator.forfeit()
        await coordinator.release([ROW], [SINK])
        assert await coordinator.take()
        assert await stays_asleep(coordinator)
        assert coordinator.view.holding

    async def test_other_pods_reports_wake_nobody(self, stage):
        coordinator, other = await holder(stage, "a"), await stage.coordinator("b")
        await coordinator.report([ROW], [SINK])
        assert await stays_asleep(other)
        await other.report_standby(sinks_available=True)
        assert await stays_asleep(coordinator)

    async def test_a_successor_wakes_when_the_holder_releases(self, stage):
        coordinator, other = await holder(stage, "a"), await stage.coordinator("b")
        await stage.change(active_pod="b")
        await sees(other, lambda: other.view.active)
        await coordinator.release([LAST_ROW], [SINK])
        await sees(other, lambda: other.view.status.holder == "")
        assert await other.take()
        assert other.view.status.shards == (LAST_ROW,)

    async def test_the_end_of_the_range_is_told_each_time(self, stage):
        coordinator = await holder(stage, "a")
        await stage.delete()
        for _ in range(2):
            with pytest.raises(RangeGone):
                await sees(coordinator, lambda: False)

    async def test_another_range_of_the_same_name_is_not_ours(self, stage):
        coordinator = await holder(stage, "a")
        await stage.recreate()
        with pytest.raises(RangeGone):
            await sees(coordinator, lambda: False)
        for refused in (coordinator.take, coordinator.spend, coordinator.holds, coordinator.forfeit):
            with pytest.raises(RangeGone):
                await refused()
        with pytest.raises(RangeGone):
            await coordinator.report([ROW], [SINK])
        assert (await stage.range()).status.shards == ()


class Taking:
    async def test_a_pod_that_is_not_active_takes_nothing(self, stage):
        coordinator = await stage.coordinator("a")
        assert not await coordinator.take()
        await stage.change(active_pod="b")
        assert not await coordinator.take()
        assert (await stage.range()).status.holder == ""

    async def test_the_active_pod_takes_a_free_range_in_its_epoch(self, stage):
        await stage.change(active_pod="a", epoch=4)
        coordinator = await stage.coordinator("a")
        assert await coordinator.take()
        status = (await stage.range()).status
        assert (status.holder, status.epoch, bool(status.heartbeat_time)) == ("a", 4, True)
        assert coordinator.view.holding
        assert await coordinator.holds()

    async def test_a_grant_seen_late_is_still_honoured(self, stage):
        coordinator = await stage.coordinator("a")
        await stage.change(active_pod="a")
        assert await coordinator.take()

    async def test_a_restarted_container_takes_its_own_range_again(self, stage):
        await holder(stage, "a")
        again = await stage.coordinator("a")
        assert again.view.holding
        assert await again.take()

    async def test_nobody_takes_a_range_that_another_pod_holds(self, stage):
        coordinator = await holder(stage, "a")
        await stage.change(active_pod="b")
        assert not await (await stage.coordinator("b")).take()
        assert await coordinator.holds()

    async def test_a_fenced_holder_is_replaced_and_learns_of_it(self, stage):
        coordinator = await holder(stage, "a")
        await successor(stage, "b", of="a")
        await sees(coordinator, lambda: coordinator.view.status.holder == "b")
        assert not coordinator.view.holding
        assert not await coordinator.holds()
        assert not await coordinator.take()

    async def test_a_fenced_holder_does_not_count_as_holding_even_before_it_is_replaced(self, stage):
        coordinator = await holder(stage, "a")
        await stage.change(fenced_holder="a", active_pod="b", identify_grant=1)
        assert not await coordinator.holds()
        assert not await coordinator.spend()

    async def test_of_two_active_in_turns_one_holds(self, stage):
        await stage.change(active_pod="a")
        one, same = await stage.coordinator("a"), await stage.coordinator("a")
        assert await asyncio.gather(one.take(), same.take()) == [True, True]
        assert (await stage.range()).status.holder == "a"


class Reporting:
    async def test_the_holder_writes_its_rows(self, stage):
        coordinator = await holder(stage, "a")
        before = (await stage.range()).status.heartbeat_time
        await coordinator.report([ROW], [SINK], spool_bytes=12)
        status = (await stage.range()).status
        assert (status.shards, status.sinks, status.spool_bytes, status.holder) == ((ROW,), (SINK,), 12, "a")
        assert status.heartbeat_time > before
        assert coordinator.view.status.shards == (ROW,)

    async def test_a_pod_that_never_held_writes_nothing(self, stage):
        coordinator = await stage.coordinator("a")
        with pytest.raises(NotHolder):
            await coordinator.report([ROW], [SINK])
        assert (await stage.range()).status.shards == ()

    async def test_a_late_report_never_overwrites_the_successors_cursors(self, stage):
        coordinator = await holder(stage, "a")
        other = await successor(stage, "b", of="a")
        await other.report([LAST_ROW], [SINK])
        with pytest.raises(NotHolder):
            await coordinator.report([ROW], [SINK])
        with pytest.raises(NotHolder):
            await coordinator.release([ROW], [SINK])
        status = (await stage.range()).status
        assert (status.holder, status.shards) == ("b", (LAST_ROW,))

    async def test_nothing_is_reported_after_the_release(self, stage):
        coordinator = await holder(stage, "a")
        await coordinator.release([LAST_ROW], [SINK])
        with pytest.raises(NotHolder):
            await coordinator.report([ROW], [SINK])
        assert (await stage.range()).status.shards == (LAST_ROW,)

    async def test_reports_leave_others_keys_alone(self, stage):
        coordinator, other = await holder(stage, "a"), await stage.coordinator("b")
        await stage.change(identify_grant=1)
        assert await coordinator.spend()
        await other.report_standby(sinks_available=True)
        await coordinator.report([ROW], [SINK])
        status = (await stage.range()).status
        assert (status.identifies_spent, list(status.standby)) == (1, ["b"])


class StandingBy:
    async def test_a_standby_tells_since_when_it_waits_and_whether_its_sinks_are_there(self, stage):
        coordinator = await stage.coordinator("b")
        await coordinator.report_standby(sinks_available=False)
        first = (await stage.range()).status.standby["b"]
        await coordinator.report_standby(sinks_available=True)
        second = (await stage.range()).status.standby["b"]
        assert (first.sinks_available, second.sinks_available, first.since) == (False, True, second.since)

    async def test_saying_the_same_again_writes_nothing(self, stage):
        coordinator = await stage.coordinator("b")
        await coordinator.report_standby(sinks_available=True)
        before = await stage.range()
        await coordinator.report_standby(sinks_available=True)
        assert (await stage.range()) == before

    async def test_who_takes_the_range_empties_the_waiting_list(self, stage):
        for pod in ("a", "dead"):
            await (await stage.coordinator(pod)).report_standby(sinks_available=True)
        await holder(stage, "a")
        assert (await stage.range()).status.standby == {}

    async def test_the_waiting_list_stays_short_however_many_pods_die_in_it(self, stage):
        for number in range(12):
            await (await stage.coordinator(f"p{number}")).report_standby(sinks_available=False)
        standby = (await stage.range()).status.standby
        assert set(standby) == {f"p{number}" for number in range(4, 12)}


class Releasing:
    async def test_release_writes_the_last_cursors_and_frees_the_range(self, stage):
        coordinator = await holder(stage, "a")
        await coordinator.release([LAST_ROW], [SINK])
        status = (await stage.range()).status
        assert (status.holder, status.shards) == ("", (LAST_ROW,))
        assert not coordinator.view.holding
        assert not await coordinator.holds()

    async def test_what_waited_in_the_spool_of_the_last_holder_is_nobodys_afterwards(self, stage):
        coordinator = await holder(stage, "a")
        await coordinator.report([ROW], [SINK], spool_bytes=12)
        await coordinator.release([LAST_ROW], [SINK])
        assert (await stage.range()).status.spool_bytes == 0

    async def test_releasing_twice_is_harmless(self, stage):
        coordinator = await holder(stage, "a")
        await coordinator.release([LAST_ROW], [SINK])
        await coordinator.release([ROW], [SINK])
        assert (await stage.range()).status.shards == (LAST_ROW,)


class Spending:
    async def test_the_holder_spends_what_was_granted_and_no_more(self, stage):
        coordinator = await holder(stage, "a")
        assert not await coordinator.spend()
        await stage.change(identify_grant=2)
        assert [await coordinator.spend() for _ in range(3)] == [True, True, False]
        assert (await stage.range()).status.identifies_spent == 2
        assert coordinator.view.status.identifies_spent == 2

    async def test_two_shards_at_once_spend_two(self, stage):
        coordinator = await holder(stage, "a")
        await stage.change(identify_grant=2)
        spent = await asyncio.gather(*(coordinator.spend() for _ in range(4)))
        assert sorted(spent) == [False, False, True, True]

    async def test_nothing_is_spent_on_hold(self, stage):
        coordinator = await holder(stage, "a")
        await stage.change(identify_grant=1, hold=True)
        assert not await coordinator.spend()
        await stage.change(hold=False)
        assert await coordinator.spend()

    async def test_only_the_holder_spends(self, stage):
        await holder(stage, "a")
        await stage.change(identify_grant=1)
        assert not await (await stage.coordinator("b")).spend()

    async def test_forfeiting_leaves_nothing_to_spend_until_a_new_grant(self, stage):
        coordinator = await holder(stage, "a")
        await stage.change(identify_grant=5)
        assert await coordinator.spend()
        await coordinator.forfeit()
        await coordinator.forfeit()
        assert not await coordinator.spend()
        assert (await stage.range()).status.identifies_spent == 5
        await stage.change(identify_grant=6)
        assert await coordinator.spend()

    async def test_only_the_holder_forfeits(self, stage):
        await holder(stage, "a")
        await stage.change(identify_grant=5)
        with pytest.raises(NotHolder):
            await (await stage.coordinator("b")).forfeit()
        assert (await stage.range()).status.identifies_spent == 0


class AskingForTheGateway:
    async def test_it_is_there(self, stage):
        assert not await (await stage.coordinator("a")).gateway_gone()

    async def test_it_was_deleted(self, stage):
        coordinator = await stage.coordinator("a")
        await stage.delete_gateway()
        assert await coordinator.gateway_gone()

    async def test_it_is_another_one_of_the_same_name(self, stage):
        coordinator = await stage.coordinator("a")
        await stage.recreate_gateway()
        assert await coordinator.gateway_gone()


class Identifying:
    async def test_a_lease_never_seen_before_counts_as_changed_now(self, stage):
        coordinator, now = await stage.coordinator("a"), asyncio.get_running_loop().time
        await stage.make_lease(0)
        asked_at = now()
        until = await coordinator.slot(0, 0)
        assert until is not None
        assert WINDOW <= now() - asked_at < WINDOW + 0.5
        assert now() < until <= now() + 0.25
        assert await stage.lease_holder(0) == "a/0"

    async def test_a_bucket_observed_before_is_free_at_once(self, stage):
        coordinator, now = await stage.coordinator("a"), asyncio.get_running_loop().time
        await stage.make_lease(0)
        coordinator.watch_bucket(0)
        await asyncio.sleep(WINDOW + 0.5)
        asked_at = now()
        await coordinator.slot(0, 0)
        assert now() - asked_at < 0.3

    async def test_shards_of_a_bucket_go_one_window_apart_and_ascending_in_each_pod(self, stage):
        now, times = asyncio.get_running_loop().time, {}
        await stage.make_lease(0)

        async def identify(coordinator, shard):
            await coordinator.slot(0, shard)
            times[shard] = now()

        one, other = await stage.coordinator("a"), await stage.coordinator("b")
        await asyncio.gather(identify(one, 4), identify(other, 2), identify(one, 0))
        assert times[0] < times[4]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times.values())]
        assert all(WINDOW - 0.1 < gap < WINDOW + 0.5 for gap in gaps), gaps

    async def test_buckets_do_not_wait_for_each_other(self, stage):
        coordinator, now = await stage.coordinator("a"), asyncio.get_running_loop().time
        for bucket in (0, 1):
            await stage.make_lease(bucket)
        began = now()
        await asyncio.gather(coordinator.slot(0, 0), coordinator.slot(1, 1))
        assert now() - began < WINDOW + 0.5

    async def test_a_bucket_without_a_lease_is_waited_for(self, stage):
        coordinator = await stage.coordinator("a")
        waiting = asyncio.create_task(coordinator.slot(1, 1))
        await asyncio.sleep(0.5)
        await stage.make_lease(1)
        async with asyncio.timeout(WINDOW + 2):
            assert await waiting is not None

    async def test_who_gives_up_waiting_makes_room(self, stage):
        coordinator = await stage.coordinator("a")
        await stage.make_lease(0)
        first = asyncio.create_task(coordinator.slot(0, 0))
        second = asyncio.create_task(coordinator.slot(0, 2))
        await asyncio.sleep(0.2)
        first.cancel()
        async with asyncio.timeout(WINDOW + 1):
            assert await second is not None
        assert await stage.lease_holder(0) == "a/2"


class BeingCutOff:
    async def test_everything_fails_soon_and_the_view_stays(self, stage):
        coordinator = await holder(stage, "a")
        stage.cut("a")
        calls = (
            coordinator.take,
            lambda: coordinator.report([ROW], [SINK]),
            lambda: coordinator.report_standby(sinks_available=True),
            lambda: coordinator.release([ROW], [SINK]),
            coordinator.spend,
            coordinator.forfeit,
            coordinator.holds,
            coordinator.gateway_gone,
            lambda: coordinator.slot(0, 0),
        )
        for call in calls:
            async with asyncio.timeout(8):
                with pytest.raises(CoordinatorUnavailable):
                    await call()
        assert coordinator.view.holding

    async def test_who_waits_for_a_slot_is_told(self, stage):
        coordinator = await stage.coordinator("a")
        await stage.make_lease(0)
        waiting = asyncio.create_task(coordinator.slot(0, 0))
        await asyncio.sleep(0.5)
        stage.cut("a")
        async with asyncio.timeout(8):
            with pytest.raises(CoordinatorUnavailable):
                await waiting

    async def test_afterwards_it_sees_what_it_missed(self, stage):
        coordinator = await holder(stage, "a")
        stage.cut("a")
        await stage.change(active_pod="b", fenced_holder="a")
        assert await stays_asleep(coordinator)
        stage.restore()
        await sees(coordinator, lambda: not coordinator.view.active)
        assert not await coordinator.holds()

    async def test_afterwards_it_sees_that_the_range_is_gone(self, stage):
        coordinator = await holder(stage, "a")
        stage.cut("a")
        await stage.delete()
        stage.restore()
        with pytest.raises(RangeGone):
            await sees(coordinator, lambda: False)


class CoordinatorContract(
    Starting,
    Waking,
    Taking,
    Reporting,
    StandingBy,
    Releasing,
    Spending,
    AskingForTheGateway,
    Identifying,
    BeingCutOff,
):
    """The whole contract: a subclass named `Test...` runs it against its fixture `stage`."""
