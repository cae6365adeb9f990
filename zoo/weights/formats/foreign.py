"""Owns other projects' weight files, as plain tensors under those projects' keys; it does not know what keys mean.

A `.pth` is opened with `weights_only=True`, so that no file can run code.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.errors import CheckpointError, ZooError
from zoo.files import replacing, sha256_of
from zoo.weights.cache import check_published
from zoo.weights.formats.google import checkpoint_prefix, read_google
from zoo.weights.formats.keras import KERAS_SUFFIXES, read_keras
from zoo.weights.spec import Weights

PYTORCH_SUFFIXES = (".pth", ".pt", ".pth.tar", ".bin", ".ckpt")
# Under these keys the training scripts of timm and torchvision keep the weights in a larger file. Averaged ones first.
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
# What torch.load raises for damaged files. It checks the zip format and trusts its old one; found by damaging some.
DAMAGE = (RuntimeError, EOFError, ValueError, KeyError, IndexError, AssertionError, struct.error)
WRAPPER = "module."  # what DataParallel and torchvision's averaged model put before every key


@dataclass(frozen=True, kw_only=True)
class ForeignWeights:
    """A file's tensors under its own keys, as it stores them; its SHA-256; which part of it they are ("" is all)."""

    name: str
    tensors: Mapping[str, Tensor]
    sha256: str
    part: str = ""


def read_foreign(path: Path, published: Weights | None = None) -> ForeignWeights:
    """Read `.pth`, `.safetensors`, Keras' `.h5` and `.keras`, or a TensorFlow checkpoint (its prefix or its folder).

    With `published`, the file's SHA-256 is compared with the published one before the file is opened.

    Raises:
        CheckpointError: missing, damaged, in none of these formats, or not the published file.
        MissingCapabilityError: the package that reads this format is not installed.
    """
    prefix = checkpoint_prefix(path)
    if prefix:
        tensors, part = read_google(prefix)
        index = prefix.with_name(f"{prefix.name}.index")  # it holds a checksum of every tensor in the other files
        return ForeignWeights(name=prefix.name, tensors=tensors, sha256=sha256_of(index), part=part)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    sha256 = sha256_of(path)
    if published:
        check_published(published, path, sha256)
    for suffixes, read in READERS:
        if path.name.endswith(suffixes):
            tensors, part = read(path)
            return ForeignWeights(name=path.name, tensors=tensors, sha256=sha256, part=part)
    known = ", ".join(suffix for suffixes, _ in READERS for suffix in suffixes)
    raise CheckpointError(
        f"{path} is in no format this project reads.", f"It reads {known} and TensorFlow checkpoints."
    )


def write_foreign(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a state dict for another project, whole or not at all: `.pth` or `.safetensors`.

    Raises:
        ZooError: another ending, or the folder cannot be written to.
    """
    whole = {key: value.detach().to("cpu").contiguous() for key, value in tensors.items()}
    if path.suffix == ".safetensors":
        with replacing(path) as temporary:
            save_file(whole, temporary, metadata={"format": "pt"})
    elif path.suffix in (".pth", ".pt"):
        with replacing(path) as temporary:
            torch.save(whole, temporary)
    else:
        raise ZooError(f"{path} ends in neither .pth nor .safetensors.", "Choose one of them with --out.")


def _read_pytorch(path: Path) -> tuple[dict[str, Tensor], str]:
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged; nothing in it was run.",
            "Save the state dict alone: torch.save(model.state_dict(), …).",
        ) from error
    except DAMAGE as error:
        raise CheckpointError(f"{path} is truncated or not a PyTorch file.", "Copy or download it again.") from error
    return _state_dict(raw, path)


def _state_dict(raw: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """Find the weights in a training script's file, and remove what parallel training puts before the keys."""
    part = ""
    if isinstance(raw, Mapping):
        part = next((key for key in NESTED if isinstance(raw.get(key), Mapping)), "")
        raw = raw[part] if part else raw
    if not isinstance(raw, Mapping) or not any(isinstance(value, Tensor) for value in raw.values()):
        raise CheckpointError(f"{path} holds no state dict.", "Save one: torch.save(model.state_dict(), …).")
    tensors = {str(key): value for key, value in raw.items() if isinstance(value, Tensor)}
    tensors.pop("n_averaged", None)  # torch.optim.swa_utils.AveragedModel counts its updates in it
    if all(key.startswith(WRAPPER) for key in tensors):
        tensors = {key.removeprefix(WRAPPER): value for key, value in tensors.items()}
    return tensors, part


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    try:
        return load_file(path), ""
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file: {error}.", "Copy or download it again."
        ) from error


READERS: tuple[tuple[tuple[str, ...], Callable[[Path], tuple[dict[str, Tensor], str]]], ...] = (
    (PYTORCH_SUFFIXES, _read_pytorch),
    ((".safetensors",), _read_safetensors),
    (KERAS_SUFFIXES, read_keras),
)
