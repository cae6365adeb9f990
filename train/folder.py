"""Owns the run folder: the names of its files, what an earlier run left in it, and what of that is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.markup import escape

from train import spreadsheets
from train.learn.state import read_state
from zoo.errors import DivergedError, ZooError
from zoo.model.fake_quantize import float_state
from zoo.model.network import Network
from zoo.weights.checkpoint import Checkpoint, save_checkpoint
from zoo.weights.resolve import checkpoint_path, has_weights

CHECKPOINT, STATE, LAST_GOOD = "checkpoint.safetensors", "state.pt", "last-good.safetensors"
METRICS, REPORT, CURVES, CONFUSION = "metrics.jsonl", "report.html", "curves.svg", "confusion.svg"
PREDICTIONS, CLASSES = spreadsheets.PREDICTIONS, spreadsheets.CLASSES
TRACKER_IDS = "trackers.json"
RANGE_TEST = "learning-rate.json"
FOLDS, SUMMARY = "folds.json", "summary.json"
Found = Literal["interrupted", "finished", "nothing"]


def fold_name(number: int) -> str:
    """The folder of a fold's run inside that of its cross-validation."""
    return f"fold-{number}"


def find_run(folder: Path) -> Found:
    """What an earlier run left in a folder. The state is removed last, when everything else is written."""
    if (folder / STATE).is_file():
        return "interrupted"
    return "finished" if (folder / CHECKPOINT).is_file() else "nothing"


def move_aside(folder: Path, console: Console) -> None:
    """Keep an earlier run: runs/s becomes runs/s.1, or the next free number.

    Raises:
        ZooError: the folder holds something else than a run, or cannot be renamed.
    """
    folder = folder if folder.name else folder.resolve()  # "." has no name to number
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not any((folder / name).exists() for name in (CHECKPOINT, METRICS, STATE, FOLDS)):
        raise ZooError(f"{folder} holds something else than a run.", "Choose an empty or a new folder with --out.")
    number = 1
    while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    try:
        folder.rename(kept)
    except OSError as error:
        raise ZooError(
            f"Cannot keep the earlier run in {folder} as {kept}: {error.strerror}.", "Choose another folder with --out."
        ) from error
    console.print(escape(f"The earlier run in {folder} is kept as {kept}."), soft_wrap=True)


def keep_apart(folder: Path, model: str, teacher: str | None) -> None:
    """Refuse to train in the folder that the weights which the run needs are in: it would be moved aside.

    The same command, with --resume or not, would find them no more.

    Raises:
        ZooError: the checkpoint of the model, or of the teacher, is in the folder.
    """
    begins = (model,) if has_weights(model) else ()
    for name in (*begins, *((teacher,) if teacher else ())):
        path = checkpoint_path(name)
        if path and path.resolve().is_relative_to(folder.resolve()):
            what = "distils from" if name == teacher else "begins from"
            raise ZooError(
                f"{path}, which this run {what}, is in the folder that the run would be written to.",
                f"Choose another one: --out {free_beside(folder)}",
            )


def free_beside(folder: Path) -> Path:
    """A name for another run, such as runs/s-2."""
    folder, number = folder if folder.name else folder.resolve(), 2
    while (free := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return free


def keep_last_good(folder: Path, network: Network, card: Checkpoint, error: DivergedError) -> str:
    """Make a checkpoint of the last state's weights; returns what to say of it, "" if there is no state.

    `network` is the run's, whatever its weights have become.
    """
    if not (folder / STATE).is_file():
        return ""
    state = read_state(folder / STATE, torch.device("cpu"))
    epochs, path = len(state["history"]), folder / LAST_GOOD
    card = replace(card, provenance={"epochs": epochs, "stopped_by": error.problem})
    save_checkpoint(path, float_state(network, state["average"]), card)
    return (
        f"The weights after {epochs} epochs and {state['step']} steps are in {path}: "
        f"`zoo train {path} --out {free_beside(folder)}` begins there."
    )
