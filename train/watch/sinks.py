"""Owns how figures reach TensorBoard, MLflow and Weights & Biases; what is sent, and when, is `trackers.py`'s.

Each is configured as its makers document it: by MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT, WANDB_MODE
and the like.
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
from zoo.rows import CountOrNone, Row

Ending = Literal["finished", "interrupted", "failed"]
EVENTS = "tensorboard"


class Sink(Protocol):
    """Where figures go. `errors` is what it raises when its server or disk fails.

    `id` is its name of the run, by which a resumed run continues; None if it needs none.
    """

    errors: tuple[type[Exception], ...]
    id: str | None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the figures of an optimizer step; steps ascend."""

    def close(self, ending: Ending) -> None:
        """Send what is still buffered and say how the run ended."""


@dataclass(frozen=True, kw_only=True)
class Opening(Row):
    """What a sink is opened with: the run's name and folder, its settings as plain JSON types, and for a resumed run
    the optimizer steps that it has made (0 for a new one) and the sink's own id of it.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    first_step: CountOrNone
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
        """Write the rest; event files do not say how a run ended."""
        self._writer.close()


class MlflowSink:
    """A run of MLflow's fluent interface; a resumed run continues by its id."""

    def __init__(self, opening: Opening) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        self.errors: tuple[type[Exception], ...] = (MlflowException, OSError)
        self._mlflow = mlflow
        try:
            # nested: the caller may have opened a run too.
            run = mlflow.start_run(run_id=opening.known_id, run_name=opening.name, nested=True)
            self.id: str | None = run.info.run_id
            if not opening.known_id:
                mlflow.log_params(flatten(opening.config))
        except self.errors as error:
            raise ZooError(
                f"MLflow refused the run: {error}", "See MLFLOW_TRACKING_URI, or leave --tracker out."
            ) from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send all in one request."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self, ending: Ending) -> None:
        """End the run with MLflow's word for how it ended."""
        status = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}[ending]
        with redirect_stdout(sys.stderr):  # it prints the run's address, and stdout is for results
            self._mlflow.end_run(status)


class WandbSink:
    """A run of Weights & Biases with its files in the run folder; a resumed run continues by its id."""

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
                settings=wandb.Settings(console="off"),  # it would keep the live view as a log
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
        """Finish; there every run that is not finished counts as failed."""
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
