"""What a state is compared with before its run is resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from train.folds.run import cross_validate
from train.learn.state import FILES
from train.session import train_model
from zoo.errors import CheckpointError, ZooError
from zoo.weights.checkpoint import load_checkpoint, save_checkpoint

COMMAND = ("train", "tiny", "--epochs", 4, "--image-size", 24, "--batch-size", 8, "--workers", 0, "--device", "cpu")


@pytest.fixture
def interrupted(small: Callable, picture_folder: Path, tmp_path: Path, killed_after: Callable) -> Path:
    """A copy of the pictures; the run in `run` beside it has lost its last epochs."""
    data = tmp_path / "data"
    shutil.copytree(picture_folder, data)
    with killed_after(2):
        train_model(small(data, tmp_path / "run", save_every_s=0))
    return data


def swap_name(data: Path) -> None:
    (data / "train/red/003.jpg").rename(data / "train/red/003-b.jpg")


def swap_content(data: Path) -> None:
    shutil.copy(data / "train/red/003.jpg", data / "train/red/004.jpg")


def swap_val(data: Path) -> None:
    shutil.copy(data / "val/red/003.jpg", data / "val/red/004.jpg")


@pytest.mark.parametrize(("swap", "named"), [(swap_name, FILES[0]), (swap_content, FILES[0]), (swap_val, FILES[1])])
def test_a_run_is_not_resumed_on_other_files(
    swap: Callable[[Path], None], named: str, interrupted: Path, small: Callable, zoo: Callable, tmp_path: Path
) -> None:
    """As many files, of the same classes: the swapped ones went unnoticed."""
    swap(interrupted)
    answer = zoo(*COMMAND, "--data", interrupted, "-o", tmp_path / "run", "--resume")
    assert answer.code == 1
    assert f"belongs to a run with other {named}." in " ".join(answer.err.split())
    assert "Traceback" not in answer.err


def test_a_run_is_resumed_on_the_same_files_elsewhere(interrupted: Path, small: Callable, tmp_path: Path) -> None:
    moved = interrupted.rename(tmp_path / "moved")
    assert train_model(small(moved, tmp_path / "run", resume=True)).checkpoint.is_file()


def test_a_state_that_names_no_files_is_resumed_with_a_remark(interrupted: Path, zoo: Callable, tmp_path: Path) -> None:
    path = tmp_path / "run" / "state.pt"
    state = torch.load(path, weights_only=True)
    for key in FILES:
        del state["identity"][key]
    torch.save(state, path)
    answer = zoo(*COMMAND, "--data", interrupted, "-o", tmp_path / "run", "--resume")
    assert answer.code == 0, answer.err
    assert "whether they are the same was not checked" in " ".join(answer.err.split())


def test_a_state_of_other_arrays_is_refused(
    small: Callable, tmp_path: Path, killed_after: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_after(1):
        train_model(small("digits", tmp_path / "run", batch_size=256, image_size=16, save_every_s=0))
    from zoo.data.digits import open_digits

    def changed(split):  # type: ignore[no-untyped-def]
        pictures = open_digits(split)
        pictures.sources[0][0, 0, 0] ^= 1
        return pictures

    monkeypatch.setattr("zoo.data.open.open_digits", changed)
    with pytest.raises(CheckpointError, match="other training files"):
        train_model(small("digits", tmp_path / "run", batch_size=256, image_size=16, resume=True))


def test_a_run_of_another_network_is_refused_whatever_else_is_asked(
    interrupted: Path, small: Callable, tmp_path: Path
) -> None:
    options = replace(small(interrupted, tmp_path / "run", resume=True), model="b0")
    networks = r"other network \(efficientnetv2_tiny, here efficientnetv2_b0\)"
    for extend in (False, True):
        with pytest.raises(CheckpointError, match=networks) as error:
            train_model(replace(options, extend=extend, epochs=6))
        assert "--extend goes on" not in error.value.hint  # it would be refused as well


def test_a_run_from_other_weights_is_refused(
    interrupted: Path, small: Callable, tiny_run: Path, killed_after: Callable, tmp_path: Path
) -> None:
    """Weights are the same wherever they lie; a run from nothing has none."""
    kept, folder = shutil.copytree(tiny_run, tmp_path / "kept"), tmp_path / "run2"
    options = small(interrupted, folder, recipe="folder", save_every_s=0)
    with killed_after(2):
        train_model(replace(options, model=str(kept)))
    model, card = load_checkpoint(kept / "checkpoint.safetensors")
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    save_checkpoint(tmp_path / "others.safetensors", state, card)
    for other in ("tiny", str(tmp_path / "others.safetensors")):
        with pytest.raises(CheckpointError, match="other weights to begin from"):
            train_model(replace(options, model=other, resume=True))
    assert train_model(replace(options, model=str(kept.rename(tmp_path / "moved")), resume=True)).checkpoint.is_file()


@pytest.mark.parametrize("way", [{}, {"resume": True}, {"auto_resume": True}, {"folds": 2}])
def test_weights_that_a_run_needs_are_not_moved_aside(
    way: dict[str, Any], small: Callable, tiny_run: Path, tmp_path: Path
) -> None:
    """With --resume the command would find them no more, the folds not even before, --auto-resume a finished run."""
    own = shutil.copytree(tiny_run, tmp_path / "own")
    options = small("digits", own, **way)
    train = cross_validate if options.folds else train_model
    with pytest.raises(ZooError, match="which this run begins from, is in the folder") as error:
        train(replace(options, model=str(own)))
    assert str(tmp_path / "own-2") in error.value.hint
    with pytest.raises(ZooError, match="which this run distils from, is in the folder"):
        train(replace(options, teacher=str(own / "checkpoint.safetensors")))
    assert not (tmp_path / "own.1").exists()
