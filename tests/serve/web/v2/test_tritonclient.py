"""Triton's own Python client, unchanged, against a real server of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

http = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'", exc_type=ImportError)


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    client = http.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


def test_the_client_sees_server_and_model(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("fake", "1")
    assert client.get_server_metadata()["name"] == "zoo"
    assert client.get_model_metadata("fake")["inputs"][0]["shape"] == [-1, 8, 8, 3]
    assert client.get_model_config("fake")["max_batch_size"] == 8
    assert client.get_inference_statistics("fake")["model_stats"][0]["name"] == "fake"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tensors_go_and_come(client: Any, fake: Any, binary: bool, compression: str | None) -> None:
    pictures = np.stack([np.full((8, 8, 3), byte, np.uint8) for byte in (42, 7)])
    given = http.InferInput("pictures", pictures.shape, "UINT8")
    given.set_data_from_numpy(pictures, binary_data=binary)
    wanted = [http.InferRequestedOutput("logits", binary_data=binary)]
    found = client.infer(
        "fake", [given], outputs=wanted, request_id="a1", request_compression_algorithm=compression, timeout=10_000_000
    )
    assert np.array_equal(found.as_numpy("logits"), [fake.logits_of(42), fake.logits_of(7)])
    assert found.get_response()["id"] == "a1"


def test_encoded_pictures_and_classes(client: Any, fake: Any) -> None:
    given = http.InferInput("pictures", [2], "BYTES")
    given.set_data_from_numpy(np.array([fake.png(3), fake.png(4)], object))
    found = client.infer("fake", [given], outputs=[http.InferRequestedOutput("logits", class_count=1)])
    assert [row[0].decode().split(":")[1:] for row in found.as_numpy("logits")] == [["3", "d"], ["4", "e"]]


def test_many_requests_at_once(client: Any, fake: Any, server: Any) -> None:
    with http.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=8) as several:
        waiting = []
        for byte in range(1, 33):
            given = http.InferInput("pictures", [1, 8, 8, 3], "UINT8")
            given.set_data_from_numpy(np.full((1, 8, 8, 3), byte, np.uint8))
            waiting.append((byte, several.async_infer("fake", [given])))
        for byte, answer in waiting:
            assert np.array_equal(answer.get_result().as_numpy("logits")[0], fake.logits_of(byte))


def test_an_error_is_the_clients_exception(client: Any) -> None:
    given = http.InferInput("pictures", [1, 8, 8, 4], "UINT8")
    given.set_data_from_numpy(np.zeros((1, 8, 8, 4), np.uint8))
    with pytest.raises(http.InferenceServerException, match=r"cannot have the shape \[1, 8, 8, 4\]"):
        client.infer("fake", [given])
    with pytest.raises(http.InferenceServerException, match="no model 'nope'"):
        client.get_model_metadata("nope")
