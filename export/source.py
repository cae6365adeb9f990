"""Owns what is exported: a checkpoint's network or one with random weights, its contract and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from export.contract import Contract
from export.options import ExportOptions
from export.passport import CheckpointCard
from export.watch import Watch
from zoo.data.digits import sample_photographs
from zoo.data.pictures import load_prepared
from zoo.errors import ZooError
from zoo.files import sha256_of
from zoo.model.build import FromPictures, build_network
from zoo.model.network import Network
from zoo.model.norms import settle_batch_norms
from zoo.model.spec import Preprocessing, Variant
from zoo.weights.checkpoint import Checkpoint
from zoo.weights.resolve import checkpoint_path, find_model_variant, load_model

# Of a network with random weights: ImageNet's number of classes, and the pictures its batch norms are settled on.
NUM_CLASSES, NUM_BATCHES, BATCH_SIZE = 1000, 8, 2


@dataclass(frozen=True, kw_only=True)
class Source:
    """A network to export. `checkpoint` is None for random weights; `card` is for the passport, `label` for people."""

    network: Network
    contract: Contract
    checkpoint: Checkpoint | None
    card: CheckpointCard
    label: str


def find_source(options: ExportOptions, watch: Watch) -> Source:
    """Load the model, or make one with random weights if that was asked for.

    Raises:
        CheckpointError, UnknownNameError: as `zoo.weights.resolve.load_model`. ZooError: the image size is too large.
    """
    if options.random_weights:
        return _random_source(options, watch)
    watch.step(f"Load {options.model}")
    network, checkpoint, label = load_model(options.model)
    path = checkpoint_path(options.model)
    provenance = dict(checkpoint.provenance)
    if provenance.get("data"):
        provenance["data"] = Path(provenance["data"]).name  # artifacts travel; paths of this machine stay here
    return Source(
        network=network,
        contract=Contract(
            model=checkpoint.variant.id,
            classes=checkpoint.classes,
            preprocessing=_at_size(checkpoint.preprocessing, checkpoint.variant, options.image_size),
            thresholds=checkpoint.thresholds,
        ),
        checkpoint=checkpoint,
        card=CheckpointCard(
            source=path.name if path else label,
            sha256=sha256_of(path) if path else provenance.get("sha256"),
            provenance=provenance,
        ),
        label=label,
    )


def _random_source(options: ExportOptions, watch: Watch) -> Source:
    variant = find_model_variant(options.model)
    preprocessing = _at_size(variant.preprocessing, variant, options.image_size)
    watch.step(f"Make {variant.id} with random weights and settle its batch norms")
    classes = tuple(f"class {index}" for index in range(NUM_CLASSES))
    return Source(
        network=make_random_network(variant, preprocessing),
        contract=Contract(model=variant.id, classes=classes, preprocessing=preprocessing),
        checkpoint=None,
        card=CheckpointCard(source="random weights", sha256=None, provenance={}),
        label=f"{variant.id} with random weights",
    )


def make_random_network(variant: Variant, preprocessing: Preprocessing, *, seed: int = 0) -> Network:
    """Build `variant` with seeded random weights and batch norms settled on photographs, in evaluation mode on the CPU.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(variant, NUM_CLASSES)
    pictures, _, _ = load_prepared(sample_photographs().head(NUM_BATCHES * BATCH_SIZE), preprocessing)
    settle_batch_norms(FromPictures(model, preprocessing), torch.split(torch.tensor(pictures), BATCH_SIZE))
    return model


def _at_size(preprocessing: Preprocessing, variant: Variant, image_size: int | None) -> Preprocessing:
    size = image_size or preprocessing.image_size
    if size > variant.max_size:
        raise ZooError(
            f"{size} px is above the {variant.max_size} px at which inference with {variant.id} is capped.",
            f"Choose --image-size {variant.max_size} or less.",
        )
    return preprocessing.at(size)
