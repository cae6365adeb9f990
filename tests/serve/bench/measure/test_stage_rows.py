from __future__ import annotations

import pytest

from serve.bench.measure.ratio import Ratio
from serve.bench.measure.stage_rows import Exchange, Peaks, advantage, verdict_of, winner_of


def a_ratio(low: float, value: float, high: float) -> Ratio:
    return Ratio(value=value, low=low, high=high, rounds=10, paired=True)


@pytest.mark.parametrize(
    ("ratio", "winner", "verdict"),
    [
        (a_ratio(0.49, 0.5, 0.51), "fused_mbconv", "Fused-MBConv 2.0× faster"),
        (a_ratio(2.4, 2.5, 2.6), "mbconv", "MBConv 2.5× faster"),
        (a_ratio(0.99, 1.0, 1.01), "even", "even"),
        (a_ratio(0.9, 1.0, 1.1), "unclear", "unclear"),
        (a_ratio(0.7, 0.9, 1.2), "unclear", "unclear"),
        (None, "unclear", "unclear"),
    ],
)
def test_a_verdict_is_the_ratios(ratio: Ratio | None, winner: str, verdict: str) -> None:
    assert (winner_of(ratio), verdict_of(ratio)) == (winner, verdict)
    assert bool(advantage(ratio)) is ("faster" in verdict)


def test_the_roof_rises_with_the_intensity_up_to_the_peak() -> None:
    peaks = Peaks(flops_per_s=100e9, flops_by="a product", bytes_per_s=10e9, bytes_by="a copy")
    assert peaks.ridge == 10
    assert peaks.attainable(1) == 10e9
    assert peaks.attainable(10) == peaks.attainable(50) == 100e9


@pytest.mark.parametrize(("own", "saved"), [("mbconv", -2.0), ("fused_mbconv", 2.0)])
def test_what_fusing_saves_is_told_the_same_way_round(own: str, saved: float) -> None:
    row = Exchange(index=1, own_operator=own, own_ms=10.0, other_ms=12.0, ratio=a_ratio(1.0, 1.2, 1.3))  # type: ignore[arg-type]
    assert row.saved_ms == saved
