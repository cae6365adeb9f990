"""Owns the model at work, so that another one takes its place by one assignment; it opens none and speaks no HTTP."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from export.contract import Contract
from export.interface import Tensor, input_of, outputs_of
from serve.core.batcher import Batcher, Observer
from zoo.rows import Row, Text


@dataclass(frozen=True, kw_only=True)
class EngineInfo(Row):
    """What people are told of an engine: never a path, because clients see it.

    `precision` is None where no passport tells it. `random_weights`: for latency work, so no answer means anything.
    """

    artifact: Text
    backend: Text
    device: Text
    precision: str | None = None
    random_weights: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """An artifact at work: its runners behind their queue, what it promises, and what people are told of it.

    `runners` frees what the batcher's threads use.
    """

    batcher: Batcher
    contract: Contract
    info: EngineInfo
    runners: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def taken(self) -> Tensor:
        """Its input."""
        return input_of(self.contract)

    @cached_property
    def answered(self) -> tuple[Tensor, ...]:
        """Its outputs, that of all classes first."""
        return outputs_of(self.contract)

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """NumPy's type of each output, in the same order."""
        return {tensor.name: tensor.dtype for tensor in self.answered}

    def close(self, timeout_s: float | None = None) -> bool:
        """Stop the threads, then free the runners; False where a thread is stuck inside a runner.

        Nothing is freed then: a runner that is freed while it computes crashes the process.
        """
        stopped = self.batcher.close(timeout_s)
        if stopped:
            self.runners.close()
        return stopped


class Slot:
    """The engine at work. Thread-safe.

    A request takes the engine once, with `use`, and keeps it until its answer: the picture is resized for the engine
    that classifies it, and its classes name the answer.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._users: Counter[Engine] = Counter()
        self._lock = threading.Lock()
        self._unused = threading.Condition(self._lock)
        self._observers: list[Observer] = []

    def observe(self, observer: Observer) -> None:
        """`Batcher.observe` of the engine at work, and of every one after it."""
        self._observers.append(observer)
        self.engine.batcher.observe(observer)

    @contextmanager
    def use(self) -> Iterator[Engine]:
        """Hold the engine at work: it is not closed before the block ends, whatever takes its place."""
        engine = self.take()
        try:
            yield engine
        finally:
            self.leave(engine)

    def take(self) -> Engine:
        """Begin to `use`; `leave` ends it."""
        with self._lock:
            self._users[self.engine] += 1
            return self.engine

    def leave(self, engine: Engine) -> None:
        """Let it go."""
        with self._lock:
            self._users[engine] -= 1
            if not self._users[engine]:
                self._unused.notify_all()

    def swap(self, engine: Engine) -> None:
        """Put a warm engine to work; close the one before it after its last answer. Blocks until then.

        Raises:
            ValueError: the engine is not warm; the old one stays at work.
        """
        if engine is self.engine:
            return
        if not engine.batcher.ready:
            raise ValueError(f"{engine.info.artifact} is not warm: start its batcher and wait for `warmed` first")
        for observer in self._observers:
            engine.batcher.observe(observer)
        with self._lock:
            old, self.engine = self.engine, engine
        self.retire(old)

    def retire(self, engine: Engine) -> None:
        """Close an engine that gets no new requests after its last answer. Blocks until then."""
        with self._unused:
            self._unused.wait_for(lambda: not self._users[engine])
            del self._users[engine]
        engine.batcher.drain()
        engine.close()
