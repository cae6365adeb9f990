from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from serve.bench.measure.isolated import thinned
from serve.bench.measure.places import OPERATORS, places
from serve.bench.measure.stage_rows import Peaks
from serve.bench.measure.stage_runs import bench_stages
from serve.bench.measure.stages import StagesData
from serve.bench.stage_options import StagesOptions
from tests.serve.bench.measure.made_rounds import rounds_of
from tests.serve.bench.measure.simulated import QUIET
from zoo.errors import VerdictError, ZooError
from zoo.machine import processor_name
from zoo.measure.packed import pack
from zoo.measure.rounds import Visit
from zoo.measure.timing import Schedule
from zoo.model.row_files import write_new_row
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS
from zoo.results import result_path

# A few calls show that a form runs.
HASTY = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=0.01, min_iterations=1, rounds=3)

pytestmark = pytest.mark.usefixtures("known_peaks")


def options(**fields: object) -> StagesOptions:
    asked = {
        "model": "tiny",
        "image_size": 32,
        "engines": ("torch",),
        "by": ("isolated",),
        "device": "cpu",
        "threads": 1,
    }
    return StagesOptions(**asked | fields)  # type: ignore[arg-type]


def test_every_method_is_in_one_result(known_peaks: Peaks) -> None:
    heard: list[str] = []
    (result,) = bench_stages(options(by=()), schedule=HASTY, say=heard.append)
    data = StagesData.from_dict(result.data)
    assert [row.index for row in data.rows] == [row.index for row in data.exchange] == [1, 2, 3]
    assert data.in_place and data.in_place.profiler == "torch"
    assert data.peaks == known_peaks
    assert (data.engine, data.backend.partition(" ")[0]) == ("torch", "torch")
    assert result.device == processor_name()
    assert result.settings["threads"] == 1
    assert any(line.startswith("stage 2 exchanged") for line in heard)


def test_a_run_gives_its_threads_back() -> None:
    before = torch.get_num_threads()
    (result,) = bench_stages(options(threads=before + 1), schedule=HASTY)
    assert result.subjects[0].threads == before + 1
    assert torch.get_num_threads() == before


def test_engines_precisions_and_squeezes_give_results_of_their_own(tmp_path: Path) -> None:
    asked = options(se=("both", "none"), kernel_size=5)
    results = list(bench_stages(asked, schedule=HASTY))
    assert len({result_path(tmp_path, result) for result in results}) == 2
    for result, ratio in zip(results, (0.25, 0.0), strict=True):
        for row in StagesData.from_dict(result.data).rows:
            assert {form.se_ratio for form in row.forms} == {ratio}
            assert row.kernel_size == 5


def test_of_a_frame_some_samples_are_kept_and_the_median_of_all() -> None:
    visit = Visit(packed=pack([1.0, 2.0] * 500), n=1000, p50_ms=1.0, wall_ms=1500.0, vitals=QUIET)
    rounds = rounds_of({"frame": [1.0], "mbconv": [1.0]})
    long = replace(rounds, tracks=tuple(replace(track, visits=(visit,)) for track in rounds.tracks))
    frame, other = thinned(long, "frame").tracks
    assert (frame.visits[0].n, len(frame.visits[0].ms), frame.visits[0].p50_ms) == (100, 100, 1.0)
    assert other.visits[0] == visit


def test_an_engine_without_a_profiler_says_so(one_stage: str) -> None:
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    asked = options(model=one_stage, engines=("openvino",), by=("in-place",), image_size=16)
    (result,) = bench_stages(asked, schedule=HASTY)
    assert result.data["notes"] == ["Not in place: of OpenVINO its runner keeps no profile."]
    assert result.data["in_place"] is None


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"model": "resnet50"}, "no MBConv stages"),
        ({"map_stages": (4,)}, "tiny has stages 1 to 3"),
        ({"precisions": ("fp16",)}, "not measured in fp16"),
        ({"engines": ("openvino",), "device": "cuda"}, "--device is cuda"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_measured(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ZooError, match=problem):
        next(iter(bench_stages(options(**fields), schedule=HASTY)))


def test_a_form_that_overflows_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from serve.bench.measure import isolated

    build, timed = isolated.build_form, list[object]()

    def broken(*arguments: object) -> torch.nn.Module:
        module = build(*arguments)  # type: ignore[arg-type]
        with torch.no_grad():
            next(module.parameters()).fill_(float("inf"))
        return module

    monkeypatch.setattr(isolated, "build_form", broken)
    monkeypatch.setattr(isolated, "measure_rounds", lambda *arguments: timed.append(arguments))
    with pytest.raises(VerdictError, match="finite") as error:
        next(iter(bench_stages(options(), schedule=HASTY)))
    assert "not timed" in error.value.hint
    assert not timed


@pytest.mark.parametrize(
    "variant", [variant for variant in VARIANTS if not variant.is_resnet], ids=lambda variant: variant.id
)
def test_every_row_with_stages_can_be_timed(
    variant: Variant, shrink: Callable[[Variant], Variant], tmp_path: Path
) -> None:
    """Narrow and with fewer layers, by way of a row file, which is how such a network is named."""
    row = write_new_row(tmp_path / "small.toml", shrink(variant), variant.id)
    (result,) = bench_stages(options(model=str(tmp_path / "small.toml")), schedule=HASTY)
    rows = result.data["rows"]
    assert [(found["in_channels"], found["out_channels"]) for found in rows] == [
        (place.in_channels, place.stage.out_channels) for place in places(row, 32)
    ]
    assert result.subjects[0].sha256
    for found, stage in zip(rows, row.stages, strict=True):
        assert found["paper_operator"] == stage.operator
        assert {found[form]["operator"] for form in OPERATORS} == set(OPERATORS)
        assert all(found[form]["latency"]["n"] >= 3 for form in OPERATORS)


@pytest.mark.gpu
def test_stages_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU; the processor's twin is above")
    (result,) = bench_stages(options(device="cuda", threads=None, by=()), schedule=HASTY)
    data = StagesData.from_dict(result.data)
    assert all(form.latency.n >= 3 for row in data.rows for form in row.forms)
    assert data.in_place and data.in_place.sum_ms > 0
