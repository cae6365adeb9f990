"""Owns which networks are trained again for longer, who wins then, and how far short and long training agree.

A trial ranks by a short training with one seed. Whether that says anything of a long training is a question, and its
answer is part of a search's result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from train.search.reward import score, score_of
from train.search.rows import Agreement, LongTraining, Scored, Trial, Unit
from zoo.intervals import share_interval
from zoo.model.space import Reward
from zoo.ranks import rank_correlation
from zoo.rows import Count, NotNegative, Row, Share, Text


@dataclass(frozen=True, kw_only=True)
class Finalist(Row):
    """A network that was trained for longer, `seeds` times: mean and sample deviation of its top-1, and its reward.

    `names` are the published networks whose stage table it is. `deviation` is None of one training. The interval of
    `reward` is about other pictures of the same kind: all trainings were judged by the same ones.
    """

    code: Text
    names: tuple[Text, ...]
    short_top1: Share
    top1: Share
    deviation: NotNegative | None
    seeds: Count
    epochs: Count
    short_reward: Scored
    reward: Scored


def best_of(trials: Iterable[Trial], reward: Reward, unit: Unit) -> list[Trial]:
    """The finished trials, the highest reward first; of equal ones the earlier."""

    def merit(trial: Trial) -> float:
        assert trial.costs and trial.trained, "it is finished"
        return score(reward, trial.costs, unit, trial.trained).value

    return sorted((trial for trial in trials if trial.state == "finished"), key=merit, reverse=True)


def chosen_for_long(ranked: Sequence[Trial], count: int, references: Iterable[str]) -> list[Trial]:
    """The best `count`, and the published tables among the others, against which the result is judged."""
    judged_by = set(references)
    return [*ranked[:count], *(trial for trial in ranked[count:] if count and trial.code in judged_by)]


def finalists_of(
    trials: Sequence[Trial],
    trainings: Sequence[LongTraining],
    reward: Reward,
    unit: Unit,
    names: Mapping[str, Sequence[str]],
) -> list[Finalist]:
    """Every network that has a trial and was trained for longer, the highest reward of the long trainings first."""
    found = []
    for trial in best_of(trials, reward, unit):
        own = [training.trained for training in trainings if training.code == trial.code]
        if not own or trial.costs is None or trial.trained is None:
            continue
        mean, pictures = fmean(trained.top1 for trained in own), own[0].val_pictures
        found.append(
            Finalist(
                code=trial.code,
                names=tuple(names.get(trial.code, ())),
                short_top1=trial.trained.top1,
                top1=mean,
                deviation=stdev(trained.top1 for trained in own) if len(own) > 1 else None,
                seeds=len(own),
                epochs=own[0].epochs,
                short_reward=score(reward, trial.costs, unit, trial.trained),
                reward=score_of(reward, trial.costs, unit, mean, share_interval(mean * pictures, pictures)),
            )
        )
    return sorted(found, key=lambda finalist: finalist.reward.value, reverse=True)


def agreement(short: Sequence[float], long: Sequence[float]) -> Agreement | None:
    """How the ranking of the same networks by short training agrees with that by long training.

    None of fewer than three, or where all of one ranking are equal: there is no order to agree on.
    """
    spearman = rank_correlation(short, long)
    if spearman is None:
        return None
    from scipy.stats import kendalltau

    kendall = kendalltau(short, long)
    return Agreement(kendall=_within(kendall.statistic), spearman=spearman, p=float(kendall.pvalue), n=len(short))


def _within(value: float) -> float:
    return min(1.0, max(-1.0, float(value)))  # rounding ends a hair outside
