"""The page of a run: what it says, that it needs nothing beside it, and that it is there when a run ends early."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from train.learn.job import Job
from train.learn.run import Epoch
from train.learn.validation import Answers, Validation
from train.progressive.recipe import Recipe, TrainingStage, find_recipe
from train.session import train_model
from train.settings import Settings
from train.watch.charts import progress_charts, stage_settings, stage_throughput
from train.watch.live import LiveView
from train.watch.mistakes import count_confusion, most_certain, most_confused, some_right, worst_pictures
from train.watch.record import RunRecord
from train.watch.report import REFRESH_S, RunStatus, headlines, render_report, share_of_fixed_time
from train.watch.thumbnails import Drawn, draw_thumbnail
from zoo.data.open import open_splits
from zoo.data.pictures import Pictures
from zoo.model.variants import find_variant
from zoo.page.matrix import MATRIX_CLASSES

TINY = find_variant("tiny")


def a_recipe() -> Recipe:
    """Four stages of two epochs each, 24 to 40 px; dropout rises, the rest stays."""
    stages = tuple(
        TrainingStage(
            epochs=2,
            image_size=size,
            batch_size=32,
            randaugment_magnitude=2.0,
            mixup_alpha=0.0,
            cutmix_alpha=0.0,
            dropout=dropout,
            stochastic_depth_prob=0.05,
        )
        for size, dropout in ((24, 0.1), (30, 0.15), (36, 0.2), (40, 0.25))
    )
    return Recipe(name="test", source="this test", stages=stages, test_size=48, learning_rate=1e-3)


def a_history(recipe: Recipe, epochs: int, top1: Sequence[float] | None = None) -> list[Epoch]:
    """Every epoch sees 1,000 pictures; a stage's pace falls with its number: 100, 50, 33.3, 25 a second."""
    stages = [index for index, stage in enumerate(recipe.stages, start=1) for _ in range(stage.epochs)]
    return [
        Epoch(
            epoch=number,
            stage=stage,
            image_size=recipe.stages[stage - 1].image_size,
            learning_rate=1e-3,
            train_loss=2.0 / number,
            train_top1=0.5,
            val_loss=1.5 / number,
            val_top1=top1[number - 1] if top1 else number / 10,
            val_size=round(recipe.stages[stage - 1].image_size * 1.2),
            pictures_per_second=100 / stage,
            seconds=10.0 * stage,
            broken=0,
        )
        for number, stage in enumerate(stages[:epochs], start=1)
    ]


def a_validation(label: Sequence[int], predicted: Sequence[int], score: Sequence[float] = ()) -> Validation:
    answers = Answers(
        index=np.arange(len(label)),
        label=np.array(label),
        predicted=np.array(predicted),
        label_score=np.array(score or [0.2] * len(label), np.float32),
        score=np.array([0.7] * len(label), np.float32),
    )
    return Validation(0.5, float(np.mean(answers.label == answers.predicted)), (), answers)


def some_job(recipe: Recipe, classes: Sequence[str] = ("cat", "d<o>g", "owl")) -> Job:
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 256, (90, 120, 3), dtype=np.uint8) for _ in range(30)]
    return Job(
        variant=TINY,
        recipe=recipe,
        data="animals",
        train_set=Pictures("train", tuple(classes), sources[:1] * 1000, np.zeros(1000, np.int64)),
        val_set=Pictures("val", tuple(classes), sources, np.zeros(30, np.int64)),
        preprocessing=TINY.preprocessing,
        settings=Settings(device=torch.device("cpu"), precision="fp32", seed=3, workers=0),
    )


def some_status(recipe: Recipe, epochs: int = 8, **changes: Any) -> RunStatus:
    status = RunStatus(
        state="finished",
        history=a_history(recipe, epochs),
        result=a_validation([0, 0, 1, 1, 2, 2], [0, 1, 1, 0, 2, 0], [0.9, 0.3, 0.8, 0.1, 0.9, 0.2]),
    )
    return replace(status, **changes)


def said(job: Job, status: RunStatus) -> str:
    return " ".join(headlines(job, status)).replace("\N{NO-BREAK SPACE}", " ")


def section(page: str, heading: str) -> str:
    """The part of a page under a heading."""
    return page.partition(f"<h2>{heading}</h2>")[2].partition("</section>")[0]


def test_the_page_needs_nothing_beside_it() -> None:
    recipe = a_recipe()
    page = render_report(some_job(recipe), some_status(recipe))
    assert not re.findall(r"<script|<link|@import|url\(|https?://", page)
    assert set(re.findall(r'src="([^;]*);', page)) == {"data:image/jpeg", "data:image/png"}
    assert "prefers-color-scheme: dark" in page
    assert "d<o>g" not in page
    assert "d&lt;o&gt;g" in page


def test_headlines_say_accuracy_cost_time_and_the_worst_confusion() -> None:
    recipe = a_recipe()
    job = some_job(recipe)
    text = said(job, some_status(recipe, best_epoch=7))
    assert "50.00 % top-1 on 6 validation pictures at 48 px." in text
    best = "the best in top-1, within its standard error the best in loss, at the final size."
    assert f"The checkpoint has the averaged weights after epoch 7 of 8, {best}" in text
    share = job.cost.share_of_fixed_size
    assert f"4 stages, 24 → 40 px: {100 * share:.0f} % of the multiply-adds of training at 40 px throughout." in text
    # 2 epochs of 1,000 pictures a stage: 20 + 40 + 60 + 80 s; at the last stage's 25 a second, 320 s.
    assert "would have taken 5 min 20 s; this run took 3 min 20 s, 62 % of that" in text
    assert "Most confused: cat taken for d<o>g, 1 of 2." in text


def test_the_time_saved_waits_for_the_last_stage_and_needs_different_sizes() -> None:
    recipe = a_recipe()
    assert share_of_fixed_time(a_history(recipe, 6), recipe) is None
    frozen = replace(recipe, stages=(replace(recipe.stages[0], freeze_backbone=True), *recipe.stages[1:]))
    assert share_of_fixed_time(a_history(frozen, 8), frozen) is None
    assert share_of_fixed_time(a_history(recipe, 8), recipe) == pytest.approx(200 / 320)
    one_size = replace(recipe, stages=tuple(replace(stage, image_size=40) for stage in recipe.stages))
    assert share_of_fixed_time(a_history(one_size, 8), one_size) is None
    text = said(some_job(one_size), some_status(one_size))
    assert "multiply-adds" not in text
    assert "Training took 3 min 20 s for 8 epochs" in text


def test_sizes_in_no_order_are_compared_with_the_largest() -> None:
    recipe = a_recipe()
    recipe = replace(recipe, stages=(recipe.stages[3], *recipe.stages[:3]))  # 40, 24, 30, 36 px
    text = said(some_job(recipe), some_status(recipe))
    assert "4 stages, 24 … 40 px:" in text
    assert "of training at 40 px throughout." in text
    # The first stage is the one of 40 px: 100 a second, so 80 s instead of 200.
    assert share_of_fixed_time(a_history(recipe, 8), recipe) == pytest.approx(200 / 80)


def test_a_weight_for_every_class_is_shortened() -> None:
    recipe = replace(a_recipe(), class_weights=tuple(float(index) for index in range(100)))
    page = render_report(some_job(recipe), some_status(recipe))
    assert "0, 1, 2, 3, 4, 5, 6, 7, … (100 values)" in page


def test_throughput_is_pictures_over_seconds_of_all_epochs_of_a_stage() -> None:
    recipe = a_recipe()
    history = a_history(recipe, 8)
    history[1] = replace(history[1], pictures_per_second=25.0, seconds=40.0)
    assert stage_throughput(history)[1] == (24, pytest.approx(2000 / 50), 50.0)
    assert stage_throughput(history)[4][1] == pytest.approx(25)


def test_only_what_a_recipe_uses_is_shown() -> None:
    settings = stage_settings(a_recipe())
    assert settings["image size, px"][-1] == 40
    assert settings["dropout"] == [0.1, 0.15, 0.2, 0.25]
    assert "CutMix α" not in settings
    assert "parts of a batch" not in settings


def test_the_dot_is_the_epoch_that_the_page_says_is_kept() -> None:
    """Not the second epoch, whose smaller pictures were easier."""
    recipe = a_recipe()
    history = a_history(recipe, 8, [0.1, 0.9, 0.9, 0.2, 0.2, 0.2, 0.4, 0.3])
    kept = render_report(some_job(recipe), replace(some_status(recipe, best_epoch=7), history=history))
    assert "after epoch 7 of 8, the best in top-1" in kept
    assert "The dot is the best epoch at the final size" in kept
    dots = [str(progress_charts(history, recipe, best)[0].as_figure()).count("<circle") for best in (7, 0, None)]
    assert dots == [1, 0, 0]
    assert '<circle class="fill blue" cx="81.25%"' in kept  # epoch 7 of an axis from 0.5 to 8.5: 6.5 / 8
    assert "The dot" not in render_report(some_job(recipe), replace(some_status(recipe, best_epoch=0), history=history))


def test_a_running_page_reads_itself_again_and_a_finished_one_does_not() -> None:
    recipe = a_recipe()
    job = some_job(recipe)
    running = render_report(job, some_status(recipe, 3, state="running"))
    assert f'http-equiv="refresh" content="{REFRESH_S}"' in running
    assert "epoch 3 of 8 is done" in running
    assert "refresh" not in render_report(job, some_status(recipe))
    failed = render_report(job, some_status(recipe, 3, state="failed", reason="The loss became nan."))
    assert "after epoch 3 of 8: The loss became nan." in failed


def test_a_loss_that_is_no_number_is_no_error() -> None:
    recipe = a_recipe()
    history = [replace(line, val_loss=None, train_loss=None) for line in a_history(recipe, 3)]
    assert "Loss" in render_report(some_job(recipe), some_status(recipe, history=history))


def test_few_classes_get_a_matrix_and_many_their_worst_pairs() -> None:
    recipe = a_recipe()
    few = render_report(some_job(recipe), some_status(recipe))
    assert 'title="1 of 2: cat taken for d&lt;o&gt;g"' in few
    names = [f"class {index}" for index in range(MATRIX_CLASSES + 1)]
    result = a_validation([7, 7, 7, 9, 9], [3, 3, 7, 4, 9])
    many = render_report(some_job(recipe, names), some_status(recipe, result=result))
    assert '<table class="confusion' not in many
    assert "The most confused pairs of 21 classes" in many
    rows = re.findall(r"<tr><td>class 7</td><td>class 3</td><td[^>]*>(\d+)</td><td[^>]*>([^<]*)</td>", many)
    assert rows == [("2", "67 %")]
    weakest = section(many, "Classes")
    assert weakest.index("class 7") < weakest.index("class 9")
    assert '<td>class 7</td><td class="num">50 % <span class="muted">12–88</span></td>' in weakest  # 2·1 / (3 + 1)


def test_the_most_confused_pairs_are_the_largest_entries_off_the_diagonal() -> None:
    confusion = np.array([[50, 3, 0], [1, 60, 0], [9, 0, 70]])
    label, predicted = (np.repeat(axis.ravel(), confusion.ravel()).tolist() for axis in np.indices((3, 3)))
    answers = a_validation(label, predicted).answers
    assert most_confused(answers, 2) == [(2, 0, 9), (0, 1, 3)]
    assert most_confused(a_validation([0, 1, 2], [0, 1, 2]).answers, 5) == []
    np.testing.assert_array_equal(count_confusion(answers, 3), confusion)


def test_the_worst_pictures_are_wrong_ones_whose_true_class_scored_least() -> None:
    answers = a_validation([0, 1, 2, 0], [1, 1, 0, 2], [0.3, 0.01, 0.05, 0.2]).answers
    assert worst_pictures(answers, 2).tolist() == [2, 3]
    assert worst_pictures(answers, 10).tolist() == [2, 3, 0]


def test_wrong_pictures_are_shown_with_both_classes_and_scores() -> None:
    recipe = a_recipe()
    worst = section(render_report(some_job(recipe), some_status(recipe)), "Worst-classified pictures")
    assert worst.count("<img ") == 3
    shown = re.findall(
        r"<figcaption>(\S+) <span[^>]*>([^<]*)</span><br/><span[^>]*>→ </span><strong>(\S+)</strong>", worst
    )
    assert shown == [("d&lt;o&gt;g", "10 %", "cat"), ("owl", "20 %", "cat"), ("cat", "30 %", "d&lt;o&gt;g")]
    right = a_validation([0, 1, 2], [0, 1, 2])
    assert "Every validation picture is classified right." in render_report(
        some_job(recipe), some_status(recipe, result=right)
    )


def test_thumbnails_are_small_whole_pictures(tmp_path: Path) -> None:
    big, gone = tmp_path / "big.png", tmp_path / "gone.jpg"
    Image.new("RGB", (400, 200), (200, 10, 10)).save(big)
    tiny = np.full((8, 8, 3), 90, np.uint8)
    pictures = Pictures("val", ("a",), [big, tiny, gone], np.zeros(3, np.int64))

    def decode(index: int) -> Image.Image:
        (data,) = re.findall(r'src="data:image/\w+;base64,([^"]+)"', draw_thumbnail(pictures, index))
        return Image.open(io.BytesIO(base64.b64decode(data)))

    assert decode(0).size == (112, 56)
    assert decode(1).size == (8, 8)
    assert (np.asarray(decode(1)) == 90).all()
    assert "no longer readable" in draw_thumbnail(pictures, 2)


def test_thumbnails_are_made_once() -> None:
    recipe = a_recipe()
    job, drawn = some_job(recipe), Drawn()
    first = render_report(job, some_status(recipe), drawn)
    assert set(drawn.thumbnails) == set(range(6))  # three wrong ones, which are the examples of pairs too, three right
    emptied = replace(job, val_set=replace(job.val_set, sources=[np.zeros((8, 8, 3), np.uint8)] * 30))
    again = render_report(emptied, some_status(recipe), drawn)
    assert re.findall('src="([^"]*)"', again) == re.findall('src="([^"]*)"', first)
    right = a_validation([0, 1, 2], [0, 1, 2])
    render_report(job, some_status(recipe, result=right), drawn)
    assert set(drawn.thumbnails) == {0, 1, 2}  # those no longer shown are forgotten


def test_a_pair_is_shown_by_the_picture_that_was_taken_so_with_the_highest_score() -> None:
    recipe = a_recipe()
    result = a_validation([0, 0, 0, 1, 2], [1, 1, 1, 1, 0])
    result.answers.score[:] = [0.4, 0.9, 0.5, 0.6, 0.3]
    assert most_certain(result.answers, 0, 1) == 1
    page = render_report(some_job(recipe), some_status(recipe, result=result))
    pairs = re.findall(
        r'title="val picture (\d)".*?<span class="muted">([^<]*)</span></figcaption>',
        section(page, "Most confused pairs"),
    )
    assert pairs == [("1", "3 of 3"), ("4", "1 of 1")]
    perfect = render_report(some_job(recipe), some_status(recipe, result=a_validation([0, 1], [0, 1])))
    assert "Most confused pairs" not in perfect


def test_right_pictures_are_the_same_ones_on_the_next_page_and_the_least_certain_is_first() -> None:
    label = [0] * 40
    answers = a_validation(label, label).answers
    answers.score[:] = np.linspace(0.3, 0.9, 40)
    shown = some_right(answers, 5, seed=3)
    assert (np.diff(answers.score[shown]) > 0).all()
    fewer = a_validation(label, [1 if place == shown[0] else 0 for place in range(40)]).answers
    assert set(shown[1:]) < set(some_right(fewer, 5, seed=3))
    assert set(shown) != set(some_right(answers, 5, seed=4))


def test_broken_pictures_are_listed() -> None:
    recipe = a_recipe()
    page = render_report(some_job(recipe), some_status(recipe, broken=[f"{n:03d}.jpg is <broken>" for n in range(60)]))
    assert "<li>000.jpg is &lt;broken&gt;</li>" in page
    assert "and 10 more" in page
    assert "Pictures left out" not in render_report(some_job(recipe), some_status(recipe))


def test_a_run_leaves_its_page(tiny_run: Path) -> None:
    page = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert "finished" in page
    assert page.count("<polyline ") >= 7  # two charts of two curves, and three settings at least
    assert "Where it comes from" in page
    assert f"torch {metadata.version('torch')}" in page


def test_answers_name_the_pictures_they_are_of(picture_folder: Path, tmp_path: Path) -> None:
    """Also beside a broken picture, which gets no answer."""
    import shutil

    from train.learn.validation import validate
    from zoo.model.build import build_network

    root = tmp_path / "pictures"
    shutil.copytree(picture_folder, root)
    (root / "val" / "green" / "002.jpg").write_bytes(b"\xff\xd8 damaged")
    val = open_splits(str(root))[1]
    torch.manual_seed(0)
    model = build_network(TINY, 3).eval()
    settings = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)
    result = validate(model, val, TINY.preprocessing.at(24), settings)
    answers = result.answers
    assert len(result.broken) == 1
    assert 8 not in answers.index
    assert len(answers.index) == 17
    assert (answers.label == val.labels[answers.index]).all()
    assert (answers.score >= answers.label_score).all()
    assert (answers.predicted == answers.label).mean() == pytest.approx(result.top1)
    assert ((answers.score == answers.label_score) == (answers.predicted == answers.label)).all()


def test_a_run_that_ends_early_leaves_its_page_too(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_epoch = RunRecord.on_epoch

    def stop_after(error: BaseException) -> Any:
        def on_second(self: RunRecord, run: Any, epoch: Epoch) -> None:
            on_epoch(self, run, epoch)
            if epoch.epoch == 2:
                raise error

        return on_second

    for error, expected in (
        (KeyboardInterrupt(), "interrupted"),
        (RuntimeError("the disk is full"), "the disk is full"),
    ):
        folder = tmp_path / expected.replace(" ", "-")
        monkeypatch.setattr(RunRecord, "on_epoch", stop_after(error))
        with pytest.raises(type(error)):
            train_model(small(picture_folder, folder))
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert "after epoch 2 of 4" in page
        assert expected in page
        assert "refresh" not in page


@pytest.mark.parametrize("terminal", [True, False])
def test_the_live_view_keeps_to_80_columns(terminal: bool) -> None:
    recipe = find_recipe("folder", find_variant("s"))
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=terminal, color_system=None, highlight=False)
    line = replace(
        a_history(a_recipe(), 1)[0], epoch=59, image_size=300, pictures_per_second=12345.0, val_top1=1.0, val_size=384
    )
    with LiveView(recipe, console) as live:
        live.on_stage(3, recipe.stages[3])
        live.on_step(58, 400, 937, 32, 1.2345)
        live.progress.refresh()
        live.on_broken("a/[copy].jpg cannot be decoded.")
        live.on_epoch(None, line)  # type: ignore[arg-type]
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", stream.getvalue()).replace("\r", "\n").split("\n")
    assert max(map(len, shown)) <= 80
    assert any(text.endswith("top-1 100.0 % at 384 px") for text in shown)
    assert any(text.startswith("Stage 4/4  300 px  batch 32") and text.endswith("dropout 0.16") for text in shown)
    assert "Skipped: a/[copy].jpg cannot be decoded." in shown
    assert any("400/937" in text for text in shown) is terminal
