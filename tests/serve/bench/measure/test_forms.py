from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from serve.bench.measure.forms import NUM_ANSWERS, PictureStage, build_form, contract_of, picture_size
from serve.bench.measure.places import OPERATORS, StagePlace, form_of, places
from zoo.model.spec import Operator
from zoo.model.variants import find_variant

TINY = find_variant("tiny")
PLACES = list(places(TINY, 40))


def a_form(place: StagePlace, operator: Operator) -> PictureStage:
    return build_form(TINY, place, form_of(TINY, place.stage, operator))


def planes(place: StagePlace, batch_size: int = 2) -> torch.Tensor:
    return torch.randn(batch_size, 3, picture_size(place), picture_size(place))


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_form_has_the_layers_of_its_operator_by_the_networks_own_names(operator: Operator) -> None:
    module = a_form(PLACES[2], operator)
    names = {name.split(".")[4] for name, _ in module.named_modules() if name.startswith("stages.3.block.0.")}
    mbconv, fused = {"expand", "depthwise", "se", "project"}, {"fused", "project"}
    assert names - {"stochastic_depth"} == (mbconv if operator == "mbconv" else fused)
    assert not module.training
    assert len(module.blocks()) == 2
    assert len(module.residual_norms()) == 1  # the second block's


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"stage {place.index}")
def test_a_stage_gets_the_map_of_its_place(place: StagePlace) -> None:
    module = a_form(place, place.stage.operator)
    seen: list[tuple[torch.Size, torch.Size]] = []
    module.stages[str(place.index)].register_forward_hook(
        lambda _, taken, made: seen.append((taken[0].shape, made.shape))
    )
    with torch.no_grad():
        answers = module(planes(place))
    assert seen == [
        (
            torch.Size((2, place.in_channels, place.in_size, place.in_size)),
            torch.Size((2, place.stage.out_channels, place.out_size, place.out_size)),
        )
    ]
    assert answers.shape == (2, NUM_ANSWERS)
    assert len(contract_of(module, place).classes) == NUM_ANSWERS


def test_the_frame_is_what_is_left_without_the_stage() -> None:
    frame = build_form(TINY, PLACES[1], None)
    with torch.no_grad():
        assert frame.features(planes(PLACES[1])).shape == (2, PLACES[1].in_channels)
    assert [name for name, module in frame.named_modules() if isinstance(module, nn.Conv2d)] == ["entry"]


def test_a_map_smaller_than_any_picture_comes_of_a_larger_one() -> None:
    place = StagePlace(index=1, stage=replace(TINY.stages[0]), in_channels=8, in_size=2, out_size=2)
    assert picture_size(place) == 8
    module = build_form(TINY, place, place.stage)
    assert contract_of(module, place).preprocessing.image_size == 8
    with torch.no_grad():
        assert module.entry(planes(place)).shape[-2:] == (2, 2)


def test_activations_keep_the_scale_of_a_trained_network() -> None:
    deep = replace(TINY, stages=(*TINY.stages[:2], replace(TINY.stages[2], num_layers=15)))
    last = list(places(deep, 32))[-1]
    for operator in OPERATORS:
        module = build_form(deep, last, form_of(deep, last.stage, operator))
        with torch.no_grad():
            out = module.stages["3"](module.entry(planes(last, 16)))
        assert 0.2 < float(out.std()) < 20


def test_a_form_is_the_same_every_time_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    first, second = (a_form(PLACES[1], "mbconv").state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
