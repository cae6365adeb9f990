"""What decoding and inference reach without a server: the ceiling of every layout of one instance a core.

One thread a core prepares pictures as `zoo serve` does, with the same decoder, and runs them through a session of one
thread: no socket, no queue, no hand-over between threads.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np

from export.runners.onnx_runtime import OnnxRunner
from serve.bench.measure.load import WARM_UP_SHARE, LoadRow
from serve.core.decoders import LARGE_PIXELS, Pictures, Preparer
from zoo.machine import usable_processors
from zoo.results import summarize

# A server may wait for a full batch or not; the better of these is the ceiling.
BATCHES = (1, 8)


def ceiling(name: str, model: Path, body: bytes, pictures: Pictures, *, duration_s: float) -> LoadRow:
    """The best rate of `body`, a JPEG of usual size, as a closed loop of one client a core."""
    rows = [_row(name, model, body, pictures, batch, duration_s) for batch in BATCHES]
    return max(rows, key=lambda row: row.good_per_s)


def _row(name: str, model: Path, body: bytes, pictures: Pictures, batch: int, duration_s: float) -> LoadRow:
    cores, samples = usable_processors(), list[tuple[float, float]]()
    began_s = time.perf_counter()

    def work() -> None:
        runner, preparer = OnnxRunner(model, device="cpu", threads=1), Preparer(pictures)
        prepare = partial(
            preparer.prepare,
            body,
            runner.contract.preprocessing,
            max_pixels=LARGE_PIXELS,
            is_given_up=lambda: False,
        )
        while (start_s := time.perf_counter() - began_s) < duration_s:
            runner.infer(np.stack([prepare() for _ in range(batch)]))
            samples.append((start_s, time.perf_counter() - began_s))

    threads = [threading.Thread(target=work) for _ in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first_s = WARM_UP_SHARE * duration_s
    in_time = sum(first_s <= end_s < duration_s for _, end_s in samples)
    summary = summarize(1000.0 * (end_s - start_s) for start_s, end_s in samples if start_s >= first_s)
    return LoadRow(
        server=name,
        loop="closed",
        clients=cores,
        duration_s=duration_s,
        good_per_s=batch * in_time / (duration_s - first_s),
        refused_per_s=0.0,
        lost=0,
        summary=summary,
        refusals=None,
        after_ms=summary.p50_ms,
    )
