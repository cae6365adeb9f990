"""Activations that are computed again: the same numbers as kept ones, with less memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import train.learn.memory
from train.input.loader import Batch
from train.learn.job import Job
from train.learn.memory import fit_to_memory
from train.learn.run import Run, enter_stage, start_run
from train.learn.step import train_step
from train.learn.throughput import noise_job
from train.options import MixedPrecision
from train.progressive.recipe import Recipe, TrainingStage, find_recipe
from train.session import train_model
from train.settings import Settings
from zoo.errors import ZooError
from zoo.model.spec import Variant
from zoo.model.variants import RESNET_50, find_variant

TINY = find_variant("tiny")
PLAIN = Settings(device=torch.device("cpu"), precision="fp32", seed=0, workers=0)


def thin(variant: Variant) -> Variant:
    """The row with one or two layers a stage."""
    return replace(
        variant, stages=tuple(replace(stage, num_layers=min(stage.num_layers, 2)) for stage in variant.stages)
    )


def a_recipe(variant: Variant, **changes: Any) -> Recipe:
    """One stage in which all that is random is likely."""
    stage = replace(
        find_recipe("folder", variant).stages[-1],
        **{"image_size": 32, "batch_size": 6, "stochastic_depth_prob": 0.5, "dropout": 0.5, "epochs": 1, **changes},
    )
    return replace(find_recipe("folder", variant), stages=(stage,), warmup_epochs=0, short_run_init=False)


def a_job(recipe: Recipe, variant: Variant, settings: Settings) -> Job:
    return noise_job(variant, recipe, settings, 3)


def batch(count: int = 6) -> Batch:
    pictures = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch(pictures, torch.arange(count) % 3, (), torch.arange(count))


def after_steps(recipe: Recipe, variant: Variant, settings: Settings, steps: int = 2) -> tuple[Run, Tensor]:
    """A run after a few steps, and the state of the generator they drew from."""
    job = a_job(recipe, variant, settings)
    run = start_run(job)
    stage = recipe.stages[0]
    enter_stage(run, stage, settings)
    torch.manual_seed(5)
    for step in range(steps):
        train_step(run, job, stage, [batch(), batch()], np.random.default_rng(step), num_parts=2)
    return run, torch.get_rng_state()


def assert_same(first: Run, second: Run) -> None:
    for own, other in ((first.model, second.model), (first.average.model, second.average.model)):
        states = own.state_dict(), other.state_dict()
        assert list(states[0]) == list(states[1])
        assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []
    gradients = zip(first.model.named_parameters(), second.model.parameters(), strict=True)
    assert [
        name
        for (name, own), other in gradients
        if (own.grad is None) != (other.grad is None)
        or (own.grad is not None and not torch.equal(own.grad, other.grad))
    ] == []


FAMILIES = [thin(find_variant(name)) for name in ("s", "b0", "lite0")] + [TINY, thin(RESNET_50)]


@pytest.mark.parametrize("variant", FAMILIES, ids=lambda row: row.id)
def test_gradients_statistics_and_draws_are_those_of_kept_activations(variant: Variant) -> None:
    recipe = a_recipe(variant)
    runs = [after_steps(recipe, variant, replace(PLAIN, checkpoint_activations=on)) for on in (False, True)]
    assert_same(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])  # stochastic depth and dropout drew once
    norm = runs[1][0].model.norms()[-1]
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 4  # two steps of two parts: once each, not twice
    assert norm.momentum == (recipe.norm_momentum or variant.batch_norm_momentum)


@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_computes_the_same_again(precision: MixedPrecision) -> None:
    recipe, settings = a_recipe(TINY), replace(PLAIN, precision=precision)
    kept, again = (after_steps(recipe, TINY, replace(settings, checkpoint_activations=on))[0] for on in (False, True))
    assert_same(kept, again)


@pytest.mark.parametrize("changes", [{"freeze_norms": True}, {"freeze_backbone": True}])
def test_frozen_norms_and_backbones_stay_frozen(changes: dict[str, bool]) -> None:
    recipe = a_recipe(TINY, **changes)
    runs = [after_steps(recipe, TINY, replace(PLAIN, checkpoint_activations=on))[0] for on in (False, True)]
    assert_same(*runs)
    assert all(norm.num_batches_tracked == 0 for norm in runs[1].model.norms())


def kept_bytes(settings: Settings, variant: Variant, stage: TrainingStage, count: int) -> int:
    """What a forward pass hands over to be kept for the gradient, outside of blocks that are computed again."""
    recipe = replace(a_recipe(variant), stages=(stage,))
    run = start_run(a_job(recipe, variant, settings))
    enter_stage(run, stage, settings)
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    assert run.forward is not None
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = run.forward(torch.randn(count, 3, 32, 32))
    assert kept.requires_grad
    return sum(storages.values())


def test_of_blocks_nothing_but_their_inputs_is_kept() -> None:
    variant = thin(find_variant("s"))
    stage = a_recipe(variant).stages[0]
    plain, less = (kept_bytes(replace(PLAIN, checkpoint_activations=on), variant, stage, 6) for on in (False, True))
    assert less < 0.25 * plain


def test_validation_keeps_nothing_and_computes_once() -> None:
    run, _ = after_steps(a_recipe(TINY), TINY, replace(PLAIN, checkpoint_activations=True), steps=1)
    calls: list[int] = []
    for model in (run.model, run.average.model):
        block = model.blocks()[0]
        next(iter(block.children())).register_forward_hook(lambda *_: calls.append(1))
        with torch.inference_mode():
            model.eval()(torch.randn(2, 3, 32, 32))
    assert len(calls) == 2
    assert "forward" not in vars(run.average.model.blocks()[0])  # the copy that is validated is a plain network


def test_the_dry_run_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up device that holds half of what is kept without checkpoints."""
    variant = thin(find_variant("s"))
    stage = replace(a_recipe(variant).stages[0], batch_size=8)
    recipe = replace(a_recipe(variant), stages=(stage,))
    checkpointed = replace(PLAIN, checkpoint_activations=True)
    limit = 0.5 * kept_bytes(PLAIN, variant, stage, 8)
    step = train.learn.memory.train_step

    def limited(run: Run, job: Job, stage: TrainingStage, *rest: Any, **options: Any) -> Any:
        if kept_bytes(job.settings, variant, stage, stage.part_size) > limit:
            raise torch.OutOfMemoryError("made up")
        return step(run, job, stage, *rest, **options)

    monkeypatch.setattr("train.learn.memory.train_step", limited)
    assert fit_to_memory(a_job(recipe, variant, checkpointed), auto_batch=False) == recipe
    with pytest.raises(ZooError, match="would end without memory") as refused:
        fit_to_memory(a_job(recipe, variant, PLAIN), auto_batch=False)
    assert "--checkpoint-activations may do, too" in refused.value.hint


def test_a_run_ends_with_the_same_bits_and_may_be_resumed_with_it(
    small: Callable, picture_folder: Path, tmp_path: Path, killed_after: Callable
) -> None:
    train_model(small(picture_folder, tmp_path / "kept"))
    with killed_after(2):
        train_model(small(picture_folder, tmp_path / "again", save_every_s=0))
    again = small(picture_folder, tmp_path / "again", resume=True, checkpoint_activations=True)
    train_model(again)
    kept, resumed = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("kept", "again"))
    assert all(torch.equal(kept[key], resumed[key]) for key in kept)
    assert "computed again for gradients" in (tmp_path / "again" / "report.html").read_text()


def test_a_compiled_network_decides_by_itself(zoo: Callable, in_folder: Path) -> None:
    answer = zoo("train", "tiny", "--checkpoint-activations", "--compile", "--device", "cpu")
    assert answer.code == 1
    assert "--checkpoint-activations does not go with --compile" in answer.err
    assert list(in_folder.iterdir()) == []


def test_gradients_are_exchanged_as_ever(tmp_path: Path) -> None:
    """In the wrapper of several processes, of which one is enough to see its hooks on every gradient."""
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    recipe = a_recipe(TINY)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        found = []
        for on in (False, True):
            settings = replace(PLAIN, checkpoint_activations=on)
            run = start_run(a_job(recipe, TINY, settings))
            enter_stage(run, recipe.stages[0], settings)
            torch.manual_seed(5)
            nn.init.normal_(run.model.classifier.weight)  # at 0, as it begins, no gradient would reach a block
            wrapped = DistributedDataParallel(run.model)
            for _ in range(2):
                wrapped(
                    torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
                ).square().mean().backward()
            found.append(run)
    finally:
        distributed.destroy_process_group()
    assert_same(*found)
    gradients = [parameter.grad for parameter in found[1].model.stages.parameters()]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
