"""The TensorRT runner against a fake engine and a fake CUDA, at the seams it has; and the real bindings' names."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from export.contract import Contract, Form
from export.engine.builders import RTX, BatchProfile, BuildCard, Builder
from export.engine.tensorrt_api import Log, TensorRT
from export.passport import (
    CheckpointCard,
    FileCard,
    FileCards,
    Parities,
    Passport,
    passport_path,
    read_passport,
    write_passport,
)
from export.runners.apart import runs_apart
from export.runners.cuda import open_cuda
from export.runners.tensorrt import TensorRTRunner
from tests.export.fake_cuda import FakeCuda
from zoo.errors import ArtifactError, MissingCapabilityError, ZooError
from zoo.machine import Driver, Gpu, cuda_driver
from zoo.model.spec import Preprocessing

SIZE, LEAST, MOST = 4, 2, 6
ADA = Driver("13.0", (Gpu("NVIDIA L4", 24 * 2**30, (8, 9)),))


class FakeContext:
    """Computes the mean of each colour, in the device memory it was given."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.addresses: dict[str, int] = {}
        self.batches: list[int] = []
        self.works = True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "pictures" and shape[1:] == (SIZE, SIZE, 3)
        self.batches.append(shape[0])
        return LEAST <= shape[0] <= MOST

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == self.cuda.stream
        self.cuda.queue.append(self._compute)
        return self.works

    def _compute(self) -> None:
        batch = self.batches[-1]
        pictures = self.cuda.memory[self.addresses["pictures"]][: batch * SIZE * SIZE * 3]
        logits = pictures.reshape(batch, SIZE, SIZE, 3).mean(axis=(1, 2), dtype=np.float32)
        memory = self.cuda.memory[self.addresses["logits"]]
        memory[: logits.nbytes] = np.ascontiguousarray(logits).view(np.uint8).ravel()


class FakeEngine:
    """One input and one output, as an engine of ours has."""

    num_io_tensors = 2
    num_optimization_profiles = 1

    def __init__(self, context: FakeContext | None) -> None:
        self.context = context

    def get_tensor_name(self, index: int) -> str:
        return ("pictures", "logits")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "pictures" else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "uint8" if name == "pictures" else "float32"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, SIZE, SIZE, 3) if name == "pictures" else (-1, 3)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(batch, SIZE, SIZE, 3) for batch in (LEAST, 4, MOST)]

    def create_execution_context(self) -> FakeContext | None:
        return self.context


class FakeModule:
    """As much of the bindings as the runner touches."""

    TensorIOMode = SimpleNamespace(INPUT="input")
    nptype = staticmethod(np.dtype)

    def __init__(self, engine: FakeEngine | None) -> None:
        self.engine = engine
        self.runtimes = 0

    def Runtime(self, logger: Any) -> Any:
        self.runtimes += 1
        return SimpleNamespace(deserialize_cuda_engine=lambda data: self.engine)


class Bench:
    """Everything one test needs: a plan with its passport, the fakes, and the runner over them."""

    def __init__(self, folder: Path) -> None:
        self.plan = folder / "s.plan"
        self.plan.write_bytes(b"engine")
        (folder / "s.onnx").write_bytes(b"graph")
        passport = Passport(
            contract=Contract(model="s", classes=("r", "g", "b"), preprocessing=Preprocessing(image_size=SIZE)),
            files=FileCards(onnx=FileCard.of(folder / "s.onnx", "fp32"), plan=FileCard.of(self.plan, "fp16")),
            builder=BuildCard(
                name=RTX.id,
                version="1.6.0",
                targets=("8.6",),
                profile=BatchProfile(min=LEAST, opt=4, max=MOST),
                gpu=None,
                build_s=1.0,
                warnings=(),
            ),
            parity=Parities(),
            checkpoint=CheckpointCard(source="test", sha256=None, provenance={}),
            random_weights=False,
            environment={"time": "2026-01-31T12:00:00+00:00"},
        )
        write_passport(folder / "s.json", passport)
        self.cuda = FakeCuda()
        self.context = FakeContext(self.cuda)
        self.module = FakeModule(FakeEngine(self.context))

    def open(self) -> TensorRTRunner:
        return TensorRTRunner(self.plan)

    def load_tensorrt(self, builder: Builder) -> TensorRT:
        module: Any = self.module
        return TensorRT(builder, module, "1.7.1", None, Log())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    monkeypatch.setattr("export.runners.tensorrt.cuda_driver", lambda: ADA)
    monkeypatch.setattr("export.runners.tensorrt.open_cuda", lambda: bench.cuda)
    monkeypatch.setattr("export.runners.tensorrt.load_tensorrt", bench.load_tensorrt)
    return bench


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def test_answers_come_back_through_the_device(bench: Bench) -> None:
    with bench.open() as runner:
        assert (runner.max_batch_size, runner.device, runner.contract.classes) == (MOST, "NVIDIA L4", ("r", "g", "b"))
        for count in (2, 6, 3):
            batch = pictures(count, seed=count)
            np.testing.assert_allclose(runner.infer(batch), batch.mean(axis=(1, 2)), rtol=1e-5)
    assert bench.context.batches == [2, 6, 3]
    assert bench.cuda.closed


def test_the_parts_of_a_call_are_told_each_when_the_device_is_done(bench: Bench) -> None:
    batch = pictures(3)
    with bench.open() as runner:
        told = runs_apart(runner)
        assert told is not None
        queued: list[int] = []
        whole = bench.cuda.synchronize
        bench.cuda.synchronize = lambda: (queued.append(len(bench.cuda.queue)), whole())[1]  # type: ignore[method-assign]
        answers, parts = told.infer_apart(batch)
        np.testing.assert_array_equal(answers, runner.infer(batch))
    # Nothing before, then what was copied to the device, computed, and copied back; the last two waits are of the end.
    assert queued[0] == 0
    assert queued[1] == 1
    assert all(part >= 0 for part in parts.to_dict().values())


def test_answers_survive_the_next_batch(bench: Bench) -> None:
    with bench.open() as runner:
        first = runner.infer(pictures(2))
        kept = first.copy()
        runner.infer(pictures(2, seed=9))
        np.testing.assert_array_equal(first, kept)


def test_a_batch_below_the_least_is_padded_and_cut_again(bench: Bench) -> None:
    with bench.open() as runner:
        answers = runner.infer(pictures(1))
    assert bench.context.batches == [LEAST]
    np.testing.assert_allclose(answers, pictures(1).mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(MOST + 1, SIZE, SIZE, 3), (1, SIZE + 1, SIZE, 3), (1, SIZE, SIZE, 1)])
def test_what_does_not_fit_the_engine_is_refused(shape: tuple[int, ...], bench: Bench) -> None:
    with bench.open() as runner, pytest.raises(ZooError, match=f"at most {MOST} pictures"):
        runner.infer(np.zeros(shape, np.uint8))


class PlanesContext(FakeContext):
    """Takes normalised planes; answers the mean of each, the largest of them, and which it is."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "planes" and shape[1:] == (3, SIZE, SIZE)
        self.batches.append(shape[0])
        return True

    def _compute(self) -> None:
        batch = self.batches[-1]
        planes = self.cuda.memory[self.addresses["planes"]].view(np.float32)[: batch * 3 * SIZE * SIZE]
        every = planes.reshape(batch, 3, SIZE, SIZE).mean(axis=(2, 3))
        highest = every.max(axis=1, keepdims=True), every.argmax(axis=1)[:, None].astype(np.int64)
        for name, values in zip(("probabilities", "top_scores", "top_classes"), (every, *highest), strict=True):
            self.cuda.memory[self.addresses[name]][: values.nbytes] = (
                np.ascontiguousarray(values).view(np.uint8).ravel()
            )


class PlanesEngine(FakeEngine):
    """What `zoo export --input float --softmax --topk 1 --trt fp16` makes."""

    shapes: ClassVar = {"planes": (3, SIZE, SIZE), "probabilities": (3,), "top_scores": (1,), "top_classes": (1,)}
    num_io_tensors = len(shapes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "planes" else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "int64" if name == "top_classes" else "float32"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.shapes[name])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(batch, *self.shapes[name]) for batch in (LEAST, 4, MOST)]


def test_a_plan_of_another_form_gets_planes_and_answers_every_output(bench: Bench) -> None:
    passport = read_passport(bench.plan)
    preprocessing = Preprocessing(image_size=SIZE, mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0))
    form = Form(input="float", output="probabilities", topk=1)
    contract = replace(passport.contract, preprocessing=preprocessing, form=form)
    write_passport(passport_path(bench.plan), replace(passport, contract=contract))
    bench.module.engine = PlanesEngine(PlanesContext(bench.cuda))
    batch = pictures(3)
    wanted = (batch.mean(axis=(1, 2)) - preprocessing.mean) / preprocessing.std
    with bench.open() as runner:
        found = runner.outputs(batch)
        np.testing.assert_array_equal(runner.infer(batch), found["probabilities"])
    np.testing.assert_allclose(found["probabilities"], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["top_classes"][:, 0], wanted.argmax(axis=1))
    assert found["top_classes"].dtype == np.int64


def test_a_plan_of_another_form_than_its_passport_says_is_refused(bench: Bench) -> None:
    bench.module.engine = PlanesEngine(PlanesContext(bench.cuda))
    with pytest.raises(
        ArtifactError, match=r"takes and answers planes, .*; its passport says pictures and logits"
    ) as caught:
        bench.open()
    assert "zoo export s --trt fp16" in caught.value.hint


def test_a_failed_launch_is_an_error(bench: Bench) -> None:
    bench.context.works = False
    with bench.open() as runner, pytest.raises(MissingCapabilityError, match="execute_async_v3"):
        runner.infer(pictures(2))


def test_an_engine_of_another_release_names_both_and_the_remedy(bench: Bench) -> None:
    bench.module.engine = None
    with pytest.raises(
        ArtifactError, match=r"tensorrt-rtx 1\.6\.0 for 8\.6; here is tensorrt-rtx 1\.7\.1 on NVIDIA L4"
    ):
        bench.open()
    assert bench.cuda.closed


def test_a_passport_that_does_not_name_the_builder_is_an_error(bench: Bench) -> None:
    passport = read_passport(bench.plan)
    write_passport(passport_path(bench.plan), replace(passport, builder=None))
    with pytest.raises(ArtifactError, match=r"s\.json does not say which TensorRT built s\.plan"):
        bench.open()
    assert bench.module.runtimes == 0


def test_no_memory_for_a_context_is_an_error(bench: Bench) -> None:
    bench.module.engine = FakeEngine(None)
    with pytest.raises(MissingCapabilityError, match="execution context"):
        bench.open()
    assert bench.cuda.closed


def test_without_a_gpu_no_runtime_is_constructed_and_the_onnx_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.runners.tensorrt.cuda_driver", lambda: None)
    with pytest.raises(MissingCapabilityError, match="NVIDIA GPU only") as caught:
        bench.open()
    assert str(bench.plan.with_suffix(".onnx")) in caught.value.hint
    assert bench.module.runtimes == 0


def test_cpu_is_refused_even_where_there_is_a_gpu(bench: Bench) -> None:
    with pytest.raises(MissingCapabilityError, match="--device cpu"):
        TensorRTRunner(bench.plan, device="cpu")


def test_a_changed_plan_never_reaches_tensorrt(bench: Bench) -> None:
    bench.plan.write_bytes(b"malice")
    with pytest.raises(ArtifactError, match="passport"):
        bench.open()
    assert bench.module.runtimes == 0


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_real_bindings_have_everything_the_runner_calls() -> None:
    import tensorrt_rtx as trt

    assert callable(trt.Runtime.deserialize_cuda_engine)
    for name in ("get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape", "num_io_tensors"):
        assert hasattr(trt.ICudaEngine, name), name
    for name in ("get_tensor_profile_shape", "create_execution_context"):
        assert hasattr(trt.ICudaEngine, name), name
    for name in ("set_tensor_address", "set_input_shape", "execute_async_v3"):
        assert hasattr(trt.IExecutionContext, name), name
    assert trt.nptype(trt.DataType.INT64) is np.int64
    assert trt.nptype(trt.DataType.UINT8) is np.uint8 and trt.nptype(trt.DataType.FLOAT) is np.float32
    assert trt.TensorIOMode.INPUT != trt.TensorIOMode.OUTPUT


@pytest.mark.skipif(find_spec("cuda") is None or find_spec("cuda.bindings") is None, reason="no cuda-bindings")
def test_a_cuda_call_that_fails_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if cuda_driver():
        pytest.skip("this machine has a GPU, so the calls succeed")
    monkeypatch.setattr("export.runners.cuda.find_spec", lambda name: None)
    with pytest.raises(MissingCapabilityError, match=r"refused cudaSetDevice: .*driver"):
        open_cuda()


def test_without_any_cuda_library_the_hint_is_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.runners.cuda.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingCapabilityError) as caught:
        open_cuda()
    assert caught.value.hint == "pip install cuda-bindings"


class RecordingRuntime:
    """cuda.bindings.runtime's calls and answers, without a device."""

    cudaError_t = SimpleNamespace(cudaSuccess=0)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamNonBlocking = 1

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.pinned = np.zeros(64, np.uint8)
        self.answers = {
            "cudaMalloc": (0, 4096),
            "cudaMallocHost": (0, self.pinned.ctypes.data),
            "cudaStreamCreateWithFlags": (0, 9),
        }

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> tuple[Any, ...]:
            self.calls.append((name, *args))
            return self.answers.get(name, (0,))

        return call


def test_cuda_bindings_are_called_in_order_and_everything_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = RecordingRuntime()
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=runtime))
    monkeypatch.setattr("export.runners.cuda.find_spec", lambda name: None)
    cuda = open_cuda()
    with cuda.current():
        address, host = cuda.allocate(64), cuda.allocate_pinned(64)
        host[:] = 7
        cuda.copy_to_device(address, host[:48])
        cuda.copy_to_host(host[:16], address)
        cuda.synchronize()
    assert (runtime.pinned == 7).all(), "the array is the pinned memory, not a copy"
    cuda.close()
    pointer = runtime.pinned.ctypes.data
    assert runtime.calls == [
        ("cudaSetDevice", 0),
        ("cudaStreamCreateWithFlags", 1),
        ("cudaSetDevice", 0),
        ("cudaMalloc", 64),
        ("cudaMallocHost", 64),
        ("cudaMemcpyAsync", 4096, pointer, 48, 1, 9),
        ("cudaMemcpyAsync", pointer, 4096, 16, 2, 9),
        ("cudaStreamSynchronize", 9),
        ("cudaFree", 4096),
        ("cudaFreeHost", pointer),
        ("cudaStreamDestroy", 9),
    ]


class FakePyCuda:
    """pycuda.driver's calls, without a device. As with pycuda, most need a context that is current."""

    class Error(Exception):
        """What pycuda raises."""

    def __init__(self) -> None:
        self.stack = 0
        self.log: list[str] = []
        self.fails = False

    def init(self) -> None:
        self.log.append("init")

    def Device(self, ordinal: int) -> Any:
        return SimpleNamespace(retain_primary_context=lambda: self)

    def push(self) -> None:
        self.stack += 1

    def pop(self) -> None:
        self.stack -= 1

    def _work(self, name: str) -> None:
        assert self.stack == 1, f"{name} without a current context"
        if self.fails:
            raise self.Error(f"{name} failed: out of memory")
        self.log.append(name)

    def Stream(self) -> Any:
        self._work("Stream")
        return SimpleNamespace(handle=5, synchronize=lambda: self._work("synchronize"))

    def mem_alloc(self, num_bytes: int) -> Any:
        self._work("mem_alloc")

        class Allocation(int):
            free = staticmethod(lambda: self._work("free"))

        return Allocation(4096)

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        self._work("pagelocked_empty")
        return np.empty(shape, dtype)

    def memcpy_htod_async(self, address: int, source: Any, stream: Any) -> None:
        assert (address, stream.handle) == (4096, 5)
        self._work("memcpy_htod_async")

    def memcpy_dtoh_async(self, target: Any, address: int, stream: Any) -> None:
        assert (address, stream.handle) == (4096, 5)
        self._work("memcpy_dtoh_async")


@pytest.fixture
def fake_pycuda(monkeypatch: pytest.MonkeyPatch) -> FakePyCuda:
    fake = FakePyCuda()
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=fake))
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setattr("export.runners.cuda.find_spec", lambda name: object() if name == "pycuda" else None)
    return fake


def test_pycuda_is_preferred_and_shares_the_primary_context(fake_pycuda: FakePyCuda) -> None:
    cuda = open_cuda()
    assert cuda.stream == 5 and fake_pycuda.stack == 0, "between calls nothing of ours is current"
    with cuda.current():
        address, host = cuda.allocate(8), cuda.allocate_pinned(8)
        cuda.copy_to_device(address, host)
        cuda.copy_to_host(host, address)
        cuda.synchronize()
    cuda.close()
    calls = ["mem_alloc", "pagelocked_empty", "memcpy_htod_async", "memcpy_dtoh_async", "synchronize", "free"]
    assert fake_pycuda.log == ["init", "Stream", *calls]
    assert fake_pycuda.stack == 0


def test_pycudas_errors_become_ours(fake_pycuda: FakePyCuda) -> None:
    cuda = open_cuda()
    fake_pycuda.fails = True
    with pytest.raises(MissingCapabilityError, match="mem_alloc failed: out of memory"), cuda.current():
        cuda.allocate(8)
    assert fake_pycuda.stack == 0


def test_answers_are_written_where_the_caller_says(bench: Bench) -> None:
    with bench.open() as runner:
        out = np.full((3, 3), np.nan, np.float32)
        assert runner.infer(pictures(3), out=out) is out
        np.testing.assert_array_equal(out, runner.infer(pictures(3)))
        with pytest.raises(ZooError, match="cannot be written into `out`"):
            runner.infer(pictures(2), out=out)
