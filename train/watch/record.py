"""Owns the run folder: metrics, report, curves and the checkpoint; it decides nothing about training."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from train.learn.run import Epoch, Run
from train.learn.validation import Validation
from train.processes.stopping import RunStopped
from train.progressive.recipe import TrainingStage
from train.watch.mistakes import count_confusion
from train.watch.plots import plot_confusion, plot_curves
from train.watch.report import RunFacts, RunStatus, State, render_report
from zoo.errors import ZooError
from zoo.files import write_text
from zoo.machine import environment
from zoo.page.markup import Markup
from zoo.weights.checkpoint import Checkpoint, save_checkpoint

METRICS, CURVES, CONFUSION = "metrics.jsonl", "curves.png", "confusion.png"
# A matrix of more has less than a pixel for each cell; the report names the most confused pairs.
PLOTTED_CLASSES = 1000
REPORT = "report.html"
CHECKPOINT, STATE = "checkpoint.safetensors", "state.pt"


# A page costs tenths of a second, mostly for its thumbnails; epochs may take less than that.
REPORT_INTERVAL_S = 15.0


class RunRecord:
    """Writes a run's folder as it goes: metrics after every epoch, the page now and then, the rest at the end.

    As a context it writes the page of a run that ends early too, with what there is by then.
    """

    def __init__(self, folder: Path, facts: RunFacts) -> None:
        self.folder = folder
        self.facts = facts
        self._history: list[Epoch] = []
        self._broken: set[str] = set()
        self._result: Validation | None = None
        self._thumbnails: dict[int, Markup] = {}
        self._reported_at = -REPORT_INTERVAL_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._write_report("failed", error.problem if isinstance(error, ZooError) else f"{error!r}")
        elif error:  # a signal
            self._write_report("interrupted", error.where if isinstance(error, RunStopped) else "")

    def on_stage(self, index: int, stage: TrainingStage) -> None:
        """Nothing to write yet."""

    def on_step(self, epoch: int, step: int, steps: int, pictures: int, loss: float | None) -> None:
        """Nothing to write yet."""

    def on_broken(self, message: str) -> None:
        """Counted in the metrics, listed in the page."""

    def on_validation(self, result: Validation) -> None:
        """Keep the latest for the page."""
        self._result = result

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """Rewrite the metrics whole: they are small, and a resumed run may have dropped lines."""
        self._history, self._broken = run.history, run.broken
        lines = [json.dumps(asdict(line)) + "\n" for line in run.history]
        write_text(self.folder / METRICS, "".join(lines))
        now = time.monotonic()
        if now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            self._write_report("running")

    def finish(self, run: Run, card: Checkpoint, result: Validation) -> None:
        """Write page, plots and checkpoint, and drop the state that only resuming needs."""
        self._history, self._broken, self._result = run.history, run.broken, result
        self._write_report("finished")
        title = f"{self.facts.title}: {self.facts.recipe.name} recipe"
        plot_curves(run.history, self.facts.recipe, title, self.folder / CURVES)
        if len(card.classes) <= PLOTTED_CLASSES:
            confusion = count_confusion(result.answers, len(card.classes))
            plot_confusion(confusion, card.classes, self.folder / CONFUSION)
        save_checkpoint(self.folder / CHECKPOINT, run.average.model.state_dict(), card)
        (self.folder / STATE).unlink(missing_ok=True)

    def _write_report(self, state: State, reason: str = "") -> None:
        """Nothing before the first validation: there is nothing to show."""
        if self._result is None:
            return
        status = RunStatus(
            state=state, history=self._history, result=self._result, broken=frozenset(self._broken), reason=reason
        )
        write_text(self.folder / REPORT, render_report(self.facts, status, self._thumbnails))


def provenance(
    *, data: str, seed: int, precision: str, device: str, run: Run, result: Validation, num_val: int, start: str | None
) -> dict[str, Any]:
    """Where a checkpoint's weights come from, as plain JSON types."""
    return {
        "data": data,
        "started_from": start,
        "seed": seed,
        "precision": precision,
        "device": device,
        "epochs": len(run.history),
        "steps": run.step,
        "training_seconds": round(sum(line.seconds for line in run.history), 1),
        "val_top1": result.top1,
        "val_loss": result.loss,
        "val_pictures": num_val - len(result.broken),
        "broken_pictures": len(run.broken),
        "environment": environment(),
    }
