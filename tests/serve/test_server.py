from __future__ import annotations

import errno
import inspect
import json
import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import serve.core.failures
from export.backends import find_backend
from serve.address import bind
from serve.cli import serve as serve_command
from serve.core.batcher import Batcher
from serve.core.failures import FAILURES, UnavailableError, find_failure
from serve.core.slot import Engine, EngineInfo
from serve.engine import choose_max_batch_size, describe_engine
from serve.options import ServeOptions
from serve.server import describe_server
from zoo.errors import ArtifactError, RequestError, RowError, ZooError
from zoo.files import sha256_of
from zoo.model.spec import Preprocessing

PATIENCE_S = 60.0
Start = Callable[..., Any]


# --- the drain -----


def test_a_stop_loses_no_request_under_way(start_server: Start, fake: Any) -> None:
    running = start_server(max_batch_size=4)
    running.runner.hold()
    first = running.post_later(fake.png(1))
    running.runner.entered.get(timeout=PATIENCE_S)
    half_sent = [half_send(running.port, fake.png(byte)) for byte in range(2, 8)]
    running.begin_stop()
    running.runner.release()
    assert first.get(timeout=PATIENCE_S).status_code == 200
    replies = [finish() for finish in half_sent]
    running.thread.join(PATIENCE_S)
    assert not running.thread.is_alive()
    assert [reply["predictions"][0]["index"] for reply in replies] == list(range(2, 8))
    assert running.service.abandoned == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), PATIENCE_S)


def test_the_drain_limit_ends_in_an_answer_and_a_count(start_server: Start, fake: Any) -> None:
    running = start_server(drain_s=0.1, max_batch_size=1)
    running.runner.hold()
    waiting = running.post_later(fake.png(1))
    running.runner.entered.get(timeout=PATIENCE_S)
    running.begin_stop()
    reply = waiting.get(timeout=PATIENCE_S)
    assert (reply.status_code, reply.json()["error"]) == (503, "The server stopped before this picture's turn.")
    assert running.service.abandoned == 1


def half_send(port: int, body: bytes) -> Callable[[], Any]:
    """Send a request up to its body, and see that it is being read; return what sends the rest and reads the answer."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode())
    # The server says "continue" when its handler asks for the body: from then on the request is under way.
    assert client.recv(1000).startswith(b"HTTP/1.1 100 ")

    def finish() -> Any:
        with client:
            client.sendall(body)
            said = client.makefile("rb").read()  # to the end: a draining server closes after its answer
        head, _, answer = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), said
        return json.loads(answer)

    return finish


# --- the address -----


def test_port_0_takes_a_free_port() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0


def test_a_port_in_use_is_an_error_before_anything_is_loaded(zoo: Callable[..., Any]) -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        answer = zoo("serve", "--engine", "missing.onnx", "--port", str(port))
    assert (answer.code, answer.out) == (1, "")
    assert f"127.0.0.1:{port}" in answer.err
    assert "--port 0" in answer.err
    assert "missing.onnx" not in answer.err


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.EACCES, "larger --port"), (errno.EADDRNOTAVAIL, "this machine"), (errno.EIO, "another")]
)
def test_an_address_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch, number: int, hint: str) -> None:
    def refuse(self: socket.socket, address: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ZooError) as failure:
        bind("127.0.0.1", 80)
    assert hint in failure.value.hint


def test_a_host_that_is_no_address_is_an_error() -> None:
    with pytest.raises(ZooError, match="not an address"):
        bind("no such host", 0)


# --- what is served -----


@pytest.mark.parametrize(
    ("device", "most", "asked", "chosen"),
    [("CPU", None, None, 8), ("NVIDIA H200", None, None, 32), ("NVIDIA H200", 16, None, 16), ("CPU", None, 64, 64),
     ("NVIDIA H200", 16, 16, 16)],
)  # fmt: skip
def test_the_largest_batch_suits_device_and_engine(
    fake: Any, device: str, most: int | None, asked: int | None, chosen: int
) -> None:
    assert choose_max_batch_size(fake(device=device, max_batch_size=most), asked) == chosen


def test_a_batch_the_engine_cannot_take_is_refused(fake: Any) -> None:
    with pytest.raises(ArtifactError, match=r"fake\.onnx takes at most 16 pictures at once, not 17") as failure:
        choose_max_batch_size(fake(max_batch_size=16), 17)
    assert "--max-batch-size 16" in failure.value.hint


def write_passport_of(onnx: Path, runner: Any, **changes: Any) -> None:
    card = {"name": onnx.name, "sha256": sha256_of(onnx), "bytes": 1, "precision": "fp16"}
    fields = {
        "format": "zoo-passport-1",
        "contract": runner.contract.to_dict(),
        "files": {"onnx": card, "plan": None},
        "builder": None,
        "parity": {},
        "checkpoint": {"source": "test", "sha256": None, "provenance": {}},
        "random_weights": True,
        "environment": {},
    }
    onnx.with_suffix(".json").write_text(json.dumps(fields | changes))


def test_the_passport_tells_precision_and_random_weights(fake: Any, tmp_path: Path) -> None:
    onnx = tmp_path / "s.onnx"
    onnx.write_bytes(b"graph")
    plain = EngineInfo(artifact="s.onnx", backend="fake 1.0", device="CPU")
    assert describe_engine(onnx, fake(), find_backend("onnxruntime")) == plain
    write_passport_of(onnx, fake())
    info = describe_engine(onnx, fake(), find_backend("onnxruntime"))
    assert (info.artifact, info.precision, info.random_weights) == ("s.onnx", "fp16", True)
    assert describe_engine(onnx, fake(), find_backend("openvino-bf16")).precision == "fp16, bf16"
    onnx.write_bytes(b"another graph")  # the passport speaks of a file that is gone
    assert describe_engine(onnx, fake(), find_backend("onnxruntime")) == plain


def test_a_damaged_passport_is_an_error(fake: Any, tmp_path: Path) -> None:
    onnx = tmp_path / "s.onnx"
    onnx.write_bytes(b"graph")
    onnx.with_suffix(".json").write_text("{")
    with pytest.raises(ArtifactError, match="passport"):
        describe_engine(onnx, fake(), find_backend("onnxruntime"))


def describe(runner: Any, host: str, **info: Any) -> str:
    batcher = Batcher([runner], queue_capacity=64, max_batch_size=8)
    told = EngineInfo(artifact="fake.onnx", backend="fake 1.0", device="CPU", **info)
    engine = Engine(batcher=batcher, contract=runner.contract, info=told)
    with bind("127.0.0.1", 0) as listener:
        lines = describe_server(engine, listener, host, 1.25)
        return "\n".join(lines).replace(str(listener.getsockname()[1]), "PORT")


def test_the_banner_tells_engine_address_and_a_command(fake: Any) -> None:
    said = describe(fake(), "127.0.0.1", precision="fp16")
    assert "serves fake from fake.onnx: 10 classes, pictures at 8 px" in said
    assert "fake 1.0 on CPU, fp16, 1 instance, batches up to 8, queue of 64, warm in 1.2 s" in said
    assert "curl --data-binary @PICTURE.jpg http://127.0.0.1:PORT/predict" in said
    assert "random" not in said and "authentication" not in said


def test_the_banner_of_a_digits_model_has_a_command_that_needs_no_file(fake: Any) -> None:
    runner = fake()
    runner.contract = type(runner.contract)(
        model="fake", classes=tuple("0123456789"), preprocessing=Preprocessing(image_size=8)
    )
    said = describe(runner, "127.0.0.1")
    url = "http://127.0.0.1:PORT"
    assert f"curl -s {url}/examples/7.png | curl --data-binary @- {url}/predict" in said


def test_the_banner_warns_of_random_weights_and_of_an_open_address(fake: Any) -> None:
    said = describe(fake(), "0.0.0.0", random_weights=True)
    assert "weights are random" in said
    assert "no authentication" in said
    assert "http://127.0.0.1:PORT/predict" in said


@pytest.mark.parametrize(("host", "shown"), [("::1", "http://[::1]:PORT/"), ("::", "http://[::1]:PORT/")])
def test_the_banner_shows_addresses_that_can_be_opened(fake: Any, host: str, shown: str) -> None:
    assert shown in describe(fake(), host)


# --- rows -----


def test_every_request_error_has_a_row_of_its_own() -> None:
    kinds = {
        kind for _, kind in inspect.getmembers(serve.core.failures, inspect.isclass) if issubclass(kind, RequestError)
    }
    for kind in kinds - {RequestError, UnavailableError}:
        assert find_failure(kind("problem")).error is kind
    assert len({row.reason for row in FAILURES}) == len(FAILURES)


def test_an_error_without_a_row_is_a_500() -> None:
    assert (find_failure(ArtifactError("?")).status, find_failure(ArtifactError("?")).reason) == (500, "internal")


def test_every_option_of_the_command_line_is_an_option_of_the_server() -> None:
    # The artifact may be given as an argument and as an option; --config reads all of them, --json is how it prints.
    ways = ("engine", "engine_as_option", "config", "as_json")
    command = {parameter.name: parameter.default for parameter in serve_command.params if parameter.name not in ways}
    row = ServeOptions(engine="x.onnx").to_dict()
    told = {name: list(default) if default == () else default for name, default in command.items()}
    assert told == {name: default for name, default in row.items() if name != "engine"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"port": 65536}, "port is 65536; expected a whole number from 0 to 65535"),
        ({"instances": 0}, "instances is 0"),
        ({"timeout_ms": 0}, "timeout_ms is 0; expected a number above 0"),
        ({"drain_seconds": math.nan}, "drain_seconds is nan"),
        ({"log_level": "loud"}, "log_level is 'loud'; expected debug, info, warning or error"),
    ],
)
def test_python_is_refused_what_the_command_line_refuses(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError, match=said):
        ServeOptions(engine="x.onnx", **change)


@pytest.mark.parametrize(
    "engine", ["missing.onnx", "missing.plan", "missing.safetensors", "picture.jpg", "nosuchmodel"]
)
def test_an_engine_that_is_not_there_is_one_line_and_a_hint(
    zoo: Callable[..., Any], in_folder: Path, engine: str
) -> None:
    answer = zoo("serve", "--engine", engine, "--port", "0")
    assert (answer.code, answer.out) == (1, "")
    assert "Error:" in answer.err and "Hint:" in answer.err
    assert "Traceback" not in answer.err
