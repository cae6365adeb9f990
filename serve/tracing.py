"""Owns traces: a span for every request and one for each of its stages, sent by OpenTelemetry; it measures nothing.

A client's `traceparent` (W3C Trace Context) makes them part of its trace. Names and attributes are those of
OpenTelemetry's semantic conventions for HTTP and RPC.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from zoo.errors import MissingCapabilityError, ZooError

# In the order of a request. What is left of its time, in front of them, is the upload.
STAGES = ("decode", "queue", "compute", "encode")
EXPORT_TIMEOUT_S = 5


class Tracing:
    """Makes spans with a provider of opentelemetry-sdk. Thread-safe, and never waits for the collector."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("zoo.serve")

    def record(
        self,
        name: str,
        headers: Mapping[str, str],
        *,
        took_s: float,
        attributes: Mapping[str, str | int],
        timings_ms: Mapping[str, float],
        failed: bool = False,
    ) -> None:
        """One request that has ended now, with the stages that `timings_ms` has as `decode_ms`, `queue_ms`, …."""
        from opentelemetry import trace
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, Status, StatusCode

        end_ns = time.time_ns()
        span = self._tracer.start_span(
            name,
            context=extract(headers),
            kind=SpanKind.SERVER,
            start_time=end_ns - round(took_s * 1e9),
            attributes=dict(attributes),
        )
        durations = {stage: timings_ms.get(f"{stage}_ms", 0.0) for stage in STAGES}
        at_ns = end_ns - round(sum(durations.values()) * 1e6)
        inside = trace.set_span_in_context(span)
        for stage, took_ms in durations.items():
            if took_ms:
                part = self._tracer.start_span(stage, context=inside, start_time=at_ns)
                at_ns += round(took_ms * 1e6)
                part.end(at_ns)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_ns)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def open_tracing(endpoint: str) -> Tracing:
    """Traces to a collector that takes OTLP over HTTP, at `endpoint`/v1/traces.

    Raises:
        MissingCapabilityError: OpenTelemetry is not installed. ZooError: no address.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise ZooError(f"{endpoint} is no address of a collector.", "--otlp http://127.0.0.1:4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingCapabilityError("Traces need OpenTelemetry.", "pip install 'zoo[otel]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "zoo"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)
