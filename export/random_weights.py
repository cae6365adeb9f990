"""Owns untrained networks that are fit to be measured: random weights whose batch norms have seen real pictures.

They are for latency work, and every passport made from one says so.
"""

from __future__ import annotations

import torch

from zoo.data.digits import sample_photographs
from zoo.data.pictures import load_prepared
from zoo.model.build import FromPictures, build_network
from zoo.model.network import Network
from zoo.model.norms import settle_batch_norms
from zoo.model.spec import Preprocessing, Variant

NUM_CLASSES = 1000
NUM_BATCHES, BATCH_SIZE = 8, 2


def make_random_network(variant: Variant, preprocessing: Preprocessing, *, seed: int = 0) -> Network:
    """Build `variant` with seeded random weights and settled batch norms, in evaluation mode on the CPU.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(variant, NUM_CLASSES)
    pictures, _, _ = load_prepared(sample_photographs().head(NUM_BATCHES * BATCH_SIZE), preprocessing)
    settle_batch_norms(FromPictures(model, preprocessing), torch.tensor(pictures).split(BATCH_SIZE))
    return model
