"""Owns this process's share of a run that several processes train together under torchrun; it trains nothing.

Batches are cut, never the data set: every process computes the same order of the same global batches and takes its own
rows of each. So the steps are those of one process with the whole batch, whatever the number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from zoo.errors import ZooError
from zoo.model.network import Network
from zoo.rows import Count, CountOrNone, Row


@dataclass(frozen=True, kw_only=True)
class World(Row):
    """This process of a run: `rank` is its number among all `size`, `local_rank` its number on this node."""

    rank: CountOrNone = 0
    size: Count = 1
    local_rank: CountOrNone = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1


ALONE = World()
# torch 2.15 brought the newer name and warns about the older one.
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in signature(DistributedDataParallel.__init__).parameters
)


def find_world(environment: dict[str, str] | os._Environ[str] = os.environ) -> World:
    """The place torchrun gave this process; alone without torchrun.

    Raises:
        ZooError: torchrun's variables contradict one another.
    """
    if "WORLD_SIZE" not in environment:
        return ALONE
    try:
        world = World(
            rank=int(environment["RANK"]),
            size=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", environment["RANK"])),
        )
    except (KeyError, ValueError) as error:
        raise ZooError(
            f"WORLD_SIZE is set, but RANK, WORLD_SIZE and LOCAL_RANK are not all whole numbers: {error}.",
            "Start with `torchrun --nproc-per-node N --no-python zoo train …`, or unset WORLD_SIZE.",
        ) from error
    if not 0 <= world.rank < world.size:
        raise ZooError(f"RANK {world.rank} is outside 0 … {world.size - 1}.", "torchrun sets both; do not set them.")
    return world


def restarts(environment: dict[str, str] | os._Environ[str] = os.environ) -> int:
    """How often torchrun has restarted all processes after a failure: a restarted run is resumed."""
    return int(environment.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[None]:
    """Join the other processes (NCCL on GPUs, gloo on processors), and leave them at the end.

    Raises:
        ZooError: the processes do not find one another.
    """
    if world.is_alone:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, rank, size = next(rendezvous("env://"))
        # torchrun's own store lives through all restarts and keeps the addresses of dead processes, so each restart
        # gets a prefix of its own. Without that store every restart has a fresh one and must have no prefix: a node
        # that replaces another counts restarts from 0 and would look under another prefix than the rest.
        kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        attempt = PrefixStore(f"zoo/attempt_{restarts()}", store) if kept else store
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=attempt, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise ZooError(
            f"The {world.size} processes did not find one another: {error}.",
            "MASTER_ADDR and MASTER_PORT must be reachable from every node; torchrun's --rdzv-endpoint sets them.",
        ) from error
    try:
        yield
    finally:
        distributed.destroy_process_group()


def share_of(batch: Sequence[int], world: World) -> list[int]:
    """This process's rows of a global batch: consecutive ones, so that rank 0 of 1 has all."""
    own = len(batch) // world.size
    return list(batch[world.rank * own : (world.rank + 1) * own])


def data_parallel(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """The module to call in training: its backward pass averages the gradients over all processes.

    Buffers are not broadcast: with SyncBN batch-norm statistics are the same everywhere; without it rank 0's are saved.
    """
    if world.is_alone:
        return model
    devices = [device.index] if device.type == "cuda" else None
    options: dict[str, Any] = {"device_ids": devices, _SYNC_BUFFERS: False}
    wrapped: nn.Module = DistributedDataParallel(model, **options)
    return wrapped


def sharing_gradients(module: nn.Module | None, *, wanted: bool) -> AbstractContextManager[None]:
    """While it is open, backward passes of `data_parallel`'s module average gradients over all processes, if `wanted`.

    Otherwise gradients add up in this process alone. The forward pass belongs inside the context as well.
    """
    if isinstance(module, DistributedDataParallel) and not wanted:
        return module.no_sync()
    return nullcontext()


def synchronize_norms(model: Network) -> None:
    """Let every batch norm see the batch of all processes, in place. Works on GPUs only.

    A network whose norms have a class of their own (ResNets) stays as it is, because PyTorch's conversion would replace
    that class: its norms see this process's share of the batch.
    """
    if all(type(norm) is nn.BatchNorm2d for norm in model.norms()):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]


def sum_over(world: World, *tensors: Tensor) -> None:
    """Add tensors up over all processes, in place."""
    if not world.is_alone:
        for tensor in tensors:
            distributed.all_reduce(tensor)


def gather(world: World, value: Any) -> list[Any]:
    """The values of all processes, in the order of ranks."""
    if world.is_alone:
        return [value]
    values: list[Any] = [None] * world.size
    distributed.all_gather_object(values, value)
    return values


def agreed(world: World, due: bool, wish: int | None, device: torch.device) -> tuple[bool, int | None]:
    """Whether something is due, as rank 0 says, and any process's wish (a signal's number): the same everywhere."""
    if world.is_alone:
        return due, wish
    said = torch.tensor([int(due and world.is_first), wish or 0], device=device)
    distributed.all_reduce(said, op=distributed.ReduceOp.MAX)
    is_due, signal = said.tolist()
    return bool(is_due), signal or None


def wait_for_all(world: World) -> None:
    """Return when every process has called this."""
    if not world.is_alone:
        distributed.barrier()
