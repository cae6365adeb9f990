from __future__ import annotations

import pytest

from serve.bench.measure.layer_names import LayerPlace, place_of


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("stages.3.block.5.depthwise.conv/Conv", LayerPlace(3, 5, "depthwise")),
        ("stages.4.block.0.se.gate/Sigmoid_nchwc", LayerPlace(4, 0, "se")),
        ("stages.4.block.0.se/Mul", LayerPlace(4, 0, "se")),
        ("stages.4.block.12/Add", LayerPlace(4, 12, "residual")),
        ("stages.1.block.0.fused.act/Mul/QuickGeluFusion/", LayerPlace(1, 0, "fused")),
        ("preprocessing/Cast", LayerPlace(beside="before")),
        ("stem.conv/Conv_nchwc", LayerPlace(beside="before")),
        ("classifier/Gemm", LayerPlace(beside="after")),
        # TensorRT joins what it fuses.
        (
            "stages.2.block.1.expand.conv/Conv + PWN(PWN(stages.2.block.1.expand.act/Sigmoid), "
            "stages.2.block.1.expand.act/Mul)",
            LayerPlace(2, 1, "expand"),
        ),
        ("stages.2.block.1.project.conv/Conv + stages.2.block.1/Add", LayerPlace(2, 1, "project")),
        ("stages.2.block.1.depthwise.conv/Conv + stages.2.block.1.se/ReduceMean", LayerPlace(2, 1, None)),
        ("stages.2.block.1.project.conv/Conv + stages.2.block.2.fused.conv/Conv", LayerPlace(2, None, None)),
        ("{ForeignNode[stages.3.block.0.fused.conv/Conv...stages.3.block.3/Add]}", LayerPlace(3, None, None)),
        ("{ForeignNode[stages.3.block.1.se/Mul...stages.3.block.1.se.gate/Sigmoid]}", LayerPlace(3, 1, None)),
        # What is of several stages, or of nothing of ours, is nobody's.
        ("stages.3.block.3.project.conv/Conv + stages.4.block.0.expand.conv/Conv", LayerPlace()),
        ("stem.conv/Conv + stages.1.block.0.fused.conv/Conv", LayerPlace()),
        ("ReorderOutput_token_110", LayerPlace()),
        ("Reformatting CopyNode for Input Tensor 0 to my_stages.3", LayerPlace()),
        ("", LayerPlace()),
    ],
)
def test_a_layer_belongs_where_its_name_says(name: str, place: LayerPlace) -> None:
    assert place_of(name) == place
    assert place.known is (place != LayerPlace())
