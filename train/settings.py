"""Owns what a run takes from its machine and its user besides the recipe: every "auto" resolved; it trains nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from train.options import AugmentOn, MixedPrecision, TrainOptions
from train.processes.distributed import ALONE, World
from zoo.data.pictures import Pictures
from zoo.data.shards import Packed
from zoo.errors import MissingCapabilityError, ZooError
from zoo.files import check_temporary_folder
from zoo.machine import choose_device, usable_processors
from zoo.options import Seed
from zoo.rows import CountOrNone, NotNegative, Row


@dataclass(frozen=True, kw_only=True)
class Settings(Row):
    """What a run takes from its machine and its user, besides the recipe.

    The state to resume from is saved every `save_every_s` seconds, 0: after every step. Two minutes of S are 340 MB
    (weights, average, two moments of AdamW) every two minutes. `augment_on` changes no random draw, so a run may be
    resumed with another value, as with another `checkpoint_activations`.
    """

    device: torch.device
    precision: MixedPrecision
    seed: Seed
    workers: CountOrNone
    augment_on: AugmentOn = "workers"
    compile: bool = False
    checkpoint_activations: bool = False
    save_every_s: NotNegative = TrainOptions.save_every_s
    world: World = ALONE

    @property
    def pin(self) -> bool:
        """Whether batches are made in page-locked memory: a GPU copies from there while it works."""
        return self.device.type == "cuda"

    @property
    def device_name(self) -> str:
        """The GPU's name, or "cpu"."""
        return torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"


def choose_settings(options: TrainOptions, pictures: Pictures, world: World) -> Settings:
    """Resolve what `options` leave to the machine, for this process of the run.

    Raises:
        MissingCapabilityError: there is no such device, or as `check_compiler`. ZooError: as `choose_precision` and
        `check_temporary_folder`, or activations are checkpointed in a compiled network.
    """
    check_temporary_folder()
    device = torch.device(choose_device(options.device))
    if device.type == "cuda" and not world.is_alone:
        device = torch.device("cuda", world.local_rank)
    if options.compile and options.checkpoint_activations:
        raise ZooError(
            "--checkpoint-activations does not go with --compile: the compiler decides by itself what it keeps.",
            "Leave one of them out; the batch in parts (--set stages.all.accumulate=2) saves memory with --compile.",
        )
    if options.compile:
        check_compiler(device)
    return Settings(
        device=device,
        precision=choose_precision(options.precision, device),
        seed=options.seed,
        workers=default_workers(pictures, device) if options.workers is None else options.workers,
        augment_on=choose_augmentation(options.augment_on, device),
        compile=options.compile,
        checkpoint_activations=options.checkpoint_activations,
        save_every_s=options.save_every_s,
        world=world,
    )


def choose_precision(asked: Literal["auto", MixedPrecision], device: torch.device) -> MixedPrecision:
    """Resolve "auto": bf16 where the GPU has it, else fp16 on a GPU, fp32 on a CPU.

    Raises:
        ZooError: fp16 on a CPU, where PyTorch has no loss scaling for it.
    """
    if asked == "auto":
        if device.type == "cpu":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if asked == "fp16" and device.type == "cpu":
        raise ZooError("--precision fp16 needs a GPU.", "Use fp32 or bf16 on a CPU.")
    return asked


def check_compiler(device: torch.device) -> None:
    """Compile one addition for the device: what is missing is known in seconds, not when the first step is compiled.

    Raises:
        MissingCapabilityError: torch.compile does not work here.
    """
    try:
        torch.compile(lambda numbers: numbers + 1)(torch.zeros(2, device=device))
    except RuntimeError as error:  # torch._dynamo's errors are
        reason = next(line for line in f"{getattr(error, 'inner_exception', None) or error}\n?".splitlines() if line)
        raise MissingCapabilityError(
            f"--compile does not work here: {reason.rstrip('.')}.",
            "Install a C++ compiler (apt install g++ python3-dev), or name it in CXX; or leave --compile out.",
        ) from error
    finally:
        torch.compiler.reset()


def choose_augmentation(asked: Literal["auto", AugmentOn], device: torch.device) -> AugmentOn:
    """Resolve "auto": on a GPU, which has time while a processor has none; else in the workers."""
    if asked == "auto":
        return "device" if device.type == "cuda" else "workers"
    return asked


def default_workers(pictures: Pictures, device: torch.device) -> int:
    """Decoding processes: one per core up to 8; none for pictures in memory, nor where the only core trains.

    There a process has no time of its own, and handing its batches over takes as long as decoding small pictures. Those
    of an address are waited for, so that somebody else should.
    """
    sources = pictures.sources[:1]
    if any(isinstance(source, np.ndarray) for source in sources):
        return 0
    remote = any(isinstance(source, Packed) and source.is_remote for source in sources)
    if device.type == "cpu" and usable_processors() == 1 and not remote:
        return 0
    return min(8, usable_processors())
