"""What a newer program wrote does not blind an older one."""

import json

import msgspec
import pytest

from shardwright_api.resources import Compression, ShardRange, ShardState, decode, to_wire
from shardwright_shard.coordination import lenient
from unit.shard.stage import row, spec


def stored(**changes):
    """A range as it is stored, with changes in its first row."""
    rows = [to_wire(row(0, seq=7)) | changes, to_wire(row(1))]
    return {"metadata": {"name": "r"}, "spec": to_wire(spec()), "status": {"holder": "a", "shards": rows}}


def read(found):
    return lenient.decode(json.dumps(found).encode(), ShardRange)


def test_what_fits_is_decoded_as_ever():
    raw = json.dumps(stored()).encode()
    assert lenient.decode(raw, ShardRange) == decode(ShardRange, raw)


def test_an_unknown_state_is_one_without_a_connection_and_the_session_stays_known():
    first, second = read(stored(state="dozing")).status.shards
    assert (first.state, first.session, first.seq) == (ShardState.WAITING, "old-0", 7)
    assert second.session == "old-1"


@pytest.mark.parametrize("change", [{"compression": "brotli"}, {"seq": "7"}, {"gap": {"session": 1}}, {"latency": 1.5}])
def test_a_value_that_does_not_fit_is_left_out(change):
    first = read(stored(**change)).status.shards[0]
    (name,) = change
    assert getattr(first, name) is None
    assert first.session == "old-0"


def test_a_config_that_asks_for_more_than_we_know_is_read_as_far_as_we_do():
    found = stored()
    found["spec"]["config"] |= {"compression": "brotli", "sinks": [{"name": "s", "carrierPigeon": {}}]}
    config = read(found).spec.config
    assert config.compression is Compression.ZSTD
    assert config.gateway == "mybot"
    assert [sink.name for sink in config.sinks] == ["s"]


@pytest.mark.parametrize(
    "found", [{}, [], {"metadata": {"name": "r"}, "spec": {"first": "0"}}, {"metadata": {}, "status": {"shards": [1]}}]
)
def test_what_is_no_range_at_all_is_refused(found):
    with pytest.raises(msgspec.ValidationError):
        read(found)
