"""Lines before identify buckets: lowest shard first, one swap in flight, watched only while somebody waits."""

import asyncio

import pytest

from shardwright_shard.coordination.bucket import WINDOW, LeaseState
from shardwright_shard.coordination.slots import LINGER, MAX_MARGIN, Slots, Swapped
from shardwright_shard.errors import CoordinatorUnavailable


class Leases:
    """A world of Leases: counts watches and swaps, and does to each swap what the test says."""

    def __init__(self):
        self.version = 0
        self.swaps = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.watches = []
        self.stopped = []
        self.answer_after = 0.0
        self.refuse = 0
        self.error = None
        self.slots = Slots(swap=self.swap, watch=self.watch, max_concurrency=1)

    def state(self):
        return LeaseState(str(self.version), "")

    def watch(self, bucket):
        self.watches.append(bucket)
        asyncio.get_running_loop().call_soon(self.slots.observe, bucket, self.state())
        return lambda: self.stopped.append(bucket)

    async def swap(self, bucket, seen, shard):
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.answer_after)
        self.in_flight -= 1
        if self.error:
            raise self.error
        won = seen == self.state() and not self.refuse
        self.refuse = max(self.refuse - 1, 0)
        self.version += 1
        self.swaps.append((bucket, shard, won))
        return Swapped(won, self.state())


@pytest.fixture
async def leases():
    found = Leases()
    yield found
    found.slots.close()


def now():
    return asyncio.get_running_loop().time()


async def test_the_lowest_shard_goes_first_however_late_it_comes(leases):
    waiting = [asyncio.create_task(leases.slots.slot(0, shard)) for shard in (5, 3, 9)]
    await asyncio.sleep(1)
    waiting.append(asyncio.create_task(leases.slots.slot(0, 1)))
    await asyncio.gather(*waiting)
    assert leases.swaps == [(0, 1, True), (0, 3, True), (0, 5, True), (0, 9, True)]


async def test_the_next_shard_waits_for_the_swap_in_flight_and_then_a_window(leases):
    leases.answer_after = 0.05
    await asyncio.gather(*(leases.slots.slot(0, shard) for shard in range(3)))
    assert leases.most_in_flight == 1
    assert now() == pytest.approx(3 * (WINDOW + 0.05), abs=0.1)


async def test_a_slot_lasts_for_a_quarter_of_a_second_from_the_swap(leases):
    leases.answer_after = 0.04
    assert await leases.slots.slot(0, 0) == pytest.approx(now() + 0.21)


async def test_an_answer_that_comes_too_late_gives_the_slot_up(leases):
    leases.answer_after = 0.3
    assert await leases.slots.slot(0, 0) is None


async def test_a_lost_swap_is_a_change_seen_now(leases):
    leases.refuse = 2
    await leases.slots.slot(0, 0)
    assert [won for _, _, won in leases.swaps] == [False, False, True]
    assert now() == pytest.approx(3 * WINDOW)


async def test_a_swap_that_fails_raises_and_leaves_the_line_in_order(leases):
    leases.error = CoordinatorUnavailable("no answer")
    first = asyncio.create_task(leases.slots.slot(0, 0))
    with pytest.raises(CoordinatorUnavailable):
        await first
    leases.error = None
    assert await leases.slots.slot(0, 1) is not None


async def test_a_watch_that_fails_is_told_to_all_who_wait(leases):
    waiting = [asyncio.create_task(leases.slots.slot(0, shard)) for shard in (0, 1)]
    await asyncio.sleep(1)
    leases.slots.fail(0, CoordinatorUnavailable("cut"))
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in found] == [CoordinatorUnavailable, CoordinatorUnavailable]
    assert leases.swaps == []


async def test_without_a_lease_nothing_is_tried(leases):
    waiting = asyncio.create_task(leases.slots.slot(0, 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leases.slots.observe(0, None)
    await asyncio.sleep(60)
    assert leases.swaps == []
    leases.slots.observe(0, leases.state())
    await waiting
    assert now() == pytest.approx(60 + WINDOW)


async def test_a_change_by_others_starts_the_wait_anew(leases):
    waiting = asyncio.create_task(leases.slots.slot(0, 0))
    await asyncio.sleep(3)
    leases.version += 1
    leases.slots.observe(0, leases.state())
    await waiting
    assert now() == pytest.approx(3 + WINDOW)


async def test_a_bucket_has_one_watch_for_all_and_none_when_nobody_has_waited_for_a_while(leases):
    await asyncio.gather(leases.slots.slot(0, 0), leases.slots.slot(0, 1))
    assert (leases.watches, leases.stopped) == ([0], [])
    await asyncio.sleep(LINGER + 0.1)
    assert (leases.stopped, leases.slots.watched()) == ([0], [])


async def test_a_bucket_that_is_only_wanted_is_let_go_too(leases):
    leases.slots.want(0)
    leases.slots.want(0)
    await asyncio.sleep(LINGER + 0.1)
    assert (leases.watches, leases.stopped) == ([0], [0])


async def test_somebody_who_waits_long_keeps_the_watch(leases):
    waiting = asyncio.create_task(leases.slots.slot(0, 0))
    for _ in range(20):
        await asyncio.sleep(2)
        leases.version += 1
        leases.slots.observe(0, leases.state())
    assert leases.stopped == []
    await waiting


async def test_what_was_seen_stays_known_when_nobody_watches(leases):
    await leases.slots.slot(0, 0)
    await asyncio.sleep(60)
    began = now()
    await leases.slots.slot(0, 1)
    assert now() - began < 0.1
    assert leases.watches == [0, 0]


async def test_closing_stops_every_watch(leases):
    leases.slots.want(0)
    leases.slots.want(1)
    leases.slots.close()
    assert sorted(leases.stopped) == [0, 1]


async def test_an_identify_that_came_too_early_gives_the_bucket_more_time_until_some_came_in_time(leases):
    waits = []
    await leases.slots.slot(0, 0)
    for too_early in [True, True, *[False] * 3, *[True] * 20]:
        leases.slots.judge(0, too_early=too_early)
        before = now()
        await leases.slots.slot(0, 0)
        waits.append(now() - before - WINDOW)
    assert waits[:5] == pytest.approx([0.25, 0.5, 0.25, 0.0, 0.0], abs=0.1)
    assert waits[-1] == pytest.approx(MAX_MARGIN, abs=0.1)


async def test_other_buckets_keep_their_time(leases):
    leases.slots.judge(1, too_early=True)
    await leases.slots.slot(0, 0)
    before = now()
    await leases.slots.slot(0, 0)
    assert now() - before == pytest.approx(WINDOW, abs=0.1)
