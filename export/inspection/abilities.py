"""Owns what this machine can do with an artifact: which runner opens it here, and why not; it opens none."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from export.backends import find_backend
from export.engine.builders import BuildCard, find_builder
from export.engine.tensorrt_api import load_tensorrt
from zoo.errors import MissingCapabilityError
from zoo.machine import cuda_driver, package_version, processor_name
from zoo.rows import Row, Text

ONNX_RUNTIMES = ("onnxruntime-gpu", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Ability(Row):
    """One runner and device: whether it can open the artifact here, by what is installed; `zoo doctor` tries it.

    `why` is the device, or what is missing.
    """

    runner: Text
    opens: bool
    why: Text


def of_checkpoint() -> tuple[Ability, ...]:
    """PyTorch, on the processor and on a GPU."""
    version = package_version("torch")
    return _on_each_device(f"PyTorch {version}" if version else "PyTorch", version is not None, "pip install torch")


def of_graph(*, bf16: bool) -> tuple[Ability, ...]:
    """ONNX Runtime, on the processor and on a GPU, and OpenVINO on the processor, of a graph in `bf16` or another."""
    found = next((name for name in ONNX_RUNTIMES if package_version(name)), None)
    name = f"ONNX Runtime {package_version(found)}" if found else "ONNX Runtime"
    on_processor, on_gpu = _on_each_device(name, found is not None, "pip install onnxruntime")
    if on_processor.opens and bf16:
        on_processor = Ability(runner=name, opens=False, why="it has no bf16 on a processor")
    if on_gpu.opens and found == "onnxruntime":
        on_gpu = Ability(runner=name, opens=False, why="this ONNX Runtime has no CUDA: pip install onnxruntime-gpu")
    return on_processor, on_gpu, _in_openvino()


def _in_openvino() -> Ability:
    version, row = package_version("openvino"), find_backend("openvino")
    if version is None:
        return Ability(runner="OpenVINO", opens=False, why=f"it is not installed: {row.install}")
    return Ability(runner=f"OpenVINO {version}", opens=True, why=f"{processor_name()}, with --backend {row.id}")


def _on_each_device(runner: str, installed: bool, install: str) -> tuple[Ability, Ability]:
    driver = cuda_driver()
    if not installed:
        missing = Ability(runner=runner, opens=False, why=f"it is not installed: {install}")
        return missing, missing
    gpu = driver.gpus[0].name if driver else "no NVIDIA GPU with a driver is here"
    return (
        Ability(runner=runner, opens=True, why=processor_name()),
        Ability(runner=runner, opens=driver is not None, why=gpu),
    )


def of_plan(built: BuildCard) -> tuple[Ability, bool]:
    """The TensorRT that built a plan; and whether only building it again would help.

    A plan is for one version of TensorRT and for the GPUs it was built for.
    """
    builder, driver = find_builder(built.name), cuda_driver()
    runner, rebuild, reasons = f"{builder.name} {built.version}", False, []
    if not any(find_spec(name) for name in builder.modules):
        reasons.append(f"{builder.name} is not installed: {builder.install}")
    else:
        try:
            version = load_tensorrt(builder).version
        except MissingCapabilityError as error:
            reasons.append(error.problem.rstrip("."))
        else:
            if version != built.version:
                reasons.append(f"here is {builder.name} {version}")
                rebuild = True
    if driver is None:
        reasons.append("no NVIDIA GPU with a driver is here")
    else:
        capability = ".".join(map(str, driver.gpus[0].compute_capability))
        if not built.runs_on(driver.gpus[0].compute_capability):
            targets = ", ".join(built.targets)
            reasons.append(f"it is for compute capability {targets}; {driver.gpus[0].name} has {capability}")
            rebuild = True
    why = "; ".join(reasons) or (driver.gpus[0].name if driver else "")
    return Ability(runner=runner, opens=not reasons, why=why), rebuild
