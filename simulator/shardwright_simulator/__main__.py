"""The command line: `shardwright-simulator --port 8080`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from shardwright_simulator.errors import ConfigError, SimulatorError
from shardwright_simulator.load import LoadSpec
from shardwright_simulator.options import BotConfig, KeyOrder, Options, ResumeMode
from shardwright_simulator.simulator import Simulator

log = logging.getLogger("shardwright_simulator")


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """A configuration file."""

    bots: list[BotConfig] = msgspec.field(default_factory=list)
    options: Options = msgspec.field(default_factory=Options)
    loads: list[LoadSpec] = msgspec.field(default_factory=list)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parse = argparse.ArgumentParser("shardwright-simulator", description="A strict fake Discord gateway.")
    parse.add_argument("--host", default="127.0.0.1")
    parse.add_argument("--port", type=int, default=8080, help="0: a free one, which is printed")
    parse.add_argument("--config", type=Path, help="JSON file: {bots: [...], options: {...}, loads: [...]}")
    parse.add_argument("--tls-cert", type=Path)
    parse.add_argument("--tls-key", type=Path)
    parse.add_argument("--seed", type=int, help="make ids and choices repeat")
    _add_bot(parse.add_argument_group("the bot, unless --config names some"))
    _add_options(parse.add_argument_group("options, over those of --config"))
    return parse


def _add_bot(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--bot-id", dest="bot.id")
    group.add_argument("--token", dest="bot.token", help="left out: made from the id, and printed")
    for name, text in (
        ("guilds", "how many guilds it is in"),
        ("guild-bytes", "size of a GUILD_CREATE"),
        ("shards", "what /gateway/bot recommends"),
        ("max-concurrency", "identify buckets"),
        ("total", "session starts a day"),
        ("remaining", "session starts left"),
        ("large-multiple", "what shard counts are a multiple of"),
    ):
        group.add_argument(f"--{name}", dest=f"bot.{name.replace('-', '_')}", type=int, help=text)


def _add_options(group: argparse._ArgumentGroup) -> None:
    for name, text in (
        ("heartbeat-interval", "seconds"),
        ("session-ttl", "seconds a session outlives its connection"),
        ("identify-window", "seconds between identifies of a bucket"),
    ):
        group.add_argument(f"--{name}", dest=f"option.{name.replace('-', '_')}", type=float, help=text)
    group.add_argument(
        "--latency", dest="option.latency", type=float, nargs=2, metavar=("LEAST", "MOST"), help="seconds each way"
    )
    group.add_argument("--on-resume", dest="option.on_resume", choices=[mode.value for mode in ResumeMode])
    group.add_argument("--key-order", dest="option.key_order", choices=[order.value for order in KeyOrder])
    group.add_argument("--public-host", dest="option.public_host", help="host:port that gateway URLs name")
    for name in ("trim-by-heartbeat", "accept-any-rest-token", "require-user-agent"):
        group.add_argument(f"--{name}", dest=f"option.{name.replace('-', '_')}", action=argparse.BooleanOptionalAction)
    group.add_argument("--rate", type=float, help="events a second, from the start")


def configure(args: argparse.Namespace) -> Config:
    """Put file and arguments together; raise SimulatorError when they make no sense."""
    try:
        config = msgspec.json.decode(args.config.read_bytes(), type=Config) if args.config else Config()
        bot = _picked(args, "bot")
        if bot or not config.bots:
            config.bots.insert(0, msgspec.convert(bot, BotConfig))
        options = msgspec.to_builtins(config.options) | _picked(args, "option")
        config.options = msgspec.convert(options, Options)
    except (msgspec.MsgspecError, OSError) as error:
        raise ConfigError(str(error)) from error
    if args.rate:
        config.loads.append(LoadSpec(rate=args.rate))
    return config


def _picked(args: argparse.Namespace, prefix: str) -> dict[str, Any]:
    named = ((name.partition("."), value) for name, value in vars(args).items())
    return {key: value for (head, dot, key), value in named if dot and head == prefix and value is not None}


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Load certificate and key; None without them."""
    if cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


async def serve(args: argparse.Namespace, config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    tls = tls_context(args.tls_cert, args.tls_key)
    simulator = Simulator(
        bots=config.bots, options=config.options, host=args.host, port=args.port, tls=tls, seed=args.seed
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with simulator as running:
        for load in config.loads:
            running.control.start_load(load)
        log.info("gateway %s  rest %s  control %s", running.gateway_url, running.api_url, running.control_url)
        for bot in running.control.bots():
            log.info("bot %s  token %s", bot.config.id, bot.config.token)
        await stop.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulator; return the exit status."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        config = configure(args)
    except SimulatorError as error:
        log.error("%s", error)  # noqa: TRY400  the message says it all
        return 2
    asyncio.run(serve(args, config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
