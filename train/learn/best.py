"""Owns which weights of a run are the best so far, and when none better is to be expected; the loop asks."""

from __future__ import annotations

from train.learn.run import Best, Run
from train.learn.scores import score_of
from train.learn.validation import Judged
from train.progressive.recipe import Recipe


def keep_best(run: Run, recipe: Recipe, result: Judged, *, epoch: int) -> None:
    """Keep the weights that were validated at the final size if none before were better; epoch 0 is the head start."""
    score = score_of(result, recipe.metric)
    if run.best is None or score > run.best.score:
        weights = {name: tensor.clone() for name, tensor in run.average.model.state_dict().items()}
        run.best = Best(epoch, score, weights)
    if epoch and (run.best_trained is None or score > run.best_trained[1]):
        run.best_trained = epoch, score


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
