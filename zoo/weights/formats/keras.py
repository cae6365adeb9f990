"""Owns reading Keras' weight files: the legacy `.h5`, Keras 3's `.weights.h5`, and the `.keras` archive.

Its keys are a layer's name and PyTorch's word for the variable (`block4a_bn.running_mean`); the tensors stay in
TensorFlow's layout. The HDF5 library notices truncated files, but an altered file can crash the process: open only
files of people you trust.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import CheckpointError, MissingCapabilityError

KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
# Names of variables in the legacy layout.
VARIABLES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Keras 3 numbers the variables of a layer in the order in which its class makes them, and names groups by class.
KERAS_3_VARIABLES = {
    "conv2d": ("weight", "bias"),
    "depthwise_conv2d": ("weight", "bias"),
    "dense": ("weight", "bias"),
    "batch_normalization": ("weight", "bias", "running_mean", "running_var"),
}


def read_keras(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a file's variables; the second value names the layout.

    It leaves out input normalisation, random states and optimisers: they are no weights of the network.

    Raises:
        MissingCapabilityError: h5py is not installed.
        CheckpointError: not such a file, damaged, or written by a Keras that kept no layer names.
    """
    if find_spec("h5py") is None:
        raise MissingCapabilityError(f"Reading {path.name} needs h5py, which is not installed.", "pip install h5py")
    import h5py

    try:
        with h5py.File(_hdf5(path), "r") as file:
            root = file.get("model_weights", file)
            if "layer_names" in root.attrs:
                return dict(_legacy(root)), "legacy h5"
            return dict(_keras_3(file, path)), "Keras 3"
    except (OSError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is truncated or not a Keras weight file: {error}.", "Copy or save it again."
        ) from error


def _hdf5(path: Path) -> Path | io.BytesIO:
    if path.suffix != ".keras":
        return path
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read("model.weights.h5"))


def _legacy(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Each layer's group has `weight_names` like `layer/variable:0`; a model in a model puts its name before them."""
    for layer in root.attrs["layer_names"]:
        group = root[_text(layer)]
        for entry in group.attrs["weight_names"]:
            words = _text(entry).partition(":")[0].split("/")
            if words[-1] in VARIABLES:
                yield f"{words[-2]}.{VARIABLES[words[-1]]}", _tensor(group[_text(entry)])


def _keras_3(file: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    """Variables are at `…/conv2d_7/vars/0`; the layer's name is an attribute of the group `vars`."""
    import h5py

    found: list[tuple[str, Any]] = []
    file.visititems(lambda name, item: found.append((name, item)) if isinstance(item, h5py.Dataset) else None)
    for name, dataset in found:
        words = name.split("/")
        leaves = KERAS_3_VARIABLES.get(words[-3].rstrip("0123456789").rstrip("_")) if len(words) > 3 else None
        if leaves is None or words[0] == "optimizer":
            continue
        if "name" not in dataset.parent.attrs:
            raise CheckpointError(
                f"{path} was written by a Keras that kept no layer names.", "Save it as model.save('model.h5') there."
            )
        yield f"{_text(dataset.parent.attrs['name'])}.{leaves[int(words[-1])]}", _tensor(dataset)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _tensor(dataset: Any) -> Tensor:
    return torch.from_numpy(dataset[()])
