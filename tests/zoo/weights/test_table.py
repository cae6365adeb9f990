"""The rows of published weights, held against what torchvision and timm say of the same files."""

from __future__ import annotations

import math

import pytest
import torchvision
from timm.data import resolve_data_config
from timm.models import get_pretrained_cfg
from torchvision.transforms import InterpolationMode

from zoo.errors import UnknownNameError
from zoo.model.counts import count_params
from zoo.model.variants import find_variant
from zoo.weights.origins import GOOGLE_ORIGIN, LUKEMELAS_ORIGIN, ORIGINS, TIMM_ORIGIN, TORCHVISION_ORIGIN
from zoo.weights.table import WEIGHTS, expected_preprocessing, find_weights, weights_of

BY_FILE = {row.file: row for row in WEIGHTS}
TORCHVISION_WEIGHTS = [
    pytest.param(id, published, id=str(published))
    for id, network in TORCHVISION_ORIGIN.networks.items()
    for published in torchvision.models.get_model_weights(network)
]
TIMM_ROWS = [row for row in WEIGHTS if row.origin == "timm"]


@pytest.mark.parametrize(("id", "published"), TORCHVISION_WEIGHTS)
def test_every_file_of_torchvision_has_a_row_that_says_what_it_says(id: str, published: object) -> None:
    row = BY_FILE[published.url.rpartition("/")[2]]  # type: ignore[attr-defined]
    transforms, meta = published.transforms(), published.meta  # type: ignore[attr-defined]
    assert (row.variant, row.url) == (id, published.url)  # type: ignore[attr-defined]
    preprocessing = row.preprocessing
    assert [preprocessing.image_size] == transforms.crop_size
    assert [preprocessing.resize_size] == transforms.resize_size
    assert preprocessing.resize == "crop"
    assert InterpolationMode(preprocessing.interpolation) == transforms.interpolation
    assert transforms.antialias is True
    assert preprocessing.mean == pytest.approx([255 * value for value in transforms.mean])
    assert preprocessing.std == pytest.approx([255 * value for value in transforms.std])
    metrics = meta["_metrics"]["ImageNet-1K"]
    assert row.accuracy.top1 == pytest.approx(metrics["acc@1"] / 100)
    assert row.accuracy.top5 == pytest.approx(metrics["acc@5"] / 100)
    assert count_params(find_variant(id)) == meta["num_params"]


@pytest.mark.parametrize("row", TIMM_ROWS, ids=lambda row: row.id)
def test_rows_of_timm_say_what_timm_says(row) -> None:  # type: ignore[no-untyped-def]
    network = TIMM_ORIGIN.networks[row.variant]
    tag = row.id.rpartition("timm-")[2].replace("-", "_")
    published = get_pretrained_cfg(f"{network}.{tag}")
    release = published.url.rpartition("/pytorch-image-models/")[2]  # its repository has had two owners
    assert row.url.endswith(f"/pytorch-image-models/{release}")
    assert (row.licence.lower(), row.num_classes) == (published.license, published.num_classes)
    expects = resolve_data_config(pretrained_cfg=published.to_dict(), use_test_size=True)
    preprocessing = row.preprocessing
    assert (3, preprocessing.image_size, preprocessing.image_size) == expects["input_size"]
    assert preprocessing.interpolation == expects["interpolation"]
    assert preprocessing.mean == pytest.approx([255 * value for value in expects["mean"]])
    assert preprocessing.std == pytest.approx([255 * value for value in expects["std"]])
    if expects["crop_mode"] == "squash":
        assert (preprocessing.resize, expects["crop_pct"]) == ("squash", 1.0)
    else:
        resized = math.floor(preprocessing.image_size / expects["crop_pct"])
        assert (preprocessing.resize, preprocessing.resize_size) == ("crop", resized)


def test_every_network_of_torchvision_and_timm_has_published_weights() -> None:
    for origin in (TORCHVISION_ORIGIN, TIMM_ORIGIN):
        assert {row.variant for row in WEIGHTS if row.origin == origin.id} == set(origin.networks)


@pytest.mark.parametrize("row", WEIGHTS, ids=lambda row: row.id)
def test_every_row_says_where_it_comes_from(row) -> None:  # type: ignore[no-untyped-def]
    assert row.id.startswith(f"{row.variant}.")
    assert row.variant in ORIGINS[row.origin].networks
    assert row.licence
    assert row.accuracy.source
    assert bool(row.url) != bool(row.package)
    int(row.sha256_prefix, 16)
    assert len(row.sha256_prefix) == (64 if row.package else 8)
    assert row.sha256_prefix[:8] in row.file


def test_ids_are_unique_and_the_most_accurate_come_first() -> None:
    assert len({row.id for row in WEIGHTS}) == len({row.file for row in WEIGHTS}) == len(WEIGHTS)
    assert [row.id for row in weights_of("s")] == ["s.timm-in21k-ft-in1k", "s.torchvision-imagenet1k", "s.timm-in1k"]
    assert find_weights("s").id == "s.timm-in21k-ft-in1k"
    assert find_weights("b0.timm-in1k").variant == "b0"


@pytest.mark.parametrize(
    ("name", "said"),
    [("s.timm-1k", "Did you mean s.timm-in1k"), ("efficientnet", "Unknown model"), ("tiny", "`zoo train tiny`")],
)
def test_unknown_weights_name_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_weights(name)
    assert said in str(caught.value)


def test_google_expects_what_its_code_does_and_lukemelas_the_whole_short_side() -> None:
    for id in ("s", "b0", "v1-b3", "lite4"):
        variant = find_variant(id)
        assert expected_preprocessing(GOOGLE_ORIGIN, variant) == variant.preprocessing
    assert expected_preprocessing(LUKEMELAS_ORIGIN, find_variant("v1-b3")).resize_size == 300
    lite = find_variant("lite0")
    assert expected_preprocessing(LUKEMELAS_ORIGIN, lite) == lite.preprocessing
