"""Owns reading PyTorch's files as training scripts write them: it finds the weights and runs none of the code."""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import CheckpointError

PYTORCH_SUFFIXES = (".pth", ".pt", ".pth.tar", ".bin", ".ckpt")
# The keys under which training scripts keep weights in a larger file: timm, torchvision's references, Lightning.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
PLAIN = ("state_dict", "model", "model_state_dict")
# What wrappers put before every key, in whatever order: DataParallel and averaged models, torch.compile, Lightning.
WRAPPERS = ("module.", "_orig_mod.", "model.")
# What torch.load raises for damaged files. It checks the zip format and trusts its old one; found by damaging some.
DAMAGE = (RuntimeError, EOFError, ValueError, KeyError, IndexError, AssertionError, struct.error)
# The function that makes a NumPy number from bytes: scripts save their best metric so. NumPy 2 moved it.
_SCALAR = np.float64(0).__reduce__()[0]
# Settings that scripts save beside the weights (timm, torchvision's references), all of them mere data.
HARMLESS: list[Any] = [
    argparse.Namespace,
    PosixPath,
    np.dtype,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
    *((_SCALAR, f"numpy.{home}.multiarray.scalar") for home in ("core", "_core")),
]


def read_pytorch(path: Path) -> Any:
    """Return whatever a file of torch.save holds, if no code has to run for it.

    Raises:
        CheckpointError: TorchScript, a pickled model or another object, truncated, or no PyTorch file.
    """
    if is_torchscript(path):
        raise CheckpointError(
            f"{path} is TorchScript: a program with its weights, not a state dict.",
            "Save the weights alone where it was made: torch.save(model.state_dict(), …).",
        )
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        named = f" It names {found[1]}." if found else ""
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged; nothing in it was run.{named}",
            "Save the state dict alone: torch.save(model.state_dict(), …).",
        ) from error
    except DAMAGE as error:
        raise CheckpointError(f"{path} is truncated or not a PyTorch file.", "Copy or download it again.") from error


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of torch.jit.save."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def find_state_dict(raw: Any, path: Path, *, ema: bool | None = None) -> tuple[dict[str, Tensor], str]:
    """Find the weights in what a file holds, and remove what wrappers put before their keys.

    Args:
        ema: as in `read_foreign`.

    Returns:
        The tensors, and which part of the file they were: "" is all of it.

    Raises:
        CheckpointError: there are none, or no averaged ones where they were asked for.
    """
    part = ""
    if isinstance(raw, Mapping):
        averaged = [key for key in AVERAGED if isinstance(raw.get(key), Mapping)]
        plain = [key for key in PLAIN if isinstance(raw.get(key), Mapping)]
        if ema and not averaged:
            raise CheckpointError(f"{path} has no averaged weights.", "Leave --ema out to take the weights it has.")
        wanted = plain if ema is False else averaged + plain
        part = wanted[0] if wanted else ""
        raw = raw[part] if part else raw
    if not isinstance(raw, Mapping) or not any(isinstance(value, Tensor) for value in raw.values()):
        raise CheckpointError(f"{path} holds no state dict.", "Save one: torch.save(model.state_dict(), …).")
    tensors = {str(key): value for key, value in raw.items() if isinstance(value, Tensor)}
    tensors.pop("n_averaged", None)  # torch.optim.swa_utils.AveragedModel counts its updates in it
    tensors, left = _unwrap(tensors)
    return tensors, f"{part or 'all'} without {', '.join(left)}" if left else part


def _unwrap(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Remove wrappers from the keys; what is not in the wrapped network, such as the weights of a loss, is left out."""
    left: list[str] = []
    while True:
        counts = Counter(wrapper for key in tensors for wrapper in WRAPPERS if key.startswith(wrapper))
        wrapper, count = counts.most_common(1)[0] if counts else ("", 0)
        if count < 0.9 * len(tensors):
            return tensors, left
        left += [key for key in tensors if not key.startswith(wrapper)]
        tensors = {key.removeprefix(wrapper): value for key, value in tensors.items() if key.startswith(wrapper)}
