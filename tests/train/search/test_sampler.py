"""Choices of a space and candidates are the same thing said in two ways."""

from __future__ import annotations

import numpy as np
import pytest

from train.search.sampler import candidate_of, choices_for, choices_of, distributions_of, make_sampler
from zoo.model.space import Space
from zoo.model.spaces import CONTROL, PAPER, SMALL, SPACES

optuna = pytest.importorskip("optuna")


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.id)
def test_every_candidate_is_found_again_by_its_choices(space: Space) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        candidate = space.draw(rng)
        assert candidate_of(space, choices_for(space, candidate)) == candidate


def test_what_leaves_nothing_to_choose_is_not_asked() -> None:
    assert set(choices_of(CONTROL)) == {"1.operators", "2.operators", "2.num_layers", "3.operators", "3.kernel_sizes"}
    assert len(distributions_of(PAPER)) == 7 * 4


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_a_sampler_proposes_the_same_again_and_other_things_later(name: str) -> None:
    def drawn(count: int) -> str:
        directions = ["maximize", "minimize", "minimize"] if name == "nsga2" else ["maximize"]
        study = optuna.create_study(directions=directions, sampler=make_sampler(name, 3, count))  # type: ignore[arg-type]
        return candidate_of(SMALL, study.ask(dict(distributions_of(SMALL))).params).code

    assert drawn(0) == drawn(0)
    assert len({drawn(count) for count in range(6)}) > 3
