"""Owns how long a network's training step takes beside the reference network's, which takes turns with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import numpy as np
import torch

from train.learn.job import Job
from train.learn.run import enter_stage, start_run
from train.learn.step import train_step
from train.learn.throughput import WARMUP_STEPS, noise, noise_job
from train.search.rows import StepTime
from zoo.intervals import median_interval
from zoo.measure.rounds import Watches
from zoo.measure.vitals import ROBBED_ABOVE, Watch

ROUNDS = 10
# Undisturbed rounds are waited for so long: after so many times as many the machine is not a quiet one.
MOST_TIMES = 3
# A visit of fewer milliseconds would be the clock's and the scheduler's.
VISIT_MS = 20.0
MOST_STEPS = 50


class Stepper:
    """A network that makes training steps on noise, as `zoo bench train` does: at the last stage of its job's recipe.

    It is warmed up when it is made, and may be kept: the reference of a search is made once.
    """

    def __init__(self, job: Job) -> None:
        self.on_gpu = job.settings.device.type == "cuda"
        self.stage = job.recipe.stages[-1]
        plain = noise_job(job.variant, job.recipe, job.settings, len(job.classes))
        run = start_run(plain)
        enter_stage(run, self.stage, plain.settings)
        parts = [noise(plain, self.stage)] * self.stage.accumulate
        rng = np.random.default_rng(0)
        self._step: Callable[[], object] = partial(train_step, run, plain, self.stage, parts, rng, num_parts=len(parts))
        for _ in range(WARMUP_STEPS):
            self.step()

    def step(self) -> float:
        """Make one step; milliseconds."""
        began = time.perf_counter_ns()
        self._step()
        if self.on_gpu:
            torch.cuda.synchronize()  # host–device synchronisation: the step's end is what is timed
        return (time.perf_counter_ns() - began) / 1e6


def measure_step_time(network: Stepper, reference: Stepper, *, watch: Watches | None = None) -> StepTime:
    """Visit both in turn, A B A B …, until `ROUNDS` rounds were undisturbed, or `MOST_TIMES` as many are made.

    A round gives one ratio of two medians; of the ratios' logarithms it is the Hodges–Lehmann estimate and its 95 %
    interval. What slowed a round slowed both, so that a ratio is steadier than either time. `watch` looks at the
    machine during each round, as in `zoo bench`.
    """
    watch = watch or Watch()
    counts = [_steps_of_a_visit(stepper) for stepper in (network, reference)]
    quiet: list[tuple[float, float]] = []
    made: list[tuple[float, float]] = []
    while len(quiet) < ROUNDS and len(made) < MOST_TIMES * ROUNDS:
        watch.begin()
        own, other = (
            median(stepper.step() for _ in range(count))
            for stepper, count in zip((network, reference), counts, strict=True)
        )
        lost_share = watch.end().lost_share
        made.append((own, other))
        if lost_share <= ROBBED_ABOVE:
            quiet.append((own, other))
    is_quiet = len(quiet) >= ROUNDS
    return _step_time(quiet if is_quiet else made, network, is_quiet=is_quiet)


def _step_time(taken: Sequence[tuple[float, float]], network: Stepper, *, is_quiet: bool) -> StepTime:
    ratio, low, high = map(math.exp, median_interval([math.log(own / other) for own, other in taken]))
    return StepTime(
        ms=median(own for own, _ in taken),
        reference_ms=median(other for _, other in taken),
        ratio=ratio,
        low=low,
        high=high,
        rounds=len(taken),
        quiet=is_quiet,
        batch_size=network.stage.batch_size,
        image_size=network.stage.image_size,
    )


def _steps_of_a_visit(stepper: Stepper) -> int:
    return min(max(1, math.ceil(VISIT_MS / max(stepper.step(), 1e-3))), MOST_STEPS)
