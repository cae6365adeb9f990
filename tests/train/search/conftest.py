"""Shared by the tests of searches: few small pictures, short trainings, and step times that take no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.search import step_time
from train.search.options import SearchOptions


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 training and 24 validation pictures of 16 px, in two classes that differ in brightness."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("few") / "few.npz"
    labels = np.arange(56) % 2
    pictures = (rng.integers(0, 128, (56, 16, 16, 3)) + 90 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(path, x_train=pictures[:32], y_train=labels[:32], x_val=pictures[32:], y_val=labels[32:])
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds of one step: what is tested is not how well they are timed."""
    pytest.importorskip("optuna")
    monkeypatch.setattr(step_time, "ROUNDS", 3)
    monkeypatch.setattr(step_time, "MOST_TIMES", 1)
    monkeypatch.setattr(step_time, "VISIT_MS", 0.0)


@pytest.fixture
def asked(few: Path, tmp_path: Path, quick: None) -> Callable[..., SearchOptions]:
    """`asked(trials=4)`: the control space on few pictures, two epochs, no finalists."""

    def options(**changes: Any) -> SearchOptions:
        usual = {"epochs": 2, "image_size": 16, "batch_size": 16, "trials": 4, "finalists": 0}
        fixed = {"data": str(few), "space": "control", "recipe": "fixed", "device": "cpu", "workers": 0}
        return SearchOptions(**{**fixed, **usual, "out": tmp_path / "search", **changes})

    return options
