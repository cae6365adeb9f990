"""Owns what is exported: a checkpoint's network or one with random weights, its contract and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from export.contract import Contract
from export.options import ExportOptions
from export.passport import RANDOM_WEIGHTS, CheckpointCard
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

# Of a network with random weights: ImageNet's number of classes.
NUM_CLASSES = 1000
# What its residual branches add to their input is scaled by this. Undamped, every block amplifies the last bit of its
# input: at 96 px fp32 computes XL to 5e-3 of its logits, beyond any gate, and damped to 7e-6. All networks:
# docs/benchmarks.md, “Can random weights be compared?”.
BRANCH_SCALE = 0.2
# Pixels that settle its batch norms at once, 16 pictures of 224 px: small pictures need many, because a norm on 3×3
# maps of two pictures knows 18 values a channel. Of large ones it is as many as the parity gate runs at once.
PIXELS_AT_ONCE, FEWEST_AT_ONCE = 16 * 224**2, 8


@dataclass(frozen=True, kw_only=True)
class Source:
    """A network to export. `checkpoint` is None for random weights; `card` is for the passport, `label` for people."""

    network: Network
    contract: Contract
    checkpoint: Checkpoint | None
    card: CheckpointCard
    label: str
    own_size: int  # of the weights, in pixels; `contract` may have another


def find_source(options: ExportOptions, watch: Watch) -> Source:
    """Load the model, or make one with random weights if that was asked for.

    Raises:
        CheckpointError, UnknownNameError: as `zoo.weights.resolve.load_model`. ZooError: the image size is too large.
    """
    if options.random_weights:
        return _random_source(options, watch)
    watch.step(f"Load {options.model}")
    network, checkpoint, label = load_model(options.model)
    _check_topk(options.topk, len(checkpoint.classes))
    path = checkpoint_path(options.model)
    provenance = dict(checkpoint.provenance)
    if provenance.get("data"):
        provenance["data"] = Path(provenance["data"]).name  # artifacts travel; paths of this machine stay here
    return Source(
        network=network,
        contract=Contract(
            model=checkpoint.variant.id,
            classes=checkpoint.classes,
            preprocessing=at_size(checkpoint.preprocessing, checkpoint.variant, options.image_size),
            thresholds=checkpoint.thresholds,
            form=options.form,
        ),
        checkpoint=checkpoint,
        card=CheckpointCard(
            source=path.name if path else label,
            sha256=sha256_of(path) if path else provenance.get("sha256"),
            provenance=provenance,
        ),
        label=label,
        own_size=checkpoint.preprocessing.image_size,
    )


def _random_source(options: ExportOptions, watch: Watch) -> Source:
    _check_topk(options.topk, NUM_CLASSES)
    variant = find_model_variant(options.model)
    preprocessing = at_size(variant.preprocessing, variant, options.image_size)
    watch.step(f"Make {variant.id} with random weights and settle its batch norms")
    classes = tuple(f"class {index}" for index in range(NUM_CLASSES))
    return Source(
        network=make_random_network(variant, preprocessing),
        contract=Contract(model=variant.id, classes=classes, preprocessing=preprocessing, form=options.form),
        checkpoint=None,
        card=CheckpointCard(source=RANDOM_WEIGHTS, sha256=None, provenance={}),
        label=f"{variant.id} with random weights",
        own_size=variant.preprocessing.image_size,
    )


def make_random_network(
    variant: Variant, preprocessing: Preprocessing, *, seed: int = 0, branch_scale: float = BRANCH_SCALE
) -> Network:
    """Build `variant` with seeded random weights and batch norms settled on photographs, in evaluation mode on the CPU.

    Its residual branches are damped, so that fp32 is accurate enough to be compared: what it computes costs what the
    trained network costs, but what it answers means nothing. The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(variant, NUM_CLASSES)
    for norm in model.residual_norms():
        nn.init.constant_(norm.weight, branch_scale)
    pictures, _, _ = load_prepared(sample_photographs(preprocessing.channels), preprocessing)
    at_once = max(PIXELS_AT_ONCE // preprocessing.image_size**2, FEWEST_AT_ONCE)
    # Neighbours are of one photograph. Where every batch is of one, norms miss how the two differ and activations grow:
    # B6 at 528 px to logits of 80 instead of 1, and fp32 is 10 times less accurate.
    step = -(-len(pictures) // at_once)
    settle_batch_norms(FromPictures(model, preprocessing), (torch.tensor(pictures[i::step]) for i in range(step)))
    return model


def _check_topk(topk: int | None, num_classes: int) -> None:
    if topk is not None and topk > num_classes:
        raise ZooError(
            f"--topk {topk} asks for more classes than the {num_classes} that are told apart.",
            f"Choose --topk {num_classes} or less.",
        )


def at_size(preprocessing: Preprocessing, variant: Variant, image_size: int | None) -> Preprocessing:
    """The preprocessing of pictures of another size, of its own where that is None.

    Raises:
        ZooError: the size is above the one that inference with the network is capped at.
    """
    size = image_size or preprocessing.image_size
    if size > variant.max_size:
        raise ZooError(
            f"{size} px is above the {variant.max_size} px at which inference with {variant.id} is capped.",
            f"Choose --image-size {variant.max_size} or less.",
        )
    return preprocessing.at(size)
