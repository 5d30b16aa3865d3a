"""What counts as a miss, and the file that a run goes on from."""

from chaos import report
from chaos.kinds import KINDS, first

GOOD = {
    "window": {
        "sent": 10, "received": 10, "lost": [], "lost_count": 0, "told": 0, "twice": [], "twice_count": 0,
        "altered": [], "silence": 1.25, "delay_most": 1.0,
    },
    "identifies": 0, "resumes": 4, "violations": [], "overlaps": [], "two_holders": [], "fenced": [], "heal": 2.0,
}  # fmt: skip


def with_window(**changes):
    return GOOD | {"window": GOOD["window"] | changes}


def test_a_clean_fault_misses_nothing():
    assert report.misses(KINDS["op7"], GOOD) == []


def test_each_promise_is_checked():
    for measured in (
        with_window(lost=["s:1"], lost_count=1),
        with_window(told=1),
        with_window(twice=["s:1"], twice_count=1),
        with_window(altered=["s:1"]),
        GOOD | {"identifies": 1},
        GOOD | {"violations": ["rate: shard 0: too many"]},
        GOOD | {"two_holders": ["r: a, then b"]},
        GOOD | {"fenced": ["r: a"]},
    ):
        assert len(report.misses(KINDS["op7"], measured)) == 1, measured


def test_what_a_kind_allows_is_no_miss():
    assert report.misses(KINDS["op9-false"], with_window(told=3) | {"identifies": 1}) == []
    assert report.misses(KINDS["half-open"], GOOD | {"violations": ["heartbeat-missing: shard 0: late"]}) == []


def test_a_setting_that_did_not_heal_is_a_miss():
    found = report.result(first(1, 1)[0], None, "pods")
    assert found["misses"] == ["did not heal: pods"]
    assert "MISS" in report.line(found)


def test_a_run_goes_on_behind_the_last_complete_line(tmp_path):
    file = tmp_path / "1.jsonl"
    done = [report.result(planned, GOOD) for planned in first(1, 2)]
    for found in done:
        report.append(file, found)
    with file.open("a") as out:
        out.write('{"planned": ')
    assert report.read(file) == done
    report.append(file, done[0])
    assert report.read(file) == [*done, done[0]]
    assert report.read(tmp_path / "none.jsonl") == []


def test_the_table_has_a_row_a_kind_and_a_sum():
    planned = first(1, 3)
    text = report.table([report.result(one, GOOD) for one in planned]).splitlines()
    assert len(text) == 3 + len({one.kind for one in planned})
    assert text[-1].startswith("| **all** | 3 | 30 | 30 | 0 | 0 | 0 | 0 | 1.2 |")
