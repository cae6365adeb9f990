"""Owns running a .plan, of TensorRT or TensorRT-RTX, on an NVIDIA GPU; it builds none.

Every call of CUDA goes through the `export.runners.cuda` seam, so the logic is tested without a GPU. It has not run on
a GPU yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from export.engine.builders import BatchProfile, BuildCard, find_builder
from export.engine.refitter import put_weights_in
from export.engine.tensorrt_api import TensorRT, load_tensorrt
from export.interface import as_input
from export.passport import Passport, check_plan, passport_path
from export.refit import weights_beside
from export.runners.apart import Laps, Parts
from export.runners.cuda import Cuda, open_cuda
from export.runners.runner import check_out, recorded_temperature
from export.weights_apart import as_message_or_file
from zoo.errors import ArtifactError, MissingCapabilityError, ZooError
from zoo.machine import Device, Driver, cuda_driver
from zoo.wording import joined


@dataclass(frozen=True)
class _Tensor:
    """One input or output of an engine: its shape for one picture, and buffers for the largest batch."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int
    host: NDArray[np.uint8]

    def rows(self, count: int) -> NDArray[Any]:
        """The host buffer's first `count` rows, in the tensor's own shape and type; no copy."""
        return self.bytes_of(count).view(self.dtype).reshape(count, *self.shape)

    def bytes_of(self, count: int) -> NDArray[np.uint8]:
        """The same as bytes."""
        return self.host[: count * math.prod(self.shape) * self.dtype.itemsize]


class TensorRTRunner:
    """A .plan as a `Runner`. A batch above the profile's largest is refused, one below its smallest is padded.

    Of several profiles a batch takes the one that is tuned for the size next to its own; changing waits for the GPU.
    It has one stream, pinned host buffers, and device buffers for the largest batch, allocated once. Any thread may
    call `infer`, one at a time.
    """

    threads: int | None = None  # the GPU computes

    def __init__(self, plan: Path, *, device: Device = "auto") -> None:
        """Check the plan's hash, then the driver, and only then construct a TensorRT runtime.

        Args:
            plan: the file, its passport beside it.
            device: "cpu" is refused: a plan runs on a GPU only.

        Raises:
            ArtifactError: the plan is missing, changed, or made for another TensorRT release or GPU.
            MissingCapabilityError: no GPU, or TensorRT is not installed.
        """
        passport = check_plan(plan)
        driver = cuda_driver()
        if device == "cpu" or driver is None:
            raise _needs_gpu(plan, "--device cpu was asked for" if driver else "this machine has none that works")
        self.artifact = str(plan)
        self.contract = passport.contract
        self.temperature = recorded_temperature(passport.checkpoint.provenance)
        if passport.builder is None:
            raise ArtifactError(
                f"{passport_path(plan).name} does not say which TensorRT built {plan.name}.", _rebuild(passport)
            )
        self._tensorrt = load_tensorrt(find_builder(passport.builder.name))
        self.backend = f"{self._tensorrt.builder.name} {self._tensorrt.version}"
        self.device = driver.gpus[0].name
        self._cuda: Cuda = open_cuda()
        try:
            with self._cuda.current():
                self._open(plan, passport, passport.builder, driver)
        except ZooError:
            self._close()
            raise

    def _open(self, plan: Path, passport: Passport, built: BuildCard, driver: Driver) -> None:
        module: Any = self._tensorrt.module
        self._tensorrt.log.clear()
        self._runtime = module.Runtime(self._tensorrt.logger)
        if built.built_as.version_compatible:  # it carries the code of its own runtime; its hash was checked
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise ArtifactError(_describe_refusal(plan, built, self._tensorrt, driver), _rebuild(passport))
        if built.built_as.weights == "stripped":
            with as_message_or_file(weights_beside(plan, passport)) as graph:
                put_weights_in(self._tensorrt, self._engine, graph)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise _gpu_failed("execution context", self._tensorrt)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
        taken, outputs = self.contract.form.input_name, self.contract.form.output_names
        if inputs != [taken] or set(outputs) != set(names) - set(inputs):
            raise ArtifactError(
                f"{plan.name} takes and answers {joined(names)}; its passport says {joined((taken, *outputs))}.",
                _rebuild(passport),
            )
        self._profiles = [self._profile(inputs[0], each) for each in range(self._engine.num_optimization_profiles)]
        self._active = 0  # a context begins with the first
        self._max_batch_size = max(profile.max for profile in self._profiles)
        self.max_batch_size: int | None = self._max_batch_size
        self._input, self._outputs = self._allocate(inputs[0]), [self._allocate(name) for name in outputs]
        for tensor in (self._input, *self._outputs):
            self._must(self._context.set_tensor_address(tensor.name, tensor.device), "set_tensor_address")

    def _profile(self, name: str, index: int) -> BatchProfile:
        least, best, most = (int(next(iter(shape))) for shape in self._engine.get_tensor_profile_shape(name, index))
        return BatchProfile(min=least, opt=best, max=most)

    def _use_profile(self, index: int) -> None:
        if index != self._active:
            self._must(
                self._context.set_optimization_profile_async(index, self._cuda.stream), "set_optimization_profile"
            )
            self._cuda.synchronize()  # the shape of the next batch may only be set afterwards
            self._active = index

    def _allocate(self, name: str) -> _Tensor:
        shape = tuple(int(side) for side in tuple(self._engine.get_tensor_shape(name))[1:])
        dtype = np.dtype(self._tensorrt.module.nptype(self._engine.get_tensor_dtype(name)))
        num_bytes = self._max_batch_size * math.prod(shape) * dtype.itemsize
        return _Tensor(name, shape, dtype, self._cuda.allocate(num_bytes), self._cuda.allocate_pinned(num_bytes))

    def infer(self, pictures: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Classify (N, S, S, C) uint8 pictures: (N, K) float32. Waits for the GPU once, at the end.

        Raises:
            ZooError: more pictures than the engine's largest batch, or of another size; `out` as `check_out`.
        """
        answers = check_out(out, (len(pictures), *self._outputs[0].shape))
        self._run(pictures)
        answers[...] = self._outputs[0].rows(len(pictures))
        return answers

    def infer_apart(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Parts]:
        """The same answers, and how long each part of the call took: it waits for the GPU after each."""
        laps = Laps()

        def lap() -> None:
            self._cuda.synchronize()
            laps.lap()

        self._run(pictures, lap)
        return self._outputs[0].rows(len(pictures)).astype(np.float32), laps.parts()

    def outputs(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Every output by its name."""
        self._run(pictures)
        # Copies: the buffers are the next batch's.
        return {output.name: output.rows(len(pictures)).copy() for output in self._outputs}

    def _run(self, pictures: NDArray[np.uint8], lap: Callable[[], None] = lambda: None) -> None:
        """Compute into the host's buffers; `lap` is called before, between and after copies and computing."""
        count, preprocessing = len(pictures), self.contract.preprocessing
        shape: tuple[int, ...] = (preprocessing.image_size, preprocessing.image_size, preprocessing.channels)
        if pictures.dtype == np.float32:  # planes that a client has normalised
            shape = self._input.shape
        if count > self._max_batch_size or pictures.shape[1:] != shape:
            raise ZooError(
                f"{self.artifact} takes at most {self._max_batch_size} pictures of shape {shape}, "
                f"not {pictures.shape}.",
                "`zoo export --profile MIN OPT MAX` sets the batches.",
            )
        chosen = nearest_profile(self._profiles, count)
        batch = max(
            count, self._profiles[chosen].min
        )  # rows beyond `count` hold old pictures; their outputs are dropped
        self._input.rows(count)[...] = as_input(pictures, self.contract)
        with self._cuda.current():
            self._use_profile(chosen)
            self._must(self._context.set_input_shape(self._input.name, (batch, *self._input.shape)), "set_input_shape")
            lap()
            self._cuda.copy_to_device(self._input.device, self._input.bytes_of(batch))
            lap()
            self._must(self._context.execute_async_v3(self._cuda.stream), "execute_async_v3")
            lap()
            for output in self._outputs:
                self._cuda.copy_to_host(output.bytes_of(batch), output.device)
            self._cuda.synchronize()
            lap()

    def profile_layers(self, report: Callable[[str, float], None]) -> None:
        """Have every call from now on tell what each layer took, in ms, by the name that TensorRT gives it.

        `execute_async_v3` then waits for the GPU and reports before it returns (`enqueue_emits_profile`, TensorRT's
        default), so such calls are slower than others.
        """
        module: Any = self._tensorrt.module

        class Profiler(module.IProfiler):  # type: ignore[misc]
            def __init__(self) -> None:
                module.IProfiler.__init__(self)  # the bindings ask for it by name

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                report(layer_name, ms)

        self._profiler = Profiler()  # that a context keeps it alive is written nowhere
        self._context.profiler = self._profiler

    def _must(self, succeeded: bool, call: str) -> None:
        if not succeeded:
            raise _gpu_failed(call, self._tensorrt)

    def _close(self) -> None:
        """Free context, engine and runtime, in this order, then the memory they used."""
        with self._cuda.current():
            self._context = self._engine = self._runtime = None
        self._cuda.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._close()


def nearest_profile(profiles: list[BatchProfile], count: int) -> int:
    """Which profile a batch of `count` runs best with: of those that take it the one whose `opt` is nearest to it.

    Where none takes it, it is padded to the smallest batch of one that is larger.
    """
    inside = [index for index, row in enumerate(profiles) if row.min <= count <= row.max]
    if inside:
        return min(inside, key=lambda index: abs(profiles[index].opt - count))
    larger = [index for index, row in enumerate(profiles) if row.min > count]
    return min(larger, key=lambda index: profiles[index].min)


def _needs_gpu(plan: Path, why: str) -> MissingCapabilityError:
    onnx = plan.with_suffix(".onnx")
    hint = (
        f"{onnx} beside it runs on the processor."
        if onnx.is_file()
        else f"`zoo export` writes an .onnx beside the plan, which runs on the processor; there is no {onnx.name} here."
    )
    return MissingCapabilityError(f"{plan} runs on an NVIDIA GPU only, and {why}.", hint)


def _rebuild(passport: Passport) -> str:
    precision = passport.files.plan.precision if passport.files.plan else "fp16"
    return f"Build it again here: `zoo export {passport.contract.model} --trt {precision}`."


def _describe_refusal(plan: Path, built: BuildCard, tensorrt: TensorRT, driver: Driver) -> str:
    """An engine is tied to the exact release of its builder and, unless built ahead of time, to its model of GPU."""
    there = f"{built.name} {built.version} for {', '.join(built.targets) or 'one GPU'}"
    gpu = driver.gpus[0]
    here = f"{tensorrt.builder.id} {tensorrt.version} on {gpu.name} ({'.'.join(map(str, gpu.compute_capability))})"
    return f"{plan.name} was built by {there}; here is {here}, which refuses it: {tensorrt.log.errors()}"


def _gpu_failed(what: str, tensorrt: TensorRT) -> MissingCapabilityError:
    return MissingCapabilityError(
        f"{tensorrt.builder.name} failed at {what}: {tensorrt.log.errors()}",
        "Is the GPU's memory full? `nvidia-smi` shows it.",
    )
