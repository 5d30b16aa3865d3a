"""Names of the objects that operator and pods must agree on."""

from __future__ import annotations

from typing import Final

from shardwright_api.sharding import Range

MANAGED_BY: Final = "shardwright"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_GATEWAY: Final = "shardwright.dev/gateway"
LABEL_RANGE: Final = "shardwright.dev/range"
LABEL_BOT: Final = "shardwright.dev/bot"
ANNOTATION_REVISION: Final = "shardwright.dev/revision"
ANNOTATION_INCARNATION: Final = "shardwright.dev/incarnation"

MAX_GATEWAY_NAME: Final = 40

TOKEN_FILE: Final = "/var/run/secrets/shardwright.dev/token/token"  # noqa: S105 - a path
"""Where the bot's token is mounted in a shard pod."""
SINKS_DIR: Final = "/var/run/secrets/shardwright.dev/sinks"
"""Where the Secrets of sinks are mounted: `<sink>/credentials` and `<sink>/tls`."""
STATE_DIR: Final = "/var/lib/shardwright"
"""The pod's `emptyDir`, which outlives the container, or the range's claim, which outlives the pod."""
HTTP_PORT: Final = 8080
"""Port of `/healthz`, `/readyz` and `/metrics` in shard pods and operator."""


def range_name(gateway: str, shard_range: Range) -> str:
    """Name a ShardRange: `<gateway>-<total>-<first>-<last>`."""
    return f"{gateway}-{shard_range.total}-{shard_range.first}-{shard_range.last}"


def pod_name(range_: str, range_uid: str, incarnation: int) -> str:
    """Name a shard pod: a new name for each incarnation, and for each re-creation of its ShardRange."""
    return f"{range_}-{range_uid[:8]}-{incarnation}"


def claim_name(range_: str) -> str:
    """Name the PersistentVolumeClaim of a range's spool."""
    return f"{range_}-spool"


def lease_name(bot_id: str, bucket: int) -> str:
    """Name the Lease of an identify bucket: shared by all gateways of a bot."""
    return f"{bot_id}-identify-{bucket}"
