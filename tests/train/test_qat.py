"""`zoo train --qat`: resumed to the bit, and refused where it would do nothing or something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from train.session import train_model
from zoo.errors import ZooError
from zoo.weights.checkpoint import read_card


def test_a_resumed_run_has_the_same_weights_and_ranges(
    small: Callable, picture_folder: Path, tmp_path: Path, killed_after: Callable
) -> None:
    train_model(small(picture_folder, tmp_path / "whole", qat=True))
    with killed_after(3):
        train_model(small(picture_folder, tmp_path / "cut", qat=True, save_every_s=0))
    train_model(small(picture_folder, tmp_path / "cut", qat=True, resume=True))
    whole, resumed = (tmp_path / name / "checkpoint.safetensors" for name in ("whole", "cut"))
    weights = load_file(whole), load_file(resumed)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert read_card(whole).ranges == read_card(resumed).ranges != ()


def test_a_head_start_is_not_kept_as_it_was_not_rounded(
    small: Callable, tiny_run: Path, picture_folder: Path, tmp_path: Path
) -> None:
    asked = small(picture_folder, tmp_path, recipe="finetune", qat=True, epochs=2).to_dict()
    outcome = train_model(
        type(small(picture_folder, tmp_path))(**asked | {"model": str(tiny_run), "out": tmp_path / "r"})
    )
    assert outcome.head_start is not None and outcome.best_epoch > 0
    assert read_card(outcome.checkpoint).ranges


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"checkpoint_activations": True}, "does not go with --checkpoint-activations"),
        ({"overrides": ("stages.all.freeze_backbone=true",)}, "has no effect"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    changes: dict[str, object], said: str, small: Callable, picture_folder: Path, tiny_run: Path, tmp_path: Path
) -> None:
    asked = small(picture_folder, tmp_path / "run", qat=True).to_dict() | {"model": str(tiny_run)} | changes
    with pytest.raises(ZooError, match=said):
        train_model(type(small(picture_folder, tmp_path))(**asked | {"out": tmp_path / "run"}))
    assert not (tmp_path / "run").exists()


def test_a_resnet_is_refused(zoo: Callable, in_folder: Path) -> None:
    answer = zoo("train", "resnet50", "--qat", "--epochs", 4, "--device", "cpu")
    assert answer.code == 1 and "is a ResNet" in answer.err
