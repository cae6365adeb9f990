"""Owns other projects' weight files, as plain tensors under those projects' keys; it does not know what keys mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.errors import CheckpointError, ZooError
from zoo.files import replacing, sha256_of, writing_errors
from zoo.weights.cache import check_published
from zoo.weights.formats.google import checkpoint_prefix, read_google
from zoo.weights.formats.keras import KERAS_SUFFIXES, read_keras
from zoo.weights.formats.pytorch import PYTORCH_SUFFIXES, find_state_dict, read_pytorch
from zoo.weights.spec import Weights

SAFETENSORS_SUFFIX = ".safetensors"
# Under it a checkpoint of ours has its card (zoo/weights/checkpoint.py).
OWN_KEY = "zoo"


@dataclass(frozen=True, kw_only=True)
class ForeignWeights:
    """A file's tensors under its own keys, as it stores them; its SHA-256; which part of it they are ("" is all)."""

    name: str
    tensors: Mapping[str, Tensor]
    sha256: str
    part: str = ""


def read_foreign(path: Path, published: Weights | None = None, *, ema: bool | None = None) -> ForeignWeights:
    """Read `.pth`, `.safetensors`, Keras' `.h5` and `.keras`, or a TensorFlow checkpoint (its prefix or its folder).

    With `published`, the file's SHA-256 is compared with the published one before the file is opened. Where a training
    script's file has averaged weights, these are taken; `ema` insists on them (True) or declines them (False).

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
    if path.name.endswith(PYTORCH_SUFFIXES):
        tensors, part = find_state_dict(read_pytorch(path), path, ema=ema)
    elif path.suffix == SAFETENSORS_SUFFIX:
        tensors, part = find_state_dict(_read_safetensors(path), path, ema=ema)
    elif path.name.endswith(KERAS_SUFFIXES):
        tensors, part = read_keras(path)
    else:
        known = ", ".join((*PYTORCH_SUFFIXES, SAFETENSORS_SUFFIX, *KERAS_SUFFIXES))
        raise CheckpointError(
            f"{path} is in no format this project reads.", f"It reads {known} and TensorFlow checkpoints."
        )
    return ForeignWeights(name=path.name, tensors=tensors, sha256=sha256, part=part)


def write_foreign(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a state dict for another project, whole or not at all: `.pth` or `.safetensors`.

    Raises:
        ZooError: another ending, or the folder cannot be written to.
    """
    whole = {key: value.detach().to("cpu").contiguous() for key, value in tensors.items()}
    if path.suffix == SAFETENSORS_SUFFIX:
        with replacing(path) as temporary, writing_errors(SafetensorError):
            save_file(whole, temporary, metadata={"format": "pt"})
    elif path.suffix in (".pth", ".pt"):
        with replacing(path) as temporary, writing_errors(RuntimeError), temporary.open("wb") as file:
            torch.save(whole, file)
    else:
        raise ZooError(f"{path} ends in neither .pth nor .safetensors.", "Choose one of them with --out.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if OWN_KEY in (file.metadata() or {}):
                raise CheckpointError(
                    f"{path} is a checkpoint of this project already.", "Every command takes it as it is: a MODEL."
                )
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file: {error}.", "Copy or download it again."
        ) from error
