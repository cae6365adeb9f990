from __future__ import annotations

from dataclasses import replace

import pytest

from serve.bench.measure.places import OPERATORS, form_of, places, swapped
from zoo.model.counts import parts
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, find_variant

S = find_variant("s")
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


@pytest.mark.parametrize(("se", "expected"), [("both", {0.25}), ("none", {0.0})])
def test_both_forms_or_neither_may_have_the_squeeze(se: str, expected: set[float]) -> None:
    forms = [form_of(S, stage, operator, se=se) for stage in S.stages for operator in OPERATORS]  # type: ignore[arg-type]
    assert {form.se_ratio for form in forms} == expected


def test_a_kernel_asked_for_is_both_forms() -> None:
    stage = S.stages[0]
    assert {form_of(S, stage, operator, kernel_size=5).kernel_size for operator in OPERATORS} == {5}


def test_a_swap_changes_one_stage_and_swapped_again_it_is_the_network() -> None:
    for index in range(1, len(S.stages) + 1):
        other = swapped(S, index)
        changed = [i for i, both in enumerate(zip(S.stages, other.stages, strict=True), start=1) if both[0] != both[1]]
        assert changed == [index]
        assert other.stages[index - 1].operator != S.stages[index - 1].operator
        assert swapped(other, index) == S
