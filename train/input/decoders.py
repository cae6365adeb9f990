"""Owns the decoding processes: when they begin and end, and how a batch is asked of them; what it is made of is the
loader's.

A process that is forked shares its parent's memory, and each page that the parent then writes to is copied first: two
gigabytes of activations cost a second. So the processes of a run begin before its first step, and stay.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.synchronize import Semaphore
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from train.input.kept import pixels_kept
from train.input.loader import Batch, Item, Made, Prepared, collate
from train.processes.stopping import leave_signals_to_the_run, signals_held
from train.processes.workers import Workers, starting
from zoo.data.pictures import Pictures
from zoo.errors import ZooError
from zoo.model.spec import Preprocessing

# Decoding processes that do not wait for a server have ended by themselves within this time.
GRACE_S = 1.0
# Batches that a process makes before they are asked for.
AHEAD = 4
NO_PICTURES = Pictures("", (), [], np.empty(0, np.int64))


def load(dataset: Made, batches: Sequence[list[int]], *, workers: int, pin: bool) -> Generator[Batch, None, None]:
    """Yield `batches` of a data set in their order, by the processes that are kept for its pictures, or by new ones.

    When it is closed or fails before its end, new processes end within `GRACE_S`, whatever they wait for.

    Raises:
        DataError: the pictures' server does not answer as it should. WorkerError: the system ended a decoding process,
        or has no memory or files for it.
    """
    kept = next((each for each in _kept if each.knows(dataset)), None)
    if kept:
        yield from kept.load(dataset, batches)
        return
    own = _Processes(dataset, workers, pin, stay=False)
    with closing(own.workers), closing(own):
        yield from own.batches(batches)


def load_validation(
    pictures: Pictures,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int,
    pin: bool,
    chosen: Sequence[int] | None = None,
) -> Generator[Batch, None, None]:
    """Yield every picture once, preprocessed, in order; or the chosen ones."""
    order = list(range(len(pictures)) if chosen is None else chosen)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return load(Prepared(pictures, preprocessing), batches, workers=workers, pin=pin)


@contextmanager
def decoders_kept(pictures: Sequence[Pictures], *, workers: int, pin: bool) -> Iterator[None]:
    """Begin decoding processes now, which `load` uses for these pictures until the block ends; 0 workers are none.

    Until then pictures stay decoded as well, as `train.input.kept` has it; the first set is the one that is trained on.

    Raises:
        WorkerError: the system has no memory, processes or files for them.
    """
    with ExitStack() as stack:
        stack.enter_context(pixels_kept(pictures))  # before the processes: they are forked with it
        if workers:
            kept = stack.enter_context(closing(KeptDecoders(tuple(pictures), workers, pin)))
            _kept.append(kept)
            stack.callback(_kept.remove, kept)
        yield


class KeptDecoders:
    """Decoding processes that know some pictures, and make batches of any data set of them."""

    def __init__(self, pictures: tuple[Pictures, ...], workers: int, pin: bool) -> None:
        self.pictures = pictures
        self.processes = _Processes(_Asked(pictures), workers, pin, stay=True)
        self.passes = 0

    def knows(self, dataset: Made) -> bool:
        """Whether the data set is of the known pictures, and the processes are there and free."""
        return self.processes.free and any(each is dataset.pictures for each in self.pictures)

    def load(self, dataset: Made, batches: Sequence[list[int]]) -> Generator[Batch, None, None]:
        """As the function of that name."""
        number = next(place for place, each in enumerate(self.pictures) if each is dataset.pictures)
        view = replace(dataset, pictures=NO_PICTURES)
        self.passes += 1
        return self.processes.batches([_Ask(self.passes, number, view, batch) for batch in batches])

    def close(self) -> None:
        """End the processes; when it returns they are gone."""
        self.processes.close()
        self.processes.workers.close()


_kept: list[KeptDecoders] = []


class _Ask(NamedTuple):
    """A batch to be made: in which pass, of which known pictures, how (a data set without them), of which indices."""

    of_pass: int
    number: int
    view: Made
    indices: list[int]


@dataclass
class _Asked(Dataset[Item | str]):
    """Known pictures as a data set whose batches are made as each is asked for; `made` is the data set of a pass."""

    pictures: tuple[Pictures, ...]
    of_pass: int = field(default=0, init=False)
    made: Made | None = field(default=None, init=False)

    def __getitems__(self, ask: _Ask) -> list[Item | str] | ZooError:
        """The items of a batch; `DataLoader` calls it with what its sampler has."""
        if self.made is None or ask.of_pass != self.of_pass:
            self.of_pass, self.made = ask.of_pass, replace(ask.view, pictures=self.pictures[ask.number])
        return self.made.__getitems__(ask.indices)


class _Sampler:
    """The batches of the next pass; `DataLoader` sends each to a process as it is."""

    def __init__(self) -> None:
        self.batches: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Processes:
    """PyTorch's loader with its processes, or without; if they `stay`, they begin now, and make batches many times."""

    def __init__(self, dataset: Dataset[Item | str], workers: int, pin: bool, *, stay: bool) -> None:
        self.leave = multiprocessing.Semaphore(0)  # how many processes are to end
        self.sampler, self.workers, self.stay, self.busy = _Sampler(), Workers(), stay, False
        self.loader: DataLoader[Any] | None = DataLoader(
            dataset,
            batch_sampler=self.sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            prefetch_factor=AHEAD if workers else None,
            worker_init_fn=partial(_begin_worker, self.leave),
            persistent_workers=stay,
            generator=torch.Generator(),  # PyTorch's own one is the network's
        )
        if stay:
            self._begin()

    @property
    def free(self) -> bool:
        """Whether they are there, and make nothing."""
        return self.loader is not None and not self.busy

    def _begin(self) -> Iterator[Any]:
        assert self.loader is not None
        if self.workers.processes:  # they only hear of new batches
            return iter(self.loader)
        with signals_held(), starting(self.workers):
            return iter(self.loader)

    def batches(self, batches: Sequence[Any]) -> Generator[Batch, None, None]:
        """Make batches, in their order. Closed before its end, processes that stay finish what they have begun."""
        self.sampler.batches, self.busy = batches, True
        loaded: Iterator[Any] = iter(())
        ended = True
        try:
            with self._explained():
                loaded = self._begin()
            for _ in batches:
                with self._explained():
                    batch: Batch | ZooError = next(loaded)
                if isinstance(batch, ZooError):
                    raise batch
                yield batch
            ended = False
        except GeneratorExit:
            ended = not self.stay
            raise
        finally:
            self.busy = False
            if ended:
                self.close()
            loaded = iter(())  # PyTorch's iterator ends its processes with its last reference: not at a collection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what PyTorch says of a lost process into what it means."""
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:  # the last two: what a dead process was handing over
            found = self.workers.explain(error)
            if found is None:
                raise
            raise found from None

    def close(self) -> None:
        """End the processes, whatever they wait for."""
        for _ in self.workers.processes:
            self.leave.release()
        self.loader = None


def _begin_worker(leave: Semaphore, worker: int) -> None:
    """Prepare a decoding process; it ends `GRACE_S` after `leave` is released.

    A process that is not waiting for a server ends before that, as PyTorch asks it to, and not while it hands over a
    batch. PyTorch asks between two batches, and then by SIGTERM, which decoding processes ignore. Without `leave`
    PyTorch would wait as long as a process waits for its server, or forever where the loader is still referred to and
    nothing asks the process to end.
    """
    leave_signals_to_the_run(worker)
    sys.excepthook = _tell_of_errors

    def end() -> None:
        leave.acquire()
        time.sleep(GRACE_S)
        os._exit(0)  # any other status is an error to PyTorch

    threading.Thread(target=end, daemon=True).start()


def _tell_of_errors(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error that nobody caught in a decoding process, unless the run has left while a batch was handed over.

    multiprocessing's thread that hands batches over calls `sys.excepthook`, and a run that stops then hangs up on it.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
