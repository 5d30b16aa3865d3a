"""The operator's metrics: plain numbers that exist anyway, collected when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shardwright_operator.store import Store

PREFIX: Final = "discord_gateway_operator"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Numbers = Callable[[], Mapping[str, float]]


class _OperatorCollector(Collector):
    """Reads the numbers of the operator's parts."""

    def __init__(self, store: Store, *, gauges: Numbers, counters: Numbers, actions: Numbers) -> None:
        self._store = store
        self._gauges = gauges
        self._counters = counters
        self._actions = actions

    def collect(self) -> Iterable[Metric]:
        """Give all metrics."""
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", name.replace("_", " "), value=value)
        for name, value in self._counters().items():
            yield CounterMetricFamily(f"{PREFIX}_{name}", name.replace("_", " "), value=value)
        actions = CounterMetricFamily(f"{PREFIX}_actions", "What was done to the cluster", labels=["action"])
        for name, value in sorted(self._actions().items()):
            actions.add_metric([name], value)
        yield actions
        yield from self._gateways()

    def _gateways(self) -> Iterable[Metric]:
        labels = ["namespace", "gateway"]
        shards = GaugeMetricFamily(f"{PREFIX}_shards", "Shards by state", labels=[*labels, "state"])
        ready = GaugeMetricFamily(f"{PREFIX}_gateway_ready", "Whether all shards are ready", labels=labels)
        grants = GaugeMetricFamily(f"{PREFIX}_identifies_open", "Identifies granted and not spent", labels=labels)
        remaining = GaugeMetricFamily(f"{PREFIX}_identifies_remaining", "Identifies left today", labels=labels)
        for key, gateway in self._store.gateways.items():
            totals, where = self._store.totals(gateway.metadata.uid), [key.namespace, key.name]
            for state, count in totals.states.items():
                shards.add_metric([*where, state.value], count)
            is_ready = any(one.type == "Ready" and one.status == "True" for one in gateway.status.conditions)
            ready.add_metric(where, float(is_ready))
            grants.add_metric(where, totals.open)
            if gateway.status.session_starts is not None:
                remaining.add_metric(where, gateway.status.session_starts.remaining)
        return shards, ready, grants, remaining


def registry(store: Store, *, gauges: Numbers, counters: Numbers, actions: Numbers) -> CollectorRegistry:
    """Make the operator's own registry."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    made.register(_OperatorCollector(store, gauges=gauges, counters=counters, actions=actions))
    return made


def render(made: CollectorRegistry) -> bytes:
    """Render all metrics as text."""
    return generate_latest(made)
