from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve.bench.report.comparison import ResultComparison, compare_results
from zoo.errors import ZooError
from zoo.results import Result, write_result

Make = Callable[..., Result]
Zoo = Callable[..., Any]
LOADER = next((Path(__file__).parents[4] / "benchmarks").glob("loader-2-workers-intel*.json"))
ROUNDS = (1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.005, 0.995, 1.01, 0.99)


@pytest.fixture
def keep(tmp_path: Path, latency_result: Make) -> Callable[..., Path]:
    """`keep("before", factor=1.1)`: a file of one artifact whose rounds take so many times as long."""

    def write(
        folder: str,
        *,
        factor: float = 1.0,
        names: tuple[str, ...] = ("s.onnx",),
        rounds: tuple[float, ...] = ROUNDS,
        **environment: Any,
    ) -> Path:
        fields = latency_result(names).to_dict()
        for row in fields["data"]["rows"]:
            row["round_p50_ms"] = [factor * row["latency"]["p50_ms"] * each for each in rounds]
        fields["environment"] |= environment
        return write_result(tmp_path / folder, Result.from_dict(fields))

    return write


def test_what_is_slower_for_certain_fails_and_what_is_not_passes(zoo: Zoo, keep: Callable[..., Path]) -> None:
    before, same, slower = keep("before"), keep("same", factor=1.01), keep("slower", factor=1.2)
    passed = zoo("bench", "compare", before, same)
    assert passed.code == 0, passed.err
    assert passed.out.count("even") == 2
    failed = zoo("bench", "compare", before, slower, "--json")
    assert failed.code == 3
    assert "batch 1 1.20× (" in failed.err
    said = json.loads(failed.out)
    assert (said["verdict"], said["changes"][0]["ratio"]["verdict"]) == ("slower", "slower")
    assert ResultComparison.from_dict(said).verdict == "slower"
    assert zoo("bench", "compare", before, slower, "--tolerance", 30).code == 0
    assert zoo("bench", "compare", slower, before).code == 0  # faster is no regression


def test_what_cannot_be_told_fails_only_if_that_was_asked_for(zoo: Zoo, keep: Callable[..., Path]) -> None:
    noisy = (0.8, 1.3, 1.0, 0.9, 1.4, 0.7, 1.2, 1.1, 0.85, 1.15)
    before, after = keep("before", rounds=noisy), keep("after", rounds=noisy, factor=1.05)
    answer = zoo("bench", "compare", before, after)
    assert answer.code == 0
    assert "unclear" in answer.out and "Measure both longer" in answer.out
    strict = zoo("bench", "compare", before, after, "--strict")
    assert strict.code == 3
    assert "Slower, or may be, by more than 5 %" in strict.err


def test_one_artifact_is_compared_whatever_it_is_called_and_several_by_name(keep: Callable[..., Path]) -> None:
    renamed = compare_results(keep("before"), keep("after", names=("s-v2.onnx",)), 5.0)
    assert [change.name for change in renamed.changes] == ["batch 1", "batch 8"]
    two = compare_results(keep("a", names=("s.onnx", "old.plan")), keep("b", names=("s.onnx", "new.plan")), 5.0)
    assert [change.name for change in two.changes] == ["s.onnx, batch 1", "s.onnx, batch 8"]
    assert two.only_before == ("old.plan, batch 1", "old.plan, batch 8")
    assert two.only_after == ("new.plan, batch 1", "new.plan, batch 8")


def test_what_else_differs_is_told(zoo: Zoo, keep: Callable[..., Path]) -> None:
    before = keep("before", device="NVIDIA V100", packages={"torch": "2.10.0"})
    after = keep("after", packages={"torch": "2.11.0"})
    answer = zoo("bench", "compare", before, after)
    assert "Not the same: device: NVIDIA V100 → NVIDIA H100" in answer.out
    assert "torch: 2.10.0 → 2.11.0" in answer.out


def test_a_machine_that_was_not_quiet_is_told_of_each_result(zoo: Zoo, stages_result: Make, tmp_path: Path) -> None:
    quiet = write_result(tmp_path / "before", stages_result())
    busy = write_result(tmp_path / "after", stages_result(robbed=True))
    answer = zoo("bench", "compare", quiet, busy)
    assert answer.out.count("was not quiet") == 1
    assert f"• {busy.name}: The machine was not quiet" in answer.out
    assert "zoo bench latency A B" not in answer.out  # what takes artifacts in turn takes no stages
    assert len(json.loads(zoo("bench", "compare", busy, busy, "--json").out)["doubts"]) == 2


def test_results_that_cannot_be_compared_are_refused(
    keep: Callable[..., Path], latency_result: Make, stages_result: Make, tmp_path: Path
) -> None:
    before = keep("before")
    with pytest.raises(ZooError, match="of the kind latency"):
        compare_results(before, write_result(tmp_path / "other", stages_result()), 5.0)
    with pytest.raises(ZooError, match="There is no result"):
        compare_results(before, tmp_path / "missing.json", 5.0)
    with pytest.raises(ZooError, match="is a folder"):
        compare_results(before.parent, before, 5.0)
    with pytest.raises(ZooError, match="of 2 rounds no interval"):
        compare_results(before, keep("few", rounds=(1.0, 1.0)), 5.0)
    fields = latency_result(["s.onnx"]).to_dict()
    fields["data"]["rows"] = [row | {"scenario": "offline"} for row in fields["data"]["rows"]]
    elsewhere = write_result(tmp_path / "offline", Result.from_dict(fields))
    with pytest.raises(ZooError, match="no timing in common") as error:
        compare_results(before, elsewhere, 5.0)
    assert "same settings" in error.value.hint


def test_a_kind_without_rounds_says_which_kinds_have(train_result: Make, tmp_path: Path) -> None:
    result = train_result()
    fields = result.to_dict() | {"kind": "loader", "data": json.loads(LOADER.read_text())["data"]}
    path = write_result(tmp_path, Result.from_dict(fields))
    with pytest.raises(ZooError, match="no rounds to compare") as error:
        compare_results(path, path, 5.0)
    assert "latency" in error.value.hint
