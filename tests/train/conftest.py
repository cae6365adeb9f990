"""Shared by the tests of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from train.learn.run import Epoch, Run
from train.watch.record import RunRecord


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
