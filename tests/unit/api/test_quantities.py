"""Quantities of bytes mean what Kubernetes takes them for."""

import pytest

from shardwright_api.quantities import LARGEST, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000000", 1_000_000),
        ("64Mi", 64 * 1024**2),
        ("1.5Gi", 3 * 512 * 1024**2),
        ("2k", 2000),
        ("3G", 3 * 10**9),
        ("1T", 10**12),
        ("0.0001Ki", 1),
    ],
)
def test_a_quantity_is_read_as_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "64MB", "-1", "1e3", "Mi", "1 Gi", "1,5Gi", ".5Gi", "1m"])
def test_what_is_no_quantity_is_named(text):
    with pytest.raises(ValueError, match="write it like 512Mi") as raised:
        parse_bytes(text)
    assert repr(text) in str(raised.value)


def test_what_json_cannot_hold_is_refused():
    assert parse_bytes(str(LARGEST)) == LARGEST
    with pytest.raises(ValueError, match="more than"):
        parse_bytes("9000000Ti")
