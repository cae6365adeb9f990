"""Owns what a run tells its trackers and when: one watcher for any sink of `train/watch/sinks.py`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from train.folder import TRACKER_IDS
from train.learn.job import Job
from train.learn.run import Epoch, Run
from train.learn.watcher import Watcher
from train.options import TRACKERS, TrackerRow
from train.progressive.recipe import Recipe
from train.watch import sinks
from train.watch.report import described
from train.watch.sinks import Ending, Opening, Sink
from zoo.errors import MissingCapabilityError, look_up
from zoo.files import write_json

# A request to a tracking server takes milliseconds to tenths of a second; a step may take less.
STEP_INTERVAL_S = 5.0


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


class Tracker(Watcher):
    """A watcher that passes figures on to a sink.

    A server that fails does not end a run of hours: the run says so once and continues without that tracker.
    """

    def __init__(self, title: str, sink: Sink, recipe: Recipe, first_step: int, console: Console) -> None:
        self.title = title
        self.sink = sink
        self.recipe = recipe
        self.console = console
        self._step = first_step
        self._sent_at = -STEP_INTERVAL_S
        self._lost = False

    def on_end(self, error: BaseException | None) -> None:
        """Tell the sink how the run ended."""
        ending: Ending = "finished" if error is None else "failed" if isinstance(error, Exception) else "interrupted"
        self._attempt(lambda: self.sink.close(ending))

    def on_step(self, epoch: int, step: int, steps: int, pictures: int, loss: float | None) -> None:
        """Send the loss now and then."""
        self._step += 1
        now = time.monotonic()
        if loss is not None and now - self._sent_at >= STEP_INTERVAL_S:
            self._sent_at = now
            self._attempt(lambda: self.sink.log({"loss/step": loss}, self._step))

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """Send the epoch's figures at the step it ended with."""
        self._step = run.step
        self._attempt(lambda: self.sink.log(epoch_values(epoch, self.recipe), run.step))

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._lost:
            return
        try:
            action()
        except self.sink.errors as error:
            self._lost = True
            self.console.print(f"[yellow]{self.title} failed, the run goes on without it:[/] {escape(str(error))}")


def epoch_values(epoch: Epoch, recipe: Recipe) -> dict[str, float]:
    """The figures of an epoch by name, but those that are no number; names with the same first word share a panel."""
    settings = recipe.stages[epoch.stage - 1].to_dict()
    schedule = {
        f"schedule/{name}": float(value)
        for name, value in settings.items()
        if name != "epochs" and isinstance(value, int | float)
    }
    known = {
        "loss/train": epoch.train_loss,
        "loss/val": epoch.val_loss,
        "top1/train": epoch.train_top1,
        "top1/val": epoch.val_top1,
        "map/val": epoch.val_map,
    }
    return {name: value for name, value in known.items() if value is not None} | {
        "schedule/learning_rate": epoch.learning_rate,
        "schedule/stage": float(epoch.stage),
        **schedule,
        "speed/pictures_per_second": epoch.pictures_per_second,
        "speed/epoch_seconds": epoch.seconds,
        "epoch": float(epoch.epoch),
        "broken_pictures": float(epoch.broken),
    }


def open_trackers(
    rows: Sequence[TrackerRow], job: Job, folder: Path, first_step: int, console: Console
) -> Iterator[Tracker]:
    """Open trackers one after the other; a resumed run (`first_step` above 0) continues under its old ids.

    Raises:
        ZooError: a tracker refuses the run.
    """
    ids = folder / TRACKER_IDS
    known: dict[str, str] = json.loads(ids.read_text(encoding="utf-8")) if first_step and ids.is_file() else {}
    config = {"model": job.variant.id, "data": job.data, **described(job), "recipe": job.recipe.to_dict()}
    for row in rows:
        folder.mkdir(parents=True, exist_ok=True)
        sink: Sink = getattr(sinks, row.sink)(
            Opening(name=job.title, folder=folder, config=config, first_step=first_step, known_id=known.get(row.name))
        )
        if sink.id:
            known[row.name] = sink.id
            write_json(ids, known)
        yield Tracker(row.title, sink, job.recipe, first_step, console)
