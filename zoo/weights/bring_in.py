"""Owns bringing weights in: it makes a network of ours, with its card, from another project's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.errors import DataError, ZooError
from zoo.model.network import Network
from zoo.model.spec import RGB, Preprocessing, Variant
from zoo.model.variants import find_variant
from zoo.weights.cache import file_of, missing_weights
from zoo.weights.checkpoint import Checkpoint
from zoo.weights.convert import to_network
from zoo.weights.formats.foreign import ForeignWeights, read_foreign
from zoo.weights.origins import ORIGINS, Origin
from zoo.weights.spec import Weights
from zoo.weights.table import WEIGHTS, expected_preprocessing


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A network in evaluation mode on the CPU, its card, and what the user should know about how it was made."""

    model: Network
    card: Checkpoint
    notes: tuple[str, ...]


def import_weights(
    variant: Variant,
    origin: Origin,
    file: Path,
    *,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    row: Weights | None = None,
    ema: bool | None = None,
) -> Imported:
    """Read another project's weights of a network that it has as well.

    Args:
        variant: our row of that network.
        origin: the project.
        file: as `read_foreign` takes it.
        num_classes: another number than the file's makes a new classifier on its backbone. None: the file's own.
        classes: names in index order, as many as `num_classes`. None: ImageNet's where there are 1,000.
        row: the published weights whose preprocessing this file expects. None: those with its SHA-256, else the
            project's most accurate ones of this network.
        ema: as in `read_foreign`.

    Raises:
        ZooError: the project has no such network, `row` is another project's, or `num_classes` and `classes` disagree.
        CheckpointError, MissingCapabilityError: as `read_foreign`; or keys are missing, unknown or misshapen.
    """
    if classes and num_classes and len(classes) != num_classes:
        raise ZooError(f"There are {len(classes)} class names for {num_classes} classes.", "Leave --num-classes out.")
    if row and row.origin != origin.id:
        raise ZooError(f"{row.id} are weights of {row.origin}, not of {origin.id}.", f"Choose --from {row.origin}.")
    origin.check_has(variant)
    return _adopt(variant, origin, read_foreign(file, ema=ema), len(classes) if classes else num_classes, classes, row)


def load_published(row: Weights) -> tuple[Network, Checkpoint]:
    """Build a network with its published weights, in evaluation mode on the CPU.

    Raises:
        MissingCapabilityError: not fetched yet, or the package that brings them is not installed.
        CheckpointError: the file is not the published one (SHA-256), or does not fit.
    """
    path = file_of(row)
    if path is None:
        raise missing_weights(row)
    imported = _adopt(
        find_variant(row.variant), ORIGINS[row.origin], read_foreign(path, row), row.num_classes, None, row
    )
    return imported.model, imported.card


def default_classes(count: int) -> tuple[str, ...]:
    """Class names in index order where there are none: of 1,000 ImageNet's, as torchvision has them; else numbers."""
    if count != 1000:
        return tuple(f"class {index}" for index in range(count))
    from torchvision.models import EfficientNet_V2_S_Weights

    return tuple(EfficientNet_V2_S_Weights.IMAGENET1K_V1.meta["categories"])


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read a text file with one class name a line, in index order; empty lines are skipped.

    Raises:
        DataError: unreadable, fewer than two names, or one of them twice.
    """
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The class names in {path} cannot be read: {error}.", "One name a line, UTF-8.") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if len(names) < 2 or twice:
        problem = f"holds {', '.join(twice[:5])} more than once" if twice else f"holds {len(names)} class names"
        raise DataError(f"{path} {problem}.", "It needs at least two different names, one a line.")
    return names


def _adopt(
    variant: Variant,
    origin: Origin,
    foreign: ForeignWeights,
    num_classes: int | None,
    classes: Sequence[str] | None,
    row: Weights | None,
) -> Imported:
    variant = replace(variant, batch_norm_eps=origin.eps_of(variant.id))
    model, file_classes = to_network(foreign.tensors, variant, origin, name=foreign.name, num_classes=num_classes)
    variant = model.variant
    published = _identify(foreign.sha256, origin)
    expects = row or published
    new_head = file_classes != model.num_classes
    preprocessing = expects.preprocessing if expects else expected_preprocessing(origin, variant)
    card = Checkpoint(
        variant=variant,
        classes=tuple(classes) if classes else default_classes(model.num_classes),
        preprocessing=preprocessing.with_channels(variant.channels),
        padding=origin.padding,
        provenance={
            "weights": published.id if published else None,
            "origin": origin.id,
            "file": foreign.name,
            "sha256": foreign.sha256,
            "licence": published.licence if published else None,
            "published_top1": published.accuracy.top1 if published and not new_head else None,
            "head": "new" if new_head else "kept",
            "file_classes": file_classes,
        },
    )
    notes = [f"This is the published file {published.id}." if published else _assumed(card.preprocessing)]
    if foreign.part:
        notes.append(f"Taken from the file: {foreign.part}.")
    if new_head:
        had = f"the file has {file_classes}" if file_classes else "the file has no head"
        notes.append(f"The head is new, for {model.num_classes} classes ({had}): train it before use.")
    return Imported(model=model, card=card, notes=tuple(notes))


def _identify(sha256: str, origin: Origin) -> Weights | None:
    rows = (row for row in WEIGHTS if row.origin == origin.id)
    return next((row for row in rows if sha256.startswith(row.sha256_prefix)), None)


def _assumed(preprocessing: Preprocessing) -> str:
    planes = "" if preprocessing.channels == RGB else f"{preprocessing.color_order}, "
    mean, std = ("/".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    return (
        f"Not a published file; preprocessing assumed: {preprocessing.image_size} px, {preprocessing.resize}, "
        f"{preprocessing.interpolation}, {planes}mean {mean}, std {std}."
    )
