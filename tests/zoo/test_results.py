from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo.results import (
    REPORT_FORMAT,
    Result,
    Subject,
    Summary,
    measured_on,
    percentile,
    read_results,
    result_path,
    row_sha256,
    summarize,
    write_result,
)

SAMPLES = st.lists(st.floats(min_value=1e-3, max_value=1e4), min_size=1, max_size=300)


def a_result(**changes: Any) -> Result:
    fields: dict[str, Any] = {
        "kind": "latency",
        "name": "s.onnx",
        "environment": measured_on("NVIDIA H100 80GB HBM3"),
        "settings": {"rounds": 5},
        "data": {"rows": []},
    }
    return Result(**(fields | changes))


@pytest.mark.parametrize(
    ("n", "percent", "index"),
    # By hand from findPercentile: 10 samples leave out ⌊0.1 · 10⌋ = 1 for p90, 100 leave out 1 for p99.
    [(10, 90, 8), (10, 99, 9), (10, 50, 4), (100, 99, 98), (200, 99, 197), (1, 99, 0), (3, 50, 1), (7, 0, 0)],
)
def test_percentiles_take_trtexecs_index(n: int, percent: int, index: int) -> None:
    assert percentile(list(range(n)), percent) == index


@given(st.integers(1, 2000), st.integers(0, 100))
def test_percentiles_follow_the_formula_in_exact_arithmetic(n: int, percent: int) -> None:
    excluded = math.floor((1 - Fraction(percent, 100)) * n)
    assert percentile(range(n), percent) == max(n - 1 - excluded, 0)


@pytest.mark.parametrize(("samples", "percent"), [([], 50), ([1.0], 101), ([1.0], -1)])
def test_a_percentile_of_nothing_is_refused(samples: list[float], percent: int) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(samples, percent)


@given(SAMPLES)
def test_a_summary_is_ordered_and_made_of_real_samples(samples: list[float]) -> None:
    summary = summarize(samples)
    ordered = [summary.min_ms, summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms, summary.max_ms]
    assert ordered == sorted(ordered)
    assert set(ordered) <= set(samples)
    assert summary.n == len(samples)
    assert summary.min_ms <= summary.mean_ms <= summary.max_ms
    assert Summary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary


@given(SAMPLES, st.floats(min_value=1e-2, max_value=1e2))
def test_the_variation_does_not_depend_on_the_unit(samples: list[float], factor: float) -> None:
    scaled = summarize(sample * factor for sample in samples).coefficient_of_variation
    assert scaled == pytest.approx(summarize(samples).coefficient_of_variation, rel=1e-6, abs=1e-9)


def test_the_deviation_is_over_n_as_in_trtexec() -> None:
    summary = summarize([1.0, 3.0])
    assert (summary.mean_ms, summary.std_ms, summary.coefficient_of_variation) == (2.0, 1.0, 0.5)


def test_above_two_and_a_half_percent_is_unstable() -> None:
    assert not summarize([100.0, 104.9]).unstable  # 2.45 / 102.45 = 2.39 %
    assert summarize([100.0, 105.5]).unstable  # 2.75 / 102.75 = 2.68 %
    assert summarize([100.0, 105.5]).to_dict()["unstable"] is True


def test_no_samples_have_no_summary() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarize([])


def test_a_result_survives_the_disk(tmp_path: Path) -> None:
    result = a_result()
    path = write_result(tmp_path / "benchmarks", result)
    assert path == tmp_path / "benchmarks" / "latency-s-onnx-nvidia-h100-80gb-hbm3.json"
    assert json.loads(path.read_text())["format"] == "zoo-result-1"
    assert read_results([path]) == [result]
    assert result.device == "NVIDIA H100 80GB HBM3"


def test_the_same_run_replaces_its_result_and_another_device_does_not(tmp_path: Path) -> None:
    write_result(tmp_path, a_result())
    write_result(tmp_path, a_result(settings={"rounds": 7}))
    write_result(tmp_path, a_result(environment=measured_on("NVIDIA H200")))
    found = read_results([tmp_path])
    assert [(result.device, result.settings["rounds"]) for result in found] == [
        ("NVIDIA H100 80GB HBM3", 7),
        ("NVIDIA H200", 5),
    ]


def subject(**changes: Any) -> Subject:
    facts = {
        "name": "s.onnx",
        "batch_sizes": (1, 8),
        "precision": "fp32",
        "threads": 2,
        "sha256": "1f0c9a2e" + "0" * 56,
    }
    return Subject(**(facts | changes))


def path_of(*subjects: Subject, **changes: Any) -> Path:
    settings = {"subjects": [one.to_dict() for one in subjects]}
    return result_path(Path(), a_result(settings=settings, environment={"device": "NVIDIA H200"}, **changes))


def test_a_file_is_named_after_what_was_measured() -> None:
    assert str(path_of(subject())) == "latency-s-onnx-b1-b8-fp32-2-threads-1f0c9a2e-nvidia-h200.json"
    unknown = subject(batch_sizes=(), precision=None, threads=None, sha256=None)
    assert str(path_of(unknown)) == "latency-s-onnx-nvidia-h200.json"
    plan = subject(name="s.plan", precision="fp16", threads=None, sha256="77ab0012" + "0" * 56)
    assert str(path_of(subject(), plan)) == (
        "latency-s-onnx-vs-s-plan-b1-b8-fp32-vs-fp16-2-threads-vs-none-1f0c9a2e-vs-77ab0012-nvidia-h200.json"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "m.onnx"},
        {"batch_sizes": (1,)},
        {"precision": "fp16"},
        {"threads": 1},
        {"threads": None},
        {"sha256": "2" * 64},
        {"sha256": None},
    ],
)
def test_whatever_was_measured_otherwise_has_a_file_of_its_own(changes: dict[str, Any]) -> None:
    assert path_of(subject(**changes)) != path_of(subject())
    assert path_of(subject(), subject(**changes)) != path_of(subject())
    assert path_of(subject(), subject()) != path_of(subject())
    assert path_of(subject(), kind="stages") != path_of(subject())
    assert path_of(subject(), name="told otherwise") == path_of(subject())


def test_a_long_name_is_cut_and_still_its_own(tmp_path: Path) -> None:
    many = [subject(name=f"artifact-{index}.onnx") for index in range(40)]
    path, other = path_of(*many), path_of(*many[:-1])
    assert path != other
    assert max(len(path.name), len(other.name)) <= 220
    settings = {"subjects": [one.to_dict() for one in many]}
    assert read_results([write_result(tmp_path, a_result(settings=settings))])[0].subjects == tuple(many)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_reaches_no_file(tmp_path: Path, broken: float) -> None:
    with pytest.raises(ZooError, match=rf"data\.rows\[1\]\.ms is {broken}"):
        write_result(tmp_path, a_result(data={"rows": [{"ms": 1.0}, {"ms": broken}]}))
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_is_no_file_has_a_hash_too() -> None:
    one, other = subject(), subject(threads=4)
    assert row_sha256(one) == row_sha256(Subject.from_dict(one.to_dict())) != row_sha256(other)


@given(st.text(), st.text())
def test_any_name_makes_a_file_name(name: str, device: str) -> None:
    path = result_path(Path("folder"), a_result(name=name, environment={"device": device}))
    assert path.parent == Path("folder")
    assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def test_folders_are_read_with_their_subfolders_and_each_file_once(tmp_path: Path) -> None:
    path = write_result(tmp_path / "h100", a_result())
    assert len(read_results([tmp_path, path])) == 1


def test_a_report_beside_the_results_is_passed_over(tmp_path: Path) -> None:
    write_result(tmp_path, a_result())
    (tmp_path / "report.json").write_text(json.dumps({"format": REPORT_FORMAT}))
    assert len(read_results([tmp_path])) == 1
    with pytest.raises(ZooError, match="not a result"):
        read_results([tmp_path / "report.json"])


def damage(**changes: Any) -> str:
    return json.dumps(a_result().to_dict() | changes)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1, 2]", "not a result"),
        ('{"format": "somebody-else"}', "not a result"),
        ("{", "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        (damage(kind="weather"), "kind 'weather'"),
        (damage(kind=["latency"]), "kind .'latency'."),
        (damage(data=None), "damaged"),
        (damage(name=7), "damaged"),
        (damage(environment={}), "names no device"),
        (damage(environment={"device": ["a", "b"]}), "names no device"),
        (damage(environment={"device": " "}), "names no device"),
    ],
)
def test_foreign_and_damaged_json_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ZooError, match=problem) as error:
        read_results([tmp_path], kinds=("latency", "stages"))
    assert str(path) in error.value.problem
    assert error.value.hint


def test_a_mark_that_an_editor_puts_before_the_text_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("\ufeff" + damage(), encoding="utf-8")
    assert read_results([path]) == [a_result()]


def test_what_a_caller_finds_in_a_result_comes_with_its_file(tmp_path: Path) -> None:
    path = write_result(tmp_path, a_result())

    def refuse(result: Result) -> None:
        raise ZooError("It is too old.", "Measure again.")

    with pytest.raises(ZooError, match=f"{path.name}: It is too old") as error:
        read_results([tmp_path], check=refuse)
    assert error.value.hint == "Measure again."


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "empty folder"])
def test_no_results_say_how_to_make_some(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "benchmarks")
    with pytest.raises(ZooError, match="no result") as error:
        read_results([tmp_path / "benchmarks"])
    assert "zoo bench stages" in error.value.hint
