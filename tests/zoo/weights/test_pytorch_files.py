"""Files as training scripts write them: their weights are found whatever is around them, and no code of theirs runs."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.errors import CheckpointError
from zoo.weights.formats.foreign import read_foreign
from zoo.weights.formats.pytorch import find_state_dict

WEIGHTS = {"conv.weight": torch.ones(2, 1, 3, 3), "norm.running_var": torch.ones(2)}
AVERAGED = {key: value * 2 for key, value in WEIGHTS.items()}


def prefixed(prefix: str, tensors: Mapping[str, Tensor] = WEIGHTS) -> OrderedDict[str, Tensor]:
    return OrderedDict((prefix + key, value) for key, value in tensors.items())


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (WEIGHTS, ""),
        (prefixed("module."), ""),
        (prefixed("_orig_mod."), ""),
        ({"state_dict": prefixed("module._orig_mod.")}, "state_dict"),
        ({"state_dict": prefixed("_orig_mod.module.")}, "state_dict"),
        ({"state_dict": prefixed("model._orig_mod.module.")}, "state_dict"),
        ({"pytorch-lightning_version": "2.5", "state_dict": prefixed("model."), "optimizer_states": []}, "state_dict"),
        ({"model": WEIGHTS, "args": argparse.Namespace(lr=0.1), "epoch": 3}, "model"),
        ({"model_state_dict": WEIGHTS, "best": np.float64(0.5), "folder": Path("a")}, "model_state_dict"),
    ],
)
def test_weights_are_found_whatever_is_around_them(content: dict[str, Any], part: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    found = read_foreign(tmp_path / "x.pth")
    assert found.part == part
    assert found.tensors.keys() == WEIGHTS.keys()
    assert all(found.tensors[key].equal(value) for key, value in WEIGHTS.items())


def test_what_stands_beside_a_wrapped_network_is_left_out_and_named() -> None:
    many = {f"layer{number}.weight": torch.ones(1) for number in range(20)}
    content = {"state_dict": prefixed("model.", many) | {"loss.weight": torch.ones(7)}}
    tensors, part = find_state_dict(content, Path("x.ckpt"))
    assert tensors.keys() == many.keys()
    assert part == "state_dict without loss.weight"


def test_averaged_weights_are_taken_insisted_on_or_declined() -> None:
    content = {"state_dict": WEIGHTS, "state_dict_ema": AVERAGED}
    for ema, expected in ((None, AVERAGED), (True, AVERAGED), (False, WEIGHTS)):
        tensors, _ = find_state_dict(content, Path("x.pth"), ema=ema)
        assert tensors["norm.running_var"].equal(expected["norm.running_var"])
    with pytest.raises(CheckpointError, match="has no averaged weights"):
        find_state_dict({"state_dict": WEIGHTS}, Path("x.pth"), ema=True)


def test_wrapped_keys_of_safetensors_too(tmp_path: Path) -> None:
    save_file(prefixed("_orig_mod."), tmp_path / "x.safetensors")
    assert read_foreign(tmp_path / "x.safetensors").tensors.keys() == WEIGHTS.keys()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_programs_are_refused_and_called_what_they_are(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match=r"nothing in it was run. It names torch.nn.modules.linear.Linear"):
        read_foreign(tmp_path / "whole.pth")
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 2)), tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match="is TorchScript: a program"):
        read_foreign(tmp_path / "script.pt")


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return timm.create_model("tf_efficientnetv2_b0", num_classes=7).state_dict()


@pytest.mark.parametrize(
    "change",
    [
        lambda key, value: (f"model._orig_mod.{key}", value),
        lambda key, value: (key.replace("classifier", "classifier.1"), value),
        lambda key, value: (key, value.bfloat16() if value.is_floating_point() else value),
    ],
    ids=["wrapped", "a head of another name", "bf16"],
)
def test_the_command_brings_them_in(
    change: Callable, theirs: dict[str, Tensor], zoo: Callable, in_folder: Path
) -> None:
    torch.save({"state_dict": dict(change(*item) for item in theirs.items())}, "x.pth")
    answer = zoo("import", "b0", "x.pth", "--from", "timm", "-o", "b0.safetensors")
    assert answer.code == 0, answer.err
    ours = load_file("b0.safetensors")
    head = theirs["classifier.weight"]
    assert ours["classifier.weight"].dtype == torch.float32
    torch.testing.assert_close(ours["classifier.weight"], head, rtol=2**-8, atol=0)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("conv_stem.weight", float("nan"), "conv_stem.weight has 1 values that are not finite of 864"),
        ("bn1.running_mean", float("inf"), "bn1.running_mean has 1 values that are not finite of 32"),
        ("bn1.running_var", -1.0, "bn1.running_var has 1 variances below 0 of 32"),
    ],
)
def test_a_weight_that_no_network_can_use_is_named(
    key: str, value: float, said: str, theirs: dict[str, Tensor], zoo: Callable, in_folder: Path
) -> None:
    damaged = theirs | {key: theirs[key].clone()}
    damaged[key].view(-1)[3] = value
    torch.save(damaged, "x.pth")
    answer = zoo("import", "b0", "x.pth", "--from", "timm")
    assert answer.code == 1
    assert said in answer.err
    assert [path.name for path in in_folder.iterdir()] == ["x.pth"]
