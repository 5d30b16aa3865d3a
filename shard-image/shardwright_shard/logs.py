"""Structured logs on standard error: standard output belongs to the stdout sink."""

from __future__ import annotations

import logging
import sys

from shardwright_api.logs import JsonFormatter


def set_up(level: str) -> None:
    """Log to standard error from `level` on; libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("shardwright_shard").setLevel(level.upper())
