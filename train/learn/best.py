"""Owns which weights of a run are the best so far, and when none better is to be expected; the loop asks."""

from __future__ import annotations

from math import sqrt

from train.learn.label_answers import LabelValidation
from train.learn.run import Best, Run
from train.learn.scores import score_of, weight_of
from train.learn.validation import Judged
from train.options import Metric
from train.progressive.recipe import Recipe


def keep_best(run: Run, recipe: Recipe, result: Judged, *, epoch: int, share: float = 1.0) -> bool:
    """Keep the weights that were validated at the final size if none before were better; epoch 0 is the head start.

    Returns whether they are kept.

    Args:
        share: as in `Best`: weights between the head start's and an epoch's are no epoch's of their own.
    """
    score = score_of(result, recipe.metric)
    run.highest = score[0] if run.highest is None else max(run.highest, score[0])
    bar = run.highest
    if recipe.metric != "loss":
        bar -= standard_error(run.highest, judged_by(result, recipe.metric))
    kept = run.best is None or is_better(score, run.best.score, bar)
    if kept:
        weights = {name: tensor.clone() for name, tensor in run.average.model.state_dict().items()}
        run.best = Best(epoch, score, weights, share)
    if epoch and share == 1 and (run.best_trained is None or score > run.best_trained[1]):
        run.best_trained = epoch, score
    return kept


def judged_by(result: Judged, metric: Metric) -> float:
    """By how many pictures a validation has its figure."""
    if isinstance(result, LabelValidation):
        return float(len(result.answers.index))
    return weight_of(result.answers, metric)


def standard_error(share: float, pictures: float) -> float:
    """Of a share of so many pictures, √(p (1 − p) / n): 0.034 of 0.9 of 76 pictures, 0.007 of 0.9 of 2,000."""
    return sqrt(max(share * (1 - share), 0.0) / pictures)


def is_better(score: tuple[float, float], best: tuple[float, float], bar: float) -> bool:
    """Whether a score, (metric, −loss) as `score_of` has it, is better than the best so far.

    What is above `bar`, within a standard error of the highest, is equal, and the loss decides (the one-standard-error
    rule of Breiman et al. 1984): of eight epochs judged by 76 pictures the highest is mostly the luckiest.
    """
    if score[0] >= bar and best[0] >= bar:
        return score[1] > best[1]
    return score > best


def is_hopeless(run: Run, recipe: Recipe, final_size: int) -> bool:
    """Whether the recipe's patience is over: so many epochs at the final size without one better than those before.

    Epochs are compared with epochs, as in Keras and Lightning, which count from the first validation of training. The
    head start's figure does not end a run: training from it often begins with worse ones, and would be over before it
    could do anything.
    """
    if recipe.patience is None or run.best_trained is None:
        return False
    final = [line.epoch for line in run.history if line.val_size == final_size]
    return sum(epoch > run.best_trained[0] for epoch in final) >= recipe.patience
