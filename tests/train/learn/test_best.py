from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from train.learn.best import is_better, standard_error
from train.learn.validation import Validation, validate_together
from train.options import TrainOptions
from train.progressive.overrides import choose_recipe
from train.session import train_model
from zoo.model.variants import find_variant

UNSIZED = {"epochs": None, "image_size": None, "batch_size": None}


def judged_as(*figures: float) -> Callable[..., Validation]:
    """A validation that says these accuracies, one after the other, then 0."""
    said: Iterator[float] = iter(figures)

    def judge(model: Any, *rest: Any) -> Validation:
        return replace(validate_together(model, *rest), top1=next(said, 0.0))

    return judge


def fine_tuned(small: Callable, weights: Path, data: Path, folder: Path, **changes: Any) -> Any:
    """Eight epochs at one size, from weights, with a head start."""
    options = {"model": str(weights), "patience": 2, **changes}
    recipe = choose_recipe(TrainOptions(model="tiny", recipe="finetune", epochs=8, image_size=16), find_variant("tiny"))
    recipe = replace(recipe, stages=(replace(recipe.stages[-1], epochs=8, batch_size=12),), patience=2, midpoint=False)
    return train_model(replace(small(data, folder, **UNSIZED), **options), recipe=recipe)


def test_a_head_start_that_is_hard_to_beat_does_not_end_a_run(
    small: Callable, tiny_run: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epochs are worse than the head start and better than each other: the run goes on, and passes it."""
    import train.learn.head_start as head_start
    import train.learn.loop as loop

    monkeypatch.setattr(head_start, "validate_together", judged_as(0.8))
    monkeypatch.setattr(loop, "validate_together", judged_as(0.5, 0.6, 0.7, 0.99, 0.85, 0.85))
    outcome = fine_tuned(small, tiny_run, picture_folder, tmp_path / "run")
    assert outcome.head_start.top1 == 0.8
    assert (len(outcome.history), outcome.best_epoch) == (6, 4)


def test_a_run_that_gets_no_better_ends_and_keeps_its_head_start(
    small: Callable, tiny_run: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Keras: the first epoch is what the next two are compared with."""
    import train.learn.head_start as head_start
    import train.learn.loop as loop

    monkeypatch.setattr(head_start, "validate_together", judged_as(0.8))
    monkeypatch.setattr(loop, "validate_together", judged_as(0.5, 0.4, 0.45, 0.8))
    outcome = fine_tuned(small, tiny_run, picture_folder, tmp_path / "run")
    assert (len(outcome.history), outcome.best_epoch) == (3, 0)


def test_patience_goes_on_counting_in_a_resumed_run(
    small: Callable,
    tiny_run: Path,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_after: Callable,
) -> None:
    import train.learn.head_start as head_start
    import train.learn.loop as loop

    monkeypatch.setattr(head_start, "validate_together", judged_as(0.8))
    monkeypatch.setattr(loop, "validate_together", judged_as(0.5, 0.4, 0.3, 0.2))
    with killed_after(2):
        fine_tuned(small, tiny_run, picture_folder, tmp_path / "run", save_every_s=0)
    # The state is of before the second epoch's validation: it is made again.
    monkeypatch.setattr(loop, "validate_together", judged_as(0.4, 0.3, 0.2))
    outcome = fine_tuned(small, tiny_run, picture_folder, tmp_path / "run", resume=True)
    assert (len(outcome.history), outcome.best_epoch) == (3, 0)


def test_within_a_standard_error_the_loss_decides() -> None:
    assert standard_error(0.9, 76) == pytest.approx(0.0344, abs=1e-4)
    assert is_better((0.88, -0.3), (0.9, -0.4), 0.866)  # nothing tells them apart but the loss
    assert not is_better((0.9, -0.4), (0.88, -0.3), 0.866)
    assert is_better((0.9, -0.4), (0.85, -0.3), 0.866)  # one is out of reach of the highest
    assert not is_better((0.85, -0.3), (0.9, -0.4), 0.866)
    assert not is_better((0.9, -0.4), (0.9, -0.4), 0.866)
