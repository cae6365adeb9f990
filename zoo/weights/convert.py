"""Owns the translation of weights between projects, in both directions: keys, layout, shapes. It opens no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import CheckpointError
from zoo.model.build import build_network
from zoo.model.efficientnet import initialize
from zoo.model.network import Network
from zoo.model.spec import COLOR_ORDERS, RGB, Variant
from zoo.model.variants import find_variant
from zoo.weights.checkpoint import Checkpoint, describe_misfit
from zoo.weights.key_styles import key_map
from zoo.weights.origins import ORIGINS, Origin
from zoo.weights.stem import stem_key

COUNTER = "num_batches_tracked"  # PyTorch's count of updates: no weight
# The seed of a new classifier: importing the same file twice gives the same network.
HEAD_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """Weights under another project's keys, the line of Python that makes their network there, and what differs."""

    tensors: Mapping[str, Tensor]
    constructor: str
    notes: tuple[str, ...]


def to_network(
    tensors: Mapping[str, Tensor], variant: Variant, origin: Origin, *, name: str, num_classes: int | None = None
) -> tuple[Network, int | None]:
    """Make a network in evaluation mode from another project's tensors, and say how many classes these have.

    It takes as many planes as their first convolution does.

    Args:
        tensors: under that project's keys, in its layout.
        variant: our row, with the project's batch-norm epsilon.
        origin: the project.
        name: the file's, for errors.
        num_classes: another number than the tensors have makes a new classifier. None keeps theirs.

    Raises:
        CheckpointError: lists missing, unknown and misshapen keys by that project's names; or a value is not finite.
    """
    keys = key_map(origin.key_style(variant), variant)
    tensors = _with_known_head(tensors, keys)
    ours_of = {theirs: ours for ours, theirs in keys.items()}
    given = {theirs: _as_pytorch(value, ours_of.get(theirs), origin) for theirs, value in tensors.items()}
    for ours, theirs in keys.items():
        if ours.endswith(COUNTER):
            given.setdefault(theirs, torch.zeros((), dtype=torch.int64))
    head = given.get(keys["classifier.weight"])
    own_classes = head.shape[0] if head is not None and head.ndim == 2 else None
    if num_classes and num_classes != own_classes:
        given |= {keys[ours]: value for ours, value in _new_classifier(variant, num_classes).items()}
    # On the meta device nothing is drawn or stored: the file's tensors become the parameters themselves.
    stem = given.get(keys[stem_key(variant)])
    variant = variant.with_channels(_channels_of(stem))
    with torch.device("meta"):
        model = build_network(variant, num_classes or own_classes or 1000, padding=origin.padding)
    misfit = describe_misfit({keys[ours]: value for ours, value in model.state_dict().items()}, given)
    if misfit:
        _refuse_planes(stem, variant, name)
        problem = f"{name} does not fit {origin.id}'s {origin.networks[variant.id]}: {misfit}."
        raise CheckpointError(problem, _whose(given))
    _check_values({theirs: given[theirs] for theirs in keys.values()}, name)
    model.load_state_dict({ours: given[theirs] for ours, theirs in keys.items()}, assign=True)
    return model.eval(), own_classes


def to_origin(model: nn.Module, card: Checkpoint, origin: Origin) -> Outgoing:
    """Give our weights another project's keys; every tensor keeps its bits.

    Raises:
        ZooError: the project has no such network.
    """
    origin.check_has(card.variant)
    keys = key_map(origin.key_style(card.variant), card.variant)
    tensors = {keys[ours]: value.detach() for ours, value in model.state_dict().items()}
    constructor, notes = _constructor(card, origin)
    return Outgoing(tensors=tensors, constructor=constructor, notes=notes)


def _as_pytorch(value: Tensor, ours: str | None, origin: Origin) -> Tensor:
    """float32 in PyTorch's layout; the tensor of an unknown key is left alone."""
    if value.is_floating_point():
        value = value.float()
    if ours is None or origin.layout == "pytorch":
        return value
    if value.ndim == 4:
        # (k, k, in, out) → (out, in, k, k); depthwise (k, k, in, 1) → (in, 1, k, k)
        order = (2, 3, 0, 1) if ours.endswith("depthwise.conv.weight") else (3, 2, 0, 1)
        return value.permute(order).contiguous()
    return value.t().contiguous() if value.ndim == 2 else value


def _with_known_head(tensors: Mapping[str, Tensor], keys: Mapping[str, str]) -> Mapping[str, Tensor]:
    """The same tensors; a classifier that is the only layer with another name gets the name that is expected."""
    weight, bias = keys["classifier.weight"], keys["classifier.bias"]
    unknown = sorted(tensors.keys() - set(keys.values()))
    layers = [key.removesuffix(".weight") for key in unknown if key.endswith(".weight")]
    if weight in tensors or len(layers) != 1 or set(unknown) != {f"{layers[0]}.weight", f"{layers[0]}.bias"}:
        return tensors
    renamed = {f"{layers[0]}.weight": weight, f"{layers[0]}.bias": bias}
    return {renamed.get(key, key): value for key, value in tensors.items()}


def _check_values(tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that give no answers.

    Raises:
        CheckpointError: names the first tensor that holds NaN or infinity, or a variance below 0.
    """
    for key, value in tensors.items():
        if value.is_floating_point():
            odd = int((~torch.isfinite(value)).sum())
            negative = int((value < 0).sum()) if key.endswith(("running_var", "moving_variance")) else 0
            if odd or negative:
                what = f"{odd} values that are not finite" if odd else f"{negative} variances below 0"
                raise CheckpointError(
                    f"{name}: {key} has {what} of {value.numel()}.",
                    "The training that wrote it had diverged, or the file is damaged: take an earlier one.",
                )


def _channels_of(stem: Tensor | None) -> int:
    """How many planes a first convolution (out, C, k, k) takes; RGB where it takes none that are known."""
    taken = stem.shape[1] if stem is not None and stem.ndim == 4 else RGB
    return taken if taken in COLOR_ORDERS else RGB


def _refuse_planes(stem: Tensor | None, variant: Variant, name: str) -> None:
    """Say so if a first convolution is this network's but for planes that no network of the zoo takes.

    Raises:
        CheckpointError: it is.
    """
    if stem is None or stem.ndim != 4 or stem.shape[0] != variant.stem_channels or stem.shape[1] in COLOR_ORDERS:
        return
    raise CheckpointError(
        f"{name} takes pictures of {stem.shape[1]} planes; networks of the zoo take 1, 3 or 4.",
        "Train a network for 1, 3 or 4 of them: `zoo train MODEL --channels 4`.",
    )


def _new_classifier(variant: Variant, num_classes: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(HEAD_SEED)
        layer = nn.Linear(variant.num_features, num_classes)
        initialize(layer)
    return {f"classifier.{name}": value.detach() for name, value in layer.named_parameters()}


def _whose(given: Mapping[str, Tensor]) -> str:
    """A hint that names the network and project whose keys these are, where there is one."""
    names = {key for key in given if not key.endswith(COUNTER)}
    for origin in ORIGINS.values():
        for id, network in origin.networks.items():
            variant = find_variant(id)
            keys = key_map(origin.key_style(variant), variant)
            if names != {theirs for ours, theirs in keys.items() if not ours.endswith(COUNTER)}:
                continue
            # Several networks of a family have the same keys and differ in width.
            ends = {"stem": variant.stem_channels, "head": variant.head_channels}
            if variant.is_resnet or all(given[keys[f"{end}.norm.weight"]].numel() == ends[end] for end in ends):
                return f"Its keys are those of {origin.id}'s {network}: `zoo import {id} --from {origin.id}`."
    return "Is it another network's file?"


def _constructor(card: Checkpoint, origin: Origin) -> tuple[str, tuple[str, ...]]:
    """The call that makes the project's network for these weights, and notes on what the call cannot express."""
    variant, notes = card.variant, []
    if card.thresholds is not None:
        notes.append(
            "These weights answer several labels: a class is one where the sigmoid of its logit reaches its threshold. "
            "The file does not hold the thresholds; the checkpoint's card does."
        )
    call = origin.constructor.format(network=origin.networks[variant.id], num_classes=len(card.classes))
    arguments = []
    if variant.batch_norm_eps != origin.eps_of(variant.id):
        arguments.append(origin.eps_argument.format(eps=variant.batch_norm_eps))
    if variant.channels != RGB and origin.channels_argument:
        arguments.append(origin.channels_argument.format(channels=variant.channels))
    elif variant.channels != RGB:
        key = key_map(origin.key_style(variant), variant)[stem_key(variant)]
        notes.append(
            f"These weights take {card.preprocessing.planes}, and {origin.id} makes networks for 3: replace the first "
            f"convolution, {key.removesuffix('.weight')}, before you load them."
        )
    if card.padding != origin.padding:
        if origin.padding_argument:
            arguments.append(origin.padding_argument)
        else:
            notes.append(
                f"These weights expect {card.padding!r} padding and {origin.id} pads {origin.padding!r}: its answers "
                "will differ."
            )
    return ", ".join([call.removesuffix(")"), *arguments]) + ")", tuple(notes)
