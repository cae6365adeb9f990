"""Owns the pictures the page offers to try: unseen ones of the embedded data set; none for models of other classes."""

from __future__ import annotations

import io
from functools import cache

from export.contract import Contract
from zoo.data.open import open_val

DIGITS = tuple("0123456789")


def has_examples(contract: Contract) -> bool:
    """Whether `find_examples` would find any; reads no data. Digits have no fourth plane."""
    return contract.classes == DIGITS and contract.preprocessing.channels != 4


@cache
def find_examples(contract: Contract) -> dict[str, bytes]:
    """One held-out picture as PNG by the class it truly shows, for a model of the embedded digits; else nothing."""
    if not has_examples(contract):
        return {}
    pictures = open_val("digits")
    labels = pictures.labels.tolist()
    examples = {}
    for index, name in enumerate(contract.classes):
        buffer = io.BytesIO()
        pictures.open(labels.index(index)).save(buffer, "PNG")
        examples[name] = buffer.getvalue()
    return examples
