"""Owns the two peaks of a device, measured on the spot: arithmetic in the engine itself and in PyTorch, and a copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from serve.bench.measure.engines import Bench, open_prepared, prepare_artifact
from serve.bench.measure.forms import build_form, contract_of
from serve.bench.measure.pictures import random_pictures
from serve.bench.measure.places import StagePlace
from serve.bench.measure.stage_rows import Peaks
from zoo.machine import choose_device
from zoo.measure.timing import Call
from zoo.measure.torch_threads import torch_threads
from zoo.model.counts import stage_cost
from zoo.model.spec import Stage, Variant

# A matrix of this side, and the least time that each peak is looked for; a processor's first calls are slow.
MATRIX_SIDE = {"cpu": 1536, "cuda": 8192}
LEAST_S, LEAST_CALLS = 0.5, 4
# Larger than any cache: nothing is measured but memory.
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# The convolution that engines are best at: many channels, no stride, a kernel that uses each value nine times.
_DENSE = Stage(operator="fused_mbconv", kernel_size=3, stride=1, expand_ratio=1, out_channels=256, num_layers=4)
DENSE_SIZE = {"cpu": 28, "cuda": 112}


def measure_peaks(variant: Variant, bench: Bench) -> Peaks:
    """The most that this device gives in the bench's precision and threads.

    Arithmetic is the better of a chain of dense 3×3 convolutions in the engine itself and a large matrix product in
    PyTorch; memory is one large copy by PyTorch, its bytes read and written. The fastest call counts: a peak is what
    can be had, and noise only takes from it. In 8 bits PyTorch has no such product, so the engine's stands alone.
    """
    kind = _kind(bench)
    dense = _convolutions(variant, bench, DENSE_SIZE[kind])
    tried = {f"3×3 convolutions of {_DENSE.out_channels} channels in {bench.engine.name}": dense}
    with torch_threads(bench.threads):
        if bench.precision in _DTYPES:
            tried[f"matrix product of {MATRIX_SIDE[kind]} in PyTorch"] = _matmul(kind, bench.precision)
        copied = _copy(kind)
    best = max(tried, key=lambda name: tried[name])
    copy_name = f"copy of {COPY_BYTES[kind] // 2**20} MiB by PyTorch"
    return Peaks(
        flops_per_s=tried[best],
        flops_by=best,
        bytes_per_s=copied,
        bytes_by=copy_name,
        tried=tried | {copy_name: copied},
    )


def fastest_s(call: Call, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """The fastest of several calls, seconds: after one that is not counted, `LEAST_CALLS` and `LEAST_S` at least."""
    call()
    best, calls, begun = float("inf"), 0, clock()
    while calls < LEAST_CALLS or clock() - begun < LEAST_S:
        before = clock()
        call()
        best, calls = min(best, clock() - before), calls + 1
    return best


def _kind(bench: Bench) -> str:
    return bench.engine.device if bench.engine.device != "auto" else choose_device(bench.device)


def _convolutions(variant: Variant, bench: Bench, size: int) -> float:
    """FLOP/s of dense convolutions in the engine; the frame around them is counted as nothing."""
    channels = _DENSE.out_channels
    place = StagePlace(index=1, stage=_DENSE, in_channels=channels, in_size=size, out_size=size)
    network = build_form(variant, place, _DENSE)
    prepared = prepare_artifact(network, contract_of(network, place), bench, "peak")
    pictures = random_pictures(bench.batch_size, size)
    with open_prepared(prepared, bench) as runner:
        seconds = fastest_s(partial(runner.infer, pictures))
    return 2 * bench.batch_size * stage_cost(_DENSE, channels, size)[1] / seconds


def _matmul(kind: str, precision: str) -> float:
    side, dtype = MATRIX_SIDE[kind], _DTYPES[precision]
    left, right = (torch.randn(side, side, device=kind).to(dtype) for _ in range(2))
    out = torch.empty(side, side, device=kind, dtype=dtype)
    return float(2 * side**3 / fastest_s(_waited(kind, lambda: torch.mm(left, right, out=out))))


def _copy(kind: str) -> float:
    source = torch.ones(COPY_BYTES[kind], dtype=torch.uint8, device=kind)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES[kind] / fastest_s(_waited(kind, lambda: target.copy_(source)))


def _waited(kind: str, work: Call) -> Call:
    """A call that has finished when it returns."""

    def call() -> None:
        work()
        if kind == "cuda":
            torch.cuda.synchronize()  # SYNC: the host's clock is read next

    return call
