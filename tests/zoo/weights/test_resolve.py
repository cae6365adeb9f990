"""What MODEL means: runs before pulled weights, pulled weights before those of a package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from zoo.errors import CheckpointError, MissingCapabilityError, UnknownNameError
from zoo.files import sha256_of
from zoo.model.efficientnet import EfficientNet
from zoo.model.variants import find_variant
from zoo.weights.cache import cache_path
from zoo.weights.checkpoint import Checkpoint, save_checkpoint
from zoo.weights.resolve import checkpoint_path, find_model_variant, load_model, run_folder
from zoo.weights.table import WEIGHTS, find_weights

Zoo = Callable[..., "object"]


@pytest.fixture(scope="module")
def lite0_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "lite0.pth"
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), path)
    return path


@pytest.fixture
def pulled(lite0_file: Path, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with timm's lite0 in it, as if it had been pulled; the row has this file's hash."""
    monkeypatch.setenv("ZOO_CACHE", str(in_folder / "cache"))
    row = replace(find_weights("lite0.timm-in1k"), sha256_prefix=sha256_of(lite0_file)[:8])
    monkeypatch.setattr("zoo.weights.table.WEIGHTS", tuple(row if other.id == row.id else other for other in WEIGHTS))
    path = cache_path(row)
    path.parent.mkdir(parents=True)
    path.write_bytes(lite0_file.read_bytes())
    return path


def test_pulled_weights_are_used_by_predict(zoo: Zoo, pulled: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (250, 300, 3), dtype=np.uint8)).save("photo.png")
    by_model, by_id = (zoo("predict", name, "photo.png", "--json") for name in ("lite0", "lite0.timm-in1k"))
    assert (by_model.code, by_id.code) == (0, 0), by_model.err + by_id.err
    assert by_model.out == by_id.out


@pytest.mark.slow
def test_pulled_weights_are_used_by_export(zoo: Zoo, pulled: Path) -> None:
    exported = zoo("export", "lite0.timm-in1k", "--image-size", "32", "-o", "out")
    assert exported.code == 0, exported.err
    assert "lite0.timm-in1k" in Path("out/lite0.json").read_text()


def test_the_order_is_run_then_cache_then_package(pulled: Path, in_folder: Path) -> None:
    pytest.importorskip(find_weights("lite0").module, reason="needs the weights extra")
    assert load_model("lite0")[2] == "lite0.timm-in1k"
    assert load_model("lite0.imagenet1k")[2] == "lite0.imagenet1k"

    variant = find_variant("lite0")
    checkpoint = run_folder("lite0") / "checkpoint.safetensors"
    card = Checkpoint(variant=variant, classes=("a", "b"), preprocessing=variant.preprocessing, padding="symmetric")
    save_checkpoint(checkpoint, EfficientNet(variant, 2).state_dict(), card)
    assert load_model("lite0")[2] == str(checkpoint)
    assert checkpoint_path("lite0") == checkpoint
    assert checkpoint_path("lite0.timm-in1k") is None
    assert load_model("lite0.timm-in1k")[2] == "lite0.timm-in1k"

    checkpoint.unlink()
    pulled.unlink()
    assert load_model("lite0")[2] == "lite0.imagenet1k"


def test_a_pulled_file_that_changed_is_not_loaded(pulled: Path) -> None:
    pulled.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="is not the published file") as caught:
        load_model("lite0.timm-in1k")
    assert "`zoo pull lite0.timm-in1k` fetches it again." in caught.value.hint


def test_without_any_the_hint_says_what_there_is(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(in_folder / "empty"))
    for model, hint in (("s", "`zoo pull s` fetches published ones, `zoo train s`"), ("tiny", "`zoo train tiny`")):
        with pytest.raises(CheckpointError) as caught:
            load_model(model)
        assert caught.value.hint.startswith(hint)
    monkeypatch.setattr("zoo.weights.cache.find_spec", lambda name: None)
    with pytest.raises(MissingCapabilityError) as caught_package:
        load_model("lite0")
    assert "zoo[weights]" in caught_package.value.hint


def test_published_weights_have_the_batch_norms_of_their_origin() -> None:
    assert find_model_variant("v1-b0.torchvision-imagenet1k").batch_norm_eps == 1e-5
    assert find_model_variant("v1-b0.timm-aa-in1k") == find_variant("v1-b0")


@pytest.mark.parametrize(("name", "message"), [("", "is empty"), (" ", "is empty"), ("http:///x", "is an address")])
def test_a_name_that_can_be_none_says_what_to_do(name: str, message: str, in_folder: Path) -> None:
    Path("checkpoint.safetensors").write_bytes(b"of the current folder, which an empty name does not mean")
    for find in (find_model_variant, checkpoint_path, load_model):
        with pytest.raises(UnknownNameError, match=message) as failure:
            find(name)
        assert "zoo list" in failure.value.hint
