"""A run says before its first step that its disk is too small, and loses no checkpoint to a full one."""

from __future__ import annotations

import shutil
import tempfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from train.room import room_remark
from train.session import train_model
from zoo.errors import ZooError
from zoo.weights.checkpoint import load_checkpoint

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "said"), [(1000, ""), (999, "saving what --resume needs takes 0.00100 MB")])
def test_a_disk_without_room_for_states_is_told(
    free: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 0, free))
    found = room_remark(tmp_path / "not" / "there", 100)
    assert said in found
    assert bool(said) == bool(found)


def test_a_disk_without_room_for_the_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 0, 99_000_000))
    with pytest.raises(ZooError, match=r"takes 100 MB, and there are 99\.0 MB left"):
        room_remark(tmp_path, 100_000_000)


def test_a_checkpoint_that_cannot_be_written_is_kept_elsewhere(
    small: Callable, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is where the checkpoint should be; the same run elsewhere has the same weights."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "run" / "checkpoint.safetensors").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint.safetensors" / "x").touch()
    monkeypatch.setattr("train.session.move_aside", lambda folder, console: None)
    with pytest.raises(ZooError, match="What was learnt is not lost") as failed:
        train_model(small(picture_folder, tmp_path / "run"))
    (kept,) = (tmp_path / "temporary").glob("zoo-*/checkpoint.safetensors")
    assert str(kept) in failed.value.hint
    rescued, card = load_checkpoint(kept)
    assert card.classes
    assert all(value.isfinite().all() for value in rescued.state_dict().values())
