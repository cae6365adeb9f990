"""Owns reading Google's TensorFlow checkpoints (google/automl, tensorflow/tpu): it chooses and names their variables.

Its keys are a layer's path and PyTorch's word for the variable (`blocks_3/conv2d_1.weight`); the tensors stay in
TensorFlow's layout.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import CheckpointError, MissingCapabilityError
from zoo.weights.formats.keras import VARIABLES

# Google evaluates the moving average of the weights (automl utils.py get_ema_vars), so this average is read.
AVERAGE = "ExponentialMovingAverage"


def checkpoint_prefix(path: Path) -> Path | None:
    """The common beginning of a checkpoint's files, of which `path` is one, their folder, or the beginning itself.

    None if `path` is none of these. Of several checkpoints in a folder, the one that its file `checkpoint` names is
    taken, as in TensorFlow.
    """
    if path.is_dir():
        named = path / "checkpoint"
        if named.is_file():
            return path / Path(named.read_text().partition('"')[2].partition('"')[0]).name
        found = sorted(path.glob("*.index"))
        return found[-1].with_suffix("") if found else None
    if path.suffix == ".index":
        return path.with_suffix("")
    if ".data-" in path.name:
        return path.with_name(path.name.partition(".data-")[0])
    return path if path.with_name(f"{path.name}.index").is_file() else None


def import_tensorflow() -> Any:
    """Import TensorFlow into a process that uses PyTorch.

    Each brings an LLVM; PyTorch's is in Triton, which it imports when it first needs it. Importing Triton after
    TensorFlow aborts the process, so Triton is imported first.
    """
    if find_spec("triton"):
        import_module("triton")
    return import_module("tensorflow")


def read_google(prefix: Path) -> tuple[dict[str, Tensor], str]:
    """Read a checkpoint's weights; the second value says whether they are the averaged ones.

    Step counters and optimiser slots are left out.

    Raises:
        MissingCapabilityError: TensorFlow is not installed.
        CheckpointError: damaged, or one that stores objects instead of variable names.
    """
    if find_spec("tensorflow") is None:
        raise MissingCapabilityError(
            f"Reading the TensorFlow checkpoint {prefix.name} needs TensorFlow, which is not installed.",
            "pip install tensorflow-cpu; or `--from timm`, whose files hold the same weights.",
        )
    tf = import_tensorflow()
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = set(reader.get_variable_to_shape_map())
        if "_CHECKPOINTABLE_OBJECT_GRAPH" in names:
            raise CheckpointError(
                f"{prefix} stores Python objects, not variable names.",
                "Google's published checkpoints store variable names: use one of those.",
            )
        averaged = False
        tensors = {}
        for name in sorted(names):
            layer = name.rpartition("/")[0].partition("/")[2]  # below the network's name
            leaf = VARIABLES.get(name.rpartition("/")[2])
            if leaf and layer:
                average = f"{name}/{AVERAGE}"
                averaged |= average in names
                value = reader.get_tensor(average if average in names else name)
                tensors[f"{layer}.{leaf}"] = torch.from_numpy(value)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{prefix} is truncated or not a TensorFlow checkpoint.", "Copy it again.") from error
    return tensors, "moving averages" if averaged else ""
