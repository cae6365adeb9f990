"""Owns one training of a candidate, through the functions that `zoo train` calls, and what the candidate costs.

Which candidates are tried, and what becomes of the figures, is others'.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from train.learn.job import Job, TrainAndVal, make_job
from train.learn.loop import fit
from train.learn.run import Epoch, Run, start_run
from train.learn.validation import Validation
from train.learn.watcher import Watcher
from train.options import TrainOptions
from train.processes.distributed import ALONE
from train.processes.stopping import StopRequest
from train.search.rows import Costs, Latency, Trained, Unit
from train.search.step_time import Stepper, measure_step_time
from zoo.errors import DataError, ZooError
from zoo.model.blocks import LatencyTable
from zoo.model.counts import count_macs, count_params
from zoo.model.row_files import write_row
from zoo.model.space import Candidate, Space
from zoo.model.spaces import REFERENCES
from zoo.model.spec import RGB, Variant
from zoo.model.variants import find_variant

# Told of every epoch: its number from 1, and the top-1 after it. True ends the training: it is hopeless.
Judge = Callable[[int, float], bool]


class Hopeless(Exception):
    """A training was ended because it is behind; `trained` is what it had reached."""

    def __init__(self, trained: Trained) -> None:
        super().__init__("behind the others")
        self.trained = trained


@dataclass(frozen=True, kw_only=True)
class Lab:
    """What all trials of a search share: the space, how a network is trained, on which pictures.

    `training` is told to `zoo train`'s own functions, with each network in the place of its model. The pictures are
    opened once, so that the split is the same for every seed. `table` adds latency to what a network costs.
    """

    space: Space
    training: TrainOptions
    pictures: TrainAndVal
    table: LatencyTable | None = None

    def __post_init__(self) -> None:
        if self.pictures[0].multi_label:
            raise DataError(
                "A search ranks networks by top-1, and these pictures may have several labels each.",
                "Search on pictures of one class each, and train the winner on these.",
            )

    def variant(self, candidate: Candidate) -> Variant:
        """The row of a candidate, for pictures of as many planes as these."""
        return self.space.variant(candidate).with_channels(self.training.channels or RGB)

    def job(self, candidate: Candidate, *, epochs: int | None = None, seed: int | None = None) -> Job:
        """The training of a candidate, as `zoo train` would make it of the candidate's row.

        Args:
            candidate: one of the space.
            epochs: instead of a trial's.
            seed: instead of the search's.

        Raises:
            ZooError: as `make_job`.
        """
        options = replace(
            self.training,
            epochs=epochs or self.training.epochs,
            seed=self.training.seed if seed is None else seed,
        )
        with tempfile.TemporaryDirectory(prefix="zoo-search-") as folder:
            row = Path(folder) / "candidate.toml"
            write_row(row, self.variant(candidate), "")
            return make_job(replace(options, model=str(row)), ALONE, None, self.pictures, None, None)

    @cached_property
    def references(self) -> dict[str, Candidate]:
        """The papers' stage tables as candidates of this space, by their ids; those that fit in."""
        placed = {}
        for id in REFERENCES:
            try:
                placed[id] = self.space.candidate_of(find_variant(id))
            except ZooError:
                continue  # a space may be without an operator, or have more stages than the table
        return placed

    @cached_property
    def reference(self) -> Candidate:
        """The network whose step time, parameters and latency are 1: the paper's B0, or else the space's first one."""
        found = self.references.get("b0") or next(iter(self.references.values()), None)
        return found or next(self.space.candidates())

    @cached_property
    def _beside(self) -> Stepper:
        """The reference, ready to make steps."""
        return Stepper(self.job(self.reference))

    @cached_property
    def unit(self) -> Unit:
        """What rewards are normalised by.

        Raises:
            ZooError: the latency table is of another space.
        """
        variant = self.variant(self.reference)
        return Unit(
            code=self.reference.code,
            num_params=count_params(variant, len(self.pictures[0].classes)),
            latency_ms=self.table.sum_ms(variant)[0] if self.table else None,
        )

    def costs(self, candidate: Candidate) -> Costs:
        """What a network costs: its training step, measured here; parameters and MACs from its row.

        Raises:
            ZooError: the latency table lacks a part of it.
        """
        job = self.job(candidate)
        step = measure_step_time(Stepper(job), self._beside)
        latency = None
        if self.table is not None:
            ms, low, high = self.table.sum_ms(job.variant)
            latency = Latency(ms=ms, low=low, high=high)
        return Costs(
            step=step,
            num_params=count_params(job.variant, len(job.classes)),
            macs=count_macs(job.variant, step.image_size, len(job.classes)),
            latency=latency,
        )


def train_network(job: Job, *, judge: Judge | None = None, stop: StopRequest | None = None) -> Trained:
    """Train a network to the end of its recipe and judge its last weights. Nothing is written that stays.

    Args:
        job: `Lab.job` makes one.
        judge: looks at it after every epoch but the last.
        stop: a wish to stop ends it between two steps.

    Raises:
        Hopeless: the judge has ended it. RunStopped: there was a wish. DivergedError, DataError, WorkerError, ZooError:
        as `fit`. RuntimeError, MemoryError: the device or the machine has no memory, or the device failed.
    """
    began = time.monotonic()
    watcher = _Judged(job, judge, began)
    with tempfile.TemporaryDirectory(prefix="zoo-search-") as folder:
        result = fit(start_run(job), job, state_path=Path(folder) / "state", watcher=watcher, stop=stop)
    assert isinstance(result, Validation), "the pictures have one class each"
    return watcher.trained(result.top1, len(result.answers.index))


class _Judged(Watcher):
    """Keeps the accuracy of every epoch, and lets the judge look at it."""

    def __init__(self, job: Job, judge: Judge | None, began: float) -> None:
        self.job = job
        self.judge = judge
        self.began = began
        self.history: list[float] = []

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """Keep it, and end what is hopeless."""
        self.history.append(epoch.merit)
        if self.judge and epoch.epoch < self.job.recipe.epochs and self.judge(epoch.epoch, epoch.merit):
            raise Hopeless(self.trained(epoch.merit, epoch.val_pictures or len(self.job.val_set)))

    def trained(self, top1: float, pictures: int) -> Trained:
        """What was reached."""
        return Trained(
            top1=top1,
            val_pictures=pictures,
            history=tuple(self.history),
            seed=self.job.settings.seed,
            epochs=len(self.history),
            seconds=time.monotonic() - self.began,
        )
