"""Owns what the loop tells of a run as it goes by; who watches, and why, is `train/watch/`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from train.learn.run import Epoch, HeadStart, Run
from train.learn.validation import Judged
from train.progressive.rate_range import RangeTest
from train.progressive.recipe import TrainingStage

Method = TypeVar("Method", bound=Callable[..., None])


class Watcher:
    """Sees a run go by. A watcher overrides what it wants to know; as a context it is told how the run ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.on_end(error)

    def on_stage(self, index: int, stage: TrainingStage) -> None:
        """A stage begins."""

    def on_step(self, epoch: int, step: int, steps: int, pictures: int, loss: float | None) -> None:
        """A step ended; `loss` is None where reading it would make the host wait for the device."""

    def on_broken(self, message: str) -> None:
        """A picture could not be decoded; told once per picture."""

    def on_remark(self, remark: str) -> None:
        """The loop has found something that a person should know."""

    def on_head_start(self, found: HeadStart) -> None:
        """A classifier was fitted before the first step: its accuracy is what every epoch has to beat."""

    def on_range_test(self, found: RangeTest) -> None:
        """A range test chose the learning rate before the first step: the run's job has it from now on."""

    def on_validation(self, result: Judged) -> None:
        """The validation of an epoch ended; `on_epoch` follows."""

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """An epoch and its validation ended."""

    def on_end(self, error: BaseException | None) -> None:
        """The run ended, finished or by an error or a signal."""


def _to_each(method: Method) -> Method:
    """The method of `Watchers` that calls the same method of each of them."""

    def tell(self: Watchers, *told: Any) -> None:
        for watcher in self.each:
            getattr(watcher, method.__name__)(*told)

    return cast(Method, tell)


class Watchers(Watcher):
    """Several watchers as one, told in their order. Each is a context of its own."""

    def __init__(self, each: Sequence[Watcher]) -> None:
        self.each = each

    on_stage = _to_each(Watcher.on_stage)
    on_step = _to_each(Watcher.on_step)
    on_broken = _to_each(Watcher.on_broken)
    on_remark = _to_each(Watcher.on_remark)
    on_head_start = _to_each(Watcher.on_head_start)
    on_range_test = _to_each(Watcher.on_range_test)
    on_validation = _to_each(Watcher.on_validation)
    on_epoch = _to_each(Watcher.on_epoch)
