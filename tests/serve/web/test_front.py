"""The short way of predictions answers as the framework's way does: the same status, headers, body and counts."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from serve.core.batcher import Batcher
from serve.core.service import Limits, Service
from serve.core.slot import Engine, EngineInfo, Slot
from serve.keys import EVERYBODY, Keyring, read_keys
from serve.models.models import only
from serve.web.access import ACCESS
from serve.web.app import app_of

PATIENCE_S = 60.0
INFER = "/v2/models/fake/infer"
KEY = "u" * 22
PIXELS = bytes([7]) * 192


def head(**changes: Any) -> bytes:
    given = {"name": "pictures", "shape": [1, 8, 8, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 192}}
    return json.dumps({"inputs": [given | changes]}).encode()


def binary(text: bytes, raw: bytes = PIXELS, **headers: str) -> dict[str, Any]:
    length = {"Inference-Header-Content-Length": str(len(text))}
    return {"url": INFER, "content": text + raw, "headers": length | headers}


def form(png: bytes) -> dict[str, Any]:
    return {"url": "/predict", "files": {"file": ("a.png", png, "image/png")}}


def asked(png: bytes) -> dict[str, dict[str, Any]]:
    """Every kind of request for a prediction, good and bad, by what is odd about it."""
    return {
        "a picture": {"url": "/predict", "content": png},
        "its type": {"url": "/predict", "content": png, "headers": {"content-type": "image/png"}},
        "top": {"url": "/predict?top=2", "content": png},
        "a slash": {"url": "/predict/", "content": png},
        "no top": {"url": "/predict?top=none", "content": png},
        "a model": {"url": "/predict?model=fake", "content": png},
        "no such model": {"url": "/predict?model=other", "content": png},
        "a form": form(png),
        "compressed": {"url": "/predict", "content": gzip.compress(png), "headers": {"content-encoding": "gzip"}},
        "badly compressed": {"url": "/predict", "content": png, "headers": {"content-encoding": "gzip"}},
        "no picture": {"url": "/predict", "content": b"hello"},
        "empty": {"url": "/predict", "content": b""},
        "json": {"url": "/predict", "json": {"a": 1}},
        "too large": {"url": "/predict", "content": b"x" * 5001},
        "from elsewhere": {"url": "/predict", "content": png, "headers": {"sec-fetch-site": "cross-site"}},
        "GET": {"method": "GET", "url": "/predict"},
        "an odd id": {"url": "/predict", "content": png, "headers": {"x-request-id": "two words"}},
        "a tensor": binary(head()),
        "the same head": binary(head()),
        "a version": binary(head()) | {"url": "/v2/models/fake/versions/1/infer"},
        "no such version": binary(head()) | {"url": "/v2/models/fake/versions/2/infer"},
        "no such name": binary(head()) | {"url": "/v2/models/other/infer"},
        "no name": binary(head()) | {"url": "/v2/models//infer"},
        "an encoded name": binary(head()) | {"url": "/v2/models/f%61ke/infer"},
        "a longer path": binary(head()) | {"url": "/v2/models/fake/infer/more"},
        "one picture without its batch": binary(head(shape=[8, 8, 3])),
        "another shape": binary(head(shape=[1, 192])),
        "another type": binary(head(datatype="INT8")),
        "another name": binary(head(name="x")),
        "bytes missing": binary(head(), PIXELS[:-1]),
        "bytes too many": binary(head(), PIXELS + b"x"),
        "no JSON": binary(b"{"),
        "a length that is none": binary(head(), **{"Inference-Header-Content-Length": "x"}),
        "raw": binary(b""),
        "numbers": {"url": INFER, "json": {"inputs": [{**json.loads(head(parameters={}))["inputs"][0],
                    "data": list(PIXELS)}]}},
        "a file": {"url": INFER, "content": png, "headers": {"content-type": "image/png"}},
        "GET of infer": {"method": "GET", "url": INFER},
    }  # fmt: skip


def client_of(fake: Any, *, has_shortcuts: bool, keys: Keyring = EVERYBODY) -> TestClient:
    runner = fake()
    batcher = Batcher([runner], queue_capacity=8, max_batch_size=8)
    info = EngineInfo(artifact="fake.onnx", backend=runner.backend, device=runner.device)
    limits = Limits(max_body_bytes=5000, timeout_s=PATIENCE_S, max_in_flight=8, decode_threads=1, drain_s=1.0)
    service = Service(Slot(Engine(batcher=batcher, contract=runner.contract, info=info)), limits)
    client = TestClient(app_of(only(service), keys=keys, has_shortcuts=has_shortcuts), raise_server_exceptions=False)
    client.__enter__()
    batcher.warmed.result(PATIENCE_S)
    return client


@pytest.fixture(scope="module")
def both(fake: Any) -> Iterator[tuple[TestClient, TestClient]]:
    clients = client_of(fake, has_shortcuts=True), client_of(fake, has_shortcuts=False)
    yield clients
    for client in clients:
        client.__exit__(None, None, None)


def told(reply: httpx.Response) -> tuple[Any, ...]:
    """All that a client sees, without what is another time or id at every request."""
    body: Any = reply.content
    headers = dict(reply.headers)
    if "timings_ms" in reply.text:
        body = reply.json()
        body["timings_ms"] = list(body["timings_ms"])
        del headers["content-length"]
    headers["server-timing"] = [part.partition("=")[0] for part in headers.get("server-timing", "").split(",")]
    headers["x-request-id"] = len(headers["x-request-id"])
    return reply.status_code, list(headers.items()), body


@pytest.mark.parametrize("odd", asked(b""))
def test_both_ways_answer_alike(both: tuple[TestClient, TestClient], fake: Any, odd: str) -> None:
    request = {"method": "POST"} | asked(fake.png(7))[odd]
    short, long = (told(client.request(**request)) for client in both)
    assert short == long


def test_both_ways_count_alike(both: tuple[TestClient, TestClient], fake: Any) -> None:
    for client in both:
        for request in asked(fake.png(7)).values():
            client.request(**({"method": "POST"} | request))
    counts = [
        {
            line
            for line in client.get("/metrics").text.splitlines()
            if line.startswith(("zoo_requests_total", "zoo_rejected_total", "zoo_pictures_total", "nv_inference_count"))
        }
        for client in both
    ]
    assert counts[0] == counts[1]
    assert any('path="/predict",status="413"' in line for line in counts[0])
    assert any('path="/v2/models/{model}/infer",status="200"' in line for line in counts[0])


def test_both_ways_are_logged_alike(
    both: tuple[TestClient, TestClient], fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="serve.web.access"):
        for client in both:
            client.post("/predict/", content=fake.png(7), headers={"x-request-id": "one"})
    short, long = (getattr(record, ACCESS) for record in caplog.records)
    assert list(short) == list(long)
    same = ("method", "path", "status", "batch_size", "client", "id")
    assert [short[name] for name in same] == [long[name] for name in same] != []
    assert (short["path"], short["id"]) == ("/predict/", "one")


@pytest.mark.parametrize("url", ["/predict", INFER])
@pytest.mark.parametrize("key", ["", "x" * 22, KEY])
def test_both_ways_ask_for_a_key(fake: Any, url: str, key: str) -> None:
    keys = read_keys(None, {"ZOO_SERVE_KEYS": f"predict {KEY}"})
    clients = [client_of(fake, has_shortcuts=way, keys=keys) for way in (True, False)]
    headers = {"x-api-key": key, "content-type": "image/png"}
    short, long = (told(client.post(url, content=fake.png(7), headers=headers)) for client in clients)
    for client in clients:
        client.__exit__(None, None, None)
    assert short == long
    assert short[0] == (200 if key == KEY else 401)


def test_both_ways_answer_a_fault_of_ours_alike(
    both: tuple[TestClient, TestClient], fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("serve.web.app.check_media_type", fail)
    short, long = (told(client.post("/predict", content=fake.png(7))) for client in both)
    assert short == long
    assert short[0] == 500
    assert b"The server made a mistake." in short[2]
