from __future__ import annotations

import io
import logging
import queue
import re
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.contract import Contract
from export.predict import best_of
from serve.core.failures import FAILURES
from serve.core.waiting import Answer
from zoo.data.preprocess import load_batch, softmax
from zoo.model.spec import Preprocessing

PATIENCE_S = 60.0
Start = Callable[..., Any]


def refused(reply: httpx.Response, status: int) -> str:
    """Check the form every error has; return both sentences."""
    answer = reply.json()
    assert reply.status_code == status
    assert set(answer) == {"error", "hint"}
    assert answer["error"] and reply.headers["x-request-id"]
    return f"{answer['error']} {answer['hint']}"


def photograph() -> bytes:
    """A JPEG with an orientation and sides that are no multiple of anything."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (61, 83, 3), np.uint8))
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


# --- predictions -----


def test_a_picture_gets_its_five_best_classes(server: Any, fake: Any) -> None:
    reply = server.post(fake.png(42))
    answer = reply.json()
    scores = softmax(fake.logits_of(42))
    assert reply.status_code == 200
    assert set(answer) == {"model", "predictions", "timings_ms", "batch_size"}
    assert answer["model"] == "fake"
    assert answer["batch_size"] == 1
    assert [(one["class"], one["index"]) for one in answer["predictions"]] == [
        ("c", 2), ("j", 9), ("i", 8), ("h", 7), ("g", 6)
    ]  # fmt: skip
    for one in answer["predictions"]:
        assert one["score"] == pytest.approx(scores[one["index"]])


def test_timings_are_told_in_the_body_and_in_a_header(server: Any, fake: Any) -> None:
    reply = server.post(fake.png(1))
    timings = reply.json()["timings_ms"]
    assert list(timings) == ["decode", "queue", "compute", "encode", "total"]
    assert 0 < sum(timings.values()) - timings["total"] <= timings["total"] + 0.01
    assert reply.headers["server-timing"] == ", ".join(f"{stage};dur={ms}" for stage, ms in timings.items())


@pytest.mark.parametrize("preprocessing", [
    Preprocessing(image_size=8), Preprocessing(image_size=8, resize="crop", resize_size=10, interpolation="bicubic")
])  # fmt: skip
def test_the_engine_sees_the_same_bytes_as_in_predict(
    start_server: Start, fake: Any, preprocessing: Preprocessing
) -> None:
    runner = fake(contract=Contract(model="fake", classes=tuple("abcdefghij"), preprocessing=preprocessing))
    seen: list[NDArray[np.uint8]] = []
    infer = runner.infer
    runner.infer = lambda pictures: (seen.append(pictures), infer(pictures))[1]
    assert start_server(runner).post(photograph()).status_code == 200
    np.testing.assert_array_equal(seen[-1], load_batch([photograph()], preprocessing))


@pytest.mark.parametrize(("top", "count"), [(1, 1), (3, 3), (10, 10), (1000, 10)])
def test_top_says_how_many_classes(server: Any, fake: Any, top: int, count: int) -> None:
    reply = server.post(fake.png(1), params={"top": top})
    assert len(reply.json()["predictions"]) == count


@pytest.mark.parametrize("top", ["0", "-1", "five", "1.5", "", "²", "9" * 30])
def test_a_top_that_is_no_count_is_refused(server: Any, fake: Any, top: str) -> None:
    said = refused(server.post(fake.png(1), params={"top": top}), 400)
    assert f"The parameter top is {top!r}; expected a whole number from 1 to 999999999." in said


@pytest.mark.parametrize(
    "media_type",
    ["image/png", "image/jpeg; q=1", "application/octet-stream", "application/x-www-form-urlencoded", None],
)
def test_the_body_is_the_picture_whatever_type_it_claims(server: Any, fake: Any, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    assert server.post(fake.png(1), headers=headers).status_code == 200


def test_equal_scores_keep_the_order_of_the_classes() -> None:
    logits = np.array([0.0, 1.0, 1.0], np.float32)
    assert [one.class_name for one in best_of(softmax(logits)[None], ("a", "b", "c"), 3)[0]] == ["b", "c", "a"]


def test_many_clients_get_their_own_answers(start_server: Start, fake: Any) -> None:
    running = start_server(max_batch_size=4)
    waiting = {byte: running.post_later(fake.png(byte)) for byte in range(1, 25)}
    for byte, answers in waiting.items():
        answer = answers.get(timeout=PATIENCE_S).json()
        assert answer["predictions"][0]["index"] == byte % 10
        assert answer["predictions"][0]["score"] == pytest.approx(float(softmax(fake.logits_of(byte)).max()))
    assert sorted(byte for batch in running.runner.batches for byte in batch) == list(range(1, 25))


# --- what is refused -----


def bomb() -> bytes:
    """A PNG of 60,000 × 60,000 pixels in under a hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"hello", "not a picture"),
        (photograph()[:400], "damaged"),
        (bomb(), "pixels"),
        (b"", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "JPEG"),
    ],
    ids=["text", "truncated", "bomb", "empty", "postscript"],
)
def test_a_body_that_is_no_good_picture_is_a_400(server: Any, fake: Any, body: bytes, word: str) -> None:
    before = len(server.runner.batches)
    assert word in refused(server.post(body), 400)
    assert server.post(fake.png(1)).status_code == 200
    assert server.runner.batches[before:] == [[1]]


@pytest.mark.parametrize("media_type", ["multipart/mixed; boundary=x", "application/json", "text/plain"])
def test_a_wrapped_picture_is_a_415_that_shows_the_right_command(server: Any, fake: Any, media_type: str) -> None:
    said = refused(server.post(fake.png(1), headers={"content-type": media_type}), 415)
    assert f"curl --data-binary @PICTURE http://127.0.0.1:{server.port}/predict" in said


def test_a_body_that_declares_too_much_is_a_413(start_server: Start) -> None:
    assert "0.001 MB" in refused(start_server(max_body_bytes=1000).post(b"x" * 1001), 413)


def test_a_body_that_grows_too_large_is_a_413(start_server: Start) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    assert "0.001 MB" in refused(start_server(max_body_bytes=1000).post(chunks()), 413)


def test_a_body_at_the_limit_is_read(start_server: Start, fake: Any) -> None:
    picture = fake.png(1)
    assert start_server(max_body_bytes=len(picture)).post(picture).status_code == 200


def test_a_body_that_does_not_come_is_a_408(start_server: Start, fake: Any) -> None:
    running = start_server(timeout_s=0.05)
    with socket.create_connection(("127.0.0.1", running.port), PATIENCE_S) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + fake.png(1)[:40])
        said = client.makefile("rb").read()
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"Only 40 bytes" in said


def test_an_unknown_path_is_a_404_that_says_what_there_is(server: Any) -> None:
    assert "POST /predict" in refused(server.client.get("/nothing"), 404)


def test_a_wrong_method_is_a_405_that_says_the_right_one(server: Any) -> None:
    reply = server.client.get("/predict")
    assert "POST" in refused(reply, 405)
    assert reply.headers["allow"] == "POST"


def test_a_full_queue_is_a_503_with_retry_after_and_loses_nobody(start_server: Start, fake: Any) -> None:
    running = start_server(queue_capacity=2, max_batch_size=1)
    queued = spy_on_submit(running)
    running.runner.hold()
    waiting = [running.post_later(fake.png(1))]
    running.runner.entered.get(timeout=PATIENCE_S)
    for byte in (2, 3):
        waiting.append(running.post_later(fake.png(byte)))
        while queued.get(timeout=PATIENCE_S)[0] != byte:  # the first picture's own submit comes first
            pass
    reply = running.post(fake.png(4))
    assert "queue" in refused(reply, 503)
    assert int(reply.headers["retry-after"]) >= 1
    running.runner.release()
    replies = [answers.get(timeout=PATIENCE_S) for answers in waiting]
    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert [reply.json()["predictions"][0]["index"] for reply in replies] == [1, 2, 3]
    assert running.runner.batches == [[1], [2], [3]]


def test_too_many_requests_under_way_are_refused_before_their_body_is_read(start_server: Start, fake: Any) -> None:
    running = start_server(max_in_flight=1)
    running.runner.hold()
    first = running.post_later(fake.png(1))
    running.runner.entered.get(timeout=PATIENCE_S)
    reply = running.post(b"not even a picture")
    assert "under way" in refused(reply, 503)
    assert reply.headers["retry-after"] == "1"
    running.runner.release()
    assert first.get(timeout=PATIENCE_S).status_code == 200


def test_an_answer_that_takes_too_long_is_a_504(start_server: Start, fake: Any) -> None:
    running = start_server(timeout_s=0.3, max_batch_size=1)
    running.runner.hold()
    first = running.post_later(fake.png(1))
    running.runner.entered.get(timeout=PATIENCE_S)
    assert "time" in refused(running.post(fake.png(2)), 504)
    assert first.get(timeout=PATIENCE_S).status_code == 504
    running.runner.release()
    running.stop()
    assert running.runner.batches == [[1]]  # the second was given up before its turn


def test_a_client_that_leaves_is_not_computed(start_server: Start, fake: Any) -> None:
    running = start_server(max_batch_size=1)
    queued = spy_on_submit(running)
    running.runner.hold()
    first = running.post_later(fake.png(1))
    running.runner.entered.get(timeout=PATIENCE_S)
    queued.get(timeout=PATIENCE_S)
    body = fake.png(2)
    with socket.create_connection(("127.0.0.1", running.port), PATIENCE_S) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        byte, future = queued.get(timeout=PATIENCE_S)
        cancelled: queue.Queue[bool] = queue.Queue()
        future.add_done_callback(lambda done: cancelled.put(done.cancelled()))
    assert byte == 2
    assert cancelled.get(timeout=PATIENCE_S)
    running.runner.release()
    assert first.get(timeout=PATIENCE_S).status_code == 200
    assert running.post(fake.png(3)).status_code == 200
    assert running.runner.batches == [[1], [3]]
    assert running.metric('zoo_rejected_total{reason="client_gone"}') == 1


def test_an_engine_failure_is_a_500_and_the_next_request_works(
    start_server: Start, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_server(fake(fails_on=frozenset({13})))
    said = refused(running.post(fake.png(13)), 500)
    assert "the fake engine broke" not in said  # the log tells it, the client need not know
    assert "the fake engine broke" in caplog.text
    assert running.post(fake.png(1)).status_code == 200


def test_a_fault_of_ours_is_a_500_in_json(start_server: Start, fake: Any, caplog: pytest.LogCaptureFixture) -> None:
    running = start_server()
    running.service.classify = None
    reply = running.post(fake.png(1))
    assert reply.status_code == 500
    assert set(reply.json()) == {"error", "hint"}
    assert "TypeError" not in reply.text
    assert running.metric('zoo_requests_total{path="/predict",status="500"}') == 1
    running.stop()  # the traceback is written after the answer
    assert "TypeError" in caplog.text


def test_no_refusal_shows_a_path_of_the_machine(start_server: Start, fake: Any) -> None:
    running = start_server(fake(artifact="/secret/place/fake.onnx"))
    texts = [running.client.get(path).text for path in ("/info", "/metrics", "/", "/readyz", "/nothing")]
    texts.append(running.post(b"broken").text)
    assert not any("secret" in text for text in texts)


# --- state -----


def test_it_is_alive_at_once_and_ready_once_warm(start_server: Start, fake: Any) -> None:
    runner = fake()
    runner.warm_gate.clear()
    running = start_server(runner, wait_until_warm=False, max_batch_size=4)
    assert running.client.get("/healthz").json() == {"status": "ok"}
    for reply in (running.client.get("/readyz"), running.post(fake.png(1))):
        assert "warming up" in refused(reply, 503)
        assert reply.headers["retry-after"] == "1"
    assert running.metric("zoo_ready") == 0
    runner.warm_gate.set()
    running.batcher.warmed.result(PATIENCE_S)
    assert running.client.get("/readyz").json() == {"status": "ready"}
    assert running.metric("zoo_ready") == 1
    assert runner.warmed == [1, 2, 4]
    assert running.post(fake.png(1)).status_code == 200


def test_a_draining_server_answers_what_it_has_and_takes_nothing_new(start_server: Start, fake: Any) -> None:
    running = start_server()
    running.runner.hold()
    under_way = running.post_later(fake.png(1))
    running.runner.entered.get(timeout=PATIENCE_S)
    running.service.stop_accepting()
    for reply in (running.client.get("/readyz"), running.post(fake.png(2))):
        assert "shutting down" in refused(reply, 503)
        assert reply.headers["retry-after"]
    assert running.client.get("/healthz").status_code == 200
    running.runner.release()
    assert under_way.get(timeout=PATIENCE_S).status_code == 200


def test_info_tells_contract_engine_and_limits(start_server: Start) -> None:
    info = start_server(max_batch_size=4, queue_capacity=9).client.get("/info").json()
    assert info["model"] == "fake"
    assert (info["artifact"], info["backend"], info["device"]) == ("fake.onnx", "fake 1.0", "CPU")
    assert (info["precision"], info["random_weights"]) == ("fp32", False)
    assert (info["num_classes"], info["classes"], info["image_size"]) == (10, list("abcdefghij"), 8)
    assert Preprocessing.from_dict(info["preprocessing"]) == Preprocessing(image_size=8)
    assert (info["max_batch_size"], info["queue_capacity"], info["instances"]) == (4, 9, 1)
    assert (info["max_body_bytes"], info["timeout_ms"]) == (1_000_000, 60_000.0)


# --- request ids, metrics, log -----


def test_a_request_id_is_echoed(server: Any, fake: Any) -> None:
    reply = server.post(fake.png(1), headers={"x-request-id": "abc-1.2_3"})
    assert reply.headers["x-request-id"] == "abc-1.2_3"


@pytest.mark.parametrize("given", [None, "two words", "x" * 129, "<b>"])
def test_a_request_without_a_usable_id_gets_one(server: Any, given: str | None) -> None:
    headers = {"x-request-id": given} if given else {}
    made = server.client.get("/nothing", headers=headers).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_metrics_count_what_happened(start_server: Start, fake: Any) -> None:
    running = start_server(max_batch_size=4)
    running.runner.hold()
    queued = spy_on_submit(running)
    waiting = [running.post_later(fake.png(1))]
    running.runner.entered.get(timeout=PATIENCE_S)
    waiting += [running.post_later(fake.png(byte)) for byte in (2, 3)]
    for _ in range(3):
        queued.get(timeout=PATIENCE_S)
    assert (running.metric("zoo_queue_depth"), running.metric("zoo_in_flight")) == (2, 3)
    running.runner.release()
    for answers in waiting:
        assert answers.get(timeout=PATIENCE_S).status_code == 200
    running.post(b"broken")
    running.client.get("/some/path")
    running.client.get("/other/path")
    assert running.metric('zoo_requests_total{path="/predict",status="200"}') == 3
    assert running.metric('zoo_requests_total{path="/predict",status="400"}') == 1
    assert running.metric('zoo_requests_total{path="other",status="404"}') == 2
    assert running.metric("zoo_pictures_total") == 3
    assert running.metric('zoo_rejected_total{reason="broken_picture"}') == 1
    assert running.metric('zoo_batch_size_bucket{le="1.0"}') == 1
    assert running.metric('zoo_batch_size_bucket{le="2.0"}') == 2
    assert (running.metric("zoo_batch_size_count"), running.metric("zoo_batch_size_sum")) == (2, 3)
    assert running.metric("zoo_compute_seconds_count") == 2
    for stage in ("decode", "queue", "total"):
        assert running.metric(f"zoo_{stage}_seconds_count") == 3
    assert (running.metric("zoo_queue_depth"), running.metric("zoo_in_flight")) == (0, 0)
    assert 'zoo_engine_info{artifact="fake.onnx",backend="fake 1.0",device="CPU"' in running.client.get("/metrics").text


def test_names_of_classes_may_hold_anything(start_server: Start, fake: Any) -> None:
    """Half a surrogate pair was a mistake of the server's; controls of C1 went to the client's terminal."""
    odd = ("half\udce9", "c1\x9b31m", "esc\x1b[31m", "new\nline", "\u202eexe", "<script>", "\t", "猫", "é", "z")
    contract = Contract(model="fake", classes=odd, preprocessing=Preprocessing(image_size=8))
    running = start_server(fake(contract=contract))
    reply = running.post(fake.png(1), params={"top": 10})
    assert reply.status_code == 200
    assert {one["class"] for one in reply.json()["predictions"]} == set(odd)
    info = running.client.get("/info")
    assert info.status_code == 200
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", reply.text + info.text)


def test_an_answer_that_is_not_finite_is_no_answer(start_server: Start, fake: Any) -> None:
    running = start_server()
    running.runner.logits_of = lambda byte: np.full(10, np.nan, np.float32)
    said = refused(running.post(fake.png(1)), 500)
    assert "is not finite" in said
    assert running.metric('zoo_rejected_total{reason="not_finite"}') == 1
    assert running.metric('zoo_rejected_total{reason="engine"}') == 0
    assert running.metric("zoo_pictures_total") == 0


def test_every_reason_for_a_refusal_is_a_series_from_the_start(start_server: Start) -> None:
    text = start_server().client.get("/metrics").text
    shown = set(re.findall(r'zoo_rejected_total\{reason="(\w+)"\} 0.0', text))
    assert shown == {failure.reason for failure in FAILURES}


def test_two_servers_in_one_process_count_apart(start_server: Start, fake: Any) -> None:
    first, second = start_server(), start_server()
    first.post(fake.png(1))
    assert (first.metric("zoo_pictures_total"), second.metric("zoo_pictures_total")) == (1, 0)


def test_a_request_is_one_line_of_the_log(start_server: Start, fake: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "serve.web.access")
    running = start_server()
    running.post(fake.png(1), headers={"x-request-id": "mine"})
    running.client.get("/evil%0aline")
    running.stop()  # a line is written after its answer
    lines = [record.getMessage() for record in caplog.records if record.name == "serve.web.access"]
    assert [line.split()[:3] for line in lines] == [["POST", "'/predict'", "200"], ["GET", "'/evil\\nline'", "404"]]
    assert "batch 1 id=mine" in lines[0]


# --- the page -----


def test_the_page_is_one_file_that_loads_nothing_from_elsewhere(server: Any) -> None:
    reply = server.client.get("/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    addresses = set(re.findall(r"""(?:https?:)?//[\w.-]+\.\w+""", reply.text))
    assert addresses == {"http://www.w3.org"}  # the name of SVG, which nobody fetches
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"'](?!data:)", reply.text)


def test_a_model_of_the_digits_offers_one_unseen_picture_per_class(start_server: Start, fake: Any) -> None:
    digits = Contract(model="fake", classes=tuple("0123456789"), preprocessing=Preprocessing(image_size=8))
    running = start_server(fake(contract=digits))
    examples = running.client.get("/examples").json()
    assert [one["class"] for one in examples] == list("0123456789")
    pictures = {running.client.get("/" + one["url"]).content for one in examples}
    assert len(pictures) == 10
    assert {Image.open(io.BytesIO(picture)).format for picture in pictures} == {"PNG"}
    assert all(running.post(picture).status_code == 200 for picture in pictures)
    refused(running.client.get("/examples/10.png"), 404)


def test_a_model_of_other_classes_offers_photographs_without_a_class(server: Any) -> None:
    examples = server.client.get("/examples").json()
    assert [one["class"] for one in examples] == [None, None]
    assert all("photograph" in one["title"] for one in examples)
    assert all(server.post(server.client.get("/" + one["url"]).content).status_code == 200 for one in examples)
    refused(server.client.get("/examples/2.png"), 404)


def spy_on_submit(running: Any) -> queue.Queue[tuple[int, Future[Answer]]]:
    """A queue that gets (first byte, future) of every picture as it is accepted."""
    seen: queue.Queue[tuple[int, Future[Answer]]] = queue.Queue()
    submit = running.batcher.submit

    def submit_and_tell(picture: NDArray[np.uint8], **options: Any) -> Future[Answer]:
        future: Future[Answer] = submit(picture, **options)
        seen.put((int(picture[0, 0, 0]), future))
        return future

    running.batcher.submit = submit_and_tell
    return seen


def test_several_labels_are_those_that_reach_their_thresholds(start_server: Start, fake: Any) -> None:
    """The fake's logits of a byte are 0 to 1, and 3 + byte / 64 for its own class: scores of 0.5 to 0.73, and 0.95."""
    classes = tuple("abcdefghij")
    thresholds = (0.9,) * 9 + (0.7,)
    preprocessing = Preprocessing(image_size=8)
    contract = Contract(model="fake", classes=classes, preprocessing=preprocessing, thresholds=thresholds)
    running = start_server(fake(contract=contract))
    answer = running.post(fake.png(3)).json()
    assert answer["task"] == "multi-label"
    assert [(one["class"], one["threshold"]) for one in answer["predictions"]] == [("d", 0.9), ("j", 0.7)]
    assert answer["predictions"][0]["score"] == pytest.approx(1 / (1 + np.exp(-3 - 3 / 64)))
    likeliest = running.post(fake.png(3), params={"top": 3}).json()["predictions"]
    assert [one["class"] for one in likeliest] == ["d", "j", "i"]
    info = running.client.get("/info").json()
    assert (info["task"], info["thresholds"]) == ("multi-label", list(thresholds))
    strict = replace(contract, thresholds=(1.0,) * 10)
    assert start_server(fake(contract=strict)).post(fake.png(3)).json()["predictions"] == []
