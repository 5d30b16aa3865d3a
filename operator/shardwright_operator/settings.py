"""What the operator is told on its command line and in its environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shardwright_api.names import HTTP_PORT

DEFAULT_IMAGE: Final = "shardwright/shard:0.1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The operator's own settings. `namespaces` empty: the whole cluster. `kubeconfig` empty: the pod's own account."""

    namespaces: tuple[str, ...] = ()
    shard_image: str = DEFAULT_IMAGE
    pull_policy: str = "IfNotPresent"
    kubeconfig: str = ""
    http_host: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside the pod
    http_port: int = HTTP_PORT
    log_level: str = "INFO"
    log_format: str = "json"


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shardwright-operator", description="The Shardwright operator.")
    get = environ.get
    parser.add_argument("--namespaces", default=get("SHARDWRIGHT_NAMESPACES", ""), help="comma list; empty: all")
    parser.add_argument("--shard-image", default=get("SHARDWRIGHT_SHARD_IMAGE", DEFAULT_IMAGE))
    parser.add_argument("--shard-image-pull-policy", default=get("SHARDWRIGHT_SHARD_IMAGE_PULL_POLICY", "IfNotPresent"))
    parser.add_argument("--kubeconfig", default=get("KUBECONFIG", ""), help="empty: the pod's own account")
    parser.add_argument("--http-host", default=get("SHARDWRIGHT_HTTP_HOST", "0.0.0.0"))  # noqa: S104 - as above
    parser.add_argument("--http-port", type=int, default=int(get("SHARDWRIGHT_HTTP_PORT", str(HTTP_PORT))))
    parser.add_argument("--log-level", default=get("SHARDWRIGHT_LOG_LEVEL", "INFO").upper())
    parser.add_argument("--log-format", default=get("SHARDWRIGHT_LOG_FORMAT", "json"), choices=["json", "text"])
    return parser


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; an argument stands above its environment variable."""
    given = _parser(environ).parse_args(arguments)
    return Settings(
        namespaces=tuple(name.strip() for name in given.namespaces.split(",") if name.strip()),
        shard_image=given.shard_image,
        pull_policy=given.shard_image_pull_policy,
        kubeconfig=given.kubeconfig,
        http_host=given.http_host,
        http_port=given.http_port,
        log_level=given.log_level.upper(),
        log_format=given.log_format,
    )
