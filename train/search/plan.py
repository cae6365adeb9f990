"""Owns what a search would cost, known from a few measured steps before it begins; it trains nothing."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import numpy as np

from train.learn.pace import amount_of, measure_pace
from train.progressive.budget import read_duration, seconds_of
from train.search.options import SearchOptions
from train.search.sampler import STARTUP_TRIALS
from train.search.step_time import ROUNDS, VISIT_MS
from train.search.trial import Lab
from zoo.model.counts import count_macs
from zoo.rows import Count, CountOrNone, NotNegative, Positive, Row, Text
from zoo.wording import duration, number_of

# The mean of so many networks tells what one of the space costs.
DRAWN = 64


@dataclass(frozen=True, kw_only=True)
class SearchPlan(Row):
    """What a search would do: seconds of a trial, its step times with it, and of a long training, on this machine.

    `trials` are what was asked for, or what the budget has time for beside `long_trainings`; the mean network takes
    `share_of_reference` of the reference's time, by its multiply-adds. `stops_early` says that some may end earlier.
    """

    space: Text
    networks: Count
    train_pictures: Count
    val_pictures: Count
    share_of_reference: Positive
    trial_s: NotNegative
    long_s: NotNegative
    trials: CountOrNone
    long_trainings: CountOrNone
    seconds: NotNegative
    budget_s: NotNegative | None
    stops_early: bool

    @property
    def sentences(self) -> list[str]:
        """The plan as people read it."""
        said = [
            f"The space {self.space} has {number_of(self.networks, 'network')}; {self.train_pictures} training and "
            f"{self.val_pictures} validation pictures.",
            f"A trial takes about {duration(self.trial_s)} on this machine, a long training {duration(self.long_s)}.",
        ]
        made = f"{number_of(self.trials, 'trial')} and {number_of(self.long_trainings, 'long training')}"
        told = f"{made}: about {duration(self.seconds)}"
        if self.budget_s is None:
            early = " Trials that are behind are stopped early, which may halve it." if self.stops_early else ""
            return [*said, f"{told}.{early}"]
        if not self.trials:
            return [*said, f"The budget of {duration(self.budget_s)} has no time for one: fewer --finalists, --epochs."]
        early = " if no trial is stopped early" if self.stops_early else ""
        return [*said, f"{told}, what fits the budget of {duration(self.budget_s)}{early}."]


def plan_search(lab: Lab, options: SearchOptions) -> SearchPlan:
    """Measure a few steps of the reference network, and reckon from them what the search takes.

    Raises:
        ZooError: as `Lab.job`; or the budget is no duration.
    """
    job = lab.job(lab.reference)
    pace, amount = measure_pace(job), amount_of(job)
    rng = np.random.default_rng(options.seed)
    size = job.recipe.largest_size
    drawn = fmean(count_macs(lab.space.variant(lab.space.draw(rng)), size) for _ in range(DRAWN))
    share = drawn / count_macs(job.variant, size)
    stage = job.recipe.stages[-1]
    step_s = stage.batch_size * (pace.train_s + pace.train_s_per_px * size**2)
    measuring = ROUNDS * (1 + share) * max(step_s, VISIT_MS / 1000)
    trial_s = share * seconds_of(job.recipe, amount, pace) + measuring
    longer = lab.job(lab.reference, epochs=options.finalist_epochs)
    long_s = share * seconds_of(longer.recipe, amount, pace)
    tables = {candidate.code for candidate in lab.references.values()}
    long_trainings = (options.finalists + len(tables)) * options.long_seeds if options.finalists else 0
    budget_s = None if options.budget is None else read_duration(options.budget)
    trials = options.trial_count
    if budget_s is not None:
        fitting = max(0, int((budget_s - long_trainings * long_s) / trial_s))
        trials = fitting if trials is None else min(trials, fitting)
    trials = min(trials or 0, lab.space.size)
    return SearchPlan(
        space=lab.space.id,
        networks=lab.space.size,
        train_pictures=len(lab.pictures[0]),
        val_pictures=len(lab.pictures[1]),
        share_of_reference=share,
        trial_s=trial_s,
        long_s=long_s,
        trials=trials,
        long_trainings=long_trainings,
        seconds=trials * trial_s + long_trainings * long_s,
        budget_s=budget_s,
        stops_early=options.stops_early and trials > STARTUP_TRIALS,
    )
