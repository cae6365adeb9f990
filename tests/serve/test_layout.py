from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import serve.layout
from serve.engine import choose_layout
from serve.layout import Layout, fastest, possible_layouts, tuned_layout, usual_layout
from serve.options import ServeOptions
from zoo.errors import ZooError


@pytest.mark.parametrize(
    ("cores", "instances", "threads", "found"),
    [
        (1, None, None, (1, 1)),
        (2, None, None, (2, 1)),
        (8, None, None, (8, 1)),
        (32, None, None, (8, 4)),
        (8, 2, None, (2, 4)),
        (8, None, 4, (2, 4)),
        (8, 3, 5, (3, 5)),
        (2, None, 8, (1, 8)),
        (2, 4, None, (4, 1)),
    ],
)
def test_on_a_processor_all_cores_are_used_and_none_twice(
    cores: int, instances: int | None, threads: int | None, found: tuple[int, int]
) -> None:
    layout = usual_layout(on_processor=True, cores=cores, instances=instances, threads=threads)
    assert (layout.instances, layout.threads) == found


def test_on_a_gpu_there_are_two_unless_others_are_asked_for() -> None:
    assert usual_layout(on_processor=False, cores=8, instances=None, threads=None) == Layout(instances=2)
    assert usual_layout(on_processor=False, cores=8, instances=1, threads=None) == Layout(instances=1)


@pytest.mark.parametrize(
    ("cores", "found"), [(1, [(1, 1)]), (2, [(1, 2), (2, 1)]), (6, [(1, 6), (2, 3), (4, 1), (6, 1)]),
                         (64, [(1, 64), (2, 32), (4, 16), (8, 8)])]
)  # fmt: skip
def test_layouts_that_are_measured(cores: int, found: list[tuple[int, int]]) -> None:
    assert [(layout.instances, layout.threads) for layout in possible_layouts(cores)] == found


def test_the_fastest_is_taken_and_of_equals_the_one_with_fewer_instances() -> None:
    rates = {1: 100.0, 2: 102.0, 4: 150.0, 8: 151.0}
    said: list[str] = []
    found = fastest(possible_layouts(8), lambda layout: rates[layout.instances], said.append)
    assert found == Layout(instances=4, threads=2)
    assert said[0] == "1 × 8 threads: 100 pictures/s" and len(said) == 4


def test_a_layout_is_measured_with_real_threads_once_and_kept(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve.layout, "MEASURE_S", 0.05)
    monkeypatch.setattr(serve.layout, "cache_folder", lambda: tmp_path / "cache")
    artifact = tmp_path / "s.onnx"
    artifact.write_bytes(b"graph")
    opened: list[tuple[int | None, Any]] = []

    def open_one(threads: int | None) -> Any:
        opened.append((threads, fake()))
        return opened[-1][1]

    first = tuned_layout(artifact, "onnxruntime", 2, open_one, lambda line: None)
    assert [threads for threads, _ in opened] == [2, 1, 1]
    assert all(runner.is_closed and runner.warmed for _, runner in opened)
    assert tuned_layout(artifact, "onnxruntime", 2, open_one, lambda line: None) == first
    assert len(opened) == 3  # nothing was opened again
    (kept,) = (tmp_path / "cache" / "layouts").iterdir()
    for damaged in ("{", json.dumps({"processor": "another", "layout": first.to_dict()})):
        kept.write_text(damaged)
        assert tuned_layout(artifact, "onnxruntime", 2, open_one, lambda line: None).instances in (1, 2)
    assert len(opened) == 9


def test_what_is_no_file_cannot_be_tuned(fake: Any) -> None:
    with pytest.raises(ZooError, match="--tune"):
        choose_layout(ServeOptions(engine="b0", tune=True, device="cpu"), lambda threads: fake(), lambda line: None)
