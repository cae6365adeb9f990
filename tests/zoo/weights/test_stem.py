"""RGB's weights on pictures of other planes, and other projects' weights that take such pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models import adapt_input_conv

from train.options import TrainOptions
from train.session import train_model
from zoo.errors import CheckpointError, RowError
from zoo.model.build import FromPictures, build_network
from zoo.model.counts import count_params, parts
from zoo.model.spec import Preprocessing
from zoo.model.variants import VARIANTS, find_variant
from zoo.weights.checkpoint import Checkpoint, load_checkpoint, read_card
from zoo.weights.convert import to_network, to_origin
from zoo.weights.origins import ORIGINS
from zoo.weights.resolve import find_model_variant
from zoo.weights.stem import adapt_stem, for_channels, stem_key

Zoo = Callable[..., Any]


@pytest.mark.parametrize("channels", [1, 4])
def test_the_stem_is_adapted_as_timm_does(channels: int) -> None:
    weight = torch.randn(8, 3, 3, 3)
    assert torch.allclose(adapt_stem(weight, channels), adapt_input_conv(channels, weight), atol=1e-6)


def test_grey_pictures_are_answered_as_they_were_as_rgb(tiny_run: Path) -> None:
    network, card = load_checkpoint(tiny_run / "checkpoint.safetensors")
    adapted, own = for_channels(network, card, 1)
    assert (own.preprocessing.color_order, own.variant.channels) == ("grey", 1)
    grey = torch.randint(0, 256, (6, 32, 32, 1), dtype=torch.uint8)
    with torch.inference_mode():
        before = FromPictures(network, card.preprocessing)(grey.repeat(1, 1, 1, 3))
        after = FromPictures(adapted, own.preprocessing)(grey)
    assert torch.allclose(before, after, atol=1e-4)
    assert not adapted.training


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("id", ["s", "lite0", "tiny", "resnet50"])
def test_counts_and_stem_are_the_network_s(id: str, channels: int) -> None:
    variant = find_variant(id).with_channels(channels)
    with torch.device("meta"):
        network = build_network(variant, 10)
    assert network.state_dict()[stem_key(variant)].shape[1] == channels
    assert sum(parameter.numel() for parameter in network.parameters()) == count_params(variant, 10)
    assert next(parts(variant)).in_channels == channels


def test_every_row_is_rgb_and_says_so() -> None:
    assert all(variant.channels == 3 and variant.preprocessing.color_order == "RGB" for variant in VARIANTS)


def test_planes_that_are_no_colour_get_the_mean_of_the_colours() -> None:
    own = Preprocessing(image_size=8, mean=(120.0, 90.0, 60.0), std=(60.0, 50.0, 40.0))
    assert (own.with_channels(1).mean, own.with_channels(1).std) == ((90.0,), (50.0,))
    assert own.with_channels(4).mean == (120.0, 90.0, 60.0, 90.0)
    assert own.with_channels(4).with_channels(3) == own == own.with_channels(3)
    assert Preprocessing.from_dict(own.with_channels(4).to_dict()) == own.with_channels(4)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (128.0,)},
        {"color_order": "grey"},
        {"mean": (1.0, 2.0), "std": (1.0, 2.0)},
        {"mean": (1.0,) * 4, "std": (1.0,) * 3, "color_order": "RGBA"},
    ],
)
def test_planes_that_contradict_one_another_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RowError, match="color_order is") as caught:
        Preprocessing(image_size=8, **changes)
    assert "RGBA has 4" in caught.value.hint


def test_a_card_whose_network_takes_other_planes_is_refused() -> None:
    tiny = find_variant("tiny")
    with pytest.raises(RowError, match=r"takes 3 planes \(RGB\), pictures have 1 plane \(grey\)"):
        Checkpoint(
            variant=tiny, classes=("a", "b"), preprocessing=tiny.preprocessing.with_channels(1), padding="symmetric"
        )


def test_a_run_from_rgb_weights_says_what_it_did(tiny_run: Path, tmp_path: Path, zoo: Zoo) -> None:
    """The digits are grey: the summed stem begins as good as RGB's was."""
    options = ("--recipe", "finetune", "--epochs", 1, "--image-size", 32, "--device", "cpu", "--out", tmp_path / "run")
    done = zoo("train", tiny_run, "--channels", 1, *options)
    assert done.code == 0, done.err
    assert "the stem's weights are summed over RGB's three planes, for 1 plane (grey)" in " ".join(done.err.split())
    card = read_card(tmp_path / "run" / "checkpoint.safetensors")
    assert (card.variant.channels, card.preprocessing.mean) == (1, (128.0,))


def test_a_start_of_other_planes_gives_a_run_its_planes(tiny_run: Path) -> None:
    grey = find_model_variant(str(tiny_run), 1)
    assert grey.channels == 1
    with pytest.raises(CheckpointError, match="take grey pictures, and RGBA"):
        network, card = load_checkpoint(tiny_run / "checkpoint.safetensors")
        for_channels(*for_channels(network, card, 1), 4)


def test_a_row_file_of_grey_pictures_trains(tmp_path: Path, zoo: Zoo) -> None:
    assert zoo("scale", "tiny", "--id", "own", "-o", tmp_path / "own.toml").code == 0
    text = (tmp_path / "own.toml").read_text()
    for three, one in (("[128.0, 128.0, 128.0]", "[100.0]"), ('"RGB"', '"grey"')):
        text = text.replace(three, one)
    (tmp_path / "own.toml").write_text(text)
    sizes = {"epochs": 4, "image_size": 24, "batch_size": 64, "device": "cpu"}
    outcome = train_model(TrainOptions(model=str(tmp_path / "own.toml"), out=tmp_path / "run", **sizes))
    assert read_card(outcome.checkpoint).preprocessing.mean == (100.0,)


@pytest.mark.parametrize("channels", [1, 4])
def test_timm_s_weights_of_such_planes_come_in_and_go_out(channels: int, tmp_path: Path, zoo: Zoo) -> None:
    theirs = timm.create_model("tf_efficientnetv2_b0", num_classes=5, in_chans=channels).eval()
    torch.save(theirs.state_dict(), tmp_path / "own.pth")
    done = zoo("import", "b0", tmp_path / "own.pth", "--from", "timm", "-o", tmp_path / "b0.safetensors")
    assert done.code == 0, done.err
    network, card = load_checkpoint(tmp_path / "b0.safetensors")
    assert (card.variant.channels, card.preprocessing.channels) == (channels, channels)
    assert "RGBA, mean" in done.err or "grey, mean" in done.err
    picture = torch.randn(1, channels, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(network(picture), theirs(picture), atol=1e-4)
    out = to_origin(network, card, ORIGINS["timm"])
    again = eval(out.constructor, {"timm": timm})  # as its reader would run it
    again.load_state_dict(dict(out.tensors))
    assert f"in_chans={channels}" in out.constructor


def test_a_project_without_such_an_argument_says_what_to_replace() -> None:
    variant = replace(find_variant("s"), batch_norm_eps=1e-3).with_channels(1)
    with torch.device("meta"):
        network = build_network(variant, 5)
    card = Checkpoint(variant=variant, classes=tuple("abcde"), preprocessing=variant.preprocessing, padding="symmetric")
    out = to_origin(network, card, ORIGINS["torchvision"])
    assert any("replace the first convolution, features.0.0" in note for note in out.notes)
    assert np.prod(out.tensors["features.0.0.weight"].shape) == 24 * 9


@pytest.mark.parametrize("planes", [2, 5])
def test_weights_of_planes_that_no_network_takes_are_named_for_what_they_are(planes: int) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("tf_efficientnet_lite0", in_chans=planes).state_dict()
    with pytest.raises(
        CheckpointError, match=f"w.pth takes pictures of {planes} planes; networks of the zoo take 1, 3"
    ):
        to_network(theirs, find_variant("lite0"), ORIGINS["timm"], name="w.pth")
