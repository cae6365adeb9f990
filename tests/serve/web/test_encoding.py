"""What wraps a picture on its way: forms, compression, and addresses with a slash too many."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Start = Callable[..., Any]


def refused(reply: httpx.Response, status: int) -> str:
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error", "hint"}
    return f"{reply.json()['error']} {reply.json()['hint']}"


def index_of(reply: httpx.Response) -> int:
    assert reply.status_code == 200, reply.text
    found: int = reply.json()["predictions"][0]["index"]
    return found


# --- forms, as `curl -F file=@picture.png` sends them -----


def test_the_file_of_a_form_is_the_picture(server: Any, fake: Any) -> None:
    reply = server.client.post("/predict?top=1", files={"file": ("7.png", fake.png(7), "image/png")})
    assert index_of(reply) == 7
    assert len(reply.json()["predictions"]) == 1


def test_fields_beside_the_file_are_passed_over(server: Any, fake: Any) -> None:
    assert index_of(server.client.post("/predict", data={"note": "x" * 1000}, files={"any": fake.png(4)})) == 4


def test_a_file_holds_any_bytes(start_server: Start, fake: Any) -> None:
    """Also those that look like the end of the form; and more than the library would put on the disk."""
    running = start_server(max_body_bytes=4_000_000)
    picture = fake.png(5) + b"\r\n--x\r\n" * 200_000
    reply = running.client.post(
        "/predict",
        content=b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
        + picture
        + b"\r\n--xyz--\r\n",
        headers={"content-type": "multipart/form-data; boundary=xyz"},
    )
    assert index_of(reply) == 5


@pytest.mark.parametrize(
    ("content", "boundary", "word"),
    [
        (b"--x--\r\n", "x", "no files"),
        (b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nno file\r\n--x--\r\n', "x", "no files"),
        (b"not a form", "x", "cannot be read"),
        (b"--x\r\n", "", "no boundary"),
        (b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nends ear', "x", ""),
        (b"--x\r\n" + b"X: y\r\n" * 1000 + b"\r\n--x--\r\n", "x", "cannot be read"),
        (b"--x\r\n\r\n\r\n--x--\r\n", "x" * 2000, "cannot be read"),
    ],
)
def test_a_form_without_one_good_file_is_a_400(server: Any, content: bytes, boundary: str, word: str) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    assert word in refused(server.client.post("/predict", content=content, headers=headers), 400)


def test_the_files_of_a_form_are_answered_in_their_order(start_server: Start, fake: Any) -> None:
    running = start_server(max_batch_size=4)
    files = [("file", (name, fake.png(byte))) for name, byte in (("a.png", 3), ("b.png", 1), ("c\u00e9.png", 3))]
    reply = running.client.post("/predict?top=2", files=files)
    answer = reply.json()
    assert set(answer) == {"model", "pictures", "timings_ms", "batch_size"}
    assert [one["name"] for one in answer["pictures"]] == ["a.png", "b.png", "c\u00e9.png"]
    assert [one["predictions"][0]["index"] for one in answer["pictures"]] == [3, 1, 3]
    assert {len(one["predictions"]) for one in answer["pictures"]} == {2}
    assert reply.headers["server-timing"].startswith("decode;dur=")
    assert running.metric("zoo_pictures_total") == 3
    assert running.metric('nv_inference_request_success{model="fake",version="1"}') == 1


def test_a_broken_picture_of_several_fails_alone(server: Any, fake: Any) -> None:
    files = [("file", ("good", fake.png(1))), ("file", ("bad", b"no picture"))]
    good, bad = server.client.post("/predict", files=files).json()["pictures"]
    assert good["predictions"][0]["index"] == 1
    assert set(bad) == {"name", "error", "hint"} and bad["name"] == "bad"
    assert refused(server.client.post("/predict", files=[files[1], files[1]]), 400)


def test_a_form_with_more_files_than_a_batch_is_a_400_that_says_so(start_server: Start, fake: Any) -> None:
    files = [("file", fake.png(byte)) for byte in range(1, 4)]
    said = refused(start_server(max_batch_size=2).client.post("/predict", files=files), 400)
    assert "has 3 files; expected 1 to 2" in said and "--data-binary" in said


# --- compression -----


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_picture_is_read(
    server: Any, fake: Any, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    reply = server.post(compress(fake.png(6)), headers={"content-encoding": encoding})
    assert index_of(reply) == 6


def test_an_unknown_encoding_is_a_415(server: Any, fake: Any) -> None:
    assert "'br'" in refused(server.post(fake.png(1), headers={"content-encoding": "br"}), 415)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"no gzip", "is not gzip"),
        (gzip.compress(b"x" * 100)[:-10], "ends early"),
        (gzip.compress(b"x" * 100) + b"more", "goes on after its end"),
    ],
    ids=["another", "cut off", "too long"],
)
def test_what_is_not_of_its_encoding_is_a_400(server: Any, body: bytes, word: str) -> None:
    assert word in refused(server.post(body, headers={"content-encoding": "gzip"}), 400)


def test_a_compressed_bomb_is_a_413_before_it_is_unpacked(start_server: Start) -> None:
    running = start_server(max_body_bytes=100_000)
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    reply = running.post(bomb, headers={"content-encoding": "gzip"})
    assert "decompressed" in refused(reply, 413)


# --- addresses -----


@pytest.mark.parametrize("path", ["/predict/", "/predict//"])
def test_a_slash_too_many_is_no_redirect(server: Any, fake: Any, path: str) -> None:
    reply = server.client.post(path, content=fake.png(3), headers={"host": "evil.example"})
    assert index_of(reply) == 3


def test_no_answer_names_the_host_of_a_client_in_a_location(server: Any) -> None:
    for path in ("/info/", "/readyz/", "/nothing/", "//evil.example/"):
        reply = server.client.get(f"http://127.0.0.1:{server.port}{path}", headers={"host": "evil.example"})
        assert reply.status_code in (200, 404)
        assert "location" not in reply.headers


def test_a_413_ends_the_connection(start_server: Start) -> None:
    reply = start_server(max_body_bytes=1000).post(b"x" * 1001)
    assert (reply.status_code, reply.headers["connection"]) == (413, "close")
