"""Prometheus metrics: what the HTTP side measures and what the engine counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from .run import Run

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_COUNTERS = {
    "prompt_tokens": "Prompt tokens of finished requests",
    "cached_tokens": "Prompt tokens found in the prefix cache",
    "completion_tokens": "Tokens emitted",
    "cycles": "Target passes that emitted tokens",
    "drafted": "Draft tokens verified",
    "accepted": "Draft tokens accepted",
    "passes": "Passes over rows of one or more requests, prompts not counted",
    "pass_rows": "Rows that they carried",
}
_GAUGES = {
    "running": "Requests being decoded",
    "queued": "Requests waiting",
    "memory_bytes": "Bytes that MLX holds",
    "peak_memory_bytes": "Most bytes that MLX held",
    "memory_limit_bytes": "Bytes that weights, scratch, caches and prefixes may take",
    "promised_bytes": "Bytes that running requests may come to need",
    "prefix_bytes": "Bytes of cached prefixes in memory",
    "prefix_disk_bytes": "Bytes of cached prefixes on disk",
}


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self, snapshot: Callable[[], dict[str, Any]]):
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(snapshot))
        self.requests = Counter("orthrus_http_requests", "HTTP requests", ("route", "status"), registry=self._registry)
        self._seconds = self._histogram("orthrus_request_seconds", "Wall time of answered requests")
        self._first_token = self._histogram("orthrus_first_token_seconds", "Time to the first token")

    def finished(self, run: Run, seconds: float) -> None:
        """Book a request that the engine worked on."""
        self._seconds.observe(seconds)
        if run.first_token is not None:
            self._first_token.observe(run.first_token - run.started)

    def exposition(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_SECONDS, registry=self._registry)


class _EngineCollector:
    def __init__(self, snapshot: Callable[[], dict[str, Any]]):
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """The engine's snapshot at the moment of a scrape."""
        snapshot = self._snapshot()
        finished = CounterMetricFamily(
            "orthrus_engine_requests", "Requests by how they ended", labels=("finish_reason",)
        )
        for reason, count in snapshot.pop("finished", {}).items():
            finished.add_metric((reason,), count)
        yield finished
        for name, value in snapshot.items():
            if name in _COUNTERS:
                yield CounterMetricFamily(f"orthrus_{name}", _COUNTERS[name], value=value)
            else:
                yield GaugeMetricFamily(f"orthrus_{name}", _GAUGES[name], value=value)
