"""Owns the run folder: metrics, curves, confusion and the checkpoint; it decides nothing about training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from train.loop import Validation
from train.plots import plot_confusion, plot_curves
from train.recipe import Recipe, TrainingStage
from train.run import Epoch, Run
from zoo.checkpoint import Checkpoint, save_checkpoint
from zoo.files import write_text
from zoo.machine import environment

METRICS, CURVES, CONFUSION = "metrics.jsonl", "curves.png", "confusion.png"
CHECKPOINT, STATE = "checkpoint.safetensors", "state.pt"


@dataclass
class RunRecord:
    """Writes a run's folder as it goes: metrics after every epoch, the rest at the end of a stage and of the run."""

    folder: Path
    recipe: Recipe
    title: str

    def on_stage(self, index: int, stage: TrainingStage) -> None:
        """Nothing to write yet."""

    def on_step(self, epoch: int, step: int, steps: int, pictures: int, loss: float | None) -> None:
        """Nothing to write yet."""

    def on_broken(self, message: str) -> None:
        """Counted in the metrics."""

    def on_epoch(self, run: Run, epoch: Epoch) -> None:
        """Rewrite the metrics whole: they are small, and a resumed run may have dropped lines."""
        lines = [json.dumps(asdict(line)) + "\n" for line in run.history]
        write_text(self.folder / METRICS, "".join(lines))

    def finish(self, run: Run, card: Checkpoint, result: Validation) -> None:
        """Write plots and checkpoint, and drop the state that only resuming needs."""
        plot_curves(run.history, self.recipe, self.title, self.folder / CURVES)
        plot_confusion(result.confusion, card.classes, self.folder / CONFUSION)
        save_checkpoint(self.folder / CHECKPOINT, run.average.model.state_dict(), card)
        (self.folder / STATE).unlink(missing_ok=True)


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
