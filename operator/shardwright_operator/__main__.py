"""Run the operator: `python -m shardwright_operator`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from shardwright_operator import app, logs
from shardwright_operator.settings import Settings, parse

log = logging.getLogger(__name__)


async def _until_told(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(app.serve(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    log.info("stopped")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the operator."""
    os.environ.setdefault("LOGNAME", "shardwright")  # kopf asks who runs it; a container's user has no name
    settings = parse(sys.argv[1:] if arguments is None else arguments)
    logs.configure(settings.log_level, settings.log_format)
    asyncio.run(_until_told(settings))


if __name__ == "__main__":
    main()
