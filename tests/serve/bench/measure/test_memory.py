from __future__ import annotations

import pytest

from serve.bench.measure.memory import check_batch, least_batch_bytes
from zoo.errors import ZooError
from zoo.model.variants import VARIANTS, find_variant


def test_a_picture_takes_its_pixels_and_the_maps_of_the_largest_block() -> None:
    # S at 384 px: the first block of stage 2 widens 24 maps of 192 px to 96 of 96 px.
    assert least_batch_bytes(find_variant("s"), 384, 3, 1) == 3 * 384**2 + 4 * (24 * 192**2 + 96 * 96**2)
    assert least_batch_bytes(None, 40, 1, 10) == 10 * (1 + 4) * 40**2  # of an unknown network the pictures alone


def test_a_batch_that_cannot_fit_is_refused_with_one_that_may() -> None:
    each = least_batch_bytes(find_variant("tiny"), 40, 3, 1)
    check_batch(1000, 40, variant=find_variant("tiny"), memory=1000 * each)
    with pytest.raises(ZooError, match=r"1,001 pictures of 40 px at once take .* GB at least") as error:
        check_batch(1001, 40, variant=find_variant("tiny"), memory=1000 * each)
    assert "well below 1,000" in error.value.hint
    check_batch(10**30, 40, on="cuda", memory=0)  # a GPU's own memory is not known here


def test_every_network_is_counted_at_its_own_size() -> None:
    """A single picture of any of them fits into a gigabyte, and takes more than its pixels."""
    for variant in VARIANTS:
        least = least_batch_bytes(variant, variant.eval_size, variant.channels, 1)
        assert 5 * variant.channels * variant.eval_size**2 < least < 1e9
