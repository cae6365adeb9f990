"""Two instances on one GPU: while one computes, the other's pictures are copied. The GPU is made of memory."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.core.batcher import Batcher
from tests.export.fake_cuda import FakeCuda
from tests.export.runners.test_tensorrt import ADA, SIZE, Bench, FakeContext, FakeEngine

PATIENCE_S = 60.0


class HeldCuda(FakeCuda):
    """A stream that says when it is waited for, and is done when it is let go."""

    def __init__(self, waited_for: queue.Queue[HeldCuda], go: threading.Event) -> None:
        super().__init__()
        self.waited_for, self.go = waited_for, go

    def synchronize(self) -> None:
        self.waited_for.put(self)
        assert self.go.wait(PATIENCE_S)
        super().synchronize()


def test_a_batch_is_copied_while_another_one_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    waited_for: queue.Queue[HeldCuda] = queue.Queue()
    go = threading.Event()
    go.set()

    def open_cuda() -> HeldCuda:
        cuda = HeldCuda(waited_for, go)
        bench.module.engine = FakeEngine(FakeContext(cuda))
        return cuda

    monkeypatch.setattr("export.runners.tensorrt.cuda_driver", lambda: ADA)
    monkeypatch.setattr("export.runners.tensorrt.open_cuda", open_cuda)
    monkeypatch.setattr("export.runners.tensorrt.load_tensorrt", bench.load_tensorrt)
    runners: list[Any] = [bench.open() for _ in range(2)]
    batcher = Batcher(runners, queue_capacity=8, max_batch_size=2)
    batcher.start()
    batcher.warmed.result(PATIENCE_S)
    while not waited_for.empty():
        waited_for.get()
    go.clear()
    pictures = np.random.default_rng(0).integers(1, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    first = batcher.submit(pictures[0])
    computing = waited_for.get(timeout=PATIENCE_S)
    second = batcher.submit(pictures[1])
    copying = waited_for.get(timeout=PATIENCE_S)
    assert copying is not computing
    # Both streams have all of their work: the picture's copy, the computation, the answer's copy.
    assert (len(computing.queue), len(copying.queue)) == (3, 3)
    assert not first.done()
    go.set()
    for picture, future in zip(pictures, (first, second), strict=True):
        answer = future.result(PATIENCE_S)
        np.testing.assert_allclose(answer.logits, picture.mean(axis=(0, 1)), rtol=1e-5)
    assert batcher.close(PATIENCE_S)
    batcher.free()
