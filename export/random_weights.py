"""Owns untrained networks that are fit to be measured: random weights whose batch norms know real activations.

They are for latency work, and every passport made from one says so.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zoo.data.digits import sample_photographs
from zoo.data.pictures import load_prepared
from zoo.model.build import FromPictures, build_network
from zoo.model.network import Network
from zoo.model.spec import Preprocessing, Variant

NUM_CLASSES = 1000
# Without them S explodes in evaluation: activations near 4e3 at 300 px, for fp16 a different network.
NUM_BATCHES, BATCH_SIZE = 8, 2


def make_random_network(variant: Variant, preprocessing: Preprocessing, *, seed: int = 0) -> Network:
    """Build `variant` with seeded random weights and settled batch norms, in evaluation mode on the CPU.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(variant, NUM_CLASSES)
    pictures, _, _ = load_prepared(sample_photographs().head(NUM_BATCHES * BATCH_SIZE), preprocessing)
    settle_batch_norms(model, preprocessing, pictures, batch_size=BATCH_SIZE)
    return model


def settle_batch_norms(
    model: Network, preprocessing: Preprocessing, pictures: NDArray[np.uint8], *, batch_size: int
) -> None:
    """Replace every batch norm's running statistics by the average over (N, S, S, 3) `pictures`; ends in eval mode.

    Only the norms are switched to training, so that dropout and stochastic depth take no part.
    """
    network = FromPictures(model, preprocessing).eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's plain average over all batches instead of a decaying one
        norm.train()
    with torch.no_grad():
        for start in range(0, len(pictures), batch_size):
            network(torch.tensor(pictures[start : start + batch_size]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
