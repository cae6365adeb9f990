"""Owns how thousands of samples stand in a JSON file: every one of them, in a few bytes each; it judges none.

Nanoseconds as unsigned numbers of 64 bits, little-endian, the first bytes of all of them first, zlib, base64:

    numpy.frombuffer(zlib.decompress(base64.b64decode(text)), "u1").reshape(8, -1).T.copy().view("<u8").ravel()
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from zoo.errors import ZooError
from zoo.rows import Matching

Packed = Annotated[str, Matching(r"[A-Za-z0-9+/]+={0,2}", "samples packed by zoo/measure/packed.py")]


def pack(samples_ms: Sequence[float]) -> str:
    """Samples in milliseconds as a text, to the nanosecond and in the order they were taken."""
    nanoseconds = np.round(np.asarray(samples_ms, dtype=np.float64) * 1e6).astype("<u8")
    columns = nanoseconds.view(np.uint8).reshape(-1, 8).T
    return base64.b64encode(zlib.compress(columns.tobytes(), 9)).decode("ascii")


def unpack(text: str) -> tuple[float, ...]:
    """The samples of `pack`, in milliseconds.

    Raises:
        ZooError: the text is damaged.
    """
    try:
        columns = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8).reshape(8, -1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ZooError(f"The packed samples {text[:20]}… are damaged: {error}.", "Measure again.") from error
    return tuple((columns.T.copy().view("<u8").ravel() / 1e6).tolist())
