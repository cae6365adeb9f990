"""`zoo train --folds`: a run for each fold, one after the other, and what they say together."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tests.conftest import write_pictures
from train.compare import compare_runs
from train.folds.run import cross_validate
from train.folds.summary import Summary
from train.options import CompareOptions, TrainOptions
from train.processes.stopping import RunFinished
from train.session import train_model
from zoo.errors import CheckpointError, ZooError
from zoo.weights.checkpoint import read_card

Options = Callable[..., TrainOptions]


def answers(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/, val/ and test/ of three classes, 9, 6 and 3 pictures each."""
    root = tmp_path_factory.mktemp("pictures")
    for seed, (split, count) in enumerate((("train", 9), ("val", 6), ("test", 3))):
        write_pictures(root / split, ("blue", "green", "red"), count, seed=seed)
    return root


def test_every_picture_is_answered_by_the_run_that_had_not_seen_it(
    small: Options, pictures: Path, tmp_path: Path
) -> None:
    options = small(pictures, tmp_path / "cv", folds=3, metric="macro_f1")
    done = cross_validate(options)
    lines = answers(tmp_path / "cv")
    assert len(lines) == 45 and len({line["picture"] for line in lines}) == 45
    assert list(lines[0]) == ["split", "picture", "class", "predicted", "class_score", "score", "fold"]
    assert not any("test" in line["picture"] for line in lines)
    for number in (1, 2, 3):
        own = answers(tmp_path / "cv" / f"fold-{number}")
        assert {line["picture"] for line in own} == {line["picture"] for line in lines if line["fold"] == str(number)}
        assert {line["split"] for line in own} == {"val"}
    summary = done.result
    figures = [result.macro_f1 for result in summary.folds]
    assert (summary.n, summary.metric) == (3, "macro_f1")
    assert summary.mean == pytest.approx(fmean(figures)) and summary.std == pytest.approx(stdev(figures))
    assert summary.top1 == pytest.approx(np.mean([line["class"] == line["predicted"] for line in lines]))
    truth, found = ([line[name] for line in lines] for name in ("class", "predicted"))
    assert summary.pooled == pytest.approx(f1_score(truth, found, average="macro", zero_division=0))
    assert f"; {100 * summary.pooled:.2f} % macro F1 over all 45 pictures; " in done.summary
    assert Summary.from_dict(json.loads((tmp_path / "cv" / "summary.json").read_text())) == summary
    page = (tmp_path / "cv" / "report.html").read_text()
    assert 'href="fold-2/report.html"' in page and "Confusion" in page and "macro F1" in page
    assert read_card(tmp_path / "cv" / "fold-2" / "checkpoint.safetensors").provenance["hold_out"] == "fold 2 of 3"
    assert compare_runs(CompareOptions(runs=(tmp_path / "cv", tmp_path / "cv"))).pictures == 45


def test_a_folds_run_is_evaluated_on_its_own_fold(
    zoo: Callable[..., Any], small: Options, in_folder: Path, pictures: Path
) -> None:
    cross_validate(small(pictures, Path("cv"), folds=3))
    found = json.loads(zoo("evaluate", "cv/fold-2", "--json").out)
    summary = json.loads(Path("cv/summary.json").read_text())
    assert found["top1"] == pytest.approx(summary["folds"][1]["top1"])
    assert "fold 2 of 3" in zoo("evaluate", "cv/fold-2").out
    refused = zoo("evaluate", "cv/fold-2", "--group-by", "parent")
    assert refused.code == 1 and "of a fold, which is recorded" in refused.err


def test_a_cross_validation_that_died_goes_on_with_the_fold_it_was_in(
    small: Options,
    pictures: Path,
    tmp_path: Path,
    killed_after: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = small(pictures, tmp_path / "cv", folds=3, save_every_s=0)
    cross_validate(replace(options, out=tmp_path / "whole"))
    first = _finished_first(options, tmp_path, killed_after)
    cross_validate(replace(options, resume=True))
    assert (tmp_path / "cv" / "fold-1" / "checkpoint.safetensors").stat().st_mtime_ns == first
    assert answers(tmp_path / "cv") == answers(tmp_path / "whole")
    with pytest.raises(CheckpointError, match="that cross-validation is finished"):
        cross_validate(replace(options, resume=True))
    with pytest.raises(RunFinished):
        cross_validate(replace(options, auto_resume=True))


def _finished_first(options: TrainOptions, root: Path, killed_after: Callable[..., Any]) -> int:
    """Let the first fold finish and the second die after two epochs; when the first's checkpoint was written."""
    shutil.copytree(root / "whole" / "fold-1", root / "cv" / "fold-1")
    shutil.copy(root / "whole" / "folds.json", root / "cv" / "folds.json")
    with killed_after(2):
        cross_validate(replace(options, auto_resume=True))
    assert (root / "cv" / "fold-2" / "state.pt").is_file() and not (root / "cv" / "fold-3").exists()
    return (root / "cv" / "fold-1" / "checkpoint.safetensors").stat().st_mtime_ns


def test_other_flags_are_refused_and_a_new_one_moves_the_old_one_aside(
    small: Options, pictures: Path, tmp_path: Path
) -> None:
    options = small(pictures, tmp_path / "cv", folds=3)
    with pytest.raises(CheckpointError, match="there is no interrupted cross-validation"):
        cross_validate(replace(options, resume=True))
    cross_validate(options)
    (tmp_path / "cv" / "summary.json").unlink()
    with pytest.raises(CheckpointError, match=r"other epochs \(4, here 5\) and seed \(0, here 1\)"):
        cross_validate(replace(options, resume=True, epochs=5, seed=1))
    cross_validate(replace(options, resume=True))  # all runs were finished: only the summary is written
    assert (tmp_path / "cv" / "summary.json").is_file()
    cross_validate(replace(options, folds=2))
    assert (tmp_path / "cv.1" / "fold-3").is_dir() and not (tmp_path / "cv" / "fold-3").exists()


def test_several_labels(shapes: Path, small: Options, tmp_path: Path) -> None:
    done = cross_validate(small(shapes, tmp_path / "cv", folds=2, batch_size=32))
    assert done.result.metric == "map" and done.result.top1 is None
    lines = answers(tmp_path / "cv")
    assert len(lines) == 180 and list(lines[0]) == ["split", "picture", "labels", "predicted", "scores", "fold"]
    assert "% mAP (mean ± standard deviation of 2 folds)" in done.summary
    page = (tmp_path / "cv" / "report.html").read_text()
    assert "mAP" in page and "MAP" not in page and all(f">{name}<" in page for name in ("circle", "square", "triangle"))


def test_arrays_with_a_part_to_validate_on(small: Options, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 256, (count, 24, 24, 3), np.uint8) for name, count in (("x_train", 20), ("x_val", 10))
    }
    np.savez(tmp_path / "data.npz", **arrays, y_train=np.arange(20) % 2, y_val=np.arange(10) % 2)
    cross_validate(small(tmp_path / "data.npz", tmp_path / "cv", folds=2))
    numbers = [line["picture"].split()[1] for line in answers(tmp_path / "cv")]
    assert numbers == [str(number) for number in range(30)]


def test_a_budget_is_that_of_all_runs(
    small: Options, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str | None] = []

    def train(options: TrainOptions, **more: Any) -> Any:
        given.append(options.budget)
        return train_model(replace(options, budget=None, epochs=4), **more)

    monkeypatch.setattr("train.folds.run.train_model", train)
    cross_validate(small(pictures, tmp_path / "cv", folds=3, epochs=None, budget="5m"))
    seconds = [float((text or "").rstrip("s")) for text in given]
    assert seconds[0] == pytest.approx(100, abs=1)
    assert sum(seconds) > 299 and seconds[2] > seconds[1] > seconds[0]  # what a run leaves, the others have


def test_what_an_interrupted_run_has_had_is_of_its_own_part(
    small: Options, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 5 minutes 1 is gone when two of three folds are left: 100 s, 60 of them had, and what that leaves."""
    given: list[str | None] = []
    monkeypatch.setattr("train.folds.run.train_model", lambda options, **_: given.append(options.budget))
    monkeypatch.setattr("train.folds.run._finish", lambda *_: None)
    monkeypatch.setattr("train.folds.run._seconds_gone", lambda own: 60.0 if own.name == "fold-2" else 0.0)
    monkeypatch.setattr(
        "train.folds.run.find_run", lambda own: {"fold-1": "finished", "fold-2": "interrupted"}.get(own.name, "nothing")
    )
    cross_validate(small(pictures, tmp_path / "cv", folds=3, epochs=None, budget="5m", auto_resume=True))
    assert [float((text or "").rstrip("s")) for text in given] == pytest.approx([100, 140], abs=1)


def test_the_command_prints_the_summary(zoo: Callable[..., Any], in_folder: Path, pictures: Path) -> None:
    asked = ("train", "tiny", "--data", pictures, "--epochs", 4, "--batch-size", 8, "--image-size", 24, "--workers", 0)
    answer = zoo(*asked, "--device", "cpu", "--folds", 2, "-o", "cv", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["n"] == 2 and found["format"] == "zoo-folds-1" and len(found["folds"]) == 2
    assert "Fold 1 of 2" in answer.err and "Fold 2 of 2" in answer.err
    again = zoo(*asked, "--device", "cpu", "--folds", 2, "-o", "cv", "--resume")
    assert again.code == 1 and "that cross-validation is finished" in again.err


def test_a_plan_shows_all_runs(zoo: Callable[..., Any], pictures: Path) -> None:
    answer = " ".join(zoo("train", "tiny", "--data", pictures, "--folds", 5, "--plan").out.split())
    assert "Cross-validation: 5 such runs, each of which holds another fold of 9 pictures out" in answer
    one, all_five = (
        json.loads(zoo("train", "tiny", "--data", pictures, *more, "--plan", "--json").out)
        for more in (("--budget", "1m"), ("--folds", 5, "--budget", "5m"))
    )
    assert one["folds"] is None and all_five["folds"] == 5
    assert all_five["seconds"] == pytest.approx(5 * one["seconds"], rel=0.1)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--folds", 1), "--folds 1 holds nothing out"),
        (("--folds", 50), "45 pictures for 50 folds"),
        (("--folds", 3, "--extend", "--resume"), "--extend has no effect with --folds"),
    ],
)
def test_what_has_no_meaning_is_refused(
    zoo: Callable[..., Any], in_folder: Path, pictures: Path, more: tuple[Any, ...], said: str
) -> None:
    answer = zoo("train", "tiny", "--data", pictures, "--device", "cpu", *more)
    assert answer.code == 1 and said in " ".join(answer.err.split())
    assert not Path("runs").exists()


def test_torchrun_is_refused(small: Options, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ZooError, match="torchrun has started several"):
        cross_validate(small(pictures, tmp_path, folds=3))


def test_runs_of_single_folds_are_put_together(
    zoo: Callable[..., Any], in_folder: Path, pictures: Path, small: Options
) -> None:
    """As several machines share the work."""
    sizes = ("--epochs", 4, "--batch-size", 8, "--image-size", 24, "--workers", 0, "--device", "cpu")
    asked = ("train", "tiny", "--data", pictures, *sizes, "--folds", 2)
    assert "Cross-validation" not in zoo(*asked, "--fold", 2, "--plan").out
    for number in (2, 1):
        answer = zoo(*asked, "--fold", number)
        assert answer.code == 0, answer.err
        assert Path(f"runs/tiny/fold-{number}/checkpoint.safetensors").is_file()
    answer = zoo(*asked, "--resume", "--json")
    assert answer.code == 0, answer.err
    assert "Fold" not in answer.err  # nothing was left to train
    cross_validate(small(pictures, Path("whole"), folds=2))
    there, here = answers(Path("whole")), answers(Path("runs/tiny"))
    assert [line["predicted"] for line in there] == [line["predicted"] for line in here]
    Path("runs/tiny/summary.json").unlink()
    Path("runs/tiny/fold-1").rename("runs/tiny/third")
    Path("runs/tiny/fold-2").rename("runs/tiny/fold-1")
    Path("runs/tiny/third").rename("runs/tiny/fold-2")
    mixed = zoo(*asked, "--resume")
    assert mixed.code == 1 and "not in fold 1" in mixed.err


@pytest.mark.parametrize(
    ("more", "said"),
    [(("--fold", 2), "--fold has no effect without --folds"), (("--folds", 2, "--fold", 3), "no fold 3 of 2")],
)
def test_a_fold_that_is_none_is_refused(
    zoo: Callable[..., Any], in_folder: Path, pictures: Path, more: tuple[Any, ...], said: str
) -> None:
    answer = zoo("train", "tiny", "--data", pictures, "--device", "cpu", *more)
    assert answer.code in (1, 2) and said in " ".join(answer.err.split())


def test_one_run_is_not_asked_for_folds(small: Options, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="train_model trains one run"):
        train_model(small(pictures, tmp_path, folds=3))
