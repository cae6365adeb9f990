"""Owns what `/metrics` shows, in its own registry; it decides nothing and keeps no picture.

docs/serving.md lists the metrics. Labels take their values from tables of ours (routes, and the reasons of
serve/core/failures.py), never from a client, so the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from serve.core import triton_names as names
from serve.core.failures import FAILURES, Failure
from serve.core.triton_names import TritonCounts

CONTENT_TYPE = CONTENT_TYPE_LATEST
# 0.5 ms (a small network on a large GPU) to 10 s (the default time of a request), about three buckets per decade.
SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters, gauges and histograms of one server. Its arguments are called whenever `/metrics` is read."""

    def __init__(
        self,
        engine: Callable[[], Mapping[str, str]],
        *,
        queue_depth: Callable[[], float],
        in_flight: Callable[[], float],
        ready: Callable[[], float],
        restarts: Callable[[], float],
        has_cache: bool = False,
    ) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("zoo_requests", "Answers by route and status.", ["path", "status"], registry=registry)
        self.pictures = Counter("zoo_pictures", "Pictures classified.", registry=registry)
        self.rejected = Counter("zoo_rejected", "Requests without a prediction.", ["reason"], registry=registry)
        self.batch_size = Histogram(
            "zoo_batch_size", "Pictures per inference.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.decode_s = _seconds("decode", "From body to prepared picture, the wait for a thread included.", registry)
        self.queue_s = _seconds("queue", "From prepared picture to the start of its batch.", registry)
        self.compute_s = _seconds("compute", "One inference of one batch.", registry)
        self.total_s = _seconds("total", "From request to prediction, the upload included.", registry)
        for name, text, value in (
            ("queue_depth", "Pictures waiting for a runner.", queue_depth),
            ("in_flight", "Requests being read, decoded, queued or computed.", in_flight),
            ("restarts", "How often an instance of the engine was opened again.", restarts),
            ("ready", "1 when warm and not draining, as /readyz.", ready),
        ):
            Gauge(f"zoo_{name}", text, registry=registry).set_function(value)
        self.triton = TritonCounts(has_cache=has_cache)
        self._queue_depth = queue_depth
        self._engine = engine
        self._engine_info = Gauge("zoo_engine_info", "What is served.", list(engine()), registry=registry)
        for failure in FAILURES:
            self.rejected.labels(failure.reason)  # shown as 0 from the start, so that an alert's rate has a first value

    def observe_batch(self, batch_size: int, compute_s: float) -> None:
        """Count one inference."""
        self.batch_size.observe(batch_size)
        self.compute_s.observe(compute_s)
        infer_us = batch_size * compute_s * 1e6
        self.triton.add((names.COUNT, batch_size), (names.EXECUTIONS, 1), (names.INFER_US, infer_us))

    def observe_request(self, took_s: float, failed: Failure | None = None) -> None:
        """Count one request for a prediction, answered or not."""
        if failed is None:
            self.triton.add((names.SUCCESS, 1), (names.REQUEST_US, took_s * 1e6))
        else:
            self.rejected.labels(failed.reason).inc()
            self.triton.add_failure(failed.status)

    def observe_look_up(self, found: bool, took_s: float) -> None:
        """Count a picture whose answer was looked for among those that are kept."""
        count, duration = (names.HITS, names.HIT_US) if found else (names.MISSES, names.MISS_US)
        self.triton.add((count, 1), (duration, took_s * 1e6))

    def look_ups(self) -> dict[str, dict[str, int]]:
        """Count and duration of those that found something and of the others, by the words of the statistics."""
        sums = self.triton.sums()
        return {
            what: {"count": round(sums[count]), "ns": round(sums[duration_us] * 1000)}
            for what, count, duration_us in (
                ("cache_hit", names.HITS, names.HIT_US),
                ("cache_miss", names.MISSES, names.MISS_US),
            )
        }

    def observe_prediction(
        self, *, decode_ms: float, queue_ms: float, total_ms: float, encode_ms: float = 0.0, was_kept: bool = False
    ) -> None:
        """Count one answered picture; one whose answer was kept was neither decoded nor queued."""
        self.pictures.inc()
        self.total_s.observe(total_ms / 1000.0)
        if not was_kept:
            self.decode_s.observe(decode_ms / 1000.0)
            self.queue_s.observe(queue_ms / 1000.0)
        self.triton.add(
            (names.INPUT_US, decode_ms * 1000.0),
            (names.QUEUE_US, queue_ms * 1000.0),
            (names.OUTPUT_US, encode_ms * 1000.0),
        )

    def render(self) -> bytes:
        """Everything in Prometheus' text format, of `CONTENT_TYPE`."""
        self._note_engine()
        triton = self.triton.lines(self._engine()["model"], int(self._queue_depth()))
        return generate_latest(self._registry) + "".join(triton).encode()

    def collect(self) -> Iterable[Metric]:
        """Everything, family by family."""
        self._note_engine()
        return self._registry.collect()

    def triton_lines(self, model: str, version: str) -> Iterator[str]:
        """The counters that have Triton's names, of a model and a version."""
        return self.triton.lines(model, int(self._queue_depth()), version)

    def _note_engine(self) -> None:
        self._engine_info.clear()  # another engine may have been put to work
        self._engine_info.labels(**self._engine()).set(1)


def _seconds(stage: str, text: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(f"zoo_{stage}_seconds", text, buckets=SECONDS_BUCKETS, registry=registry)
