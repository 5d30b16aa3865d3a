"""Tokens: read for the bot's id, told apart by fingerprints, and never shown."""

import base64
import json

import pytest

from shardwright_api.resources import SecretKeyRef
from shardwright_operator import tokens
from shardwright_operator.errors import ForbiddenError, ServerError
from shardwright_operator.kube import SECRETS
from shardwright_operator.secret_reader import SecretReader
from shardwright_operator.tokens import Token, TokenProblem
from shardwright_operator.views import gateway_key
from unit.operator import builders
from unit.operator.memory_kube import MemoryKube

REFERENCE = SecretKeyRef("mybot-token")
KEY = gateway_key(builders.GATEWAY_OBJECT)


def secret(value=builders.TOKEN, key="token", version="7"):
    data = {key: base64.b64encode(value.encode()).decode()}
    return {"metadata": {"name": "mybot-token", "namespace": "bots", "resourceVersion": version}, "data": data}


def read(body):
    return tokens.read(json.dumps(body).encode(), REFERENCE)


def test_a_token_does_not_show_itself():
    state = read(secret())
    for shown in (repr(state), str(state.token), f"{state.token!r}", repr(read(secret("x.y")))):
        assert builders.TOKEN not in shown
        assert "abc" not in shown
    assert state.token.authorization() == f"Bot {builders.TOKEN}"


def test_fingerprints_tell_tokens_apart():
    assert Token("a.b").fingerprint == Token("a.b").fingerprint != Token("a.c").fingerprint


def test_white_space_around_a_token_is_no_part_of_it():
    assert read(secret(builders.TOKEN + "\n")).bot_id == builders.BOT


@pytest.mark.parametrize(
    ("body", "problem", "words"),
    [
        (secret(key="other"), TokenProblem.KEY_NOT_FOUND, "no key 'token'"),
        ({"metadata": {"name": "mybot-token"}}, TokenProblem.KEY_NOT_FOUND, "no key 'token'"),
        (secret("nonsense"), TokenProblem.MALFORMED, "no bot token"),
        (secret("tök.en"), TokenProblem.MALFORMED, "not plain text"),
    ],
)
def test_a_secret_without_a_token_is_named(body, problem, words):
    state = read(body)
    assert state.problem is problem
    assert words in state.message
    assert "mybot-token" in state.message


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def kube():
    return MemoryKube()


async def test_a_secret_is_read_by_name_and_no_more_often_than_asked(kube):
    clock = Clock()
    reader = SecretReader(kube, clock=clock)
    assert (await reader.read(builders.GATEWAY_OBJECT, max_age=30)).problem is TokenProblem.SECRET_NOT_FOUND
    kube.put(SECRETS, secret())
    assert (await reader.read(builders.GATEWAY_OBJECT, max_age=30)).problem is TokenProblem.SECRET_NOT_FOUND
    clock.now = 31.0
    assert (await reader.read(builders.GATEWAY_OBJECT, max_age=30)).bot_id == builders.BOT
    assert {call[0] for call in kube.calls} == {"get"}
    assert len(kube.calls) == 2
    assert reader.known(KEY).bot_id == builders.BOT
    reader.forget(KEY)
    assert reader.known(KEY) is None


async def test_for_two_minutes_after_a_change_running_pods_are_thought_to_know_the_old_content(kube):
    clock = Clock()
    reader = SecretReader(kube, clock=clock)
    kube.put(SECRETS, secret())
    old = await reader.read(builders.GATEWAY_OBJECT, max_age=0)
    kube.put(SECRETS, secret("MTAwMDAwMDAwMDAwMDAwMDAwMQ.new"))
    clock.now = 10.0
    new = await reader.read(builders.GATEWAY_OBJECT, max_age=0)
    assert old.version != new.version
    assert reader.blamed(KEY) == old
    clock.now = 131.0
    assert reader.blamed(KEY) == new


async def test_a_right_that_is_missing_from_the_start_is_said_and_one_that_went_away_is_waited_for(kube):
    clock = Clock()
    reader = SecretReader(kube, clock=clock)
    kube.fail["get", "secrets"] = ForbiddenError(403, "Forbidden", "")
    assert (await reader.read(builders.GATEWAY_OBJECT, max_age=0)).problem is TokenProblem.FORBIDDEN
    kube.put(SECRETS, secret())
    known = await reader.read(builders.GATEWAY_OBJECT, max_age=0)
    kube.fail["get", "secrets"] = ForbiddenError(403, "Forbidden", "")
    clock.now += 119
    assert await reader.read(builders.GATEWAY_OBJECT, max_age=0) == known
    kube.fail["get", "secrets"] = ForbiddenError(403, "Forbidden", "")
    clock.now += 1
    assert (await reader.read(builders.GATEWAY_OBJECT, max_age=0)).problem is TokenProblem.FORBIDDEN


async def test_an_api_server_in_trouble_is_not_a_missing_secret(kube):
    kube.fail["get", "secrets"] = ServerError(503, "", "")
    with pytest.raises(ServerError):
        await SecretReader(kube).read(builders.GATEWAY_OBJECT, max_age=0)


async def test_a_secret_that_is_written_again_with_the_same_token_keeps_its_version(kube):
    reader = SecretReader(kube)
    kube.put(SECRETS, secret())
    first = await reader.read(builders.GATEWAY_OBJECT, max_age=0)
    kube.put(SECRETS, secret())
    assert (await reader.read(builders.GATEWAY_OBJECT, max_age=0)).version == first.version
