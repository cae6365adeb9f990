"""Owns what a search has found, as one row: trials, finalists, the winner, and how far short training tells of long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from train.search.finalists import Finalist, agreement, best_of, finalists_of
from train.search.options import SearchOptions
from train.search.reward import score
from train.search.rows import Agreement, LongTraining, Scored, Trial, Unit
from train.search.trial import Lab
from zoo.machine import environment
from zoo.model.space import Candidate, Reward, Space
from zoo.model.spec import Variant
from zoo.rows import Count, CountOrNone, NotNegative, Row, Share, Text, Within
from zoo.wording import percent

Format = Literal["zoo-search-1"]


@dataclass(frozen=True, kw_only=True)
class ScoredTrial(Row):
    """A trial with its reward; None where it reached nothing. `names` are the published tables it is."""

    trial: Trial
    reward: Scored | None
    names: tuple[Text, ...] = ()
    on_front: bool = False


@dataclass(frozen=True, kw_only=True)
class Winner(Row):
    """The network that a search names. `confirmed` says whether by long trainings, or by its short trial alone.

    `margin` is how far its reward is above the second's as a share of it; `clear` whether their intervals are apart.
    """

    id: Text
    candidate: Candidate
    reward: Scored
    top1: Share
    confirmed: bool
    margin: NotNegative | None
    clear: bool

    @property
    def code(self) -> str:
        """The network in a word."""
        return self.candidate.code


@dataclass(frozen=True, kw_only=True)
class SearchResult(Row):
    """Everything that is known of a search: the file `search.json`, and what the page shows."""

    format: Format = "zoo-search-1"
    space: Space
    space_size: Count
    data: Text
    device: Text
    epochs: Count
    long_epochs: Count
    image_size: Count
    seed: CountOrNone
    sampler: Text
    unit: Unit
    latency_engine: Text | None
    trials: tuple[ScoredTrial, ...]
    trainings: tuple[LongTraining, ...]
    finalists: tuple[Finalist, ...]
    accuracy_agreement: Agreement | None
    reward_agreement: Agreement | None
    disturbed: Annotated[int, Within(0)]
    winner: Winner | None
    winner_row: Variant | None
    environment: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        *,
        lab: Lab,
        options: SearchOptions,
        device: str,
        names: Mapping[str, Sequence[str]],
        trials: Sequence[Trial],
        trainings: Sequence[LongTraining],
    ) -> Self:
        """Put together what the trials and the long trainings say."""
        reward, unit = lab.space.reward, lab.unit
        found = finalists_of(trials, trainings, reward, unit, names)
        front = front_of(trials)
        steps = [trial.costs.step for trial in trials if trial.costs]
        table, winner = lab.table, _winner(lab.space, trials, found, reward, unit)
        return cls(
            space=lab.space,
            space_size=lab.space.size,
            data=options.data,
            device=device,
            epochs=options.epochs,
            long_epochs=options.finalist_epochs,
            image_size=lab.training.image_size or lab.space.image_size,
            seed=options.seed,
            sampler=options.sampler,
            unit=unit,
            latency_engine=f"{table.engine}, {table.precision}, batch {table.batch_size}" if table else None,
            trials=tuple(
                ScoredTrial(
                    trial=trial,
                    reward=score(reward, trial.costs, unit, trial.trained) if trial.costs and trial.trained else None,
                    names=tuple(names.get(trial.code, ())),
                    on_front=trial.number in front,
                )
                for trial in trials
            ),
            trainings=tuple(trainings),
            finalists=tuple(found),
            accuracy_agreement=agreement([one.short_top1 for one in found], [one.top1 for one in found]),
            reward_agreement=agreement([one.short_reward.value for one in found], [one.reward.value for one in found]),
            disturbed=sum(not step.quiet for step in steps),
            winner=winner,
            winner_row=lab.variant(winner.candidate) if winner else None,
            environment=environment(),
        )

    @property
    def finished(self) -> list[ScoredTrial]:
        """The trials that were trained to their end, the highest reward first."""
        done = [one for one in self.trials if one.trial.state == "finished" and one.reward]
        return sorted(done, key=lambda one: one.reward.value if one.reward else 0.0, reverse=True)

    @property
    def summary(self) -> str:
        """The result in a line."""
        if self.winner is None:
            return f"No network was trained to the end of its trial, of {len(self.trials)}."
        by = f"mean of {self._seeds_of_winner} long trainings" if self.winner.confirmed else "one short training"
        return f"{self.winner.code}: reward {self.winner.reward.value:.4f}, {percent(self.winner.top1)} top-1 ({by})"

    @property
    def _seeds_of_winner(self) -> int:
        return next((one.seeds for one in self.finalists if self.winner and one.code == self.winner.code), 0)


def front_of(trials: Sequence[Trial]) -> set[int]:
    """The numbers of the finished trials that no other beats: none is as accurate, as fast and as small, and better."""
    points = {
        trial.number: (-trial.trained.top1, trial.costs.step.ratio, trial.costs.num_params)
        for trial in trials
        if trial.state == "finished" and trial.trained and trial.costs
    }

    def is_beaten(own: tuple[float, float, int]) -> bool:
        return any(
            other != own and all(theirs <= mine for theirs, mine in zip(other, own, strict=True))
            for other in points.values()
        )

    return {number for number, own in points.items() if not is_beaten(own)}


def _winner(
    space: Space, trials: Sequence[Trial], finalists: Sequence[Finalist], reward: Reward, unit: Unit
) -> Winner | None:
    """The highest reward of the long trainings; where there are none, of the short ones."""
    ranked = best_of(trials, reward, unit)
    if not ranked:
        return None
    found: list[tuple[str, Scored, float]] = [(one.code, one.reward, one.top1) for one in finalists]
    if not found:
        for trial in ranked[:2]:
            assert trial.costs and trial.trained, "it is finished"
            found.append((trial.code, score(reward, trial.costs, unit, trial.trained), trial.trained.top1))
    code, best, top1 = found[0]
    second = found[1][1] if len(found) > 1 else None
    candidate = next(trial.candidate for trial in ranked if trial.code == code)
    return Winner(
        id=space.variant(candidate).id,
        candidate=candidate,
        reward=best,
        top1=top1,
        confirmed=bool(finalists),
        margin=best.value / second.value - 1 if second and second.value else None,
        clear=second is None or best.low > second.high,
    )
