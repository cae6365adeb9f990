"""What `zoo serve` itself costs: one result of kind "hotpath".

    python benchmarks/hotpath.py b0.onnx -o benchmarks

The .onnx: `zoo export b0 --random-weights`. Five servers are started one after another; with the defaults it takes
four minutes. Client and servers share the processor's cores, so run nothing beside it; `--only NAME` measures a part.

* Around a network that takes no time (`hotpath_server.py`): requests a second of binary tensors over HTTP and gRPC.
* Around one that sleeps 0.6 ms and 0.04 ms a picture, as a GPU might take: JPEGs of 50 KB, prepared both ways; and one
  client with a JPEG of 12 megapixels, beside decoding and resizing it by Pillow here.
* Around the .onnx: full batches of binary tensors, beside ONNX Runtime called here by as many sessions of as many
  threads; and one picture of one client, beside `session.run`. Both in turns.
* What a server without clients spends.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image
from servers import running

from serve.bench.measure.hotpath import BesideRow, HotpathData, ShareRow, hotpath_result
from serve.bench.measure.load import Target, post
from serve.bench.measure.pump import GrpcPump, HttpPump, PumpRow, cpu_s, pump
from serve.bench.report.report import keep_result
from serve.rpc.schema import message_class
from zoo.data.preprocess import load_batch
from zoo.machine import usable_processors
from zoo.model.spec import Preprocessing
from zoo.results import summarize

SERVER = Path(__file__).with_name("hotpath_server.py")
INFER = "/inference.GRPCInferenceService/ModelInfer"
# The network that takes no time has pictures of CIFAR's size and classes: 3 KB go in, 40 bytes come out.
SMALL_PX, SMALL_CLASSES = 32, 10
FIXED_MS, EACH_MS, SIZE_PX, CLASSES = 0.6, 0.04, 224, 1000
CLIENTS, BATCH, TURNS = 32, 8, 5


def jpeg(width: int, height: int, quality: int) -> bytes:
    """A picture with the spectrum of photographs, 1/f^1.25: 500 × 375 of it are 50 KB at quality 85."""
    random = np.random.default_rng(0)
    waves = np.fft.rfft2(random.standard_normal((height, width, 3)), axes=(0, 1))
    distance = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    distance[0, 0] = np.inf
    pixels = np.fft.irfft2(waves / distance[..., None] ** 1.25, (height, width), axes=(0, 1))
    buffer = io.BytesIO()
    levels = np.clip(pixels / pixels.std() * 40 + 128, 0, 255).astype(np.uint8)
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def tensor(model: str, pictures: NDArray[np.uint8]) -> bytes:
    """An HTTP request with a binary tensor, as Triton's clients send it."""
    raw = pictures.tobytes()
    given = {"name": "pictures", "shape": list(pictures.shape), "datatype": "UINT8"}
    asked = {"name": "logits", "parameters": {"binary_data": True}}
    text = json.dumps({"inputs": [given | {"parameters": {"binary_data_size": len(raw)}}], "outputs": [asked]}).encode()
    head = f"Host: bench\r\nInference-Header-Content-Length: {len(text)}\r\nContent-Length: {len(text) + len(raw)}"
    return f"POST /v2/models/{model}/infer HTTP/1.1\r\n{head}\r\n\r\n".encode() + text + raw


def message(model: str, pictures: NDArray[np.uint8]) -> bytes:
    """The same for gRPC."""
    asked = message_class("ModelInferRequest")(model_name=model)
    asked.inputs.add(name="pictures", datatype="UINT8", shape=pictures.shape)
    asked.raw_input_contents.append(pictures.tobytes())
    return bytes(asked.SerializeToString())


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def server(*command: str, port: int, request: bytes) -> Iterator[int]:
    """Start a server and wait until it answers `request`; yield its process."""
    with running([sys.executable, *command], Target(" ".join(command), "127.0.0.1", port, request)) as process:
        yield process.pid


def asleep(port: int, fixed_ms: float, each_ms: float, size_px: int, classes: int, *options: str) -> list[str]:
    """The command of a server around a network that only sleeps."""
    return [str(SERVER), *map(str, (port, fixed_ms, each_ms, size_px, classes)), *options]


def load(name: str, request: bytes, port: int, process: int, *, clients: int, duration_s: float) -> PumpRow:
    """`pump` by HTTP."""
    make = partial(HttpPump, request)
    return run(pump(name, make, port=port, clients=clients, duration_s=duration_s, server=process))


def run(work: Any) -> Any:
    """A coroutine's value, on the event loop that costs least."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(work)
    return uvloop.run(work)


def no_network(duration_s: float) -> Iterator[tuple[str, Any]]:
    """Loads of the server around no network, and what it spends without any."""
    port, grpc_port = free_port(), free_port()
    pictures = np.ones((1, SMALL_PX, SMALL_PX, 3), np.uint8)
    request = tensor("asleep", pictures)
    command = asleep(port, 0, 0, SMALL_PX, SMALL_CLASSES, "--grpc-port", str(grpc_port))
    with server(*command, port=port, request=request) as process:
        for clients in (1, CLIENTS):
            yield "load", load("no network, HTTP", request, port, process, clients=clients, duration_s=duration_s)
        make = partial(GrpcPump, INFER, message("asleep", pictures))
        for clients in (1, CLIENTS):
            work = pump(
                "no network, gRPC", make, port=grpc_port, clients=clients, duration_s=duration_s, server=process
            )
            yield "load", run(work)
        before_s = cpu_s(process)
        time.sleep(2 * duration_s)
        yield "idle", (cpu_s(process) - before_s) / (2 * duration_s)


def pictures(duration_s: float) -> Iterator[tuple[str, Any]]:
    """Loads of JPEGs around a network that sleeps, and a large JPEG beside Pillow."""
    small, large = jpeg(500, 375, 85), jpeg(4000, 3000, 85)
    request, one = (post("bench", "/predict", body, "image/jpeg") for body in (small, large))
    preprocessing = Preprocessing(image_size=SIZE_PX, interpolation="bicubic")
    for kind in ("quick", "exact"):
        port = free_port()
        command = asleep(port, FIXED_MS, EACH_MS, SIZE_PX, CLASSES, "--pictures", kind)
        with server(*command, port=port, request=request) as process:
            name = f"JPEGs of {len(small) / 1000:.0f} KB, {kind}"
            yield "load", load(name, request, port, process, clients=CLIENTS, duration_s=duration_s)
            if kind == "quick":
                alone = partial(p50_ms, one, port, process, duration_s)
                bare, served = turns(partial(timed, partial(load_batch, [large], preprocessing), duration_s), alone)
                name = "A JPEG of 4000 × 3000, beside Pillow in full"
                yield "beside", BesideRow(name=name, bare=summarize(bare), served=summarize(served))


def p50_ms(request: bytes, port: int, process: int, duration_s: float) -> float:
    """The middle one of a single client's times."""
    return load("one", request, port, process, clients=1, duration_s=duration_s).summary.p50_ms


def pictures_per_s(request: bytes, port: int, process: int, duration_s: float, clients: int) -> float:
    """Pictures a second, in full batches."""
    return BATCH * load("many", request, port, process, clients=clients, duration_s=duration_s).per_s


def network(model: Path, duration_s: float) -> Iterator[tuple[str, Any]]:
    """Full batches and single pictures of a real network, beside ONNX Runtime."""
    cores = usable_processors()
    for instances, threads, batch in ((cores, 1, BATCH), (1, cores, 1)):
        port = free_port()
        sessions = [open_session(model, threads) for _ in range(instances)]
        given = sessions[0].get_inputs()[0]
        random = np.random.default_rng(0)
        batch_of = random.integers(0, 256, (batch, *given.shape[1:]), np.uint8)
        request = tensor(model.stem, batch_of)
        layout = ["--instances", str(instances), "--threads", str(threads), "--max-batch-size", str(BATCH)]
        command = ["-m", "zoo", "serve", str(model), "--port", str(port), "--max-wait-ms", "2000", *layout]
        with server(*command, port=port, request=request) as process:
            if batch == 1:
                bare = partial(timed, partial(sessions[0].run, None, {given.name: batch_of}), duration_s)
                bare_ms, served_ms = turns(bare, partial(p50_ms, request, port, process, duration_s))
                name = f"{model.name}, one picture, {threads} threads"
                yield "beside", BesideRow(name=name, bare=summarize(bare_ms), served=summarize(served_ms))
            else:
                bare = partial(rate_of, sessions, {given.name: batch_of}, duration_s)
                served = partial(pictures_per_s, request, port, process, duration_s, 2 * instances)
                bare_per_s, served_per_s = turns(bare, served)
                name = f"{model.name}, batches of {batch} as bytes, {instances} × {threads} threads"
                yield "share", ShareRow(name=name, bare_per_s=tuple(bare_per_s), served_per_s=tuple(served_per_s))


def open_session(model: Path, threads: int) -> ort.InferenceSession:
    """A session as the server opens one."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def rate_of(sessions: list[ort.InferenceSession], given: dict[str, Any], duration_s: float) -> float:
    """Pictures a second of all sessions together, each in a thread of its own, in full batches."""
    counts, end_s = [0] * len(sessions), time.perf_counter() + duration_s

    def work(index: int) -> None:
        while time.perf_counter() < end_s:
            sessions[index].run(None, given)
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(sessions))]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return BATCH * sum(counts) / (time.perf_counter() - began_s)


def timed(call: Callable[[], Any], duration_s: float) -> float:
    """The median of a call's milliseconds."""
    call()
    took_ms, end_s = [], time.perf_counter() + duration_s
    while not took_ms or time.perf_counter() < end_s:
        began_s = time.perf_counter()
        call()
        took_ms.append(1000.0 * (time.perf_counter() - began_s))
    return float(np.median(took_ms))


def turns(bare: Callable[[], float], served: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Both, in turns."""
    pairs = [(bare(), served()) for _ in range(TURNS)]
    return [one for one, _ in pairs], [other for _, other in pairs]


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--only", multiple=True, type=click.Choice(["none", "pictures", "network"]), help="Repeatable.")
@click.option("--duration-s", default=5.0, help="Of each load.")
@click.option("-o", "--out", default=Path("benchmarks"), type=click.Path(path_type=Path))
def main(model: Path, only: tuple[str, ...], duration_s: float, out: Path) -> None:
    """Measure, and keep one result."""
    parts = {
        "none": lambda: no_network(duration_s),
        "pictures": lambda: pictures(duration_s),
        "network": lambda: network(model.resolve(), duration_s),
    }
    found: dict[str, list[Any]] = {"load": [], "beside": [], "share": [], "idle": []}
    for part in only or parts:
        for kind, row in parts[part]():
            found[kind].append(row)
            click.echo(f"{kind}: {row}", err=True)
    data = HotpathData(
        loads=tuple(found["load"]),
        beside=tuple(found["beside"]),
        shares=tuple(found["share"]),
        idle_cpu_share=found["idle"][0] if found["idle"] else None,
    )
    result = hotpath_result(data, f"zoo serve, {model.name}", duration_s=duration_s, turns=TURNS)
    keep_result(result, out, as_json=False)


if __name__ == "__main__":
    main()
