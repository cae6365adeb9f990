"""Owns what the GPU did while it was measured: clocks, power, temperature and throttling through NVML; it changes none.

Without NVML (the package `nvidia-ml-py`) or without a GPU the trace says why it is empty instead of guessing.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from zoo.machine import cuda_driver

INTERVAL_S = 0.1

# nvml.h, nvmlClocksEventReasons: only the bits that say the clock was held down; idle and user settings do not.
THROTTLE_REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
# nvml.h: NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_TEMPERATURE_GPU = 0; power is in milliwatts.
_READINGS: dict[str, Callable[[Any, Any], float]] = {
    "sm_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, 1),
    "memory_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, 2),
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000.0,
    "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, 0),
}


def is_gpu(device: str) -> bool:
    """Whether `device` is the name of a GPU of this machine rather than of its processor."""
    driver = cuda_driver()
    return driver is not None and device in {gpu.name for gpu in driver.gpus}


def load_nvml() -> Any:
    """Import `pynvml`, which `nvidia-ml-py` provides; None where it is not installed."""
    try:
        return importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return None


class GpuTrace:
    """Samples one GPU in a thread from entering to leaving; `to_dict` is what goes into a result.

    Reads once on entering and once on leaving, and every `INTERVAL_S` between, so that even the shortest run has two
    readings. A reading a board does not offer is left out. `reason` says why there is no trace, "" where there is one.
    """

    def __init__(self, device: str, *, nvml: Any = None) -> None:
        self._readings: dict[str, list[float]] = {name: [] for name in _READINGS}
        self._throttled: set[str] = set()
        self._n = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-trace", daemon=True)
        self._gpu: Any = None
        self.reason = ""
        self._nvml = nvml or load_nvml()
        if not is_gpu(device):
            self.reason = f"measured on {device}, which is not an NVIDIA GPU"
        elif self._nvml is None:
            self.reason = "NVML is not installed: `pip install nvidia-ml-py`"

    def __enter__(self) -> Self:
        if not self.reason:
            try:
                self._nvml.nvmlInit()
                self._gpu = self._handle()
            except self._nvml.NVMLError as error:
                self.reason = f"NVML did not answer: {error}"
        if self._gpu is not None:
            self._sample()
            self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._gpu is None:
            return
        self._done.set()
        self._thread.join()
        self._sample()
        self._nvml.nvmlShutdown()

    def to_dict(self) -> dict[str, Any] | None:
        """Smallest, mean and largest of each reading, and every throttle reason seen; None where there is no trace."""
        if self._gpu is None:
            return None
        spans = {
            name: {"min": min(values), "mean": sum(values) / len(values), "max": max(values)}
            for name, values in self._readings.items()
            if values
        }
        return {"n": self._n, **spans, "throttle_reasons": sorted(self._throttled)}

    def _handle(self) -> Any:
        """The GPU that CUDA calls number 0: the first of CUDA_VISIBLE_DEVICES, which may be an index or a UUID."""
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
        if first.isdigit():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(first))
        return self._nvml.nvmlDeviceGetHandleByUUID(first)

    def _run(self) -> None:
        while not self._done.wait(INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        self._n += 1
        # Not every board reports power or temperature; what it does report still counts.
        for name, read in _READINGS.items():
            with suppress(self._nvml.NVMLError):
                self._readings[name].append(read(self._nvml, self._gpu))
        with suppress(self._nvml.NVMLError):
            # The older name of the call; every nvidia-ml-py release has it.
            bits = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._gpu)
            self._throttled |= {reason for bit, reason in THROTTLE_REASONS.items() if bits & bit}
