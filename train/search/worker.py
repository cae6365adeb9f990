"""Owns what all of a worker's work shares: the lab, the store, the view, the time there is, and the wish to stop."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

import torch

from train.processes.distributed import find_world
from train.processes.stopping import RunStopped, StopRequest
from train.progressive.budget import read_duration
from train.search.claims import Board, Piece
from train.search.live import LiveSearch
from train.search.options import SearchOptions
from train.search.sampler import directions_of
from train.search.store import Store
from train.search.trial import Lab
from train.settings import Settings
from zoo.data.fingerprint import fingerprint
from zoo.data.open import open_splits
from zoo.errors import DivergedError, WorkerError, ZooError
from zoo.machine import processor_name
from zoo.model.blocks import read_latency_table
from zoo.model.spaces import find_space
from zoo.results import row_sha256

# What a network may do to its training: be too large for the memory, or explode. RuntimeError is what torch has for
# all that a device refuses.
SURVIVED = (RuntimeError, MemoryError, DivergedError, WorkerError)
# Said of a network whose trial this worker had in hand, and lost.
GONE_SAID = "is another worker's now: this one was silent for so long that it was taken for gone."
# Between two looks at what other workers have in hand.
WAIT_S = 1.0
# Networks differ: the next one may take so much longer than the mean.
RESERVE = 1.2


def open_lab(options: SearchOptions) -> Lab:
    """The space, the pictures and the training that a search's options ask for.

    Raises:
        ZooError: no such space, data that cannot be used, or a latency table of another space.
    """
    if not find_world().is_alone:
        raise ZooError(
            "A search trains its networks one by one in one process, and torchrun has started several.",
            "Start `zoo search` on each machine with the same --store: they share the work.",
        )
    space = find_space(options.space)
    table = None
    if options.latency_table:
        table, _ = read_latency_table(options.latency_table)
        if table.space_sha256 != space.sha256:
            raise ZooError(
                f"{options.latency_table} is of the space {table.space}, which is not {space.id} as it is here.",
                "Measure this one: zoo bench latency-table --space SPACE.",
            )
    pictures = open_splits(options.data, seed=options.seed, group_by=options.group_by)
    return Lab(space=space, training=options.training(space.id, space.image_size), pictures=pictures, table=table)


def settings_of(lab: Lab, options: SearchOptions) -> Settings:
    """How every network is trained. What can be refused is refused here, before there is a store or a trial.

    Raises:
        ZooError: the budget is no time, the latency table lacks a part, or trials or finalists cannot be trained so.
    """
    if options.budget is not None:
        read_duration(options.budget)
    if options.finalists:
        lab.job(lab.reference, epochs=options.finalist_epochs)
    _ = lab.unit  # from the latency table, which may lack a part of the reference
    return lab.job(lab.reference).settings


def device_of(settings: Settings) -> str:
    """What trains and is timed, as people know it."""
    return settings.device_name if settings.device.type == "cuda" else processor_name()


def reason_of(error: BaseException) -> str:
    """A failure in a line."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error):
        return "out of memory"
    said = error.problem if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
    return (said.strip().splitlines() or [type(error).__name__])[0][:300]


@dataclass
class Worker:
    """This process's part of a search; others may work on the same store."""

    options: SearchOptions
    lab: Lab
    settings: Settings
    store: Store
    view: LiveSearch
    stop: StopRequest = field(default_factory=StopRequest)
    began: float = field(default_factory=time.monotonic)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be equal for trainings to be comparable, by the words an error has for it."""
        lab, options, recipe = self.lab, self.options, self.lab.job(self.lab.reference).recipe
        return {
            "space": lab.space.sha256,
            "set of pictures": [fingerprint(pictures) for pictures in lab.pictures],
            "number of epochs": recipe.epochs,
            "size": recipe.largest_size,
            "seed": options.seed,
            "number of planes": lab.variant(lab.reference).channels,
            "precision": self.settings.precision,
            "device": device_of(self.settings),
            "reward": lab.space.reward.to_dict(),
            # A table's rows are more than MySQL keeps in one field.
            "latency table": row_sha256(lab.table) if lab.table else None,
            "kind of sampler": "NSGA-II" if options.sampler == "nsga2" else "by reward",
            "recipe": recipe.to_dict(),
        }

    @cached_property
    def board(self) -> Board:
        """The trials."""
        directions = directions_of(self.options.sampler)
        return Board(self.store, self.store.study(self.options.study, directions, self.identity))

    @cached_property
    def long_board(self) -> Board:
        """The trainings of finalists, of so many epochs."""
        name = f"{self.options.study}.{self.options.finalist_epochs}-epochs"
        return Board(self.store, self.store.study(name, ("maximize",), self.identity))

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """The published networks by the codes of their tables in this space."""
        names = defaultdict[str, list[str]](list)
        for id, candidate in self.lab.references.items():
            names[candidate.code].append(id)
        return dict(names)

    def rest(self) -> None:
        """Between two pieces of work: stop if there is a wish.

        Raises:
            RunStopped: there is.
        """
        if self.stop.wish is not None:
            raise RunStopped(self.stop.wish, "between two trainings")

    def free_memory(self) -> None:
        """After a failure: what a network held of the GPU's memory is the next one's."""
        if self.settings.device.type == "cuda":
            torch.cuda.empty_cache()

    @cached_property
    def _budget_s(self) -> float | None:
        return None if self.options.budget is None else read_duration(self.options.budget)

    def has_time_for(self, seconds: float) -> bool:
        """Whether something of so many seconds ends within the budget."""
        return self._budget_s is None or time.monotonic() - self.began + seconds <= self._budget_s

    def trial_s(self, pieces: Sequence[Piece]) -> float:
        """What a trial takes: the mean of those that were made, and a reserve; 0 before the first one."""
        taken = [piece.outcome["seconds"] for piece in pieces if "seconds" in piece.outcome]
        return RESERVE * fmean(taken) if taken else 0.0

    def long_s(self, pieces: Sequence[Piece]) -> float:
        """What a finalist's training takes, by the same trials."""
        return self.trial_s(pieces) * self.options.finalist_epochs / self.options.epochs
