"""The work queue coalesces, keeps each key serial, paces, and backs off."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_operator.errors import ConflictError, ServerError
from shardwright_operator.keys import GatewayKey, RangeKey
from shardwright_operator.workqueue import LAST_BACKOFF, Schedule, WorkQueue, backoff
from unit.operator.waiting import until

A, B = RangeKey("n", "a"), RangeKey("n", "b")
GATEWAY = GatewayKey("n", "g")


def schedule():
    return Schedule(pace=lambda key: 1.0 if isinstance(key, GatewayKey) else 0.0, jitter=lambda: 1.0)


def test_a_key_added_many_times_comes_up_once():
    made = schedule()
    for _ in range(10):
        made.add(A, 0.0)
    assert made.take(0.0) == A
    assert made.take(0.0) is None


def test_keys_come_up_in_the_order_in_which_they_are_due():
    made = schedule()
    made.add(A, 0.0, 2.0)
    made.add(B, 0.0, 1.0)
    assert made.next_due() == 1.0
    assert made.take(0.5) is None
    assert [made.take(3.0), made.take(3.0)] == [B, A]


def test_the_earliest_wish_counts():
    made = schedule()
    made.add(A, 0.0, 5.0)
    made.add(A, 0.0, 1.0)
    made.add(A, 0.0, 9.0)
    assert made.take(1.0) == A
    made.done(A, 1.0)
    assert made.take(100.0) is None


def test_a_key_that_is_added_while_it_runs_comes_again_afterwards_and_never_beside():
    made = schedule()
    made.add(A, 0.0)
    made.take(0.0)
    made.add(A, 0.5)
    assert made.take(0.5) is None
    made.done(A, 1.0)
    assert made.take(1.0) == A


def test_two_turns_of_a_paced_key_are_a_second_apart_and_the_first_is_immediate():
    made = schedule()
    made.add(GATEWAY, 10.0)
    assert made.take(10.0) == GATEWAY
    made.done(GATEWAY, 10.1)
    made.add(GATEWAY, 10.2)
    assert made.take(10.9) is None
    assert made.take(11.0) == GATEWAY


def test_failures_double_the_wait_and_success_forgets_them():
    made = schedule()
    waits = []
    for _ in range(3):
        made.add(A, 0.0)
        while made.take(1000.0) is None:
            pass
        waits.append(made.failed(A, 0.0))
    assert waits == [0.5, 1.0, 2.0]
    made.take(1000.0)
    made.done(A, 0.0)
    made.add(A, 0.0)
    made.take(1000.0)
    assert made.failed(A, 0.0) == 0.5


def test_what_came_while_a_failing_key_ran_waits_for_the_backoff_too():
    made = schedule()
    made.add(A, 0.0)
    made.take(0.0)
    made.add(A, 0.0)
    made.failed(A, 0.0)
    assert made.take(0.4) is None
    assert made.take(0.5) == A


def test_a_forgotten_key_leaves_nothing_behind():
    made = schedule()
    made.add(A, 0.0)
    made.take(0.0)
    made.done(A, 0.0, 5.0)
    made.forget(A)
    assert made.take(100.0) is None
    assert len(made) == 0


@given(st.integers(1, 500), st.floats(0, 1, exclude_max=True))
def test_the_backoff_stays_between_half_and_all_of_its_limit(failures, luck):
    assert 0.25 <= backoff(failures, lambda: luck) <= LAST_BACKOFF


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "take", "done", "fail"]), st.sampled_from([A, B, GATEWAY]), st.floats(0, 3))
    )
)
def test_no_key_is_handed_out_twice_at_a_time_and_none_is_lost(steps):
    made, running, wished, now = schedule(), set(), set(), 0.0
    for step, key, seconds in steps:
        now += seconds
        if step == "add":
            made.add(key, now)
            wished.add(key)
        elif step == "take":
            taken = made.take(now)
            assert taken not in running
            if taken is not None:
                running.add(taken)
                wished.discard(taken)
        elif key in running:
            running.discard(key)
            made.done(key, now) if step == "done" else made.failed(key, now)
            wished |= {key} if step == "fail" else set()
    found = set()
    for key in running:
        made.done(key, now)
    while (key := made.take(now + 1000)) is not None:
        found.add(key)
    assert wished <= found


async def test_a_lost_compare_and_swap_comes_again_at_once_and_is_no_failure():
    seen = []

    async def handle(key):
        seen.append(key)
        if len(seen) == 1:
            raise ConflictError(409, "Conflict", "")

    await _run(handle, lambda queue: len(seen) == 2 and queue.failures == 0)


@pytest.mark.parametrize("error", [ServerError(500, "", ""), RuntimeError("a bug")])
async def test_whatever_a_handler_raises_the_queue_goes_on(error):
    seen = []

    async def handle(key):
        seen.append(key)
        if len(seen) == 1:
            raise error

    await _run(handle, lambda queue: len(seen) == 2 and queue.failures == 1)


async def _run(handle, done):
    queue = WorkQueue(handle, pace=lambda _: 0.0)
    queue.add(A)
    task = asyncio.create_task(queue.run(2))
    await until(lambda: done(queue))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
