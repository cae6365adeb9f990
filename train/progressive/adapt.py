"""Owns how a recipe follows the situation it is used in: pure functions of pictures, epochs and steps; no clock.

A setting that is right for 1.3 million pictures is wrong for two hundred: 70 steps are over before a batch norm with a
momentum of 0.01 or an average with a decay of 0.9998 has moved. So what depends on how long a run is, is counted in
steps here, and the recipes for people's own pictures are made of these functions.
"""

from __future__ import annotations

from math import ceil, log, log2, log10, pow, sqrt

from train.options import Metric, Sampler
from train.progressive.recipe import Situation
from train.progressive.schedule import steps_per_epoch

# A run of fewer steps has not left its start; more are not worth smaller batches, which use the machine less well.
# From nothing there is more to learn.
ENOUGH_STEPS, STEPS_FROM_NOTHING = 400, 3000
SMALLEST_BATCH, LARGEST_BATCH = 8, 64
# What is averaged over: the last twentieth of a run.
AVERAGED_SHARE = 0.05
# Passes over the pictures up to which nothing is learnt by heart; ten times as many need all the means against it.
FEW_PASSES = 30
# Where a class has so many times the pictures of another, who always names the former is right five times in six.
UNEQUAL = 5.0
# Parameters up to which a network has no room for that; ten thousand times as many have plenty.
FEW_PARAMETERS = 1_000
WARMUP_SHARE, MOST_WARMUP_STEPS = 0.1, 2000


def suited_epochs(situation: Situation, *, of_1000: float, least: int = 2) -> int:
    """The user's epochs, or as many as suit the number of pictures: `of_1000` for a thousand, `least` for any.

    Ten times the pictures need 1/1.8 of the epochs (the fourth root): 20 for 1,000 are 28 for 250, 7.5 for 50,000 and
    3.4 for 1.28 million; never so few that the run has less than `ENOUGH_STEPS` steps of the smallest batch.
    """
    if situation.epochs is not None:
        return situation.epochs
    enough = ceil(ENOUGH_STEPS / steps_per_epoch(situation.pictures, SMALLEST_BATCH))
    return max(least, enough, round(of_1000 * sqrt(sqrt(1000 / situation.pictures))))


def suited_batch(situation: Situation, epochs: int, *, steps: int = ENOUGH_STEPS, least: int = SMALLEST_BATCH) -> int:
    """The user's batch, or the power of two that comes nearest to so many steps, from `least` to 64."""
    if situation.batch_size is not None:
        return situation.batch_size
    wanted = situation.an_epoch * epochs / steps
    return min(max(1 << round(log2(max(wanted, 1.0))), least), LARGEST_BATCH)


def average_decay(steps: int) -> float:
    """Decay of the weight average of a run of so many steps: it looks back over `AVERAGED_SHARE` of them.

    400 steps: 0.95; 4,000: 0.995; never above the 0.9999 of the ImageNet recipes.
    """
    return round(min(max(1 - 1 / (AVERAGED_SHARE * steps), 0.5), 0.9999), 5)


def norm_momentum(steps: int) -> float:
    """How far a batch norm's statistics move in one step: a hundred steps' worth of memory, less in a short run.

    PyTorch's convention, in which the paper's is 0.01. 400 steps: 0.05; from 2,000 on: 0.01; never above 0.1.
    """
    return round(min(max(20 / steps, 0.01), 0.1), 4)


def variety(passes: float) -> float:
    """How much of the means against learning by heart a run from weights gets: none in a single pass, all from ten on.

    By the logarithm: 0.3 in two passes. What is seen once needs no variety, and is learnt from more as it is; what is
    seen often is learnt by heart without.
    """
    return round(min(max(log10(max(passes, 1.0)), 0.0), 1.0), 2)


def smallest_crop(passes: float) -> float:
    """The least share of a picture that a random crop takes: 0.7 in a single pass over them, 0.35 from ten on."""
    return round(0.7 - 0.35 * variety(passes), 2)


def enlargement(smallest: float) -> float:
    """How much larger test pictures are than training ones, by the least share of a picture that a crop takes.

    A crop of a share s shows things 1/√s as large as the whole picture would, and those from s to 1 on average
    2 / (1 + √s) as large (FixRes, Touvron et al. 2019, arXiv 1906.06423). The paper's S crops from 0.08 and is tested
    at 384 px of 300; by the same power of that mean, 0.35 are 1.135 and 0.7 are 1.05.
    """
    power = log(384 / 300) / log(2 / (1 + sqrt(0.08)))
    return round(pow(2 / (1 + sqrt(smallest)), power), 4)


def regularisation(passes: float, parameters: int) -> float:
    """How much of a recipe's RandAugment, mixup, dropout and stochastic depth a run from nothing gets, 0 … 1.

    None of it up to 30 passes over the pictures, all of it from 300 on, and 0.3 of it at 60: a run that has hardly seen
    its pictures learns more from them as they are. And the larger the network the more (EfficientNetV2 §4.1): all of it
    from 10 million parameters on, three quarters for one million, a fifth for the 7,000 of `tiny`.
    """
    often = log10(max(passes, 1.0) / FEW_PASSES)
    large = log10(max(parameters, 1) / FEW_PARAMETERS) / 4
    return round(min(max(often, 0.0), 1.0) * min(max(large, 0.0), 1.0), 2)


def suited_sampler(situation: Situation) -> Sampler:
    """Which pictures an epoch has: every class equally often where they are unequal, else every picture once.

    A run of few passes sees too little of a rare class to learn it: of 50 among 1,050 pictures, 17 in a third of one.
    From nothing a rare class would be learnt by heart before the others are learnt at all: there it is not the default.
    """
    return "balanced" if situation.imbalance >= UNEQUAL else "shuffle"


def suited_metric(situation: Situation) -> Metric:
    """What the best epoch is the best in: where classes are unequal, a figure that the rare ones count in as well."""
    return "balanced_accuracy" if situation.imbalance >= UNEQUAL else "top1"


def warmup_epochs(steps: int, epochs: int) -> float:
    """A tenth of the steps, 2,000 at most, in epochs."""
    return round(min(WARMUP_SHARE * steps, MOST_WARMUP_STEPS) / steps * epochs, 3)
