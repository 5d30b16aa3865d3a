"""Reads the Secrets that gateways name: by name, sparingly, and never a list or a watch of them.

The version of a token is the Secret's resource version when its *content* was first seen: other writers of the Secret
(labels, controllers that renew it) do not make it a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from shardwright_api.resources import DiscordGateway, SecretKeyRef
from shardwright_operator import tokens
from shardwright_operator.errors import ForbiddenError, NotFoundError
from shardwright_operator.keys import GatewayKey
from shardwright_operator.kube import SECRETS, Kube
from shardwright_operator.tokens import TokenState
from shardwright_operator.views import gateway_key

PATIENT: Final = 29.0
HURRIED: Final = 2.5
_MOUNT_LAG: Final = 120.0
"""Seconds that the kubelet may take to bring a changed Secret to a running pod."""


_FORBIDDEN_PATIENCE: Final = 120.0
"""Seconds for which a token goes on to be used that may no longer be read."""


@dataclass(slots=True)
class _Record:
    reference: SecretKeyRef
    state: TokenState
    read_at: float
    before: TokenState | None = None
    changed_at: float = float("-inf")


class SecretReader:
    """The tokens of all gateways, as last read."""

    def __init__(self, kube: Kube, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._records: dict[GatewayKey, _Record] = {}

    def known(self, key: GatewayKey) -> TokenState | None:
        """Give what was read last."""
        record = self._records.get(key)
        return record.state if record else None

    def blamed(self, key: GatewayKey) -> TokenState:
        """Give what running pods of a gateway read last: for a while after a change, that is the old content."""
        record = self._records.get(key)
        if record is None:
            return TokenState()
        recent = self._clock() - record.changed_at < _MOUNT_LAG
        return record.before if recent and record.before is not None else record.state

    def forget(self, key: GatewayKey) -> None:
        """Drop what was read for a gateway that no longer exists."""
        self._records.pop(key, None)

    async def read(self, gateway: DiscordGateway, *, max_age: float) -> TokenState:
        """Give the token of a gateway, read at most so many seconds ago."""
        key, reference = gateway_key(gateway), gateway.spec.token_secret_ref
        record = self._records.get(key)
        now = self._clock()
        if record is not None and record.reference == reference and now - record.read_at < max_age:
            return record.state
        try:
            state = await self._fetch(gateway.metadata.namespace, reference)
        except ForbiddenError:
            if record is not None and record.state.token is not None and now - record.read_at < _FORBIDDEN_PATIENCE:
                return record.state  # it could be read before: the API server is coming up, or somebody is at the roles
            state = tokens.forbidden(reference)
        self._records[key] = _updated(record, reference, state, now)
        return self._records[key].state

    async def _fetch(self, namespace: str, reference: SecretKeyRef) -> TokenState:
        try:
            return tokens.read(await self._kube.get(SECRETS, namespace, reference.name), reference)
        except NotFoundError:
            return tokens.missing(reference)


def _updated(record: _Record | None, reference: SecretKeyRef, state: TokenState, now: float) -> _Record:
    if record is None:
        return _Record(reference, state, now)
    if _content(record.state) == _content(state):
        same = replace(state, version=record.state.version or state.version)
        return _Record(reference, same, now, record.before, record.changed_at)
    return _Record(reference, state, now, record.state, now)


def _content(state: TokenState) -> str:
    return state.token.fingerprint if state.token is not None else f"{state.problem}: {state.message}"
