"""`--cache-mb` on real requests: what is answered from earlier ones, to whom, and until when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from serve.core.batcher import Batcher
from serve.core.service import Limits, Service
from serve.core.slot import Engine, EngineInfo, Slot
from serve.keys import EVERYBODY, Keyring, read_keys
from serve.models.models import Models, only
from serve.web.app import app_of

PATIENCE_S = 60.0
MINE, YOURS = "m" * 22, "y" * 22
INFER = "/v2/models/fake/infer"


def engine_of(runner: Any) -> Engine:
    batcher = Batcher([runner], queue_capacity=8, max_batch_size=8)
    info = EngineInfo(artifact="fake.onnx", backend=runner.backend, device=runner.device)
    return Engine(batcher=batcher, contract=runner.contract, info=info)


def serve(runner: Any, keys: Keyring = EVERYBODY, cache_bytes: int = 10_000) -> Iterator[tuple[TestClient, Models]]:
    limits = Limits(
        max_body_bytes=10**6,
        timeout_s=PATIENCE_S,
        max_in_flight=8,
        decode_threads=1,
        drain_s=1.0,
        cache_bytes=cache_bytes,
    )
    models = only(Service(Slot(engine_of(runner)), limits))
    with TestClient(app_of(models, keys=keys)) as client:
        models.default.engine.batcher.warmed.result(PATIENCE_S)
        yield client, models


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.partition(" ")[0].partition("{")[0] == name)


def tensor(*filled: int) -> dict[str, Any]:
    pictures = np.stack([np.full((8, 8, 3), byte, np.uint8) for byte in filled])
    return {"name": "pictures", "datatype": "UINT8", "shape": [*pictures.shape], "data": pictures.ravel().tolist()}


def test_a_picture_that_comes_again_is_not_computed_again(fake: Any) -> None:
    runner = fake()
    for client, _ in serve(runner):
        first = client.post("/predict?top=2", content=fake.png(3)).json()
        again = client.post("/predict", content=fake.png(3)).json()  # another top, of the same outputs
        other = client.post("/predict", content=fake.png(4)).json()
        assert (first["batch_size"], again["batch_size"], other["batch_size"]) == (1, 0, 1)
        assert again["predictions"][:2] == first["predictions"] and len(again["predictions"]) == 5
        assert again["timings_ms"]["compute"] == again["timings_ms"]["decode"] == 0.0
        assert runner.batches == [[3], [4]]
        assert metric(client, "nv_cache_num_hits_per_model") == 1
        assert metric(client, "nv_cache_num_misses_per_model") == 2
        assert metric(client, "nv_cache_miss_duration_per_model") > 0
        assert metric(client, "nv_inference_request_success") == 3
        assert metric(client, "nv_inference_count") == 2
        assert metric(client, "zoo_pictures_total") == 3
        assert metric(client, "zoo_queue_seconds_count") == 2
        (stats,) = client.get("/v2/models/fake/stats").json()["model_stats"]
        assert [stats["inference_stats"][each]["count"] for each in ("cache_hit", "cache_miss")] == [1, 2]
        assert (stats["inference_count"], stats["execution_count"]) == (2, 2)  # Triton's is of what was computed
        assert client.get("/info").json()["cache_bytes"] == 10_000


def test_of_a_batch_only_the_new_pictures_are_computed_and_the_order_stays(fake: Any) -> None:
    runner = fake()
    for client, _ in serve(runner):
        asked = {"inputs": [tensor(1, 2)]}
        first = client.post(INFER, json=asked).json()["outputs"][0]["data"]
        mixed = client.post(INFER, json={"inputs": [tensor(7, 2, 1)]}).json()["outputs"][0]["data"]
        assert sorted(byte for batch in runner.batches for byte in batch) == [1, 2, 7]
        assert mixed[10:] == first[10:] + first[:10]
        assert mixed[:10] == pytest.approx(fake.logits_of(7).tolist())


def test_nobody_is_given_what_was_computed_for_another_key(fake: Any) -> None:
    runner = fake()
    keys = read_keys(None, {"ZOO_SERVE_KEYS": f"predict {MINE},predict {YOURS}"})
    for client, _ in serve(runner, keys):
        sizes = [
            client.post("/predict", content=fake.png(3), headers={"X-API-Key": key}).json()["batch_size"]
            for key in (MINE, YOURS, MINE, YOURS)
        ]
        assert sizes == [1, 1, 0, 0]
        assert runner.batches == [[3], [3]]


def test_an_engine_that_takes_over_begins_with_nothing(fake: Any) -> None:
    old, new = fake(), fake()
    for client, models in serve(old):
        client.post("/predict", content=fake.png(3))
        engine = engine_of(new)
        engine.batcher.start()
        engine.batcher.warmed.result(PATIENCE_S)
        models.default.service.slot.swap(engine)
        sizes = [client.post("/predict", content=fake.png(3)).json()["batch_size"] for _ in range(2)]
        assert sizes == [1, 0]
        assert (old.batches, new.batches) == ([[3]], [[3]])


def test_failures_are_not_kept(fake: Any) -> None:
    runner = fake(fails_on=frozenset({3}))
    for client, _ in serve(runner):
        assert client.post("/predict", content=fake.png(3)).status_code == 500
        runner.fails_on = frozenset()
        assert client.post("/predict", content=fake.png(3)).json()["batch_size"] == 1


def test_without_a_cache_nothing_is_told_of_one(fake: Any) -> None:
    runner = fake()
    for client, _ in serve(runner, cache_bytes=0):
        for _ in range(2):
            assert client.post("/predict", content=fake.png(3)).json()["batch_size"] == 1
        assert "nv_cache" not in client.get("/metrics").text
