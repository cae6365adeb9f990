"""One step and one stage: accumulation, freezing, erasing, compiling, and networks that are not EfficientNets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from train.input.loader import Batch
from train.learn.job import Job
from train.learn.run import Run, enter_stage, start_run
from train.learn.step import train_step
from train.learn.throughput import noise_job
from train.options import TrainOptions
from train.progressive.overrides import choose_recipe
from train.progressive.recipe import Recipe, TrainingStage, find_recipe
from train.session import train_model
from train.settings import Settings
from zoo.errors import ZooError
from zoo.model.row_files import write_row
from zoo.model.variants import RESNET_50, find_variant
from zoo.weights.checkpoint import read_card

TINY = find_variant("tiny")
SETTINGS = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)


def plain_recipe(**changes: object) -> Recipe:
    """SGD at a rate of 1 without anything random: a step is the gradient."""
    stage = TrainingStage(
        epochs=1,
        image_size=16,
        batch_size=8,
        randaugment_magnitude=0,
        mixup_alpha=0,
        cutmix_alpha=0,
        dropout=0,
        stochastic_depth_prob=0,
    )
    recipe = find_recipe("folder", TINY)
    plain = replace(recipe, stages=(stage,), optimizer="sgd", momentum=0.0, weight_decay=0.0, learning_rate=1.0)
    return replace(plain, clip_grad_norm=None, short_run_init=False, **changes)


def batch(count: int = 8, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (count, 16, 16, 3), generator=generator, dtype=torch.uint8)
    return Batch(pictures, torch.arange(count) % 3, (), torch.arange(count))


def cut(whole: Batch, parts: int) -> list[Batch]:
    pictures, labels, places = (t.chunk(parts) for t in (whole.pictures, whole.labels, whole.positions))
    return [Batch(p, y, (), i) for p, y, i in zip(pictures, labels, places, strict=True)]


def frozen_statistics(run: Run) -> None:
    for module in run.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def a_job(recipe: Recipe) -> Job:
    return noise_job(TINY, recipe, SETTINGS, 3)


def step(recipe: Recipe, parts: list[Batch]) -> tuple[Run, float]:
    job, stage = a_job(recipe), recipe.stages[0]
    run = start_run(job)
    nn.init.normal_(run.model.classifier.weight, std=0.1, generator=torch.Generator().manual_seed(0))  # not undecided
    enter_stage(run, stage, SETTINGS)
    frozen_statistics(run)  # batch norm sees the parts; without it the arithmetic is the whole batch's
    loss_sum, _, count = train_step(run, job, stage, parts, np.random.default_rng(0), num_parts=len(parts))
    return run, loss_sum.item() / count


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_accumulated_parts_are_the_whole_batch(parts: int, clip: float | None) -> None:
    recipe = replace(plain_recipe(), clip_grad_norm=clip)
    whole, loss = step(recipe, [batch()])
    accumulated, same_loss = step(recipe, cut(batch(), parts))
    assert same_loss == pytest.approx(loss, rel=1e-5)
    assert accumulated.step == whole.step == 1
    for a, b in zip(accumulated.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_run_in_parts_makes_as_many_steps(small: Callable, picture_folder: Path, tmp_path: Path) -> None:
    train_model(small(picture_folder, tmp_path / "run", batch_size=12, overrides=("stages.all.accumulate=3",)))
    assert read_card(tmp_path / "run" / "checkpoint.safetensors").provenance["steps"] == 4 * 3


def test_erasing_reaches_the_network() -> None:
    """Grey pictures are the mean, so erasing changes nothing; noise in them does."""
    recipe = plain_recipe(random_erasing_fill="noise")
    grey = replace(batch(), pictures=torch.full((8, 16, 16, 3), 128, dtype=torch.uint8))
    _, without = step(recipe, [grey])
    erased = replace(recipe, stages=(replace(recipe.stages[0], random_erasing_prob=1.0),))
    assert step(erased, [grey])[1] != pytest.approx(without, abs=1e-6)
    zero = replace(erased, random_erasing_fill="zero")
    assert step(zero, [grey])[1] == pytest.approx(without, abs=1e-6)


def test_a_frozen_backbone_keeps_weights_and_statistics() -> None:
    recipe = plain_recipe()
    stage = replace(recipe.stages[0], freeze_backbone=True, dropout=0.5)
    job = a_job(recipe)
    run = start_run(job)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    enter_stage(run, stage, SETTINGS)
    assert run.model.dropout.training
    for seed in range(3):
        train_step(run, job, stage, [batch(seed=seed)], np.random.default_rng(seed))
    changed = {key for key, value in run.model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"classifier.weight", "classifier.bias"}
    enter_stage(run, recipe.stages[0], SETTINGS)
    train_step(run, job, recipe.stages[0], [batch()], np.random.default_rng(0))
    changed = {key for key, value in run.model.state_dict().items() if not torch.equal(value, before[key])}
    assert len(changed) > 20


def test_a_frozen_backbone_needs_weights_to_begin_from(picture_folder: Path, tmp_path: Path) -> None:
    frozen = ("stages.1.freeze_backbone=true",)
    options = TrainOptions(model="tiny", data=str(picture_folder), overrides=frozen, out=tmp_path / "run")
    with pytest.raises(ZooError, match="freezes the backbone, and tiny begins without trained weights"):
        train_model(options)
    assert not (tmp_path / "run").exists()


def test_fine_tuning_a_run_on_other_pictures(
    zoo: Callable, in_folder: Path, tiny_run: Path, picture_folder: Path
) -> None:
    """A fitted classifier first, then two sizes with layer-wise rates: what weights get without being asked."""
    answer = zoo(*("train", tiny_run, "--data", picture_folder, "--epochs", "9", "--device", "cpu", "-o", "tuned"))
    assert answer.code == 0, answer.err
    assert "Head start: a classifier fitted to the weights' features has top-1" in answer.err
    lines = [json.loads(line) for line in Path("tuned/metrics.jsonl").read_text().splitlines()]
    assert sorted({line["stage"] for line in lines}) == [1, 2]
    assert max(line["val_top1"] for line in lines) > 0.9  # three colours; chance is 0.33
    provenance = read_card(Path("tuned/checkpoint.safetensors")).provenance
    assert provenance["head_start"]["kept"] and provenance["head_start"]["top1"] > 0.6
    assert provenance["val_top1"] >= provenance["head_start"]["top1"]


def test_a_frozen_run_changes_the_classifier_alone(tiny_run: Path, picture_folder: Path, tmp_path: Path) -> None:
    recipe = find_recipe("finetune", TINY)
    frozen = replace(recipe.stages[0], batch_size=6, epochs=2, freeze_backbone=True)
    recipe = replace(recipe, stages=(frozen,), keep="last", warmup_epochs=0)
    options = TrainOptions(model=str(tiny_run), data=str(picture_folder), out=tmp_path / "run", workers=0)
    train_model(options, recipe=recipe)
    before, after = (load_file(f / "checkpoint.safetensors") for f in (tiny_run, tmp_path / "run"))
    assert all(torch.equal(before[key], after[key]) for key in before if not key.startswith("classifier"))


def test_class_weights_are_written_into_the_checkpoint(zoo: Callable, in_folder: Path, picture_folder: Path) -> None:
    Path("weights.json").write_text(json.dumps({"red": 2}))
    answer = zoo(
        *("train", "tiny", "--data", picture_folder, "--class-weights", "weights.json", "--device", "cpu"),
        *("--epochs", "4", "--image-size", "16", "--batch-size", "12", "-o", "weighted"),
    )
    assert answer.code == 0, answer.err
    assert read_card(Path("weighted/checkpoint.safetensors")).recipe["class_weights"] == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("recipe_name", ["folder", "random_resize"])
def test_a_small_resnet_trains_like_any_network(recipe_name: str, picture_folder: Path, tmp_path: Path) -> None:
    small = replace(
        RESNET_50,
        id="resnet14",
        stages=tuple(replace(stage, num_layers=1) for stage in RESNET_50.stages),
        train_size=32,
        eval_size=40,
        preprocessing=RESNET_50.preprocessing.at(40),
    )
    row_file = tmp_path / "resnet14.toml"
    write_row(row_file, small, "A row of one's own.")
    options = TrainOptions(
        model=str(row_file), data=str(picture_folder), recipe=recipe_name, out=tmp_path / "run", device="cpu", workers=0
    )
    epochs = max(4, len(find_recipe(recipe_name, small).stages))
    recipe = choose_recipe(replace(options, epochs=epochs, image_size=32, batch_size=12), small)
    recipe = replace(recipe, stages=recipe.stages[-4:], ema_decay=0.5)
    outcome = train_model(options, recipe=recipe)
    assert len(outcome.history) == recipe.epochs
    assert len({line.image_size for line in outcome.history}) == len({stage.image_size for stage in recipe.stages})
    assert all(np.isfinite([line.train_loss, line.val_loss]).all() for line in outcome.history)
    if recipe_name == "folder":
        assert outcome.result.top1 > 0.4  # three colours; chance is 0.33


@pytest.mark.parametrize(
    ("optimizer", "loss", "learning_rate"),
    [("sgd", "cross_entropy", 0.3), ("rmsprop", "bce", 0.01), ("lamb", "cross_entropy", 0.1)],
)
def test_the_digits_are_learnt_by_every_optimizer_and_loss(
    optimizer: str, loss: str, learning_rate: float, tmp_path: Path
) -> None:
    overrides = (f"optimizer={optimizer}", f"loss={loss}", "weight_decay=1e-5")
    options = TrainOptions(model="tiny", epochs=4, image_size=24, learning_rate=learning_rate, overrides=overrides)
    outcome = train_model(replace(options, out=tmp_path / "run", device="cpu", workers=0))
    assert outcome.result.top1 > 0.3  # chance is 0.1


def test_one_compilation_a_stage(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of a stage have one shape; a part with a broken picture goes through the network as it is."""
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    counts: list[int] = []
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend=counter))
    root = tmp_path / "damaged"
    shutil.copytree(picture_folder, root)
    (root / "train" / "red" / "003.jpg").write_bytes(b"no picture")
    monkeypatch.setattr(
        "train.watch.record.RunRecord.on_epoch", lambda self, run, epoch: counts.append(counter.frame_count)
    )
    monkeypatch.setattr("train.watch.record.RunRecord.finish", lambda *_: None)
    monkeypatch.setattr("train.settings.check_compiler", lambda device: None)  # it compiles an addition of its own
    train_model(small(root, tmp_path / "run", epochs=8, batch_size=6, compile=True))
    first = counts[0]
    assert first >= 1
    assert counts == [first + epoch // 2 for epoch in range(8)]
