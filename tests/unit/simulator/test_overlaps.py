"""Two live connections of one session: what the option `on_resume` does, and that it is written down."""

import pytest

from shardwright_api.discord import CloseCode


def resumed(world):
    old = world.ready()
    world.advance(2)
    new = world.connect()
    new.resume(old.session, 3)
    world.gateway.emit(world.bot, "MESSAGE_CREATE", next(world.bot.guilds(0, 4)), 300)
    world.flush()
    return old, new


@pytest.mark.parametrize(("mode", "old_gets", "closed"), [
    ("cut", False, CloseCode.UNKNOWN_ERROR),
    ("keep", False, None),
    ("share", True, None),
])  # fmt: skip
def test_each_mode_does_what_it_says(make_world, mode, old_gets, closed):
    old, new = resumed(make_world(on_resume=mode))
    assert new.events == ["RESUMED", "MESSAGE_CREATE"]
    assert (old.events[-1] == "MESSAGE_CREATE") is old_gets
    assert old.closed == closed


def test_a_cut_overlap_lasts_no_time(world):
    old, new = resumed(world)
    (overlap,) = world.control.overlaps()
    assert (overlap.old, overlap.new, overlap.session) == (old.connection.id, new.connection.id, old.session)
    assert (overlap.seconds, overlap.ended_by, overlap.mode) == (0.0, "cut", "cut")
    assert overlap.silent_before == pytest.approx(2.2)


@pytest.mark.parametrize("who", ["old", "new"])
def test_an_overlap_lasts_until_one_of_the_two_goes(make_world, who):
    world = make_world(on_resume="keep")
    old, new = resumed(world)
    (overlap,) = world.control.overlaps()
    assert overlap.seconds is None
    world.advance(3)
    (old if who == "old" else new).lose(4000)
    assert overlap.seconds == pytest.approx(3)
    assert overlap.ended_by == who


def test_a_resume_after_the_old_connection_is_gone_is_no_overlap(world):
    old = world.ready()
    old.lose()
    world.connect().resume(old.session, 3)
    assert world.control.overlaps() == []


def test_the_kept_connection_still_gets_acknowledgements(make_world):
    old, _ = resumed(make_world(on_resume="keep"))
    old.beat(3)
    assert old.ops[-1] == 11


def test_an_old_connection_that_says_1000_does_not_end_the_session_of_the_new(make_world):
    world = make_world(on_resume="keep")
    old, _ = resumed(world)
    old.lose(1000)
    assert len(world.control.sessions()) == 1
