"""The optimizers against their formulas and against timm's, and who gets which rate."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from train.learn.optim import LAMB, RMSProp, make_optimizer, parameter_groups, stage_levels
from train.progressive.recipe import Recipe, find_recipe
from zoo.model.build import build_network
from zoo.model.network import Network
from zoo.model.variants import RESNET_50, find_variant

TINY = find_variant("tiny")
RECIPE = find_recipe("folder", TINY)


def follow(make: Callable[[list[Tensor]], Optimizer], steps: int = 12) -> Tensor:
    """Where an optimizer takes two tensors on a bumpy quadratic."""
    torch.manual_seed(0)
    parameters = [torch.randn(4, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = make(parameters)
    for step in range(steps):
        optimizer.zero_grad()
        loss = sum(((p - 0.3 * index) ** 2 * (1 + step % 3)).sum() for index, p in enumerate(parameters))
        torch.as_tensor(loss).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in parameters])


def test_rmsprop_is_tensorflows_formula() -> None:
    """One weight, by hand: accumulator from 1, ε inside the root, the rate inside the momentum."""
    weight = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    optimizer = RMSProp([weight], lr=0.1, decay=0.9, momentum=0.8, eps=1e-3, weight_decay=0.01)
    w, s, m = 2.0, 1.0, 0.0
    for step in range(5):
        weight.grad = torch.tensor([0.5 + step], dtype=torch.float64)
        optimizer.step()
        g = 0.5 + step + 0.01 * w
        s = 0.9 * s + 0.1 * g * g
        m = 0.8 * m + 0.1 * g / np.sqrt(s + 1e-3)
        w -= m
        assert weight.item() == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_rmsprop_is_timms(weight_decay: float) -> None:
    timm_optim = pytest.importorskip("timm.optim")
    ours = follow(lambda p: RMSProp(p, lr=0.02, decay=0.9, momentum=0.9, eps=1e-3, weight_decay=weight_decay))
    theirs = follow(
        lambda p: timm_optim.RMSpropTF(p, lr=0.02, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=weight_decay)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_lamb_is_timms(weight_decay: float) -> None:
    timm_optim = pytest.importorskip("timm.optim")
    ours = follow(lambda p: LAMB(p, lr=0.02, betas=(0.9, 0.99), eps=1e-6, weight_decay=weight_decay))
    theirs = follow(
        lambda p: timm_optim.Lamb(
            p, lr=0.02, betas=(0.9, 0.99), eps=1e-6, weight_decay=weight_decay, max_grad_norm=None
        )
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_torchs_rmsprop_is_another_one() -> None:
    """Why there is one of ours."""
    ours = follow(lambda p: RMSProp(p, lr=0.02, decay=0.9, momentum=0.9, eps=1e-3))
    torchs = follow(lambda p: torch.optim.RMSprop(p, lr=0.02, alpha=0.9, momentum=0.9, eps=1e-3))
    assert (ours - torchs).abs().max() > 0.01


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "lamb"])
def test_every_optimizer_learns_and_continues_from_its_state(name: str) -> None:
    recipe = replace(RECIPE, optimizer=name, learning_rate=0.01)
    inputs, labels = torch.randn(8, 3, 32, 32, generator=torch.manual_seed(0)), torch.arange(8) % 3

    def step(model: Network, optimizer: Optimizer) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    torch.manual_seed(1)
    model = build_network(TINY, 3)
    model.set_stochastic_depth(0.0)
    model.set_dropout(0.0)
    optimizer = make_optimizer(model, recipe)
    losses = [step(model, optimizer) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]

    other = build_network(TINY, 3)
    other.set_stochastic_depth(0.0)
    other.set_dropout(0.0)
    other.load_state_dict(model.state_dict())
    resumed = make_optimizer(other, recipe)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))  # it would share the tensors
    step(model, optimizer)
    step(other, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def groups_by_parameter(model: Network, recipe: Recipe) -> dict[str, dict[str, float]]:
    of = {id(p): group for group in parameter_groups(model, recipe) for p in group["params"]}
    return {name: of[id(parameter)] for name, parameter in model.named_parameters()}


def test_norms_and_biases_are_never_decayed() -> None:
    recipe = replace(RECIPE, weight_decay=0.05)
    for name, group in groups_by_parameter(build_network(TINY, 3), recipe).items():
        spared = "norm" in name or name.endswith("bias")
        assert group["weight_decay"] == (0.0 if spared else 0.05), name


def test_one_rate_for_all_unless_layers_decay() -> None:
    groups = parameter_groups(build_network(TINY, 3), RECIPE)
    assert [group["lr_scale"] for group in groups] == [1.0, 1.0]


def test_rates_fall_towards_the_input() -> None:
    groups = groups_by_parameter(build_network(TINY, 3), replace(RECIPE, layer_decay=0.5))
    of: dict[str, set[float]] = {}
    for name, group in groups.items():
        part = ".".join(name.split(".")[:2]) if name.startswith("stages.") else name.partition(".")[0]
        of.setdefault(part, set()).add(group["lr_scale"])
    assert of == {
        "stem": {0.5**4},
        "stages.1": {0.5**3},
        "stages.2": {0.5**2},
        "stages.3": {0.5},
        "head": {1.0},
        "classifier": {1.0},
    }


def test_a_resnets_levels_are_its_layers() -> None:
    small = replace(RESNET_50, id="resnet14", stages=tuple(replace(stage, num_layers=1) for stage in RESNET_50.stages))
    levels = stage_levels(build_network(small, 3))
    assert levels["backbone.conv1.weight"] == 0
    assert levels["backbone.layer1.0.conv1.weight"] == 1
    assert levels["backbone.layer4.0.bn3.weight"] == 4
    assert levels["classifier.weight"] == 5
