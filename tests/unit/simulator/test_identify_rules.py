"""IDENTIFY: each rule has its close code (Gateway > Identify; Opcodes and Status Codes)."""

import pytest

from shardwright_api.discord import CloseCode, Intent, Opcode
from shardwright_simulator import BotConfig
from shardwright_simulator.identify import CHECKS, DEFINED_INTENTS

BAD = [
    ("token", {"token": "wrong"}, CloseCode.AUTHENTICATION_FAILED),
    ("identify-shape", {"token": 5}, CloseCode.DECODE_ERROR),
    ("identify-shape", {"properties": None}, CloseCode.DECODE_ERROR),
    ("large-threshold", {"large_threshold": 49}, CloseCode.DECODE_ERROR),
    ("large-threshold", {"large_threshold": 251}, CloseCode.DECODE_ERROR),
    ("shard", {"shard": [4, 4]}, CloseCode.INVALID_SHARD),
    ("shard", {"shard": [-1, 4]}, CloseCode.INVALID_SHARD),
    ("shard", {"shard": [0, 0]}, CloseCode.INVALID_SHARD),
    ("shard", {"shard": [0]}, CloseCode.INVALID_SHARD),
    ("shard", {"shard": "0,4"}, CloseCode.INVALID_SHARD),
    ("shard", {"shard": [0.5, 4]}, CloseCode.INVALID_SHARD),
    ("shard-multiple", {"shard": [0, 3]}, CloseCode.INVALID_SHARD),
    ("sharding-required", {"shard": [0, 2]}, CloseCode.SHARDING_REQUIRED),
    ("intents", {"intents": 1 << 17}, CloseCode.INVALID_INTENTS),
    ("intents", {"intents": 1 << 26}, CloseCode.INVALID_INTENTS),
    ("intents", {"intents": -1}, CloseCode.INVALID_INTENTS),
    ("intents", {"intents": None}, CloseCode.INVALID_INTENTS),
    ("intents", {"intents": True}, CloseCode.INVALID_INTENTS),
    ("privileged-intents", {"intents": int(Intent.GUILD_MEMBERS)}, CloseCode.DISALLOWED_INTENTS),
    ("privileged-intents", {"intents": int(Intent.GUILD_PRESENCES)}, CloseCode.DISALLOWED_INTENTS),
    ("privileged-intents", {"intents": int(Intent.MESSAGE_CONTENT)}, CloseCode.DISALLOWED_INTENTS),
]
STRICT = {"guilds": 6_000, "guild_bytes": 100, "large_multiple": 2, "privileged_intents": []}


@pytest.mark.parametrize(("rule", "d", "code"), BAD, ids=str)
def test_a_broken_rule_closes_with_its_code_and_is_written_down(make_world, rule, d, code):
    world = make_world(bots=[BotConfig(**STRICT)])
    client = world.connect()
    client.identify(**d)
    assert client.closed == code
    assert world.rules() == [rule]
    assert [identify.result for identify in world.control.identifies()] == [str(int(code))]


def test_every_check_of_the_table_is_tested():
    assert {check.rule for check in CHECKS} <= {rule for rule, _, _ in BAD}


def test_all_defined_intents_pass_when_they_are_switched_on(world):
    client = world.ready(intents=DEFINED_INTENTS)
    assert client.closed is None


def test_left_out_shard_means_the_only_one(world):
    client = world.connect()
    token = world.bot.config.token
    client.send(Opcode.IDENTIFY, {"token": token, "properties": {}, "intents": 0})
    assert client.messages[-1]["d"]["shard"] == [0, 1]


def test_the_scheme_before_the_token_is_taken(world):
    client = world.connect()
    client.identify(token="Bot " + world.bot.config.token)
    assert client.session


@pytest.mark.parametrize("d", [{"shard": [9, 4]}, {"intents": 1 << 30}])
def test_a_failed_identify_has_spent_a_session_start(world, d):
    before = world.bot.remaining
    world.connect().identify(**d)
    assert world.bot.remaining == before - 1


def test_a_wrong_token_spends_nothing(world):
    before = world.bot.remaining
    world.connect().identify(token="wrong")
    assert world.bot.remaining == before


def test_ready_tells_what_the_docs_promise(world):
    d = next(m for m in world.ready(shard=1).messages if m["t"] == "READY")["d"]
    assert d["v"] == 10
    assert d["shard"] == [1, 4]
    assert d["application"]["id"] == d["user"]["id"] == world.bot.id
    assert d["resume_gateway_url"] == f"ws://localhost:1/resume/{world.bot.id}/1/4"
    assert len(d["guilds"]) == 2
    assert all(guild["unavailable"] and (int(guild["id"]) >> 22) % 4 == 1 for guild in d["guilds"])


def test_after_ready_the_guilds_follow(world):
    client = world.ready()
    assert client.events == ["READY", "GUILD_CREATE", "GUILD_CREATE"]
    stubs = {guild["id"] for guild in client.messages[1]["d"]["guilds"]}
    assert {message["d"]["id"] for message in client.messages[2:]} == stubs


def test_without_the_guilds_intent_no_guild_follows(world):
    assert world.ready(intents=512).events == ["READY"]


def test_a_big_shard_gets_its_guilds_a_handful_at_a_time(make_world):
    world = make_world(bots=[BotConfig(guilds=500, guild_bytes=200)], backfill_rate=100)
    client = world.connect()
    client.identify(0, 1)
    assert len(client.events) == 3
    world.advance(1)
    assert 100 <= len(client.events) <= 105
    assert world.control.sessions()[0].backfilling
    world.advance(5)
    assert client.seqs == list(range(1, 502))
    assert not world.control.sessions()[0].backfilling
