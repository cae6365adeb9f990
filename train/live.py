"""Owns what a person sees while a network trains: a live line on a terminal, plain ones elsewhere; no record."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from train.recipe import Recipe, TrainingStage
from train.run import Epoch, Run


class LiveView:
    """Progress on stderr: stage, epoch, pictures a second, loss, accuracy, time left."""

    def __init__(self, recipe: Recipe, num_pictures: int, console: Console) -> None:
        self.recipe = recipe
        self.num_pictures = num_pictures
        self.console = console
        self.stage = recipe.stages[0]
        self.stage_index = 0
        self._seen = 0
        self._epoch = -1
        self._epoch_started = 0.0
        self._loss = float("nan")
        self._top1 = float("nan")
        self._work_seconds = 0.0
        self._work_done = 0.0
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID = self.progress.add_task("starting", total=1, text="", left="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def on_stage(self, index: int, stage: TrainingStage) -> None:
        """Announce a stage with everything that changes in it."""
        self.stage, self.stage_index = stage, index
        self.console.print(
            f"[bold blue]Stage {index + 1}/{len(self.recipe.stages)}[/]  {stage.image_size} px  "
            f"batch {stage.batch_size}  RandAugment {stage.randaugment_magnitude:g}  mixup {stage.mixup_alpha:g}  "
            f"dropout {stage.dropout:g}",
        )

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
            text=f"{rate:.0f} pictures/s  loss {self._loss:.3f}  val {100 * self._top1:.1f} %",
            left=self._time_left(epoch, step / steps, now - self._epoch_started),
        )

    def on_broken(self, message: str) -> None:
        """Name a picture that training goes on without."""
        self.console.print(f"[yellow]Skipped:[/] {message}")

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """Leave one line per epoch behind."""
        self._top1 = epoch.val_top1
        self._work_seconds += epoch.seconds
        self._work_done += epoch.image_size**2
        self.console.print(
            f"  epoch {epoch.epoch:>3}/{self.recipe.epochs}  {epoch.image_size:>3} px  "
            f"{epoch.pictures_per_second:>6.0f} pictures/s  loss {epoch.train_loss:.3f}  "
            f"val loss {epoch.val_loss:.3f}  val top-1 [bold]{100 * epoch.val_top1:5.1f} %[/] at {epoch.val_size} px",
        )

    def _time_left(self, epoch: int, share: float, seconds: float) -> str:
        """Estimate from pixels: an epoch costs in proportion to its area, so late stages count for what they are."""
        area = self.stage.image_size**2
        done = self._work_done + share * area
        areas = [stage.image_size**2 for stage in self.recipe.stages for _ in range(stage.epochs)]
        left = sum(areas[epoch:]) - share * area
        if not done:
            return ""
        estimate = (self._work_seconds + seconds) / done * left
        return f"{estimate / 60:.0f} min left" if estimate > 90 else f"{estimate:.0f} s left"
