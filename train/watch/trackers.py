"""Owns what a run tells its trackers and when: one watcher over any of `train/watch/sinks.py`; it draws nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape

from train.learn.run import Epoch, Run
from train.learn.validation import Validation
from train.progressive.recipe import Recipe, TrainingStage
from train.watch.sinks import Ending, MlflowSink, Opening, Sink, TensorBoardSink, WandbSink
from zoo.errors import MissingCapabilityError, look_up
from zoo.files import write_json

IDS = "trackers.json"
# A request to a tracking server takes milliseconds to tenths of a second; a step may take less.
STEP_INTERVAL_S = 5.0


@dataclass(frozen=True, kw_only=True)
class TrackerRow:
    """A tracker: the package it needs, the extra that brings it, and how it is opened."""

    name: str
    title: str
    package: str
    extra: str
    open: Callable[[Opening], Sink]


TRACKERS = (
    TrackerRow(name="tensorboard", title="TensorBoard", package="tensorboard", extra="watch", open=TensorBoardSink),
    TrackerRow(name="mlflow", title="MLflow", package="mlflow", extra="mlflow", open=MlflowSink),
    TrackerRow(name="wandb", title="Weights & Biases", package="wandb", extra="wandb", open=WandbSink),
)


def find_trackers(names: Sequence[str]) -> list[TrackerRow]:
    """Resolve trackers by name, each once, and make sure that they can be opened.

    Raises:
        UnknownNameError: there is no such tracker. MissingCapabilityError: its package is not installed.
    """
    rows = {row.name: row for row in TRACKERS}
    chosen = []
    for name in dict.fromkeys(names):
        row = look_up(rows, name, kind="tracker", hint=f"There are: {', '.join(rows)}.")
        if find_spec(row.package) is None:
            raise MissingCapabilityError(
                f"--tracker {name} needs {row.package}, which is not installed.", f"pip install 'zoo[{row.extra}]'"
            )
        chosen.append(row)
    return chosen


class Tracker:
    """A watcher that passes figures on to a sink.

    A server that fails does not end a run of hours: the run says so once and goes on without that tracker.
    """

    def __init__(self, title: str, sink: Sink, recipe: Recipe, first_step: int, console: Console) -> None:
        self.title = title
        self.sink = sink
        self.recipe = recipe
        self.console = console
        self._step = first_step
        self._sent_at = -STEP_INTERVAL_S
        self._lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ending: Ending = "finished" if error is None else "failed" if isinstance(error, Exception) else "interrupted"
        self._attempt(lambda: self.sink.close(ending))

    def on_stage(self, index: int, stage: TrainingStage) -> None:
        """Every epoch brings its stage's settings."""

    def on_step(self, epoch: int, step: int, steps: int, pictures: int, loss: float | None) -> None:
        """Send the loss now and then."""
        self._step += 1
        now = time.monotonic()
        if loss is not None and now - self._sent_at >= STEP_INTERVAL_S:
            self._sent_at = now
            self._send({"loss/step": loss}, self._step)

    def on_broken(self, message: str) -> None:
        """Counted with the epoch."""

    def on_validation(self, result: Validation) -> None:
        """Its figures come with the epoch's."""

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """Send the epoch's figures at the step it ended with."""
        self._step = run.step
        self._send(epoch_values(epoch, self.recipe), run.step)

    def _send(self, values: Mapping[str, float], step: int) -> None:
        self._attempt(lambda: self.sink.log(values, step))

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._lost:
            return
        try:
            action()
        except self.sink.errors as error:
            self._lost = True
            self.console.print(f"[yellow]{self.title} failed, the run goes on without it:[/] {escape(str(error))}")


def epoch_values(epoch: Epoch, recipe: Recipe) -> dict[str, float]:
    """The figures of an epoch by the names trackers group by: what is before the slash shares a panel."""
    settings = asdict(recipe.stages[epoch.stage - 1])
    schedule = {
        f"schedule/{name}": float(value)
        for name, value in settings.items()
        if name != "epochs" and isinstance(value, int | float)
    }
    return {
        "loss/train": epoch.train_loss,
        "loss/val": epoch.val_loss,
        "top1/train": epoch.train_top1,
        "top1/val": epoch.val_top1,
        "schedule/learning_rate": epoch.learning_rate,
        "schedule/stage": float(epoch.stage),
        **schedule,
        "speed/pictures_per_second": epoch.pictures_per_second,
        "speed/epoch_seconds": epoch.seconds,
        "epoch": float(epoch.epoch),
        "broken_pictures": float(epoch.broken),
    }


@contextmanager
def open_trackers(
    rows: Sequence[TrackerRow],
    *,
    name: str,
    folder: Path,
    config: Mapping[str, Any],
    recipe: Recipe,
    first_step: int,
    console: Console,
) -> Iterator[list[Tracker]]:
    """Open trackers for the length of a run; a resumed run (`first_step` above 0) goes on under its old ids.

    Raises:
        ZooError: a tracker refuses the run.
    """
    known = _read_ids(folder) if first_step else {}
    with ExitStack() as stack:
        opened = []
        for row in rows:
            opening = Opening(
                name=name, folder=folder, config=config, first_step=first_step, known_id=known.get(row.name)
            )
            folder.mkdir(parents=True, exist_ok=True)
            sink = row.open(opening)
            opened.append(stack.enter_context(Tracker(row.title, sink, recipe, first_step, console)))
            if sink.id:
                known[row.name] = sink.id
        if known:
            write_json(folder / IDS, known)
        yield opened


def _read_ids(folder: Path) -> dict[str, str]:
    path = folder / IDS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
