"""Structured logs on standard error. Never a token: those are inside `Token`."""

from __future__ import annotations

import logging
import sys

from shardwright_api.logs import JsonFormatter, extras


class TextFormatter(logging.Formatter):
    """Renders a record as a line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own spelling
        """Render a record, with what was given as `extra` behind it."""
        return super().formatMessage(record) + "".join(f" {name}={value}" for name, value in extras(record).items())


def configure(level: str, style: str = "json") -> None:
    """Send all logs to standard error, as JSON or (`text`) as lines for people."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("kopf", "aiohttp.access", "asyncio", "kubernetes"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
