"""Step times are taken in turn with the reference's, and a machine that is not quiet is noticed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from train.search import step_time
from train.search.step_time import ROUNDS, measure_step_time


class Fake:
    """A network whose steps take so long; it writes down when it was asked."""

    def __init__(self, name: str, ms: float, asked: list[str]) -> None:
        self.name, self.ms, self.asked = name, ms, asked
        self.stage = SimpleNamespace(batch_size=8, image_size=32)

    def step(self) -> float:
        self.asked.append(self.name)
        return self.ms


def measured(own: float, other: float) -> tuple[Any, list[str]]:
    asked: list[str] = []
    return measure_step_time(Fake("a", own, asked), Fake("b", other, asked)), asked  # type: ignore[arg-type]


def test_both_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_time, "_waited_ns", lambda: 0)
    found, asked = measured(30.0, 20.0)
    assert asked == ["a", "b"] * (ROUNDS + 1)  # once before, to know how many steps a visit has
    assert found.ratio == pytest.approx(1.5) and found.low == pytest.approx(found.high)
    assert (found.ms, found.reference_ms, found.rounds, found.quiet) == (30.0, 20.0, ROUNDS, True)


def test_a_visit_of_quick_steps_has_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_time, "_waited_ns", lambda: 0)
    _, asked = measured(5.0, 20.0)
    assert asked.count("a") == 1 + 4 * ROUNDS and asked.count("b") == 1 + ROUNDS


def test_rounds_in_which_the_processor_was_taken_away_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(range(10**6))
    waited = lambda: 10**9 * ((next(readings) + 1) // 4)  # noqa: E731  every second round loses a second
    monkeypatch.setattr(step_time, "_waited_ns", waited)
    found, asked = measured(30.0, 20.0)
    assert found.quiet and found.rounds == ROUNDS
    assert asked.count("a") > ROUNDS + 1


def test_a_machine_that_is_never_quiet_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(range(10**6))
    monkeypatch.setattr(step_time, "_waited_ns", lambda: 10**9 * next(readings))
    found, _ = measured(30.0, 20.0)
    assert not found.quiet and found.rounds == step_time.MOST_TIMES * ROUNDS
