"""What is handed on: every event once, in order, byte for byte; and what is counted on the way."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api.discord import EVENT_NAMES
from unit.shard.driven import Driven, resumable
from unit.shard.messages import ACK, dispatch, guild_create, guild_delete, message, resumed

ORDINARY = sorted(EVENT_NAMES - {"READY", "RESUMED"})


def envelope(**fields):
    """An envelope whose keys stand in the order given."""
    return json.dumps(fields, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", ORDINARY)
def test_every_known_event_is_handed_on_under_its_name(name):
    driven = Driven().live()
    text = dispatch(name, 2, {"id": "1"})
    driven.receive(text)
    assert [(event.seq, event.name, event.payload) for event in driven.events()] == [(2, name, text)]
    assert driven.session.received[name] == 1
    assert driven.session.resumable.seq == 2


@pytest.mark.parametrize(
    "order", ["t s op d", "op d s t", "d t s op", "s t op d", "op s t d", "t op s d", "op t d s extra"]
)
def test_any_order_of_the_keys_is_read(order):
    """The order is not promised by the documentation."""
    fields = {"t": "MESSAGE_CREATE", "s": 2, "op": 0, "d": {"content": 'a "quoted" \\ text'}, "extra": [1]}
    text = envelope(**{key: fields[key] for key in order.split()})
    driven = Driven().live()
    driven.receive(text, dispatch("TYPING_START", 3))
    events = driven.events()
    assert [(event.seq, event.name) for event in events] == [(2, "MESSAGE_CREATE"), (3, "TYPING_START")]
    assert events[0].payload == text


def test_white_space_and_escapes_in_the_envelope_are_read():
    text = b'{ "t" : "MESSAGE\\u005fCREATE", "s": 2 , "op": 0, "d": {} }'
    driven = Driven().live()
    driven.receive(text)
    assert [(event.seq, event.name, event.payload) for event in driven.events()] == [(2, "MESSAGE_CREATE", text)]


def test_an_envelope_inside_the_payload_deceives_nobody():
    inner = '{"t":"GUILD_DELETE","s":3,"op":0,"d":{}}'
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2, {"content": inner, "t": "READY", "s": 99, "op": 9}))
    assert [(event.seq, event.name) for event in driven.events()] == [(2, "MESSAGE_CREATE")]
    assert driven.session.resumable.seq == 2


def test_a_name_that_discord_adds_later_is_forwarded_and_counted_as_other():
    driven = Driven().live()
    driven.receive(dispatch("BRAND_NEW_THING_2", 2), dispatch("ANOTHER_ONE", 3), dispatch("MESSAGE_CREATE", 4))
    assert driven.names() == ["BRAND_NEW_THING_2", "ANOTHER_ONE", "MESSAGE_CREATE"]
    assert driven.session.received["other"] == 2
    assert "BRAND_NEW_THING_2" not in driven.session.received


@pytest.mark.parametrize("name", ["A" * 64, "A", "X_1"])
def test_names_at_the_edge_of_what_is_allowed_pass(name):
    driven = Driven().live()
    driven.receive(dispatch(name, 2))
    assert driven.names() == [name]


@pytest.mark.parametrize(
    "name", ["", "A" * 65, "lower", "MESSAGE CREATE", "A.B", "A>", "A*", "ÄB", "A\\n", "A\\u0000", "../A"]
)
def test_a_name_that_could_not_be_a_subject_is_refused(name):
    """It would become a subject, a label and a header."""
    driven = Driven().live()
    driven.receive(f'{{"t":"{name}","s":2,"op":0,"d":{{}}}}'.encode())
    assert driven.events() == []
    assert driven.state == "IDLE"
    assert driven.session.counters.unreadable == 1
    assert driven.session.resumable.seq == 1


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"t":"MESSAGE_CREATE","s":2,"d":{}}',
        b'{"t":"MESSAGE_CREATE","s":null,"op":0,"d":{}}',
        b'{"t":null,"s":2,"op":0,"d":{}}',
        b'{"t":7,"s":2,"op":0,"d":{}}',
        b'{"t":"MESSAGE_CREATE","s":"2","op":0,"d":{}}',
        b'{"t":"MESSAGE_CREATE","s":2.5,"op":0,"d":{}}',
        b'{"t":"MESSAGE_\xff","s":2,"op":0,"d":{}}',
        b'{"t":"NEW_THING","s":2,"op":0,"d":{',
    ],
)
def test_what_cannot_be_read_is_never_handed_on_and_drops_the_connection(text):
    driven = Driven().live()
    driven.receive(text)
    assert driven.events() == []
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000
    assert driven.session.resumable.seq == 1


def test_events_before_what_cannot_be_read_are_handed_on_those_behind_come_again():
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2), b"{", dispatch("MESSAGE_CREATE", 3))
    assert [event.seq for event in driven.events()] == [2]
    driven.taken()
    driven.greeted()
    (resume,) = driven.sent()
    assert resume["d"]["seq"] == 2


def test_unknown_opcodes_are_counted_and_change_nothing():
    driven = Driven().live()
    driven.receive(message(5), message(12, {"a": 1}), message(9999), dispatch("MESSAGE_CREATE", 2))
    assert driven.state == "LIVE"
    assert driven.names() == ["MESSAGE_CREATE"]
    assert driven.session.counters.unknown_opcodes == 3


def test_a_hole_in_a_replay_is_taken_as_discord_gives_it():
    """Sequences are not promised to be without holes (RESUMED takes one that no replay repeats)."""
    driven = Driven(to_resume=resumable(3)).greeted()
    driven.receive(dispatch("MESSAGE_CREATE", 5), dispatch("MESSAGE_CREATE", 6), dispatch("MESSAGE_CREATE", 9))
    assert [event.seq for event in driven.events()] == [5, 6, 9]
    assert driven.session.resumable.seq == 9


def test_a_sequence_that_goes_back_is_handed_on_and_does_not_move_the_resume_back():
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2), dispatch("MESSAGE_CREATE", 3), dispatch("MESSAGE_CREATE", 2))
    assert [event.seq for event in driven.events()] == [2, 3, 2]
    assert driven.session.resumable.seq == 3


def test_other_opcodes_between_events_break_nothing():
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2), ACK, dispatch("MESSAGE_CREATE", 3), message(1))
    assert [event.seq for event in driven.events()] == [2, 3]
    assert driven.sent_ops() == [1]


# --- guilds -----------------------------------------------------------------------------------------------------------


def test_guilds_of_ready_arrive_as_backfill_and_later_ones_are_joins():
    driven = Driven().live(guilds=[1, 2])
    assert driven.session.guilds == 2
    driven.receive(guild_create(1, 2), guild_create(3, 3), guild_create(2, 4), guild_create(1, 5))
    assert [event.backfill for event in driven.events()] == [True, False, True, False]
    assert driven.session.guilds == 4


def test_an_outage_of_a_guild_is_neither_a_leave_nor_a_join():
    driven = Driven().live(guilds=[1])
    driven.receive(guild_create(1, 2), guild_delete(1, 3, unavailable=True))
    assert driven.session.guilds == 1
    driven.taken()
    driven.receive(guild_create(1, 4))
    (event,) = driven.events()
    assert event.backfill
    assert driven.session.guilds == 1


def test_a_guild_that_removes_the_bot_is_counted_off():
    driven = Driven().live(guilds=[1, 2])
    driven.receive(guild_create(1, 2), guild_delete(1, 3))
    assert driven.session.guilds == 1


def test_the_number_of_guilds_never_falls_below_zero():
    """A replay to another pod may repeat what the checkpoint counted; a negative number would void the whole report."""
    driven = Driven(to_resume=resumable(10)).live()
    driven.receive(guild_delete(1, 12), guild_delete(2, 13))
    assert driven.session.guilds == 0


def test_a_guild_that_was_left_before_it_arrived_is_a_join_when_it_comes_back():
    driven = Driven().live(guilds=[1])
    driven.receive(guild_delete(1, 2), guild_create(1, 3))
    assert [event.backfill for event in driven.events()] == [False, False]
    assert driven.session.guilds == 1


def test_a_guild_that_arrives_unavailable_has_not_arrived_yet():
    driven = Driven().live(guilds=[1])
    driven.receive(guild_create(1, 2, unavailable=True), guild_create(1, 3, unavailable=False))
    assert [event.backfill for event in driven.events()] == [True, True]
    assert driven.session.guilds == 1


@pytest.mark.parametrize("data", [{}, {"id": 5}, [], "x", None])
def test_a_guild_event_of_any_shape_is_handed_on(data):
    """The envelope alone decides whether an event can be read."""
    driven = Driven().live(guilds=[1])
    for seq, name in enumerate(["GUILD_CREATE", "GUILD_DELETE"], start=2):
        driven.receive(b'{"t":"%s","s":%d,"op":0,"d":%s}' % (name.encode(), seq, json.dumps(data).encode()))
    assert driven.names() == ["GUILD_CREATE", "GUILD_DELETE"]
    assert driven.session.guilds == 1


@pytest.mark.parametrize("name", ["GUILD_MEMBER_ADD", "GUILD_CREATED_SOMEHOW"])
def test_other_guild_events_do_not_count(name):
    driven = Driven().live(guilds=[1])
    driven.receive(dispatch(name, 2, {"id": "9"}))
    assert driven.session.guilds == 1


# --- the fast road and the slow one -----------------------------------------------------------------------------------

NAMES = st.sampled_from([*ORDINARY, "NEW_ONE", "RESUMED"])


@given(names=st.lists(NAMES, max_size=30), gaps=st.lists(st.integers(1, 3), min_size=30, max_size=30), data=st.data())
def test_both_roads_give_the_same_events_however_the_reads_are_cut(names, gaps, data):
    """What the header comparison hands on is exactly what full decoding hands on."""
    seqs = [11 + sum(gaps[:index]) for index in range(len(names))]
    wire = [
        resumed(s) if name == "RESUMED" else dispatch(name, s, {"n": s}) for name, s in zip(names, seqs, strict=True)
    ]
    fast = Driven(to_resume=resumable(10)).greeted()
    slow = Driven(to_resume=resumable(10)).greeted()
    rest = list(wire)
    while rest and fast.session.connected:
        size = data.draw(st.integers(1, len(rest)))
        fast.receive(*rest[:size])
        rest = rest[size:]
    for text in wire:
        if not slow.session.connected:
            break
        slow.session._expected = b""
        slow.receive(text)
    assert fast.session.events == slow.session.events
    assert fast.session.received == slow.session.received
    assert fast.state == slow.state
    assert fast.session.resumable.seq == slow.session.resumable.seq


# --- holes in the sequences -------------------------------------------------------------------------------------------


def test_a_hole_while_live_is_answered_by_a_resume_from_before_it():
    """What is missing may have gone to another connection of the session."""
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2), dispatch("MESSAGE_CREATE", 5), dispatch("MESSAGE_CREATE", 6))
    assert [event.seq for event in driven.events()] == [2]
    assert (driven.state, driven.close_code(), driven.delay()) == ("IDLE", 4000, 0)
    driven.greeted()
    assert driven.sent()[-1]["d"]["seq"] == 2
    driven.receive(*(dispatch("MESSAGE_CREATE", seq) for seq in (3, 4, 5, 6)), resumed(7))
    assert [event.seq for event in driven.events()] == [3, 4, 5, 6, None]
    assert driven.session.counters.missing == 0


def test_a_hole_that_the_replay_has_too_is_discords_and_only_counted_from_then_on():
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 3))
    driven.greeted().receive(dispatch("MESSAGE_CREATE", 3), resumed(4))
    driven.receive(dispatch("NEW_THING", 7), dispatch("MESSAGE_CREATE", 8))
    assert driven.state == "LIVE"
    assert [event.seq for event in driven.events()] == [3, None, 7, 8]
    assert driven.session.counters.missing == 1 + 2


def test_a_hole_with_nothing_after_it_in_the_replay_is_discords_too():
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 3))
    driven.greeted().receive(resumed(3))
    assert driven.session.counters.missing == 1
    driven.receive(dispatch("MESSAGE_CREATE", 5))
    assert driven.state == "LIVE"


@pytest.mark.parametrize(
    "cut", [b'{"t":"MESSAGE_CREATE","s":2,"op":0,"d":{"content":"x"', b'{"t":"MESSAGE_CREATE","s":2,"op":0,"']
)
def test_a_message_cut_after_its_header_is_not_handed_on(cut):
    driven = Driven().live()
    driven.receive(cut)
    assert (driven.events(), driven.state) == ([], "IDLE")
    driven.greeted().receive(dispatch("MESSAGE_CREATE", 2))
    assert [event.seq for event in driven.events()] == [2]


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_changes_nothing_but_what_people_are_told(jump):
    """Heartbeats, time-outs and pauses go by the monotonic clock alone."""
    driven, other = Driven().live(), Driven().live()
    for each in (driven, other):
        each.receive(dispatch("MESSAGE_CREATE", 2))
        each.events()
    driven.wall += jump
    for each in (driven, other):
        each.after(30)
        each.receive(ACK, dispatch("MESSAGE_CREATE", 3))
    assert driven.session.next_tick() == other.session.next_tick()
    assert (driven.sent(), driven.state) == (other.sent(), "LIVE")
    for each in (driven, other):
        each.events()
        each.after(100)
    assert (driven.state, driven.delay()) == (other.state, other.delay())
