"""`zoo serve` beside other servers of the same .onnx, each alone on the machine, in turn: one result of kind "serve".

    python benchmarks/servers.py b0.onnx --peer-python PEERS/bin/python -o benchmarks

The .onnx: `zoo export b0 --random-weights`. The peers' Python has litserve, starlette, uvicorn, onnxruntime and Pillow;
without it only ours are measured. BentoML and Ray Serve ask for releases that others do not bear beside them, so they
have a Python each: `--bento-python` with bentoml, `--ray-python` with ray[serve], both with onnxruntime and Pillow.
Each server takes ten loads of `--duration-s`: with 10 s, ten servers take about twenty minutes. What decoding and
inference reach without a server stands beside them (`no_server.py`). Everything on the machine is in the figures: run
nothing beside it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import gettempdir

import click
from no_server import ceiling

from serve.bench.measure.load import LoadRow, Target, post
from serve.bench.measure.serving import NO_SERVER, describe, measure_server, read_picture, serve_result
from serve.bench.options import ServeBenchOptions
from serve.bench.report.report import keep_result
from zoo.errors import ZooError
from zoo.machine import usable_processors

PEERS = Path(__file__).with_name("serving_peers")
START_S = 300.0
# As the form of a browser has it: these read pictures out of forms.
FORMS = ("LitServe", "BentoML")
FORM = b'--zoo\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'


def commands(
    model: Path, port: int, peer_python: str | None, bento_python: str | None, ray_python: str | None
) -> dict[str, list[str]]:
    """Every server with the command that starts it; the layouts are those that suit a processor."""
    cores = str(usable_processors())
    ours = [sys.executable, "-m", "zoo", "serve", str(model), "--port", str(port), "--max-wait-ms", "60"]
    layout = ["--instances", cores, "--threads", "1"]
    found = {
        "zoo": [*ours, *layout],
        "zoo, one instance": [*ours, "--threads", cores],
        "zoo, quick pictures": [*ours, *layout, "--pictures", "quick"],
    }
    if peer_python is not None:
        lit = [peer_python, str(PEERS / "litserve_server.py"), str(model), str(port)]
        found["LitServe, batches of 8"] = [*lit, "8", "1"]
        found["LitServe, a worker a core"] = [*lit, "1", cores]
        found["Starlette, threads"] = [peer_python, str(PEERS / "starlette_server.py"), str(model), str(port), "1"]
    if bento_python is not None:
        bento = [bento_python, str(PEERS / "bentoml_server.py"), str(model), str(port)]
        found["BentoML"] = [*bento, "1"]
        found["BentoML, a worker a core"] = [*bento, cores]
    if ray_python is not None:
        ray = [ray_python, str(PEERS / "ray_server.py"), str(model), str(port)]
        found["Ray Serve, batches of 8"] = [*ray, "8", "1"]
        found["Ray Serve, a replica a core"] = [*ray, "8", cores]
    return found


@contextmanager
def running(command: list[str], target: Target) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait for its first answer, yield its process, and stop it."""
    # LitServe leaves a file where it is started.
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=gettempdir()
    )
    try:
        end_s = time.monotonic() + START_S
        while not is_answered(target):
            if process.poll() is not None or time.monotonic() > end_s:
                raise ZooError(f"{target.name} does not start.", f"Try it: {' '.join(command)}")
            time.sleep(0.2)
        yield process
    finally:
        stop(process)


def is_answered(target: Target) -> bool:
    """Whether one request gets a 200."""
    try:
        with socket.create_connection((target.host, target.port), 5.0) as client:
            client.sendall(target.request)
            return client.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it started: the processes of its own session."""
    import os
    import signal

    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(15.0)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--peer-python", help="A Python that has the peers.")
@click.option("--bento-python", help="A Python that has BentoML.")
@click.option("--ray-python", help="A Python that has Ray Serve.")
@click.option("--only", multiple=True, help="Names of servers that begin so; repeatable.")
@click.option("--clients", multiple=True, type=int)
@click.option("--overload", multiple=True, type=float)
@click.option("--duration-s", default=10.0)
@click.option("-o", "--out", default=Path("benchmarks"), type=click.Path(path_type=Path))
def main(
    model: Path,
    peer_python: str | None,
    bento_python: str | None,
    ray_python: str | None,
    only: tuple[str, ...],
    clients: tuple[int, ...],
    overload: tuple[float, ...],
    duration_s: float,
    out: Path,
) -> None:
    """Measure all and keep one result."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ServeBenchOptions(servers=("x",), clients=clients, overload=overload, duration_s=duration_s, out=out)
    body, picture = read_picture(None)
    say = partial(click.echo, err=True)
    rows: list[LoadRow] = []
    for name, command in commands(model.resolve(), port, peer_python, bento_python, ray_python).items():
        if only and not name.startswith(only):
            continue
        raw = Target(name, "127.0.0.1", port, post("127.0.0.1", "/predict", body, "image/jpeg"))
        form = post("127.0.0.1", "/predict", FORM + body + b"\r\n--zoo--\r\n", "multipart/form-data; boundary=zoo")
        target = replace(raw, request=form) if name.startswith(FORMS) else raw
        try:
            with running(command, target):
                rows += measure_server(target, options, say=say)
        except ZooError as error:  # what the others took minutes for is not lost with one
            say(f"{name} is left out: {error}")
    for served, name in NO_SERVER.items():
        if served in {row.server for row in rows}:
            pictures = "quick" if "quick" in served else "exact"
            rows.append(ceiling(name, model, body, pictures, duration_s=duration_s))
            say(describe(rows[-1]))
    result = serve_result(rows, options, picture=picture, picture_bytes=len(body), versions=[model.name])
    keep_result(result, out, as_json=False)


if __name__ == "__main__":
    main()
