"""The ledger and the journals: complete, numbered, bounded, cheap to query from where one left off."""

import hashlib

import orjson
import pytest

from shardwright_simulator import BotConfig
from shardwright_simulator.ledger import Entry, Ledger, line
from shardwright_simulator.records import Journal, RestRequest


def entry(n, bot="1", session="s"):
    return Entry(n, 1.0, bot, session, 0, 1, n, "X", n, 10, b"\x01" * 32, "")


def filled(number, limit=1_000):
    ledger = Ledger(limit)
    for n in range(1, number + 1):
        ledger.add(entry(n, bot=str(n % 2), session=str(n % 3)))
    return ledger


@pytest.mark.parametrize(("query", "numbers"), [
    ({}, list(range(1, 13))),
    ({"after": 10}, [11, 12]),
    ({"after": 12}, []),
    ({"after": 99}, []),
    ({"limit": 2}, [1, 2]),
    ({"after": 3, "limit": 2}, [4, 5]),
    ({"bot": "1"}, [1, 3, 5, 7, 9, 11]),
    ({"session": "0", "bot": "0"}, [6, 12]),
])  # fmt: skip
def test_queries(query, numbers):
    assert [e.n for e in filled(12).query(**query)] == numbers


def test_a_full_ledger_drops_the_oldest_and_counts_them():
    ledger = filled(150, limit=100)
    statistics = ledger.statistics()
    assert statistics.entries <= 100
    assert statistics.entries + statistics.dropped == 150
    assert statistics.last == 150
    assert [e.n for e in ledger.query(after=148)] == [149, 150]
    assert next(ledger.query()).n == statistics.dropped + 1


def test_a_line_is_json_with_the_hash_in_hex():
    row = orjson.loads(line(entry(1)))
    assert row["sha256"] == "01" * 32
    assert set(row) == {
        "n",
        "time",
        "bot",
        "session",
        "shard",
        "total",
        "seq",
        "t",
        "serial",
        "size",
        "flags",
        "sha256",
    }


def test_the_hash_is_that_of_the_message(world):
    client = world.ready()
    for output, e in zip(client.outputs[1:], world.control.ledger(session=client.session), strict=True):
        assert hashlib.sha256(output).digest() == e.digest
        assert len(output) == e.size


def test_sequences_have_no_holes(world):
    client = world.ready()
    client.lose()
    again = world.connect()
    again.resume(client.session, 3)
    assert [e.seq for e in world.control.ledger()] == [1, 2, 3, 4]
    assert [e.t for e in world.control.ledger()][-1] == "RESUMED"
    assert [e.serial is None for e in world.control.ledger()] == [False, False, False, True]


def test_journals_number_filter_and_forget():
    journal = Journal(limit=3)
    for n in range(5):
        journal.add(RestRequest(time=1.0, bot=str(n % 2), path="/", status=200))
    assert [r.n for r in journal.query()] == [3, 4, 5]
    assert [r.n for r in journal.query(bot="0", after=3)] == [5]
    journal.clear()
    journal.add(RestRequest(time=1.0, path="/", status=200))
    assert [r.n for r in journal.query()] == [6]


def test_reset_clears_what_was_written_down_and_keeps_the_sessions(make_world):
    world = make_world(bots=[BotConfig(guilds=4)])
    client = world.ready()
    client.beat(99)
    world.control.reset()
    state = world.control.state()
    assert (state.violations, state.identifies, state.ledger.entries, state.sessions) == (0, 0, 0, 1)
