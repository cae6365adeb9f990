from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.model.scaling import round_channels, round_layers
from zoo.model.spec import Preprocessing, Variant
from zoo.model.variants import VARIANTS


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.id)
def test_a_row_survives_json(variant: Variant) -> None:
    assert Variant.from_dict(json.loads(json.dumps(variant.to_dict()))) == variant


def test_ids_and_names_are_unique() -> None:
    names = [name for variant in VARIANTS for name in {variant.id, variant.name}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("channels", "with_rule", "without"),
    [(16 * 1.2, 24, 16), (24 * 1.1, 24, 24), (112 * 1.1, 120, 120), (40 * 1.4, 56, 56), (3, 8, 8)],
)
def test_channel_rounding_with_and_without_the_90_percent_rule(channels: float, with_rule: int, without: int) -> None:
    assert round_channels(channels, keep_90_percent=True) == with_rule
    assert round_channels(channels, keep_90_percent=False) == without


@given(st.floats(1, 4000))
def test_rounded_channels_are_multiples_of_8_and_near(channels: float) -> None:
    rounded = round_channels(channels, keep_90_percent=True)
    assert rounded % 8 == 0
    assert rounded >= 0.9 * channels
    assert rounded <= max(8, channels + 8)


def test_layers_round_up() -> None:
    assert [round_layers(n) for n in (1.0, 1.1, 2.4, 5.0)] == [1, 2, 3, 5]


def test_a_crop_keeps_its_share_at_another_size() -> None:
    row = Preprocessing(image_size=224, resize="crop", resize_size=256)
    assert row.at(112) == Preprocessing(image_size=112, resize="crop", resize_size=128)
