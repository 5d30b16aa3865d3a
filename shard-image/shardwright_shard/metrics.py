"""What `/metrics` says: plain integers of sessions, sinks and journal, gathered when they are scraped.

Nothing is counted in a metric object on the way of an event. Event names and shards are separate series: their product
is too many for Prometheus. Every known label value is there from the start, so that a `rate()` sees the first increment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shardwright_api import __version__
from shardwright_api.discord import EVENT_NAMES, CloseCode
from shardwright_api.resources import ShardState
from shardwright_shard.pod import Pod


class PodCollector(Collector):
    """Reads a pod at scrape."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    def collect(self) -> Iterator[Metric]:
        """Give every metric of the pod."""
        yield _gauge("build_info", "The version of this program.", ["version"], [([__version__], 1)])
        yield self._ready()
        yield self._states()
        yield self._events()
        yield from self._shard_metrics()
        yield self._closes()
        yield from self._journal()
        yield from self._sinks()

    def _ready(self) -> Metric:
        return _gauge("ready", "Whether every shard is ready and every sink takes events.", [], [([], self._pod.ready)])

    def _states(self) -> Metric:
        states = Counter(shard.status().state for shard in self._pod.shards)
        rows = [([str(state)], states[state]) for state in ShardState]
        return _gauge("shards", "Shards of this pod by the state of their session.", ["state"], rows)

    def _events(self) -> Metric:
        totals: Counter[str] = Counter(dict.fromkeys([*EVENT_NAMES, "other"], 0))
        for shard in self._pod.shards:
            totals.update(shard.session.received)
        rows = [([name], count) for name, count in totals.items()]
        return _counter(
            "events", "Events received from Discord by name; `other` are names not yet known.", ["event"], rows
        )

    def _shard_metrics(self) -> Iterator[Metric]:
        shards = self._pod.shards
        latencies = [([str(shard.id)], shard.session.latency or 0.0) for shard in shards]
        yield _gauge("heartbeat_latency_seconds", "Seconds from the last heartbeat to its ACK.", ["shard"], latencies)
        yield _gauge(
            "guilds", "Guilds of a shard.", ["shard"], [([str(shard.id)], shard.session.guilds) for shard in shards]
        )
        bytes_rows = [
            ([str(s.id), way], value) for s in shards for way, value in zip(("in", "out"), s.traffic(), strict=True)
        ]
        yield _counter(
            "inflater_bytes", "Bytes into and out of a shard's inflater.", ["shard", "direction"], bytes_rows
        )
        for name, attribute, text in _SESSION_COUNTERS:
            rows = [([str(shard.id)], getattr(shard.session.counters, attribute)) for shard in shards]
            yield _counter(name, text, ["shard"], rows)

    def _closes(self) -> Metric:
        closes: Counter[int] = Counter(dict.fromkeys([0, 1000, 1001, *CloseCode], 0))
        for shard in self._pod.shards:
            closes.update(shard.session.counters.closes)
        rows = [([str(code)], count) for code, count in closes.items()]
        return _counter("disconnects", "Connections ended, by Discord's close code; 0 is none.", ["code"], rows)

    def _journal(self) -> Iterator[Metric]:
        journal = self._pod.journal
        statistics = journal.statistics()
        for name, value, text in (
            ("buffered_events", statistics["events"], "Events in memory that wait for a sink's acknowledgement."),
            ("buffered_bytes", statistics["bytes"], "Bytes of events in memory that wait for a sink."),
            ("spool_events", statistics["spool_events"], "Events on disk that wait for a sink's acknowledgement."),
            ("spool_bytes", statistics["spool_bytes"], "Bytes on disk that wait for a sink."),
            ("spool_full", journal.refused is not None, "Whether the disk takes no more events: full, or failing."),
            ("reading_paused", journal.full, "Whether reading is paused because memory is full."),
            ("checkpoint_failing", self._pod.keeper.failing, "Whether the last checkpoint could not be written."),
        ):
            yield _gauge(name, text, [], [([], value)])

    def _sinks(self) -> Iterator[Metric]:
        sinks = self._pod.sinks
        rows = [([sink.name], sink.available) for sink in sinks]
        yield _gauge("sink_available", "Whether a sink takes events.", ["sink"], rows)
        statistics = {sink.name: sink.statistics() for sink in sinks}
        pending = [([name], values["pending"]) for name, values in statistics.items()]
        yield _gauge("sink_pending", "Events that a sink has not acknowledged yet.", ["sink"], pending)
        results = [
            ([name, key], value)
            for name, values in statistics.items()
            for key, value in values.items()
            if key != "pending"
        ]
        yield _counter(
            "sink_events", "What became of events at a sink, and its reconnects.", ["sink", "result"], results
        )


_SESSION_COUNTERS = (
    ("identifies", "identifies", "IDENTIFYs sent: each counts against the daily limit."),
    ("resumes", "resumes", "RESUMEs sent."),
    ("resumed", "resumed", "RESUMEs answered by RESUMED."),
    ("heartbeats", "heartbeats", "Heartbeats sent."),
    ("heartbeats_missed", "zombies", "Connections dropped because a heartbeat was not acknowledged."),
    ("unreadable", "unreadable", "Messages that could not be read; each costs a reconnect."),
    ("events_skipped", "skipped", "Events skipped because they could not be read twice."),
    ("invalid_sessions", "invalid_sessions", "Times that Discord answered with op 9."),
    ("gaps", "gaps", "Gaps told: sessions that Discord ended, or that were renewed."),
    ("events_missing", "missing", "Sequences that Discord left out, in a replay too."),
    ("unknown_opcodes", "unknown_opcodes", "Messages with an opcode that this program does not know."),
)


def _gauge(name: str, text: str, labels: list[str], rows: Sequence[tuple[list[str], float]]) -> Metric:
    family = GaugeMetricFamily(f"discord_gateway_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: list[str], rows: Sequence[tuple[list[str], float]]) -> Metric:
    family = CounterMetricFamily(f"discord_gateway_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def make_registry(pod: Pod) -> CollectorRegistry:
    """Make a registry of its own, with the pod's collector."""
    registry = CollectorRegistry()
    registry.register(PodCollector(pod))
    return registry
