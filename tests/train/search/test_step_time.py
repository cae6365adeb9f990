"""Step times are taken in turn with the reference's, and a machine that is not quiet is noticed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.serve.bench.measure.simulated import BUSY, QUIET, FakeWatch
from train.search.rows import StepTime
from train.search.step_time import MOST_TIMES, ROUNDS, measure_step_time
from zoo.measure.vitals import Vitals


class Fake:
    """A network whose steps take so long; it writes down when it was asked."""

    def __init__(self, name: str, ms: float, asked: list[str]) -> None:
        self.name, self.ms, self.asked = name, ms, asked
        self.stage = SimpleNamespace(batch_size=8, image_size=32)

    def step(self) -> float:
        self.asked.append(self.name)
        return self.ms


def measured(own: float, other: float, *watched: Vitals, then: Vitals = QUIET) -> tuple[StepTime, list[str]]:
    asked: list[str] = []
    networks = Fake("a", own, asked), Fake("b", other, asked)
    found = measure_step_time(*networks, watch=FakeWatch(*watched, then=then))  # type: ignore[arg-type]
    return found, asked


def test_both_take_turns() -> None:
    found, asked = measured(30.0, 20.0)
    assert asked == ["a", "b"] * (ROUNDS + 1)  # once before, to know how many steps a visit has
    assert found.ratio == pytest.approx(1.5) and found.low == pytest.approx(found.high)
    assert (found.ms, found.reference_ms, found.rounds, found.quiet) == (30.0, 20.0, ROUNDS, True)


def test_a_visit_of_quick_steps_has_several() -> None:
    _, asked = measured(5.0, 20.0)
    assert asked.count("a") == 1 + 4 * ROUNDS and asked.count("b") == 1 + ROUNDS


def test_rounds_in_which_the_processor_was_taken_away_do_not_count() -> None:
    found, asked = measured(30.0, 20.0, *[BUSY, QUIET] * ROUNDS)
    assert found.quiet and found.rounds == ROUNDS
    assert asked.count("a") == 2 * ROUNDS + 1


def test_a_machine_that_is_never_quiet_is_told() -> None:
    found, _ = measured(30.0, 20.0, then=BUSY)
    assert not found.quiet and found.rounds == MOST_TIMES * ROUNDS
