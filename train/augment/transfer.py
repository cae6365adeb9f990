"""Owns how small arrays reach the device while the host does not wait for it; batches are the loader's."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def send(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device.

    To a GPU it goes from page-locked memory, which PyTorch keeps until the copy is made. `torch.tensor(values,
    device="cuda")` and `.to("cuda")` would wait for the copy, and so for all work that the GPU was given before: the
    host would never run ahead.
    """
    host = torch.from_numpy(array)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
