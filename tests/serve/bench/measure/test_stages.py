from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.bench.measure.places import OPERATORS, places
from serve.bench.measure.ratio import Ratio
from serve.bench.measure.stage_rows import Exchange, Peaks
from serve.bench.measure.stages import FRAME, StageRow, StagesData, stage_row
from tests.serve.bench.measure.made_rounds import rounds_of
from zoo.model.counts import parts
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, find_variant

S = find_variant("s")
EFFICIENTNETS = [variant for variant in VARIANTS if not variant.is_resnet]
Medians = tuple[float, ...]


def a_row(
    mbconv: Medians, fused: Medians, *, frame: float = 0.0, index: int = 0, batch_size: int = 1, robbed: bool = False
) -> StageRow:
    """A row of stage `index` + 1 of S whose rounds had these medians, the frame in them."""
    rounds = rounds_of({"mbconv": mbconv, "fused_mbconv": fused, FRAME: [frame] * len(mbconv)}, robbed=robbed)
    return stage_row(S, list(places(S, 384))[index], rounds, batch_size=batch_size, precision="fp32")


def some_data(*rows: StageRow, **fields: object) -> StagesData:
    facts = {"variant": S, "image_size": 384, "batch_size": 1, "precision": "fp32", "gpu": None, "gpu_reason": "none"}
    return StagesData(**facts | {"rows": rows, "engine": "ort-cpu"} | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", EFFICIENTNETS, ids=lambda variant: variant.id)
def test_the_networks_own_form_costs_what_its_table_says(variant: Variant) -> None:
    rounds = rounds_of({"mbconv": [1.0] * 3, "fused_mbconv": [1.0] * 3, FRAME: [0.1] * 3})
    for place, part in zip(places(variant, variant.eval_size), list(parts(variant))[1:-1], strict=True):
        own = stage_row(variant, place, rounds, batch_size=1, precision="fp32").form(place.stage.operator)
        assert (own.num_params, own.macs) == (part.num_params, part.macs)


def test_stage_one_has_both_forms_though_it_does_not_expand() -> None:
    row = a_row((2.0, 2.0, 2.0), (1.0, 1.0, 1.0))
    assert row.expand_ratio == 1
    # By hand, per block at 192 px: depthwise 24·9, project 24·24, squeeze 2·24·6; fused 24·24·9. Two blocks each.
    assert row.mbconv.macs == 2 * ((24 * 9 + 24 * 24) * 192**2 + 2 * 24 * 6)
    assert row.fused_mbconv.macs == 2 * 24 * 24 * 9 * 192**2


def test_the_frame_is_taken_off_every_round() -> None:
    row = a_row((3.0, 3.2, 3.4), (2.0, 2.0, 2.0), frame=1.0)
    assert row.mbconv.round_p50_ms == pytest.approx((2.0, 2.2, 2.4))
    assert (row.mbconv.ms, row.fused_mbconv.ms, row.frame_ms) == (pytest.approx(2.2), pytest.approx(1.0), 1.0)
    assert row.mbconv.latency.p50_ms == pytest.approx(3.2)  # as called
    assert row.fused_speedup == pytest.approx(2.2, rel=0.05)


def test_a_stage_that_drowns_in_its_frame_has_no_verdict() -> None:
    row = a_row((1.01, 1.02, 0.99), (1.03, 1.0, 1.02), frame=1.0)
    assert (row.ratio, row.judged, row.winner, row.verdict) == (None, None, "unclear", "unclear")
    assert row.mbconv.ms > 0  # a figure all the same, of what the clock could tell


def test_achieved_speed_counts_the_batch_and_stands_under_the_roof() -> None:
    one, many = a_row((2.0,) * 3, (1.0,) * 3), a_row((2.0,) * 3, (1.0,) * 3, batch_size=8)
    assert one.mbconv.gmacs_per_s == pytest.approx(one.mbconv.macs / 2e-3 / 1e9)
    assert many.mbconv.gmacs_per_s == pytest.approx(8 * one.mbconv.gmacs_per_s)
    assert many.mbconv.macs == one.mbconv.macs
    form = one.fused_mbconv
    assert form.flops_per_s == pytest.approx(2 * form.macs / 1e-3)
    assert form.intensity == pytest.approx(2 * form.macs / form.bytes_moved)
    peaks = Peaks(flops_per_s=4 * form.flops_per_s, flops_by="x", bytes_per_s=1e15, bytes_by="y")
    assert form.roof_share(peaks) == pytest.approx(0.25)
    assert form.roof_share(None) is None


@pytest.mark.parametrize(
    ("mbconv", "fused", "winner", "verdict"),
    [
        ((1.8, 1.81, 1.82) * 4, (1.0, 1.0, 1.0) * 4, "fused_mbconv", "Fused-MBConv 1.8× faster"),
        ((1.0, 1.0, 1.01) * 4, (2.5, 2.5, 2.52) * 4, "mbconv", "MBConv 2.5× faster"),
        ((1.0, 1.5, 0.7) * 4, (1.2, 1.0, 1.1) * 4, "unclear", "unclear"),
        ((1.0, 1.0, 1.0) * 4, (1.01, 1.01, 1.01) * 4, "even", "even"),  # apart, but by 1 %
        ((1.0, 1.0, 1.0) * 4, (1.04, 1.04, 1.04) * 4, "mbconv", "MBConv 1.04× faster"),
    ],
)
def test_a_verdict_is_that_of_the_interval(mbconv: Medians, fused: Medians, winner: str, verdict: str) -> None:
    row = a_row(mbconv, fused)
    assert (row.winner, row.verdict) == (winner, verdict)


TIMES = st.lists(st.floats(0.01, 100), min_size=4, max_size=4).map(tuple)


@given(TIMES, TIMES)
def test_the_verdict_agrees_with_the_ratio(mine: Medians, other: Medians) -> None:
    row, mirror = a_row(mine, other), a_row(other, mine)
    assert row.fused_speedup == pytest.approx(1 / mirror.fused_speedup)
    if row.winner == "fused_mbconv":
        assert row.fused_speedup > 1
    if row.winner == "mbconv":
        assert row.fused_speedup < 1


@given(TIMES, TIMES, st.integers(0, 5))
def test_a_row_survives_json(mbconv: Medians, fused: Medians, index: int) -> None:
    row = a_row(mbconv, fused, index=index)
    assert StageRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_a_result_of_the_first_version_is_read_and_judged_by_its_rounds() -> None:
    row = a_row((2.0, 2.1, 2.0, 2.0, 2.05), (1.0, 1.0, 1.01, 1.0, 1.0))
    stored = row.to_dict() | {"winner": "mbconv", "verdict": "MBConv 9× faster"}
    for form in OPERATORS:
        stored[form] = {name: value for name, value in stored[form].items() if name not in ("bytes_moved", "max_error")}
    stored = {name: value for name, value in stored.items() if name not in ("ratio", "frame_ms", "rounds")}
    old = StageRow.from_dict(stored)
    assert (old.winner, old.verdict) == ("fused_mbconv", "Fused-MBConv 2.0× faster")
    assert old.mbconv.intensity is None
    facts = {"variant": S.to_dict(), "image_size": 384, "batch_size": 1, "precision": "tf32", "gpu": None}
    data = StagesData.from_dict(facts | {"gpu_reason": "", "rows": [stored]})
    assert (data.engine, data.se, data.quiet, data.warning) == ("torch", "paper", None, "")


def test_totals_add_stages_up_four_ways() -> None:
    rows = [a_row((2.0,) * 3, (1.0,) * 3, index=0), a_row((3.0,) * 3, (5.0,) * 3, index=2)]
    data = some_data(*rows)
    assert data.total_ms == pytest.approx({"paper": 6.0, "mbconv": 5.0, "fused_mbconv": 6.0, "fastest": 4.0})
    assert StagesData.from_dict(json.loads(json.dumps(data.to_dict()))) == data


def test_a_busy_machine_is_told() -> None:
    quiet, busy = a_row((2.0,) * 3, (1.0,) * 3), a_row((2.0,) * 3, (1.0,) * 3, index=1, robbed=True)
    assert (some_data(quiet).quiet, some_data(quiet).warning) == (True, "")
    assert some_data(quiet, busy).quiet is False
    assert "not quiet: 3 of 3 rounds" in some_data(quiet, busy).warning
    assert some_data(quiet, busy).to_dict()["quiet"] is False


def test_conditions_name_the_engine_and_what_was_asked_for_beside_the_paper() -> None:
    data = some_data(a_row((2.0,) * 3, (1.0,) * 3))
    assert data.setting == "s at 384 px, batch 1, fp32, ort-cpu"
    assert replace(data, se="both", kernel_size=5).conditions.endswith("ort-cpu, SE in both, kernel 5")


def test_methods_disagree_only_where_they_call_different_forms_faster() -> None:
    fused, mbconv = (Ratio(value=v, low=v * 0.99, high=v * 1.01, rounds=10, paired=True) for v in (0.5, 2.0))
    unclear = Ratio(value=1.0, low=0.9, high=1.1, rounds=10, paired=True)
    row = a_row((2.0,) * 10, (1.0,) * 10)  # isolated: Fused-MBConv

    def with_methods(exchange: Ratio, in_place: Ratio | None) -> StagesData:
        facts = {"index": 1, "own_operator": "fused_mbconv", "own_ms": 9.0, "other_ms": 10.0, "in_place": in_place}
        return some_data(row, exchange=(Exchange(ratio=exchange, **facts),))  # type: ignore[arg-type]

    assert not with_methods(fused, fused).disagreement(1)
    assert not with_methods(unclear, None).disagreement(1)
    assert with_methods(mbconv, fused).disagreement(1)
    assert with_methods(fused, mbconv).winners(1) == {
        "isolated": "fused_mbconv",
        "in place": "mbconv",
        "by exchange": "fused_mbconv",
    }
    assert not some_data(row).disagreement(1)
