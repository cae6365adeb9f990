"""Shared memory of clients: tensors through it, and everything that must not be reached through it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.core.failures import ForbiddenError, ProtocolError
from serve.regions import FOLDER, MOST_REGIONS, Regions

pytestmark = pytest.mark.skipif(not os.access(FOLDER, os.W_OK), reason="no /dev/shm to write to")


@pytest.fixture
def memory() -> Iterator[Path]:
    path = FOLDER / f"zoo-test-{os.getpid()}"
    path.write_bytes(bytes(range(256)))
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def regions() -> Iterator[Regions]:
    made = Regions(allowed=True)
    yield made
    made.unregister()


def test_parts_are_read_and_written(regions: Regions, memory: Path) -> None:
    regions.register("in", f"/{memory.name}", 16, 100)
    assert regions.read("in", 4, 3) == bytes([20, 21, 22])
    regions.write("in", 0, 2, b"ab")
    assert memory.read_bytes()[15:19] == b"\x0fab\x12"
    assert regions.status("in") == [{"name": "in", "key": f"/{memory.name}", "offset": 16, "byte_size": 100}]
    regions.unregister("in")
    assert regions.status() == []
    regions.unregister("in")


def test_nothing_outside_a_region_is_reached(regions: Regions, memory: Path) -> None:
    regions.register("in", memory.name, 16, 100)
    for offset, length in ((98, 3), (0, 101), (10**12, 1)):
        with pytest.raises(ProtocolError, match="not within"):
            regions.read("in", offset, length)
    with pytest.raises(ProtocolError, match="has 3 bytes"):
        regions.write("in", 0, 2, b"abc")
    with pytest.raises(ProtocolError, match="No shared memory is registered"):
        regions.read("out", 0, 1)


@pytest.mark.parametrize(
    "key", ["/../etc/passwd", "..", "/a/b", "", "/", "/\x00", "/" + "a" * 300, "/.hidden", "/nope"]
)
def test_a_key_is_only_a_file_of_that_folder(regions: Regions, key: str) -> None:
    with pytest.raises(ProtocolError):
        regions.register("in", key, 0, 1)


def test_links_and_too_small_files_are_not_opened(regions: Regions, memory: Path, tmp_path: Path) -> None:
    link = FOLDER / f"{memory.name}-link"
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(bytes(10))
    try:
        with pytest.raises(ProtocolError, match="can be opened"):
            regions.register("in", link.name, 0, 1)
    finally:
        link.unlink()
    for offset, size in ((0, 257), (256, 1), (-1, 4), (0, 0)):
        with pytest.raises(ProtocolError):
            regions.register("in", memory.name, offset, size)


def test_memory_that_shrinks_is_an_error_and_nothing_more(regions: Regions, memory: Path) -> None:
    regions.register("in", memory.name, 0, 256)
    os.truncate(memory, 10)
    with pytest.raises(ProtocolError, match="smaller"):
        regions.read("in", 0, 256)
    with pytest.raises(ProtocolError, match="smaller"):
        regions.write("in", 100, 4, b"abcd")
    assert memory.stat().st_size == 10


def test_a_name_is_taken_once_and_their_number_is_bounded(regions: Regions, memory: Path) -> None:
    for number in range(MOST_REGIONS):
        regions.register(str(number), memory.name, 0, 1)
    with pytest.raises(ProtocolError, match="already"):
        regions.register("0", memory.name, 0, 1)
    with pytest.raises(ProtocolError, match="no more"):
        regions.register("more", memory.name, 0, 1)


def test_without_the_option_nothing_is_taken(memory: Path) -> None:
    regions = Regions()
    for call in (lambda: regions.register("in", memory.name, 0, 1), regions.status, lambda: regions.read("in", 0, 1)):
        with pytest.raises(ForbiddenError, match="--allow-shared-memory"):
            call()


def test_tritons_client_passes_tensors_in_it(start_server: Any, fake: Any) -> None:
    http = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'", exc_type=ImportError)
    shm = pytest.importorskip("tritonclient.utils.shared_memory", exc_type=ImportError)
    running = start_server()
    running.server.config.app.state.models.regions.allowed = True
    pictures = np.stack([np.full((8, 8, 3), byte, np.uint8) for byte in (42, 7)])
    handle = shm.create_shared_memory_region("both", f"/zoo-triton-{os.getpid()}", 1000)
    try:
        shm.set_shared_memory_region(handle, [pictures])
        with http.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
            client.register_system_shared_memory("both", f"/zoo-triton-{os.getpid()}", 1000)
            assert client.get_system_shared_memory_status()[0]["byte_size"] == 1000
            given = http.InferInput("pictures", [2, 8, 8, 3], "UINT8")
            given.set_shared_memory("both", pictures.nbytes)
            wanted = http.InferRequestedOutput("logits", binary_data=True)
            wanted.set_shared_memory("both", 80, offset=500)
            found = client.infer("fake", [given], outputs=[wanted])
            assert set(found.get_output("logits")) == {"name", "datatype", "shape"}
            logits = shm.get_contents_as_numpy(handle, np.float32, [2, 10], offset=500)
            assert np.array_equal(logits, [fake.logits_of(42), fake.logits_of(7)])
            client.unregister_system_shared_memory("both")
            assert client.get_system_shared_memory_status() == []
            with pytest.raises(http.InferenceServerException, match="No shared memory is registered"):
                client.infer("fake", [given])
    finally:
        shm.destroy_shared_memory_region(handle)
