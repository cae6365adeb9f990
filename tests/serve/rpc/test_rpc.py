"""Triton's own gRPC clients, unchanged, against a real gRPC server of ours; and the messages beside theirs."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("grpc", reason="pip install 'zoo[grpc]'")
client_of_triton = pytest.importorskip("tritonclient.grpc", reason="pip install tritonclient", exc_type=ImportError)

import grpc  # noqa: E402

from serve.core.batcher import Batcher  # noqa: E402
from serve.core.service import Limits, Service  # noqa: E402
from serve.core.slot import Engine, EngineInfo, Slot  # noqa: E402
from serve.keys import EVERYBODY, Keyring, read_keys  # noqa: E402
from serve.models.models import Models, only  # noqa: E402
from serve.rpc.schema import ENUMS, HEALTH, INFERENCE, health_class, message_class  # noqa: E402
from serve.rpc.server import grpc_server  # noqa: E402

PATIENCE_S = 60.0
KEY = "k" * 22


@dataclass
class Called:
    """A gRPC server in a thread with an event loop of its own."""

    runner: Any
    service: Service
    port: int
    models: Models


@pytest.fixture
def keys() -> Keyring:
    return EVERYBODY


@pytest.fixture
def called(fake: Any, keys: Keyring) -> Iterator[Called]:
    runner = fake()
    batcher = Batcher([runner], queue_capacity=64, max_batch_size=8)
    info = EngineInfo(artifact="fake.onnx", backend=runner.backend, device=runner.device)
    limits = Limits(max_body_bytes=100_000, timeout_s=PATIENCE_S, max_in_flight=100, decode_threads=2, drain_s=1.0)
    service = Service(Slot(Engine(batcher=batcher, contract=runner.contract, info=info)), limits)
    started: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    models = only(service)

    async def serve() -> None:
        stop = asyncio.Event()
        async with grpc_server(models, "127.0.0.1:0", max_body_bytes=100_000, drain_s=1.0, keys=keys) as port:
            started.put((port, asyncio.get_running_loop(), stop))
            await stop.wait()

    batcher.start()
    batcher.warmed.result(PATIENCE_S)
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, loop, stop = started.get(timeout=PATIENCE_S)
    yield Called(runner, service, port, models)
    runner.release()
    loop.call_soon_threadsafe(stop.set)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    service.drain()


@pytest.fixture
def client(called: Called) -> Iterator[Any]:
    with client_of_triton.InferenceServerClient(f"127.0.0.1:{called.port}") as client:
        yield client


def given(*filled: int) -> Any:
    pictures = np.stack([np.full((8, 8, 3), byte, np.uint8) for byte in filled])
    tensor = client_of_triton.InferInput("pictures", pictures.shape, "UINT8")
    tensor.set_data_from_numpy(pictures)
    return tensor


def test_the_client_sees_server_and_model(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("fake", "1")
    assert client.get_server_metadata().name == "zoo"
    assert list(client.get_model_metadata("fake").inputs[0].shape) == [-1, 8, 8, 3]
    config = client.get_model_config("fake").config
    assert (config.max_batch_size, list(config.input[0].dims), config.input[0].data_type) == (8, [8, 8, 3], 2)


def test_tensors_go_and_come(client: Any, fake: Any) -> None:
    found = client.infer("fake", [given(42, 7)], request_id="a1")
    assert np.array_equal(found.as_numpy("logits"), [fake.logits_of(42), fake.logits_of(7)])
    assert found.get_response().id == "a1"
    (stats,) = client.get_inference_statistics("fake").model_stats
    assert (stats.inference_count, stats.inference_stats.success.count) == (2, 1)


def test_encoded_pictures_and_classes(client: Any, fake: Any) -> None:
    tensor = client_of_triton.InferInput("pictures", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([fake.png(3), fake.png(4)], object))
    wanted = [client_of_triton.InferRequestedOutput("logits", class_count=1)]
    found = client.infer("fake", [tensor], outputs=wanted)
    assert [row[0].decode().split(":")[1:] for row in found.as_numpy("logits")] == [["3", "d"], ["4", "e"]]


def test_asyncio_client(called: Called, fake: Any) -> None:
    from tritonclient.grpc import aio

    async def ask() -> list[Any]:
        async with aio.InferenceServerClient(f"127.0.0.1:{called.port}") as client:
            return await asyncio.gather(*(client.infer("fake", [given(byte)]) for byte in range(1, 20)))

    for byte, found in enumerate(asyncio.run(ask()), 1):
        assert np.array_equal(found.as_numpy("logits")[0], fake.logits_of(byte))


def test_a_stream_answers_in_order_and_tells_errors(client: Any, fake: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for byte in range(1, 20):
        client.async_stream_infer("fake", [given(byte)], request_id=str(byte))
    client.async_stream_infer("nope", [given(1)])
    for byte in range(1, 20):
        found, error = answers.get(timeout=PATIENCE_S)
        assert error is None and found.get_response().id == str(byte)
        assert np.array_equal(found.as_numpy("logits")[0], fake.logits_of(byte))
    assert "no model 'nope'" in str(answers.get(timeout=PATIENCE_S)[1])
    client.stop_stream()


@pytest.mark.parametrize(
    ("tensor", "code", "said"),
    [
        (("planes", [1, 8, 8, 3], "UINT8"), "INVALID_ARGUMENT", "one input, pictures"),
        (("pictures", [1, 8, 8, 3], "FP32"), "INVALID_ARGUMENT", "not FP32"),
        (("pictures", [2, 8, 8, 3], "UINT8"), "INVALID_ARGUMENT", "384 bytes, and 192 came"),
        (("pictures", [-1, 8, 8, 3], "UINT8"), "INVALID_ARGUMENT", "not one of a tensor"),
    ],
)
def test_a_wrong_tensor_is_told(called: Called, tensor: tuple[str, list[int], str], code: str, said: str) -> None:
    name, shape, datatype = tensor
    request = message_class("ModelInferRequest")(model_name="fake", raw_input_contents=[bytes(192)])
    request.inputs.add(name=name, shape=shape, datatype=datatype)
    assert said in refused(called, request, code)


def test_typed_contents_are_taken_too(called: Called, fake: Any) -> None:
    request = message_class("ModelInferRequest")(model_name="fake")
    tensor = request.inputs.add(name="pictures", shape=[1, 8, 8, 3], datatype="UINT8")
    tensor.contents.uint_contents.extend([42] * 192)
    answer = infer(called, request)
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], "<f4"), fake.logits_of(42))
    request.raw_input_contents.extend([bytes(192), bytes(192)])
    assert "more tensors" in refused(called, request, "INVALID_ARGUMENT")
    tensor.contents.uint_contents[0] = 256
    del request.raw_input_contents[:]
    assert "outside 0 … 255" in refused(called, request, "INVALID_ARGUMENT")


def test_a_message_above_the_limit_is_refused(called: Called) -> None:
    request = message_class("ModelInferRequest")(model_name="fake", raw_input_contents=[bytes(200_000)])
    refused(called, request, "RESOURCE_EXHAUSTED")


def test_a_clients_deadline_ends_its_wait(called: Called, client: Any) -> None:
    called.runner.hold()
    with pytest.raises(client_of_triton.InferenceServerException, match="DEADLINE_EXCEEDED"):
        client.infer("fake", [given(1)], client_timeout=0.2)
    called.runner.release()
    assert client.infer("fake", [given(2)]).as_numpy("logits").shape == (1, 10)


def test_an_engine_that_hangs_holds_no_call_longer_than_its_time(called: Called, client: Any) -> None:
    called.runner.hold()
    with pytest.raises(client_of_triton.InferenceServerException, match="within the request's time"):
        client.infer("fake", [given(1)], timeout=200_000)
    assert called.service.in_flight == 0


def test_a_draining_server_is_unavailable(called: Called, client: Any) -> None:
    called.service.stop_accepting()
    assert not client.is_server_ready()
    with pytest.raises(client_of_triton.InferenceServerException, match="shutting down"):
        client.infer("fake", [given(1)])
    with grpc.insecure_channel(f"127.0.0.1:{called.port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_class("HealthCheckRequest").SerializeToString,
            response_deserializer=health_class("HealthCheckResponse").FromString,
        )
        assert check(health_class("HealthCheckRequest")(), timeout=PATIENCE_S).status == 2


def test_a_fault_of_ours_tells_the_client_nothing(called: Called, client: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("serve.rpc.service.model_metadata", lambda *_: 1 / 0)
    with pytest.raises(client_of_triton.InferenceServerException, match="made a mistake"):
        client.get_model_metadata("fake")


def test_outputs_in_shared_memory_leave_an_empty_place(called: Called, client: Any, fake: Any, tmp_path: Any) -> None:
    shm = pytest.importorskip("tritonclient.utils.shared_memory", exc_type=ImportError)
    with pytest.raises(client_of_triton.InferenceServerException, match="--allow-shared-memory"):
        client.get_system_shared_memory_status()
    called.models.regions.allowed = True
    handle = shm.create_shared_memory_region("both", f"/zoo-grpc-{os.getpid()}", 1000)
    try:
        shm.set_shared_memory_region(handle, [np.full((1, 8, 8, 3), 42, np.uint8)])
        client.register_system_shared_memory("both", f"/zoo-grpc-{os.getpid()}", 1000)
        assert client.get_system_shared_memory_status().regions["both"].byte_size == 1000
        tensor = client_of_triton.InferInput("pictures", [1, 8, 8, 3], "UINT8")
        tensor.set_shared_memory("both", 192)
        wanted = client_of_triton.InferRequestedOutput("logits")
        wanted.set_shared_memory("both", 40, offset=500)
        found = client.infer("fake", [tensor], outputs=[wanted]).get_response()
        assert list(found.raw_output_contents) == [b""]
        assert np.array_equal(shm.get_contents_as_numpy(handle, np.float32, [10], offset=500), fake.logits_of(42))
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
    finally:
        shm.destroy_shared_memory_region(handle)


@pytest.mark.parametrize("keys", [read_keys(None, {"ZOO_SERVE_KEYS": f"predict {KEY}"})])
def test_without_a_key_only_health_is_told(client: Any, fake: Any) -> None:
    unknown = client_of_triton.InferenceServerException
    assert client.is_server_live() and client.is_server_ready()
    for call in (
        client.get_server_metadata,
        client.get_inference_statistics,
        client.get_model_repository_index,
        lambda: client.is_model_ready("fake"),
        lambda: client.infer("fake", [given(1)]),
        lambda: client.load_model("fake"),
    ):
        with pytest.raises(unknown, match="UNAUTHENTICATED"):
            call()
    key = {"authorization": f"Bearer {KEY}"}
    assert client.infer("fake", [given(1)], headers=key).as_numpy("logits").shape == (1, 10)
    with pytest.raises(unknown, match="PERMISSION_DENIED"):
        client.load_model("fake", headers=key)
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put(error))
    assert "UNAUTHENTICATED" in str(answers.get(timeout=PATIENCE_S))
    client.stop_stream()


def test_messages_are_those_of_triton() -> None:
    from tritonclient.grpc import model_config_pb2, service_pb2

    for name, fields in INFERENCE.items():
        outer, *inner = name.split(".")
        theirs = getattr(service_pb2, outer, None) or getattr(model_config_pb2, outer)
        for part in inner:
            theirs = getattr(theirs, part)
        ours = message_class(outer)
        for part in inner:
            ours = getattr(ours, part)
        for field in fields:
            own, other = ours.DESCRIPTOR.fields_by_name[field], theirs.DESCRIPTOR.fields_by_name[field]
            assert (own.number, own.type, own.is_repeated) == (other.number, other.type, other.is_repeated), field
            assert (own.containing_oneof is None) == (other.containing_oneof is None), field
    assert ENUMS["DataType"] == tuple(model_config_pb2.DataType.keys())
    assert set(HEALTH) == {"HealthCheckRequest", "HealthCheckResponse"}


def infer(called: Called, request: Any) -> Any:
    with ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{called.port}"))
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=message_class("ModelInferRequest").SerializeToString,
            response_deserializer=message_class("ModelInferResponse").FromString,
        )
        return call(request, timeout=PATIENCE_S)


def refused(called: Called, request: Any, code: str) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        infer(called, request)
    assert caught.value.code().name == code
    return str(caught.value.details())
