"""Spans of requests: whose trace they belong to, their stages, and their way to a real collector."""

from __future__ import annotations

import http.server
import queue
import threading
from itertools import pairwise
from typing import Any

import pytest
from starlette.testclient import TestClient

pytest.importorskip("opentelemetry.sdk", reason="pip install 'zoo[otel]'")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serve.core.batcher import Batcher
from serve.core.service import Limits, Service
from serve.core.slot import Engine, EngineInfo, Slot
from serve.models.models import Models, only
from serve.tracing import Tracing, open_tracing
from serve.web.app import app_of
from zoo.errors import ZooError

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def models_of(fake: Any) -> Models:
    runner = fake()
    batcher = Batcher([runner], queue_capacity=8, max_batch_size=8)
    info = EngineInfo(artifact="fake.onnx", backend=runner.backend, device=runner.device)
    limits = Limits(max_body_bytes=10**6, timeout_s=60.0, max_in_flight=8, decode_threads=1, drain_s=1.0)
    return only(Service(Slot(Engine(batcher=batcher, contract=runner.contract, info=info)), limits))


@pytest.mark.parametrize("path", ["/predict", "/v2/models/fake/infer"])
def test_a_request_is_a_span_of_the_clients_trace_with_its_stages(fake: Any, path: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    models = models_of(fake)
    with TestClient(app_of(models, tracing=Tracing(provider))) as client:
        models.default.engine.batcher.warmed.result(60)
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "Content-Type": "image/png"}
        assert client.post(path, content=fake.png(3), headers=headers).status_code == 200
        assert client.post(path, content=b"no picture", headers=headers).status_code == 400
    *stages, request, refused = exporter.get_finished_spans()
    assert {span.name for span in stages} <= {"decode", "queue", "compute", "encode"}
    assert {"decode", "queue", "compute"} <= {span.name for span in stages}
    assert request.context.trace_id == int(TRACE, 16) and request.parent.span_id == int(PARENT, 16)
    assert request.name == f"POST {path.replace('fake', '{model}')}"
    assert dict(request.attributes)["http.response.status_code"] == 200
    assert dict(refused.attributes)["http.response.status_code"] == 400
    for before, after in pairwise(stages):
        assert before.end_time == after.start_time
    for span in stages:
        assert span.parent.span_id == request.context.span_id
        assert request.start_time <= span.start_time <= span.end_time <= request.end_time


def test_spans_reach_a_collector() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    came: queue.Queue[tuple[str, bytes]] = queue.Queue()

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.put((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        tracing = open_tracing(f"http://127.0.0.1:{collector.server_port}/")
        tracing.record(
            "POST /predict", {}, took_s=0.01, attributes={"http.route": "/predict"}, timings_ms={"queue_ms": 1}
        )
        tracing.close()
        path, body = came.get(timeout=60)
        collector.shutdown()
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert [span.name for span in resource.scope_spans[0].spans] == ["queue", "POST /predict"]


def test_what_is_no_address_is_told() -> None:
    with pytest.raises(ZooError, match="no address of a collector"):
        open_tracing("collector:4318")
