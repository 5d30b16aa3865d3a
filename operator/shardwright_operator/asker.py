"""When to ask Discord again, and what it last said.

One record per (token, address). A token that was rejected is never asked with again: only another token in the Secret,
which is another record, leads to a new question. Failures wait as long as Discord asks, at least with a doubling
backoff. The bot key alone asks, so no two questions for one bot run at a time.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Protocol

from shardwright_operator.discord_rest import GatewayBot, Question
from shardwright_operator.errors import DiscordUnavailableError, TokenRejectedError
from shardwright_operator.tokens import Fingerprint
from shardwright_operator.workqueue import backoff

_RECORDS: Final = 4096


class Verdict(Enum):
    """What Discord says of a token."""

    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Answer:
    """What Discord last said. `settled`: identifies of the bot that the answer certainly counts. Times are ours."""

    verdict: Verdict = Verdict.UNKNOWN
    gateway_bot: GatewayBot | None = None
    asked_at: float = float("-inf")
    settled: int = 0
    reset_at: float = 0.0
    reset_time: str = ""
    trouble: str = ""


NOT_ASKED: Final = Answer()


@dataclass(slots=True)
class _Record:
    answer: Answer = field(default_factory=Answer)
    failures: int = 0
    not_before: float = float("-inf")


class Rest(Protocol):
    """Discord's HTTP API."""

    async def gateway_bot(self, question: Question) -> GatewayBot:
        """Ask. Raise `TokenRejectedError` or `DiscordUnavailableError`."""
        ...


def utc_now() -> dt.datetime:
    """Read the wall clock."""
    return dt.datetime.now(dt.UTC)


def rfc3339(moment: dt.datetime) -> str:
    """Write a time as Kubernetes does."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Asker:
    """Asks Discord, sparingly."""

    def __init__(
        self,
        rest: Rest,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._rest = rest
        self._clock = clock
        self._wall = wall
        self._records: OrderedDict[tuple[Fingerprint, str], _Record] = OrderedDict()
        self.questions = 0

    def known(self, question: Question) -> Answer:
        """Give the last answer without asking."""
        record = self._records.get((question.token.fingerprint, question.api_url))
        return record.answer if record else NOT_ASKED

    def wait(self, question: Question) -> float:
        """Say in how many seconds a question is allowed again."""
        record = self._records.get((question.token.fingerprint, question.api_url))
        return max(0.0, record.not_before - self._clock()) if record else 0.0

    async def ask(self, question: Question, *, max_age: float, settled: int) -> Answer:
        """Give an answer of at most this age where that is possible, else the last one."""
        record = self._record(question)
        now = self._clock()
        fresh = now - record.answer.asked_at <= max_age
        if fresh or record.answer.verdict is Verdict.REJECTED or now < record.not_before:
            return record.answer
        self.questions += 1
        try:
            gateway_bot = await self._rest.gateway_bot(question)
        except TokenRejectedError as error:
            record.answer = Answer(verdict=Verdict.REJECTED, trouble=str(error))
        except DiscordUnavailableError as error:
            self._postpone(record, error)
        else:
            record.failures = 0
            record.answer = self._accepted(gateway_bot, now, settled)
        return record.answer

    def _record(self, question: Question) -> _Record:
        key = (question.token.fingerprint, question.api_url)
        record = self._records.setdefault(key, _Record())
        self._records.move_to_end(key)
        while len(self._records) > _RECORDS:
            self._records.popitem(last=False)
        return record

    def _postpone(self, record: _Record, error: DiscordUnavailableError) -> None:
        record.failures += 1
        delay = max(error.retry_after or 0.0, backoff(record.failures))
        record.not_before = self._clock() + delay
        record.answer = replace(record.answer, trouble=str(error))

    def _accepted(self, gateway_bot: GatewayBot, asked_at: float, settled: int) -> Answer:
        reset_after = gateway_bot.session_start_limit.reset_after / 1000
        reset_time = rfc3339(self._wall() + dt.timedelta(seconds=reset_after))
        return Answer(Verdict.ACCEPTED, gateway_bot, asked_at, settled, asked_at + reset_after, reset_time)
