"""Owns how PyTorch compiles a network by itself, just in time or ahead of it: what it can do alone on a device.

It is a reference for the other back ends and no artifact: what AOTInductor writes is machine code for this processor
or GPU and this PyTorch, so it is made when the runner opens, and goes with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from zoo.errors import MissingCapabilityError

# Weights are constants: batch norms are folded and convolutions get weights in the order they read them in.
SETTINGS = {"freezing": True}


@dataclass(frozen=True)
class Compiler:
    """A way to compile. `make` takes a network and two pictures as an example: it computes any batch alike."""

    name: str
    make: Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]

    def compile(self, network: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        """Compile, and run batches of two and of one, so that no later call compiles.

        Raises:
            MissingCapabilityError: PyTorch cannot do it here: mostly there is no C++ compiler, or no Triton.
        """
        try:
            with torch.inference_mode():
                compiled = self.make(network, example)
                compiled(example[:1].clone())
        except RuntimeError as error:  # the base of what dynamo, inductor and the export raise
            said = " ".join(str(error).split())[:300]
            raise MissingCapabilityError(
                f"PyTorch cannot compile the network here: {said}",
                "It needs a C++ compiler such as g++, and Triton on a GPU; --backend torch needs neither.",
            ) from error
        return compiled


def _just_in_time(network: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """The batch is open from two on; for one there is a network of its own, as always in dynamo."""
    compiled: Callable[[Tensor], Tensor] = torch.compile(network, options=dict(SETTINGS))
    pictures = example.clone()  # made in inference mode, as a runner's are: of others dynamo compiles again
    torch._dynamo.mark_dynamic(pictures, 0)
    compiled(pictures)
    return compiled


def _ahead_of_time(network: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        program = torch.export.export(network, (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
        package = torch._inductor.aoti_compile_and_package(
            program, package_path=str(Path(folder) / "network.pt2"), inductor_configs=dict(SETTINGS)
        )
        loaded: Callable[[Tensor], Tensor] = torch._inductor.aoti_load_package(package)
    return loaded


JUST_IN_TIME = Compiler("torch.compile", _just_in_time)
AHEAD_OF_TIME = Compiler("AOTInductor", _ahead_of_time)
