from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.results import read_results


def test_every_stage_is_timed_and_kept(zoo: Callable, in_folder: Path) -> None:
    flags = ("--image-size", 24, "--batch-size", 4, "--steps", 5, "--device", "cpu", "-o", "results")
    answer = zoo("bench", "train", "tiny", *flags, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    rows = result["data"]["rows"]
    assert [row["stage"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["image_size"] == 24
    for row in rows:
        assert row["ms_per_step"]["n"] == 5
        assert row["pictures_per_second"] == pytest.approx(4000 / row["ms_per_step"]["p50_ms"])
        assert row["peak_memory_bytes"] is None
    (kept,) = read_results([in_folder / "results"])
    assert kept.to_dict() == result
    said = zoo("bench", "train", "tiny", *flags).out
    # Of 5 samples a p99 would be the slowest under another name.
    assert said.count("pictures/s") == said.count("slowest") == said.count("n 5") == 4
    assert "p99" not in said


@pytest.mark.gpu
def test_training_throughput_on_a_gpu(zoo: Callable, in_folder: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU; the CPU twin above runs everywhere")
    answer = zoo("bench", "train", "tiny", "--steps", 5, "--device", "cuda", "--json")
    assert all(row["peak_memory_bytes"] > 0 for row in json.loads(answer.out)["data"]["rows"])
