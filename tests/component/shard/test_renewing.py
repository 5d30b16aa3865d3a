"""Other intents, presence or large threshold: sessions go on until new ones take their place, within the grants."""

import json

import pytest

from component.shard.stage import GAP, INTENTS, stays, until
from shardwright_simulator import Action, Fault, Trigger

OTHER = INTENTS - 1024


async def handed_over(stage, *, shards=1, **change):
    """Pod "a" is READY; the configuration changes; pod "b" has resumed every session."""
    first = await stage.started("a")
    await stage.arrived()
    stage.change_config(**change)
    second = stage.start("b")
    await until(lambda: not first.pod.shards)
    await second.ready()
    stage.allowed_closes = {4000, 1000}
    return second


def gaps(pod):
    return [json.loads(event.payload) for _, event in pod.sink.events if event.name == GAP]


async def test_a_renewal_without_a_grant_waits_and_says_so(open_stage):
    stage = await open_stage()
    pod = await handed_over(stage, intents=OTHER, identity="b")
    stage.load(100)
    await stage.arrived()
    await stays(lambda: len(stage.control.identifies()) == 1, seconds=0.5)
    await until(lambda: "to be renewed: waits for the operator's grant" in (stage.rows()[0].message or ""))
    assert (stage.rows()[0].state, stage.rows()[0].intents) == ("ready", INTENTS)
    assert pod.pod.ready


async def test_renewals_follow_grants_and_no_shard_is_ever_silent(open_stage):
    """Each old session serves until the new one is READY: then its tail, the gap and READY, in this order."""
    stage = await open_stage(shards=4, max_concurrency=2)
    stage.allowed = {"identify-url"}
    pod = await handed_over(stage, intents=OTHER, identity="b")
    old = stage.sessions()
    silences = len(stage.control.silences())
    stage.load(0, rate=400)
    stage.cluster.grant(pod.range, 4)
    await until(lambda: len({*stage.sessions().values()} - {*old.values()}) == 4, within=20)
    await until(lambda: len(stage.control.sessions()) == 4)
    stage.control.stop_loads()
    stage.given_up = set(old.values())
    await stage.arrived()
    told = gaps(pod)
    spent = stage.status().identifies_spent
    during = stage.control.silences()[silences:]
    entries = list(stage.control.ledger())
    received = stage.times_received()
    serials = {entry.serial for entry in entries if (entry.session, entry.seq) in received}
    lost = {entry.serial for entry in entries if entry.t != "RESUMED"} - serials
    print(f"\nrenewal of 4 shards: {len(told)} gaps, {spent - 4} identifies, silences while renewing: {during}")
    print(f"{len(serials)} events arrived; {len(lost)} that only the old sessions had did not")
    assert during == []
    assert {gap["session"]: gap["next_session"] for gap in told} == {old[n]: stage.sessions()[n] for n in range(4)}
    assert {gap["reason"] for gap in told} == {"renewal"}
    assert spent == len(stage.control.identifies()) == 8
    assert [i.intents for i in stage.control.identifies()][4:] == [OTHER] * 4
    _nothing_outside_the_gaps(stage, pod, told)
    await until(lambda: all(row.gap is None and row.identity == "b" for row in stage.rows()))


def _nothing_outside_the_gaps(stage, pod, told):
    """Of each old session all up to the gap's sequence stands at the sink, before the gap, and the new READY after it."""
    received = [(source.session, event) for source, event in pod.sink.events]
    for gap in told:
        where = [
            n for n, (session, event) in enumerate(received) if event.name == GAP and session == gap["next_session"]
        ]
        before = [event.seq for session, event in received[: where[0]] if session == gap["session"] and event.seq]
        assert max(before) == gap["seq"]
        assert not [event for session, event in received[where[0] :] if session == gap["session"]]
        assert received[where[0] + 1][1].name == "READY"


async def test_a_renewal_that_discord_refuses_costs_one_identify_and_no_session(open_stage):
    stage = await open_stage(shards=2, max_concurrency=1)
    pod = await handed_over(stage, intents=OTHER, identity="b")
    stage.control.change_bot(stage.control.bot().config.id, privileged_intents=[])
    stage.allowed = {"privileged-intents"}
    stage.cluster.grant(pod.range, 2)
    await until(lambda: any(row.refused == 4014 for row in stage.rows()))
    stage.load(100)
    await stage.arrived()
    await stays(lambda: len(stage.control.identifies()) == 3, seconds=0.5)
    assert {row.state for row in stage.rows()} == {"ready"}
    assert stage.status().identifies_spent == stage.cluster.range(pod.range).spec.identify_grant, "forfeited"
    assert pod.pod.ready


@pytest.mark.usefixtures("no_waits")
async def test_a_renewal_goes_on_after_a_hand_over_in_its_middle(open_stage):
    stage = await open_stage(shards=2)
    second = await handed_over(stage, intents=OTHER, identity="b")
    stage.control.add_fault(Fault(action=Action.HOLD_ANSWER, at=Trigger.IDENTIFY, shards=[0]))
    stage.cluster.grant(second.range, 1)
    await stage.sim.wait_for(lambda: len(stage.control.identifies()) == 3)
    third = stage.start("c")
    await until(lambda: not second.pod.shards)
    await third.ready()
    assert {row.intents for row in stage.rows()} == {INTENTS}
    old = set(stage.sessions().values())
    stage.cluster.grant(second.range, 2)
    await until(lambda: {row.intents for row in stage.rows()} == {OTHER}, within=20)
    stage.given_up = old
    stage.load(100)
    await stage.arrived()
    assert stage.status().identifies_spent == 5
