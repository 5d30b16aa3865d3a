"""Bytes that cannot be read: counted, answered by a reconnect with RESUME, and never the end of the pod."""

from pathlib import Path

import pytest

from component.shard.stage import UNREADABLE, until
from shardwright_api.resources import Compression
from shardwright_simulator import Action, Fault, Trigger

LONG_NAME = {"MESSAGE_REACTION_ADD": 1}
"""The simulator cuts a message after 40 bytes: with a name this long inside of the envelope."""
MEGABYTE = 1024 * 1024


async def test_rubbish_on_the_socket_is_answered_by_a_resume(open_stage, compression):
    """Random bytes between frames: whatever they look like, each shard is back soon and nothing is lost."""
    stage = await open_stage(shards=4, compression=compression, heartbeat_interval=0.3)
    pod = await stage.started()
    stage.load(400)
    stage.control.add_fault(Fault(action=Action.RUBBISH))
    await until(lambda: pod.count("resumed") >= 4)
    await stage.arrived()
    assert pod.count("unreadable") + pod.count("zombies") >= 1
    assert pod.count("identifies") == 4


async def test_a_frame_of_rubbish_is_answered_by_a_resume(open_stage, compression):
    """A proper frame whose content neither inflates nor parses is counted once, and costs one RESUME."""
    stage = await open_stage(compression=compression)
    pod = await stage.started()
    stage.load(400)
    stage.control.add_fault(Fault(action=Action.JUNK_FRAME))
    await until(lambda: pod.count("resumed") == 1)
    await stage.arrived()
    assert (pod.count("unreadable"), pod.count("skipped")) == (1, 0)
    assert 'discord_gateway_unreadable_total{shard="0"} 1.0' in pod.metrics()


@pytest.mark.parametrize("trigger", [Trigger.CONNECT, Trigger.IDENTIFY, Trigger.RESUME], ids=str)
async def test_rubbish_instead_of_an_answer_is_answered_by_a_reconnect(open_stage, trigger):
    """Before HELLO, READY or RESUMED there is nothing to skip: the connection is made anew, an IDENTIFY only by grant."""
    stage = await open_stage()
    stage.control.add_fault(Fault(action=Action.JUNK_FRAME, at=trigger))
    pod = await stage.started(grant=2)
    if trigger is Trigger.RESUME:
        stage.control.add_fault(Fault(action=Action.ABORT))
        await until(lambda: pod.count("resumed") == 1)
    stage.load(100)
    await stage.arrived()
    assert (pod.count("unreadable"), pod.count("skipped")) == (1, 0)
    assert pod.count("identifies") == (2 if trigger is Trigger.IDENTIFY else 1)


def memory_high() -> int:
    """Give the most memory that this process held since the last `forget_memory_high`, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_memory_high() -> int:
    """Begin to measure anew; give what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_high()


@pytest.mark.parametrize("compression", [Compression.ZLIB, Compression.ZSTD])
async def test_a_zip_bomb_is_not_inflated(open_stage, compression):
    """A message that would inflate to half a gigabyte is dropped at 16 MiB, and the session resumed."""
    stage = await open_stage(compression=compression)
    pod = await stage.started()
    stage.load(200)
    before = forget_memory_high()
    stage.control.add_fault(Fault(action=Action.ZIP_BOMB, size=512 * MEGABYTE))
    await until(lambda: pod.count("resumed") == 1)
    assert memory_high() - before < 60 * MEGABYTE
    await stage.arrived()
    assert pod.count("unreadable") == 1
    assert any("inflates to more than" in line for line in stage.book.lines)


async def test_a_frame_that_is_too_large_is_not_read(open_stage):
    """Without compression the frame's header tells: it is not waited for."""
    stage = await open_stage(compression=Compression.NONE)
    pod = await stage.started()
    stage.control.add_fault(Fault(action=Action.ZIP_BOMB, size=17 * MEGABYTE))
    await until(lambda: pod.count("resumed") == 1)
    stage.load(50)
    await stage.arrived()
    assert any("is larger than" in line for line in stage.book.lines)


async def test_an_envelope_that_cannot_be_read_once_is_fetched_again(open_stage, compression):
    """A message that stops inside its envelope is counted; the replay brings it whole."""
    stage = await open_stage(compression=compression)
    pod = await stage.started()
    await stage.arrived()
    stage.control.add_fault(Fault(action=Action.UNREADABLE, at=Trigger.DISPATCH))
    stage.load(200, mix=LONG_NAME)
    await stage.arrived()
    assert (pod.count("unreadable"), pod.count("skipped"), pod.count("resumed")) == (1, 0, 1)


async def test_an_event_that_cannot_be_read_twice_is_skipped_and_told(open_stage, compression):
    """Poison: RESUME would fetch it for ever, so it is told as `shardwright.unreadable`, and everything else arrives."""
    stage = await open_stage(compression=compression)
    pod = await stage.started()
    await stage.arrived()
    stage.control.add_fault(Fault(action=Action.UNREADABLE, at=Trigger.DISPATCH, poison=True))
    stage.load(200, mix=LONG_NAME)
    await stage.arrived()
    told = [event for _, event in pod.sink.events if event.name == UNREADABLE]
    assert [event.seq for event in told] == [e.seq for e in stage.control.ledger() if e.flags == "unreadable"]
    assert (pod.count("skipped"), pod.count("identifies")) == (1, 1)
    assert 'discord_gateway_events_skipped_total{shard="0"} 1.0' in pod.metrics()


@pytest.mark.usefixtures("no_waits")
async def test_poison_after_poison_is_skipped_one_by_one(open_stage):
    """Two unreadable events in a row are told one after the other, and the session is kept."""
    stage = await open_stage()
    pod = await stage.started()
    await stage.arrived()
    stage.control.add_fault(Fault(action=Action.UNREADABLE, at=Trigger.DISPATCH, poison=True, times=2))
    stage.load(100, mix=LONG_NAME)
    await stage.arrived()
    stage.load(100)
    await stage.arrived()
    assert (pod.count("skipped"), pod.count("identifies")) == (2, 1)
