"""Files are written whole or not at all, also on a disk that is full: `ulimit -f` stands in for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.files import replacing, write_text

ROOT = Path(__file__).parents[2]
FOREIGN = """
import torch; from zoo.weights.formats.foreign import write_foreign
write_foreign(path, {'a': torch.ones(10**6)})"""
WRITERS = {
    "text": "from zoo.files import write_text; write_text(path, 'x' * 2_000_000)",
    "checkpoint": """
from zoo.model.build import build_network; from zoo.model.variants import find_variant
from zoo.weights.checkpoint import Checkpoint, save_checkpoint
row = find_variant('b0'); network = build_network(row, 2)
card = Checkpoint(variant=row, classes=('a', 'b'), preprocessing=row.preprocessing, padding='same')
save_checkpoint(path, network.state_dict(), card)""",
    "pth": FOREIGN,
    "safetensors": FOREIGN,
}
SUFFIXES = {"text": ".json", "checkpoint": ".safetensors", "pth": ".pth", "safetensors": ".safetensors"}


@pytest.mark.skipif(os.name != "posix", reason="needs limits of processes")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_our_error_and_keeps_the_earlier_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{SUFFIXES[kind]}"
    path.write_bytes(b"earlier")
    code = f"""
import resource, sys; from pathlib import Path; from zoo.errors import ZooError
path = Path({str(path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    {WRITERS[kind].strip().replace(chr(10), chr(10) + "    ")}
except ZooError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"Cannot write {path}" in ended.stdout
    assert "the earlier one. Make room" in ended.stdout
    assert path.read_bytes() == b"earlier"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_an_error_of_ours_goes_through_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="something else"), replacing(tmp_path / "x"):
        raise ZooError("something else")
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_text_can_be_written_about(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "caf\udce9")
    assert (tmp_path / "x").read_text() == "caf\\udce9"
