"""The control: `folder` with a size drawn at random every eight epochs, regularised throughout as in its last stage.

Source     V2 Table 13: “random resize” draws every 8 epochs, not every batch; everything but the stages is `folder`'s.
           The draw is part of the recipe: it is the same for every seed of a run.
Command    zoo train s --data PICTURES --recipe random_resize
Hardware   not yet run
Wall time  not yet run
Result     not yet run; V2 Table 13 on ImageNet: 83.5 ± 0.11 %, with adaptive regularisation 84.2 ± 0.10 %
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from train.progressive.recipe import SIZE_STEP, Recipe, Situation
from train.recipes import folder

EPOCHS_PER_DRAW = 8


def adapt(situation: Situation) -> Recipe:
    """As many stages as draws; sizes uniform between the first and the last of `folder`, in steps of eight."""
    base = folder.adapt(situation)
    first, last = base.stages[0].image_size, base.stages[-1].image_size
    draws = -(-base.epochs // EPOCHS_PER_DRAW)
    below = np.random.default_rng(0).integers(0, (last - first) // SIZE_STEP + 1, draws)
    sizes = (last - SIZE_STEP * below).tolist()
    stages = tuple(
        replace(base.stages[-1], epochs=min(EPOCHS_PER_DRAW, base.epochs - index * EPOCHS_PER_DRAW), image_size=size)
        for index, size in enumerate(sizes)
    )
    return replace(base, name="random_resize", source="V2 Table 13", stages=stages)
