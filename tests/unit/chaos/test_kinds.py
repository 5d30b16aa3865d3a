"""The plan that a seed makes."""

from collections import Counter

from chaos.kinds import SHARDS, SINGLE, each_once, first

BLOCK = sum(kind.weight for kind in SINGLE)


def test_the_same_seed_makes_the_same_plan():
    assert first(7, 50) == first(7, 50)
    assert first(7, 50) != first(8, 50)


def test_a_longer_plan_begins_with_the_shorter_one():
    assert first(7, 3 * BLOCK)[: BLOCK + 5] == first(7, BLOCK + 5)


def test_a_block_holds_each_kind_as_often_as_its_weight_says():
    for block in range(2):
        names = Counter(planned.kind for planned in first(1, 2 * BLOCK)[block * BLOCK : (block + 1) * BLOCK])
        assert names == {kind.name: kind.weight for kind in SINGLE}


def test_a_plan_visits_every_shard_and_every_mode():
    planned = first(1, 200)
    assert {one.shard for one in planned} == set(range(SHARDS))
    assert {(one.on_resume, one.trim) for one in planned} == {(m, t) for m in ("cut", "keep") for t in (True, False)}
    assert [one.index for one in planned] == list(range(200))


def test_each_short_kind_comes_once():
    assert [one.kind for one in each_once(SINGLE)] == [kind.name for kind in SINGLE if kind.short]
