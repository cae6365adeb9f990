"""What a command line names becomes pictures: files, folders, patterns, addresses and standard input."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zoo.data import named
from zoo.data.named import Named, fetch_picture, find_pictures
from zoo.errors import BrokenPictureError, DataError


@pytest.fixture
def photos(in_folder: Path) -> Path:
    """Three pictures in two folders, beside what is none."""
    for name in ("photos/a.jpg", "photos/deep/b.PNG", "photos/deep/er/c.webp", "photos/notes.txt", "photos/._a.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    return in_folder


def names(*asked: str | Path) -> list[str]:
    found, _ = find_pictures(asked)
    assert not [each for each in found if each.error]
    return [each.name for each in found]


def test_a_folder_is_all_its_pictures_and_the_rest_is_told(photos: Path) -> None:
    found, left_out = find_pictures(["photos"])
    assert [each.name for each in found] == ["photos/a.jpg", "photos/deep/b.PNG", "photos/deep/er/c.webp"]
    assert set(left_out) == {"1 .txt files, which are no pictures", "1 hidden or system files and folders"}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("photos/*.jpg", ["photos/a.jpg"]),
        ("photos/**/*.*", ["photos/a.jpg", "photos/deep/b.PNG", "photos/deep/er/c.webp"]),
        ("photos/*", ["photos/a.jpg", "photos/deep/b.PNG", "photos/deep/er/c.webp"]),
        ("photos/de?p", ["photos/deep/b.PNG", "photos/deep/er/c.webp"]),
    ],
)
def test_a_pattern_is_what_a_shell_would_make_of_it(pattern: str, wanted: list[str], photos: Path) -> None:
    assert names(pattern) == wanted
    assert names(photos / pattern) == [str(photos / name) for name in wanted]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(photos: Path) -> None:
    Path("photos/a.jpg").rename("photos/[a].jpg")
    assert names("photos/[a].jpg", "photos/notes.txt") == ["photos/[a].jpg", "photos/notes.txt"]


def test_what_cannot_be_found_keeps_its_place_and_costs_no_other(photos: Path) -> None:
    Path("empty").mkdir()
    asked = ["none.jpg", "photos/a.jpg", "*.tif", "empty", "x" * 5000, "photos/deep"]
    found, _ = find_pictures(asked)
    said = [each.error.problem if each.error else each.name for each in found]
    assert said[:4] == [
        "There is no file none.jpg.",
        "photos/a.jpg",
        "*.tif matches no picture.",
        "empty has no pictures.",
    ]
    assert said[4].startswith("x") and "cannot be read" in said[4]
    assert said[5:] == ["photos/deep/b.PNG", "photos/deep/er/c.webp"]
    with pytest.raises(BrokenPictureError, match="no file none"):
        found[0].stored()


class Pipe(io.TextIOWrapper):
    def isatty(self) -> bool:
        return self.terminal

    terminal = False


def test_standard_input_is_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(io.BytesIO(b"picture")))
    (found,), _ = find_pictures(["-"])
    assert found.stored() == b"picture"
    with pytest.raises(BrokenPictureError, match="Standard input is empty"):
        found.stored()
    with pytest.raises(DataError, match="named twice"):
        find_pictures(["-", "-"])
    monkeypatch.setattr(named, "MAX_BYTES", 5)
    monkeypatch.setattr(sys, "stdin", Pipe(io.BytesIO(b"picture")))
    with pytest.raises(BrokenPictureError, match="more than the 5 bytes"):
        found.stored()
    monkeypatch.setattr(Pipe, "terminal", True)
    with pytest.raises(BrokenPictureError, match="nothing is sent to it"):
        found.stored()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_a_pipe_is_read_like_a_file(in_folder: Path) -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(b"picture"))
    writer.start()
    (found,), _ = find_pictures(["pipe"])
    assert found.stored() == b"picture"
    writer.join()


@contextmanager
def answering(status: int, kind: str, chunks: list[bytes]) -> Iterator[str]:
    """A server that gives one answer to all; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            for chunk in chunks:
                self.wfile.write(chunk)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/cat.jpg?size=1"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("zoo.http.BACKOFF_S", 0.0)


def test_an_address_is_fetched_as_it_was_typed() -> None:
    with answering(200, "image/jpeg", [b"pic", b"ture"]) as url:
        (found,), _ = find_pictures([url])
        assert (found.name, found.stored()) == (url, b"picture")


@pytest.mark.parametrize(
    ("answer", "limits", "said"),
    [
        ((404, "text/html", []), {}, "answers 404"),
        ((503, "text/plain", []), {}, "it answers 503"),
        ((200, "text/html; charset=utf-8", [b"<html>"]), {}, "is text/html; charset=utf-8, no picture"),
        ((200, "image/jpeg", [b"x" * 999]), {"MAX_BYTES": 100}, "more than the 100 bytes"),
        ((200, "image/jpeg", [b"x"]), {"MAX_SECONDS": -1.0}, "had not arrived after"),
    ],
)
def test_an_answer_that_is_no_picture(
    answer: tuple[int, str, list[bytes]], limits: dict[str, float], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(named, name, value)
    with answering(*answer) as url, pytest.raises(BrokenPictureError, match=said) as failure:
        fetch_picture(url)
    assert url in failure.value.problem and failure.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "http://",
        "http:///x",
        "http://host:port/x",
        "http://[host/x",
        "http://h ost/x",
        "://",
        "http://:0/x",
    ],
)
def test_an_address_that_cannot_be_asked(url: str) -> None:
    (found,), _ = find_pictures([url])
    with pytest.raises(BrokenPictureError, match="no address that can be asked"):
        found.stored()


def test_nobody_there() -> None:
    with pytest.raises(BrokenPictureError, match="cannot be reached"):
        Named("http://127.0.0.1:9/x.jpg").stored()
