"""What "auto" and nothing said become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from train import settings
from train.settings import default_workers
from zoo.data.pictures import Pictures

FILES = Pictures("x", ("a", "b"), [Path("a/1.png"), Path("b/2.png")], np.arange(2))
ARRAYS = Pictures("x", ("a", "b"), [np.zeros((4, 4, 3), np.uint8)] * 2, np.arange(2))


@pytest.mark.parametrize(
    ("cores", "device", "expected"), [(1, "cpu", 0), (1, "cuda", 1), (4, "cpu", 4), (64, "cpu", 8)]
)
def test_files_are_decoded_by_a_process_a_core(
    cores: int, device: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "usable_processors", lambda: cores)
    assert default_workers(FILES, torch.device(device)) == expected
    assert default_workers(ARRAYS, torch.device(device)) == 0
