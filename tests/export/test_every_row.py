"""Every row of the table goes through the exporter, and ONNX Runtime answers as PyTorch does.

With at most two layers a stage, narrow, on small pictures: every kind of block in every row, in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.contract import Contract
from export.graph import export_onnx
from export.runners.onnx_runtime import OnnxRunner
from export.runners.pytorch import TorchRunner
from zoo.model.build import build_network
from zoo.model.network import Network
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS, find_variant

SIZE = 32
CLASSES = tuple("0123456789")
# Of the logits' spread. Another order of fp32 arithmetic leaves a millionth, a block in another place about all of it.
TOLERANCE = 1e-4


BRIEF = "--on torch --by isolated --duration-s 0.01 --rounds 3"


def lively(variant: Variant) -> Network:
    """A network none of whose batch norms is the identity, so that one that is left out or misplaced shows."""
    torch.manual_seed(0)
    network = build_network(variant, len(CLASSES))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.1, 0.1),
            ):
                assert values is not None
                values.uniform_(low, high)
    return network.eval()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.id)
def test_a_graph_answers_as_its_network_does(variant: Variant, shrink: Callable[[Variant], Variant]) -> None:
    row = variant if variant.is_resnet else shrink(variant)
    preprocessing = row.preprocessing.at(SIZE)
    network = lively(row)
    contract = Contract(model=row.id, classes=CLASSES, preprocessing=preprocessing)
    graph = export_onnx(network, contract, checkpoint={})
    pictures = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    with OnnxRunner(graph.SerializeToString(), device="cpu") as runner:
        found = runner.infer(pictures)
    with TorchRunner(network, contract, artifact=row.id, device="cpu") as reference:
        wanted = reference.infer(pictures)
    spread = float(wanted.std())
    assert spread > 1e-6, "answers that are all alike would prove nothing"
    assert float(np.abs(found - wanted).max()) < TOLERANCE * spread


UNEXPANDED = """
id = "squeezed"
stem_channels = 8
head_channels = 32
dropout = 0.2
train_size = 32
eval_size = 40

[[stages]]
operator = "fused_mbconv"
kernel_size = 3
stride = 1
expand_ratio = 1
out_channels = 16
num_layers = 2
se_ratio = 0.25

[[stages]]
operator = "mbconv"
kernel_size = 3
stride = 2
expand_ratio = 4
out_channels = 24
num_layers = 1
se_ratio = 0.25
"""


def test_an_unexpanded_fused_stage_with_squeeze_and_excitation_goes_all_the_way(
    zoo: Callable[..., Any], in_folder: Path, picture_folder: Path
) -> None:
    """A user's row, from `zoo show` to an answer of the exported graph."""
    Path("squeezed.toml").write_text(UNEXPANDED)
    for command in ("show squeezed.toml", f"train squeezed.toml --data {picture_folder} --plan"):
        assert zoo(*command.split()).code == 0
    flags = "--epochs 4 --image-size 32 --batch-size 36 --workers 0 --device cpu"
    trained = zoo("train", "squeezed.toml", "--data", picture_folder, *flags.split())
    assert trained.code == 0, trained.err
    timed = zoo(
        "bench",
        "stages",
        "squeezed.toml",
        *["--on", "torch", "--by", "isolated", "--duration-s", "0.01", "--rounds", "3"],
    )
    assert timed.code == 0, timed.err
    exported = zoo("export", "squeezed.toml", "--num-pictures", "4", "--json")
    assert exported.code == 0, exported.err
    assert json.loads(exported.out)["parity"]["onnx"]["passed"] is True
    answers = [
        json.loads(zoo("predict", artifact, picture_folder / "val/red/000.jpg", "--json").out)["predictions"]
        for artifact in ("squeezed.toml", "squeezed.onnx")
    ]
    assert [row["class"] for row in answers[0]] == [row["class"] for row in answers[1]]
    assert answers[0][0]["score"] == pytest.approx(answers[1][0]["score"], abs=1e-4)


def test_the_row_of_the_file_is_the_form_that_crashed() -> None:
    stage = find_variant("v1-b4-fused13").stages[0]
    assert (stage.operator, stage.expand_ratio) == ("fused_mbconv", 1) and stage.se_ratio > 0
