"""Scripted faults: each action at each of its triggers, aim, count, and time."""

import itertools

import pytest

from shardwright_api.discord import Opcode
from shardwright_simulator import Action, ControlError, Fault, Trigger
from shardwright_simulator.faults import ALLOWED, FaultBook
from shardwright_simulator.outputs import Abort, Bomb, Close, Fragmented, Junk, Ping, Raw, StopReading, Truncated

OUTPUTS = {
    Action.CLOSE: Close,
    Action.ABORT: Abort,
    Action.STOP_READING: StopReading,
    Action.RUBBISH: Raw,
    Action.JUNK_FRAME: Junk,
    Action.ZIP_BOMB: Bomb,
    Action.PING: Ping,
    Action.CUT: Truncated,
    Action.FRAGMENT: Fragmented,
}
OPS = {
    Action.RECONNECT: Opcode.RECONNECT,
    Action.INVALID_SESSION: Opcode.INVALID_SESSION,
    Action.HEARTBEAT_REQUEST: Opcode.HEARTBEAT,
}


def at(*triggers):
    return [action for action, allowed in ALLOWED.items() if allowed & set(triggers)]


def shows(client, action, start=0):
    """Whether a client was struck."""
    outputs = client.outputs[start:]
    if action in OUTPUTS:
        return any(isinstance(output, OUTPUTS[action]) for output in outputs)
    if action in OPS:
        return OPS[action] in client.ops
    if action is Action.UNREADABLE:
        return isinstance(outputs[-1], bytes) and not outputs[-1].endswith(b"}")
    return outputs == []


@pytest.mark.parametrize(("action", "trigger"), list(itertools.product(Action, Trigger)))
def test_an_action_is_refused_at_a_trigger_where_it_makes_no_sense(action, trigger):
    allowed = ALLOWED[action]
    if trigger in allowed or (trigger is Trigger.NOW and len(allowed) == 1):
        assert Fault(action=action, at=trigger).at in allowed
        return
    with pytest.raises(ControlError):
        Fault(action=action, at=trigger)


@pytest.mark.parametrize("action", at(Trigger.NOW))
def test_now_strikes_the_live_connections(world, action):
    client = world.ready()
    start = len(client.outputs)
    world.control.add_fault(Fault(action=action))
    if action is Action.UNREADABLE:
        assert not client.outputs[-1].endswith(b"}")
        return
    assert shows(client, action, start)
    assert world.control.faults()[0].struck == 1


@pytest.mark.parametrize("action", at(Trigger.CONNECT))
def test_at_connect_it_strikes_before_hello_or_with_it(world, action):
    world.control.add_fault(Fault(action=action, at="connect"))
    client = world.connect()
    assert shows(client, action)
    assert world.connect().ops == [Opcode.HELLO]


@pytest.mark.parametrize("action", at(Trigger.IDENTIFY))
def test_at_identify_it_takes_the_place_of_ready(world, action):
    world.control.add_fault(Fault(action=action, at="identify"))
    client = world.connect()
    client.identify()
    assert shows(client, action, start=1)
    assert client.session == ""


@pytest.mark.parametrize("action", at(Trigger.RESUME))
def test_at_resume_it_takes_the_place_of_the_replay(world, action):
    old = world.ready()
    old.lose()
    world.control.add_fault(Fault(action=action, at="resume"))
    client = world.connect()
    client.resume(old.session, 2)
    assert shows(client, action, start=1)
    assert client.events == []


@pytest.mark.parametrize("action", at(Trigger.DISPATCH))
def test_at_dispatch_it_strikes_the_next_event(world, action):
    client = world.ready()
    world.control.add_fault(Fault(action=action, at="dispatch"))
    start = len(client.outputs)
    world.gateway.emit(world.bot, "MESSAGE_CREATE", next(world.bot.guilds(0, 4)), 300)
    world.flush()
    if action is Action.UNREADABLE:
        assert client.outputs[-1] == client.outputs[-1][:7]
    else:
        assert shows(client, action, start)


def test_op_7_before_hello_is_followed_by_a_close(world):
    world.control.add_fault(Fault(action="reconnect", at="connect", delay=2, code=4900))
    client = world.connect()
    assert client.ops == [Opcode.RECONNECT]
    world.advance(2)
    assert client.closed == 4900


def test_a_withheld_ready_can_come_late_or_never(world):
    world.control.add_fault(Fault(action="hold-answer", at="identify", delay=30))
    client = world.connect()
    client.identify()
    world.advance(29)
    assert client.events == []
    world.advance(2)
    assert client.events[0] == "READY"
    world.control.clear_faults()
    world.control.add_fault(Fault(action="hold-answer", at="identify"))
    other = world.connect()
    other.identify(1)
    world.advance(50)
    assert other.events == []
    assert other.closed is None


def test_the_session_of_a_withheld_ready_begins_all_the_same(world):
    world.control.add_fault(Fault(action="hold-answer", at="identify"))
    world.connect().identify()
    assert len(world.control.sessions()) == 1


def test_who_gives_up_waiting_gets_no_late_ready(world):
    world.control.add_fault(Fault(action="hold-answer", at="identify", delay=5))
    client = world.connect()
    client.identify()
    client.lose(4000)
    world.advance(10)
    assert client.events == []


@pytest.mark.parametrize("code", [1005, 1006, 1015])
def test_a_close_code_that_is_never_sent_is_a_cut(world, code):
    client = world.ready()
    world.control.add_fault(Fault(action="close", code=code))
    assert isinstance(client.outputs[-1], Abort)


@pytest.mark.parametrize(("action", "keeps"), [("invalid-session", False), ("close", True), ("abort", True)])
def test_a_resume_answered_by_a_fault_n_times(world, action, keeps):
    old = world.ready()
    old.lose()
    world.control.add_fault(Fault(action=action, at="resume", times=3))
    for _ in range(3):
        client = world.connect()
        client.resume(old.session, 3)
        assert client.events == []
    client = world.connect()
    client.resume(old.session, 3)
    assert (client.events == ["RESUMED"]) is keeps


def test_poison_is_unreadable_in_every_replay(world):
    old = world.ready()
    world.control.add_fault(Fault(action="unreadable", poison=True))
    old.lose()
    for _ in range(2):
        client = world.connect()
        client.resume(old.session, 3)
        assert client.outputs[1] == old.outputs[-1]
        assert client.outputs[2].startswith(b'{"t":"RESUMED"')
        client.lose()
    skipping = world.connect()
    skipping.resume(old.session, 4)
    assert skipping.events == ["RESUMED"]
    assert [entry.flags for entry in world.control.ledger() if entry.seq == 4] == ["unreadable"]


def test_without_poison_the_replay_is_readable(world):
    old = world.ready()
    world.control.add_fault(Fault(action="unreadable"))
    old.lose()
    client = world.connect()
    client.resume(old.session, 3)
    assert client.events == ["INTERACTION_CREATE", "RESUMED"]


def test_a_silent_connection_gets_nothing_and_misses_nothing(world):
    client = world.ready()
    world.control.add_fault(Fault(action="silent"))
    start = len(client.outputs)
    world.gateway.emit(world.bot, "MESSAGE_CREATE", next(world.bot.guilds(0, 4)), 300)
    client.beat(3)
    assert client.outputs[start:] == []
    client.lose(4000)
    again = world.connect()
    again.resume(client.session, 3)
    assert again.seqs == [4, 5]


def test_a_fault_is_aimed_at_shards(make_world):
    world = make_world(identify_window=0)
    clients = [world.ready(shard) for shard in range(4)]
    world.control.add_fault(Fault(action="close", shards=[1, 3]))
    assert [client.closed for client in clients] == [None, 4000, None, 4000]


def test_at_connect_a_shard_is_known_by_its_resume_url(world):
    world.control.add_fault(Fault(action="close", at="connect", shards=[2], times=0))
    assert world.connect().closed is None
    assert world.connect(f"/resume/{world.bot.id}/1/4?v=10").closed is None
    assert world.connect(f"/resume/{world.bot.id}/2/4?v=10").closed == 4000


def test_times_counts_for_each_shard_on_its_own(make_world):
    world = make_world(identify_window=0)
    world.control.add_fault(Fault(action="close", at="identify", times=2))
    for shard in (0, 1):
        closed = []
        for _ in range(3):
            client = world.connect()
            client.identify(shard)
            closed.append(client.closed)
        assert closed == [4000, 4000, None]


def test_rounds_and_a_delay(world):
    client = world.ready()
    world.control.add_fault(Fault(action="ping", after=10, every=5, times=3))
    times = []
    for second in range(30):
        if any(isinstance(output, Ping) for output in client.outputs):
            times.append(second)
            client.outputs.clear()
        world.advance(1)
    assert times == [10, 15, 20]


def test_a_removed_fault_strikes_no_more(world):
    fault = world.control.add_fault(Fault(action="ping", times=0, every=1))
    client = world.ready()
    world.control.remove_fault(fault.id)
    client.outputs.clear()
    world.advance(5)
    assert client.outputs == []
    with pytest.raises(ControlError):
        world.control.remove_fault(fault.id)


def test_the_first_fault_that_fits_strikes_and_no_other():
    book = FaultBook()
    first = book.add(Fault(action="close", at="identify"))
    second = book.add(Fault(action="abort", at="identify"))
    assert book.take(Trigger.IDENTIFY, ("1", 0)) is first
    assert book.take(Trigger.IDENTIFY, ("1", 0)) is second
    assert book.take(Trigger.IDENTIFY, ("1", 0)) is None


@pytest.mark.parametrize("wrong", [
    {"action": "explode"}, {"action": "ping", "at": "then"}, {"action": "ping", "every": 0}, {"action": "ping", "times": -1},
    {"action": "close", "code": 999}, {"action": "close", "reason": "x" * 124}, {"action": "status", "status": 42},
])  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ControlError):
        Fault(**wrong)
