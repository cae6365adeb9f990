"""Shared by the tests of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from train.learn.run import Epoch, Run
from train.options import TrainOptions
from train.watch.record import RunRecord


@pytest.fixture(scope="session")
def small() -> Callable[..., TrainOptions]:
    """`small(data, folder, batch_size=6)`: tiny for 4 epochs up to 24 px in batches of 8, in this process."""

    def options(data: str | Path, folder: Path, **changes: Any) -> TrainOptions:
        sizes = {"epochs": 4, "image_size": 24, "batch_size": 8, "workers": 0, "device": "cpu"}
        return TrainOptions(model="tiny", data=str(data), out=folder, **sizes | changes)

    return options


class Killed(BaseException):
    """Stands for a kill."""


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """`with killed_after(3): train_model(…)`: the run dies once its third epoch is recorded."""

    @contextmanager
    def dying(last: int) -> Iterator[None]:
        on_epoch = RunRecord.on_epoch

        def die(self: RunRecord, run: Run, epoch: Epoch) -> None:
            on_epoch(self, run, epoch)
            if epoch.epoch == last:
                raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(RunRecord, "on_epoch", die)
            yield

    return dying
