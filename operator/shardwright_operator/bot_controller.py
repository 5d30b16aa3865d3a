"""Looks at a bot: asks Discord, asks the planner, hands grants out, and tells the gateways."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec

from shardwright_api.resources import DiscordGateway, ShardRange
from shardwright_operator import parking
from shardwright_operator.actions import PatchRange
from shardwright_operator.asker import NOT_ASKED, Answer, Asker, Verdict, rfc3339, utc_now
from shardwright_operator.discord_rest import Question
from shardwright_operator.errors import ConflictError, NotFoundError, OperatorError
from shardwright_operator.executor import Executor
from shardwright_operator.gateway_controller import question_of
from shardwright_operator.keys import BotKey, GatewayKey, Key, RangeKey
from shardwright_operator.memory import Memory, Paces, Standing
from shardwright_operator.observed import BotObserved, GatewayBudget, RangeBudget
from shardwright_operator.plan_bot import STALE, BotPlan, Grant, grant_pace, one_at_a_time, plan_bot
from shardwright_operator.secret_reader import SecretReader
from shardwright_operator.store import Store
from shardwright_operator.sums import ANNOTATION_PACED, PARKED_ANNOTATIONS
from shardwright_operator.views import gateway_key, range_key

log = logging.getLogger(__name__)


class BotController:
    """The only one who asks Discord and raises grants."""

    def __init__(
        self,
        *,
        store: Store,
        memory: Memory,
        secrets: SecretReader,
        asker: Asker,
        executor: Executor,
        enqueue: Callable[[Key], None],
    ) -> None:
        self._store = store
        self._memory = memory
        self._secrets = secrets
        self._asker = asker
        self._executor = executor
        self._enqueue = enqueue
        self._paces = Paces(grant_pace)
        self._recalled: dict[RangeKey, str] = {}
        """The UIDs of the ranges whose pace was taken up: one that is made anew under the same name begins anew."""

    async def look_at(self, key: BotKey) -> float | None:
        """Ask, grant and tell; give the seconds until the next look."""
        gateways = sorted(
            self._store.gateways_of(key.bot_id), key=lambda one: (one.metadata.creation_timestamp, one.metadata.uid)
        )
        questions = list(self._questions(gateways))
        if not questions:
            return None
        await self._ask(key, questions, max_age=STALE)
        plan = self._plan(key, gateways, questions)
        if plan.ask:
            await self._ask(key, questions, max_age=0.0)
            plan = self._plan(key, gateways, questions)
        self._tell(plan)
        await self._hand_out(plan)
        return self._again_after(plan, questions)

    def _questions(self, gateways: list[DiscordGateway]) -> Iterator[tuple[GatewayKey, Question]]:
        for gateway in gateways:
            key = gateway_key(gateway)
            standing, token = self._memory.standing.get(key, Standing()), self._secrets.known(key)
            question = question_of(gateway, token) if token is not None and standing.askable else None
            if question is not None:
                yield key, question

    async def _ask(self, bot: BotKey, questions: list[tuple[GatewayKey, Question]], *, max_age: float) -> None:
        """Ask with each token; tell the gateways that have it when the answer is another one."""
        for key, question in questions:
            before = self._asker.known(question)
            settled = self._store.identifies[bot.bot_id].settled(self._memory.clock())
            answer = await self._asker.ask(question, max_age=max_age, settled=settled)
            if (before.verdict, before.gateway_bot, before.trouble) != (
                answer.verdict,
                answer.gateway_bot,
                answer.trouble,
            ):
                self._enqueue(key)

    # --- planning

    def _plan(
        self, bot: BotKey, gateways: list[DiscordGateway], questions: list[tuple[GatewayKey, Question]]
    ) -> BotPlan:
        return plan_bot(self._observe(bot, gateways, self._newest(questions)))

    def _newest(self, questions: list[tuple[GatewayKey, Question]]) -> Answer:
        answers = (self._asker.known(question) for _, question in questions)
        accepted = [answer for answer in answers if answer.verdict is Verdict.ACCEPTED]
        return max(accepted, key=lambda answer: answer.asked_at, default=NOT_ASKED)

    def _observe(self, bot: BotKey, gateways: list[DiscordGateway], answer: Answer) -> BotObserved:
        now, store = self._memory.clock(), self._store
        members = (key for gateway in gateways for key in store.totals(gateway.metadata.uid).members)
        queue = sum(map(store.unsettled, members))
        return BotObserved(
            answer=answer,
            gateways=tuple(self._gateway(gateway, queue) for gateway in gateways),
            spent=max(0, self._store.identifies[bot.bot_id].total - answer.settled),
            age=now - answer.asked_at,
            until_reset=answer.reset_at - now,
        )

    def _gateway(self, gateway: DiscordGateway, queue: int) -> GatewayBudget:
        key, store = gateway_key(gateway), self._store
        members = sorted(store.totals(gateway.metadata.uid).members, key=lambda one: store.ranges[one].spec.first)
        wanted = self._memory.wanted.get(key)
        cause = None
        if wanted is not None:
            cause = parking.cause_now(wanted, same_token=self._same_token(key))
        return GatewayBudget(
            key=key,
            eligible=cause is not None and self._memory.standing.get(key, Standing()).eligible,
            reserve_percent=gateway.spec.identify.reserve_percent,
            ranges=tuple(replace(self._range(one, cause), queue=queue) for one in members),
        )

    def _same_token(self, key: GatewayKey) -> bool:
        state = self._secrets.known(key)
        return state is not None and state.token is not None and state.token.fingerprint in self._memory.refused_tokens

    def _range(self, key: RangeKey, cause: parking.Cause | None) -> RangeBudget:
        store, now = self._store, self._memory.clock()
        shard_range, summary = store.ranges[key], store.summaries[key]
        if self._recalled.get(key) != shard_range.metadata.uid:
            self._recalled[key] = shard_range.metadata.uid
            self._recall(key, shard_range, now)
        if summary.ready:
            self._paces.reset_if_lasting(key, now)
        budget = RangeBudget(
            shard_range=shard_range,
            summary=summary,
            paced_for=self._paces.wait(key, now),
            one_at_a_time=one_at_a_time(self._paces.count(key)),
            quiet_for=store.quiet_for(key),
            unsettled=store.unsettled(key),
        )
        if cause is None:
            return budget
        active = store.active_pod(shard_range)
        if summary.parked is None:
            return replace(budget, blocked=parking.unaware(summary, active, cause))
        return replace(
            budget,
            blocked=parking.stands(shard_range, summary.parked.code, cause),
            retry=parking.may_retry(shard_range, summary, active, cause),
        )

    def _recall(self, key: RangeKey, shard_range: ShardRange, now: float) -> None:
        """Take up the pace that an operator before this one kept."""
        self._paces.reset(key)
        noted = shard_range.metadata.annotations.get(ANNOTATION_PACED)
        if noted is not None:
            count, age = paced_before(noted, utc_now())
            self._paces.restore(key, count, age, now)

    # --- acting

    def _tell(self, plan: BotPlan) -> None:
        for key, verdict in plan.verdicts.items():
            if self._memory.budgets.get(key) != verdict:
                self._memory.budgets[key] = verdict
                self._enqueue(key)

    async def _hand_out(self, plan: BotPlan) -> None:
        """Raise grants one by one, in the plan's order; what one range does not get leaves the others theirs."""
        failure: OperatorError | None = None
        for grant in plan.grants:
            key = range_key(grant.budget.shard_range)
            paced = f"{self._paces.count(key) + 1} {rfc3339(utc_now())}" if grant.paced else ""
            try:
                await self._executor.run([raise_grant(grant, paced)])
            except (ConflictError, NotFoundError) as error:
                failure = error
                continue
            if grant.paced:
                self._paces.note(key, self._memory.clock())
            log.info(
                "granted %d identifies",
                grant.number,
                extra={"range": grant.budget.shard_range.metadata.name, "paced": grant.paced},
            )
        if failure is not None:
            raise failure

    def _again_after(self, plan: BotPlan, questions: list[tuple[GatewayKey, Question]]) -> float:
        waits = [wait for _, question in questions if (wait := self._asker.wait(question)) > 0]
        if plan.again_after is not None:
            waits.append(plan.again_after)
        return max(0.5, min(waits, default=STALE))


def paced_before(noted: str, now: dt.datetime) -> tuple[int, float]:
    """Read how many paced grants a range was given, and how many seconds ago the last; (0, 0) of what makes no sense."""
    count, _, moment = noted.partition(" ")
    try:
        return int(count), max(0.0, (now - dt.datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):
        return 0, 0.0


def raise_grant(grant: Grant, paced: str = "") -> PatchRange:
    """Render a grant, and how it was paced. One to a parked range is its sign to try again: what was noted on it ends."""
    shard_range = grant.budget.shard_range
    spec = msgspec.structs.replace(shard_range.spec, identify_grant=shard_range.spec.identify_grant + grant.number)
    annotations: dict[str, str | None] = dict.fromkeys(PARKED_ANNOTATIONS) if grant.budget.retry else {}
    if paced:
        annotations[ANNOTATION_PACED] = paced
    return PatchRange(shard_range, spec, annotations)
