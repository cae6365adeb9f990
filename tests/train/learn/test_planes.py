"""What a run says of pictures whose planes are not those it is asked for, and that it goes on with the same ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from train.learn.planes import check_planes
from train.session import train_model
from zoo.data.pictures import Pictures
from zoo.errors import CheckpointError, DataError


def files(folder: Path, modes: list[str]) -> Pictures:
    paths = []
    for number, mode in enumerate(modes):
        paths.append(folder / f"{number}.png")
        if mode == "broken":
            paths[-1].write_bytes(b"no picture")
        else:
            Image.new(mode, (8, 8)).save(paths[-1])
    return Pictures(str(folder), ("a",), paths, np.zeros(len(paths), np.int64))


def test_pictures_without_the_planes_are_said_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0.png has no fourth plane, it is RGB") as caught:
        check_planes([files(tmp_path, ["RGB"] * 9)], 4)
    assert "--channels" in caught.value.hint


@pytest.mark.parametrize(
    ("modes", "channels"),
    [
        (["RGBA"] * 5, 4),
        (["RGBA", "RGB", "RGB", "RGB"], 4),  # some are left out, one by one, as broken ones are
        (["broken"] * 4, 4),  # that they are broken is another message
        (["RGBA", "L", "RGB", "P"], 3),
        (["RGBA", "L", "RGB", "P"], 1),
    ],
)
def test_whatever_can_be_used_is_not_refused(modes: list[str], channels: int, tmp_path: Path) -> None:
    check_planes([files(tmp_path, modes)], channels)


@pytest.mark.parametrize(("there", "channels"), [(4, 3), (4, 1), (1, 4), (3, 4)])
def test_arrays_with_other_planes_are_refused(there: int, channels: int) -> None:
    arrays = [np.zeros((8, 8, there), np.uint8)] * 6
    with pytest.raises(DataError, match=f"x.npz picture 0 has {there} plane"):
        check_planes([Pictures("x.npz", ("a",), arrays, np.zeros(6, np.int64))], channels)


def test_a_grey_run_resumes_bit_identical_and_not_in_colour(
    small: Callable, tmp_path: Path, killed_after: Callable
) -> None:
    """Digits, which are grey, in one plane; augmented on the device, with workers, as without."""
    sizes = {"batch_size": 128, "channels": 1}
    train_model(small("digits", tmp_path / "whole", **sizes))
    with killed_after(2):
        train_model(small("digits", tmp_path / "cut", **sizes, save_every_s=0))
    with pytest.raises(CheckpointError, match=r"other channels \(1, here 3\)"):
        train_model(small("digits", tmp_path / "cut", **sizes | {"channels": None}, resume=True))
    train_model(small("digits", tmp_path / "cut", **sizes, resume=True, augment_on="device", workers=2))
    whole, cut = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert whole["stem.conv.weight"].shape[1] == 1
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
