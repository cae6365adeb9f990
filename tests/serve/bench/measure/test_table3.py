from __future__ import annotations

import pytest

from serve.bench.measure.table3 import TABLE_3, Published, published, published_order
from zoo.model.counts import parts
from zoo.model.variants import find_variant


@pytest.mark.parametrize("row", TABLE_3, ids=lambda row: row.fused)
def test_our_networks_have_the_papers_parameters(row: Published) -> None:
    """The paper states neither kernel nor SE of fused blocks; B4 and 1–3 are met to its rounding."""
    listed = list(parts(find_variant(row.variant), image_size=380))
    params, macs = sum(part.num_params for part in listed) / 1e6, sum(part.macs for part in listed) / 1e9
    nearest = {"none": 0.05, "1–3": 0.05, "1–5": 0.25, "1–7": 2.5}[row.fused]
    assert params == pytest.approx(row.params_m, abs=nearest)
    assert macs == pytest.approx(row.macs_b, rel=0.03)


def test_no_row_is_nearer_to_the_paper_than_its_own() -> None:
    counts = {row.variant: sum(part.num_params for part in parts(find_variant(row.variant))) / 1e6 for row in TABLE_3}
    for row in TABLE_3:
        assert min(counts, key=lambda variant: abs(counts[variant] - row.params_m)) == row.variant


def test_the_papers_order() -> None:
    assert published_order("V100") == ["1–5", "1–3", "1–7", "none"]
    assert published_order("TPUv3") == ["1–3", "1–5", "none", "1–7"]
    with pytest.raises(KeyError):
        published("s")
