"""Owns how a space becomes what Optuna's samplers choose from, and which sampler and pruner a search has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from train.search.options import SamplerName
from train.search.rows import Costs
from zoo.model.space import Candidate, Searched, Space, StageSpace
from zoo.model.spec import Stage

if TYPE_CHECKING:
    import optuna

# NSGA-II breeds from so many: a search of 60 trials then has three generations.
POPULATION = 20
# Nobody is behind before so many trials have shown what is usual, nor before this share of its epochs.
STARTUP_TRIALS, WARMUP_SHARE = 8, 0.3
ONE_REWARD = ("maximize",)
# Accuracy, step time, parameters.
THREE = ("maximize", "minimize", "minimize")
FIELDS = ("operators", "num_layers", "kernel_sizes", "expand_ratios", "se_ratios", "fused_se_ratios")


def directions_of(sampler: SamplerName) -> tuple[str, ...]:
    """What the sampler's values are: the reward, or the three figures that NSGA-II weighs against each other."""
    return THREE if sampler == "nsga2" else ONE_REWARD


def values_of(sampler: SamplerName, reward: float, top1: float, costs: Costs) -> tuple[float, ...]:
    """What the sampler is told of a finished trial."""
    return (top1, costs.step.ratio, float(costs.num_params)) if sampler == "nsga2" else (reward,)


def choices_of(space: Space) -> dict[str, tuple[Any, ...]]:
    """Every choice of a space by its name, “3.kernel_sizes”: those that leave something to choose.

    All are chosen always, also those of a stage that vanishes and the squeeze of the other operator: NSGA-II crosses
    only what all parents have.
    """
    found = {
        f"{place}.{name}": getattr(stage, name) for place, stage in enumerate(space.stages, start=1) for name in FIELDS
    }
    return {name: choices for name, choices in found.items() if len(choices) > 1}


def distributions_of(space: Space) -> dict[str, optuna.distributions.CategoricalDistribution]:
    """The same as Optuna has it."""
    import optuna

    return {name: optuna.distributions.CategoricalDistribution(choices) for name, choices in choices_of(space).items()}


def candidate_of(space: Space, chosen: Mapping[str, Any]) -> Candidate:
    """The network of some choices."""
    return Candidate(stages=tuple(_stage_of(stage, place, chosen) for place, stage in enumerate(space.stages, start=1)))


def _stage_of(stage: StageSpace, place: int, chosen: Mapping[str, Any]) -> Stage | None:
    def of(name: str) -> Any:
        return chosen.get(f"{place}.{name}", getattr(stage, name)[0])

    operator: Searched = of("operators")
    squeeze = of("se_ratios" if operator == "mbconv" else "fused_se_ratios")
    return stage.stage(operator, of("kernel_sizes"), of("expand_ratios"), of("num_layers"), squeeze)


def choices_for(space: Space, candidate: Candidate) -> dict[str, Any]:
    """Choices that make a candidate; of what it leaves open, such as the kernel of a stage that is gone, the first."""
    chosen: dict[str, Any] = {}
    for place, (stage, own) in enumerate(zip(space.stages, candidate.stages, strict=True), start=1):
        if own is None:
            values: dict[str, Any] = {"num_layers": 0}
        else:
            squeeze = "se_ratios" if own.operator == "mbconv" else "fused_se_ratios"
            values = {
                "operators": own.operator,
                "num_layers": own.num_layers,
                "kernel_sizes": own.kernel_size,
                "expand_ratios": own.expand_ratio,
                squeeze: own.se_ratio,
            }
        for name in FIELDS:
            chosen[f"{place}.{name}"] = values.get(name, getattr(stage, name)[0])
    return {name: chosen[name] for name in choices_of(space)}


def make_sampler(name: SamplerName, seed: int, drawn: int) -> optuna.samplers.BaseSampler:
    """A sampler for one proposal, which follows from the seed and from how many were drawn before.

    It is made anew each time, so that a search that was interrupted goes on as if it had not been.
    """
    import optuna

    own = int(np.random.SeedSequence((seed, drawn)).generate_state(1)[0])
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=own)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=own, population_size=POPULATION)
    return optuna.samplers.RandomSampler(seed=own)


def sampler_of(chosen: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    """A sampler that proposes these choices.

    Optuna's own way is a queue of rows (`enqueue_trial`), and on SQLite two workers may take the same row from it.
    """
    import optuna

    class Given(optuna.samplers.BaseSampler):
        """Proposes what it was given."""

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            """Every choice by itself."""
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            """Nothing: there is nothing to choose together."""
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            """What was given."""
            return chosen[param_name]

    return Given()


def make_pruner(epochs: int) -> optuna.pruners.BasePruner:
    """Ends a trial whose reward so far is below the median of the others' at the same epoch."""
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=round(WARMUP_SHARE * epochs))
