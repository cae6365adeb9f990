"""Owns the pictures that wait: by priority, then in the order they came; a bounded number, none of them searched for.

Every operation takes the same time however many wait, so a full queue refuses as fast as an empty one accepts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.contract import Contract
from export.interface import scores_of
from export.predict import Prediction, answer_of, named

Taken = NDArray[np.uint8] | NDArray[np.float32]
"""A picture as the artifact takes it: (S, S, C) uint8, or (C, S, S) planes that are normalised."""
# Triton's words: 1 is the first to be taken, and what names none is in the middle.
FIRST_PRIORITY, DEFAULT_PRIORITY, LAST_PRIORITY = 1, 5, 9


class Batch:
    """All answers of one inference, (N, K) float32 as `Runner.infer` gives them; what they say is found at once.

    NumPy gives up the interpreter's lock for a thousand numbers, and the thread that answers clients waits each time
    until it gets it again: for each picture that would be ten times.
    """

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self.logits = logits
        self._named: list[tuple[Prediction, ...]] | None = None

    def named(self, row: int, contract: Contract, top: int | None) -> tuple[Prediction, ...]:
        """As `export.predict.answer_of` one of them."""
        if top is not None:
            return answer_of(self.logits[row], contract, top)
        if self._named is None:
            with np.errstate(invalid="ignore", over="ignore"):  # others of the batch may not be finite
                self._named = named(scores_of(self.logits, contract), contract)
        return self._named[row]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One picture's place among the answers of its batch, and where its time went.

    The size of the batch is 0 where the answer was kept, and not computed now.
    """

    batch: Batch
    row: int
    queue_ms: float
    compute_ms: float
    batch_size: int

    @property
    def was_kept(self) -> bool:
        """Whether it is of an earlier request."""
        return self.batch_size == 0

    @property
    def logits(self) -> NDArray[np.float32]:
        """Its logits or probabilities, (K,) float32."""
        row: NDArray[np.float32] = self.batch.logits[self.row]
        return row

    def named(self, contract: Contract, top: int | None = None) -> tuple[Prediction, ...]:
        """What it says, by the runner's contract: its classes, best first."""
        return self.batch.named(self.row, contract, top)


@dataclass(frozen=True, kw_only=True, slots=True, weakref_slot=True, eq=False)
class Waiting:
    """A picture in the queue; times are on the batcher's clock."""

    picture: Taken
    future: Future[Answer]
    queued_s: float
    deadline_s: float | None
    priority: int

    def is_late(self, now_s: float) -> bool:
        """Whether its answer would come too late."""
        return self.deadline_s is not None and self.deadline_s <= now_s


class PictureQueue:
    """At most `capacity` pictures. Not thread-safe: the batcher's lock is around every call."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._levels: dict[int, OrderedDict[Waiting, None]] = {
            priority: OrderedDict() for priority in range(FIRST_PRIORITY, LAST_PRIORITY + 1)
        }
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether one more would be too many."""
        return self._count >= self.capacity

    @property
    def oldest_s(self) -> float:
        """When the picture that waits longest came; there must be one."""
        return min(waiting.queued_s for waiting in self._heads())

    def add(self, waiting: Waiting) -> None:
        """Put one more in its place."""
        self._levels[waiting.priority][waiting] = None
        self._count += 1

    def discard(self, waiting: Waiting) -> bool:
        """Take one out, wherever it stands; False when it was gone already."""
        level = self._levels[waiting.priority]
        if waiting not in level:
            return False
        del level[waiting]
        self._count -= 1
        return True

    def take(self, most: int) -> list[Waiting]:
        """Take out the next ones, `most` at most."""
        taken: list[Waiting] = []
        for level in self._levels.values():
            while level and len(taken) < most:
                taken.append(level.popitem(last=False)[0])
        self._count -= len(taken)
        return taken

    def take_late(self, now_s: float) -> list[Waiting]:
        """Take out those at the head of each priority whose time is up."""
        late: list[Waiting] = []
        for level in self._levels.values():
            while level and (first := next(iter(level))).is_late(now_s):
                late.append(first)
                self.discard(first)
        return late

    def _heads(self) -> Iterator[Waiting]:
        return (next(iter(level)) for level in self._levels.values() if level)
