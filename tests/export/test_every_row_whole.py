"""Every network of the table, as it is, through the gate at 96 px; and real plans in every precision.

    python -m pytest -m long tests/export/test_every_row_whole.py

Minutes to hours, and 7 GB of memory for the largest: so it is left out unless asked for.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from export.engine.builders import RTX
from export.options import ExportOptions
from export.passport import read_passport
from export.pipeline import export_model
from export.precision.rows import PRECISIONS
from zoo.model.spec import Variant
from zoo.model.variants import VARIANTS

pytestmark = pytest.mark.long
SIZE = 96
PROFILES = ((1, 1, 1), (2, 8, 32))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.id)
def test_every_network_passes_the_gate(variant: Variant, tmp_path: Path) -> None:
    asked = ExportOptions(model=variant.id, random_weights=True, image_size=SIZE, out=tmp_path, num_pictures=16)
    found = export_model(asked)
    assert found.passport.parity.onnx and found.passport.parity.onnx.passed
    assert {path.suffix for path in tmp_path.iterdir()} == {".onnx", ".json"}


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
@pytest.mark.parametrize("precision", [row.id for row in PRECISIONS])
@pytest.mark.parametrize("model", ["tiny", "b0", "s"])
def test_plans_are_really_built(model: str, precision: str, tmp_path: Path, no_gpu: None) -> None:
    asked = ExportOptions(
        model=model,
        random_weights=True,
        image_size=SIZE,
        out=tmp_path,
        num_pictures=8,
        trt=precision,
        builder=RTX.id,
        targets=("8.9",),
        profiles=PROFILES,
        cache=False,
    )
    found = export_model(asked)
    card, built = found.passport.files.plan, found.passport.builder
    assert found.plan and card and card.precision == precision and built
    assert built.name == RTX.id and tuple((row.min, row.opt, row.max) for row in built.built_as.profiles) == PROFILES
    assert found.passport.parity.graph and found.passport.parity.graph.passed
    assert read_passport(found.plan) == found.passport
