from __future__ import annotations

import pytest

from serve.core.pace import Pace, RunningMean


def test_nothing_is_known_before_the_warm_up() -> None:
    assert Pace().batch_s(8) == 0.0


@pytest.mark.parametrize(("batch_size", "seconds"), [(1, 2.0), (4, 8.0), (6, 10.0), (8, 12.0), (16, 24.0)])
def test_sizes_between_those_of_the_warm_up_are_on_a_line(batch_size: int, seconds: float) -> None:
    pace = Pace()
    for size, took_s in ((1, 2.0), (4, 8.0), (8, 12.0)):
        pace.learn(size, took_s)
    assert pace.batch_s(batch_size) == pytest.approx(seconds)


def test_a_batch_of_one_size_tells_of_all() -> None:
    pace = Pace()
    pace.learn(1, 2.0)
    pace.learn(8, 12.0)
    for _ in range(120):
        pace.note(1, 6.0)  # three times as slow as in the warm-up
    assert pace.batch_s(8) == pytest.approx(36.0)


def test_of_several_instances_the_slowest_counts() -> None:
    pace = Pace()
    pace.learn(1, 2.0)
    pace.learn(1, 1.0)
    assert pace.batch_s(1) == 2.0


def test_a_mean_forgets() -> None:
    mean = RunningMean()
    mean.note(10.0)
    assert mean.value == 10.0
    mean.note(0.0)
    assert mean.value == pytest.approx(8.0)
