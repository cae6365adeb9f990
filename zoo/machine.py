"""Owns what this machine is: driver, GPUs, processor and versions. It changes and installs nothing."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from zoo.errors import MissingCapabilityError
from zoo.rows import CountOrNone, Row, Within

# What the user may ask for; "auto" takes a GPU that works.
Device = Literal["auto", "cpu", "cuda"]
VERSIONED = (
    "zoo",
    "torch",
    "torchvision",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt-rtx-cu13",
    "tensorrt-cu13",
    "pycuda",
    "cuda-bindings",
)


@dataclass(frozen=True)
class Gpu(Row):
    """One NVIDIA GPU as the driver describes it; memory in bytes, capability as (major, minor)."""

    name: str
    memory_bytes: CountOrNone
    compute_capability: Annotated[tuple[int, int], Within(0)]


@dataclass(frozen=True)
class Driver(Row):
    """A CUDA driver that answered: the CUDA version it supports, and its GPUs."""

    cuda_version: str
    gpus: tuple[Gpu, ...]


@cache
def cuda_driver() -> Driver | None:
    """Ask libcuda itself; None where there is no driver or no GPU.

    Call it before anything that builds a TensorRT runtime: without a driver some releases of TensorRT end the process
    instead of raising. It creates no context, so it costs no GPU memory.
    """
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    if library.cuInit(0) or library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    if library.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    gpus = tuple(_gpu(library, ordinal) for ordinal in range(count.value))
    return Driver(f"{version.value // 1000}.{version.value % 1000 // 10}", gpus)


def _gpu(library: ctypes.CDLL, ordinal: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.cuDeviceGet(ctypes.byref(device), ordinal)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75, _MINOR = 76 (cuda.h)
    library.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    return Gpu(name.value.decode(), memory.value, (major.value, minor.value))


def package_version(name: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """The processor's marketing name where the system knows it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_processors(root: Path = Path("/")) -> int:
    """How many processors this process may use: those it is bound to, up to the quota of its control groups.

    A container or a scheduler often gives fewer than the machine has. A thread for each of the machine's processors
    then waits for another one (with 1 processor of 2 the slowest of 100 answers takes 15 times as long).

    Args:
        root: where /proc and /sys are.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *_quotas(root)]))


def usable_cores(root: Path = Path("/")) -> int:
    """How many threads computing is worth: `usable_processors`, but of two that share a core only one."""
    bound = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for processor in bound:
        topology = root / f"sys/devices/system/cpu/cpu{processor}/topology"
        try:
            cores.add(tuple((topology / name).read_text() for name in ("physical_package_id", "core_id")))
        except OSError:  # not every system tells
            return usable_processors(root)
    return min(len(cores), usable_processors(root))


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory this process may use: the machine's, up to the limit of its control groups; 4 GiB if unknown.

    Args:
        root: where /proc and /sys are.
    """
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system tells
        machine = 4 << 30
    limits = (_memory_limit(folder) for folder in _control_groups(root, "memory"))
    return min([machine, *(limit for limit in limits if limit is not None)])


def _quotas(root: Path) -> Iterator[int]:
    """Whole processors that control groups allow."""
    shares = (_share(folder) for folder in _control_groups(root, "cpu"))
    return (int(share) for share in shares if share is not None)


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups (version 2 and 1) of a kind: the process's own group and those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        own = mount / group.lstrip("/")
        # In a container the path may be that of the host, while the mounted folder is the container's own group.
        yield from {mount, own, *(parent for parent in own.parents if parent.is_relative_to(mount))}


def _share(folder: Path) -> float | None:
    """Processors that one control group allows; None where it sets no limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if quota in ("max", "-1") else float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _memory_limit(folder: Path) -> int | None:
    """Bytes that one control group allows; None where it sets no limit. Version 1 writes a huge number for none."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):  # no such file; "max"
            continue
    return None


def environment() -> dict[str, Any]:
    """What a reader of a measurement needs to know: machine, versions, time; no paths. Plain JSON types."""
    driver = cuda_driver()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "cores_usable": usable_processors(),
        "cuda_driver": driver and driver.cuda_version,
        "gpus": [gpu.name for gpu in driver.gpus] if driver else [],
        "packages": {name: version for name in VERSIONED if (version := package_version(name))},
    }


@cache
def source_commit() -> str | None:
    """The commit of the zoo's own sources, and a + if they were changed since; None where git does not keep them."""
    try:
        _git("ls-files", "--error-unmatch", "__init__.py")  # an installed zoo may lie within somebody else's repository
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", "..", ":!../benchmarks")
        return _git("rev-parse", "HEAD") + ("+" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*asked: str) -> str:
    # Else git notes what it saw of the files in its index, and leaves a lock there where it is stopped or has no room.
    command = ("git", "--no-optional-locks", "-C", str(Path(__file__).parent), *asked)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def choose_device(device: Device) -> Literal["cpu", "cuda"]:
    """Where PyTorch computes: "auto" is a GPU where there is one that works.

    Raises:
        MissingCapabilityError: "cuda" without a GPU that PyTorch can use.
    """
    import torch

    works = torch.cuda.is_available()
    if device == "cuda" and not works:
        raise MissingCapabilityError(
            "--device cuda: PyTorch finds no usable NVIDIA GPU here.", "`zoo doctor` says why; --device cpu works."
        )
    return "cuda" if works and device != "cpu" else "cpu"
