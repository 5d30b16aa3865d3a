"""How every program here logs: one JSON object a line."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Give what was logged as `extra`, less what is empty."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and value not in (None, "")}


class JsonFormatter(logging.Formatter):
    """Puts time, level, logger, message and every extra field into one line. What JSON does not know is written as text."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, without a line end."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        } | extras(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()
