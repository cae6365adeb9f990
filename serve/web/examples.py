"""Owns the pictures the page offers to try: unseen ones of the embedded data set, else two photographs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

from PIL import Image

from export.contract import Contract
from zoo.data.open import open_val

DIGITS = tuple("0123456789")
# scikit-learn's sample photographs, CC BY 2.0 (sklearn/datasets/images/README.txt), by what they show.
PHOTOGRAPHS = {"flower.jpg": "a photograph of a flower", "china.jpg": "a photograph of a temple"}
PHOTOGRAPH_WIDTH_PX = 320


@dataclass(frozen=True)
class Example:
    """A picture to try as PNG: what it shows, and its class where the model knows it."""

    title: str
    png: bytes
    class_name: str | None = None


def has_digits(contract: Contract) -> bool:
    """Whether a model is one of the embedded digits; they have no fourth plane."""
    return contract.classes == DIGITS and contract.preprocessing.channels != 4


@cache
def find_examples(contract: Contract) -> tuple[Example, ...]:
    """One held-out picture of each class for a model of the embedded digits; photographs for any other.

    None for a model of four planes: no picture here has a fourth one.
    """
    if contract.preprocessing.channels == 4:
        return ()
    if not has_digits(contract):
        return tuple(_photograph(name, title) for name, title in PHOTOGRAPHS.items())
    pictures = open_val("digits")
    labels = pictures.labels.tolist()
    return tuple(
        Example(name, _png(pictures.open(labels.index(index))), class_name=name)
        for index, name in enumerate(contract.classes)
    )


def _photograph(name: str, title: str) -> Example:
    from sklearn.datasets import load_sample_image  # a second, and only where the page asks for it

    image = Image.fromarray(load_sample_image(name))
    return Example(title, _png(image.resize((PHOTOGRAPH_WIDTH_PX, PHOTOGRAPH_WIDTH_PX * image.height // image.width))))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
