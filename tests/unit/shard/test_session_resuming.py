"""How a session is taken up again, by the same process or by another one."""

from dataclasses import replace

import pytest

from shardwright_api.resources import Compression
from shardwright_shard.session import MAX_FAILED_RESUMES, READY_TIMEOUT
from unit.shard.driven import CONFIG, TOKEN, Driven, resumable
from unit.shard.messages import ACK, RECONNECT, dispatch, hello, invalid, ready, resumed


def test_hello_is_answered_by_resume_from_the_last_sequence():
    driven = Driven(to_resume=resumable(10)).greeted()
    assert driven.state == "RESUMING"
    (resume,) = driven.sent()
    assert resume == {"op": 6, "d": {"token": TOKEN, "session_id": "old", "seq": 10}}


def test_the_replay_is_forwarded_in_order_and_resumed_makes_it_live():
    driven = Driven(to_resume=resumable(10)).greeted()
    replay = [dispatch("MESSAGE_CREATE", 11), dispatch("NEW_THING", 12), dispatch("TYPING_START", 13)]
    driven.receive(*replay)
    assert driven.state == "RESUMING"
    assert [event.payload for event in driven.events()] == replay
    driven.receive(resumed(14))
    assert driven.state == "LIVE"
    (event,) = driven.events()
    assert (event.seq, event.name) == (None, "RESUMED"), "RESUMED has no id: it is no event of the session"
    driven.receive(dispatch("MESSAGE_CREATE", 15))
    assert [event.seq for event in driven.events()] == [15]


def test_a_reconnect_resumes_after_the_last_event_that_was_handed_on():
    driven = Driven().live()
    driven.receive(dispatch("MESSAGE_CREATE", 2), dispatch("MESSAGE_CREATE", 3))
    driven.closed(None)
    driven.taken()
    driven.greeted()
    (resume,) = driven.sent()
    assert resume["d"]["seq"] == 3


def test_the_session_keeps_its_own_compression_until_the_next_identify():
    """A resume needs the same query as the identify (Gateway > Resuming)."""
    driven = Driven(to_resume=resumable(compression=Compression.ZLIB))
    assert driven.session.compression is Compression.ZLIB
    driven.greeted().receive(invalid(resumable=False))
    assert driven.session.compression is Compression.ZSTD


def test_a_resumed_session_goes_on_to_be_resumable():
    driven = Driven(to_resume=resumable(10)).live()
    driven.receive(dispatch("MESSAGE_CREATE", 12))
    driven.closed(1006)
    assert driven.session.resumable.seq == 12
    assert driven.session.resumable.source.session == "old"


def test_a_replayed_ready_is_an_event_like_any_other():
    """A pod that dies before READY is acknowledged leaves sequence 0: the next one's replay begins with READY."""
    driven = Driven(to_resume=resumable(0)).greeted()
    driven.receive(ready(1, session="old", guilds=[5, 6]), dispatch("MESSAGE_CREATE", 2), resumed(3))
    assert driven.state == "LIVE"
    assert driven.names() == ["READY", "MESSAGE_CREATE", "RESUMED"]
    assert driven.session.guilds == 2
    assert driven.session.resumable.seq == 3
    assert driven.session.counters.identifies == 0


def test_an_answer_may_be_late_but_silence_is_not_endured_for_ever():
    driven = Driven(to_resume=resumable()).greeted()
    driven.after(READY_TIMEOUT / 2)
    driven.receive(ACK)
    driven.receive(dispatch("MESSAGE_CREATE", 11))
    driven.after(1)
    driven.receive(ACK)
    driven.after(READY_TIMEOUT - 1.001)
    assert driven.state == "RESUMING", "each message of a replay begins the wait anew"
    driven.receive(ACK)
    driven.after(READY_TIMEOUT)
    assert driven.state == "IDLE"


def fail_to_resume(driven):
    driven.now = max(driven.now, driven.session.retry_at)
    driven.greeted().closed(None)
    driven.taken()


def test_a_session_is_given_up_after_some_resumes_in_vain():
    """A bricked session answers every RESUME with 1006, while IDENTIFY works (discord-api-docs#1619)."""
    driven = Driven(to_resume=resumable())
    for _ in range(MAX_FAILED_RESUMES - 1):
        fail_to_resume(driven)
        assert driven.session.resumable is not None
    fail_to_resume(driven)
    assert driven.session.resumable is None
    driven.greeted()
    assert driven.state == "QUEUED"


def test_a_resume_that_brought_a_part_of_the_replay_was_not_in_vain():
    """A replay that is longer than our buffer takes several rounds: that must cost neither session nor identify."""
    driven = Driven(to_resume=resumable(10))
    for seq in range(11, 11 + 3 * MAX_FAILED_RESUMES):
        driven.now = max(driven.now, driven.session.retry_at)
        driven.greeted().receive(dispatch("MESSAGE_CREATE", seq))
        driven.closed(None)
    assert driven.session.resumable.seq == 10 + 3 * MAX_FAILED_RESUMES


def test_a_resume_that_worked_makes_up_for_those_before():
    driven = Driven(to_resume=resumable())
    for _ in range(3):
        for _ in range(MAX_FAILED_RESUMES - 1):
            fail_to_resume(driven)
        driven.now = max(driven.now, driven.session.retry_at)
        driven.live().closed(None)
    assert driven.session.resumable is not None


def test_connections_that_never_open_do_not_end_a_session():
    """Discord is away: the session may well live on, and an identify would be spent for nothing."""
    driven = Driven(to_resume=resumable())
    for _ in range(50):
        driven.now = max(driven.now, driven.session.retry_at)
        driven.connecting().closed(None)
    assert driven.session.resumable is not None


def test_a_resume_url_out_of_reach_gives_way_to_the_gateways_own_now_and_then():
    driven = Driven(to_resume=resumable(url="wss://gone.example"))
    urls = []
    for _ in range(8):
        driven.now = max(driven.now, driven.session.retry_at)
        driven.connecting()
        urls.append(driven.session.resume_url)
        driven.closed(None)
    assert urls == (["wss://gone.example"] * 3 + [None]) * 2


def test_after_hello_the_resume_url_counts_as_in_reach():
    driven = Driven(to_resume=resumable(url="wss://there.example"))
    for _ in range(20):
        driven.now = max(driven.now, driven.session.retry_at)
        driven.connecting()
        assert driven.session.resume_url == "wss://there.example"
        driven.session.opened(driven.now, token=TOKEN)
        driven.receive(hello(), dispatch("MESSAGE_CREATE", driven.session.resumable.seq + 1))
        driven.closed(None)


@pytest.mark.parametrize("close", [lambda d: d.closed(4000), lambda d: d.receive(RECONNECT), lambda d: d.closed(1001)])
def test_most_ends_of_a_connection_keep_the_session(close):
    driven = Driven().live()
    close(driven)
    assert driven.state == "IDLE"
    assert driven.session.resumable is not None


def test_resumes_and_their_success_are_counted():
    driven = Driven(to_resume=resumable())
    fail_to_resume(driven)
    driven.live()
    counters = driven.session.counters
    assert (counters.resumes, counters.resumed, counters.readies, counters.identifies) == (2, 1, 0, 0)
    driven.receive(invalid(resumable=False))
    driven.live()
    assert (counters.resumes, counters.resumed, counters.readies, counters.identifies) == (2, 1, 1, 1)


def test_a_checkpoint_of_another_process_is_as_good_as_an_own_session():
    driven = Driven(to_resume=resumable(10)).live()
    assert driven.session.source.acked == 10, "acked moves by acknowledgements alone"


@pytest.mark.parametrize(
    ("old", "new", "intents", "outdated"),
    [
        ("a", "a", 513, False),
        ("a", "b", 513, True),
        ("a", "a", 1, False),
        # One of the two programs does not know of identities: the intents must do.
        ("", "b", 513, False),
        ("", "b", 1, True),
        ("a", "", 513, False),
        ("a", "", 1, True),
    ],
)
def test_a_session_is_outdated_by_its_identity_or_else_by_its_intents(old, new, intents, outdated):
    config = replace(CONFIG, identity=new)
    driven = Driven(to_resume=replace(resumable(intents=intents), identity=old), config=config)
    assert driven.session.outdated is outdated
    driven.greeted().receive(invalid(resumable=False))
    driven.now = driven.session.retry_at
    driven.live()
    assert not driven.session.outdated
    assert driven.session.resumable.identity == new
