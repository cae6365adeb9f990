"""Owns the pictures that need no data of one's own: scikit-learn's digits, and its photographs cut into tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.data.pictures import Pictures, Split
from zoo.data.planes import in_planes
from zoo.files import replacing
from zoo.model.spec import RGB

# Of the digits; scikit-learn, which has them, takes more than a second to import.
NUM_TRAIN, NUM_VAL, NUM_CLASSES = 1437, 360, 10


def sample_photographs(channels: int = RGB) -> Pictures:
    """Two photographs that come with scikit-learn, cut into tiles: real pictures for parity where no data is known.

    They are RGB, which becomes grey where that is wanted; of four planes the last is their grey.
    """
    from sklearn.datasets import load_sample_images

    tiles = [
        np.ascontiguousarray(photo[top : top + 200, left : left + 200])
        for photo in load_sample_images().images
        for top in range(0, photo.shape[0] - 199, 113)
        for left in range(0, photo.shape[1] - 199, 110)
    ]
    if channels == 4:
        tiles = [np.concatenate([tile, in_planes(tile, 1, name="")], axis=-1) for tile in tiles]
    return Pictures("sample photographs", ("unknown",), tiles, np.zeros(len(tiles), np.int64))


def write_samples(folder: Path, count: int) -> list[Path]:
    """Write `count` digits of the validation split as PNG files, a folder for each class; returns the paths.

    They come in the split's order, in which the classes are mixed: 200 of them are 16 to 25 of each class.
    """
    digits = open_digits("val")
    paths = []
    for index in range(count):
        name = digits.classes[digits.labels[index]]
        path = folder / name / f"digit-{name}-{index:03d}.png"
        with replacing(path) as temporary:
            digits.open(index).save(temporary, format="PNG")
        paths.append(path)
    return paths


def open_digits(split: Split) -> Pictures:
    """scikit-learn's digits: 1,797 real handwritten digits, 8×8 grey (UCI, CC BY 4.0); 1,437 train, 360 val."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    grey = np.round(raw.images * (255.0 / 16.0)).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    parts = train_test_split(np.arange(len(rgb)), test_size=NUM_VAL, stratify=raw.target, random_state=0)
    chosen = parts[0 if split == "train" else 1]
    classes = tuple(str(name) for name in raw.target_names)
    return Pictures("digits", classes, list(rgb[chosen]), raw.target[chosen].astype(np.int64), flip_keeps_class=False)
