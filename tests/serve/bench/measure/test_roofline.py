from __future__ import annotations

from pathlib import Path

import pytest

from serve.bench.engine_rows import find_engine
from serve.bench.measure import roofline
from serve.bench.measure.engines import Bench
from serve.bench.measure.roofline import LEAST_CALLS, fastest_s, measure_peaks
from tests.serve.bench.measure.simulated import HostClock
from zoo.model.variants import find_variant


def test_the_fastest_call_counts_and_the_first_does_not() -> None:
    clock, took = HostClock(), iter([1.0, 500.0, 300.0, 400.0, 450.0])
    call = clock.call_of(lambda: next(took))
    assert fastest_s(call, clock=lambda: clock.now / 1e9) == pytest.approx(0.3)


def test_both_peaks_are_measured_with_the_engines_own_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "MATRIX_SIDE", {"cpu": 64})
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(roofline, "DENSE_SIZE", {"cpu": 4})
    monkeypatch.setattr(roofline, "LEAST_S", 0.0)
    bench = Bench(engine=find_engine("torch"), precision="fp32", batch_size=1, folder=tmp_path, device="cpu", threads=1)
    peaks = measure_peaks(find_variant("tiny"), bench)
    assert peaks.flops_per_s == max(value for name, value in peaks.tried.items() if "copy" not in name)
    assert "PyTorch" in peaks.flops_by
    assert peaks.bytes_per_s == peaks.tried["copy of 1 MiB by PyTorch"]
    assert len(peaks.tried) == 3
    assert LEAST_CALLS > 1
