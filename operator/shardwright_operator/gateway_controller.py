"""Looks at a gateway: reads its Secret and the store, asks the planner, has it done, and tells ranges and bot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from shardwright_api import names
from shardwright_api.discord import CloseCode
from shardwright_api.resources import ConditionType, DiscordGateway
from shardwright_operator import parking
from shardwright_operator.actions import WriteStatus
from shardwright_operator.asker import NOT_ASKED, Answer, Asker, rfc3339, utc_now
from shardwright_operator.conditions import FALSE, TRUE, Reason, Said
from shardwright_operator.discord_rest import Question
from shardwright_operator.errors import ForbiddenError, InvalidError, UnreadableError
from shardwright_operator.executor import Executor
from shardwright_operator.keys import BotKey, GatewayKey, Key, RangeKey
from shardwright_operator.kube import LEASES, Kube
from shardwright_operator.memory import Memory, Standing, note
from shardwright_operator.observed import GatewayObserved, Wanted
from shardwright_operator.plan_gateway import GatewayPlan, plan_gateway
from shardwright_operator.secret_reader import HURRIED, PATIENT, SecretReader
from shardwright_operator.settings import Settings
from shardwright_operator.status import GAUGE_SECONDS
from shardwright_operator.store import Store
from shardwright_operator.sums import GatewayTotals
from shardwright_operator.tokens import TokenState
from shardwright_operator.views import LeaseList, gateway_key

log = logging.getLogger(__name__)

MOMENT: Final = 3.0
"""Seconds in which a shard may reconnect without the gateway ceasing to be ready."""
_CHILDREN_EVERY: Final = 29.0


def question_of(gateway: DiscordGateway, token: TokenState) -> Question | None:
    """Give the question that Discord is asked for a gateway; None without a token."""
    return Question(token.token, gateway.spec.transport.api_url or "") if token.token is not None else None


def owner_of_bot(store: Store, bot_id: str) -> DiscordGateway | None:
    """Choose the gateway whose namespace a bot belongs to: one that runs already, else the oldest."""

    def rank(gateway: DiscordGateway) -> tuple[bool, str, str]:
        running = bool(store.totals(gateway.metadata.uid).members)
        return (not running, gateway.metadata.creation_timestamp, gateway.metadata.uid)

    return min(store.gateways_of(bot_id), key=rank, default=None)


def rival_of(store: Store, gateway: DiscordGateway) -> GatewayKey | None:
    """Give the gateway in another namespace that a gateway's bot belongs to, if there is one."""
    bot_id = store.bot_of(gateway_key(gateway))
    owner = owner_of_bot(store, bot_id) if bot_id else None
    if owner is None or owner.metadata.namespace == gateway.metadata.namespace:
        return None
    return gateway_key(owner)


class GatewayController:
    """At most one look a second for each gateway."""

    def __init__(
        self,
        *,
        kube: Kube,
        store: Store,
        memory: Memory,
        secrets: SecretReader,
        asker: Asker,
        executor: Executor,
        settings: Settings,
        enqueue: Callable[[Key], None],
    ) -> None:
        self._kube = kube
        self._store = store
        self._memory = memory
        self._secrets = secrets
        self._asker = asker
        self._executor = executor
        self._settings = settings
        self._enqueue = enqueue
        self._children_at: dict[str, float] = {}
        self._gauges_at: dict[str, float] = {}

    async def look_at(self, key: GatewayKey) -> float | None:
        """Bring a gateway closer to what it should be; give the seconds until the next look."""
        gateway = self._store.gateways.get(key)
        if gateway is None:
            self._forget(key)
            return None
        token = await self._secrets.read(gateway, max_age=self._patience(key))
        self._store.bind(key, self._bot_of(gateway, token))
        seen = await self._observe(key, gateway, token)
        plan = plan_gateway(seen)
        self._tell(key, seen, plan)
        await self._run(key, plan)
        self._note(gateway, seen, plan)
        brief = len(seen.down) < len(seen.totals.not_up)
        return min(plan.again_after, 1.0) if brief else plan.again_after

    async def _run(self, key: GatewayKey, plan: GatewayPlan) -> None:
        """Do it, and say so in the status where the API server refuses it for good."""
        trouble = ""
        try:
            await self._executor.run(plan.actions)
        except (InvalidError, ForbiddenError, UnreadableError) as error:
            trouble = str(error)
            raise
        finally:
            if note(self._memory.child_troubles, key, trouble):
                self._enqueue(key)

    def _forget(self, key: GatewayKey) -> None:
        self._memory.forget_gateway(key)
        self._secrets.forget(key)

    def _bot_of(self, gateway: DiscordGateway, token: TokenState) -> str:
        """Give the bot of a gateway: that of its running shards, else of its token, else the last one known."""
        key = next(iter(self._store.totals(gateway.metadata.uid).members), None)
        running = self._store.ranges[key].spec.bot_id if key is not None else ""
        return running or token.bot_id or gateway.status.bot_id or ""

    def _patience(self, key: GatewayKey) -> float:
        """Read the Secret often while its token does not work."""
        standing = self._memory.standing.get(key)
        return PATIENT if standing is None or standing.token_fine else HURRIED

    async def _observe(self, key: GatewayKey, gateway: DiscordGateway, token: TokenState) -> GatewayObserved:
        store, uid = self._store, gateway.metadata.uid
        now = self._memory.clock()
        children_due = now - self._children_at.get(uid, float("-inf")) > _CHILDREN_EVERY
        return GatewayObserved(
            gateway=gateway,
            token=token,
            answer=self._answer(gateway, token),
            rival=rival_of(store, gateway),
            refused=self._refused(store.bot_of(key)),
            totals=store.totals(uid),
            ranges=store.ranges,
            summaries=store.summaries,
            pods=store.pod_count(key),
            budget=self._memory.budgets.get(key),
            down=self._down(uid, now),
            stalled=self._memory.stalled_of(key),
            handed_over=self._memory.handed_over_of(key),
            waiting=_of_members(self._memory.waiting, store.totals(uid)),
            troubles=_of_members(self._memory.troubles, store.totals(uid)),
            trouble=self._memory.child_troubles.get(key, ""),
            default_image=self._settings.shard_image,
            pull_policy=self._settings.pull_policy,
            blamed_version=self._secrets.blamed(key).version,
            children_due=children_due,
            buckets=await self._buckets(gateway, store.bot_of(key)) if children_due else frozenset(),
            gauges_due=now - self._gauges_at.get(uid, float("-inf")) > GAUGE_SECONDS,
            now=rfc3339(utc_now()),
        )

    def _down(self, uid: str, now: float) -> frozenset[RangeKey]:
        """List the ranges that are not up, and have not been for more than a moment."""
        since = self._store.down_since
        not_up = self._store.totals(uid).not_up
        return frozenset(key for key in not_up if now - since.get(key, float("-inf")) >= MOMENT)

    def _answer(self, gateway: DiscordGateway, token: TokenState) -> Answer:
        question = question_of(gateway, token)
        return self._asker.known(question) if question is not None else NOT_ASKED

    async def _buckets(self, gateway: DiscordGateway, bot_id: str) -> frozenset[int]:
        """List the identify buckets whose Lease exists."""
        if not bot_id:
            return frozenset()
        labels = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_BOT}={bot_id}"
        raw = await self._kube.list(LEASES, gateway.metadata.namespace, labels=labels, limit=0)
        found = msgspec.json.decode(raw, type=LeaseList).items
        numbers = (lease.metadata.name.rpartition("-")[2] for lease in found)
        return frozenset(int(number) for number in numbers if number.isdecimal())

    def _refused(self, bot_id: str) -> str:
        """Say where Discord's gateway refuses the bot's token, if nothing has changed since."""
        if not bot_id:
            return ""
        for gateway in self._store.gateways_of(bot_id):
            wanted = self._memory.wanted.get(gateway_key(gateway))
            where = self._refused_range(gateway, wanted) if wanted is not None else ""
            if where:
                return f"Discord's gateway refuses the token (4004) on {where}"
        return ""

    def _refused_range(self, gateway: DiscordGateway, wanted: Wanted) -> str:
        token = self._secrets.known(gateway_key(gateway)) or TokenState(version=wanted.secret_version)
        cause = parking.Cause(
            secret_version=token.version,
            same_token=token.token is not None and token.token.fingerprint in self._memory.refused_tokens,
            revision=wanted.revision,
            generation=gateway.metadata.generation,
        )
        for one, parked in self._store.totals(gateway.metadata.uid).parked.items():
            refused = parked.code == CloseCode.AUTHENTICATION_FAILED
            if refused and parking.stands(self._store.ranges[one], parked.code, cause):
                return f"shard {parked.shard} of ShardRange {one.name}"
        return ""

    # --- telling others

    def _tell(self, key: GatewayKey, seen: GatewayObserved, plan: GatewayPlan) -> None:
        """Tell the ranges what is wanted of them, and the bot whether it may ask and grant."""
        before = self._memory.wanted.get(key)
        self._memory.wanted[key] = plan.wanted
        if before is None or _essence(before) != _essence(plan.wanted):
            for one in seen.totals.members:
                self._enqueue(one)
            self._wake_bot(key)
        standing = _standing(seen, plan.said)
        if self._memory.standing.get(key) != standing:
            self._memory.standing[key] = standing
            self._wake_bot(key)

    def _wake_bot(self, key: GatewayKey) -> None:
        bot_id = self._store.bot_of(key)
        if bot_id:
            self._enqueue(BotKey(bot_id))

    def _note(self, gateway: DiscordGateway, seen: GatewayObserved, plan: GatewayPlan) -> None:
        uid, now = gateway.metadata.uid, self._memory.clock()
        if seen.children_due and plan.made_children:
            self._children_at[uid] = now
        if seen.gauges_due and any(isinstance(action, WriteStatus) for action in plan.actions):
            self._gauges_at[uid] = now


def _of_members(notes: dict[RangeKey, str], totals: GatewayTotals) -> dict[RangeKey, str]:
    return {key: text for key, text in notes.items() if key in totals.members}


def _essence(wanted: Wanted) -> tuple[object, ...]:
    """Give what ranges and bot need to know: not the status, which changes all the time."""
    meta = wanted.gateway.metadata
    rest = (wanted.secret_version, wanted.blamed_version, wanted.healed, wanted.create_pods)
    return (
        meta.uid,
        meta.generation,
        meta.deletion_timestamp,
        wanted.revision,
        wanted.image,
        wanted.pull_policy,
        *rest,
    )


def _standing(seen: GatewayObserved, said: tuple[Said, ...]) -> Standing:
    token = next(one for one in said if one.type is ConditionType.TOKEN_VALID)
    spec, ours = seen.gateway.spec, seen.rival is None and seen.gateway.metadata.deletion_timestamp is None
    return Standing(
        token_fine=token.status != FALSE,
        askable=ours and seen.token.token is not None and token.reason != Reason.BOT_CHANGED,
        eligible=ours and token.status == TRUE and not spec.identify.hold and not spec.paused,
        fingerprint=seen.token.token.fingerprint if seen.token.token is not None else "",
    )
