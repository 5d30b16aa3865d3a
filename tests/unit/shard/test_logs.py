"""One JSON object per line, whatever is logged."""

import json
import logging
import sys

import pytest

from shardwright_api.logs import JsonFormatter
from shardwright_shard.logs import set_up


@pytest.fixture
def untouched():
    """Give logging back as it was."""
    root, own = logging.getLogger(), logging.getLogger("shardwright_shard")
    before = root.level, root.handlers[:], own.level
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    own.setLevel(before[2])


def line(message="a message", *args, level=logging.INFO, exc_info=None, **extra):
    record = logging.getLogger("shardwright_shard.test").makeRecord(
        "shardwright_shard.test", level, "file.py", 1, message, args, exc_info, extra=extra
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_has_time_level_logger_and_message():
    found = line("shard is %s", "live", level=logging.WARNING)
    assert found["message"] == "shard is live"
    assert found["level"] == "warning"
    assert found["logger"] == "shardwright_shard.test"
    assert found["time"].endswith("Z")


def test_extra_fields_are_fields_and_empty_ones_are_left_out():
    found = line(shard=0, reason="", error=None, state={"a": (1, 2)})
    assert found["shard"] == 0
    assert found["state"] == {"a": [1, 2]}
    assert "reason" not in found
    assert "error" not in found


def test_line_ends_and_quotes_cannot_break_out_of_a_line():
    found = line('a\n{"level":"critical"}', reason='"\r\n\x00')
    assert found["level"] == "info"
    assert found["reason"] == '"\r\n\x00'


def test_what_json_does_not_know_is_written_as_text():
    assert line(error=ValueError("x"))["error"] == "x"


def test_an_exception_is_one_field():
    try:
        int("a bug")
    except ValueError:
        found = line(exc_info=sys.exc_info())
    assert "ValueError: invalid literal" in found["exception"]


@pytest.mark.usefixtures("untouched")
def test_libraries_stay_quiet_even_where_we_do_not(capsys):
    """At DEBUG, `websockets` would write down what is sent: the token among it."""
    set_up("debug")
    logging.getLogger("websockets.client").debug("> TEXT token")
    logging.getLogger("websockets.client").info("token")
    logging.getLogger("shardwright_shard.pod").debug("ours")
    out, err = capsys.readouterr()
    assert out == "", "standard output belongs to the stdout sink"
    assert [json.loads(each)["message"] for each in err.splitlines()] == ["ours"]
