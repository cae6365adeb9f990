"""Who is trained for longer, who wins, and whether short and long training agree."""

from __future__ import annotations

import pytest

from tests.train.search.made import CANDIDATES, UNIT, trained, trial
from train.search.finalists import agreement, best_of, chosen_for_long, finalists_of
from train.search.result import front_of
from train.search.rows import LongTraining
from zoo.model.space import Reward

PAPER = Reward()


def test_only_finished_trials_are_ranked_and_the_reward_ranks_them() -> None:
    trials = [
        trial(0, 0.70),
        trial(1, 0.71, ratio=4.0),
        trial(2, 0.69),
        trial(3, 0.99, state="stopped early"),
        trial(4, 0.99, state="running"),
    ]
    assert [each.number for each in best_of(trials, PAPER, UNIT)] == [0, 2, 1]


def test_published_tables_are_trained_for_longer_too_but_not_alone() -> None:
    ranked = best_of([trial(number, 0.9 - number / 10) for number in range(5)], PAPER, UNIT)
    references = [CANDIDATES[0].code, CANDIDATES[4].code]
    assert [each.number for each in chosen_for_long(ranked, 2, references)] == [0, 1, 4]
    assert chosen_for_long(ranked, 0, references) == []


def test_finalists_have_the_mean_of_their_seeds_and_are_ranked_by_it() -> None:
    trials = [trial(0, 0.70), trial(1, 0.72), trial(2, 0.60)]
    long = [(0, 0.90), (0, 0.92), (1, 0.80), (1, 0.81)]
    trainings = [
        LongTraining(code=CANDIDATES[number].code, trained=trained(top1, seed=seed, epochs=40))
        for seed, (number, top1) in enumerate(long)
    ]
    first, second = finalists_of(trials, trainings, PAPER, UNIT, {CANDIDATES[1].code: ["b0"]})
    assert (first.code, first.seeds, first.epochs) == (CANDIDATES[0].code, 2, 40)
    assert first.top1 == pytest.approx(0.91) and first.deviation == pytest.approx(0.01414, abs=1e-5)
    assert second.names == ("b0",) and second.short_reward.value > first.short_reward.value


def test_one_training_has_no_deviation() -> None:
    training = LongTraining(code=CANDIDATES[0].code, trained=trained(0.9))
    (only,) = finalists_of([trial(0, 0.7)], [training], PAPER, UNIT, {})
    assert only.deviation is None


def test_agreement_is_that_of_scipy_and_says_n() -> None:
    found = agreement([1, 2, 3, 4, 5], [1, 2, 3, 5, 4])
    assert found is not None
    assert found.n == 5 and found.kendall == pytest.approx(0.8) and found.spearman == pytest.approx(0.9)
    reverse = agreement([1, 2, 3], [3, 2, 1])
    assert reverse is not None and reverse.kendall == -1


@pytest.mark.parametrize(("short", "long"), [([1.0, 2.0], [1.0, 2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([], [])])
def test_where_there_is_no_order_there_is_no_agreement(short: list[float], long: list[float]) -> None:
    assert agreement(short, long) is None


def test_the_front_holds_what_no_other_beats() -> None:
    trials = [
        trial(0, 0.70, ratio=1.0, num_params=1000),
        trial(1, 0.80, ratio=2.0, num_params=1000),
        trial(2, 0.70, ratio=1.5, num_params=1000),  # as accurate as 0, and slower
        trial(3, 0.60, ratio=1.5, num_params=500),
        trial(4, 0.99, state="stopped early"),
    ]
    assert front_of(trials) == {0, 1, 3}
