"""Owns the trials of a search: which network is next, its short training, and when there are enough of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from train.search.claims import Claim, GivenAway, Piece
from train.search.reward import score, score_of
from train.search.rows import Costs, Trained, Trial, TrialState
from train.search.sampler import (
    candidate_of,
    choices_for,
    distributions_of,
    make_pruner,
    make_sampler,
    sampler_of,
    values_of,
)
from train.search.trial import Hopeless, Judge, Lab, train_network
from train.search.worker import GONE_SAID, SURVIVED, WAIT_S, Worker, reason_of
from zoo.errors import ZooError
from zoo.intervals import share_interval
from zoo.model.space import Candidate

if TYPE_CHECKING:
    import optuna

# After so many failures in a row it is not the networks.
MOST_FAILURES = 5
# A sampler that has settled, or a small space, proposes what is known; then chance draws something new.
MOST_REPEATS = 25
MOST_DRAWS = 10_000
STATES: dict[str, TrialState] = {
    "done": "finished",
    "stopped early": "stopped early",
    "failed": "failed",
    "running": "running",
}


def trial_of(lab: Lab, piece: Piece) -> Trial:
    """A row of the store as a trial."""
    outcome = piece.outcome
    return Trial(
        number=piece.number,
        candidate=candidate_of(lab.space, piece.params),
        state=STATES[piece.standing],
        costs=Costs.from_dict(outcome["costs"]) if "costs" in outcome else None,
        trained=Trained.from_dict(outcome["trained"]) if "trained" in outcome else None,
        reason=piece.reason,
    )


class Trials:
    """The trials of a search, of which this worker makes some."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.board = worker.board
        self.lab = worker.lab
        self.options = worker.options
        self._failures = 0
        self._repeats = 0

    def known(self) -> list[Trial]:
        """Every trial there is, whoever made it."""
        return [trial_of(self.lab, piece) for piece in self.board.pieces() if piece.key and piece.standing != "open"]

    def make(self) -> None:
        """Make trials until there are enough, the time is used, or the space has no other network.

        Raises:
            RunStopped: there was a wish to stop. ZooError: the store cannot be used, or every network fails.
        """
        self.board.settle_the_dead()
        while not self._enough():
            claim = self._next()
            if claim is None:
                continue
            try:
                with self.board.alive(claim):
                    trial = self._try(claim, candidate_of(self.lab.space, claim.trial.params))
            except GivenAway:
                self.worker.view.say(f"{claim.key} {GONE_SAID}")
                continue
            self.worker.view.show(trial, self.known())
            self._give_up_after_failures(trial)

    def _enough(self) -> bool:
        """Whether no trial is to be begun; waits for those that other workers have in hand."""
        target, size = self.options.trial_count, self.lab.space.size
        while True:
            self.worker.rest()
            pieces = self.board.pieces()
            settled = [piece for piece in pieces if piece.settled]
            running = {piece.key for piece in pieces if piece.standing == "running"}
            if target is not None and len(settled) >= target:
                return True
            if len(settled) >= size:
                self.worker.view.say(f"Every network of the space {self.lab.space.id} was tried: {size}.")
                return True
            if not self._has_time(settled):
                self.worker.view.say("The budget has no time for another trial.")
                return True
            if len(settled) + len(running) < min(size, target or size):
                return False
            time.sleep(WAIT_S)
            self.board.settle_the_dead()

    def _has_time(self, settled: list[Piece]) -> bool:
        """Whether a trial, and the finalists after it, would end within the budget."""
        worker = self.worker
        count = self.options.finalists and self.options.finalists + len(worker.names)
        return worker.has_time_for(worker.trial_s(settled) + count * self.options.long_seeds * worker.long_s(settled))

    def _next(self) -> Claim | None:
        """Take the next network: one that was left undone, a published table, else what the sampler proposes."""
        space, study, options = self.lab.space, self.board.study, self.options
        known = {piece.key for piece in self.board.pieces()}
        left = [piece.params for piece in self.board.open_again()]
        published = [one for one in self.lab.references.values() if one.code not in known]
        chosen: Mapping[str, Any] | None = None
        if left:
            chosen = left[0]
        elif published:
            chosen = choices_for(space, published[0])
        elif self._repeats >= MOST_REPEATS:
            chosen = choices_for(space, self._unknown(known))

        def ask() -> tuple[optuna.trial.Trial, str]:
            drawn = len(study.get_trials(deepcopy=False))
            study.sampler = make_sampler(options.sampler, options.seed, drawn) if chosen is None else sampler_of(chosen)
            study.pruner = make_pruner(options.epochs)
            trial = study.ask(dict(distributions_of(space)))
            return trial, candidate_of(space, trial.params).code

        claim = self.board.take(ask)
        self._repeats = 0 if claim else self._repeats + 1
        return claim

    def _unknown(self, known: set[str | None]) -> Candidate:
        """A network that nobody has taken, drawn by chance; of a space that is nearly used up the first such one."""
        space, rng = self.lab.space, np.random.default_rng((self.options.seed, len(known)))
        for _ in range(MOST_DRAWS):
            drawn = space.draw(rng)
            if drawn.code not in known:
                return drawn
        return next(one for one in space.candidates() if one.code not in known)

    def _try(self, claim: Claim, candidate: Candidate) -> Trial:
        """Make one trial, and write down what came of it."""
        told, began = dict[str, Any](), time.monotonic()
        self.worker.view.start(candidate)
        try:
            costs = self.lab.costs(candidate)
            told["costs"] = costs.to_dict()
            claim.note(told)
            trained, state = self._train(claim, candidate, costs)
        except SURVIVED as error:
            claim.fail(reason_of(error), told)
            self.worker.free_memory()
            return self._row(claim, candidate, "failed", reason=reason_of(error))
        told["trained"] = trained.to_dict()
        if state == "stopped early":
            claim.stop_early(told)
        else:
            reward = score(self.lab.space.reward, costs, self.lab.unit, trained).value
            told["seconds"] = time.monotonic() - began
            claim.finish(values_of(self.options.sampler, reward, trained.top1, costs), told)
        return self._row(claim, candidate, state, costs, trained)

    def _train(self, claim: Claim, candidate: Candidate, costs: Costs) -> tuple[Trained, TrialState]:
        """Train it to its end, or until it is behind."""
        job = self.lab.job(candidate)
        try:
            return train_network(job, judge=self._judge(claim, costs), stop=self.worker.stop), "finished"
        except Hopeless as behind:
            return behind.trained, "stopped early"

    def _judge(self, claim: Claim, costs: Costs) -> Judge:
        """Who ends a trial that is behind, where trials end early."""
        pictures = len(self.lab.pictures[1])

        def judge(epoch: int, top1: float) -> bool:
            self.worker.view.epoch(epoch, top1)
            if not self.options.stops_early:
                return False
            interval = share_interval(round(top1 * pictures), pictures)
            so_far = score_of(self.lab.space.reward, costs, self.lab.unit, top1, interval)
            return claim.is_behind(so_far.value, epoch)

        return judge

    def _row(
        self,
        claim: Claim,
        candidate: Candidate,
        state: TrialState,
        costs: Costs | None = None,
        trained: Trained | None = None,
        reason: str = "",
    ) -> Trial:
        number = claim.trial.number
        return Trial(number=number, candidate=candidate, state=state, costs=costs, trained=trained, reason=reason)

    def _give_up_after_failures(self, trial: Trial) -> None:
        self._failures = self._failures + 1 if trial.state == "failed" else 0
        if self._failures >= MOST_FAILURES:
            raise ZooError(
                f"The last {MOST_FAILURES} networks all failed, so it is not the networks: {trial.reason}",
                "Train one of them alone with the same --data and flags: `zoo train MODEL`.",
            )
