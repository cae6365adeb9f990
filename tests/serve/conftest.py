"""Shared by the server's tests: a runner that can be held and made to fail, and a real server around it."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.contract import Contract
from serve.address import bind
from serve.core.batcher import Batcher
from serve.core.service import Limits, Service
from serve.core.slot import Engine, EngineInfo, Slot
from serve.server import DrainingServer, listener_config
from serve.web.app import create_app
from serve.web.listener import ConnectionLimits, Doors
from zoo.model.spec import Preprocessing

SIZE_PX = 8
CLASSES = tuple("abcdefghij")
PATIENCE_S = 60.0  # only ever waited for in full by a test that fails


@dataclass
class FakeRunner:
    """Classifies a picture by its first byte: class `byte % 10`, with logits that no other byte has.

    `hold` keeps batches inside `infer` until `release`; `entered` gets the bytes of each batch as it begins.
    A batch of zeros is a warm-up: it is noted apart, and held by `warm_gate` alone.
    """

    artifact: str = "folder/fake.onnx"
    backend: str = "fake 1.0"
    device: str = "CPU"
    temperature: float | None = None
    max_batch_size: int | None = None
    contract: Contract = field(
        default_factory=lambda: Contract(model="fake", classes=CLASSES, preprocessing=Preprocessing(image_size=SIZE_PX))
    )
    fails_on: frozenset[int] = frozenset()
    on_infer: Callable[[int], None] = lambda batch_size: None

    def __post_init__(self) -> None:
        self.gate, self.warm_gate = threading.Event(), threading.Event()
        self.release()
        self.warm_gate.set()
        self.entered: queue.Queue[list[int]] = queue.Queue()
        self.batches: list[list[int]] = []
        self.warmed: list[int] = []
        self.threads: set[int] = set()
        self.is_closed = False

    def hold(self) -> None:
        self.gate.clear()

    def release(self) -> None:
        self.gate.set()

    def infer(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert not self.is_closed
        self.threads.add(threading.get_ident())
        self.on_infer(len(pictures))
        if not pictures.any():
            assert self.warm_gate.wait(PATIENCE_S)
            self.warmed.append(len(pictures))
            return np.zeros((len(pictures), len(CLASSES)), np.float32)
        seen = [int(picture[0, 0, 0]) for picture in pictures]
        self.batches.append(seen)
        self.entered.put(seen)
        assert self.gate.wait(PATIENCE_S)
        if self.fails_on.intersection(seen):
            raise RuntimeError("the fake engine broke")
        return np.stack([self.logits_of(byte) for byte in seen])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_closed = True

    @staticmethod
    def logits_of(byte: int) -> NDArray[np.float32]:
        """What the fake says of a picture that begins with `byte`."""
        logits = np.linspace(0.0, 1.0, len(CLASSES), dtype=np.float32)
        logits[byte % len(CLASSES)] = 3.0 + byte / 64.0
        return logits

    @staticmethod
    def png(byte: int) -> bytes:
        """A picture whose every byte is `byte`, also after the resize."""
        buffer = io.BytesIO()
        Image.new("RGB", (5, 7), (byte, byte, byte)).save(buffer, "PNG")
        return buffer.getvalue()


@pytest.fixture(scope="session")
def fake() -> Any:
    """The class itself: tests cannot import this file."""
    return FakeRunner


@dataclass
class Running:
    """A server in a thread, and how to talk to it."""

    runner: FakeRunner
    batcher: Batcher
    service: Service
    server: DrainingServer
    doors: Doors
    thread: threading.Thread
    port: int
    client: httpx.Client

    def post(self, body: bytes, **options: Any) -> httpx.Response:
        return self.client.post("/predict", content=body, **options)

    def post_later(self, body: bytes) -> queue.Queue[httpx.Response]:
        """Post from a thread of its own; the queue gets the answer."""
        answers: queue.Queue[httpx.Response] = queue.Queue()
        threading.Thread(target=lambda: answers.put(self.post(body)), daemon=True).start()
        return answers

    def metric(self, line: str) -> float:
        """The value of one series of /metrics, 0 where it does not exist yet."""
        text = self.client.get("/metrics").text
        return next((float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.rsplit(" ", 1)[0] == line), 0.0)

    def begin_stop(self) -> None:
        """What the first signal does."""
        self.service.stop_accepting()
        self.server.should_exit = True

    def stop(self) -> None:
        self.runner.release()
        self.runner.warm_gate.set()
        self.begin_stop()
        self.client.close()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        self.batcher.close()


def start(
    runner: FakeRunner | None = None,
    *spares: FakeRunner,
    connections: ConnectionLimits | None = None,
    max_wait_s: float | None = None,
    stuck_after_s: float | None = None,
    queue_capacity: int = 64,
    max_batch_size: int = 8,
    timeout_s: float = PATIENCE_S,
    max_body_bytes: int = 1_000_000,
    max_in_flight: int = 1000,
    drain_s: float = PATIENCE_S,
    wait_until_warm: bool = True,
) -> Running:
    """Start a server of a fake on a free port; `spares` take its place when it is ill."""
    runner = runner or FakeRunner()
    left = list(spares)
    batcher = Batcher(
        [runner],
        queue_capacity=queue_capacity,
        max_batch_size=max_batch_size,
        stuck_after_s=stuck_after_s,
        reopen=lambda: left.pop(0) if left else FakeRunner(),
    )
    limits = Limits(
        max_body_bytes=max_body_bytes,
        timeout_s=timeout_s,
        max_in_flight=max_in_flight,
        decode_threads=2,
        drain_s=drain_s,
        max_wait_s=max_wait_s,
    )
    info = EngineInfo(artifact="fake.onnx", backend=runner.backend, device=runner.device, precision="fp32")
    slot = Slot(Engine(batcher=batcher, contract=runner.contract, info=info))
    app = create_app(slot, limits)
    listener = bind("127.0.0.1", 0)
    doors = Doors(connections or ConnectionLimits(max_connections=1000, body_timeout_s=timeout_s))
    service: Service = app.state.service

    def on_leave(delay_s: float) -> None:
        service.leave()
        doors.is_leaving = True

    server = DrainingServer(
        listener_config(app, doors, limits),
        on_leave=on_leave,
        on_drain=service.stop_accepting,
        on_give_up=service.give_up,
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    port = listener.getsockname()[1]
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False)
    running = Running(runner, batcher, service, server, doors, thread, port, client)
    thread.start()
    if wait_until_warm:
        batcher.warmed.result(PATIENCE_S)
    return running


@pytest.fixture
def start_server() -> Iterator[Callable[..., Running]]:
    """`start` for a test that needs a server of its own; it is stopped after the test."""
    started: list[Running] = []

    def start_and_note(*arguments: Any, **options: Any) -> Running:
        started.append(start(*arguments, **options))
        return started[-1]

    yield start_and_note
    for running in started:
        running.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server for the tests that leave nothing behind but counts."""
    running = start()
    yield running
    running.stop()
