"""The journal: positions, readers, and what moves the sessions' cursors."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shardwright_shard import journal as module
from shardwright_shard.journal import Event, Journal, Source
from unit.shard.sinks.making import TIME, message, messages, source


def nothing():
    """Stand for a sink that does not care."""


def seqs(batches):
    return [event.seq for batch in batches for event in batch.events]


def filled(*counts, limit=10**9):
    """Give a journal, a reader and a source, with batches of so many events appended."""
    made, of = Journal(limit=limit), source()
    reader = made.reader(nothing)
    first = 1
    for count in counts:
        made.append(of, messages(count, first=first), TIME)
        first += count
    return made, reader, of


def test_a_reader_takes_what_was_appended_after_it_came():
    made, _, of = filled(2)
    late = made.reader(nothing)
    made.append(of, messages(2, first=3), TIME)
    assert seqs(late.take()) == [3, 4]
    assert late.take() == []


def test_every_append_wakes_every_sink_once():
    made, woken = Journal(limit=100), []
    made.reader(lambda: woken.append("a"))
    made.reader(lambda: woken.append("b"))
    made.append(source(), messages(3), TIME)
    assert woken == ["a", "b"]


def test_a_take_gives_whole_batches_until_its_limit_is_reached():
    _, reader, _ = filled(3, 3, 3)
    assert seqs(reader.take(4)) == [1, 2, 3, 4, 5, 6]
    assert seqs(reader.take(4)) == [7, 8, 9]


def test_a_take_from_the_middle_of_a_batch_gives_its_tail():
    _, reader, _ = filled(3, 3)
    reader.next = 1
    (first, second) = reader.take()
    assert (first.position, seqs([first]), first.size) == (1, [2, 3], len(message(2).payload) * 2)
    assert seqs([second]) == [4, 5, 6]


def test_a_rewind_reads_again_from_the_first_event_not_acknowledged():
    _, reader, _ = filled(3, 3)
    reader.take()
    reader.ack(2)
    reader.rewind()
    assert seqs(reader.take()) == [3, 4, 5, 6]


def test_acknowledging_an_earlier_position_again_is_harmless():
    _, reader, of = filled(3)
    reader.ack(3)
    reader.ack(1)
    assert (reader.acked, of.acked) == (3, 3)


def test_acknowledging_more_than_there_is_means_all():
    made, reader, _ = filled(3)
    reader.ack(99)
    assert (reader.acked, reader.pending) == (made.end, 0)


def test_a_session_is_acknowledged_up_to_the_slowest_sink():
    made, of = Journal(limit=100), source()
    quick, slow = made.reader(nothing), made.reader(nothing)
    made.append(of, messages(4), TIME)
    quick.ack(4)
    assert of.acked is None
    slow.ack(2)
    assert of.acked == 2


def test_an_event_without_a_sequence_leaves_the_cursor_where_it_was():
    made, of = Journal(limit=100), source()
    reader = made.reader(nothing)
    made.append(of, [message(7), Event(None, "RESUMED", b"{}")], TIME)
    reader.ack(1)
    assert of.acked == 7
    reader.ack(2)
    assert of.acked == 7


def test_the_journal_is_full_above_its_limit_until_it_is_half_empty():
    room = []
    made = Journal(limit=1000, on_room=lambda: room.append(made.size))
    reader = made.reader(nothing)
    payload = b"x" * 300
    for seq in range(4):
        assert not made.full
        made.append(source(), [Event(seq, "A", payload)], TIME)
    assert made.full
    reader.ack(1)
    reader.ack(2)
    assert (made.full, room) == (True, [])
    reader.ack(3)
    assert (made.full, room) == (False, [300])
    reader.ack(4)
    assert room == [300]


def test_statistics_count_events_and_bytes():
    made, reader, _ = filled(3, 3)
    reader.ack(4)
    waiting = {"events": 3, "bytes": len(message(4).payload) * 3}
    assert made.statistics() == {**waiting, "spool_events": 0, "spool_bytes": 0}


def test_reading_near_the_end_costs_the_same_however_much_an_absent_sink_keeps(monkeypatch):
    """A sink that is away must not make the others slow: taking looks at few batches of the many."""
    made, of = Journal(limit=10**9), source()
    made.reader(nothing)
    present = made.reader(nothing)
    for seq in range(2000):
        made.append(of, [message(seq)], TIME)
    present.next = made.end - 3
    looked = []
    monkeypatch.setattr(module.Batch, "end", property(lambda batch: looked.append(batch) or batch.position + 1))
    assert seqs(present.take()) == [1997, 1998, 1999]
    assert len(looked) < 30


class Journals(RuleBasedStateMachine):
    """Two sources and two readers against a plain list of all events ever appended."""

    def __init__(self):
        super().__init__()
        self.limit = 500
        self.journal = Journal(limit=self.limit, on_room=self.got_room)
        self.readers = [self.journal.reader(nothing), self.journal.reader(nothing)]
        self.sources = [source(shard=0), source(shard=1)]
        self.all = []
        self.rooms = 0

    def got_room(self):
        self.rooms += 1
        assert self.journal.size <= self.limit // 2

    @rule(of=st.integers(0, 1), numbered=st.lists(st.booleans(), max_size=5), size=st.integers(0, 100))
    def append(self, of, numbered, size):
        first = len(self.all)
        events = [Event(first + i if yes else None, "A", b"x" * size) for i, yes in enumerate(numbered)]
        self.all += [(self.sources[of], event) for event in events]
        self.journal.append(self.sources[of], events, TIME)

    @rule(who=st.integers(0, 1), limit=st.integers(1, 8))
    def take(self, who, limit):
        reader = self.readers[who]
        start = reader.next
        batches = reader.take(limit)
        taken = [(batch.source, event) for batch in batches for event in batch.events]
        assert taken == self.all[start : start + len(taken)]
        assert reader.next == start + len(taken)
        assert len(taken) >= limit or reader.next == len(self.all)

    @precondition(lambda self: self.all)
    @rule(who=st.integers(0, 1), data=st.data())
    def ack(self, who, data):
        reader = self.readers[who]
        reader.ack(data.draw(st.integers(0, reader.next)))

    @rule(who=st.integers(0, 1))
    def rewind(self, who):
        self.readers[who].rewind()

    @invariant()
    def positions_are_in_order(self):
        for reader in self.readers:
            assert 0 <= reader.acked <= reader.next <= self.journal.end == len(self.all)

    @invariant()
    def cursors_stand_at_the_last_event_that_both_acknowledged(self):
        behind = self.all[: min(reader.acked for reader in self.readers)]
        for of in self.sources:
            numbers = [event.seq for where, event in behind if where is of and event.seq is not None]
            assert of.acked == (numbers[-1] if numbers else None)

    @invariant()
    def only_what_is_acknowledged_is_forgotten(self):
        statistics = self.journal.statistics()
        assert statistics["events"] >= len(self.all) - min(reader.acked for reader in self.readers)
        assert self.journal.full or statistics["bytes"] <= self.limit


TestJournals = Journals.TestCase
TestJournals.settings = settings(max_examples=200)


def test_a_source_names_itself():
    of = Source(bot="42", shard=3, total=16, session="f0a1", acked=9)
    assert (of.uri, of.id_prefix, of.acked) == ("/discord/42/shards/3/16", "42:f0a1:", 9)
