"""Owns what a person sees while a network trains: a live line on a terminal, else plain lines; it writes no file."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from train.learn.run import Epoch, HeadStart, Run, merit_name
from train.learn.suitability import told
from train.learn.watcher import Watcher
from train.progressive.rate_range import RangeTest
from train.progressive.recipe import Recipe, TrainingStage
from train.watch.charts import SETTING_NAMES, stage_settings


class LiveView(Watcher):
    """Progress on stderr: stage, epoch, pictures a second, loss, time left; a line per stage and per epoch."""

    def __init__(self, recipe: Recipe, console: Console) -> None:
        self.recipe = recipe
        self.console = console
        self.stage = recipe.stages[0]
        self.stage_index = 0
        self._seen = 0
        self._epoch = -1
        self._epoch_started = 0.0
        self._loss = float("nan")
        self._work_seconds = 0.0
        self._work_done = 0.0
        # The bar takes what the text leaves of the line, so that it stays one line at 80 columns.
        self.progress = Progress(
            TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            expand=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID = self.progress.add_task("starting", total=1, text="", left="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def on_end(self, error: BaseException | None) -> None:
        """Take the live line away."""
        self.progress.stop()

    def on_stage(self, index: int, stage: TrainingStage) -> None:
        """Announce a stage with everything that changes between stages."""
        self.stage, self.stage_index = stage, index
        changing = {name: values for name, values in stage_settings(self.recipe).items() if len(set(values)) > 1}
        own = (SETTING_NAMES["image_size"], SETTING_NAMES["batch_size"], "epochs")
        said = [f"{name} {values[index]:.3g}" for name, values in changing.items() if name not in own]
        first = f"[bold blue]Stage {index + 1}/{len(self.recipe.stages)}[/]"
        self.console.print("  ".join([first, f"{stage.image_size} px", f"batch {stage.batch_size}", *said]))

    def on_step(self, epoch: int, step: int, steps: int, pictures: int, loss: float | None) -> None:
        """Move the bar."""
        now = time.monotonic()
        if epoch != self._epoch:
            self._epoch, self._epoch_started, self._seen = epoch, now - 1e-3, 0
        self._seen += pictures
        self._loss = self._loss if loss is None else loss
        rate = self._seen / (now - self._epoch_started)
        self.progress.update(
            self.task,
            description=f"stage {self.stage_index + 1}  epoch {epoch + 1}/{self.recipe.epochs}",
            completed=step,
            total=steps,
            text=f"{rate:.0f} pictures/s  loss {self._loss:.3f}",
            left=self._time_left(epoch, step / steps, now - self._epoch_started),
        )

    def on_remark(self, remark: str) -> None:
        """Say what the loop has found."""
        self.console.print(f"[yellow]Note:[/] {escape(remark)}")

    def on_head_start(self, found: HeadStart) -> None:
        """Say what every epoch has to beat."""
        whose = "a classifier fitted to the weights' features" if found.kept else "the weights' own classifier"
        fair = "" if found.balanced is None else f"balanced accuracy [bold]{100 * found.balanced:.1f} %[/], "
        self.console.print(
            f"Head start: {whose} has {merit_name(found.map)} [bold]{100 * found.merit:.1f} %[/], {fair}loss "
            f"{_loss(found.loss)}, after {found.seconds:.0f} s: what every epoch has to beat."
        )
        for line in told(found):
            self.console.print(line)

    def on_range_test(self, found: RangeTest) -> None:
        """Say which learning rate is used, and why."""
        self.console.print(f"{escape(found.sentence)} The range test took {found.seconds:.0f} s.")

    def on_broken(self, message: str) -> None:
        """Name a picture that training goes on without."""
        self.console.print(f"[yellow]Skipped:[/] {escape(message)}")

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """Leave one line per epoch behind, of at most 80 columns."""
        self._work_seconds += epoch.seconds
        self._work_done += epoch.image_size**2
        total, fair = self.recipe.epochs, epoch.val_balanced
        figure = (epoch.merit_name, epoch.merit) if fair is None else ("balanced", fair)
        reached = f"{figure[0]} [bold]{100 * figure[1]:5.1f} %[/]"
        self.console.print(
            f" epoch {epoch.epoch:>{len(str(total))}}/{total}  {epoch.image_size:>3} px "
            f"{epoch.pictures_per_second:>6.0f}/s  loss {_loss(epoch.train_loss)}  val {_loss(epoch.val_loss)}  "
            f"{reached} at {epoch.val_size} px",
        )

    def _time_left(self, epoch: int, share: float, seconds: float) -> str:
        """Estimate from pixels: an epoch costs in proportion to the area of its pictures, so late stages count more."""
        area = self.stage.image_size**2
        done = self._work_done + share * area
        areas = [stage.image_size**2 for stage in self.recipe.stages for _ in range(stage.epochs)]
        left = sum(areas[epoch:]) - share * area
        if not done:
            return ""
        estimate = (self._work_seconds + seconds) / done * left
        if estimate > 5400:
            return f"{estimate / 3600:.1f} h left"
        return f"{estimate / 60:.0f} min left" if estimate > 90 else f"{estimate:.0f} s left"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
