"""RESUME (Gateway > Resuming) and what ends a session (Gateway > Disconnecting)."""

import pytest

from shardwright_api.discord import CloseCode, Opcode
from shardwright_simulator import BotConfig, Fault

INVALID = {"t": None, "s": None, "op": Opcode.INVALID_SESSION, "d": False}


def emit(world, number=1, guild=0):
    for _ in range(number):
        world.gateway.emit(world.bot, "MESSAGE_CREATE", next(world.bot.guilds(guild, 4)), 300)
    world.flush()


def test_what_was_missed_is_replayed_in_order_then_resumed(world):
    old = world.ready()
    emit(world, 2)
    old.lose()
    emit(world, 3)
    new = world.connect()
    new.resume(old.session, 4)
    assert new.seqs == [5, 6, 7, 8, 9]
    assert new.events == ["MESSAGE_CREATE"] * 4 + ["RESUMED"]
    assert new.messages[1] == old.messages[-1]
    record = world.control.resumes()[0]
    assert (record.result, record.replayed, record.seq) == ("resumed", 4, 4)


def test_events_after_a_resume_go_on_counting(world):
    old = world.ready()
    old.lose()
    new = world.connect()
    new.resume(old.session, 3)
    emit(world)
    assert new.seqs == [4, 5]


@pytest.mark.parametrize(
    "d", [None, {}, {"token": "t", "session_id": "s"}, {"token": "t", "session_id": "s", "seq": "1"}]
)
def test_a_resume_of_the_wrong_shape_closes_with_4002(world, d):
    client = world.connect()
    client.send(Opcode.RESUME, d)
    assert client.closed == CloseCode.DECODE_ERROR


def test_a_resume_with_a_wrong_token_closes_with_4004_and_keeps_the_session(world):
    old = world.ready()
    old.lose()
    client = world.connect()
    client.resume(old.session, 1, token="wrong")
    assert client.closed == CloseCode.AUTHENTICATION_FAILED
    assert len(world.control.sessions()) == 1


@pytest.mark.parametrize("seq", [-1, 4, 99])
def test_a_sequence_that_never_was_closes_with_4007_and_ends_the_session(world, seq):
    old = world.ready()
    old.lose()
    client = world.connect()
    client.resume(old.session, seq)
    assert client.closed == CloseCode.INVALID_SEQUENCE
    assert world.rules() == ["resume-sequence"]
    assert world.control.sessions() == []


def test_an_unknown_session_gets_op_9(world):
    client = world.connect()
    client.resume("0" * 32, 1)
    assert client.messages[-1] == INVALID
    assert world.rules() == []


def test_another_bots_session_gets_op_9(make_world):
    world = make_world(bots=[BotConfig(id="1"), BotConfig(id="2")])
    old = world.ready()
    old.lose()
    client = world.connect()
    client.resume(old.session, 1, token=world.control.bot("2").config.token)
    assert client.messages[-1] == INVALID


@pytest.mark.parametrize("url", ["/?v=9&encoding=json", "/?v=10", "/?v=10&encoding=json&compress=zlib-stream"])
def test_another_query_string_gets_op_9_and_is_a_violation(world, url):
    old = world.ready()
    old.lose()
    client = world.connect(url)
    client.resume(old.session, 1)
    assert client.messages[-1] == INVALID
    assert world.rules() == ["resume-query"]
    assert world.control.sessions() == []


def test_the_order_of_the_query_does_not_matter(world):
    old = world.ready()
    old.lose()
    client = world.connect("/?encoding=json&v=10")
    client.resume(old.session, 3)
    assert client.events == ["RESUMED"]


def test_a_resume_at_the_plain_url_is_noted_and_one_at_the_resume_url_is_not(world):
    old = world.ready(shard=2)
    for url, notes in (("/", ["resume-url"]), (f"/resume/{world.bot.id}/2/4/", ["resume-url"])):
        client = world.connect(f"{url}?v=10&encoding=json")
        client.resume(old.session, 3)
        assert world.notes() == notes


def test_an_identify_at_a_resume_url_is_noted(world):
    client = world.connect(f"/resume/{world.bot.id}/0/4?v=10&encoding=json")
    client.identify()
    assert world.notes() == ["identify-url"]


@pytest.mark.parametrize(
    ("code", "kept"), [(1000, False), (1001, False), (4000, True), (1006, True), (None, True), (4900, True)]
)
def test_only_1000_and_1001_end_the_session(world, code, kept):
    client = world.ready()
    client.lose(code)
    assert bool(world.control.sessions()) is kept


def test_a_session_without_a_connection_is_forgotten_after_a_while(make_world):
    world = make_world(session_ttl=60)
    old = world.ready()
    old.lose()
    world.advance(59)
    assert world.control.sessions()
    world.advance(2)
    client = world.connect()
    client.resume(old.session, 3)
    assert client.messages[-1] == INVALID


def test_a_resumed_session_is_not_forgotten(make_world):
    world = make_world(session_ttl=5)
    old = world.ready()
    old.lose()
    world.connect().resume(old.session, 3)
    world.advance(30)
    assert world.control.sessions()


def test_the_replay_buffer_is_bounded_and_an_overfull_one_gets_op_9(make_world):
    world = make_world(bots=[BotConfig(guilds=8, replay_limit=10)])
    old = world.ready()
    old.lose()
    emit(world, 10)
    assert world.control.sessions()[0].buffered == 10
    client = world.connect()
    client.resume(old.session, 2)
    assert client.messages[-1] == INVALID
    assert world.control.sessions() == []


def test_at_its_limit_the_replay_buffer_still_serves(make_world):
    world = make_world(bots=[BotConfig(guilds=8, replay_limit=10)])
    old = world.ready()
    old.lose()
    emit(world, 10)
    client = world.connect()
    client.resume(old.session, 3)
    assert client.seqs == list(range(4, 15))


@pytest.mark.parametrize(("guilds", "limit"), [(0, 100), (1, 100), (2, 150), (40, 3_000), (47, 3_500), (2_500, 3_500)])
def test_the_size_of_the_replay_buffer_depends_on_the_guilds(make_world, guilds, limit):
    world = make_world(bots=[BotConfig(guilds=guilds)])
    assert world.bot.replay_limit(0, 1) == limit


def test_op_9_of_a_live_session_tells_its_connection(world):
    client = world.ready()
    world.control.end_session(client.session)
    assert client.messages[-1] == INVALID
    assert world.control.sessions() == []


def test_a_resumable_op_9_keeps_the_session_and_the_connection_may_resume_it(world):
    client = world.ready()
    world.control.add_fault(Fault(action="invalid-session", resumable=True))
    assert client.messages[-1] == INVALID | {"d": True}
    client.resume(client.session, 3)
    assert client.events[-1] == "RESUMED"
