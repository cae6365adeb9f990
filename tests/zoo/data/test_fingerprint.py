"""What tells one set of pictures from another, and what does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zoo.data.fingerprint import fingerprint
from zoo.data.open import open_splits


def prints(data: Path | str) -> tuple[str, str]:
    train, val = open_splits(str(data))
    return fingerprint(train), fingerprint(val)


@pytest.fixture
def folder(picture_folder: Path, tmp_path: Path) -> Path:
    """A folder of three classes that is not divided, six pictures each."""
    return Path(shutil.copytree(picture_folder / "val", tmp_path / "a"))


def test_a_moved_or_relative_folder_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prints(folder)
    monkeypatch.chdir(folder.parent)
    assert prints("a") == prints("./a/") == before
    assert prints(folder.rename(folder.parent / "b")) == before


def test_another_name_or_size_is_another_set(folder: Path) -> None:
    found = {prints(folder)}
    (folder / "red" / "003.jpg").rename(folder / "red" / "003a.jpg")
    found.add(prints(folder))
    with (folder / "red" / "003a.jpg").open("ab") as handle:
        handle.write(b"\0")
    found.add(prints(folder))
    (folder / "red" / "003a.jpg").rename(folder / "red" / os.fsdecode(b"caf\xe9.jpg"))
    found.add(prints(folder))
    assert len(found) == 4


def test_no_listing_is_repeated_for_it(folder: Path) -> None:
    """Sizes are those of the listing: a million files are not asked for twice."""
    train, _ = open_splits(str(folder))
    before = fingerprint(train)
    shutil.rmtree(folder)
    assert fingerprint(train) == before
    assert train.sizes is not None
    assert len(train.sizes) == len(train) == 15
    assert fingerprint(train.head(3)) != before


def test_links_count_as_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    before = prints(folder)
    (folder / "red" / "003.jpg").rename(tmp_path / "elsewhere.jpg")
    (folder / "red" / "003.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    assert prints(folder) == before


def test_shards_are_the_same_on_a_server(folder: Path, zoo: Callable, serve_folder: Callable, tmp_path: Path) -> None:
    assert zoo("data", "pack", folder, "-o", tmp_path / "packed").code == 0
    with serve_folder(tmp_path / "packed") as server:
        assert prints(server.url) == prints(tmp_path / "packed")
    before = prints(tmp_path / "packed")
    (folder / "red" / "000.jpg").write_bytes((folder / "blue" / "000.jpg").read_bytes())
    shutil.rmtree(tmp_path / "packed")
    assert zoo("data", "pack", folder, "-o", tmp_path / "packed").code == 0
    assert prints(tmp_path / "packed") != before


def test_arrays_are_known_by_their_pixels() -> None:
    train, _ = open_splits("digits")
    changed = [*train.sources[:-1], np.array(train.sources[-1]) ^ np.uint8(1)]
    assert fingerprint(train) == fingerprint(replace(train, sources=list(train.sources)))
    assert fingerprint(replace(train, sources=changed)) != fingerprint(train)
