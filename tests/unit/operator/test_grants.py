"""Grants: never more than the budget less the reserve, one canary, ascending, paced, and standing when all is well."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright_api.resources import ShardState
from shardwright_operator.asker import Verdict
from shardwright_operator.keys import GatewayKey
from shardwright_operator.observed import BotObserved, GatewayBudget
from shardwright_operator.plan_bot import grant_pace, one_at_a_time, plan_bot, reserve_of
from shardwright_operator.views import ANNOTATION_IDENTITY
from unit.operator import builders

KEY = GatewayKey(builders.NAMESPACE, builders.GATEWAY)


def active(of):
    return [builders.pod(of.spec.active_pod, of=of)] if of.spec.active_pod else []


def gateway(*ranges, key=KEY, eligible=True, percent=10, **changes):
    budgets = tuple(builders.budget(of, active(of), **changes) for of in ranges)
    return GatewayBudget(key=key, eligible=eligible, reserve_percent=percent, ranges=budgets)


def plan(*gateways, spent=0, age=0.0, **limit):
    return plan_bot(
        BotObserved(answer=builders.answer(**limit), gateways=gateways, spent=spent, age=age, until_reset=600)
    )


def granted(plan):
    return [(one.budget.shard_range.spec.first, one.number) for one in plan.grants]


def fresh(first=0, **spec):
    return builders.shard_range(first=first, last=first + 1, total=6, **spec)


def proven(first=0, **spec):
    return builders.serving(first, first + 1, total=6, **spec)


def test_the_canary_gets_one_and_nobody_else_any():
    assert granted(plan(gateway(fresh(0), fresh(2), fresh(4)))) == [(0, 1)]


def test_while_the_canary_is_out_nothing_is_granted():
    waiting = fresh(0, identify_grant=1)
    under_way = builders.with_status(
        waiting, identifies_spent=1, shards=(builders.row(0, ShardState.IDENTIFYING, session=None),)
    )
    assert granted(plan(gateway(waiting, fresh(2)))) == []
    assert granted(plan(gateway(under_way, fresh(2), quiet_for=60.0))) == []


def test_a_canary_that_came_to_nothing_is_sent_again_after_a_while():
    lost = builders.with_status(
        fresh(0, identify_grant=1), identifies_spent=1, shards=(builders.row(0, ShardState.WAITING, session=None),)
    )
    assert granted(plan(gateway(lost, fresh(2), quiet_for=29.0))) == []
    again = plan(gateway(lost, fresh(2), quiet_for=31.0))
    assert granted(again) == [(0, 1)]
    assert again.grants[0].paced


def test_after_the_canary_every_range_gets_what_it_lacks_in_ascending_order():
    first = builders.with_status(
        fresh(0, active_pod="pod-a", identify_grant=1), holder="pod-a", identifies_spent=1, shards=(builders.row(0),)
    )
    assert granted(plan(gateway(first, fresh(2), fresh(4), quiet_for=1.0))) == [(0, 1), (2, 2), (4, 2)]


def test_other_intents_need_a_canary_of_their_own():
    other = fresh(2, config=builders.config(intents=1))
    assert granted(plan(gateway(proven(0), other, fresh(4, config=builders.config(intents=1)), quiet_for=0.0))) == [
        (2, 1)
    ]


def test_a_session_of_other_intents_is_no_proof_and_is_to_be_renewed():
    kept = builders.with_status(
        fresh(0, active_pod="pod-a", identify_grant=2),
        holder="pod-a",
        identifies_spent=2,
        shards=(builders.row(0, ShardState.WAITING, intents=1), builders.row(1, ShardState.WAITING, intents=1)),
    )
    assert granted(plan(gateway(kept, quiet_for=60.0))) == [(0, 1)]


def test_the_reserve_and_open_grants_stay_untouched():
    assert granted(plan(gateway(proven(0), fresh(2), fresh(4), quiet_for=0.0), remaining=103)) == [(2, 2), (4, 1)]
    opened = fresh(4, identify_grant=2)
    assert granted(plan(gateway(proven(0), fresh(2), opened, quiet_for=0.0), remaining=103)) == [(2, 1)]


def test_an_identify_that_waits_for_its_bucket_is_granted_once_and_counts():
    queued = builders.with_status(
        fresh(2, active_pod="pod-b", identify_grant=2),
        holder="pod-b",
        identifies_spent=2,
        shards=tuple(builders.row(shard, ShardState.IDENTIFYING, session=None) for shard in (2, 3)),
    )
    assert 2 not in dict(granted(plan(gateway(proven(0), queued, quiet_for=600.0))))
    assert granted(plan(gateway(proven(0), queued, fresh(4), quiet_for=600.0), remaining=103)) == [(4, 1)]


def test_what_was_spent_since_discord_was_asked_is_gone():
    assert granted(plan(gateway(proven(0), fresh(2), quiet_for=0.0), remaining=110, spent=9)) == [(2, 1)]


def test_what_is_lacking_is_said_with_the_reserve():
    verdict = plan(gateway(proven(0), fresh(2), fresh(4)), remaining=101).verdicts[KEY]
    assert (verdict.short, verdict.reserve, verdict.remaining, verdict.total) == (3, 100, 101, 1000)


def test_a_tiny_budget_keeps_a_reserve_that_still_lets_one_through():
    assert reserve_of(1000, 10) == 100
    assert reserve_of(5, 10) == 1
    assert reserve_of(1, 90) == 0
    assert reserve_of(0, 10) == 0


def test_the_largest_reserve_of_all_gateways_counts_and_the_oldest_gateway_is_served_first():
    other = GatewayKey(builders.NAMESPACE, "other")
    made = plan(gateway(proven(0), fresh(2)), gateway(proven(0), fresh(2), key=other, percent=50), remaining=503)
    assert [one.number for one in made.grants] == [2, 1]
    assert made.verdicts[other].short == 1


@pytest.mark.parametrize("verdict", [Verdict.UNKNOWN, Verdict.REJECTED])
def test_without_discords_word_nothing_is_granted(verdict):
    assert plan(gateway(fresh()), verdict=verdict).grants == ()


def test_a_gateway_on_hold_gets_nothing_but_its_open_grants_count():
    held = gateway(fresh(0, identify_grant=5), eligible=False)
    assert granted(plan(held)) == []
    other = gateway(proven(0), fresh(2), fresh(4), key=GatewayKey("n", "other"))
    assert granted(plan(held, other, remaining=106)) == [(2, 1)]


def test_an_answer_that_is_not_new_is_asked_for_before_anything_is_granted():
    made = plan(gateway(fresh()), age=31.0)
    assert (made.ask, made.grants) == (True, ())
    assert not plan(gateway(fresh()), age=29.0).ask
    assert plan(gateway(proven(0), quiet_for=0.0), age=301.0).ask


def test_a_range_that_lost_its_session_is_given_another_at_its_pace():
    lost = builders.with_status(
        proven(
            0,
        ),
        shards=(builders.row(0), builders.row(1, ShardState.WAITING, session=None)),
    )
    assert granted(plan(gateway(lost, quiet_for=60.0))) == [(0, 1)]
    assert plan(gateway(lost, quiet_for=60.0)).grants[0].paced
    assert granted(plan(gateway(lost, quiet_for=60.0, paced_for=12.0))) == []
    assert plan(gateway(lost, quiet_for=60.0, paced_for=12.0)).again_after == 12.0


def test_a_range_that_loses_session_after_session_gets_single_ones():
    lost = builders.with_status(proven(0), shards=())
    other = proven(2)
    assert granted(plan(gateway(lost, other, quiet_for=60.0)))[0] == (0, 2)
    assert granted(plan(gateway(lost, other, quiet_for=60.0, one_at_a_time=True)))[0] == (0, 1)


def test_paid_identifies_that_wait_for_their_bucket_are_not_granted_again():
    paid = builders.with_status(
        fresh(0, active_pod="pod-a", identify_grant=2),
        holder="pod-a",
        identifies_spent=2,
        shards=(builders.row(0), builders.row(1, ShardState.WAITING, session=None)),
    )
    assert granted(plan(gateway(paid, quiet_for=5.0))) == []


def test_a_healthy_range_keeps_one_grant_open_while_there_is_plenty():
    assert granted(plan(gateway(proven(0), proven(2), quiet_for=60.0))) == [(0, 1), (2, 1)]
    assert granted(plan(gateway(proven(0), proven(2), quiet_for=60.0), remaining=201)) == [(0, 1)]
    assert (
        granted(
            plan(
                gateway(
                    proven(
                        0,
                    ),
                    proven(2),
                    quiet_for=10.0,
                )
            )
        )
        == []
    )


def test_nobody_gets_a_standing_grant_while_somebody_lacks_one():
    made = plan(gateway(proven(0), fresh(2), fresh(4), quiet_for=60.0), remaining=102)
    assert granted(made) == [(2, 2)]
    assert made.verdicts[KEY].short == 2


def parked(code=4014, **spec):
    row = builders.row(0, ShardState.PARKED, session=None, close=code)
    return builders.with_status(
        fresh(0, active_pod="pod-a", identify_grant=1, **spec), holder="pod-a", identifies_spent=1, shards=(row,)
    )


def test_a_parked_range_is_granted_nothing_and_holds_the_others_back():
    assert granted(plan(gateway(parked(), fresh(2), blocked=True))) == []
    assert granted(plan(gateway(parked(), fresh(2)))) == []


def test_a_parked_range_whose_cause_changed_is_the_next_canary():
    made = plan(gateway(parked(), fresh(2), retry=True))
    assert granted(made) == [(0, 1)]


# --- renewals


def renewing(*identities, first=0, refused=None, **spec):
    """A range that is up; its sessions have these identities, and the range asks for `new`."""
    given = {"config": builders.config(identity="new"), "identify_grant": 2} | spec
    of = builders.with_spec(proven(first), **given)
    rows = (builders.row(first + at, identity=one, refused=refused) for at, one in enumerate(identities))
    return builders.with_status(of, shards=tuple(rows))


def test_one_renewal_is_granted_before_the_new_identity_is_proven():
    assert granted(plan(gateway(renewing("old", "old"), proven(2), quiet_for=float("inf"), paced_for=99.0))) == [(0, 1)]


def test_a_standing_grant_is_the_canary_of_a_renewal():
    standing = renewing("old", "old", identify_grant=3)
    assert granted(plan(gateway(standing, proven(2, identify_grant=3)))) == []


def test_renewals_are_free_of_the_pace_once_one_is_ready():
    proof = renewing("new", "old")
    assert granted(plan(gateway(proof, proven(2, identify_grant=3), paced_for=99.0))) == [(0, 1)]
    lost = plan(gateway(proof, proven(2, identify_grant=3), paced_for=99.0, quiet_for=60.0, unsettled=1))
    assert granted(lost) == [], "one that came to nothing is not free"


def test_a_renewal_that_is_paid_for_and_waits_for_its_bucket_is_not_granted_again():
    proof = renewing("new", "old", identify_grant=3)
    paid = builders.with_status(proof, identifies_spent=3)
    others = proven(2, identify_grant=3)
    assert granted(plan(gateway(paid, others, unsettled=1, quiet_for=35.0))) == []
    assert granted(plan(gateway(paid, others, unsettled=1, quiet_for=37.0))) == [(0, 1)]
    assert granted(plan(gateway(paid, others, unsettled=1, quiet_for=37.0, queue=9))) == [], "others stand before it"


def test_while_the_canary_of_a_renewal_is_on_its_way_nobody_else_is_tried():
    paid = builders.with_status(renewing("old", "old", identify_grant=3), identifies_spent=3)
    assert granted(plan(gateway(paid, renewing("old", "old", first=2), unsettled=1, quiet_for=5.0))) == []


def test_a_refused_renewal_is_granted_nothing():
    refused = renewing("old", "old", refused=4014)
    assert granted(plan(gateway(refused, proven(2, identify_grant=3), blocked=True))) == []
    assert granted(plan(gateway(refused, proven(2, identify_grant=3), retry=True))) == [(0, 1)]


def test_renewals_that_are_lacking_are_said():
    assert plan(gateway(renewing("new", "old"), quiet_for=float("inf")), remaining=100).verdicts[KEY].short == 1


# --- a budget that was spent elsewhere


def standing(first):
    return proven(first, identify_grant=3)


def test_the_last_ranges_are_held_until_the_rest_fits():
    ranges = [standing(first) for first in (0, 2, 4)]
    key = lambda first: builders.key(first, first + 1, 6)  # noqa: E731
    assert plan(gateway(*ranges), remaining=103).verdicts[KEY].held == frozenset()
    assert plan(gateway(*ranges), remaining=102).verdicts[KEY].held == {key(4)}
    assert plan(gateway(*ranges), remaining=101).verdicts[KEY].held == {key(4), key(2)}
    assert plan(gateway(*ranges), remaining=0).verdicts[KEY].held == {key(4), key(2), key(0)}


def test_the_younger_gateway_is_held_first():
    other = GatewayKey(builders.NAMESPACE, "other")
    made = plan(gateway(standing(0)), gateway(standing(2), key=other), remaining=101)
    assert (made.verdicts[KEY].held, len(made.verdicts[other].held)) == (frozenset(), 1)


def test_the_pace_doubles_to_an_hour():
    assert [grant_pace(number) for number in (0, 1, 2, 3, 4, 20)] == [0.0, 2.0, 2.0, 30.0, 60.0, 3600.0]
    assert not one_at_a_time(3)
    assert one_at_a_time(4)


def test_a_range_that_went_back_from_other_intents_identifies_with_the_old_ones_which_are_proven():
    config = builders.config(intents=1, identity="new")
    of = fresh(2, active_pod="pod-b", config=config)
    of = builders.with_status(of, holder="pod-b", shards=builders.rows(of, ShardState.WAITING, session=None))
    pod = builders.pod("pod-b", of=of)
    old = msgspec.structs.replace(pod.metadata, annotations=pod.metadata.annotations | {ANNOTATION_IDENTITY: "old"})
    back = builders.budget(of, [msgspec.structs.replace(pod, metadata=old)])
    other = proven(0, config=builders.config(identity="old"))
    other = builders.budget(builders.with_status(other, shards=builders.rows(other, identity="old")), active(other))
    both = GatewayBudget(key=KEY, eligible=True, reserve_percent=10, ranges=(other, back))
    grant = plan(both).grants[0]
    assert (grant.budget.shard_range.spec.first, grant.number, grant.paced) == (2, 2, False)


# --- whatever the pods do, the reserve stays ----------------------------------------------------------------------


class Discord:
    """What Discord counts, and a handful of pods that spend grants as they please."""

    def __init__(self, ranges, remaining, percent):
        self.ranges, self.remaining, self.percent = ranges, remaining, percent
        self.asked, self.spent_since = remaining, 0

    def plan(self, *, ask):
        if ask:
            self.asked, self.spent_since = self.remaining, 0
        answer = builders.answer(remaining=self.asked)
        one = gateway(*self.ranges, percent=self.percent, quiet_for=1000.0)
        return plan_bot(BotObserved(answer=answer, gateways=(one,), spent=self.spent_since, until_reset=600))

    def grant(self, made):
        for one in made.grants:
            at = next(i for i, of in enumerate(self.ranges) if of.spec.first == one.budget.shard_range.spec.first)
            spec = self.ranges[at].spec
            self.ranges[at] = builders.with_spec(self.ranges[at], identify_grant=spec.identify_grant + one.number)

    def spend(self, at, shard, state):
        """A pod identifies if it may; the session then lasts, or does not."""
        of = self.ranges[at]
        if of.status.identifies_spent >= of.spec.identify_grant:
            return
        self.remaining -= 1
        self.spent_since += 1
        row = builders.row(of.spec.first + shard, state, session="s" if state is ShardState.READY else None)
        others = tuple(one for one in of.status.shards if one.id != row.id)
        self.ranges[at] = builders.with_status(
            of, holder="pod-a", identifies_spent=of.status.identifies_spent + 1, shards=(*others, row)
        )


steps = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from([ShardState.READY, ShardState.WAITING, ShardState.IDENTIFYING, ShardState.PARKED]),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 120), st.integers(0, 90), steps)
def test_grants_never_reach_into_the_reserve(remaining, percent, steps):
    ranges = [fresh(first, active_pod="pod-a") for first in (0, 2, 4)]
    discord = Discord(ranges, remaining, percent)
    reserve = reserve_of(1000, percent)
    for at, shard, state, ask in steps:
        discord.grant(discord.plan(ask=ask))
        opened = sum(of.spec.identify_grant - of.status.identifies_spent for of in discord.ranges)
        assert opened == 0 or opened + reserve <= discord.remaining
        discord.spend(at, shard, state)
        assert discord.remaining >= min(reserve, remaining)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_before_a_shard_is_ready_one_identify_is_out_at_a_time(steps):
    discord = Discord([fresh(first, active_pod="pod-a") for first in (0, 2, 4)], 1000, 10)
    for at, shard, state, _ in steps:
        discord.grant(discord.plan(ask=True))
        ready = any(row.state is ShardState.READY for of in discord.ranges for row in of.status.shards)
        if ready:
            return
        assert sum(of.spec.identify_grant - of.status.identifies_spent for of in discord.ranges) <= 1
        discord.spend(at, shard, state)
