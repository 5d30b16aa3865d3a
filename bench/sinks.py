"""CPU per event of every sink, and of the client libraries that were not taken.

    .venv/bin/python bench/sinks.py [--events 20000] [KIND ...]

Each sink runs in this process, on uvloop, against its real server on loopback (set up as the tests do); what is counted
is the CPU of this process, kernel included, from the journal to the acknowledgement: events of 1 kB, in batches of 1 and
of 100 as a socket's reads give them. Median of three runs; load is printed because the servers share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import aio_pika
import uvloop

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "cluster")]

from component.sinks import programs  # noqa: E402
from component.sinks.kinds import KINDS, Kind  # noqa: E402
from component.sinks.stage import BOT, Stage, message  # noqa: E402
from shardwright_shard.journal import Event  # noqa: E402
from shardwright_shard.sinks.connected import Limits  # noqa: E402
from shardwright_shard.sinks.headers import attributes  # noqa: E402

Cost = Callable[..., Awaitable[float]]

PROGRAMS = {
    "nats": programs.nats,
    "redis": lambda: programs.debian("redis", programs.REDIS),
    "kafka": programs.kafka,
    "rabbitmq": lambda: programs.debian("rabbitmq", programs.RABBITMQ),
    "http": lambda: None,
    "http-batched": lambda: None,
}
SLOW = {"http": 10}
"""Kinds that get so many times fewer events."""
WINDOW = 2000


def cpu() -> float:
    """Give this process's CPU in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def sink_cost(kind: Kind, *, events: int, batch: int) -> float:
    """Give the microseconds of CPU per event of a sink."""
    made = [message(seq, size=900) for seq in range(1, events + 1)]
    async with Stage(kind.sink(limits=Limits())) as stage:
        await stage.available()
        started = cpu()
        for first in range(0, events, batch):
            stage.journal.append(stage.source, made[first : first + batch], 1735689600.25)
            await asyncio.sleep(0)
            while stage.journal.end - (stage.source.acked or 0) > WINDOW:  # noqa: ASYNC110 - it must not spin
                await asyncio.sleep(0.005)
        await stage.settled(within=300)
        return (cpu() - started) / events * 1e6


def fields(stage: Stage, event: Event) -> dict[str, str]:
    """Give what a client library would be handed."""
    given = attributes(stage.source, event, time="2025-01-01T00:00:00.250Z")
    return {f"ce-{name}": value for name, value in given.items()}


async def redis_py(kind: Kind, *, events: int, batch: int) -> float:
    """Do the same by redis-py: a pipeline per batch."""
    stage = Stage(None)
    made = [message(seq, size=900) for seq in range(1, events + 1)]
    async with kind.server.client() as client:
        await client.ping()
        started = cpu()
        for first in range(0, events, batch):
            pipeline = client.pipeline(transaction=False)
            for event in made[first : first + batch]:
                entry = {**fields(stage, event), "data": event.payload}
                pipeline.xadd(f"discord:{BOT}", entry, maxlen=1_000_000, approximate=True)
            await pipeline.execute()
        return (cpu() - started) / events * 1e6


async def aio_pika_(kind: Kind, *, events: int, batch: int) -> float:
    """Do the same by aio-pika: a confirm awaited for each, a batch of them at once."""
    stage = Stage(None)
    made = [message(seq, size=900) for seq in range(1, events + 1)]
    async with kind.server.channel() as channel:
        exchange = await channel.get_exchange("discord")
        started = cpu()
        for first in range(0, events, batch):
            await asyncio.gather(
                *[
                    exchange.publish(
                        aio_pika.Message(event.payload, headers=fields(stage, event), delivery_mode=2),
                        f"discord.{BOT}.MESSAGE_CREATE",
                    )
                    for event in made[first : first + batch]
                ]
            )
        return (cpu() - started) / events * 1e6


RIVALS = {"redis": ("redis-py", redis_py), "rabbitmq": ("aio-pika", aio_pika_)}


async def median(cost: Cost, kind: Kind, **options: int) -> float:
    """Give the median of three runs."""
    return statistics.median([await cost(kind, **options) for _ in range(3)])


async def measure(kind_class: type[Kind], folder: Path, events: int) -> None:
    """Print the lines of one kind."""
    kind = kind_class(PROGRAMS[kind_class.name](), folder)
    await kind.start()
    await kind.prepare()
    events //= SLOW.get(kind.name, 1)
    try:
        await sink_cost(kind, events=events // 10, batch=100)  # warm
        names = [(kind.name, sink_cost)]
        if kind.name in RIVALS:
            names.append(RIVALS[kind.name])
        for name, cost in names:
            one = await median(cost, kind, events=events // 4, batch=1)
            hundred = await median(cost, kind, events=events, batch=100)
            print(f"| {name} | {one:.1f} | {hundred:.1f} | {os.getloadavg()[0]:.1f} |", flush=True)
    finally:
        kind.close()


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=[], help="all where none is named")
    parser.add_argument("--events", type=int, default=20000)
    options = parser.parse_args()
    print("| sink | µs an event, batches of 1 | batches of 100 | load |\n|---|---|---|---|")
    for kind in KINDS:
        if not options.kinds or kind.name in options.kinds:
            with tempfile.TemporaryDirectory() as folder:
                uvloop.run(measure(kind, Path(folder), options.events))


if __name__ == "__main__":
    main()
