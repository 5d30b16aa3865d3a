"""Reading HTTP requests, in any pieces, and refusing what is none."""

import contextlib
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright_simulator.errors import HttpError
from shardwright_simulator.http import HEAD_LIMIT, RequestReader, Response, json_response

POST = b'POST /control/faults?a=1&b=x%20y HTTP/1.1\r\nHost: h\r\ncontent-length: 7\r\n\r\n{"a":1}'
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def read_all(reader, data):
    found = []
    request = reader.feed(data)
    while request is not None:
        found.append(request)
        request = reader.feed(b"")
    return found


def test_a_request_with_a_body():
    (request,) = read_all(RequestReader(), POST)
    assert (request.method, request.path, request.body) == ("POST", "/control/faults", b'{"a":1}')
    assert request.query == {"a": "1", "b": "x y"}
    assert request.header("HOST") == "h"


@given(st.lists(st.integers(0, len(POST + GET)), max_size=8))
def test_the_pieces_do_not_matter(cuts):
    reader, data, found, last = RequestReader(), POST + GET, [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += read_all(reader, data[last:cut])
        last = cut
    assert [request.method for request in found] == ["POST", "GET"]


def test_what_follows_an_upgrade_is_left_over():
    reader = RequestReader()
    request = reader.feed(b"GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\nmore")
    assert request.is_websocket
    assert reader.rest() == b"more"


@pytest.mark.parametrize(("data", "status"), [
    (b"hello\r\n\r\n", 400),
    (b"\xff\xff / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/2\r\n\r\n", 505),
    (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
    (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
    (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 413),
    (b"x" * (HEAD_LIMIT + 1), 431),
])  # fmt: skip
def test_what_is_no_request_is_refused(data, status):
    with pytest.raises(HttpError) as caught:
        RequestReader().feed(data)
    assert caught.value.status == status


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(data):
    with contextlib.suppress(HttpError):
        RequestReader().feed(data + b"\r\n\r\n")


def test_an_answer_of_known_length():
    head, _, body = b"".join(json_response({"a": 1}, Retry_After="3").pieces()).partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    assert b"Content-Length: 7" in head
    assert b"Retry-After: 3" in head


def test_a_streamed_answer_is_chunked():
    _, _, body = b"".join(Response(HTTPStatus.OK, stream=[b"ab", b"c"]).pieces()).partition(b"\r\n\r\n")
    assert body == b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
