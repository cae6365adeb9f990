from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serve.bench.measure.simulated import BUSY, FakeWatch
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
        assert row["ms_per_step"]["n"] >= 5
        assert row["pictures_per_second"] == pytest.approx(4000 / row["ms_per_step"]["p50_ms"])
        assert row["peak_memory_bytes"] is None
    (kept,) = read_results([in_folder / "results"])
    assert kept.to_dict() == result
    said = zoo("bench", "train", "tiny", *flags).out
    # Of 5 samples a p99 would be the slowest under another name.
    assert said.count("pictures/s") == said.count("slowest") == 4
    assert "p99" not in said


@pytest.mark.gpu
def test_training_throughput_on_a_gpu(zoo: Callable, in_folder: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU; the CPU twin above runs everywhere")
    answer = zoo("bench", "train", "tiny", "--steps", 5, "--device", "cuda", "--json")
    assert all(row["peak_memory_bytes"] > 0 for row in json.loads(answer.out)["data"]["rows"])


def test_every_size_is_timed_with_every_batch_and_its_memory_told(zoo: Callable, in_folder: Path) -> None:
    grid = ("--at-size", 16, "--at-size", 32, "--at-batch", 2, "--at-batch", 8, "--steps", 12, "--device", "cpu")
    answer = zoo("bench", "train", "tiny", *grid, "-o", "results", "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    rows = result["data"]["rows"]
    assert [(row["image_size"], row["batch_size"]) for row in rows] == [(16, 2), (16, 8), (32, 2), (32, 8)]
    peaks = [row["peak_process_bytes"] for row in rows]
    assert peaks == sorted(peaks)
    assert all(row["ms_per_step"]["n"] >= 12 for row in rows)
    assert result["data"]["out_of_memory"] == []
    page = zoo("bench", "report", "results", "-o", "report.html")
    assert page.code == 0, page.err
    (kept,) = (in_folder / "results").glob("train-*.json")
    assert "16-32px" in kept.name
    same = zoo("bench", "compare", kept, kept)
    assert same.code == 0
    assert "32 px, batch 8" in same.out


def test_timms_network_makes_the_same_steps_in_turn(zoo: Callable, in_folder: Path) -> None:
    pytest.importorskip("timm")
    grid = ("--at-size", 32, "--at-batch", 2, "--steps", 10, "--device", "cpu", "--beside-timm", "-o", "results")
    answer = zoo("bench", "train", "lite0", *grid, "--json")
    assert answer.code == 0, answer.err
    (row,) = json.loads(answer.out)["data"]["rows"]
    assert row["timm"]["network"] == "tf_efficientnet_lite0"
    visits = [track["visits"] for track in row["rounds"]["tracks"]]
    assert [track["name"] for track in row["rounds"]["tracks"]] == ["zoo", "timm"]
    assert len(visits[0]) == len(visits[1]) >= 10
    said = zoo("bench", "report", "results", "-o", "report.html").out
    assert "beside timm's network in the same loop" in said


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--batch-size", 8, "--at-batch", 4), "no effect with --at-batch"),
        (("--beside-timm",), "timm has no tiny"),
    ],
)
def test_what_has_no_effect_or_no_twin_is_refused(
    zoo: Callable, in_folder: Path, flags: tuple[object, ...], problem: str
) -> None:
    answer = zoo("bench", "train", "tiny", "--device", "cpu", *flags)
    assert answer.code in (1, 2)
    assert problem in answer.err


def test_a_machine_that_was_not_quiet_is_told_first(
    zoo: Callable, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.measure.rounds.Watch", lambda: FakeWatch(then=BUSY))
    flags = ("--at-size", 16, "--at-batch", 2, "--steps", 3, "--device", "cpu", "--threads", 1, "-o", "results")
    answer = zoo("bench", "train", "tiny", *flags)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("• The machine was not quiet: 6 of 6 rounds were disturbed")
    (kept,) = read_results([in_folder / "results"])
    assert (kept.data["quiet"], kept.settings["threads"]) == (False, 1)
    said = zoo("bench", "report", "results", "-o", "report.html").out
    assert said.startswith("• The machine was not quiet")
