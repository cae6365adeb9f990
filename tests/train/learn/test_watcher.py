"""Several watchers are told as one, and each of them how the run ended."""

from __future__ import annotations

from contextlib import ExitStack
from inspect import signature
from typing import Any

import pytest

from train.learn.watcher import Watcher, Watchers

TOLD = [name for name in vars(Watcher) if name.startswith("on_")]


class Listening(Watcher):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name not in TOLD:
            return super().__getattribute__(name)
        return lambda *told: self.heard.append((name, told))


def test_every_watcher_is_told_everything_in_order() -> None:
    each = [Listening(), Listening()]
    together = Watchers(each)
    during = [name for name in TOLD if name != "on_end"]
    for name in during:
        count = len(signature(getattr(Watcher, name)).parameters) - 1
        getattr(together, name)(*range(count))
    assert each[0].heard == each[1].heard
    assert [name for name, _ in each[0].heard] == during
    assert dict(each[0].heard)["on_step"] == (0, 1, 2, 3, 4)


def test_a_watcher_that_overrides_nothing_wants_to_know_nothing() -> None:
    with Watcher() as watcher:
        for name in TOLD:
            count = len(signature(getattr(Watcher, name)).parameters) - 1
            assert getattr(watcher, name)(*[None] * count) is None


def test_each_watcher_is_told_how_the_run_ended() -> None:
    each, error = [Listening(), Listening()], ZeroDivisionError()
    with pytest.raises(ZeroDivisionError), ExitStack() as stack:
        for watcher in each:
            stack.enter_context(watcher)
        raise error
    assert [watcher.heard for watcher in each] == [[("on_end", (error,))]] * 2
