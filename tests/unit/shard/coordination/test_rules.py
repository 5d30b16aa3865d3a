"""What a pod may do to its range: every combination of holder, active pod, fence, grant and hold."""

import itertools

import pytest

from shardwright_api.resources import ObjectMeta, RangeSpec, RangeStatus, ShardConfig, ShardRange, StandbyStatus
from shardwright_shard.coordination import rules

CONFIG = ShardConfig(gateway="g", gateway_url="wss://x", intents=1)


def a_range(*, holder="", active="", fenced="", grant=0, spent=0, hold=False):
    spec = RangeSpec(
        first=0,
        last=3,
        total=4,
        bot_id="1",
        max_concurrency=1,
        config=CONFIG,
        active_pod=active,
        fenced_holder=fenced,
        identify_grant=grant,
        hold=hold,
    )
    return ShardRange(
        metadata=ObjectMeta(name="r"), spec=spec, status=RangeStatus(holder=holder, identifies_spent=spent)
    )


PODS = ["", "a", "b"]
STATES = list(itertools.product(PODS, PODS, PODS))


@pytest.mark.parametrize(("holder", "active", "fenced"), STATES)
def test_the_active_pod_takes_what_is_free_fenced_or_its_own(holder, active, fenced):
    found = a_range(holder=holder, active=active, fenced=fenced)
    assert rules.may_take(found, "a") == (active == "a" and (holder in ("", "a") or holder == fenced))


@pytest.mark.parametrize(("holder", "active", "fenced"), STATES)
def test_two_pods_never_hold_and_nobody_takes_from_one_that_holds(holder, active, fenced):
    found = a_range(holder=holder, active=active, fenced=fenced)
    holds = [pod for pod in ("a", "b") if rules.holds(found, pod)]
    assert len(holds) <= 1
    assert not any(rules.may_take(found, pod) for pod in ("a", "b") if pod not in holds and holds)


@pytest.mark.parametrize(
    ("grant", "spent", "hold", "expected"),
    [
        (0, 0, False, False),
        (1, 0, False, True),
        (1, 1, False, False),
        (2, 1, False, True),
        (2, 1, True, False),
    ],
)
def test_the_holder_spends_open_grants_unless_they_are_on_hold(grant, spent, hold, expected):
    found = a_range(holder="a", active="a", grant=grant, spent=spent, hold=hold)
    assert rules.may_spend(found, "a") == expected
    assert not rules.may_spend(found, "b")


def test_a_fenced_pod_spends_nothing():
    assert not rules.may_spend(a_range(holder="a", active="b", fenced="a", grant=1), "a")


def test_the_view_says_whether_the_pod_is_wanted_and_whether_it_stands_in_the_object():
    view = rules.view(a_range(holder="a", active="b"), "a")
    assert (view.active, view.holding) == (False, True)


def test_a_pod_goes_by_its_own_config_but_for_what_is_live():
    own = ShardConfig(gateway="g", gateway_url="wss://old", intents=7, heartbeat_seconds=9)
    config = rules.view(a_range(holder="a", active="a"), "a", own).spec.config
    assert (config.intents, config.gateway_url, config.heartbeat_seconds) == (7, "wss://x", 5.0)


def test_news_are_the_spec_and_the_holder():
    base = a_range(holder="a")
    assert rules.news(base) == rules.news(a_range(holder="a", spent=0))
    assert rules.news(base) != rules.news(a_range(holder="b"))
    assert rules.news(base) != rules.news(a_range(holder="a", hold=True))


def test_the_oldest_leave_a_full_waiting_list():
    standby = {f"p{number}": StandbyStatus(since=f"2030-01-{number:02}") for number in range(1, 11)}
    assert rules.evicted(standby, "new") == ["p1", "p2", "p3"]
    assert rules.evicted(standby, "p1") == ["p2", "p3"]
    assert rules.evicted({}, "new") == []
