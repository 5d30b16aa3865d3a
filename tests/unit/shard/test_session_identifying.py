"""How a session without a past begins."""

import json

import pytest

from shardwright_api.resources import Compression
from shardwright_shard.errors import IllegalTransition
from shardwright_shard.session import READY_TIMEOUT, SessionConfig
from shardwright_shard.session_table import Input
from unit.shard.driven import CONFIG, TOKEN, Driven
from unit.shard.messages import BOT, dispatch, guild_create, hello, invalid, ready


def test_nothing_is_sent_before_hello():
    driven = Driven().opened()
    assert driven.sent() == []
    assert driven.state == "OPEN"


def test_after_hello_it_waits_for_its_slot_and_sends_no_identify_by_itself():
    driven = Driven().greeted()
    assert driven.state == "QUEUED"
    assert driven.sent() == []
    driven.after(600)
    assert 2 not in driven.sent_ops()


def test_identify_carries_token_intents_and_shard():
    driven = Driven().identifying()
    (identify,) = driven.sent()
    assert identify["op"] == 2
    assert identify["d"] == {
        "token": TOKEN,
        "intents": 513,
        "properties": {"os": "linux", "browser": "shardwright", "device": "shardwright"},
        "shard": [3, 8],
        "compress": False,
    }


def test_presence_and_large_threshold_are_sent_where_the_user_set_them():
    presence = {"status": "idle", "activities": [], "since": None, "afk": False}
    config = SessionConfig(
        bot=BOT, shard=0, total=1, intents=1, compression=Compression.NONE, presence=presence, large_threshold=250
    )
    (identify,) = Driven(config=config).identifying().sent()
    assert identify["d"]["presence"] == presence
    assert identify["d"]["large_threshold"] == 250


def test_a_connection_is_used_for_one_identify_only():
    """A second one would be answered by 4005."""
    driven = Driven().identifying()
    with pytest.raises(IllegalTransition):
        driven.session.slot(driven.now, token=TOKEN)
    assert driven.sent_ops() == [2]
    assert driven.session.counters.identifies == 1


def test_ready_makes_it_live_and_is_forwarded_byte_for_byte():
    driven = Driven().identifying()
    message = ready(1, session="abc", url="wss://resume.example/a")
    driven.receive(message)
    assert driven.state == "LIVE"
    (event,) = driven.events()
    assert (event.seq, event.name, event.payload) == (1, "READY", message)
    kept = driven.session.resumable
    assert (kept.source.session, kept.url, kept.seq) == ("abc", "wss://resume.example/a", 1)
    assert (kept.intents, kept.compression) == (CONFIG.intents, CONFIG.compression)
    assert (kept.source.bot, kept.source.shard, kept.source.total, kept.source.acked) == (BOT, 3, 8, None)


def test_events_in_the_same_read_as_ready_follow_it():
    driven = Driven().identifying()
    driven.receive(ready(1), dispatch("MESSAGE_CREATE", 2), dispatch("TYPING_START", 3))
    assert [(event.seq, event.name) for event in driven.events()] == [
        (1, "READY"),
        (2, "MESSAGE_CREATE"),
        (3, "TYPING_START"),
    ]


def test_hello_and_everything_up_to_live_may_come_in_few_reads():
    driven = Driven().opened()
    driven.receive(hello(), invalid(resumable=False), hello())
    assert driven.state == "IDLE", "what follows the end of a connection in one read is not looked at"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"session_id": "a"},
        {"session_id": None, "resume_gateway_url": "wss://x"},
        {"session_id": "a", "resume_gateway_url": "wss://x", "guilds": [{}]},
        [],
        None,
    ],
)
def test_a_ready_that_cannot_be_used_changes_nothing_and_drops_the_connection(data):
    driven = Driven().identifying()
    driven.receive(dispatch("READY", 1, data) if data is not None else b'{"t":"READY","s":1,"op":0,"d":null}')
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000
    assert driven.session.resumable is None
    assert driven.events() == []


def test_ready_may_be_late_but_not_for_ever():
    """An outage delays READY: so the patience is long, and it ends in a reconnect."""
    driven = Driven().identifying()
    driven.after(READY_TIMEOUT - 0.001)
    assert driven.state == "IDENTIFYING"
    driven.after(0.001)
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000


def test_a_new_identify_replaces_the_old_session_wholly():
    driven = Driven().live(guilds=[1, 2, 3])
    old = driven.session.source
    driven.receive(invalid(resumable=False))
    driven.now = driven.session.retry_at
    driven.taken()
    driven.live(guilds=[4])
    assert driven.session.source is not old
    assert driven.session.resumable.source is driven.session.source
    assert driven.session.guilds == 1
    assert driven.session.stored is None


def test_events_of_a_session_that_is_over_stay_with_their_source():
    """The edge takes them after the input that ended the session: `source` must still be the old one then."""
    driven = Driven().live()
    old = driven.session.source
    driven.receive(dispatch("MESSAGE_CREATE", 2), invalid(resumable=False))
    assert driven.session.resumable is None
    assert driven.session.source is old
    assert [event.seq for event in driven.events()] == [2]


@pytest.mark.parametrize("message", [dispatch("MESSAGE_CREATE", 1), guild_create(1, 1), dispatch("RESUMED", 1)])
@pytest.mark.parametrize("way", ["opened", "greeted", "identifying"])
def test_dispatches_before_ready_break_the_rules_and_are_not_handed_on(message, way):
    driven = Driven()
    getattr(driven, way)()
    driven.receive(message)
    assert driven.state == "IDLE"
    assert driven.close_code() == 4000
    assert driven.events() == []


def test_the_token_is_forgotten_with_the_connection_and_is_in_nothing_that_others_read():
    driven = Driven().identifying()
    driven.taken()
    driven.closed(4000)
    rest = {name: value for name, value in vars(driven.session).items() if name != "_effects"}
    assert TOKEN not in repr(rest)
    assert TOKEN not in repr(driven.session.counters) + driven.session.last_reason


def test_what_is_sent_is_json_text_within_discords_limit():
    driven = Driven().identifying()
    (text,) = driven.session.sends
    assert json.loads(text.decode())
    assert len(text) < 4096


def test_a_fatal_code_parks_until_it_is_told_that_the_cause_has_changed():
    driven = Driven().identifying()
    driven.closed(4014)
    assert driven.state == "PARKED"
    assert driven.session.next_tick() == float("inf")
    with pytest.raises(IllegalTransition):
        driven.connecting()
    driven.session.give(Input.UNPARK, driven.now)
    driven.live()
    assert driven.state == "LIVE"
