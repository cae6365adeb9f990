"""Owns the places figures can go, TensorBoard, MLflow and Weights & Biases: opened, told, closed; no watcher.

A tracker's own settings stay its own: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT, WANDB_MODE and the
like work as their makers document them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from zoo.errors import ZooError

Ending = Literal["finished", "interrupted", "failed"]
EVENTS = "tensorboard"


class Sink(Protocol):
    """Where figures go. `errors` is what it raises when its server or disk fails.

    `id` is what it calls the run, None where it needs no name to go on.
    """

    errors: tuple[type[Exception], ...]
    id: str | None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take figures of an optimizer step; steps rise."""

    def close(self, ending: Ending) -> None:
        """Send what is held back and say how the run ended."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a sink is opened with.

    Args:
        name: the run's, as people read it.
        folder: the run's; sinks that keep files keep them there.
        config: what the run was started with, plain JSON types.
        first_step: optimizer steps already done by the run that is resumed, 0 for a new one.
        known_id: the sink's own id of the run that is resumed, where it has one.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    first_step: int
    known_id: str | None


class TensorBoardSink:
    """Event files under the run folder; steps after the resumed one are replaced."""

    errors: tuple[type[Exception], ...] = (OSError,)
    id: str | None = None

    def __init__(self, opening: Opening) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = opening.first_step + 1 if opening.first_step else None
        self._writer = SummaryWriter(str(opening.folder / EVENTS), purge_step=purge)
        if not opening.first_step:
            told = json.dumps(opening.config, indent=2, ensure_ascii=False)
            indented = told.replace("\n", "\n    ")  # Markdown's code block
            self._writer.add_text("run", f"    {indented}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One scalar each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, ending: Ending) -> None:
        """Write out; event files know no ending."""
        self._writer.close()


class MlflowSink:
    """A run of MLflow's fluent interface, continued by its id."""

    def __init__(self, opening: Opening) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        self.errors: tuple[type[Exception], ...] = (MlflowException, OSError)
        self._mlflow = mlflow
        try:
            # nested: a caller may have a run of its own open.
            run = mlflow.start_run(run_id=opening.known_id, run_name=opening.name, nested=True)
            self.id: str | None = run.info.run_id
            if not opening.known_id:
                mlflow.log_params(flatten(opening.config))
        except self.errors as error:
            raise ZooError(
                f"MLflow refused the run: {error}", "See MLFLOW_TRACKING_URI, or leave --tracker out."
            ) from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One request for all."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self, ending: Ending) -> None:
        """End the run with MLflow's word for it."""
        status = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}[ending]
        with redirect_stdout(sys.stderr):  # it prints the run's address, and stdout is for results
            self._mlflow.end_run(status)


class WandbSink:
    """A run of Weights & Biases, continued by its id; files under the run folder."""

    def __init__(self, opening: Opening) -> None:
        import wandb

        self.errors: tuple[type[Exception], ...] = (wandb.errors.Error, OSError)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "zoo"),
                name=opening.name,
                dir=str(opening.folder),
                config=dict(opening.config),
                id=opening.known_id,
                resume="allow" if opening.known_id else None,
                settings=wandb.Settings(console="off"),  # a live view is no log
            )
        except self.errors as error:
            raise ZooError(
                f"Weights & Biases refused the run: {error}", "`wandb login`, or WANDB_MODE=offline, or no --tracker."
            ) from error
        self.id: str | None = self._run.id

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values of the same step become one row."""
        self._run.log(dict(values), step=step)

    def close(self, ending: Ending) -> None:
        """Finish; anything but a finished run counts as failed there."""
        self._run.finish(exit_code=0 if ending == "finished" else 1)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists of mappings by dotted names, from 1 as `--set` counts: stages.1.dropout."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(number): item for number, item in enumerate(value, start=1)}, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
