"""Owns running a network in PyTorch: the reference that every other back end is compared with."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from export.answers import Answers
from export.contract import Contract
from export.runners.runner import recorded_temperature
from zoo.machine import Device, choose_device, usable_processors
from zoo.model.build import FromPictures
from zoo.model.network import Network
from zoo.weights.resolve import load_model


class TorchRunner:
    """A network in memory as a `Runner`. Takes any batch size."""

    max_batch_size: int | None = None

    def __init__(
        self,
        model: Network,
        contract: Contract,
        *,
        artifact: str = "model in memory",
        device: Device = "cpu",
        threads: int | None = None,
        temperature: float | None = None,
    ) -> None:
        """Move (not copy) `model` to the device, in evaluation mode; `device` is as in `open_runner`.

        `threads` are the intra-op threads of the whole process; their number is put back when the runner closes.

        Raises:
            MissingCapabilityError: "cuda" without a GPU that PyTorch can use.
        """
        chosen = choose_device(device)
        self.artifact = artifact
        self.contract = contract
        self.temperature = temperature
        self.backend = f"torch {torch.__version__}"
        self.device = torch.cuda.get_device_name() if chosen == "cuda" else "CPU"
        self._device = torch.device(chosen)
        # Tensor cores read channels last, and processors like it too: S at 384 px takes a quarter less time so.
        network = FromPictures(model, contract.preprocessing).eval()
        self._answers = Answers(contract)
        self._network = network.to(self._device).to(memory_format=torch.channels_last)
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(threads or min(self._threads_before, usable_processors()))
        self.threads = torch.get_num_threads() if chosen == "cpu" else None

    @classmethod
    def from_model(cls, model: str, *, device: Device = "auto", threads: int | None = None) -> Self:
        """Open a checkpoint's path or a model id.

        Raises:
            CheckpointError, UnknownNameError, MissingCapabilityError: as `zoo.weights.resolve.load_model`.
        """
        choose_device(device)  # a missing GPU is an error before a large file is read
        network, card, _ = load_model(model)
        contract = Contract(
            model=card.variant.id,
            classes=card.classes,
            preprocessing=card.preprocessing,
            thresholds=card.thresholds,
        )
        temperature = recorded_temperature(card.provenance)
        return cls(network, contract, artifact=model, device=device, threads=threads, temperature=temperature)

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify (N, S, S, C) uint8 pictures: (N, K) float32. Waits for the device."""
        return next(iter(self.outputs(pictures).values()))

    def outputs(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Every output by its name."""
        with torch.inference_mode():
            found = self._answers(self._network(torch.tensor(pictures, device=self._device)).float())
            arrays = [output.cpu().numpy() for output in found]  # the copy back is the one synchronisation
        return dict(zip(self.contract.form.output_names, arrays, strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        torch.set_num_threads(self._threads_before)
        del self._network
