"""`zoo serve` around a network that only sleeps: what benchmarks/hotpath.py asks when the server itself is measured.

    python benchmarks/hotpath_server.py PORT FIXED_MS MS_A_PICTURE SIZE_PX CLASSES [--option value …]

The options are those of `zoo serve`. Everything but the network is the real server: socket, decoding, queue, answers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from serve.core.batcher import Batcher
from serve.core.service import Service
from serve.core.slot import Engine, EngineInfo, Slot
from serve.models.models import Models, only
from serve.options import ServeOptions
from serve.server import limits_of, serve_engine
from zoo.model.spec import Preprocessing


@dataclass
class Asleep:
    """A runner that takes `fixed_ms` a batch and `each_ms` a picture, without the processor; its logits rise."""

    contract: Contract
    fixed_ms: float
    each_ms: float
    artifact: str = "asleep.onnx"
    backend: str = "sleep"
    device: str = "CPU"
    max_batch_size: int | None = None
    temperature: float | None = None
    threads: int | None = 1
    row: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.row = np.linspace(0.0, 1.0, len(self.contract.classes), dtype=np.float32)

    def infer(self, pictures: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Take the time; (N, K)."""
        if took_ms := self.fixed_ms + self.each_ms * len(pictures):
            time.sleep(took_ms / 1000.0)
        return np.tile(self.row, (len(pictures), 1))

    def outputs(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The one output."""
        return {"logits": self.infer(pictures)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass


def opener(fixed_ms: float, each_ms: float, size_px: int, classes: int) -> Callable[[ServeOptions, Any], Models]:
    """What makes the one model, instead of an artifact."""
    contract = Contract(
        model="asleep",
        classes=tuple(map(str, range(classes))),
        preprocessing=Preprocessing(image_size=size_px, interpolation="bicubic"),
    )

    def open_models(options: ServeOptions, say: Any) -> Models:
        instances, most = options.instances or 1, options.max_batch_size or 32
        batcher = Batcher(
            [Asleep(contract, fixed_ms, each_ms) for _ in range(instances)],
            queue_capacity=options.queue_capacity or 8 * most * instances,
            max_batch_size=most,
            longest_batch_s=options.max_wait_ms / 1000.0,
            stuck_after_s=options.timeout_ms / 1000.0,
        )
        info = EngineInfo(artifact="asleep.onnx", backend="sleep", device="CPU")
        return only(Service(Slot(Engine(batcher=batcher, contract=contract, info=info)), limits_of(options, batcher)))

    return open_models


def main() -> None:
    """Serve until a signal comes."""
    port, size_px, classes = int(sys.argv[1]), int(sys.argv[4]), int(sys.argv[5])
    told: dict[str, Any] = {}
    for name, value in zip(sys.argv[6::2], sys.argv[7::2], strict=True):
        told[name.removeprefix("--").replace("-", "_")] = int(value) if value.isdigit() else value
    options = ServeOptions(engine="asleep.onnx", port=port, **told)
    serve_engine(options, lambda line: None, opener(float(sys.argv[2]), float(sys.argv[3]), size_px, classes))


if __name__ == "__main__":
    main()
