"""The shard pod's entry point: `python -m shardwright_shard --namespace NS --range NAME`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import signal
import ssl
import sys
from pathlib import Path

import uvloop

from shardwright_api import names
from shardwright_api.token import MalformedToken, bot_id_of
from shardwright_shard import http, logs
from shardwright_shard.coordination.base import Coordinator, View
from shardwright_shard.coordination.kubernetes import in_cluster
from shardwright_shard.errors import ConfigError, ShardError
from shardwright_shard.metrics import make_registry
from shardwright_shard.pod import HOLD_ON, Pod
from shardwright_shard.sinks.base import Sink
from shardwright_shard.sinks.factory import make_sink

log = logging.getLogger(__name__)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; the pod's own name and UID come by the downward API."""
    parser = argparse.ArgumentParser(prog="shardwright-shard", description=__doc__)
    parser.add_argument("--namespace", required=True, help="namespace of the ShardRange")
    parser.add_argument("--range", required=True, help="name of the ShardRange that this pod serves")
    parser.add_argument("--token-file", type=Path, default=Path(names.TOKEN_FILE), help="file with the bot's token")
    parser.add_argument("--state-dir", type=Path, default=Path(names.STATE_DIR), help="for checkpoint and spool")
    parser.add_argument("--http-port", type=int, default=names.HTTP_PORT, help="port of /healthz, /readyz, /metrics")
    parser.add_argument("--log-level", default=os.environ.get("SHARDWRIGHT_LOG_LEVEL", "info"))
    parser.add_argument("--pod-name", default=os.environ.get("SHARDWRIGHT_POD_NAME", ""))
    parser.add_argument("--pod-uid", default=os.environ.get("SHARDWRIGHT_POD_UID", ""))
    parser.add_argument("--config", default=os.environ.get("SHARDWRIGHT_CONFIG", ""), help="the ShardConfig, in JSON")
    return parser.parse_args(arguments)


def token_reader(path: Path) -> str:
    """Read the bot's token. Raise `ConfigError` naming the file where that is not possible."""
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"cannot read the token file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the token file {path} is not text: put the bot's token into the Secret's key") from None
    if not token:
        raise ConfigError(f"the token file {path} is empty: put the bot's token into the Secret's key")
    return token


def check_bot(token: str, bot_id: str) -> str:
    """Give the token back if it is of this bot: another one's would spend that bot's identifies. Raise `ConfigError`."""
    try:
        found = bot_id_of(token)
    except MalformedToken as error:
        raise ConfigError(f"{error}; correct the Secret") from None
    if found != bot_id:
        raise ConfigError(f"the token is not of bot {bot_id}, to which this range belongs: correct the Secret")
    return token


def make_sinks(view: View) -> list[Sink]:
    """Make the sinks that the range's configuration names."""
    return [make_sink(sink, bot=view.spec.bot_id) for sink in view.spec.config.sinks]


async def run_pod(coordinator: Coordinator, *, token_file: Path, http_port: int, state_dir: Path) -> None:
    """Run a pod with its HTTP door until SIGTERM or SIGINT."""
    pod = Pod(
        coordinator,
        make_sinks=make_sinks,
        read_token=lambda: check_bot(token_reader(token_file), coordinator.view.spec.bot_id),
        random=random.random,
        tls=ssl.create_default_context(),
        state_dir=state_dir,
        hold_on=HOLD_ON,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pod.stop)
    runner = await http.serve(http.make_app(pod, make_registry(pod)), http_port)
    gc.collect()
    gc.freeze()
    try:
        await pod.run()
    finally:
        await runner.cleanup()


async def _main(options: argparse.Namespace) -> None:
    coordinator = in_cluster(
        namespace=options.namespace,
        range_name=options.range,
        pod_name=options.pod_name,
        pod_uid=options.pod_uid,
        config=options.config,
    )
    await run_pod(coordinator, token_file=options.token_file, http_port=options.http_port, state_dir=options.state_dir)


def main() -> None:
    """Run until stopped; exit 1 with one log line where that is not possible."""
    options = parse(sys.argv[1:])
    logs.set_up(options.log_level)
    try:
        uvloop.run(_main(options))
    except ShardError as error:
        log.critical("the pod cannot run", extra={"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
