"""A token's first segment is its bot's id; whatever else comes is refused, and not shown."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_api.token import MalformedToken, bot_id_of


def test_the_first_segment_is_the_bots_id():
    assert bot_id_of("MTIz.aaaaaa.secret") == "123"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "....",
        "a.b.c",
        "aGFsbG8.b.c",
        "MTIz",
        "MTIz.",
        "é.b.c",
        " MTIz.b.c",
        "MTIzMTIzMTIzMTIzMTIzMTIzMTIzMTIz.b.c",
    ],
)
def test_what_is_no_token_is_said_without_showing_it(text):
    with pytest.raises(MalformedToken) as raised:
        bot_id_of(text)
    assert not text.strip(". ") or text not in str(raised.value)


@given(st.text())
def test_any_text_is_an_id_or_malformed(text):
    with contextlib.suppress(MalformedToken):
        assert bot_id_of(text).isdecimal()


@given(st.integers(0, 2**63), st.text(st.characters(categories=["L", "N", "P"]), min_size=1))
def test_any_id_is_found_in_its_token(number, rest):
    segment = base64.urlsafe_b64encode(str(number).encode()).decode().rstrip("=")
    assert bot_id_of(f"{segment}.{rest}") == str(number)
