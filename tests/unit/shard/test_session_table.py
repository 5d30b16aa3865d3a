"""Every state and every input: what happens is written down here, and nothing else may happen."""

import copy

import pytest

from shardwright_shard.errors import IllegalTransition
from shardwright_shard.session_table import TABLE, Effect, Input, State, input_of_close, step
from unit.shard.driven import Driven, resumable

# A word's state ("=" stays) and effects. "-" stands for a pair that is a bug of ours: it raises.
WORDS = {
    "connect": ("CONNECTING", ""),
    "open": ("OPEN", ""),
    "resume": ("RESUMING", "HEARTBEATS RESUME"),
    "queue": ("QUEUED", "HEARTBEATS"),
    "identify": ("IDENTIFYING", "IDENTIFY"),
    "adopt": ("LIVE", "ADOPT FORWARD LIVE"),
    "caught-up": ("LIVE", "FORWARD LIVE"),
    "forward": ("=", "FORWARD"),
    "beat": ("=", "BEAT"),
    "ack": ("=", "ACK"),
    "drop": ("IDLE", "CLOSE_KEEP RETRY"),
    "drop+forget": ("IDLE", "FORGET CLOSE_KEEP RETRY"),
    "retry": ("IDLE", "RETRY"),
    "retry+forget": ("IDLE", "FORGET RETRY"),
    "park": ("PARKED", ""),
    "unpark": ("IDLE", ""),
    "done": ("ENDED", ""),
    "close-4000": ("ENDED", "CLOSE_KEEP"),
    "close-1000": ("ENDED", "CLOSE_END"),
}

GRID = """
                   IDLE     CONNECTING  OPEN          QUEUED        IDENTIFYING   RESUMING      LIVE          PARKED  ENDED
CONNECT            connect  -           -             -             -             -             -             -       -
OPENED             -        open        -             -             -             -             -             -       -
HELLO_RESUME       -        -           resume        drop          drop          drop          drop          -       -
HELLO_IDENTIFY     -        -           queue         drop          drop          drop          drop          -       -
SLOT               -        -           -             identify      -             -             -             -       -
READY              -        -           drop          drop          adopt         forward       drop          -       -
RESUMED            -        -           drop          drop          drop          caught-up     drop          -       -
EVENT              -        -           drop          drop          drop          forward       forward       -       -
BEAT_REQUEST       -        -           beat          beat          beat          beat          beat          -       -
BEAT_DUE           -        -           -             beat          beat          beat          beat          -       -
ACK                -        -           ack           ack           ack           ack           ack           -       -
RECONNECT          -        -           drop          drop          drop          drop          drop          -       -
INVALID_RESUMABLE  -        -           drop          drop          drop          drop          drop          -       -
INVALID            -        -           drop+forget   drop+forget   drop+forget   drop+forget   drop+forget   -       -
LOST               -        retry       retry         retry         retry         retry         retry         -       done
REFUSED            -        -           retry+forget  retry+forget  retry+forget  retry+forget  retry+forget  -       -
FATAL              -        -           park          park          park          park          park          -       -
ZOMBIE             -        -           drop          drop          drop          drop          drop          -       -
TIMEOUT            -        drop        drop          drop          drop          drop          drop          -       -
RUBBISH            -        drop        drop          drop          drop          drop          drop          -       -
HOLE               -        -           -             -             -             -             drop          -       -
PAUSED             -        -           drop          drop          drop          drop          drop          -       -
UNPARK             -        -           -             -             -             -             -             unpark  -
DRAIN              done     close-4000  close-4000    close-4000    close-4000    close-4000    close-4000    done    done
DELETE             done     close-4000  close-1000    close-1000    close-1000    close-1000    close-1000    done    done
"""


def expectations():
    columns, *rows = [line.split() for line in GRID.strip().splitlines()]
    return {(state, row[0]): word for row in rows for state, word in zip(columns, row[1:], strict=True)}


EXPECTED = expectations()


def test_every_pair_is_decided_here():
    assert set(EXPECTED) == {(state.name, given.name) for state in State for given in Input}
    assert len(EXPECTED) == 9 * 25


@pytest.mark.parametrize(("state", "given"), [pair for pair, word in EXPECTED.items() if word != "-"])
def test_a_legal_pair_leads_to_its_state_with_its_effects(state, given):
    target, effects = WORDS[EXPECTED[state, given]]
    transition = step(State[state], Input[given])
    assert transition.state is State[state if target == "=" else target]
    assert transition.effects == tuple(Effect[name] for name in effects.split())


@pytest.mark.parametrize(("state", "given"), [pair for pair, word in EXPECTED.items() if word == "-"])
def test_an_illegal_pair_raises(state, given):
    with pytest.raises(IllegalTransition, match=f"{given} is not allowed in {state}"):
        step(State[state], Input[given])


def in_state(state):
    """A session that came there by what happens in life."""
    to_resume = resumable() if state is State.RESUMING else None
    driven = Driven(to_resume=to_resume)
    ways = {
        State.IDLE: lambda: None,
        State.CONNECTING: driven.connecting,
        State.OPEN: driven.opened,
        State.QUEUED: driven.greeted,
        State.IDENTIFYING: driven.identifying,
        State.RESUMING: driven.greeted,
        State.LIVE: driven.live,
        State.PARKED: lambda: driven.live().closed(4004),
        State.ENDED: lambda: driven.live().session.give(Input.DRAIN, driven.now),
    }
    ways[state]()
    assert driven.session.state is state
    return driven


def fields(session):
    """All that the session remembers, as a copy."""
    kept = {name: value for name, value in vars(session).items() if name not in {"_effects", "_random", "source"}}
    resumable = kept.pop("resumable")
    kept["resumable"] = resumable and {name: getattr(resumable, name) for name in resumable.__slots__}
    return copy.copy(kept) | {name: list(kept[name]) for name in ("sends", "events")}


@pytest.mark.parametrize(("state", "given"), [pair for pair, word in EXPECTED.items() if word == "-"])
def test_an_illegal_input_changes_nothing_in_a_session(state, given):
    driven = in_state(State[state])
    before = fields(driven.session)
    with pytest.raises(IllegalTransition):
        driven.session.give(Input[given], driven.now + 1)
    assert fields(driven.session) == before


@pytest.mark.parametrize("state", [State.OPEN, State.QUEUED, State.IDENTIFYING, State.RESUMING, State.LIVE])
@pytest.mark.parametrize(
    ("given", "code"),
    [
        (Input.DRAIN, 4000),
        (Input.DELETE, 1000),
        (Input.TIMEOUT, 4000),
        (Input.PAUSED, 4000),
        (Input.RUBBISH, 4000),
        (Input.ZOMBIE, 4000),
    ],
)
def test_only_deletion_closes_with_a_code_that_ends_the_session(state, given, code):
    driven = in_state(state)
    driven.session.give(given, driven.now)
    assert driven.close_code() == code


def test_every_effect_is_used():
    assert {effect for transition in TABLE.values() for effect in transition.effects} == set(Effect)


@pytest.mark.parametrize(
    ("code", "action"),
    [
        # Without a code, and what proxies and servers on the way send: the session may live.
        (None, "resume"),
        (1000, "resume"),
        (1001, "resume"),
        (1006, "resume"),
        (1011, "resume"),
        (1012, "resume"),
        (4000, "resume"),
        (4001, "resume"),
        (4002, "resume"),
        (4003, "identify"),
        (4004, "stop"),
        (4005, "identify"),
        (4006, "identify"),
        (4007, "identify"),
        (4008, "resume"),
        (4009, "identify"),
        (4010, "stop"),
        (4011, "stop"),
        (4012, "stop"),
        (4013, "stop"),
        (4014, "stop"),
        (4015, "stop"),
        (4016, "stop"),
        # What Discord adds later: nothing says that the session is over.
        (4017, "resume"),
        (4900, "resume"),
    ],
)
def test_a_close_code_means_resume_identify_or_stop(code, action):
    """Discord: Opcodes and Status Codes > Gateway Close Event Codes, and what six libraries make of them."""
    assert input_of_close(code) is {"resume": Input.LOST, "identify": Input.REFUSED, "stop": Input.FATAL}[action]
    driven = Driven().live()
    driven.closed(code)
    assert driven.state == ("PARKED" if action == "stop" else "IDLE")
    assert (driven.session.resumable is None) == (action == "identify")
    assert driven.session.last_close == code
