"""The protocol's routes on a real server, by hand: what each answers, and what it says of wrong requests."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from export.contract import Contract, Form
from export.interface import as_input
from zoo.model.spec import Preprocessing

INFER = "/v2/models/fake/infer"
Start = Callable[..., Any]


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def tensor(*filled: int) -> dict[str, Any]:
    """Pictures of 8 × 8 that are each filled with one byte, as JSON."""
    pictures = np.stack([np.full((8, 8, 3), byte, np.uint8) for byte in filled])
    return {"name": "pictures", "datatype": "UINT8", "shape": [*pictures.shape], "data": pictures.ravel().tolist()}


def refused(reply: httpx.Response, status: int) -> str:
    """Check that an error has the protocol's form: one text."""
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error"}
    error = reply.json()["error"]
    assert isinstance(error, str) and error
    return error


def binary(fields: dict[str, Any], *tensors: bytes) -> tuple[bytes, dict[str, str]]:
    """A body and headers of JSON with tensors behind it."""
    text = json.dumps(fields).encode()
    return b"".join([text, *tensors]), {"Inference-Header-Content-Length": str(len(text))}


def test_health_has_no_body(server: Any) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/fake/ready", "/v2/models/fake/versions/1/ready"):
        reply = server.client.get(path)
        assert (reply.status_code, reply.content) == (200, b"")


def test_a_server_that_warms_up_is_live_and_not_ready(start_server: Start, fake: Any) -> None:
    runner = fake()
    runner.warm_gate.clear()
    running = start_server(runner, wait_until_warm=False)
    assert running.client.get("/v2/health/live").status_code == 200
    assert running.client.get("/v2/health/ready").status_code == 400
    assert running.client.get("/v2/models/fake/ready").status_code == 400
    assert "warming up" in refused(running.client.post(INFER, json={"inputs": [tensor(1)]}), 503)


def test_metadata_and_config_say_what_the_contract_says(server: Any) -> None:
    metadata = server.client.get("/v2/models/fake").json()
    assert metadata["inputs"] == [{"name": "pictures", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]
    assert (metadata["name"], metadata["versions"]) == ("fake", ["1"])
    config = server.client.get("/v2/models/fake/config").json()
    assert config["max_batch_size"] == 8
    assert config["input"][0]["dims"] == [8, 8, 3]
    assert config["output"][0]["data_type"] == "TYPE_FP32"
    assert isinstance(server.client.get("/v2").json()["extensions"], list)


def test_json_tensors_come_back_as_json(server: Any, fake: Any) -> None:
    reply = server.client.post(INFER, json={"id": "ten", "inputs": [tensor(42, 7)]})
    answer = reply.json()
    assert reply.headers["content-type"] == "application/json"
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("ten", "fake", "1")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [2, 10])
    expected = np.concatenate([fake.logits_of(42), fake.logits_of(7)])
    assert np.array_equal(np.array(output["data"], np.float32), expected)
    assert "compute;dur=" in reply.headers["server-timing"]


def test_nested_data_is_the_same(server: Any) -> None:
    flat = tensor(42, 7)
    nested = flat | {"data": np.array(flat["data"]).reshape(flat["shape"]).tolist()}
    answers = [server.client.post(INFER, json={"inputs": [given]}).json()["outputs"] for given in (flat, nested)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_binary_tensors_go_and_come_behind_the_json(server: Any, fake: Any, encoding: str) -> None:
    raw = np.full((1, 8, 8, 3), 42, np.uint8).tobytes()
    given = {"name": "pictures", "datatype": "UINT8", "shape": [1, 8, 8, 3], "parameters": {"binary_data_size": 192}}
    body, headers = binary({"inputs": [given], "parameters": {"binary_data_output": True}}, raw)
    compress: Callable[[bytes], bytes] = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)
    reply = server.client.post(INFER, content=compress(body), headers=headers | {"Content-Encoding": encoding})
    length = int(reply.headers["inference-header-content-length"])
    (output,) = json.loads(reply.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 40}
    assert np.array_equal(np.frombuffer(reply.content[length:], "<f4"), fake.logits_of(42))


def test_without_json_the_body_is_the_tensor(server: Any, fake: Any) -> None:
    raw = np.full((2, 8, 8, 3), 42, np.uint8).tobytes()
    reply = server.client.post(INFER, content=raw, headers={"Inference-Header-Content-Length": "0"})
    length = int(reply.headers["inference-header-content-length"])
    assert np.array_equal(np.frombuffer(reply.content[length : length + 40], "<f4"), fake.logits_of(42))
    refused(server.client.post(INFER, content=raw[1:], headers={"Inference-Header-Content-Length": "0"}), 400)


def test_encoded_pictures_are_decoded_here(server: Any, fake: Any) -> None:
    data = [base64.b64encode(fake.png(byte)).decode() for byte in (3, 9)]
    given = {"name": "pictures", "datatype": "BYTES", "shape": [2], "data": data}
    (output,) = server.client.post(INFER, json={"inputs": [given]}).json()["outputs"]
    assert np.array_equal(np.array(output["data"], np.float32), np.concatenate([fake.logits_of(3), fake.logits_of(9)]))
    alone = server.client.post(INFER, content=fake.png(3), headers={"Content-Type": "image/png"}).json()
    assert alone["outputs"][0]["data"] == output["data"][:10]


def test_one_broken_picture_of_several_is_told(server: Any, fake: Any) -> None:
    data = [base64.b64encode(body).decode() for body in (fake.png(3), b"no picture")]
    given = {"name": "pictures", "datatype": "BYTES", "shape": [2, 1], "data": data}
    assert "picture" in refused(server.client.post(INFER, json={"inputs": [given]}), 400)


def test_classification_names_the_best_classes(server: Any) -> None:
    outputs = [{"name": "logits", "parameters": {"classification": 2}}]
    reply = server.client.post(INFER, json={"inputs": [tensor(42)], "outputs": outputs}).json()
    (output,) = reply["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    assert output["data"] == ["3.656250:2:c", "1.000000:9:j"]


def test_statistics_count_requests_pictures_and_batches(start_server: Start) -> None:
    running = start_server()
    assert running.client.post(INFER, json={"inputs": [tensor(1, 2, 3)]}).status_code == 200
    assert running.client.post(INFER, json={"inputs": []}).status_code == 400
    (stats,) = running.client.get("/v2/models/fake/stats").json()["model_stats"]
    assert stats["inference_count"] == 3
    assert stats["inference_stats"]["success"]["count"] == 1
    assert stats["inference_stats"]["fail"]["count"] == 1
    assert sum(one["batch_size"] * one["compute_infer"]["count"] for one in stats["batch_stats"]) == 3
    assert running.client.get("/v2/models/stats").json()["model_stats"] == [stats]
    assert running.metric("zoo_pictures_total") == 3


def test_predictions_are_counted_as_inferences_too(start_server: Start, fake: Any) -> None:
    running = start_server()
    running.post(fake.png(3))
    running.post(b"no picture")
    (stats,) = running.client.get("/v2/models/stats").json()["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (1, 1)
    assert stats["inference_stats"]["fail"]["count"] == 1


def test_the_time_of_a_request_is_the_clients_to_shorten(start_server: Start, fake: Any) -> None:
    running = start_server(max_batch_size=1)
    running.runner.hold()
    late = running.client.post(INFER, json={"inputs": [tensor(1)], "parameters": {"timeout": 1000}})
    assert "time" in refused(late, 504)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"inputs": []}, "has none"),
        ({"inputs": [tensor(1) | {"name": "planes"}]}, "'planes'"),
        ({"inputs": [tensor(1), tensor(1)]}, "named twice"),
        ({"inputs": [tensor(1) | {"datatype": "FP32"}]}, "not FP32"),
        ({"inputs": [tensor(1) | {"datatype": "BYTES", "shape": [1], "data": ["=="]}]}, "base64"),
        ({"inputs": [tensor(1) | {"shape": [1, 8, 8]}]}, "cannot have the shape"),
        ({"inputs": [tensor(1) | {"shape": [1, 8, 8, -3]}]}, "not one of a tensor"),
        ({"inputs": [tensor(1) | {"shape": [2, 8, 8, 3]}]}, "384 values, not 192"),
        ({"inputs": [tensor(1) | {"shape": [True, 8, 8, 3]}]}, "whole numbers"),
        ({"inputs": [tensor(1) | {"shape": "all"}]}, "expected a JSON list"),
        ({"inputs": [tensor(*range(1, 10))]}, "1 to 8 pictures, not 9"),
        ({"inputs": [tensor(1) | {"data": [256] * 192}]}, "outside 0 … 255"),
        ({"inputs": [tensor(1) | {"data": [0.5] * 192}]}, "not UINT8 throughout"),
        ({"inputs": [tensor(1) | {"data": [2**80] * 192}]}, "not UINT8"),
        ({"inputs": [tensor(1) | {"data": [[1], [1, 2]]}]}, "ragged"),
        ({"inputs": [tensor(1) | {"parameters": {"binary_data_size": 7}}]}, "two places"),
        ({"inputs": [without(tensor(1), "data") | {"parameters": {"binary_data_size": 7}}]}, "bytes are left"),
        ({"inputs": [tensor(1) | {"parameters": {"shared_memory_region": "a"}}]}, "byte_size"),
        ({"inputs": [7]}, "list of JSON objects"),
        ({"inputs": [tensor(1)], "outputs": [{"name": "labels"}]}, "no output 'labels'"),
        ({"inputs": [tensor(1)], "outputs": [{"name": "logits", "parameters": {"classification": -1}}]}, "from 0 on"),
        ({"inputs": [tensor(1)], "outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"inputs": [tensor(1)], "parameters": {"sequence_id": 3}}, "sequence_id"),
        ({"inputs": [tensor(1)], "id": 3}, "expected a JSON text"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(server: Any, changed: dict[str, Any], said: str) -> None:
    assert said in refused(server.client.post(INFER, json=changed), 400)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"[1]", {}, 400),
        (b"{", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b'{"inputs": NaN}', {}, 400),
        (b"{}", {"Inference-Header-Content-Length": "3"}, 400),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, 400),
        (b"{}", {"Content-Encoding": "br"}, 415),
        (b"{}", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0)[:-4], {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0) + b"x", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(bytes(2_000_000), mtime=0), {"Content-Encoding": "gzip"}, 413),
        (bytes(1_000_001), {}, 413),
    ],
)
def test_a_body_that_is_none_of_the_protocol(server: Any, body: bytes, headers: dict[str, str], status: int) -> None:
    refused(server.client.post(INFER, content=body, headers=headers), status)


@pytest.mark.parametrize(
    "path", ["/v2/models/nope", "/v2/models/nope/infer", "/v2/models/fake/versions/2", "/v2/models/..%2Ffake", "/v2/x"]
)
def test_what_is_not_there_is_404(server: Any, path: str) -> None:
    method = "POST" if path.endswith("infer") else "GET"
    refused(server.client.request(method, path), 404)


def test_an_artifact_that_takes_planes_is_sent_planes(start_server: Start, fake: Any) -> None:
    contract = Contract(
        model="fake",
        classes=tuple("abcdefghij"),
        preprocessing=Preprocessing(image_size=8),
        form=Form(input="float", topk=2),
    )
    seen: list[Any] = []

    class Planes(fake):  # type: ignore[misc]
        def infer(self, pictures: Any) -> Any:
            seen.append(pictures)
            return np.stack([self.logits_of(42)] * len(pictures))

    running = start_server(Planes(contract=contract))
    planes = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    given = {"name": "planes", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": planes.ravel().tolist()}
    outputs = running.client.post(INFER, json={"inputs": [given]}).json()["outputs"]
    assert np.array_equal(seen[-1], planes)
    assert {one["name"]: one["shape"] for one in outputs} == {
        "logits": [1, 10],
        "top_scores": [1, 2],
        "top_classes": [1, 2],
    }
    assert outputs[2]["data"] == [2, 9]
    # A picture's file is decoded, prepared and normalised as the planes of the protocol are expected to be.
    assert running.post(fake.png(42)).status_code == 200
    picture = np.full((1, 8, 8, 3), 42, np.uint8)
    assert np.array_equal(seen[-1], as_input(picture, contract))
    broken = {"inputs": [given | {"data": [1e39] + [0.0] * 191}]}
    assert "not finite" in refused(running.client.post(INFER, json=broken), 400)
    raw = np.full((1, 3, 8, 8), np.nan, np.float32).tobytes()
    body, headers = binary({"inputs": [given | {"parameters": {"binary_data_size": len(raw)}}]}, raw)
    del given["data"]
    body, headers = binary({"inputs": [given | {"parameters": {"binary_data_size": len(raw)}}]}, raw)
    assert "not finite" in refused(running.client.post(INFER, content=body, headers=headers), 400)
