"""Shared by the export tests: one real export of the trained tiny network, and runners that are easy to predict."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from export.contract import Contract
from zoo.model.efficientnet import EfficientNet
from zoo.model.spec import Preprocessing
from zoo.weights.checkpoint import Checkpoint


class MeanColourRunner:
    """A runner whose logits are the mean of each colour, so that a test knows them without a network."""

    artifact = "mean-colour"
    backend = "numpy"
    device = "CPU"
    temperature: float | None = None

    def __init__(self, classes: tuple[str, ...], *, image_size: int = 8, max_batch_size: int | None = None) -> None:
        self.contract = Contract(
            model="mean-colour", classes=classes, preprocessing=Preprocessing(image_size=image_size)
        )
        self.max_batch_size = max_batch_size
        self.batches: list[int] = []

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first three classes are red, green and blue; further ones are never likely."""
        self.batches.append(len(pictures))
        logits = np.full((len(pictures), len(self.contract.classes)), -100.0, np.float32)
        logits[:, :3] = pictures.mean(axis=(1, 2)) / 25.0
        return logits

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to free."""


@pytest.fixture(scope="session")
def mean_colour_runner() -> type[MeanColourRunner]:
    """The class of a runner that knows colours."""
    return MeanColourRunner


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_run: Path) -> Path:
    """The checkpoint of tiny, trained on the digits."""
    return tiny_run / "checkpoint.safetensors"


@pytest.fixture
def tiny_model(tiny_checkpoint: Path) -> tuple[EfficientNet, Checkpoint]:
    """The trained tiny network, fresh for every test."""
    from zoo.weights.checkpoint import load_checkpoint

    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="session")
def tiny_contract(tiny_checkpoint: Path) -> Contract:
    """The contract of the trained tiny network."""
    from zoo.weights.checkpoint import read_card

    card = read_card(tiny_checkpoint)
    return Contract(model="tiny", classes=card.classes, preprocessing=card.preprocessing)


@pytest.fixture(scope="session")
def tiny_graph(tiny_checkpoint: Path, tiny_contract: Contract) -> ModelProto:
    """The exported graph of the trained tiny network. Copy it before you change it."""
    from export.graph import export_onnx
    from zoo.weights.checkpoint import load_checkpoint

    return export_onnx(load_checkpoint(tiny_checkpoint)[0], tiny_contract, checkpoint={"source": "test"})


@pytest.fixture(scope="session")
def digit_pictures(tiny_contract: Contract) -> NDArray[np.uint8]:
    """Twelve real digits, prepared for the tiny network."""
    from export.parity import choose_pictures

    return choose_pictures(None, tiny_contract.preprocessing, data="digits", count=12).pictures


@pytest.fixture
def exports_this_graph(monkeypatch: pytest.MonkeyPatch, tiny_graph: ModelProto) -> ModelProto:
    """Let the pipeline export a copy of `tiny_graph` in no time; returns the copy, for a test to damage."""
    graph = ModelProto()
    graph.CopyFrom(tiny_graph)
    monkeypatch.setattr("export.pipeline.export_onnx", lambda *_, **__: graph)
    return graph


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a driver, wherever the tests run."""
    for module in (
        "export.engine.build",
        "export.pipeline",
        "export.refit",
        "export.runners.tensorrt",
        "export.runners.onnx_runtime",
    ):
        monkeypatch.setattr(f"{module}.cuda_driver", lambda: None)


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which neither TensorRT is installed."""
    monkeypatch.setattr("export.engine.tensorrt_api.find_spec", lambda name: None)
