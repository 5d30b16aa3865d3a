"""The sink in memory."""

from __future__ import annotations

from shardwright_api.resources import EventFilter
from shardwright_shard.sinks.memory import MemorySink
from unit.shard.sinks.making import TIME, journal, message, messages, source


class Stage:
    """A memory sink at a journal."""

    def __init__(self, **options):
        self.sink = MemorySink(**options)
        self.journal = journal()
        self.source = source()
        self.sink.attach(self.journal.reader(self.sink.wake))

    def append(self, *events):
        self.journal.append(self.source, list(events), TIME)

    def seqs(self):
        return [event.seq for _, event in self.sink.events]


def test_it_keeps_and_acknowledges_at_once():
    stage = Stage()
    stage.append(*messages(3))
    assert stage.sink.events == [(stage.source, event) for event in messages(3)]
    assert stage.source.acked == 3


def test_it_filters():
    stage = Stage(events=EventFilter(exclude=("MESSAGE_CREATE",)))
    stage.append(*messages(3))
    assert (stage.sink.events, stage.source.acked) == ([], 3)
    assert stage.sink.statistics()["filtered"] == 3


def test_it_can_hold_and_release_its_acknowledgements():
    stage = Stage()
    stage.sink.hold()
    stage.append(*messages(3))
    assert (stage.seqs(), stage.source.acked) == ([1, 2, 3], None)
    stage.sink.release(2)
    assert stage.source.acked == 2
    stage.append(message(4))
    assert stage.source.acked == 2
    stage.sink.release()
    stage.append(message(5))
    assert (stage.seqs(), stage.source.acked) == ([1, 2, 3, 4, 5], 5)


def test_what_it_refuses_is_read_again():
    stage = Stage()
    stage.sink.refuse()
    stage.append(message(1))
    assert (stage.seqs(), stage.source.acked) == ([], None)
    stage.append(message(2))
    assert (stage.seqs(), stage.source.acked) == ([1, 2], 2)
    assert stage.sink.statistics()["refused"] == 1


def test_while_it_is_away_it_takes_nothing_and_then_everything():
    stage = Stage()
    stage.sink.leave("gone fishing")
    stage.append(message(1))
    assert (stage.sink.available, stage.sink.message, stage.seqs()) == (False, "gone fishing", [])
    stage.sink.come_back()
    assert (stage.sink.available, stage.sink.message, stage.seqs()) == (True, "", [1])


def test_what_was_not_acknowledged_comes_twice_after_an_absence():
    stage = Stage()
    stage.sink.hold()
    stage.append(*messages(2))
    stage.sink.release(1)
    stage.sink.leave()
    stage.sink.come_back()
    assert stage.seqs() == [1, 2, 2]
    assert stage.sink.statistics() == {
        "published": 3,
        "acknowledged": 1,
        "filtered": 0,
        "oversize": 0,
        "refused": 0,
        "reconnects": 0,
        "pending": 1,
    }
