"""ResNets go the same way as everything else: rows, training with stochastic depth, export; and have their limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from zoo.errors import ZooError
from zoo.model.build import build_network
from zoo.model.resnet import DroppedNorm, ResNet
from zoo.model.row_files import write_row
from zoo.model.variants import find_variant

SHALLOW = replace(
    find_variant("resnet50"),
    id="resnet14",
    stages=tuple(replace(stage, num_layers=1) for stage in find_variant("resnet50").stages),
)


@pytest.mark.slow
def test_a_resnet_is_trained_exported_and_asked_by_the_same_commands(zoo: Callable, in_folder: Path) -> None:
    write_row(Path("resnet14.toml"), SHALLOW, "one block a stage")
    trained = zoo("train", "resnet14.toml", "--epochs", "4", "--image-size", "16", "--device", "cpu")
    assert trained.code == 0, trained.err
    exported = zoo("export", "resnet14.toml", "--json")
    assert exported.code == 0, exported.err
    assert json.loads(exported.out)["parity"]["onnx"]["passed"]
    by_onnx, by_checkpoint = (
        json.loads(zoo("evaluate", artifact, "--data", "digits", "--json").out)
        for artifact in ("resnet14.onnx", "runs/resnet14/checkpoint.safetensors")
    )
    assert by_onnx["top1"] == by_checkpoint["top1"] > 0.2  # chance is 0.1
    refused = zoo("bench", "stages", "resnet14.toml")
    assert refused.code == 1
    assert "no MBConv stages" in refused.err


def test_stochastic_depth_drops_whole_branches_in_training_only() -> None:
    torch.manual_seed(0)
    network = build_network(SHALLOW, 3)
    assert isinstance(network, ResNet)
    network.set_stochastic_depth(0.8)
    norms = [module for module in network.modules() if isinstance(module, DroppedNorm)]
    assert [norm.stochastic_depth.prob for norm in norms] == pytest.approx([0.0, 0.2, 0.4, 0.6])
    last, x = norms[-1], torch.randn(512, 2048, 2, 2)
    dropped = (last(x).flatten(1) == 0).all(1).float().mean().item()
    assert dropped == pytest.approx(0.6, abs=0.1)
    last.eval()
    assert not (last(x).flatten(1) == 0).all(1).any()


@pytest.mark.parametrize(
    "wrong",
    [
        replace(SHALLOW, stem_channels=32),
        replace(SHALLOW, head_channels=1280),
        replace(SHALLOW, stages=SHALLOW.stages[:3]),
        replace(SHALLOW, stages=(replace(SHALLOW.stages[0], out_channels=128), *SHALLOW.stages[1:])),
        replace(SHALLOW, stages=(*SHALLOW.stages[:3], find_variant("s").stages[-1])),
    ],
)
def test_only_what_torchvision_can_build_is_built(wrong: object) -> None:
    with pytest.raises(ZooError, match="not one of torchvision's ResNets") as failure:
        build_network(wrong)  # type: ignore[arg-type]
    assert "num_layers" in failure.value.hint
