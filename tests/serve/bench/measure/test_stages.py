from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.bench.measure.stages import OPERATORS, StageRow, StagesData, form_of, places, stage_row
from serve.bench.measure.timing import Samples
from zoo.model.counts import parts
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, find_variant

S = find_variant("s")


def a_row(mbconv: tuple[float, ...], fused: tuple[float, ...], *, index: int = 0, batch_size: int = 1) -> StageRow:
    """A row of stage `index` + 1 of S whose rounds had these medians."""
    visits = [[Samples((ms, ms, ms), 3 * ms) for ms in medians] for medians in (mbconv, fused)]
    return stage_row(S, list(places(S, 384))[index], batch_size, visits)


EFFICIENTNETS = [variant for variant in VARIANTS if not variant.is_resnet]


@pytest.mark.parametrize("variant", EFFICIENTNETS, ids=lambda variant: variant.id)
def test_a_stage_is_asked_at_its_own_place(variant: Variant) -> None:
    size = variant.eval_size
    listed = list(parts(variant, image_size=size))
    for place, part, before in zip(places(variant, size), listed[1:-1], listed, strict=False):
        assert (place.index, place.in_channels, place.out_size) == (part.index, part.in_channels, part.size)
        assert place.in_size == before.size


def test_the_maps_of_s_are_the_papers() -> None:
    assert [place.out_size for place in places(S, 384)] == [192, 96, 48, 24, 24, 12]


def test_only_the_operator_and_its_squeeze_change() -> None:
    for stage in S.stages:
        for operator in OPERATORS:
            form = form_of(S, stage, operator)
            assert form.operator == operator
            assert form.se_ratio == (0.25 if operator == "mbconv" else 0.0)
            assert replace(form, operator=stage.operator, se_ratio=stage.se_ratio) == stage


def test_the_squeeze_is_the_networks_own() -> None:
    lite = find_variant("lite0")
    assert {form_of(lite, stage, "mbconv").se_ratio for stage in lite.stages} == {0.0}
    only_fused = replace(S, stages=S.stages[:3])
    assert {form_of(only_fused, stage, "mbconv").se_ratio for stage in only_fused.stages} == {0.25}
    squeezed = replace(S, stages=tuple(replace(stage, se_ratio=0.25) for stage in S.stages))
    assert {form_of(squeezed, stage, "fused_mbconv").se_ratio for stage in squeezed.stages} == {0.25}


@pytest.mark.parametrize("variant", EFFICIENTNETS, ids=lambda variant: variant.id)
def test_the_networks_own_form_costs_what_its_table_says(variant: Variant) -> None:
    listed = list(parts(variant))[1:-1]
    for place, part in zip(places(variant, variant.eval_size), listed, strict=True):
        own = stage_row(variant, place, 1, [[Samples((1.0,), 1.0)]] * 2).form(place.stage.operator)
        assert (own.num_params, own.macs) == (part.num_params, part.macs)


def test_stage_one_has_both_forms_though_it_does_not_expand() -> None:
    row = a_row((2.0, 2.0, 2.0), (1.0, 1.0, 1.0))
    assert row.expand_ratio == 1
    # By hand, per block at 192 px: depthwise 24·9, project 24·24, squeeze 2·24·6; fused 24·24·9. Two blocks each.
    assert row.mbconv.macs == 2 * ((24 * 9 + 24 * 24) * 192**2 + 2 * 24 * 6)
    assert row.fused_mbconv.macs == 2 * 24 * 24 * 9 * 192**2


def test_achieved_macs_count_the_batch() -> None:
    one, many = a_row((2.0,) * 3, (1.0,) * 3), a_row((2.0,) * 3, (1.0,) * 3, batch_size=8)
    assert one.mbconv.gmacs_per_s == pytest.approx(one.mbconv.macs / 2e-3 / 1e9)
    assert many.mbconv.gmacs_per_s == pytest.approx(8 * one.mbconv.gmacs_per_s)
    assert many.mbconv.macs == one.mbconv.macs


@pytest.mark.parametrize(
    ("mbconv", "fused", "winner", "verdict"),
    [
        ((1.8, 1.81, 1.82), (1.0, 1.0, 1.0), "fused_mbconv", "Fused-MBConv 1.8× faster"),
        ((1.0, 1.0, 1.1), (2.5, 2.5, 2.6), "mbconv", "MBConv 2.5× faster"),
        ((1.0, 1.05, 1.3), (1.2, 1.4, 1.5), "even", "even"),  # the rounds overlap
        ((1.0, 1.0, 1.0), (1.01, 1.01, 1.01), "even", "even"),  # apart, but by 1 %
        ((1.0, 1.0, 1.0), (1.04, 1.04, 1.04), "mbconv", "MBConv 1.04× faster"),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), "even", "even"),
    ],
)
def test_a_winner_is_more_than_the_spread(
    mbconv: tuple[float, ...], fused: tuple[float, ...], winner: str, verdict: str
) -> None:
    row = a_row(mbconv, fused)
    assert (row.winner, row.verdict) == (winner, verdict)


TIMES = st.lists(st.floats(0.01, 100), min_size=3, max_size=7).map(tuple)


@given(TIMES, TIMES)
def test_the_verdict_is_symmetric_and_agrees_with_the_ratio(mine: tuple[float, ...], other: tuple[float, ...]) -> None:
    swapped = {"mbconv": "fused_mbconv", "fused_mbconv": "mbconv", "even": "even"}
    row, mirror = a_row(mine, other), a_row(other, mine)
    assert mirror.winner == swapped[row.winner]
    if row.winner == "fused_mbconv":
        assert row.fused_speedup > 1
    if row.winner == "mbconv":
        assert row.fused_speedup < 1


@given(TIMES, TIMES, st.integers(0, 5))
def test_a_row_survives_json(mbconv: tuple[float, ...], fused: tuple[float, ...], index: int) -> None:
    row = a_row(mbconv, fused, index=index)
    assert StageRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_a_stored_verdict_is_judged_again() -> None:
    stored = a_row((2.0,) * 3, (1.0,) * 3).to_dict() | {"winner": "mbconv", "verdict": "MBConv 9× faster"}
    assert StageRow.from_dict(stored).winner == "fused_mbconv"


def test_totals_add_stages_up_four_ways() -> None:
    rows = [a_row((2.0,) * 3, (1.0,) * 3, index=0), a_row((3.0,) * 3, (5.0,) * 3, index=2)]
    data = StagesData(
        variant=S, image_size=384, batch_size=1, precision="fp32", rows=tuple(rows), gpu=None, gpu_reason="no GPU"
    )
    assert data.total_ms == {"paper": 6.0, "mbconv": 5.0, "fused_mbconv": 6.0, "fastest": 4.0}
    assert StagesData.from_dict(json.loads(json.dumps(data.to_dict()))) == data
