"""Owns the pictures the page offers to try: unseen ones of the embedded data set; none where the model knows others."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

from PIL import Image

from zoo.data.open import open_val

DIGITS = tuple("0123456789")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture as PNG bytes, and the class it truly shows."""

    class_name: str
    png: bytes


def has_examples(classes: tuple[str, ...]) -> bool:
    """Whether `find_examples` would find any; reads no data."""
    return classes == DIGITS


@cache
def find_examples(classes: tuple[str, ...]) -> tuple[Example, ...]:
    """One held-out picture per class for a model of the embedded digits; empty for every other model."""
    if not has_examples(classes):
        return ()
    pictures = open_val("digits")
    labels = pictures.labels.tolist()
    return tuple(_example(name, pictures.open(labels.index(index))) for index, name in enumerate(classes))


def _example(class_name: str, image: Image.Image) -> Example:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Example(class_name=class_name, png=buffer.getvalue())
