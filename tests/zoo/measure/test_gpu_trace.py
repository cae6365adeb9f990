from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from zoo.machine import Driver, Gpu
from zoo.measure import gpu_trace
from zoo.measure.gpu_trace import GpuTrace, is_gpu

NAME = "NVIDIA H200"


class FakeNvml:
    """As much of NVML as the trace asks for; each reading rises, the second one finds the clock held down."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, power: bool = True, driver: bool = True) -> None:
        self.power, self.driver = power, driver
        self.opened: list[Any] = []
        self.closed = 0
        self.clock = 1700

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:
        self.closed += 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self.opened.append(index)
        return "gpu"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.opened.append(uuid)
        return "gpu"

    def nvmlDeviceGetClockInfo(self, gpu: str, kind: int) -> int:
        if kind == 1:
            self.clock += 100
        return self.clock if kind == 1 else 2619

    def nvmlDeviceGetPowerUsage(self, gpu: str) -> int:
        if not self.power:
            raise self.NVMLError("Not Supported")
        return 350_000

    def nvmlDeviceGetTemperature(self, gpu: str, sensor: int) -> int:
        return 41

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: str) -> int:
        return 0x1 | (0x4 if self.clock > 1800 else 0)  # idle always, the power cap from the second reading on


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, and a sampling interval that never comes, so that readings are two exactly."""
    driver = Driver("13.0", (Gpu(NAME, 1, (9, 0)),))
    monkeypatch.setattr(gpu_trace, "cuda_driver", lambda: driver)
    monkeypatch.setattr(gpu_trace, "INTERVAL_S", 3600.0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_trace_spans_the_run_and_names_what_held_the_clock_down() -> None:
    nvml = FakeNvml()
    with GpuTrace(NAME, nvml=nvml) as trace:
        pass
    said = trace.to_dict()
    assert said is not None
    assert said["n"] == 2
    assert said["sm_clock_mhz"] == {"min": 1800, "mean": 1850, "max": 1900}
    assert said["memory_clock_mhz"]["max"] == 2619
    assert said["power_w"]["max"] == 350
    assert said["throttle_reasons"] == ["software power cap"]
    assert trace.reason == ""
    assert nvml.closed == 1


def test_a_reading_the_board_lacks_is_left_out() -> None:
    with GpuTrace(NAME, nvml=FakeNvml(power=False)) as trace:
        pass
    said = trace.to_dict()
    assert said is not None
    assert "power_w" not in said
    assert said["temperature_c"]["max"] == 41


@pytest.mark.parametrize(("visible", "opened"), [("3,1", 3), ("GPU-a1b2", "GPU-a1b2"), ("", 0)])
def test_the_traced_gpu_is_cudas_first(monkeypatch: pytest.MonkeyPatch, visible: str, opened: Any) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = FakeNvml()
    with GpuTrace(NAME, nvml=nvml):
        pass
    assert nvml.opened == [opened]


def test_no_trace_always_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with GpuTrace("a processor", nvml=FakeNvml()) as on_processor:
        pass
    assert on_processor.to_dict() is None
    assert "a processor" in on_processor.reason
    with GpuTrace(NAME, nvml=FakeNvml(driver=False)) as without_driver:
        pass
    assert without_driver.to_dict() is None
    assert "Driver Not Loaded" in without_driver.reason
    monkeypatch.setattr(gpu_trace, "load_nvml", lambda: None)
    with GpuTrace(NAME) as without_nvml:
        pass
    assert without_nvml.to_dict() is None
    assert "nvidia-ml-py" in without_nvml.reason


def test_the_run_behind_the_trace_may_fail() -> None:
    nvml = FakeNvml()
    with pytest.raises(ZeroDivisionError), GpuTrace(NAME, nvml=nvml):
        raise ZeroDivisionError
    assert nvml.closed == 1


def test_nvml_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> SimpleNamespace:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    assert gpu_trace.load_nvml() is None


def test_a_processor_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_gpu(NAME)
    assert not is_gpu("CPU")
    monkeypatch.setattr(gpu_trace, "cuda_driver", lambda: None)
    assert not is_gpu(NAME)
