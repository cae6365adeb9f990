"""Owns the disk's part in a run: whether its files find room, and where a checkpoint goes that finds none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from zoo.errors import ZooError
from zoo.files import existing_part
from zoo.weights.checkpoint import Checkpoint, save_checkpoint
from zoo.wording import digits

# A state has weights, average, the two moments of AdamW and the best epoch's weights; a new one is written beside it.
COPIES_IN_STATE, STATES_AT_ONCE, FLOAT_BYTES = 5, 2, 4


def room_remark(folder: Path, weights: int) -> str:
    """What to say of a run folder's disk: "" where a network of so many bytes of weights can be saved as it learns.

    Raises:
        ZooError: not even its checkpoint would find room, which would be known only at the run's end.
    """
    place = existing_part(folder)
    free, states = shutil.disk_usage(place).free, weights * COPIES_IN_STATE * STATES_AT_ONCE
    if free < weights:
        raise ZooError(
            f"The checkpoint takes {_mb(weights)}, and there are {_mb(free)} left at {place}.",
            "Make room, or choose another place with --out.",
        )
    if free < states:
        return (
            f"There are {_mb(free)} left at {place}, and saving what --resume needs takes {_mb(states)} for a "
            "moment: a run that is long enough to be saved would end there. Make room, or choose another --out."
        )
    return ""


def save_or_rescue(path: Path, state: Mapping[str, Tensor], card: Checkpoint) -> None:
    """Write a checkpoint; where its disk refuses, write it among the system's temporary files.

    Raises:
        ZooError: it is not at `path`; says where else it is, if it is anywhere.
    """
    try:
        save_checkpoint(path, state, card)
    except ZooError as error:
        raise ZooError(error.problem, _rescued(path, state, card) or error.hint) from error


def _rescued(path: Path, state: Mapping[str, Tensor], card: Checkpoint) -> str:
    try:
        kept = Path(tempfile.mkdtemp(prefix="zoo-")) / path.name
        save_checkpoint(kept, state, card)
    except (ZooError, OSError):
        return ""
    return f"What was learnt is not lost: the checkpoint is {kept}. Move it to where there is room."


def _mb(size: int) -> str:
    return f"{digits(size / 1e6)} MB"
