"""The spool: what was written is there after a crash, in order, and nothing that was not."""

import asyncio
import errno
import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shardwright_shard import journal as journal_module
from shardwright_shard import spool as module
from shardwright_shard.journal import Batch, Event, Journal
from shardwright_shard.sinks.nats_wire import Acks
from shardwright_shard.spool import Damaged, Spool
from unit.shard.sinks import test_nats_flow as flow
from unit.shard.sinks.making import TIME, messages, source

LIMIT = 10**9
OWNER = "mybot: bot 1, shards 0-3 of 4"


def opened(directory, *, limit=LIMIT, binding=OWNER):
    """Open what is there, as a new process does."""
    spool = Spool(Path(directory) / "spool", limit=limit, binding=binding)
    return spool, spool.scan()


def batches(*counts, first=1, position=0, size=0, of=None):
    """Make consecutive batches of so many events."""
    found, of = [], of or source()
    for count in counts:
        found.append(Batch(position=position, source=of, events=messages(count, first=first, size=size), time=TIME))
        first, position = first + count, position + count
    return found


def keep(spool, chunks):
    for chunk in chunks:
        chunk.segment.live += 1


def contents(spool, chunks):
    """Read everything back: position, session, event."""
    return [
        (position, batch.source.session, event)
        for chunk in chunks
        for batch in spool.load(chunk)
        for position, event in enumerate(batch.events, batch.position)
    ]


def listed(given):
    return [
        (position, batch.source.session, event)
        for batch in given
        for position, event in enumerate(batch.events, batch.position)
    ]


def files(directory):
    return sorted((Path(directory) / "spool").iterdir())


def test_what_was_written_is_read_back_by_this_process_and_by_the_next(tmp_path):
    spool, found = opened(tmp_path)
    assert found == []
    given = batches(3, 5, of=source(session="a")) + batches(2, position=8, of=source(session="b"))
    given[1].events[2] = Event(None, "RESUMED", b"{}", mark="resumed-7-00")
    given[1].events[3] = Event(7, "GUILD_CREATE", b"\x00\xff", backfill=True)
    chunks = spool.write(given)
    assert contents(spool, chunks) == listed(given)
    spool.close()
    again, chunks = opened(tmp_path)
    assert contents(again, chunks) == listed(given)
    assert {of.session: last for of, last in chunks[-1].lasts} == {"a": 8, "b": 2}


def test_files_are_for_their_owner_alone(tmp_path):
    spool, _ = opened(tmp_path)
    spool.write(batches(1))
    assert [stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "spool", *files(tmp_path)]] == [0o700, 0o600]


def test_a_batch_larger_than_a_chunk_is_divided_and_an_event_larger_than_a_chunk_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1000)
    spool, _ = opened(tmp_path)
    given = [*batches(10, size=300), *batches(1, first=11, position=10, size=5000), *batches(1, first=12, position=11)]
    chunks = spool.write(given)
    assert contents(spool, chunks) == listed(given)
    assert [chunk.end - chunk.position for chunk in chunks] == [2, 2, 2, 2, 2, 1, 1]
    assert [chunk.position for chunk in chunks] == [0, *(chunk.end for chunk in chunks[:-1])]


def test_a_segment_is_deleted_when_nobody_needs_it_and_only_then(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 1)
    spool, _ = opened(tmp_path)
    chunks = [chunk for batch in batches(1, 1, 1) for chunk in spool.write([batch])]
    keep(spool, chunks)
    assert len(files(tmp_path)) == 3
    doomed = spool.dead()
    spool.release(chunks[0])
    spool.sweep(doomed)
    assert len(files(tmp_path)) == 3, "it was in use when the checkpoint was made"
    spool.sweep(spool.dead())
    assert len(files(tmp_path)) == 2
    spool.close()
    _, found = opened(tmp_path)
    assert [chunk.position for chunk in found] == [1, 2]


def test_room_ends_at_four_fifths_of_the_limit_and_comes_back(tmp_path):
    spool, _ = opened(tmp_path, limit=1_000_000)
    assert spool.room == 800_000
    chunks = spool.write(batches(1, size=700_000))
    keep(spool, chunks)
    assert 99_000 < spool.room < 100_000
    spool.release(chunks[0])
    spool.sweep(spool.dead())
    assert spool.room == 800_000


@pytest.mark.parametrize("full", [False, True], ids=["in the first write", "behind other records"])
def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, full):
    spool, _ = opened(tmp_path)
    kept = spool.write(batches(2)) if full else []
    keep(spool, kept)
    real, calls = os.pwrite, []

    def pwrite(descriptor, data, offset):
        calls.append(len(data))
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: len(data) // 2 + 1], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OSError, match="No space"):
            spool.write(batches(50, position=2, first=3))
    later = spool.write(batches(3, position=2 if full else 0, first=3))
    keep(spool, later)
    expected = contents(spool, kept + later)
    spool.close()
    again, found = opened(tmp_path)
    assert contents(again, found) == expected


def written(tmp_path, monkeypatch):
    """Write three segments of two chunks each."""
    monkeypatch.setattr(module, "CHUNK", 100)
    monkeypatch.setattr(module, "SEGMENT", 420)
    spool, _ = opened(tmp_path, limit=10_000)
    spool._segment_size = 420
    given = batches(1, 1, 1, 1, 1, 1, size=100)
    for batch in given:
        spool.write([batch])
    spool.close()
    assert len(files(tmp_path)) == 3
    return listed(given)


def test_every_truncation_of_the_last_file_gives_the_records_before_it(tmp_path, monkeypatch):
    everything = written(tmp_path, monkeypatch)
    last = files(tmp_path)[-1]
    whole, seen = last.read_bytes(), set()
    for size in reversed(range(len(whole))):
        last.write_bytes(whole[:size])
        spool, chunks = opened(tmp_path)
        found = contents(spool, chunks)
        assert found == everything[: len(found)]
        seen.add(len(found))
        spool.close()
        spool, chunks = opened(tmp_path)
        assert contents(spool, chunks) == found
        spool.close()
    assert seen == {4, 5}


@pytest.mark.parametrize("number", range(3))
def test_every_flipped_byte_cuts_the_spool_there_and_says_so(tmp_path, monkeypatch, caplog, number):
    everything = written(tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in files(tmp_path)}
    victim = list(before)[number]
    for place in range(0, len(before[victim]), 3):
        for path, data in before.items():
            path.write_bytes(data)
        data = bytearray(before[victim])
        data[place] ^= 0xFF
        victim.write_bytes(data)
        caplog.clear()
        spool, chunks = opened(tmp_path)
        found = contents(spool, chunks)
        assert found in (everything[: 2 * number], everything[: 2 * number + 1])
        assert "the spool is cut off" in caplog.text
        spool.close()


@pytest.mark.parametrize("change", ["binding", "format"])
def test_a_foreign_spool_is_dropped_with_a_log_line(tmp_path, monkeypatch, caplog, change):
    with monkeypatch.context() as patch:
        if change == "format":
            patch.setattr(module, "FORMAT", 99)
        spool, _ = opened(tmp_path, binding="another" if change == "binding" else OWNER)
        spool.write(batches(3))
        spool.close()
    spool, chunks = opened(tmp_path)
    assert (chunks, files(tmp_path)) == ([], [])
    assert "belongs to" in caplog.records[0].why
    assert "MESSAGE_CREATE" not in str(caplog.records[0].__dict__)
    spool.write(batches(1))


def test_the_index_of_a_gigabyte_is_small(tmp_path):
    """A chunk stands for 256 events of 1 kB: 4,000 of them for a gigabyte."""
    spool, _ = opened(tmp_path)
    chunks = spool.write(batches(*[1] * 2560, size=1000))
    assert 10 <= len(chunks) <= 12


def test_a_disk_that_gives_back_something_else_is_noticed(tmp_path):
    spool, _ = opened(tmp_path)
    chunks = spool.write(batches(3))
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged):
        spool.load(chunks[0])


def broken(error):
    """Make a function that fails, as a disk does."""

    def fail(*_, **__):
        raise OSError(error, os.strerror(error))

    return fail


def test_positions_that_are_left_out_were_acknowledged_and_so_was_all_before_them(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 1)
    spool, _ = opened(tmp_path)
    spool.write(batches(10))
    given = batches(5, 5, first=21, position=20)
    for batch in given:
        spool.write([batch])
    spool.close()
    again, chunks = opened(tmp_path)
    assert contents(again, chunks) == listed(given)
    assert len(files(tmp_path)) == 2


def test_a_hole_in_the_middle_of_a_file_is_no_damage_either(tmp_path):
    spool, _ = opened(tmp_path)
    spool.write(batches(10))
    given = batches(5, first=21, position=20)
    spool.write(given)
    spool.close()
    again, chunks = opened(tmp_path)
    assert contents(again, chunks) == listed(given)


def test_a_crash_while_damage_is_cut_off_leaves_no_hole_that_passes_for_acknowledged(tmp_path, monkeypatch):
    everything = written(tmp_path, monkeypatch)
    second = files(tmp_path)[1]
    second.write_bytes(second.read_bytes()[:-1])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", broken(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            opened(tmp_path)
    spool, chunks = opened(tmp_path)
    assert contents(spool, chunks) == everything[:3]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOMEM])
def test_a_scan_that_fails_for_another_reason_than_damage_leaves_all_as_it_is(tmp_path, monkeypatch, error):
    everything = written(tmp_path, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken(error))
        with pytest.raises(OSError, match=os.strerror(error)):
            opened(tmp_path)
    spool, chunks = opened(tmp_path)
    assert contents(spool, chunks) == everything


@pytest.mark.parametrize("times", [1, 99])
def test_a_read_error_that_stays_is_damage_and_one_that_does_not_is_nothing(tmp_path, monkeypatch, times):
    everything = written(tmp_path, monkeypatch)
    real, calls = os.pread, []

    def pread(descriptor, size, offset):
        calls.append(offset)
        if 1 < len(calls) <= 1 + times:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, size, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        spool, chunks = opened(tmp_path)
    assert contents(spool, chunks) == (everything if times == 1 else everything[:2])


def test_a_write_under_way_is_not_swept_and_one_that_fails_leaves_the_rest_alone(tmp_path, monkeypatch):
    spool, _ = opened(tmp_path)
    real, doomed = module._write, []

    def write(segment, head, body):
        if body:
            doomed.extend(spool.dead())
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(segment, head, body)

    monkeypatch.setattr(module, "_write", write)
    with pytest.raises(OSError, match="No space"):
        spool.write(batches(3))
    spool.sweep(doomed)
    assert (doomed, files(tmp_path)) == ([], [])


@pytest.mark.parametrize("call", ["ftruncate", "unlink"])
def test_nothing_is_written_behind_what_a_failed_write_left(tmp_path, monkeypatch, call):
    spool, _ = opened(tmp_path)
    kept = spool.write(batches(2)) if call == "ftruncate" else []
    keep(spool, kept)
    given = batches(3, position=len(kept) * 2, first=3)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken(errno.EIO))
        patch.setattr(Path if call == "unlink" else os, call, broken(errno.EIO))
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                spool.write(given)
    later = spool.write(given)
    expected = contents(spool, kept + later)
    spool.close()
    again, found = opened(tmp_path)
    assert contents(again, found) == expected
    assert len(found) == len(kept) + 1


def test_a_segment_that_cannot_be_deleted_is_tried_again(tmp_path, monkeypatch):
    spool, _ = opened(tmp_path)
    spool.write(batches(2))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", broken(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            spool.sweep(spool.dead())
    spool.sweep(spool.dead())
    assert files(tmp_path) == []


@pytest.mark.parametrize("body", [b"\xc1", b"\x90", b"\x91\x93\x05\x01\x90"])
def test_a_right_checksum_over_what_cannot_be_used_is_damage(tmp_path, body):
    spool, _ = opened(tmp_path)
    given = batches(2)
    spool.write(given)
    head = module._Head(2, 3, [module._Share("81", 0, 1, "s", 3)])
    module._write(spool._segments[0], module.msgspec.msgpack.encode(head), body)
    spool.close()
    again, chunks = opened(tmp_path)
    assert contents(again, chunks) == listed(given)


# --- the journal with a spool -----------------------------------------------------------------------------------------


async def at_once(function, *args):
    return function(*args)


class Spooling(RuleBasedStateMachine):
    """A journal that spools at any time, and dies at any time, against a plain list of all events."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.all = []
        self.sinks = {"one": 0, "two": 0}
        self.sessions = ["s0", "s1"]
        self.begin()

    def begin(self):
        self.journal = Journal(limit=300, in_thread=at_once)
        self.readers = [self.journal.reader(lambda: None, name) for name in self.sinks]
        spool = Spool(Path(self.folder.name) / "spool", limit=100_000, binding=OWNER)
        chunks = spool.scan()
        self.sources = {of.session: of for chunk in chunks for of, _ in chunk.lasts}
        for session in self.sessions:
            self.sources.setdefault(session, source(session=session))
        self.journal.use(spool, chunks, self.sinks)
        if not chunks:
            self.all = []
        del self.all[self.journal.end :]
        self.save()

    def save(self):
        """As the checkpoint does: positions first, then segments."""
        doomed = self.journal.spool.dead()
        self.sinks = {reader.name: reader.acked for reader in self.readers}
        self.loop.run_until_complete(self.journal.sweep(doomed))

    @rule(who=st.integers(0, 1), sizes=st.lists(st.integers(0, 200), max_size=5))
    def append(self, who, sizes):
        of = self.sources[self.sessions[who]]
        events = [Event(len(self.all) + n + 1, "A", b"x" * size) for n, size in enumerate(sizes)]
        self.all += [(of.session, event) for event in events]
        self.journal.append(of, events, TIME)

    @rule(who=st.integers(0, 1), limit=st.integers(1, 8))
    def take(self, who, limit):
        reader = self.readers[who]
        start = reader.next
        taken = [(batch.source.session, event) for batch in reader.take(limit) for event in batch.events]
        assert taken == self.all[start : start + len(taken)]
        assert reader.next == start + len(taken)
        assert reader.behind == (reader.next < len(self.all))

    @precondition(lambda self: self.all)
    @rule(who=st.integers(0, 1), data=st.data())
    def ack(self, who, data):
        reader = self.readers[who]
        reader.ack(data.draw(st.integers(0, reader.next)))

    @rule(who=st.integers(0, 1))
    def rewind(self, who):
        self.readers[who].rewind()

    @rule()
    def secure(self):
        self.loop.run_until_complete(self.journal.secure())
        assert not [batch for batch in self.journal._batches if batch.events]
        assert not self.journal.full

    @rule()
    def checkpoint(self):
        self.save()

    @rule()
    def die(self):
        """Memory is gone; what the disk held is there, and each sink goes on where it was last known to be."""
        behind = min(reader.acked for reader in self.readers)
        on_disk = self.journal._spooled
        end = len(self.all)
        self.journal.spool.close()
        self.begin()
        assert self.journal.end == len(self.all) >= min(on_disk, end) or behind >= on_disk

    @invariant()
    def positions_are_in_order(self):
        for reader in self.readers:
            assert 0 <= reader.acked <= reader.next <= self.journal.end == len(self.all)

    @invariant()
    def statistics_count_what_waits(self):
        found = self.journal.statistics()
        waiting = len(self.all) - min(reader.acked for reader in self.readers)
        assert found["events"] + found["spool_events"] >= waiting
        assert self.journal.empty == (waiting == 0) or not waiting
        assert (found["spool_bytes"] == 0) == (found["spool_events"] == 0)

    @invariant()
    def no_session_is_acknowledged_further_than_every_sink(self):
        behind = self.all[: min(reader.acked for reader in self.readers)]
        for session, of in self.sources.items():
            numbers = [event.seq for where, event in behind if where == session]
            assert (of.acked or 0) <= (numbers[-1] if numbers else 0)

    def teardown(self):
        self.loop.close()
        self.journal.spool.close()
        self.folder.cleanup()


TestSpooling = Spooling.TestCase
TestSpooling.settings = settings(max_examples=60, deadline=None)


def spooling(tmp_path, *, limit=LIMIT, disk=LIMIT, **settings):
    made = Journal(limit=limit, **settings)
    reader = made.reader(lambda: None, "sink")
    spool, chunks = opened(tmp_path, limit=disk)
    made.use(spool, chunks, {})
    return made, reader


async def until(predicate):
    async with asyncio.timeout(20):
        while not predicate():  # noqa: ASYNC110 - threads come and go
            await asyncio.sleep(0.002)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(journal_module, "SPOOL_AFTER", 0.04)
    monkeypatch.setattr(journal_module, "RETRY", 0.05)


@pytest.mark.usefixtures("quick")
async def test_what_waits_too_long_goes_to_disk_and_what_is_acknowledged_in_time_does_not(tmp_path):
    made, reader = spooling(tmp_path)
    run = asyncio.create_task(made.run())
    for seq in range(100):
        made.append(source(), messages(1, first=seq), TIME)
        reader.take()
        reader.ack(reader.next)
        await asyncio.sleep(0.002)
    assert not (tmp_path / "spool").exists()
    made.append(source(), messages(5), TIME)
    await until(lambda: made.statistics()["spool_events"] == 5)
    assert made.size == 0
    run.cancel()


async def test_what_is_the_only_copy_goes_to_disk_without_delay(tmp_path):
    made, _ = spooling(tmp_path)
    run = asyncio.create_task(made.run())
    made.append(source(), messages(5), TIME)
    start = asyncio.get_running_loop().time()
    made.hasten()
    await until(lambda: made.size == 0)
    print(f"on disk after {asyncio.get_running_loop().time() - start:.3f} s")
    assert made.statistics()["spool_events"] == 5
    run.cancel()


@pytest.mark.usefixtures("quick")
async def test_memory_stays_bounded_while_much_passes_through_the_spool(tmp_path):
    """The bound is 8 MB, a read 512 kB; a sink is away, then takes all: 200 MB, in order, and no file is left."""
    limit, read, total = 8 << 20, 512 << 10, 200 << 20
    paused = asyncio.Event()
    made, reader = spooling(tmp_path, limit=limit, on_full=paused.clear, on_room=paused.set)
    run, of, most = asyncio.create_task(made.run()), source(), 0
    paused.set()
    events = read // 1024
    for first in range(1, total // 1024 + 1, events):
        await paused.wait()
        made.append(of, messages(events, first=first, size=970), TIME)
        most = max(most, made.size)
        await asyncio.sleep(0)
    print(f"at most {most / 1e6:.1f} MB in memory, {made.spool_size / 1e6:.0f} MB on disk")
    assert most <= limit + read
    await until(lambda: made.size <= limit // 2)
    seen = 0
    while reader.behind:
        for batch in reader.take():
            assert [event.seq for event in batch.events] == list(range(seen + 1, seen + 1 + len(batch.events)))
            seen += len(batch.events)
        reader.ack(reader.next)
    assert (seen, of.acked, made.empty, made.spool_size) == (total // 1024, total // 1024, True, 0)
    await made.sweep(made.spool.dead())
    assert files(tmp_path) == []
    run.cancel()


def acknowledge(stage):
    """Answer everything that was written, and what that makes follow."""
    numbers = []
    while stage.flow.window.under_way:
        numbers += [event.headers["Nats-Msg-Id"] for event in stage.writer.take()]
        stage.flow.received([Acks(list(range(stage.flow.window.low, stage.flow.window.high)))])
    return numbers


async def test_a_flow_that_runs_already_takes_over_a_spool_and_goes_on_chunk_by_chunk(tmp_path, monkeypatch):
    """A standby's sink is connected before the pod finds the spool; a replayed event keeps its id."""
    monkeypatch.setattr(module, "CHUNK", 2000)
    first, of = flow.Stage(events=10), source()
    spool, _ = opened(tmp_path)
    first.journal.use(spool, [], {})
    for seq in range(1, 51):
        first.journal.append(of, messages(1, first=seq, size=200), TIME)
    await first.journal.secure()
    spool.close()
    second = flow.Stage(events=7).begin()
    spool, chunks = opened(tmp_path)
    assert len(chunks) > 5
    second.journal.use(spool, chunks, {"": 20})
    for seq in range(51, 54):
        second.journal.append(of, messages(1, first=seq), TIME)
    assert acknowledge(second) == [f"{of.id_prefix}{seq}" for seq in range(21, 54)]
    assert second.journal.empty
    assert of.acked == 53


async def test_a_sink_that_keeps_up_reads_from_memory(tmp_path, monkeypatch):
    made, _away = spooling(tmp_path)
    quick = made.reader(lambda: None, "quick")
    monkeypatch.setattr(made.spool, "load", None)
    for first in range(1, 50):
        made.append(source(), messages(3, first=first), TIME)
        assert len(quick.take()) == 1
        quick.ack(quick.next)
        await made.secure()
    assert made.statistics()["spool_events"] == 147


@pytest.mark.usefixtures("quick")
async def test_a_disk_that_refuses_is_told_once_and_tried_again(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    made, _ = spooling(tmp_path, limit=10_000)
    run = asyncio.create_task(made.run())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        made.append(source(), messages(20, size=1000), TIME)
        await until(lambda: made.refused == "Input/output error")
        await asyncio.sleep(0.3)
        assert made.full
        assert [record.message for record in caplog.records].count(
            "the spool takes no more events: they wait in memory"
        ) == 1
    await until(lambda: made.size == 0)
    assert (made.refused, made.full, made.statistics()["spool_events"]) == (None, False, 20)
    run.cancel()


@pytest.mark.usefixtures("quick")
async def test_when_disk_and_memory_are_full_reading_pauses_until_there_is_room(tmp_path):
    made, reader = spooling(tmp_path, limit=50_000, disk=200_000)
    run, of, seq = asyncio.create_task(made.run()), source(), 0
    while not (made.full and made.refused):
        seq += 1
        made.append(of, messages(1, first=seq, size=1000), TIME)
        await asyncio.sleep(0)
    assert made.refused == "it is full"
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 160_000
    while reader.behind:
        reader.take()
        reader.ack(reader.next)
    assert not made.full
    assert of.acked == seq
    run.cancel()


async def test_a_spool_that_cannot_be_read_is_told_instead_of_raised(tmp_path):
    told = []
    made, reader = spooling(tmp_path, on_broken=told.append)
    made.append(source(), messages(3), TIME)
    await made.secure()
    (path,) = files(tmp_path)
    path.write_bytes(b"")
    assert reader.take() == []
    assert len(told) == 1


async def test_who_waits_no_longer_does_not_stop_a_write_in_the_middle(tmp_path):
    release = threading.Event()

    async def slow(function, *args):
        return await asyncio.to_thread(lambda: (release.wait(20), function(*args))[1])

    made, reader = spooling(tmp_path, in_thread=slow)
    made.append(source(), messages(3), TIME)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await made.secure()
    made.append(source(), messages(2, first=4), TIME)
    later = asyncio.create_task(made.secure())
    await asyncio.sleep(0)
    release.set()
    await later
    made.spool.close()
    again, chunks = opened(tmp_path)
    assert [position for position, _, _ in contents(again, chunks)] == [0, 1, 2, 3, 4]
    assert reader.pending == 5


async def test_securing_without_a_spool_returns_at_once():
    made = Journal(limit=100)
    made.reader(lambda: None)
    made.append(source(), messages(3), TIME)
    await made.secure()
    assert made.statistics()["events"] == 3
