"""Owns the point halfway between the head start's weights and what training made of them; the loop asks at its end.

A network that was fine-tuned for few steps has learnt what is new and forgotten some of what was there. Weights between
both are often better than either (WiSE-FT: Wortsman et al. 2022, arXiv 2109.01903, whose ½ is taken as it is: more
points would choose among the validation pictures' whims). It costs one validation.
"""

from __future__ import annotations

import torch

from train.learn.best import keep_best
from train.learn.job import Job
from train.learn.run import Run
from train.learn.validation import Judged, validate_together

HALFWAY = 0.5


def try_midpoint(run: Run, job: Job) -> Judged | None:
    """Validate the weights halfway from the head start's to the best epoch's; keep and return it if it is the best.

    Where the head start itself is the best so far, it is the last epoch's weights they lead to. Norms' statistics lie
    halfway too. The average is left with other weights than it had.

    Raises:
        DivergedError: as `validate_together`.
    """
    model = run.average.model
    if run.best is None or job.start is None or not run.fitted:
        return None
    epoch, trained = len(run.history), model.state_dict()
    if run.best.epoch:
        epoch, trained = run.best.epoch, run.best.weights
    began = job.start.network.state_dict() | run.fitted
    between = {
        name: torch.lerp(began[name].to(end), end, HALFWAY) if end.is_floating_point() else end
        for name, end in trained.items()
    }
    model.load_state_dict(between)
    result = validate_together(model, job.val_set, job.preprocessing, job.settings)
    return result if keep_best(run, job.recipe, result, epoch=epoch, share=HALFWAY) else None
