"""The real thing: `zoo serve` as a process, a real network in a real .onnx, real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from export.passport import FileCard, passport_path, read_passport, write_passport
from zoo.data.open import open_val
from zoo.machine import cuda_driver

PATIENCE_S = 120.0
Launch = Callable[..., "Process"]


class Process:
    """A `zoo serve` process whose stderr is read line by line. `before` is what it does first."""

    before = ""

    def __init__(self, *arguments: str | Path) -> None:
        command = [sys.executable, "-c", f"{self.before}from zoo.cli import main; main()", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.lines: list[str] = []
        self.killer = threading.Timer(PATIENCE_S, self.process.kill)  # so that a hung server fails the test
        self.killer.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read stderr up to the line that matches."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no {pattern!r} in: {''.join(self.lines)}")

    def wait_until_ready(self) -> str:
        """Wait for the banner's last line; return the URL it told."""
        url = self.wait_for(r"page +(http://127\.0\.0\.1:\d+)/")[1]
        self.wait_for("Ctrl-C")
        return url

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, all of stdout and all of stderr."""
        out, err = self.process.communicate()
        self.killer.cancel()
        return self.process.returncode, out, "".join(self.lines) + err


@pytest.fixture
def launch() -> Iterator[Launch]:
    launched: list[Process] = []

    def launch(*arguments: str | Path, before: str = "") -> Process:
        launched.append(type("Prepared", (Process,), {"before": before})(*arguments))
        return launched[-1]

    yield launch
    for one in launched:
        one.process.kill()
        one.finish()


@pytest.fixture(scope="module")
def onnx(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real .onnx with its passport."""
    from export.options import ExportOptions
    from export.pipeline import export_model

    folder = tmp_path_factory.mktemp("served")
    return export_model(ExportOptions(model=str(tiny_run / "checkpoint.safetensors"), out=folder)).onnx


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A handwritten digit as PNG."""
    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    open_val("digits").open(0).save(path)
    return path


def test_a_served_onnx_answers_as_predict_does(
    onnx: Path, digit: Path, launch: Launch, zoo: Callable[..., Any], tmp_path: Path
) -> None:
    photograph = tmp_path / "photograph.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8)
    Image.fromarray(pixels).resize((370, 510)).save(photograph, quality=85)
    expected = [
        json.loads(line) for line in zoo("predict", onnx, digit, photograph, "--json", "--top", "3").out.splitlines()
    ]
    process = launch("--engine", onnx, "--max-batch-size", "2")
    url = process.wait_until_ready()
    for picture, one in zip((digit, photograph), expected, strict=True):
        answer = httpx.post(f"{url}/predict?top=3", content=picture.read_bytes(), trust_env=False).json()
        assert [row["class"] for row in answer["predictions"]] == [row["class"] for row in one["predictions"]]
        # One picture at a time here and two there: the last digits of float32 sums may differ.
        scores = [row["score"] for row in answer["predictions"]]
        assert scores == pytest.approx([row["score"] for row in one["predictions"]], abs=1e-5)
    info = httpx.get(f"{url}/info", trust_env=False).json()
    assert (info["model"], info["artifact"], info["precision"]) == ("tiny", onnx.name, "fp32")
    assert str(onnx.parent) not in json.dumps(info)
    process.process.send_signal(signal.SIGINT)
    code, out, err = process.finish()
    assert (code, out) == (0, "")
    assert err.startswith(f"Loading {onnx} …\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_loses_no_request_under_way(onnx: Path, digit: Path, launch: Launch, number: signal.Signals) -> None:
    process = launch("--engine", onnx, "--shutdown-delay-s", "0")
    port = int(process.wait_until_ready().rpartition(":")[2])
    body = digit.read_bytes()
    clients = [open_request(port, len(body)) for _ in range(6)]
    process.process.send_signal(number)
    process.wait_for("Draining 6 requests")
    for client in clients:
        client.sendall(body)
    answers = [client.makefile("rb").read() for client in clients]
    for client in clients:
        client.close()
    assert process.finish()[:2] == (0, "")
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"]) == 5


def test_a_second_signal_stops_at_once(onnx: Path, launch: Launch) -> None:
    process = launch("--engine", onnx)
    client = open_request(int(process.wait_until_ready().rpartition(":")[2]), 1000)
    process.process.send_signal(signal.SIGINT)
    process.wait_for("Draining 1 request,")
    process.process.send_signal(signal.SIGINT)
    code, out, err = process.finish()
    client.close()
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_an_unanswered_request_at_the_drain_limit_is_an_error(onnx: Path, launch: Launch) -> None:
    process = launch("--engine", onnx, "--drain-seconds", "0.1")
    client = open_request(int(process.wait_until_ready().rpartition(":")[2]), 1000)
    process.process.send_signal(signal.SIGINT)
    answer = client.makefile("rb").read()
    client.close()
    code, out, err = process.finish()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert (code, out) == (1, "")
    assert "1 request still unanswered after 0.1 s" in err
    assert "Traceback" not in err


def test_grpc_is_served_beside_http_and_ends_with_it(onnx: Path, digit: Path, launch: Launch) -> None:
    grpc = pytest.importorskip("grpc", reason="pip install 'zoo[grpc]'")
    from serve.rpc.schema import message_class

    process = launch("--engine", onnx, "--grpc-port", "0")
    port = process.wait_for(r"gRPC is at 127\.0\.0\.1:(\d+)\.")[1]
    process.wait_until_ready()
    request = message_class("ModelInferRequest")(model_name="tiny")
    tensor = request.inputs.add(name="pictures", shape=[1], datatype="BYTES")
    tensor.contents.bytes_contents.append(digit.read_bytes())
    request.outputs.add(name="logits").parameters["classification"].int64_param = 1
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=message_class("ModelInferRequest").SerializeToString,
            response_deserializer=message_class("ModelInferResponse").FromString,
        )
        answer = call(request, timeout=PATIENCE_S)
    assert re.fullmatch(rb"..\0\0-?[\d.]+:(\d):\1", answer.raw_output_contents[0], re.DOTALL)
    process.process.send_signal(signal.SIGTERM)
    assert process.finish()[:2] == (0, "")


def test_a_folder_of_models_is_served_and_a_version_swapped(
    onnx: Path, digit: Path, launch: Launch, tmp_path: Path
) -> None:
    def add_version(version: str) -> None:
        (tmp_path / "digits" / version).mkdir(parents=True)
        copy(onnx, tmp_path / "digits" / version / "model.onnx")
        copy(passport_path(onnx), tmp_path / "digits" / version / "model.json")

    def ask() -> Any:
        headers = {"Content-Type": "image/png"}
        return httpx.post(
            f"{url}/v2/models/digits/infer", content=digit.read_bytes(), headers=headers, trust_env=False
        ).json()

    add_version("1")
    process = launch("--models", tmp_path, "--model-control")
    process.wait_for(r"Models: digits \(1\)\.")
    url = process.wait_until_ready()
    first = ask()
    add_version("2")
    assert httpx.post(f"{url}/v2/repository/models/digits/load", trust_env=False, timeout=PATIENCE_S).status_code == 200
    second = ask()
    assert (first["model_version"], second["model_version"]) == ("1", "2")
    assert first["outputs"] == second["outputs"]
    process.process.send_signal(signal.SIGTERM)
    assert process.finish()[:2] == (0, "")


def test_nothing_to_serve_is_a_wrong_call(launch: Launch, tmp_path: Path) -> None:
    code, _, err = launch().finish()
    assert code == 2 and "ARTIFACT" in err and "--models" in err
    code, _, err = launch("--models", tmp_path, "s.onnx").finish()
    assert code == 2 and "no effect" in err


def test_a_taken_grpc_port_is_told(onnx: Path, launch: Launch) -> None:
    pytest.importorskip("grpc", reason="pip install 'zoo[grpc]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = launch("--engine", onnx, "--grpc-port", str(taken.getsockname()[1])).finish()
    assert code == 1
    assert "Cannot listen on" in err and "--grpc-port" in err
    assert "Traceback" not in err


def test_after_sigterm_it_is_not_ready_and_still_takes_requests(onnx: Path, digit: Path, launch: Launch) -> None:
    process = launch("--engine", onnx, "--shutdown-delay-s", "1.5")
    url = process.wait_until_ready()
    process.process.send_signal(signal.SIGTERM)
    process.wait_for("Not ready any more; stopping in 1.5 s")
    statuses, ready = Counter[int](), Counter[int]()
    while True:  # each time by a new connection, as clients do that have not heard of it
        try:
            statuses[httpx.post(f"{url}/predict", content=digit.read_bytes(), trust_env=False).status_code] += 1
            ready[httpx.get(f"{url}/readyz", trust_env=False).status_code] += 1
        except httpx.ConnectError:
            break
    assert process.finish()[:2] == (0, "")
    assert set(statuses) == {200} and set(ready) == {503}


def test_a_second_signal_ends_the_delay(onnx: Path, launch: Launch) -> None:
    process = launch("--engine", onnx, "--shutdown-delay-s", "100")
    process.wait_until_ready()
    process.process.send_signal(signal.SIGTERM)
    process.wait_for("Not ready any more")
    process.process.send_signal(signal.SIGTERM)
    assert process.finish()[:2] == (130, "")


def test_a_server_whose_engine_hangs_ends_within_the_drain_limit(onnx: Path, digit: Path, launch: Launch) -> None:
    hang = "import onnxruntime, time; run = onnxruntime.InferenceSession.run\n"
    hang += "def slow(self, names, taken):\n"
    hang += "    return run(self, names, taken) if not next(iter(taken.values())).any() else time.sleep(1000)\n"
    hang += "onnxruntime.InferenceSession.run = slow\n"
    process = launch("--engine", onnx, "--drain-seconds", "0.5", "--shutdown-delay-s", "0", before=hang)
    url = process.wait_until_ready()
    client = open_request(int(url.rpartition(":")[2]), len(digit.read_bytes()))
    client.sendall(digit.read_bytes())
    while httpx.get(f"{url}/metrics", trust_env=False).text.count("zoo_in_flight 1.0") == 0:
        pass
    process.process.send_signal(signal.SIGTERM)
    answer = client.makefile("rb").read()
    client.close()
    code, out, err = process.finish()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert (code, out) == (1, "")
    assert "1 request still unanswered after 0.5 s" in err


def worker_of(process: Process) -> int:
    """The process that serves; the one that was launched watches it."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.process.pid)], capture_output=True, text=True)
    (worker,) = found.stdout.split()
    return int(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's ps for the worker")
def test_a_killed_server_is_started_again_on_its_port(onnx: Path, digit: Path, launch: Launch) -> None:
    process = launch("--engine", onnx, "--supervised", "--shutdown-delay-s", "0")
    url, body = process.wait_until_ready(), digit.read_bytes()
    first = httpx.post(f"{url}/predict", content=body, trust_env=False)
    killed = worker_of(process)
    os.kill(killed, signal.SIGKILL)
    process.wait_for("was ended by SIGKILL; it is started again")
    meanwhile = httpx.get(f"{url}/readyz", trust_env=False, timeout=PATIENCE_S)
    assert (meanwhile.status_code, meanwhile.headers["retry-after"]) == (503, "1")
    assert meanwhile.json()["error"] == "The server is starting."
    assert process.wait_until_ready() == url
    assert worker_of(process) != killed
    again = httpx.post(f"{url}/predict", content=body, trust_env=False)
    assert again.json()["predictions"] == first.json()["predictions"]
    process.process.send_signal(signal.SIGTERM)
    assert process.finish()[:2] == (0, "")


def test_a_supervisor_passes_signals_on_and_a_second_ends_at_once(onnx: Path, launch: Launch) -> None:
    process = launch("--engine", onnx, "--supervised", "--shutdown-delay-s", "100")
    process.wait_until_ready()
    process.process.send_signal(signal.SIGTERM)
    process.wait_for("Not ready any more")
    process.process.send_signal(signal.SIGTERM)
    assert process.finish()[:2] == (130, "")


def test_a_server_ends_with_its_supervisor(onnx: Path, launch: Launch) -> None:
    process = launch("--engine", onnx, "--supervised", "--shutdown-delay-s", "0")
    url = process.wait_until_ready()
    process.process.kill()
    process.wait_for("Draining 0 requests")
    while True:
        try:
            httpx.get(f"{url}/readyz", trust_env=False)
        except httpx.TransportError:
            break
    assert process.finish()[0] == -signal.SIGKILL


def test_what_cannot_be_opened_is_not_tried_again(launch: Launch, tmp_path: Path) -> None:
    code, _, err = launch("--engine", tmp_path / "missing.onnx", "--supervised").finish()
    assert code == 1 and err.count("Error:") == 1 and "started again" not in err


@pytest.mark.skipif(cuda_driver() is not None, reason="this machine has a GPU, so the plan would be tried")
def test_a_plan_without_a_gpu_names_the_onnx_beside_it(onnx: Path, launch: Launch, tmp_path: Path) -> None:
    plan = tmp_path / "tiny.plan"
    plan.write_bytes(b"an engine")
    passport = read_passport(onnx)
    write_passport(
        passport_path(plan), replace(passport, files=replace(passport.files, plan=FileCard.of(plan, "fp16")))
    )
    copy(onnx, tmp_path)
    code, out, err = launch("--engine", plan).finish()
    assert (code, out) == (1, "")
    assert "GPU" in err and str(plan.with_suffix(".onnx")) in err
    assert "Traceback" not in err


def open_request(port: int, length: int) -> socket.socket:
    """Send a request up to its body, and see that the server reads it."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    client.sendall(head.encode())
    assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
    return client
