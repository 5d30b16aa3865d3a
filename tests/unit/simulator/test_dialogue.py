"""What a client may say when: every pair of phase and opcode, and what is no payload at all."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardwright_api.discord import CloseCode, Opcode
from shardwright_simulator.connection import Phase
from shardwright_simulator.dialogue import CLIENT_OPCODES, TABLE, broken_rule

PHASES = [phase for phase in Phase if phase is not Phase.CLOSED]
OPCODES = [*Opcode, 5, 40, 41, 99, -1]
LOGINS = {Opcode.IDENTIFY, Opcode.RESUME}


def expected_code(phase, op):
    """Say the rule once more, in words of its own."""
    if op not in CLIENT_OPCODES:
        return CloseCode.UNKNOWN_OPCODE
    if op in LOGINS and phase in (Phase.STARTING, Phase.ACTIVE):
        return CloseCode.ALREADY_AUTHENTICATED
    return CloseCode.NOT_AUTHENTICATED


@pytest.mark.parametrize(("phase", "op"), list(itertools.product(PHASES, OPCODES)))
def test_every_pair_is_either_handled_or_closed_with_its_code(world, phase, op):
    if (phase, op) in TABLE:
        return
    client = world.connect()
    client.connection.phase = phase
    client.send(op)
    assert client.closed == expected_code(phase, op) == broken_rule(phase, op).code
    assert len(world.rules()) == 1


@pytest.mark.parametrize(
    "data", ["", "{", "[]", "5", "null", '"x"', '{"d":1}', '{"op":"1"}', '{"op":true}', '{"op":1.0}', b"\xff"]
)
def test_what_is_no_payload_closes_with_4002(world, data):
    client = world.connect()
    client.send_raw(data)
    assert client.closed == CloseCode.DECODE_ERROR
    assert world.rules() == ["decode"]


def test_4096_bytes_pass_and_one_more_closes_with_4002(world):
    def message(size):
        bare = json.dumps({"op": 1, "d": None, "pad": ""})
        return bare.replace('""', json.dumps("x" * (size - len(bare))))

    client = world.connect()
    client.send_raw(message(4096))
    assert client.ops[-1] == Opcode.HEARTBEAT_ACK
    client.send_raw(message(4097))
    assert client.closed == CloseCode.DECODE_ERROR
    assert world.rules() == ["send-size"]


def test_120_messages_in_60_seconds_pass_and_the_next_closes_with_4008(world):
    client = world.connect()
    for _ in range(120):
        client.beat()
        world.advance(0.4)
    assert client.closed is None
    client.beat()
    assert client.closed == CloseCode.RATE_LIMITED
    assert world.rules() == ["send-limit"]


def test_the_send_window_slides(world):
    client = world.connect()
    for _ in range(400):
        client.beat()
        world.advance(0.51)
    assert client.closed is None


@pytest.mark.parametrize(("query", "code"), [
    ("", CloseCode.INVALID_API_VERSION),
    ("?encoding=json", CloseCode.INVALID_API_VERSION),
    ("?v=8&encoding=json", CloseCode.INVALID_API_VERSION),
    ("?v=11&encoding=json", CloseCode.INVALID_API_VERSION),
    ("?v=10&encoding=etf", CloseCode.DECODE_ERROR),
    ("?v=10&encoding=json&compress=brotli", CloseCode.DECODE_ERROR),
])  # fmt: skip
def test_a_query_string_that_cannot_be_served_is_closed_instead_of_greeted(world, query, code):
    client = world.connect("/" + query)
    assert client.closed == code
    assert client.messages == []


@pytest.mark.parametrize("query", ["?v=10&encoding=json", "?v=9", "?encoding=json&v=10&compress=zlib-stream"])
def test_hello_comes_first(world, query):
    assert world.connect("/" + query).messages[0]["d"]["heartbeat_interval"] == 41_250


@pytest.mark.parametrize("agent", ["", "curl/8", "DiscordBot", "DiscordBot ()"])
def test_a_websocket_without_a_valid_user_agent_is_noted(world, agent):
    world.connect(user_agent=agent)
    assert world.rules() == []
    assert world.notes() == ["user-agent"]


def test_what_comes_after_the_close_is_not_read(world):
    client = world.connect()
    client.send(99)
    client.send(99)
    assert world.rules() == ["unknown-opcode"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["token", "shard", "intents", "seq", "session_id", "guild_id", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.sampled_from(OPCODES), JSON), max_size=6), st.binary(max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_client_says_is_answered_or_closed_with_a_known_code(make_world, messages, rubbish):
    world = make_world()
    for client in (world.connect(), world.ready()):
        for op, d in messages:
            client.send(int(op), d)
        client.send_raw(rubbish)
        assert client.closed in set(CloseCode)
