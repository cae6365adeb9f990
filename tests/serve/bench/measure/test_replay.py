"""What replayed searches say, on made-up tables with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.bench.measure.replay import (
    best_so_far,
    curve,
    finalist_beside,
    matches,
    operator_effects,
    rank_agreement,
    standing,
)
from serve.bench.measure.search_rows import CHANCE, Replay, SearchData
from tests.serve.bench.measure.made_search import FREE, a_table, long_runs, published, rising, searches
from zoo.errors import RowError, ZooError
from zoo.model.space import Candidate, Reward, Space, StageSpace
from zoo.model.spaces import CONTROL

FLAT = a_table(lambda candidate: 0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_best_so_far_never_falls_and_ends_with_the_best(rewards: list[float]) -> None:
    found = best_so_far(rewards, range(len(rewards)))
    assert found == sorted(found) and found[-1] == max(rewards) and found[0] == rewards[0]


def test_wins_ties_and_losses_are_of_repetitions_of_equal_seed() -> None:
    table = rising(FLAT)
    data = replace(
        table,
        replays=(
            *searches(CHANCE, (0, 5, 9), (1, 2, 3), (8, 7, 6), (0, 1, 2)),
            *searches("tpe", (0, 5, 20), (3, 2, 1), (8, 1, 0), (23, 1, 2)),
        ),
    )
    found = standing(data, "tpe", 3)
    assert (found.wins, found.ties, found.losses, found.repetitions) == (2, 2, 0, 4)
    assert found.found == 1  # the 23rd is the best of 24
    # Bests are 20, 3, 8 and 23 of 24ths, chance's 9, 3, 8 and 2: medians 14 and 5.5; the table's middle is 11.5.
    assert found.gain == pytest.approx(14 / 5.5 - 1)
    assert found.over_median == pytest.approx(14 / 11.5 - 1)
    assert found.low == pytest.approx(3 / 23) and found.high == pytest.approx(1.0)
    assert standing(data, "tpe", 1).losses == 0 and standing(data, "tpe", 1).wins == 2


def test_chance_beside_itself_is_all_ties() -> None:
    data = replace(rising(FLAT), replays=searches(CHANCE, (0, 1), (5, 4)))
    found = standing(data, CHANCE, 2)
    assert (found.wins, found.ties, found.losses, found.gain) == (0, 2, 0, 0.0)
    assert curve(data, CHANCE) == pytest.approx([2.5 / 23, 3 / 23])


def test_what_has_no_partner_is_not_compared() -> None:
    data = replace(rising(FLAT), replays=(*searches(CHANCE, (0, 1)), *searches("tpe", (0, 1), (2, 3))))
    with pytest.raises(ZooError, match="tpe was replayed with 2 seeds and random with 1"):
        standing(data, "tpe", 2)
    with pytest.raises(ZooError, match="0 seeds"):
        standing(data, "tpe", 3)


@pytest.mark.parametrize("order", [(0, 0), (0, 24)])
def test_a_replay_asks_for_what_is_there_and_once(order: tuple[int, ...]) -> None:
    with pytest.raises(RowError, match="twice, or for one that is not there"):
        replace(FLAT, replays=(Replay(sampler="tpe", seed=0, order=order),))


def test_the_reward_is_the_papers() -> None:
    data = a_table(lambda candidate: 0.8, lambda candidate: 2.0, reward=Reward())
    assert data.rewards[0] == pytest.approx(0.8 * 2**-0.07 * 1000**-0.05)


def test_short_and_long_rankings_of_drawn_networks_are_compared() -> None:
    table = rising(FLAT)
    codes = [row.code for row in table.networks]
    agreeing = sum((long_runs(codes[i], 0.5 + i / 100) for i in (3, 9, 1, 20)), ())
    finalist = long_runs(codes[2], 0.0, why="finalist", beside="p0")  # not chosen by chance: it does not count
    assert rank_agreement(replace(table, long_runs=(*agreeing, *finalist))).accuracy == pytest.approx(1.0)
    opposed = sum((long_runs(codes[i], 0.5 - i / 100) for i in (3, 9, 1, 20)), ())
    found = rank_agreement(replace(table, long_runs=opposed))
    assert found.accuracy == pytest.approx(-1.0) and found.n == 4
    assert rank_agreement(table).accuracy is None


def test_a_finalist_is_the_best_that_is_as_fast_and_not_published() -> None:
    count = len(FLAT.networks)
    places = {row.code: place for place, row in enumerate(FLAT.networks)}
    data = a_table(
        lambda candidate: places[candidate.code] / count, lambda candidate: 1 + places[candidate.code] / count
    )
    data = replace(data, published=published(data, 10, 9))
    found = finalist_beside(data, data.networks[10].code, slack=0.0)
    assert found == data.networks[8]  # the tenth itself and the ninth are published
    assert finalist_beside(data, data.networks[0].code, slack=0.0) == data.networks[0]
    with_first = replace(data, published=published(data, 0))
    assert finalist_beside(with_first, data.networks[0].code, slack=0.0) is None


def test_finalists_are_compared_seed_by_seed() -> None:
    data = replace(rising(FLAT), published=published(FLAT, 0, 1))
    codes = [row.code for row in data.networks]
    runs = (
        *long_runs(codes[0], 0.80, 0.82, 0.81, 0.83, why="published"),
        *long_runs(codes[5], 0.10, 0.12, why="finalist", beside="p0"),  # it was the best before the table had grown
        *long_runs(codes[-1], 0.90, 0.92, 0.91, 0.93, why="finalist", beside="p0"),
        *long_runs(codes[1], 0.80, why="published"),
        *long_runs(codes[-1], 0.90, why="finalist", beside="p1"),
    )
    (match,) = matches(replace(data, long_runs=runs))  # one seed has no interval
    assert match.model == "p0" and match.finalist.code == codes[-1]
    assert match.difference == pytest.approx(10.0) and match.low == pytest.approx(10.0)
    assert match.verdict == "better"
    turned = [replace(run, top1=0.5) if run.seed in (2, 4) and run.code == codes[-1] else run for run in runs]
    assert matches(replace(data, long_runs=tuple(turned)))[0].verdict == "no difference shown"


def effect_of(data: SearchData) -> dict[tuple[int, str], tuple[float, str]]:
    return {(effect.stage, effect.of): (effect.value, effect.verdict) for effect in operator_effects(data)}


SPACE = Space(
    id="two",
    stem_channels=8,
    stages=(
        StageSpace(out_channels=8, stride=1, num_layers=(1, 2), expand_ratios=(1, 4)),
        StageSpace(out_channels=16, stride=2, num_layers=(0, 1), kernel_sizes=(3,)),
    ),
    head_channels=32,
    image_size=32,
    train_size=32,
    eval_size=32,
)


def a_law(candidate: Candidate) -> tuple[float, float]:
    """MBConv in stage 1 costs 10 points and halves the step; kernels and layers count too, stage 2's operator not."""
    first, second = candidate.stages
    assert first is not None
    top1 = 0.5 - 0.10 * (first.operator == "mbconv") + 0.02 * first.num_layers + 0.03 * (first.kernel_size == 5)
    step = (0.5 if first.operator == "mbconv" else 1.0) * first.num_layers * (2.0 if second else 1.0)
    return top1, step


def test_the_effect_of_an_operator_is_found_whatever_else_varies() -> None:
    data = a_table(lambda one: a_law(one)[0], lambda one: a_law(one)[1], space=SPACE, reward=FREE)
    found = effect_of(data)
    assert found[1, "top1"] == (pytest.approx(-10.0), "Fused-MBConv")
    assert found[1, "step"] == (pytest.approx(-50.0), "MBConv")
    assert found[2, "top1"][0] == pytest.approx(0.0, abs=1e-9)
    assert found[2, "step"][0] == pytest.approx(0.0, abs=1e-9)


def test_an_effect_that_drowns_in_noise_is_unclear() -> None:
    rng = np.random.default_rng(0)
    data = a_table(lambda one: float(rng.uniform(0.3, 0.7)), space=SPACE)
    assert {effect.verdict for effect in operator_effects(data) if effect.of == "top1"} == {"unclear"}
    (wide, *_) = operator_effects(data)
    assert wide.low < wide.value < wide.high


def test_where_one_operator_occurs_there_is_no_effect() -> None:
    data = a_table(lambda one: 0.5, space=CONTROL)
    few = replace(data, networks=tuple(row for row in data.networks if row.code.startswith("f")))
    assert {effect.stage for effect in operator_effects(few)} <= {2, 3}
    with pytest.raises(ZooError, match="3 networks are too few"):
        operator_effects(replace(data, networks=data.networks[:3]))
