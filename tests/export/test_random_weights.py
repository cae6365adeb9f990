"""Networks with random weights can be compared: fp32 computes them far more accurately than the gate's tolerance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.options import ExportOptions
from export.pipeline import export_model
from export.source import BRANCH_SCALE, make_random_network
from zoo.data.digits import sample_photographs
from zoo.data.pictures import load_prepared
from zoo.model.network import Network
from zoo.model.spec import Preprocessing
from zoo.model.variants import find_variant

SIZE, COUNT = 64, 10
# Of the logits' root mean square. The gate allows a mean error of 2e-5 of the largest logit.
ACCURATE = 1e-5


@torch.no_grad()
def logits(network: Network, preprocessing: Preprocessing) -> NDArray[np.float64]:
    """In the network's own precision."""
    pictures, _, _ = load_prepared(sample_photographs().head(COUNT), preprocessing)
    dtype = network.classifier.weight.dtype
    planes = torch.tensor(pictures).permute(0, 3, 1, 2).to(dtype)
    mean, std = (torch.tensor(values, dtype=dtype)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    found: NDArray[np.float64] = network((planes - mean) / std).double().numpy()
    return found


def relative_error(id: str, branch_scale: float) -> tuple[float, NDArray[np.float64]]:
    """The RMS error of fp32 against fp64, as a share of the logits', and what fp64 says."""
    variant = find_variant(id)
    preprocessing = variant.preprocessing.at(SIZE)
    network = make_random_network(variant, preprocessing, branch_scale=branch_scale)
    single, exact = logits(network, preprocessing), logits(network.double(), preprocessing)
    return float(np.sqrt(np.square(single - exact).mean() / np.square(exact).mean())), exact


@pytest.mark.parametrize("id", ["m", "b2", "v1-b5", "lite4", "resnet152", "s-relu6"])
def test_fp32_is_accurate_and_answers_differ(id: str) -> None:
    """Of every family, networks that the gate refused before."""
    error, exact = relative_error(id, BRANCH_SCALE)
    assert error < ACCURATE
    assert 0.1 < np.abs(exact).max() < 100
    assert len(np.unique(exact.argmax(axis=1))) >= 3, "agreement on one answer would prove nothing"
    assert exact.std(axis=0).mean() > 0.01


def test_undamped_branches_are_why_it_was_not() -> None:
    damped, undamped = (relative_error("m", scale)[0] for scale in (BRANCH_SCALE, 1.0))
    assert undamped > 10 * damped


def test_one_that_was_refused_passes_the_gate(in_folder: None) -> None:
    result = export_model(ExportOptions(model="lite1", random_weights=True, image_size=SIZE, num_pictures=COUNT))
    parity = result.passport.parity.onnx
    assert parity is not None and parity.passed and parity.top1_agreement == 1.0
    assert parity.relative_mean_error < ACCURATE
