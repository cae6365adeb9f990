"""Owns the counters of `/metrics` that have Triton's names, so that dashboards made for it show this server too.

Names and meanings: Triton Inference Server, docs/user_guide/metrics.md. Times are sums in microseconds over requests.
prometheus_client would add `_total` to each name, so the lines are written here.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType

# Triton's words for what went wrong, by the status of ours.
REASONS: Mapping[int, str] = MappingProxyType({499: "CANCELED", 500: "BACKEND", 503: "REJECTED", 504: "REJECTED"})
EVERY_REASON = ("BACKEND", "CANCELED", "OTHER", "REJECTED")
VERSION = "1"

SUCCESS, FAILURE = "nv_inference_request_success", "nv_inference_request_failure"
COUNT, EXECUTIONS = "nv_inference_count", "nv_inference_exec_count"
PENDING = "nv_inference_pending_request_count"
REQUEST_US, QUEUE_US = "nv_inference_request_duration_us", "nv_inference_queue_duration_us"
INPUT_US, INFER_US = "nv_inference_compute_input_duration_us", "nv_inference_compute_infer_duration_us"
OUTPUT_US = "nv_inference_compute_output_duration_us"
HITS, MISSES = "nv_cache_num_hits_per_model", "nv_cache_num_misses_per_model"
HIT_US, MISS_US = "nv_cache_hit_duration_per_model", "nv_cache_miss_duration_per_model"
HELP: Mapping[str, str] = MappingProxyType(
    {
        SUCCESS: "Requests that were answered.",
        FAILURE: "Requests that were not, by Triton's reasons.",
        COUNT: "Pictures inferred.",
        EXECUTIONS: "Batches inferred.",
        REQUEST_US: "Requests from the first byte to the answer.",
        QUEUE_US: "Pictures in the queue.",
        INPUT_US: "Pictures being decoded.",
        INFER_US: "Pictures inside the engine, each with the whole time of its batch.",
        OUTPUT_US: "Answers being made of logits.",
    }
)
# Triton tells them only of a model that has a cache.
CACHE_HELP: Mapping[str, str] = MappingProxyType(
    {
        HITS: "Pictures whose answer was kept.",
        MISSES: "Pictures whose answer was not.",
        HIT_US: "Looking up what was found.",
        MISS_US: "Looking up what was not.",
    }
)


class TritonCounts:
    """Sums by name. Thread-safe: engines count from threads of their own."""

    def __init__(self, *, has_cache: bool = False) -> None:
        self._help = {**HELP, **(CACHE_HELP if has_cache else {})}
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._failures: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, *sums: tuple[str, float]) -> None:
        """Add to sums, by name."""
        with self._lock:
            for name, value in sums:
                self._sums[name] += value

    def add_failure(self, status: int) -> None:
        """Count a request that was not answered, by our HTTP status."""
        with self._lock:
            self._failures[REASONS.get(status, "OTHER")] += 1

    def sums(self) -> defaultdict[str, float]:
        """All of them as they are now."""
        with self._lock:
            return self._sums.copy()

    def lines(self, model: str, pending: int, version: str = VERSION) -> Iterator[str]:
        """All of it in Prometheus' text format."""
        escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        labels = f'model="{escaped}",version="{version}"'
        with self._lock:
            sums, failures = self._sums.copy(), self._failures.copy()
        for name, text in self._help.items():
            yield f"# HELP {name} {text}\n# TYPE {name} counter\n"
            if name == FAILURE:
                for reason in EVERY_REASON:
                    yield f'{name}{{{labels},reason="{reason}"}} {failures[reason]}\n'
            else:
                yield f"{name}{{{labels}}} {sums[name]:.0f}\n"
        yield f"# HELP {PENDING} Pictures that wait for the engine.\n# TYPE {PENDING} gauge\n"
        yield f"{PENDING}{{{labels}}} {pending}\n"
