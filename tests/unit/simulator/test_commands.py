"""What a bot asks for after READY (Gateway Events > Send Events)."""

import pytest

from shardwright_api.discord import CloseCode, Intent, Opcode

MEMBERS = int(Intent.GUILDS | Intent.GUILD_MEMBERS | Intent.GUILD_VOICE_STATES)
PRESENCE = {"since": None, "activities": [], "status": "online", "afk": False}


def last(client):
    return client.messages[-1]["t"], client.messages[-1]["d"]


def test_a_presence_is_taken(world):
    client = world.ready()
    client.send(Opcode.PRESENCE_UPDATE, PRESENCE)
    assert client.closed is None


@pytest.mark.parametrize(("op", "d"), [
    (Opcode.PRESENCE_UPDATE, {"status": 5}),
    (Opcode.VOICE_STATE_UPDATE, {}),
    (Opcode.REQUEST_GUILD_MEMBERS, None),
    (Opcode.REQUEST_SOUNDBOARD_SOUNDS, {"guild_ids": "1"}),
    (Opcode.REQUEST_CHANNEL_INFO, {"guild_id": "1"}),
])  # fmt: skip
def test_a_command_of_the_wrong_shape_closes_with_4002(world, op, d):
    client = world.ready()
    client.send(op, d)
    assert client.closed == CloseCode.DECODE_ERROR


def test_joining_a_voice_channel_answers_with_state_and_server(world):
    client = world.ready(intents=MEMBERS)
    client.send(Opcode.VOICE_STATE_UPDATE, {"guild_id": "1", "channel_id": "2", "self_mute": False, "self_deaf": True})
    assert client.events[-2:] == ["VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE"]


def test_leaving_it_answers_with_the_state_alone(world):
    client = world.ready(intents=MEMBERS)
    client.send(
        Opcode.VOICE_STATE_UPDATE, {"guild_id": "1", "channel_id": None, "self_mute": False, "self_deaf": False}
    )
    assert client.events[-1] == "VOICE_STATE_UPDATE"


def test_members_come_in_chunks(world):
    client = world.ready()
    client.send(Opcode.REQUEST_GUILD_MEMBERS, {"guild_id": "1", "query": "a", "limit": 5, "nonce": "n"})
    name, d = last(client)
    assert (name, d["nonce"], d["chunk_count"]) == ("GUILD_MEMBERS_CHUNK", "n", 1)


def test_all_members_need_the_intent(world):
    client = world.ready()
    client.send(Opcode.REQUEST_GUILD_MEMBERS, {"guild_id": "1", "query": "", "limit": 0})
    assert client.closed == CloseCode.DISALLOWED_INTENTS


def test_all_members_may_be_asked_for_once_in_30_seconds_and_guild(world):
    client = world.ready(intents=MEMBERS)
    wanted = {"guild_id": "1", "query": "", "limit": 0, "nonce": "x"}
    client.send(Opcode.REQUEST_GUILD_MEMBERS, wanted)
    world.advance(10)
    client.send(Opcode.REQUEST_GUILD_MEMBERS, wanted)
    name, d = last(client)
    assert (name, d["opcode"], d["meta"]) == ("RATE_LIMITED", 8, {"guild_id": "1", "nonce": "x"})
    assert d["retry_after"] == pytest.approx(20)
    client.send(Opcode.REQUEST_GUILD_MEMBERS, wanted | {"guild_id": "2"})
    assert last(client)[0] == "GUILD_MEMBERS_CHUNK"
    world.advance(21)
    client.send(Opcode.REQUEST_GUILD_MEMBERS, wanted)
    assert last(client)[0] == "GUILD_MEMBERS_CHUNK"
    assert client.closed is None


def test_sounds_come_once_a_guild(world):
    client = world.ready()
    client.send(Opcode.REQUEST_SOUNDBOARD_SOUNDS, {"guild_ids": ["1", "2"]})
    assert client.events[-2:] == ["SOUNDBOARD_SOUNDS"] * 2


def test_channel_info_comes_once(world):
    client = world.ready()
    client.send(Opcode.REQUEST_CHANNEL_INFO, {"guild_id": "1", "fields": ["status"]})
    assert last(client)[0] == "CHANNEL_INFO"
