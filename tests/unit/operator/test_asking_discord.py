"""Discord is asked sparingly: once with a bad token, not before Retry-After is over, never with a redirect followed."""

import datetime as dt
import json

import pytest

from shardwright_operator.asker import Asker, Verdict
from shardwright_operator.discord_rest import GatewayBot, Question, SessionStartLimit, _read
from shardwright_operator.errors import DiscordUnavailableError, TokenRejectedError
from shardwright_operator.tokens import Token

TOKEN, OTHER = Token("MTIz.a"), Token("MTIz.b")
GOOD = GatewayBot("wss://gateway.discord.gg", 4, SessionStartLimit(1000, 990, 7_200_000, 16))


class Rest:
    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def gateway_bot(self, question):
        self.asked.append(question.token)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def made(*answers):
    rest, clock = Rest(*answers), Clock()
    wall = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return Asker(rest, clock=clock, wall=lambda: wall), rest, clock


async def test_an_answer_is_kept_for_as_long_as_it_may_be():
    asker, rest, clock = made(GOOD, GOOD)
    question = Question(TOKEN)
    assert asker.known(question).verdict is Verdict.UNKNOWN
    answer = await asker.ask(question, max_age=30, settled=7)
    assert (answer.verdict, answer.gateway_bot, answer.settled) == (Verdict.ACCEPTED, GOOD, 7)
    assert (answer.reset_at, answer.reset_time) == (8200.0, "2026-01-01T02:00:00Z")
    clock.now += 30
    await asker.ask(question, max_age=30, settled=7)
    assert len(rest.asked) == 1
    clock.now += 1
    await asker.ask(question, max_age=30, settled=7)
    assert len(rest.asked) == asker.questions == 2


async def test_a_rejected_token_is_never_asked_with_again_but_another_is():
    asker, rest, clock = made(TokenRejectedError("401"), GOOD)
    await asker.ask(Question(TOKEN), max_age=0, settled=0)
    clock.now += 1e6
    assert (await asker.ask(Question(TOKEN), max_age=0, settled=0)).verdict is Verdict.REJECTED
    assert rest.asked == [TOKEN]
    assert (await asker.ask(Question(OTHER), max_age=0, settled=0)).verdict is Verdict.ACCEPTED


async def test_retry_after_is_waited_for():
    asker, rest, clock = made(DiscordUnavailableError("429", 42.0), GOOD)
    answer = await asker.ask(Question(TOKEN), max_age=0, settled=0)
    assert (answer.verdict, answer.trouble) == (Verdict.UNKNOWN, "429")
    assert asker.wait(Question(TOKEN)) == 42.0
    clock.now += 41
    await asker.ask(Question(TOKEN), max_age=0, settled=0)
    assert len(rest.asked) == 1
    clock.now += 1.5
    assert (await asker.ask(Question(TOKEN), max_age=0, settled=0)).verdict is Verdict.ACCEPTED


async def test_a_good_answer_outlives_an_outage():
    asker, _, clock = made(GOOD, DiscordUnavailableError("gone"))
    await asker.ask(Question(TOKEN), max_age=0, settled=0)
    clock.now += 100
    answer = await asker.ask(Question(TOKEN), max_age=0, settled=0)
    assert (answer.verdict, answer.trouble, answer.asked_at) == (Verdict.ACCEPTED, "gone", 1000.0)


def body(**limit):
    given = {"total": 1000, "remaining": 990, "reset_after": 7200000, "max_concurrency": 16} | limit
    return json.dumps({"url": "wss://gateway.discord.gg", "shards": 4, "session_start_limit": given}).encode()


def test_a_good_answer_is_read():
    assert _read(200, "", body(), "u") == GOOD


def test_a_401_is_a_rejected_token():
    with pytest.raises(TokenRejectedError):
        _read(401, "", b"{}", "u")


@pytest.mark.parametrize(
    ("status", "header", "raw", "seconds"),
    [
        (429, "3", b'{"retry_after": 1.5}', 3.0),
        (429, "", b'{"retry_after": 1.5}', 1.5),
        (503, "nonsense", b"<html>", None),
        (302, "", b"", None),
        (200, "", b"rubbish", None),
        (200, "", body(max_concurrency=0), None),
    ],
)
def test_whatever_else_discord_says_is_waited_out(status, header, raw, seconds):
    with pytest.raises(DiscordUnavailableError) as raised:
        _read(status, header, raw, "u")
    assert raised.value.retry_after == seconds
