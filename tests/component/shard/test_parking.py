"""Close codes after which trying again never helps: the shard parks, alive, until a new grant says that something changed."""

import logging

import pytest

from component.shard.stage import INTENTS, stays, until
from shardwright_api.discord import FATAL_CLOSE_CODES, Intent
from shardwright_shard import logs
from shardwright_shard.__main__ import token_reader
from shardwright_simulator import Action, Fault, Trigger

FAULTY = {
    "token": ({"token": "MTAw.SIMULA.another-token-than-the-pods"}, {}, 4004),
    "shard-count": ({"large_multiple": 16}, {}, 4010),
    "too-many-guilds": ({"guilds": 2501, "guild_bytes": 0}, {}, 4011),
    "undefined-intent": ({}, {"intents": 1 << 17}, 4013),
    "privileged-intent": ({"privileged_intents": []}, {}, 4014),
}


@pytest.mark.parametrize(("bot", "config", "code"), FAULTY.values(), ids=FAULTY)
async def test_what_discord_refuses_parks_the_shard(open_stage, open_door, bot, config, code):
    """A wrong token, count, layout or intent costs one IDENTIFY: the pod lives, is not ready and says why."""
    stage = await open_stage(bot=bot, config=config)
    stage.allowed = {"token", "shard-multiple", "sharding-required", "intents", "privileged-intents"}
    token = stage.sim.token.replace("another-token-than-the-pods", "the-pods-token-that-is-wrong")
    stage.secrets.add(token)
    pod = stage.start(grant=3, read_token=lambda: token)
    get = await open_door(pod)
    await until(lambda: stage.rows() and stage.rows()[0].state == "parked")
    await stays(lambda: not stage.control.connections() and not pod.task.done(), seconds=0.25)
    assert [identify.result for identify in stage.control.identifies()] == [str(code)]
    assert stage.status().identifies_spent == 3
    assert (await get("/healthz"))[0] == 200
    status, text = await get("/readyz")
    assert status == 503
    assert text.startswith(f"shard 0 parked (Discord closed with {code}: ")
    assert stage.rows()[0].close == code


async def test_every_fatal_code_parks_a_live_shard(open_stage):
    """Whichever it is, and whenever it comes: no RESUME, no IDENTIFY, and the row has the code."""
    codes = sorted(FATAL_CLOSE_CODES)
    stage = await open_stage(shards=len(codes))
    pod = await stage.started(grant=2 * len(codes))
    await stage.arrived()
    for shard, code in enumerate(codes):
        stage.control.add_fault(Fault(action=Action.CLOSE, shards=[shard], code=code))
    await until(lambda: {row.state for row in stage.rows()} == {"parked"})
    assert [row.close for row in stage.rows()] == codes
    await stays(lambda: not stage.control.connections() and not pod.task.done(), seconds=0.25)
    assert stage.status().identifies_spent == 2 * len(codes)


@pytest.mark.parametrize("code", [4004, 4014])
async def test_a_fatal_code_stops_all_identifies_of_the_pod(open_stage, code):
    """Shard 0 parks and the grants are forfeited; shards 1 and 2, granted as well, do not try. Then a new grant: all do."""
    stage = await open_stage(shards=3, max_concurrency=1, identify_window=0.1)
    pod = stage.start(grant=3)
    stage.control.add_fault(Fault(action=Action.CLOSE, at=Trigger.IDENTIFY, code=code))
    await until(lambda: stage.rows() and stage.rows()[0].state == "parked")
    await until(lambda: stage.status().identifies_spent == 3)
    await stays(lambda: len(stage.control.identifies()) == 1, seconds=0.25)
    assert {pod.pod.shards[n].session.state.name for n in (1, 2)} == {"IDLE"}
    stage.control.clear_faults()
    stage.cluster.grant(pod.range, 3)
    await pod.ready()
    assert [identify.shard for identify in stage.control.identifies()] == [0, 0, 1, 2]
    await stage.arrived()


async def test_a_parked_shard_does_not_disturb_those_that_are_live(open_stage):
    """A fatal code ends one session; the others of the pod keep theirs, and may resume."""
    stage = await open_stage(shards=2)
    pod = await stage.started()
    await stage.arrived()
    stage.given_up = {stage.sessions()[1]}
    stage.control.add_fault(Fault(action=Action.CLOSE, code=4014, shards=[1]))
    await until(lambda: stage.rows()[1].state == "parked")
    stage.control.add_fault(Fault(action=Action.ABORT, shards=[0]))
    stage.load(200)
    await stage.arrived()
    assert stage.rows()[0].state == "ready"
    assert not pod.pod.ready
    assert len(stage.control.identifies()) == 2


async def test_a_canary_with_a_wrong_intent_costs_one_identify(open_stage):
    """The intents are switched on in the portal: after the next grant the bot comes up."""
    stage = await open_stage(shards=4, bot={"privileged_intents": []})
    stage.allowed = {"privileged-intents"}
    pod = stage.start(grant=1)
    await until(lambda: stage.rows() and stage.rows()[0].state == "parked")
    assert stage.control.bot().remaining == 999
    stage.control.change_bot(privileged_intents=["GUILD_MEMBERS", "GUILD_PRESENCES", "MESSAGE_CONTENT"])
    stage.cluster.grant(pod.range, 4)
    await pod.ready()
    await stage.arrived()


async def test_a_shard_parked_by_its_intents_is_resumed_with_others_by_grant(open_stage):
    """The configuration's intents change under a parked pod: a hand-over to a new pod and a grant bring it up."""
    stage = await open_stage(bot={"privileged_intents": []})
    stage.allowed = {"privileged-intents"}
    pod = stage.start(grant=1)
    await until(lambda: stage.rows() and stage.rows()[0].state == "parked")
    stage.change_config(intents=INTENTS & ~int(Intent.GUILD_MEMBERS | Intent.GUILD_PRESENCES | Intent.MESSAGE_CONTENT))
    await pod.stop()
    await (await stage.started("p2")).ready()
    await stage.arrived()


async def test_a_new_token_in_the_file_is_used_after_the_next_grant(open_stage, tmp_path):
    """The token file is read for each IDENTIFY: put right and granted anew, the parked shard comes up."""
    stage = await open_stage()
    stage.allowed = {"token"}
    file = tmp_path / "token"
    wrong = stage.sim.token + "-but-wrong"
    file.write_text(wrong)
    stage.secrets.add(wrong)
    pod = stage.start(grant=1, read_token=lambda: token_reader(file))
    await until(lambda: stage.rows() and stage.rows()[0].state == "parked")
    file.write_text(stage.sim.token + "\n")
    await stays(lambda: len(stage.control.identifies()) == 1, seconds=0.3)
    stage.cluster.grant(pod.range, 1)
    await pod.ready()


async def test_a_token_that_is_rotated_in_time_costs_nothing(open_stage, tmp_path):
    """Live: the session goes on, and the next RESUME uses the new token."""
    stage = await open_stage()
    file = tmp_path / "token"
    file.write_text(stage.sim.token)
    pod = await stage.started(read_token=lambda: token_reader(file))
    file.write_text(stage.control.rotate_token())
    stage.secrets.add(stage.sim.token)
    stage.control.add_fault(Fault(action=Action.RECONNECT))
    stage.load(100)
    await stage.arrived()
    assert (pod.count("resumed"), pod.count("identifies")) == (1, 1)


async def test_a_token_that_is_rotated_too_late_keeps_the_session(open_stage, tmp_path):
    """A RESUME with the old token parks the shard with 4004; with the new one and a grant it is resumed, not replaced."""
    stage = await open_stage()
    stage.allowed = {"token"}
    file = tmp_path / "token"
    file.write_text(stage.sim.token)
    pod = await stage.started(read_token=lambda: token_reader(file))
    new = stage.control.rotate_token()
    stage.secrets.add(new)
    stage.control.add_fault(Fault(action=Action.ABORT))
    stage.load(100)
    await until(lambda: stage.rows()[0].state == "parked")
    file.write_text(new)
    stage.cluster.grant(pod.range, 1)
    await pod.ready()
    await stage.arrived()
    assert pod.count("identifies") == 1


async def test_a_missing_token_file_is_waited_for(open_stage, tmp_path):
    """No file, an empty one, or one that is no text: the shard says which, and goes on when the token is there."""
    stage = await open_stage()
    file = tmp_path / "token"
    pod = stage.start(grant=1, read_token=lambda: token_reader(file))
    await until(lambda: pod.pod.shards and "cannot read the token file" in pod.message())
    file.write_text(stage.sim.token)
    pod.pod.shards[0].session.retry_at = 0.0
    pod.pod.shards[0].nudge()
    await pod.ready()
    file.write_text("")
    stage.control.add_fault(Fault(action=Action.ABORT))
    await until(lambda: "is empty" in pod.message())
    file.write_bytes(b"\xff\xfe")
    pod.pod.shards[0].session.retry_at = 0.0
    pod.pod.shards[0].nudge()
    await until(lambda: "is not text" in pod.message())
    assert not pod.task.done()


@pytest.fixture
def talkative_program():
    """Set logging up as the program does, at its most talkative."""
    root, own = logging.getLogger(), logging.getLogger("shardwright_shard")
    handlers, levels = root.handlers[:], (root.level, own.level)
    logs.set_up("debug")
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(levels[0])
    own.setLevel(levels[1])


async def test_the_token_is_shown_nowhere(open_stage, capsys, request, tmp_path):
    """Started, resumed, refused and parked, the program prints a lot, and the token never."""
    stage = await open_stage(shards=2)
    stage.allowed = {"token"}
    file = tmp_path / "token"
    file.write_text(stage.sim.token)
    request.getfixturevalue("talkative_program")
    pod = await stage.started(read_token=lambda: token_reader(file))
    await stage.arrived()
    stage.secrets.add(stage.control.rotate_token())
    for action in (Action.JUNK_FRAME, Action.RECONNECT):
        stage.control.add_fault(Fault(action=action))
    await until(lambda: [row.state for row in stage.rows()] == ["parked"] * 2)
    await pod.stop()
    printed = capsys.readouterr().err
    assert "shard is parked" in printed
    assert not [secret for secret in stage.secrets if secret.rpartition(".")[2] in printed]
    assert 'token":' not in printed
