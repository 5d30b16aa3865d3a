"""Bodies of events: valid JSON of about the wanted size, with traps for those who search instead of parse."""

from random import Random

import orjson
import pytest

from shardwright_simulator.envelope import control, dispatch
from shardwright_simulator.load import DEFAULT_MIX
from shardwright_simulator.options import KeyOrder
from shardwright_simulator.templates import DECOY_GUILD, GUILD_IS_ID, GUILD_LESS, VARIANTS, Shape, Templates, ids

NAMES = [*DEFAULT_MIX, "GUILD_CREATE", "WEBHOOKS_UPDATE"]
GUILD = 1_152_921_504_623_624_269


def body(t, size=1_000, variant=0, *, content=True, guild=GUILD, serial=7):
    guild = None if t in GUILD_LESS else guild
    parts = Templates(Random(2)).get(Shape(t, size, variant, content)).fill(ids(t, guild, serial))
    return b"".join(parts)


@pytest.mark.parametrize("variant", range(VARIANTS))
@pytest.mark.parametrize("t", NAMES)
def test_every_body_is_json_and_carries_serial_and_guild_at_depth_1(t, variant):
    d = orjson.loads(body(t, variant=variant))
    assert d["shardwright_serial"] == 7
    if t in GUILD_IS_ID:
        assert d["id"] == str(GUILD)
        assert "guild_id" not in d
    elif t in GUILD_LESS:
        assert "guild_id" not in d
    else:
        assert d["guild_id"] == str(GUILD)


@pytest.mark.parametrize("size", [300, 1_000, 30_000, 500_000])
@pytest.mark.parametrize("t", ["TYPING_START", "SHARDWRIGHT_FUTURE_EVENT"])
def test_the_size_is_about_what_was_wanted(t, size):
    assert len(body(t, size)) == pytest.approx(size, abs=150)


def test_some_bodies_have_the_decoy_before_and_some_after_the_real_guild():
    places = set()
    for variant in range(VARIANTS):
        data = body("MESSAGE_CREATE", variant=variant)
        places.add(data.index(DECOY_GUILD.encode()) < data.index(str(GUILD).encode()))
    assert places == {True, False}


def test_some_bodies_are_ascii_and_some_are_not():
    assert {body("MESSAGE_CREATE", 4_000, variant).isascii() for variant in range(VARIANTS)} == {True, False}


def test_a_body_is_made_once():
    templates = Templates(Random(1))
    shape = Shape("MESSAGE_CREATE", 500, 3, content=True)
    assert templates.get(shape) is templates.get(shape._replace(variant=3 + VARIANTS))


def test_the_envelope_is_discords():
    parts = dispatch("X", 5, (b'{"a":', b"1}"), KeyOrder.DISCORD)
    assert b"".join(parts) == b'{"t":"X","s":5,"op":0,"d":{"a":1}}'
    assert control(11, None, KeyOrder.DISCORD) == b'{"t":null,"s":null,"op":11,"d":null}'


def test_the_envelope_can_be_another():
    parts = dispatch("X", 5, (b'{"a":', b"1}"), KeyOrder.OP_FIRST)
    assert b"".join(parts) == b'{"op":0,"d":{"a":1},"s":5,"t":"X"}'
    assert orjson.loads(control(11, None, KeyOrder.OP_FIRST)) == {"op": 11, "d": None, "s": None, "t": None}
