"""Owns how small arrays the host makes reach the device without the host waiting for it; batches are the loader's."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def send(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device.

    To a GPU from page-locked memory, which PyTorch keeps until the copy is made. `torch.tensor(values, device="cuda")`
    and `.to("cuda")` wait for it, and with it for all that the GPU was given before: a step that does so never runs
    ahead.
    """
    host = torch.from_numpy(array)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
