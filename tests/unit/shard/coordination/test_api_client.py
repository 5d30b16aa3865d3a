"""The pod's Kubernetes client: what each answer becomes, how the token is kept, how a watch's bytes become events."""

import asyncio
import json
import ssl
from dataclasses import dataclass, field

import aiohttp
import msgspec
import pytest

from shardwright_api.resources import ObjectMeta
from shardwright_shard.coordination import api_client
from shardwright_shard.coordination.api_client import (
    MAX_LINE,
    ApiClient,
    Conflict,
    EventType,
    Expired,
    Forbidden,
    Invalid,
    Lines,
    NotFound,
    PatchType,
    Refused,
    Server,
)
from shardwright_shard.errors import ConfigError, CoordinatorUnavailable


class Thing(msgspec.Struct):
    """Any object."""

    metadata: ObjectMeta


def thing(name="x"):
    return json.dumps({"metadata": {"name": name}}).encode()


@dataclass
class Answer:
    """A response as aiohttp gives it. With `pieces` the body comes in pieces, and an error among them is raised."""

    status: int = 200
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    pieces: list = field(default_factory=list)

    @property
    def ok(self):
        return self.status < 400

    @property
    def content(self):
        return self

    async def read(self):
        return self.body

    async def iter_any(self):
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def release(self):
        """Nothing to release."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        return None


class Session:
    """Gives scripted answers and keeps what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def request(self, method, url, **request):
        self.asked.append((method, url, request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
async def client_of(tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text("first\n")
    made = []

    def make(*answers):
        client = ApiClient(Server(url="https://api", tls=ssl.create_default_context(), token_file=token_file))
        made.append(client._session)
        client._session = Session(*answers)
        return client

    yield make
    for session in made:
        await session.close()


async def test_an_object_is_decoded_straight_into_its_struct(client_of):
    client = client_of(Answer(body=thing("x")))
    assert (await client.get("/path", Thing)).metadata.name == "x"
    assert client._session.asked[0][:2] == ("GET", "https://api/path")


async def test_a_patch_and_a_put_say_what_they_are(client_of):
    client = client_of(Answer(body=thing()), Answer(body=thing()))
    await client.patch("/p", Thing, {"a": None}, PatchType.MERGE)
    await client.put("/p", Thing, {"b": 1})
    sent = [(method, asked["headers"]["Content-Type"], asked["data"]) for method, _, asked in client._session.asked]
    assert sent == [
        ("PATCH", "application/merge-patch+json", b'{"a":null}'),
        ("PUT", "application/json", b'{"b":1}'),
    ]


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, Refused), (403, Forbidden), (404, NotFound), (409, Conflict), (410, Expired), (422, Invalid)],
)
async def test_each_refusal_has_its_type_and_the_api_servers_words(client_of, status, error):
    client = client_of(Answer(status, b'{"kind":"Status","message":"because"}'))
    with pytest.raises(error, match=f"GET /p: {status} because") as raised:
        await client.get("/p", Thing)
    assert type(raised.value) is error


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_an_overloaded_api_server_is_unavailable(client_of, status):
    client = client_of(Answer(status, b"<html>"))
    with pytest.raises(CoordinatorUnavailable) as raised:
        await client.get("/p", Thing)
    assert not isinstance(raised.value, Refused)


@pytest.mark.parametrize(
    "error", [aiohttp.ClientConnectionError("no route"), TimeoutError(), OSError("reset"), aiohttp.ClientPayloadError()]
)
async def test_no_answer_is_unavailable(client_of, error):
    with pytest.raises(CoordinatorUnavailable, match="GET /p"):
        await client_of(error).get("/p", Thing)


async def test_an_answer_that_is_no_object_is_unavailable(client_of):
    with pytest.raises(CoordinatorUnavailable, match="cannot be read"):
        await client_of(Answer(body=b'{"metadata": 3}')).get("/p", Thing)


async def test_after_retry_after_nothing_is_sent_until_then(client_of):
    client = client_of(Answer(429, headers={"Retry-After": "3"}), Answer(body=thing()))
    for _ in range(2):
        with pytest.raises(CoordinatorUnavailable):
            await client.get("/p", Thing)
    assert len(client._session.asked) == 1
    await asyncio.sleep(3)
    await client.get("/p", Thing)


@pytest.mark.parametrize(("header", "seconds"), [("", 0), ("2", 2), ("86400", 5), ("-1", 0), ("tomorrow", 0)])
def test_a_wait_asked_for_is_bounded(header, seconds):
    assert api_client._retry_after(header) == seconds


def authorizations(client):
    return [asked["headers"]["Authorization"] for _, _, asked in client._session.asked]


async def test_the_token_is_read_again_each_minute(client_of, tmp_path):
    client = client_of(*(Answer(body=thing()) for _ in range(3)))
    await client.get("/p", Thing)
    (tmp_path / "token").write_text("second")
    await client.get("/p", Thing)
    await asyncio.sleep(61)
    await client.get("/p", Thing)
    assert authorizations(client) == ["Bearer first", "Bearer first", "Bearer second"]


async def test_a_token_that_is_refused_is_read_again_once(client_of, tmp_path):
    client = client_of(Answer(401), Answer(body=thing()), Answer(401), Answer(401))
    await client.get("/p", Thing)
    (tmp_path / "token").write_text("second")
    with pytest.raises(Forbidden):
        await client.get("/p", Thing)
    assert authorizations(client) == ["Bearer first", "Bearer first", "Bearer first", "Bearer second"]


async def test_a_token_file_that_is_not_there_is_unavailable_and_not_named_with_content(client_of, tmp_path):
    (tmp_path / "token").unlink()
    with pytest.raises(CoordinatorUnavailable, match="cannot read the service account's token"):
        await client_of().get("/p", Thing)


def event(kind, name="x"):
    return json.dumps({"type": kind, "object": {"metadata": {"name": name}}}).encode() + b"\n"


async def watched(client):
    async with client.watch("/things", "x", Thing) as events:
        return [(found.type, found.object.metadata.name) async for found in events]


async def test_a_watch_gives_events_however_their_bytes_arrive_and_keeps_bookmarks_to_itself(client_of):
    stream = event("ADDED") + event("BOOKMARK", "") + event("MODIFIED", "y") + b"\n" + event("DELETED")
    expected = [(EventType.ADDED, "x"), (EventType.MODIFIED, "y"), (EventType.DELETED, "x")]
    for size in (1, 7, len(stream)):
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert await watched(client_of(Answer(pieces=pieces))) == expected


async def test_a_watch_asks_for_one_object_with_bookmarks_and_an_end(client_of):
    client = client_of(Answer())
    await watched(client)
    _, url, asked = client._session.asked[0]
    assert url == "https://api/things"
    assert asked["params"].items() >= {"watch": "1", "fieldSelector": "metadata.name=x"}.items()
    assert asked["params"]["allowWatchBookmarks"] == "true"
    assert 270 <= int(asked["params"]["timeoutSeconds"]) <= 330
    assert asked["timeout"].sock_read == api_client.SILENT_SECONDS


@pytest.mark.parametrize(
    ("status", "error"), [({"code": 410, "message": "too old"}, Expired), ({"code": 500}, CoordinatorUnavailable)]
)
async def test_an_error_event_ends_the_watch(client_of, status, error):
    stream = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    with pytest.raises(error):
        await watched(client_of(Answer(pieces=[stream])))


@pytest.mark.parametrize("broken", [TimeoutError(), aiohttp.ClientPayloadError("cut"), ConnectionResetError()])
async def test_a_watch_that_breaks_is_unavailable(client_of, broken):
    with pytest.raises(CoordinatorUnavailable):
        await watched(client_of(Answer(pieces=[event("ADDED"), broken])))


@pytest.mark.parametrize("stream", [b"{}\n", b"not json\n", b'{"type":"ODD","object":{}}\n'])
async def test_a_watch_of_rubbish_is_unavailable(client_of, stream):
    with pytest.raises(CoordinatorUnavailable):
        await watched(client_of(Answer(pieces=[stream])))


def test_a_line_without_end_is_refused():
    lines = Lines()
    lines.feed(b"x" * MAX_LINE)
    with pytest.raises(CoordinatorUnavailable):
        lines.feed(b"x")


def test_in_a_pod_the_server_is_what_the_kubelet_says(tmp_path):
    (tmp_path / "ca.crt").write_text(CERTIFICATE)
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert api_client.in_cluster(environ, tmp_path).url == "https://10.0.0.1:443"
    environ["KUBERNETES_SERVICE_HOST"] = "fd00::1"
    assert api_client.in_cluster(environ, tmp_path).url == "https://[fd00::1]:443"
    assert api_client.in_cluster(environ, tmp_path).token_file == tmp_path / "token"


@pytest.mark.parametrize("environ", [{}, {"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}])
def test_outside_a_pod_the_configuration_is_wrong(tmp_path, environ):
    with pytest.raises(ConfigError, match="not in a pod"):
        api_client.in_cluster(environ, tmp_path)


CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUYHZMH/X7gDd4SUWkDZoVTu3KTIcwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjMyMjA3MTBaGA8yMTI2MTAzMDIyMDcx
MFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIQc
V0rqaex3I0drqFVPhAKuVd57VM85dAkWOPbi6rXjEJqVO5s2EzALmLa0Bf7gEwP+
qyhj+WDiR/LO761wRJijUzBRMB0GA1UdDgQWBBQzW/Cvrk5k/6X/w1DUe9k+umOy
bDAfBgNVHSMEGDAWgBQzW/Cvrk5k/6X/w1DUe9k+umOybDAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQDKyvyJnyxP0+HAzZrhMzWC2j6dS3TyWpxR
MSqdSGiMOQIgMA8LJkpaihKOqyRTU/q+YjFY1k4arrKPoJVrxHK9gfc=
-----END CERTIFICATE-----
"""
