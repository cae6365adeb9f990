"""Owns the optimizers and which parameters get which rate and decay; when they step is `train/learn/step.py`'s.

SGD and AdamW are torch's. RMSProp has TensorFlow's formula, which differs from torch's; torch has no LAMB.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from train.progressive.recipe import Recipe
from zoo.model.network import Network

# What each optimizer adds before its division if the recipe says nothing: torch's value for AdamW, google/automl's
# (efficientnetv2 hparams.py) for RMSProp, the paper's (arXiv 1904.00962) for LAMB.
DEFAULT_EPS = {"adamw": 1e-8, "rmsprop": 1e-3, "lamb": 1e-6, "sgd": 0.0}


class _Foreach(Optimizer):
    """An optimizer whose arithmetic is a few calls over all tensors of a group at once."""

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        if closure is not None:
            raise TypeError("This optimizer takes no closure: the loss is computed once a step.")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(group, parameters, [p.grad for p in parameters])

    def _update(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        raise NotImplementedError

    def _state_of(self, parameters: list[Tensor], name: str, initial: float) -> list[Tensor]:
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.full_like(p, initial)
        return [self.state[p][name] for p in parameters]


class RMSProp(_Foreach):
    """RMSProp of TensorFlow 1 (`tf.train.RMSPropOptimizer`), for which the paper's recipes are written.

        s ← ρ s + (1 − ρ) g²        s starts at 1, not at 0
        m ← μ m + η g / √(s + ε)    ε is inside the root, the learning rate inside the momentum
        w ← w − m

    torch's starts s at 0 and adds ε to the root: with ε = 1e-3 a gradient of 0 is divided by 1e-3 there and by
    0.032 here. Weight decay is an L2 term of the loss: g gets λ w added.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, decay: float, momentum: float, eps: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(
            params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        )

    def _update(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        squares = self._state_of(parameters, "square_avg", 1.0)
        momenta = self._state_of(parameters, "momentum_buffer", 0.0)
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, parameters, alpha=group["weight_decay"]))
        torch._foreach_mul_(squares, group["decay"])
        torch._foreach_addcmul_(squares, grads, grads, value=1.0 - group["decay"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_addcdiv_(momenta, grads, roots, value=group["lr"])
        torch._foreach_sub_(parameters, momenta)


class LAMB(_Foreach):
    """LAMB (You et al. 2020, arXiv 1904.00962, Algorithm 2): Adam's direction, as long as the layer's own weights.

        r = m̂ / (√v̂ + ε) + λ w,    w ← w − η · ‖w‖ / ‖r‖ · r

    Parameters without decay (norms, biases) take r unscaled, as in the authors' code; so do layers of norm 0.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        means = self._state_of(parameters, "exp_avg", 0.0)
        squares = self._state_of(parameters, "exp_avg_sq", 0.0)
        torch._foreach_lerp_(means, grads, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1.0 - beta2)
        # A parameter that was frozen at first has made fewer steps than the rest of its group.
        steps = [self._count(p) for p in parameters]
        updates = torch._foreach_div(squares, [1.0 - beta2**step for step in steps])
        torch._foreach_sqrt_(updates)
        torch._foreach_add_(updates, group["eps"])
        updates = torch._foreach_div(torch._foreach_div(means, [1.0 - beta1**step for step in steps]), updates)
        if group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
            lengths, norms = torch._foreach_norm(parameters), torch._foreach_norm(updates)
            trust = [
                torch.where((length > 0) & (norm > 0), length / norm, torch.ones_like(norm))
                for length, norm in zip(lengths, norms, strict=True)
            ]
            torch._foreach_mul_(updates, trust)
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _count(self, parameter: Tensor) -> int:
        state = self.state[parameter]
        count: int = state.get("step", 0) + 1
        state["step"] = count
        return count


def make_optimizer(model: Network, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over `parameter_groups`. SGD and AdamW are torch's fused ones."""
    return optimizer_over(parameter_groups(model, recipe), recipe)


def optimizer_over(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over groups of parameters, which have their own weight decay."""
    eps = DEFAULT_EPS[recipe.optimizer] if recipe.eps is None else recipe.eps
    lr = recipe.learning_rate
    if recipe.optimizer == "rmsprop":
        return RMSProp(groups, lr=lr, decay=recipe.rmsprop_decay, momentum=recipe.momentum, eps=eps)
    if recipe.optimizer == "lamb":
        return LAMB(groups, lr=lr, betas=recipe.betas, eps=eps)
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    return torch.optim.AdamW(groups, lr=lr, betas=recipe.betas, eps=eps, fused=True)


def parameter_groups(model: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters by rate and decay: norms and biases (one dimension) are never decayed.

    `lr_scale` is the group's share of the schedule's rate: recipe.layer_decay ^ (stages above it). With 0.75, S's
    classifier and head get 1, its sixth stage 0.75, its stem 0.75⁷ = 0.13.
    """
    levels = stage_levels(model)
    top = len(model.variant.stages) + 1
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        key = (recipe.layer_decay ** (top - levels[name]), parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    # From the top to the bottom, decayed groups first: the order depends on the row alone.
    return [
        {"params": members, "weight_decay": recipe.weight_decay if decayed else 0.0, "lr_scale": scale}
        for (scale, decayed), members in sorted(groups.items(), key=lambda item: (-item[0][0], not item[0][1]))
    ]


def stage_levels(model: Network) -> dict[str, int]:
    """Level of every parameter by name: 0 the stem, 1 … S the network's stages, S + 1 head and classifier."""
    blocks = iter(model.blocks())
    level_of = {
        id(parameter): level
        for level, stage in enumerate(model.variant.stages, start=1)
        for _ in range(stage.num_layers)
        for parameter in next(blocks).parameters()
    }
    levels: dict[str, int] = {}
    outside = 0  # parameters come in the order of the forward pass: the stem's before those of any block
    for name, parameter in model.named_parameters():
        level = level_of.get(id(parameter))
        if level is not None:
            outside = len(model.variant.stages) + 1
        levels[name] = outside if level is None else level
    return levels
