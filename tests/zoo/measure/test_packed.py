from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo.measure.packed import pack, unpack


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=50))
def test_every_sample_comes_back_to_the_nanosecond_and_in_its_order(samples: list[float]) -> None:
    assert unpack(pack(samples)) == pytest.approx(samples, abs=1e-6)


def test_the_way_the_docstring_reads_them_needs_nothing_of_the_project() -> None:
    text = pack([1.5, 0.25])
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(text)), "u1").reshape(8, -1).T.copy().view("<u8").ravel()
    assert numbers.tolist() == [1_500_000, 250_000]


def test_thousands_of_samples_take_a_few_bytes_each() -> None:
    samples = np.random.default_rng(0).normal(6.9, 0.2, 5000).tolist()
    assert len(pack(samples)) < 5 * len(samples)


@pytest.mark.parametrize("text", ["no base64!", "AAAA", base64.b64encode(zlib.compress(b"123")).decode()])
def test_damaged_samples_are_an_error_of_ours(text: str) -> None:
    with pytest.raises(ZooError, match="damaged"):
        unpack(text)
