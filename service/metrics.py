"""What a service counts and times, in Prometheus' format; with several processes, over all of them."""

from __future__ import annotations

import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # where processes of one service put their numbers together


class Metrics:
    """Requests, latencies by stage, waits, sizes of batches, tokens, errors."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "crosslens_requests", "Requests by route and status.", ("route", "status"), registry=registry
        )
        self._latency = Histogram(
            "crosslens_request_seconds", "Seconds that a request took.", ("route",), buckets=SECONDS, registry=registry
        )
        self._stages = Histogram(
            "crosslens_stage_seconds", "Seconds of the parts of a search.", ("stage",), buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self._waits = Histogram(
            "crosslens_wait_seconds", "The longest wait in a batch.", ("work",), buckets=SECONDS, registry=registry
        )
        self._batches = Histogram(
            "crosslens_batch_jobs", "Jobs that were done together.", ("work",), buckets=SIZES, registry=registry
        )
        self._busy = Histogram(
            "crosslens_batch_seconds", "Seconds that a batch took.", ("work",), buckets=SECONDS, registry=registry
        )
        self._tokens = Counter("crosslens_tokens", "Tokens that models read.", ("work",), registry=registry)
        self._open = Gauge(
            "crosslens_requests_open", "Requests under way.", registry=registry, multiprocess_mode="livesum"
        )
        self._waiting = Gauge(
            "crosslens_jobs_waiting", "Jobs that have not begun.", ("worker",), registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip

    def watch_batches(self, work: str) -> Callable[[int, int, float, float], None]:
        """What is told of each batch of a kind of work (`workers.WorkKind.seen`)."""
        sizes, waits, busy = (each.labels(work) for each in (self._batches, self._waits, self._busy))

        def watch(jobs: int, cost: int, wait: float, seconds: float) -> None:
            sizes.observe(jobs)
            waits.observe(wait)
            busy.observe(seconds)

        return watch

    def watch_stage(self, stage: str, seconds: float) -> None:
        """A part of a search took so long."""
        self._stages.labels(stage).observe(seconds)

    def watch_request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, status).inc()
        self._latency.labels(route).observe(seconds)

    def watch_queues(self, requests: int, waiting: dict[str, int]) -> None:
        """How much is under way now."""
        self._open.set(requests)
        for worker, number in waiting.items():
            self._waiting.labels(worker).set(number)

    def count_tokens(self, work: str, tokens: int) -> None:
        """Tokens that were read."""
        self._tokens.labels(work).inc(tokens)

    def write(self) -> bytes:
        """All of it as text."""
        if SHARED not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)
        return generate_latest(together)
