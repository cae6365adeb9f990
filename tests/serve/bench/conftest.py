"""Shared by the harness's tests: results of the commands, and a reader of pages. Tests get them as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from serve.bench.measure.latency_data import LatencyRow, compare_rows
from serve.bench.measure.places import places
from serve.bench.measure.stage_rows import Peaks
from serve.bench.measure.stages import FRAME, stage_row
from serve.bench.report.devices import group_by_device, headlines
from tests.serve.bench.measure.made_rounds import rounds_of
from zoo.measure.timing import Schedule
from zoo.model.row_files import write_new_row
from zoo.model.variants import find_variant
from zoo.results import Result, measured_on, summarize

S = find_variant("s")
# Milliseconds of MBConv and Fused-MBConv per stage: fused wins 1 to 3, stage 4 is even, MBConv wins 5 and 6.
TIMES = ((2.0, 1.0), (3.6, 1.8), (1.7, 1.4), (1.0, 1.01), (2.9, 5.6), (3.6, 8.8))


def a_stages_result(
    device: str = "NVIDIA H100",
    times: Sequence[tuple[float, float]] = TIMES,
    precision: str = "fp16",
    *,
    robbed: bool = False,
    **more: Any,
) -> Result:
    """Of S; every round of both forms took what `times` says, and `more` are further fields of the data."""
    rows = [
        stage_row(
            S,
            place,
            rounds_of({"mbconv": [mbconv] * 5, "fused_mbconv": [fused] * 5, FRAME: [0.0] * 5}, robbed=robbed),
            batch_size=32,
            precision=precision,
            engine="TensorRT 11.4",
        )
        for place, (mbconv, fused) in zip(places(S, 384), times, strict=True)
    ]
    return Result(
        kind="stages",
        name=f"s-384px-b32-{precision}",
        environment=measured_on(device),
        settings={"schedule": Schedule().to_dict(), "clock": "CUDA events"},
        data={
            "model": "s",
            "variant": S.to_dict(),
            "image_size": 384,
            "batch_size": 32,
            "precision": precision,
            "rows": [row.to_dict() for row in rows],
            "total_ms": {"paper": 0.0},  # added up again from the rows, never believed
            "gpu": {"n": 12, "power_w": {"min": 200.0, "mean": 300.0, "max": 400.0}, "throttle_reasons": ["power cap"]},
            "gpu_reason": "",
            "engine": "tensorrt",
            **more,
        },
    )


def a_latency_result(names: Sequence[str] = ("s.onnx", "s.plan"), *, spread: float = 0.0, samples: int = 200) -> Result:
    rows = [
        LatencyRow(
            artifact=name,
            batch_size=size,
            latency=summarize([base * size * (1 + spread * (index % 2)) for index in range(samples)]),
            pictures_per_second=1000 / base,
            round_p50_ms=(base * size,) * 5,
            max_difference=0.0,
        )
        for size in (1, 8)
        for name, base in zip(names, (4.0, 2.0), strict=False)
    ]
    picture = {"width_px": 640, "height_px": 427, "image_size": 384, "encoded_bytes": 9, "source": "china.jpg"}
    artifacts = [
        {
            "artifact": name,
            "model": "s",
            "backend": "fake",
            "device": "NVIDIA H100",
            "image_size": 384,
            "num_classes": 10,
        }
        for name in names
    ]
    return Result(
        kind="latency",
        name=" vs ".join(names),
        environment=measured_on("NVIDIA H100"),
        settings={"schedule": Schedule().to_dict(), "clock": "the host's", "threads": 3},
        data={
            "artifacts": artifacts,
            "rows": [row.to_dict() for row in rows],
            "comparisons": [one.to_dict() for one in compare_rows(rows)],
            "picture": picture | {"decode": summarize([3.0]).to_dict(), "prepare": summarize([1.0]).to_dict()},
            "gpu": None,
            "gpu_reason": "NVML is not installed",
        },
    )


def a_train_result() -> Result:
    rows = [
        {
            "stage": 1 + index,
            "image_size": size,
            "batch_size": 64,
            "pictures_per_second": 64 / ms * 1000,
            "ms_per_step": summarize([ms] * 20).to_dict(),
        }
        for index, (size, ms) in enumerate(((128, 64.0), (300, 160.0)))
    ]
    return Result(
        kind="train",
        name="s-folder-bf16",
        environment=measured_on("NVIDIA H100"),
        settings={"model": "s", "recipe": "folder", "precision": "bf16", "steps": 20},
        data={"rows": rows},
    )


class PageChecker(HTMLParser):
    """Collects what a page loads and says, and refuses tags that are not closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture
def known_peaks(monkeypatch: pytest.MonkeyPatch) -> Peaks:
    """Peaks of a device that nobody measures: that takes seconds, and has tests of its own."""
    peaks = Peaks(flops_per_s=1e12, flops_by="a product", bytes_per_s=1e11, bytes_by="a copy")
    monkeypatch.setattr("serve.bench.measure.stage_runs.measure_peaks", lambda variant, bench: peaks)
    return peaks


@pytest.fixture
def one_stage(tmp_path: Path) -> str:
    """The file of a network with one stage of one block, for where each form is exported: that takes seconds."""
    tiny = find_variant("tiny")
    write_new_row(tmp_path / "one.toml", replace(tiny, id="one", stages=tiny.stages[:1]), tiny.id)
    return str(tmp_path / "one.toml")


@pytest.fixture
def stages_result() -> Callable[..., Result]:
    return a_stages_result


@pytest.fixture
def latency_result() -> Callable[..., Result]:
    return a_latency_result


@pytest.fixture
def train_result() -> Callable[..., Result]:
    return a_train_result


@pytest.fixture
def said_of() -> Callable[..., list[str]]:
    """The sentences about the one device of some results."""

    def say(*results: Result) -> list[str]:
        (runs,) = group_by_device(results)
        return headlines(runs)

    return say


@pytest.fixture
def check() -> Callable[[str], PageChecker]:
    """Read a page, and refuse one whose tags are not closed in order."""

    def read(page: str) -> PageChecker:
        checker = PageChecker()
        checker.feed(page)
        checker.close()
        assert not checker.open
        return checker

    return read
