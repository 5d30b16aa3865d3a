"""The checkpoint: a file that is whole or not there, and which knowledge holds after a restart."""

import asyncio
import errno
import json
import os
from dataclasses import replace

import pytest
from msgspec import structs

from shardwright_api.resources import RangeStatus, ShardState
from shardwright_shard import checkpoint as module
from shardwright_shard.checkpoint import Checkpoint, Keeper, binding, choose, parse, write_file
from shardwright_shard.coordination.base import View
from shardwright_shard.journal import Event, Journal
from shardwright_shard.pod import _resumable
from shardwright_shard.session import SessionConfig
from unit.shard.sinks.making import TIME, messages
from unit.shard.stage import at_once, config, row, spec

LATE, EARLY = "2026-01-01T00:00:10.000000Z", "2026-01-01T00:00:00.000000Z"
NOON = 1767225605.0
"""Between the two."""
DISK = 10_000_000


class Container:
    """One life of a pod's container on a state directory: journal, keeper and two sinks."""

    def __init__(self, directory, *, epoch=1, before=1, rows=(), told=(), heartbeat=EARLY, disk=DISK, wall=NOON):
        self.rows = list(rows)
        self.failures = []
        self.journal = Journal(limit=DISK, in_thread=at_once)
        self.sinks = [self.journal.reader(lambda: None, name) for name in ("one", "two")]
        self.keeper = Keeper(
            directory,
            self.journal,
            rows=lambda: self.rows,
            on_failure=self.failures.append,
            wall=lambda: wall,
            in_thread=at_once,
        )
        for sink in self.sinks:
            self.keeper.watch(sink)
        self.before = RangeStatus(holder="a", epoch=before, heartbeat_time=heartbeat, shards=tuple(told))
        self.view = View(
            spec=spec(config=config(buffer_disk=disk)),
            status=RangeStatus(holder="a", epoch=epoch, heartbeat_time=LATE, shards=tuple(told)),
            active=True,
            holding=True,
        )

    async def open(self):
        await self.keeper.open(self.view, before=self.before)
        return self

    def session(self, shard=0):
        """Make the session that a shard goes on with, as the pod does."""
        seen = self.view.spec
        about = SessionConfig(bot=seen.bot_id, shard=shard, total=4, intents=513, compression=seen.config.compression)
        found = _resumable(about, self.keeper.row(shard))
        self.keeper.go_on(found)
        return found

    def receive(self, session, count):
        session.seq += count
        self.journal.append(session.source, messages(count, first=session.seq - count + 1), TIME)
        self.rows = [row(0, session=session.source.session, seq=session.source.acked)]

    def take(self, sink, count):
        reader = self.sinks[sink]
        found = []
        while reader.behind:
            found += [event.seq for batch in reader.take() for event in batch.events]
        reader.ack(reader.acked + count)
        return found

    async def die(self):
        """As SIGKILL: the kernel lets go of the lock."""
        for task in self.keeper._tasks:
            task.cancel()
        await asyncio.gather(*self.keeper._tasks, return_exceptions=True)
        self.journal.forsake()
        self.keeper._unlock()


def failing(error):
    """Make a function that fails, as a disk does."""

    def fail(*_, **__):
        raise OSError(error, os.strerror(error))

    return fail


async def until(predicate):
    async with asyncio.timeout(20):
        while not predicate():  # noqa: ASYNC110 - timers come and go
            await asyncio.sleep(0.002)


def stored(directory):
    return json.loads((directory / "checkpoint.json").read_bytes())


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_for_its_owner_alone(tmp_path):
    path = tmp_path / "checkpoint.json"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.json"]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "cannot be read"),
        (b'{"format":1,"binding":"mine","epo', "cannot be read"),
        (b"\x00\xff" * 50, "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"format":1}', "cannot be read"),
        (b'{"format":2,"anything":[]}', "has format 2"),
        (b'{"format":1,"binding":"yours","epoch":1,"time":1.0,"shards":[],"sinks":{}}', "belongs to yours"),
    ],
)
def test_a_file_of_no_use_says_why(raw, why):
    with pytest.raises(ValueError, match=why):
        parse(raw, "mine")


@pytest.mark.parametrize("raw", [b"", b"{", b'{"format":99}', b"\xff" * 9])
async def test_a_file_of_no_use_is_dropped_with_one_log_line(tmp_path, caplog, raw):
    (tmp_path / "checkpoint.json").write_bytes(raw)
    container = await Container(tmp_path, told=[row(0, seq=7)]).open()
    assert container.session().seq == 7
    assert [record.message for record in caplog.records] == ["the checkpoint is dropped"]
    assert stored(tmp_path)["format"] == 1
    await container.die()


def test_a_binding_names_gateway_bot_and_range():
    assert (
        len({binding(spec(**fields)) for fields in ({}, {"first": 1}, {"last": 2}, {"total": 5}, {"bot_id": "9"})}) == 5
    )
    assert binding(spec(identify_grant=5)) == binding(spec())


# --- which knowledge holds --------------------------------------------------------------------------------------------


def test_of_one_session_the_higher_sequence_counts():
    for newer in (False, True):
        assert choose(row(0, seq=5), row(0, seq=9), newer=newer).seq == 9
        assert choose(row(0, seq=9), row(0, seq=5), newer=newer).seq == 9


def test_of_two_sessions_the_one_told_later_counts():
    told, kept = row(0, session="told", seq=5), row(0, session="kept", seq=900)
    assert choose(told, kept, newer=True) == kept
    assert choose(told, kept, newer=False) == told


def test_what_only_one_of_them_knows_counts():
    assert choose(None, row(0), newer=False) == choose(row(0), None, newer=True) == row(0)
    assert choose(None, None, newer=True) is None


@pytest.mark.parametrize(("heartbeat", "expected"), [(EARLY, "won"), (LATE, "lost")])
async def test_a_session_that_was_won_just_before_a_crash_is_not_lost(tmp_path, heartbeat, expected):
    first = await Container(tmp_path, rows=[row(0, session="won", seq=0)]).open()
    await first.keeper.save()
    await first.die()
    second = await Container(tmp_path, told=[row(0, session="lost", seq=50)], heartbeat=heartbeat).open()
    assert second.session().source.session == expected
    await second.die()
    third = await Container(tmp_path, told=[row(0, session="lost", seq=50)], heartbeat=heartbeat).open()
    assert third.session().source.session == expected, "nor is it by a second crash"
    await third.die()


async def test_a_session_that_another_pod_went_on_with_counts_as_that_pod_left_it(tmp_path):
    first = await Container(tmp_path, epoch=1, told=[row(0, seq=10)]).open()
    session = first.session()
    first.receive(session, 5)
    await first.journal.secure()
    await first.die()
    second = await Container(tmp_path, epoch=3, before=2, told=[row(0, seq=12)]).open()
    session = second.session()
    assert session.seq == 12
    assert second.take(0, 5) == second.take(1, 5) == [11, 12, 13, 14, 15], "the old tail is forwarded all the same"
    assert session.source.acked == 12, "but moves nobody's cursor"
    await second.die()


# --- a restart --------------------------------------------------------------------------------------------------------


async def test_a_restart_resumes_behind_the_spool_and_forwards_it_first(tmp_path):
    first = await Container(tmp_path, told=[row(0, seq=10)]).open()
    session = first.session()
    assert session.seq == 10
    first.receive(session, 6)
    first.take(0, 4)
    first.take(1, 2)
    first.rows = [row(0, session=session.source.session, seq=session.source.acked)]
    await first.journal.secure()
    await first.keeper.save()
    first.receive(session, 3)
    await first.die()
    second = await Container(tmp_path, told=[row(0, seq=10)]).open()
    session = second.session()
    assert (session.seq, session.source.acked) == (16, 12)
    second.receive(session, 3)
    assert second.take(0, 0) == [15, 16, 17, 18, 19]
    assert second.take(1, 0) == [13, 14, 15, 16, 17, 18, 19]
    for reader in second.sinks:
        reader.ack(reader.next)
    assert session.source.acked == 19
    await second.die()


async def test_a_new_sink_gets_all_that_is_there(tmp_path):
    first = await Container(tmp_path, told=[row(0, seq=0)]).open()
    first.receive(first.session(), 4)
    first.take(0, 3)
    await first.journal.secure()
    first.sinks[1].name = "gone"
    await first.keeper.save()
    await first.die()
    second = await Container(tmp_path, told=[row(0, seq=0)]).open()
    assert (second.take(0, 0), second.take(1, 0)) == ([4], [1, 2, 3, 4])
    await second.die()


async def test_without_its_file_the_spool_is_forwarded_whole(tmp_path):
    first = await Container(tmp_path, told=[row(0, seq=3)]).open()
    first.receive(first.session(), 4)
    await first.journal.secure()
    await first.die()
    (tmp_path / "checkpoint.json").unlink()
    second = await Container(tmp_path, told=[row(0, seq=3)]).open()
    assert second.session().seq == 3, "nobody can tell whether another pod held the range since"
    assert second.take(0, 0) == [4, 5, 6, 7]
    await second.die()


async def test_a_damaged_record_sets_the_cursor_back_to_the_last_intact_one(tmp_path, caplog):
    first = await Container(tmp_path, told=[row(0, seq=0)]).open()
    session = first.session()
    for _ in range(3):
        first.receive(session, 5)
        await first.journal.secure()
    await first.keeper.save()
    await first.die()
    (file,) = (tmp_path / "spool").iterdir()
    data = bytearray(file.read_bytes())
    data[-20] ^= 0xFF
    file.write_bytes(data)
    second = await Container(tmp_path, told=[row(0, seq=0)]).open()
    assert second.session().seq == 10
    assert second.take(0, 0) == list(range(1, 11))
    assert "the spool is cut off" in caplog.text
    await second.die()


async def test_positions_of_a_former_run_never_hide_new_events(tmp_path):
    """The spool was lost, the file was not: the next run's events begin at positions that the file knows already."""
    first = await Container(tmp_path, told=[row(0, seq=0)]).open()
    first.receive(first.session(), 50)
    for sink in (0, 1):
        first.take(sink, 50)
    await first.keeper.save()
    await first.die()
    second = await Container(tmp_path, told=[row(0, seq=50)]).open()
    second.receive(second.session(), 3)
    await second.journal.secure()
    await second.die()
    third = await Container(tmp_path, told=[row(0, seq=50)]).open()
    assert third.session().seq == 53
    assert third.take(0, 0) == [51, 52, 53]
    await third.die()


async def test_a_segment_is_deleted_after_the_checkpoint_that_covers_it(tmp_path, monkeypatch):
    container = await Container(tmp_path, told=[row(0, seq=0)]).open()
    container.receive(container.session(), 3)
    await container.journal.secure()
    container.take(0, 3)
    container.take(1, 3)
    (file,) = (tmp_path / "spool").iterdir()
    seen, real = [], module.write_file

    def write(path, data):
        seen.append((file.exists(), json.loads(data)["sinks"]))
        real(path, data)

    monkeypatch.setattr(module, "write_file", write)
    await container.keeper.save()
    assert seen == [(True, {"one": 3, "two": 3})]
    assert not file.exists()
    await container.die()


# --- whose directory --------------------------------------------------------------------------------------------------


async def test_a_directory_in_use_is_left_alone(tmp_path, caplog):
    first = await Container(tmp_path, told=[row(0, seq=5)]).open()
    before = stored(tmp_path)
    second = await Container(tmp_path, told=[row(0, seq=8)]).open()
    assert second.session().seq == 8
    await second.keeper.save()
    await second.keeper.close()
    assert stored(tmp_path) == before
    assert "another pod uses the state directory" in caplog.text
    await first.die()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_directory_is_given_up_with_the_range_unless_something_waits(tmp_path, waits):
    first = await Container(tmp_path, told=[row(0, seq=5)]).open()
    first.receive(first.session(), 2)
    if not waits:
        first.take(0, 2)
        first.take(1, 2)
    await first.keeper.give_up()
    second = await Container(tmp_path, epoch=2, told=[row(0, seq=5)]).open()
    assert (second.journal.spool is None) == waits
    if waits:
        assert first.take(0, 2) == [6, 7], "it goes on forwarding"
    await first.die()
    await second.die()


async def test_a_lock_that_another_pod_had_is_asked_for_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "ASK_AGAIN", 0.01)
    first = await Container(tmp_path, told=[row(0, seq=5)]).open()
    second = await Container(tmp_path, epoch=2, told=[row(0, seq=5)]).open()
    session = second.session()
    second.receive(session, 2)
    await first.keeper.give_up()
    await until(lambda: second.keeper._tasks)
    await second.journal.secure()
    await second.keeper.save()
    assert (stored(tmp_path)["epoch"], second.journal.statistics()["spool_events"]) == (2, 2)
    assert [record.message for record in caplog.records] == [
        "no checkpoint is kept: another pod uses the state directory"
    ], "it is said once"
    await second.die()
    third = await Container(tmp_path, epoch=2, before=2, told=[row(0, seq=5)]).open()
    assert third.session().seq == 7
    await third.die()


@pytest.mark.parametrize("how", ["gives it up", "has lost it"])
async def test_a_pod_without_its_range_asks_for_no_lock(tmp_path, monkeypatch, how):
    monkeypatch.setattr(module, "ASK_AGAIN", 0.01)
    first = await Container(tmp_path).open()
    second = await Container(tmp_path, rows=[row(0)] if how == "gives it up" else []).open()
    if how == "gives it up":
        await second.keeper.give_up()
    await until(lambda: second.keeper._again is None)
    await first.die()
    await asyncio.sleep(0)
    assert (second.keeper._again, second.keeper._jobs, second.keeper._lock) == (None, set(), None)


# --- a disk that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["scan", "read"])
async def test_a_directory_that_cannot_be_read_now_is_left_as_it_is(tmp_path, monkeypatch, call):
    """Else a later life would call events acknowledged that wait in a spool which this one did not see."""
    first = await Container(tmp_path, told=[row(0, seq=0)]).open()
    first.receive(first.session(), 200)
    await first.journal.secure()
    await first.keeper.save()
    await first.die()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        if call == "scan":
            patch.setattr(module.Spool, "scan", failing(errno.EMFILE))
        else:
            patch.setattr(module.Path, "read_bytes", failing(errno.EIO))
        second = await Container(tmp_path, told=[row(0, seq=0)]).open()
    session = second.session()
    assert session.seq == 0
    second.receive(session, 5)
    second.take(0, 5)
    second.take(1, 5)
    await second.journal.secure()
    await second.keeper.save()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    await second.die()
    third = await Container(tmp_path, told=[row(0, seq=5)]).open()
    assert third.session().seq == 200
    assert third.take(0, 0)[-195:] == list(range(6, 201)), "what the second did not have is there"
    await third.die()


async def test_rows_of_the_last_holding_are_never_written_under_the_epoch_of_the_next(tmp_path):
    container = await Container(tmp_path, told=[row(0, session="s1", seq=100)]).open()
    container.receive(container.session(), 5)
    await container.keeper.give_up()
    container.rows = []
    container.take(0, 0)
    status = RangeStatus(holder="", epoch=2, heartbeat_time=LATE, shards=(row(0, session="s2", seq=7),))
    container.view = replace(container.view, status=structs.replace(status, holder="a", epoch=3))
    seen = []

    async def saves_meanwhile(function, *args):
        if function.__name__ == "_read":
            container.keeper._in_thread = at_once
            container.sinks[0].ack(3)
            await container.keeper.save()
            seen.append((stored(tmp_path)["epoch"], stored(tmp_path)["shards"][0]["session"]))
        return await at_once(function, *args)

    container.keeper._in_thread = saves_meanwhile
    await container.keeper.open(container.view, before=status)
    seen.append((stored(tmp_path)["epoch"], stored(tmp_path)["shards"][0]["session"]))
    assert seen == [(1, "s1"), (3, "s2")]
    await container.die()


@pytest.mark.parametrize("fits", [True, False], ids=["positions that fit", "positions of lost events"])
async def test_a_file_that_cannot_be_written_anew_stays_where_its_positions_fit(tmp_path, monkeypatch, fits):
    rows = [row(0, seq=10)]
    first = await Container(tmp_path, rows=rows, told=rows).open()
    first.receive(first.session(), 50)
    await first.journal.secure()
    first.take(0, 50)
    await first.keeper.save()
    await first.die()
    if not fits:
        for path in (tmp_path / "spool").iterdir():
            path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_file", failing(errno.ENOSPC))
        second = await Container(tmp_path, told=rows).open()
        assert second.keeper.failing
        await second.die()
    assert (tmp_path / "checkpoint.json").exists() == fits


async def test_no_segment_is_deleted_while_the_checkpoint_cannot_be_written(tmp_path, monkeypatch):
    container = await Container(tmp_path, told=[row(0, seq=0)]).open()
    container.receive(container.session(), 3)
    await container.journal.secure()
    container.take(0, 3)
    container.take(1, 3)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_file", failing(errno.ENOSPC))
        assert not await container.keeper.save()
        assert len(list((tmp_path / "spool").iterdir())) == 1
    assert await container.keeper.save()
    assert list((tmp_path / "spool").iterdir()) == []
    await container.die()


async def test_nobody_waits_for_ever_for_a_disk_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "OPEN_PATIENCE", 0.01)
    answers = asyncio.Event()

    async def slow(function, *args):
        await answers.wait()
        return function(*args)

    container = Container(tmp_path, told=[row(0, seq=5)])
    container.keeper._in_thread = container.journal._in_thread = slow
    await container.open()
    session = container.session()
    assert (session.seq, container.keeper.failing) == (5, True)
    container.receive(session, 2)
    await container.keeper.give_up()
    answers.set()
    await until(lambda: not container.keeper._jobs)
    assert not container.keeper.failing
    assert container.journal.statistics()["spool_events"] == 2, "late, but in order"
    answers.clear()
    container.receive(session, 1)
    await container.keeper.close()
    await container.keeper.stop()
    assert (container.keeper._jobs, container.keeper._tasks) == (set(), [])


async def test_the_end_brings_everything_to_disk(tmp_path):
    first = await Container(tmp_path, told=[row(0, seq=5)]).open()
    session = first.session()
    first.receive(session, 2)
    first.journal.append(session.source, [Event(None, "RESUMED", b"{}", mark="x")], TIME)
    await first.keeper.close()
    second = await Container(tmp_path, told=[row(0, seq=5)]).open()
    assert second.session().seq == 7
    assert second.take(0, 0) == [6, 7, None]
    assert first.keeper._tasks == []
    assert all(task.cancelled() for task in first.failures)
    await second.die()


@pytest.mark.parametrize("broken", ["no directory", "a file in its place", "nothing may be written"])
async def test_without_a_usable_directory_the_pod_works_from_memory(tmp_path, monkeypatch, caplog, broken):
    directory = None if broken == "no directory" else tmp_path / "state"
    if broken == "a file in its place":
        directory.write_bytes(b"")
    if broken == "nothing may be written":
        directory.mkdir()
        monkeypatch.setattr(module.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    container = await Container(directory, told=[row(0, seq=5)]).open()
    session = container.session()
    assert session.seq == 5
    container.receive(session, 2)
    await container.journal.secure()
    await container.keeper.save()
    assert container.take(0, 2) == container.take(1, 2) == [6, 7]
    assert session.source.acked == 7
    assert len(caplog.records) == {"no directory": 0, "a file in its place": 1, "nothing may be written": 2}[broken]
    await container.keeper.close()
    await container.die()


async def test_rows_keep_what_a_resume_needs_and_nothing_that_moves_all_the_time(tmp_path):
    live = row(0, state=ShardState.READY, latency=41, message="x", close=4000, guilds=9, identity="i")
    container = await Container(tmp_path, rows=[live]).open()
    (kept,) = stored(tmp_path)["shards"]
    assert set(kept) == {"id", "state", "session", "url", "seq", "intents", "compression", "guilds", "identity"}
    before = (tmp_path / "checkpoint.json").stat().st_mtime_ns
    container.rows = [row(0, state=ShardState.READY, latency=55, guilds=9, identity="i")]
    await container.keeper.save()
    assert (tmp_path / "checkpoint.json").stat().st_mtime_ns == before
    await container.die()


def test_a_checkpoint_reads_back_as_it_was():
    made = Checkpoint(binding="b", epoch=3, time=1.5, shards=(row(0), row(1)), sinks={"nats": 7})
    assert parse(module.msgspec.json.encode(made), "b") == made
