"""Owns the long trainings of a search, the finalists', with fresh seeds; who these are is `finalists.py`'s."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from train.search.claims import GivenAway
from train.search.finalists import best_of, chosen_for_long
from train.search.rows import LongTraining, Trained, Trial
from train.search.trial import train_network
from train.search.worker import GONE_SAID, SURVIVED, WAIT_S, Worker, reason_of

if TYPE_CHECKING:
    import optuna

# In a key, between a network's code and a seed.
BETWEEN = "/"


class LongTrainings:
    """The long trainings of a search, of which this worker makes some."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.board = worker.long_board

    def known(self) -> list[LongTraining]:
        """Every long training there is, whoever made it, also of those that are no finalists any more."""
        return [
            LongTraining(code=str(piece.key).partition(BETWEEN)[0], trained=Trained.from_dict(piece.outcome["trained"]))
            for piece in self.board.pieces()
            if piece.standing == "done"
        ]

    def make(self, trials: list[Trial]) -> None:
        """Train the best again, and with them the published tables, until all are done or the time is used.

        Raises:
            RunStopped: there was a wish to stop. ZooError: the store cannot be used.
        """
        worker, options, lab = self.worker, self.worker.options, self.worker.lab
        chosen = chosen_for_long(best_of(trials, lab.space.reward, lab.unit), options.finalists, worker.names)
        # The first seed of all of them, then the second one: a budget that ends early has treated all alike.
        seeds = range(options.seed + 1, options.seed + 1 + options.long_seeds)
        wanted = {f"{trial.code}{BETWEEN}{seed}": (trial, seed) for seed in seeds for trial in chosen}
        self.board.settle_the_dead()
        while True:
            worker.rest()
            pieces = self.board.pieces()
            taken = {piece.key for piece in pieces if piece.settled or piece.standing == "running"}
            left = [key for key in wanted if key not in taken]
            if left and not worker.has_time_for(worker.long_s(worker.board.pieces())):
                worker.view.say(f"The budget has no time for {len(left)} of {len(wanted)} long trainings.")
                return
            if left:
                try:
                    self._train(left[0], *wanted[left[0]])
                except GivenAway:
                    worker.view.say(f"{left[0]} {GONE_SAID}")
            elif any(piece.standing == "running" and piece.key in wanted for piece in pieces):
                time.sleep(WAIT_S)  # another worker's
                self.board.settle_the_dead()
            else:
                return

    def _train(self, key: str, trial: Trial, seed: int) -> None:
        def ask() -> tuple[optuna.trial.Trial, str]:
            return self.board.study.ask(), key

        worker = self.worker
        claim = self.board.take(ask)
        if claim is None:
            return
        with self.board.alive(claim):
            worker.view.start_long(trial.candidate, seed)
            job = worker.lab.job(trial.candidate, epochs=worker.options.finalist_epochs, seed=seed)
            try:
                trained = train_network(job, judge=self._watch, stop=worker.stop)
            except SURVIVED as error:
                claim.fail(reason_of(error), {})
                worker.free_memory()
                worker.view.say(f"The long training of {trial.code} failed: {reason_of(error)}")
                return
            claim.finish([trained.top1], {"trained": trained.to_dict()})
        worker.view.show_long(trial.candidate, seed, trained)

    def _watch(self, epoch: int, top1: float) -> bool:
        self.worker.view.epoch(epoch, top1)
        return False
