"""Downloads from a real server on this machine: resumed, checked, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zoo.errors import CheckpointError, DownloadError, MissingCapabilityError, ZooError
from zoo.weights.cache import cache_path, file_of
from zoo.weights.pull import download, pull
from zoo.weights.table import find_weights

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class FileServer(ThreadingHTTPServer):
    """Serves CONTENT under any name, with ranges; it can cut an answer short, ignore ranges, have nothing, be busy."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut_after: int | None = None
        self.ranges = True
        self.found = True
        self.busy: list[str] = []  # the Retry-After of each answer that is a 503
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if not self.server.found:
            return self.send_error(404)
        if self.server.busy:
            self.send_response(503)
            self.send_header("Retry-After", self.server.busy.pop(0))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0  # type: ignore[index]
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after])
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("zoo.http.BACKOFF_S", 0.0)
    with FileServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_says_how_far_it_is(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = tmp_path / "deep" / "weights.pth"
    assert download(server.url, path, DIGEST[:8], lambda done, total: seen.append((done, total))) == DIGEST
    assert path.read_bytes() == CONTENT
    assert names_in(path.parent) == ["weights.pth"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_cut_download_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    server.cut_after = 1_000_000
    with pytest.raises(DownloadError, match=r"cut off after 1,000,000 of 3,072,000 bytes") as caught:
        download(server.url, path, DIGEST[:8])
    assert "same command" in caught.value.hint
    assert names_in(tmp_path) == ["weights.pth.part"]
    server.cut_after = None
    assert download(server.url, path, DIGEST[:8]) == DIGEST
    assert server.asked == [None, "bytes=1000000-"]
    assert names_in(tmp_path) == ["weights.pth"]


def test_a_full_disk_keeps_what_fits_and_the_download_goes_on_there(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # stands in for the disk
    try:
        with pytest.raises(ZooError, match=r"Cannot write .*weights\.pth: File too large") as caught:
            download(server.url, path, DIGEST[:8])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "ZOO_CACHE" in caught.value.hint
    assert names_in(tmp_path) == ["weights.pth.part"]
    assert download(server.url, path, DIGEST[:8]) == DIGEST
    assert server.asked == [None, "bytes=1000000-"]


def test_a_server_without_ranges_starts_over(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "weights.pth.part").write_bytes(b"half of something")
    assert download(server.url, tmp_path / "weights.pth", DIGEST[:8]) == DIGEST


def test_a_part_that_is_already_whole_only_gets_its_name(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "weights.pth.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "weights.pth", DIGEST[:8]) == DIGEST
    assert names_in(tmp_path) == ["weights.pth"]


@pytest.mark.parametrize("part", [b"", b"another file's beginning", CONTENT + b"and more"])
def test_the_wrong_file_leaves_nothing(server: FileServer, tmp_path: Path, part: bytes) -> None:
    if part:
        (tmp_path / "weights.pth.part").write_bytes(part)
    with pytest.raises(DownloadError, match="is not the published file") as caught:
        download(server.url, tmp_path / "weights.pth", DIGEST[:8] if part else "00000000")
    assert "Nothing was kept" in caught.value.hint
    assert names_in(tmp_path) == []


def test_a_missing_file_is_said_with_the_servers_word(server: FileServer, tmp_path: Path) -> None:
    server.found = False
    with pytest.raises(DownloadError, match="answers 404 Not Found"):
        download(server.url, tmp_path / "weights.pth", DIGEST[:8])
    assert names_in(tmp_path) == []


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.busy = ["0", "0"]
    assert download(server.url, tmp_path / "weights.pth", DIGEST[:8]) == DIGEST
    assert len(server.asked) == 3


def test_a_server_that_is_busy_for_an_hour_is_not_waited_for(server: FileServer, tmp_path: Path) -> None:
    server.busy = ["3600"]
    with pytest.raises(DownloadError, match="503 and asks for a pause of 3,600 s; at most 120 s are waited") as caught:
        download(server.url, tmp_path / "weights.pth", DIGEST[:8])
    assert "another machine" in caught.value.hint
    assert len(server.asked) == 1


def test_offline_is_said_honestly_and_names_the_way_around(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.http.BACKOFF_S", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        url = f"http://127.0.0.1:{free.getsockname()[1]}/weights.pth"
        with pytest.raises(DownloadError, match=r"cannot be reached: .*refused") as caught:
            download(url, tmp_path / "weights.pth", DIGEST[:8])
    assert f"put it into {cache / 'weights'} as weights.pth" in caught.value.hint


def test_a_folder_that_cannot_be_written_is_said(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ZooError, match="Cannot write"):
        download(server.url, tmp_path / "file" / "weights.pth", DIGEST[:8])


def test_pulling_keeps_the_file_and_fetches_it_once(server: FileServer, cache: Path) -> None:
    row = replace(find_weights("s.timm-in1k"), url=server.url, sha256_prefix=DIGEST[:8])
    assert file_of(row) is None
    first, second = pull(row), pull(row)
    assert (first.fetched, second.fetched) == (True, False)
    assert first.path == second.path == file_of(row) == cache / "weights" / row.file
    assert first.sha256 == second.sha256 == DIGEST
    first.path.write_bytes(b"damaged since")
    assert pull(row).fetched
    assert first.path.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_weights_of_a_package_are_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    row = find_weights("lite0")
    pytest.importorskip(row.module, reason="needs the weights extra")
    pulled = pull(row)
    assert (pulled.fetched, pulled.sha256) == (False, row.sha256_prefix)
    with pytest.raises(CheckpointError, match="is not the published file"):
        pull(replace(row, sha256_prefix="0" * 64))
    monkeypatch.setattr("zoo.weights.cache.find_spec", lambda name: None)
    with pytest.raises(MissingCapabilityError) as caught:
        pull(row)
    assert "zoo[weights]" in caught.value.hint


def test_the_command_prints_the_path_and_nothing_else(
    server: FileServer, cache: Path, zoo: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(find_weights("s.timm-in1k"), url=server.url, sha256_prefix=DIGEST[:8])
    monkeypatch.setattr("zoo.weights.table.WEIGHTS", (row,))
    answer = zoo("pull", "s")
    assert (answer.code, answer.out) == (0, f"{cache_path(row)}\n")
    assert "fetched, Apache-2.0, 83.9 % top-1" in answer.err
    said = json.loads(zoo("pull", "s.timm-in1k", "--json").out)
    assert (said["sha256"], said["fetched"], said["top1"]) == (DIGEST, False, 0.839)
    assert said["preprocessing"]["image_size"] == 384


def test_an_id_without_weights_at_hand_says_how_to_get_them(
    cache: Path, in_folder: Path, zoo: Callable[..., object]
) -> None:
    answer = zoo("predict", "s", "photo.jpg")
    assert answer.code == 1
    assert "`zoo pull s` fetches published ones, `zoo train s` makes one" in answer.err
    answer = zoo("predict", "s.timm-in1k", "photo.jpg")
    assert answer.code == 1
    assert "`zoo pull s.timm-in1k` fetches them" in answer.err
