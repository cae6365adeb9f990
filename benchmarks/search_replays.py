"""Owns searches replayed on a table of trained networks: `zoo search`'s samplers ask, the table answers.

The samplers are those of `train.search.sampler`, told of what they are told in a search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import optuna

from serve.bench.measure.search_rows import CHANCE, Replay, SearchData
from train.search.options import SamplerName
from train.search.sampler import candidate_of, directions_of, distributions_of, make_sampler
from zoo.model.space import Candidate

SAMPLERS: tuple[SamplerName, ...] = ("tpe", "nsga2")
# A sampler that asks for what it knows already is asked again, so many times as often as there are trials.
PATIENCE = 20
FIELDS = ("operator", "kernel_size", "expand_ratio", "num_layers", "se_ratio")


class Table:
    """Trained networks that answer for the whole space: each question is answered by the nearest network.

    Near is what differs in few choices; of several at the same distance the first in the table answers.
    """

    def __init__(self, data: SearchData) -> None:
        self.data = data
        self._genes = np.array([_genes(row.candidate) for row in data.networks])

    def nearest(self, candidate: Candidate) -> int:
        """The place of the network that answers."""
        return int((self._genes != np.array(_genes(candidate))).sum(axis=1).argmin())

    def values(self, sampler: SamplerName, place: int) -> tuple[float, ...]:
        """What a sampler is told of a network: its reward, or the three figures that NSGA-II weighs."""
        row = self.data.networks[place]
        three = (row.top1, row.step.value, float(row.num_params))
        return three if len(directions_of(sampler)) == len(three) else (self.data.rewards[place],)


def _genes(candidate: Candidate) -> list[str]:
    return [str(getattr(stage, field, None)) for stage in candidate.stages for field in FIELDS]


def replays(data: SearchData, *, trials: int, repetitions: int) -> Iterator[Replay]:
    """Chance and every sampler, each with the same seeds; chance draws from the table without asking twice."""
    table, trials = Table(data), min(trials, len(data.networks))
    for seed in range(repetitions):
        order = [int(place) for place in np.random.default_rng((seed, 1)).permutation(len(data.networks))]
        yield Replay(sampler=CHANCE, seed=seed, order=tuple(order[:trials]))
        for name in SAMPLERS:
            yield Replay(sampler=name, seed=seed, order=ask(table, name, seed, trials, order))


def ask(table: Table, sampler: SamplerName, seed: int, trials: int, order: Sequence[int]) -> tuple[int, ...]:
    """The networks that a sampler asks for, each once, in order; where it only repeats itself, `order` goes on."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=directions_of(sampler))
    distributions = distributions_of(table.data.space)
    asked: dict[int, None] = {}
    for drawn in range(PATIENCE * trials):
        study.sampler = make_sampler(sampler, seed, drawn)
        trial = study.ask(distributions)
        place = table.nearest(candidate_of(table.data.space, trial.params))
        study.tell(trial, table.values(sampler, place))
        asked[place] = None
        if len(asked) == trials:
            return tuple(asked)
    return tuple(dict.fromkeys([*asked, *order]))[:trials]
