"""Events to bytes and replies to acknowledgements, without a server."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shardwright_api.resources import EventFilter
from shardwright_shard.journal import Event
from shardwright_shard.sinks.nats_encoder import Encoder
from shardwright_shard.sinks.nats_flow import Flow
from shardwright_shard.sinks.nats_subject import SubjectTemplate
from shardwright_shard.sinks.nats_wire import Acks, Failure, Message, Pong
from shardwright_shard.sinks.selection import Selection
from shardwright_shard.sinks.window import Window
from unit.shard.sinks.making import BOT, TIME, journal, message, messages, source
from unit.shard.sinks.published import read

INBOX = "_INBOX.7f2c"


class Writer:
    """Keeps what is written; a test shuts it by `writable`."""

    def __init__(self):
        self.writable = True
        self.written = []
        self.writes = 0

    def write(self, data):
        self.writes += 1
        self.written += read(data)

    def take(self):
        taken, self.written = self.written, []
        return taken

    def seqs(self):
        return [int(event.headers["ce-seq"]) for event in self.take() if event != "PING"]


class Stage:
    """A journal, a flow and its writer."""

    def __init__(self, *, stream="D", events=100, size=10**6, spec=None):
        self.journal = journal()
        self.source = source()
        selection = Selection(spec or EventFilter())
        template = SubjectTemplate("discord.{bot}.{event}", bot=BOT)
        encoder = Encoder(template=template, selection=selection, inbox=INBOX if stream else None)
        reader = self.journal.reader(self.wake)
        window = Window(events=events, size=size)
        self.flow = Flow(reader, outlet=encoder, window=window, inbox=INBOX, stream=stream)
        self.writer = Writer()

    def wake(self):
        self.flow.pump()

    def append(self, *events):
        self.journal.append(self.source, list(events), TIME)

    def begin(self):
        self.flow.begin(self.writer)
        return self


def refused(number):
    body = b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"D","seq":0}'
    return Message(f"{INBOX}.{number}".encode(), body)


def test_nothing_is_written_before_it_begins():
    stage = Stage()
    stage.append(message(1))
    assert stage.writer.writes == 0
    stage.begin()
    assert stage.writer.seqs() == [1]


def test_one_append_is_one_write():
    stage = Stage().begin()
    stage.append(*messages(10))
    assert stage.writer.writes == 1
    assert stage.writer.seqs() == list(range(1, 11))


def test_acknowledgements_move_the_cursor_of_the_session():
    stage = Stage().begin()
    stage.append(*messages(3))
    stage.flow.received([Acks([0, 1])])
    assert (stage.source.acked, stage.flow.pending) == (2, 1)
    stage.flow.received([Acks([2])])
    assert (stage.source.acked, stage.flow.pending) == (3, 0)
    assert (stage.flow.published, stage.flow.acknowledged) == (3, 3)


def test_filtered_events_are_acknowledged_with_their_predecessors():
    stage = Stage(spec=EventFilter(exclude=("TYPING_START",))).begin()
    typing = Event(2, "TYPING_START", b"{}")
    stage.append(message(1), typing)
    assert stage.source.acked is None
    stage.flow.received([Acks([0])])
    assert stage.source.acked == 2
    stage.append(typing._replace(seq=3))
    assert (stage.source.acked, stage.flow.pending) == (3, 0)


def test_a_full_window_waits_for_acknowledgements():
    stage = Stage(events=4).begin()
    stage.append(*messages(10))
    assert stage.writer.seqs() == [1, 2, 3, 4]
    stage.flow.received([Acks([0, 1])])
    assert stage.writer.seqs() == [5, 6]
    stage.flow.received([Acks([2, 3, 4, 5])])
    assert stage.writer.seqs() == [7, 8, 9, 10]


def test_bytes_under_way_are_bounded_but_one_event_may_always_leave():
    stage = Stage(size=2000).begin()
    stage.append(message(1, size=5000), message(2, size=1000), message(3, size=500), message(4, size=900))
    assert stage.writer.seqs() == [1]
    stage.flow.received([Acks([0])])
    assert stage.writer.seqs() == [2, 3]


def test_filtered_events_never_hold_up_those_behind_them():
    """More are filtered at once than the window has room for."""
    stage = Stage(events=4, spec=EventFilter(exclude=("TYPING_START",)))
    stage.append(*[Event(seq, "TYPING_START", b"{}") for seq in range(1, 10)], message(10))
    stage.begin()
    assert stage.writer.seqs() == [10]


def test_a_writer_without_room_is_left_alone_until_it_has():
    stage = Stage().begin()
    stage.writer.writable = False
    stage.append(*messages(2))
    assert stage.writer.writes == 0
    stage.writer.writable = True
    stage.flow.pump()
    assert stage.writer.seqs() == [1, 2]


def test_what_was_not_acknowledged_is_sent_again_over_the_next_connection():
    stage = Stage().begin()
    stage.append(*messages(5))
    stage.flow.received([Acks([0, 1])])
    stage.flow.stop()
    stage.append(message(6))
    stage.writer.take()
    stage.begin()
    again = stage.writer.take()
    assert [event.headers["Nats-Msg-Id"].rpartition(":")[2] for event in again] == ["3", "4", "5", "6"]
    assert min(event.number for event in again) >= 5


def test_late_acknowledgements_of_the_last_connection_are_ignored():
    stage = Stage().begin()
    stage.append(*messages(3))
    stage.flow.stop()
    stage.begin()
    stage.flow.received([Acks([0, 1, 2])])
    assert stage.source.acked is None


def test_a_refusal_stops_the_flow_and_what_was_before_it_still_counts():
    stage = Stage().begin()
    stage.append(*messages(5))
    stage.flow.received([Acks([0]), refused(1), Acks([2, 3, 4])])
    stage.append(message(6))
    assert stage.flow.refusal == "maximum bytes exceeded (10077)"
    assert (stage.source.acked, stage.flow.refused) == (1, 1)
    assert stage.writer.seqs() == [1, 2, 3, 4, 5]


def test_after_a_refusal_the_first_event_goes_alone():
    stage = Stage().begin()
    stage.append(*messages(5))
    stage.flow.received([Acks([0]), refused(1)])
    stage.writer.take()
    stage.begin()
    (alone,) = stage.writer.take()
    assert alone.headers["ce-seq"] == "2"
    stage.flow.received([refused(alone.number)])
    stage.begin()
    (alone,) = stage.writer.take()
    stage.flow.received([Acks([alone.number])])
    assert stage.writer.seqs() == [3, 4, 5]


def test_an_acknowledgement_of_an_unusual_form_counts():
    stage = Stage().begin()
    stage.append(message(1))
    stage.flow.received([Message(f"{INBOX}.0".encode(), b'{"stream":"D","domain":"hub","seq":4}')])
    assert stage.source.acked == 1


def test_another_stream_that_took_an_event_is_a_refusal():
    stage = Stage().begin()
    stage.append(message(1))
    stage.flow.received([Message(f"{INBOX}.0".encode(), b'{"stream":"OTHER","seq":4}')])
    assert "OTHER" in stage.flow.refusal
    assert stage.source.acked is None


def test_replies_to_what_was_given_up_or_never_asked_are_ignored():
    stage = Stage().begin()
    stage.append(message(1))
    stage.flow.stop()
    stage.begin()
    stage.flow.received([refused(0), Message(b"elsewhere.5", b"{}"), Message(f"{INBOX}.x".encode(), b"{}")])
    assert stage.flow.refusal == ""


def test_a_missing_permission_is_a_refusal():
    stage = Stage(stream=None).begin()
    stage.append(message(1))
    stage.flow.received([Failure('Permissions Violation for Publish to "x"'), Pong()])
    assert "Permissions Violation" in stage.flow.refusal
    assert stage.source.acked is None


def test_a_pong_is_no_acknowledgement_for_jetstream():
    stage = Stage().begin()
    stage.append(message(1))
    stage.flow.ping()
    stage.flow.received([Pong()])
    assert stage.source.acked is None
    assert stage.flow.awaited_pongs == 0


def test_core_nats_has_one_ping_under_way():
    stage = Stage(stream=None).begin()
    stage.append(message(1))
    stage.append(message(2))
    assert [event if event == "PING" else event.headers["ce-seq"] for event in stage.writer.take()] == [
        "1",
        "PING",
        "2",
    ]
    stage.flow.received([Pong()])
    assert stage.source.acked == 1
    assert stage.writer.take() == ["PING"]
    stage.flow.received([Pong()])
    assert (stage.source.acked, stage.flow.awaited_pongs) == (2, 0)
    stage.flow.received([Pong()])
    assert stage.flow.pending == 0


class Delivery(RuleBasedStateMachine):
    """A stream that stores, refuses and answers in any order, over connections that break: nothing is ever lost.

    The stream drops duplicates by id, as JetStream does. Each session's cursor never passes an event that is not stored,
    and once all faults end everything is stored; order is kept as long as nothing was refused.
    """

    def __init__(self):
        super().__init__()
        self.stage = Stage(events=7, size=4000, spec=EventFilter(exclude=("TYPING_START",)))
        self.wanted = []
        self.stored = []
        self.answers = []
        self.seq = 0
        self.connected = False
        self.was_refused = False

    @rule(count=st.integers(1, 9), size=st.integers(0, 900), typing=st.booleans())
    def append(self, count, size, typing):
        events = [message(self.seq + index, size=size) for index in range(1, count + 1)]
        if typing:
            events[-1] = Event(events[-1].seq, "TYPING_START", b"{}")
        self.seq += count
        self.wanted += [event.seq for event in events if event.name != "TYPING_START"]
        self.stage.append(*events)

    @precondition(lambda self: not self.connected or self.stage.flow.refusal)
    @rule()
    def begin(self):
        self.stage.begin()
        self.connected = True

    @precondition(lambda self: self.connected)
    @rule(handled=st.booleans())
    def disconnect(self, handled):
        """The server may or may not have handled what was written; the answers are lost in any case."""
        self.stage.flow.stop()
        if handled:
            self.serve([])
        self.stage.writer.take()
        self.answers.clear()
        self.connected = False

    @rule(refuse=st.sets(st.integers(0, 8), max_size=2))
    def serve(self, refuse):
        for index, event in enumerate(self.stage.writer.take()):
            if index in refuse:
                self.was_refused = True
                self.answers.append(refused(event.number))
                continue
            seq = int(event.headers["Nats-Msg-Id"].rpartition(":")[2])
            if seq not in self.stored:
                self.stored.append(seq)
            self.answers.append(Acks([event.number]))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer(self, data):
        answers = data.draw(st.permutations(self.answers))
        count = data.draw(st.integers(1, len(answers)))
        self.stage.flow.received(answers[:count])
        self.answers = answers[count:]

    @rule(writable=st.booleans())
    def room(self, writable):
        self.stage.writer.writable = writable
        self.stage.flow.pump()

    @invariant()
    def the_cursor_never_passes_what_is_not_stored(self):
        acked = self.stage.source.acked or 0
        assert not [seq for seq in self.wanted if seq <= acked and seq not in self.stored]

    @invariant()
    def what_is_under_way_is_bounded(self):
        assert self.stage.flow.window.under_way <= 7

    @invariant()
    def order_is_kept_unless_refused(self):
        assert self.was_refused or self.stored == sorted(self.stored)

    def teardown(self):
        self.stage.writer.writable = True
        self.stage.flow.stop()
        self.stage.writer.take()
        self.answers.clear()
        self.stage.begin()
        while self.stage.flow.pending:
            self.serve([])
            assert self.answers
            self.stage.flow.received(self.answers)
            self.answers = []
        assert sorted(self.stored) == self.wanted


TestDelivery = Delivery.TestCase
