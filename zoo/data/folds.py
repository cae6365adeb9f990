"""Owns which pictures are in which fold of a cross-validation: stratified, groups whole, by a seed; it trains none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.folder import name_in_class
from zoo.data.hold_out import groups_of, hash_of, rarest_label
from zoo.data.open import open_parts
from zoo.data.pictures import Pictures
from zoo.data.shards import PackedSources
from zoo.errors import DataError

SHOWN_CLASSES = 5


@dataclass(frozen=True)
class Folds:
    """All pictures that are divided, and the fold of each, (N,) int64 from 1 to `count`."""

    pictures: Pictures
    fold: NDArray[np.int64]
    count: int

    def places(self, number: int) -> NDArray[np.int64]:
        """Where the pictures of a fold stand among all, ascending."""
        return np.flatnonzero(self.fold == number)

    def splits(self, number: int) -> tuple[Pictures, Pictures]:
        """(train, val) of the run that holds a fold out."""
        return self.pictures.at(np.flatnonzero(self.fold != number)), self.pictures.at(self.places(number))

    def remarks(self) -> tuple[str, ...]:
        """What a person should know of the division, a line each."""
        counts = self.pictures.class_counts()
        few = [name for name, count in zip(self.pictures.classes, counts, strict=True) if count < self.count]
        alone = [name for name, held in zip(self.pictures.classes, self._folds_of_classes(), strict=True) if held == 1]
        said = [
            f"{_named(few)}: fewer pictures than the {self.count} folds, so that some folds have none to validate on.",
            f"{_named(alone)}: only in one fold, whose run is not trained on it.",
        ]
        return tuple(line for line, names in zip(said, (few, alone), strict=True) if names)

    def _folds_of_classes(self) -> list[int]:
        """In how many folds each class is."""
        of_classes = self.pictures.all_targets()
        return [len(np.unique(self.fold[of_classes[:, place]])) for place in range(of_classes.shape[1])]


def _named(classes: Sequence[str]) -> str:
    """“Class a”, “Classes a, b and 3 more”."""
    more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
    return f"{'Class' if len(classes) == 1 else 'Classes'} {', '.join(classes[:SHOWN_CLASSES])}{more}"


def open_folds(data: str, count: int, *, seed: int = 0, group_by: str | None = None) -> Folds:
    """Divide pictures into folds. Where they come as train and val, both together are divided; test is left alone.

    Args:
        data: as `zoo.data.open.open_splits` takes it, but no shards.
        count: how many folds, two at least.
        group_by: as in `zoo.data.hold_out.choose_held_out`; whole groups are in one fold.

    Raises:
        DataError: one fold, shards, fewer pictures or groups than folds; or as `open_splits`.
    """
    if count < 2:
        raise DataError(
            f"--folds {count} holds nothing out.", "5 and 10 are usual. Without --folds a fifth is held out, once."
        )
    parts = open_parts(data)
    if any(isinstance(part.sources, PackedSources) for part in parts):
        raise DataError(
            "--folds does not divide shards: which pictures are in train and val was decided when they were packed.",
            "Give it the folder, the file of labels or the arrays that they were made of.",
        )
    names = [name_in_class(part, index) for part in parts for index in range(len(part))]
    pictures = _joined(data, parts)
    if len(pictures) < count:
        raise DataError(f"{data} has {len(pictures)} pictures for {count} folds.", "Use fewer --folds.")
    strata, classes = pictures.labels, pictures.classes
    if pictures.targets is not None:
        strata, classes = rarest_label(pictures.targets), ("",) * (len(classes) + 1)
    return Folds(pictures, choose_folds(names, strata, classes, count, seed=seed, group_by=group_by), count)


def open_fold(
    data: str, number: int, count: int, *, seed: int = 0, group_by: str | None = None
) -> tuple[Pictures, Pictures]:
    """(train, val) of the run that holds one fold out; arguments and errors are those of `open_folds`."""
    if number > count:
        raise DataError(f"There is no fold {number} of {count}.", f"Use --fold 1 … {count}.")
    return open_folds(data, count, seed=seed, group_by=group_by).splits(number)


def fold_rule(number: int, count: int) -> str:
    """What a checkpoint records of the pictures it was validated on: “fold 2 of 5”."""
    return f"fold {number} of {count}"


def read_fold_rule(text: str | None) -> tuple[int, int] | None:
    """The fold and the number of folds that `fold_rule` wrote; None of another rule."""
    found = re.fullmatch(r"fold (\d+) of (\d+)", text or "")
    return (int(found[1]), int(found[2])) if found else None


def choose_folds(
    names: Sequence[str],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    count: int,
    *,
    seed: int,
    group_by: str | None = None,
) -> NDArray[np.int64]:
    """The fold of each of N pictures, from 1 to `count`.

    The pictures of each class stand in an order by a hash of seed, class and name, and are dealt out in turn; a class
    begins where the last one ended. So folds differ by one picture at most, of each class and in all. Groups are dealt
    out whole, the largest first, each to the fold that has least of its classes.

    Args:
        names, labels, classes, group_by: as in `zoo.data.hold_out.choose_held_out`.

    Raises:
        DataError: fewer groups than folds; or as `choose_held_out`.
    """
    if group_by is not None:
        return _deal_groups(groups_of(names, labels, classes, group_by), labels, count, seed)
    owned = (f"{seed}/{classes[label]}/{name}" for name, label in zip(names, labels.tolist(), strict=True))
    order = np.lexsort((np.fromiter(map(hash_of, owned), np.uint64, len(names)), labels))
    fold = np.empty(len(names), np.int64)
    fold[order] = np.arange(len(names)) % count + 1
    return fold


def _deal_groups(groups: Sequence[str], labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    if len(members) < count:
        raise DataError(
            f"--group-by finds {len(members)} group{'s' * (len(members) > 1)} for {count} folds.", "Use fewer --folds."
        )
    num_classes = int(labels.max()) + 1
    share = 1 / np.maximum(np.bincount(labels, minlength=num_classes), 1)  # so that rare classes count as much
    there, sizes = np.zeros((count, num_classes)), np.zeros(count)
    fold = np.empty(len(groups), np.int64)
    for group in sorted(members, key=lambda group: (-len(members[group]), hash_of(f"{seed}/{group}"))):
        own = np.bincount(labels[members[group]], minlength=num_classes)
        crowded = (there * (own * share)).sum(1)
        chosen = int(np.lexsort((sizes, crowded.round(9)))[0])
        there[chosen] += own
        sizes[chosen] += len(members[group])
        fold[members[group]] = chosen + 1
    return fold


def _joined(data: str, parts: Sequence[Pictures]) -> Pictures:
    """All parts as one set, whose names are below what holds them all."""
    first = parts[0]
    if len(parts) == 1:
        return first
    targets = [part.targets for part in parts if part.targets is not None]
    sizes = [part.sizes for part in parts if part.sizes is not None]
    return replace(
        first,
        name=data,
        root=first.root or str(Path(data)),
        sources=[source for part in parts for source in part.sources],
        labels=np.concatenate([part.labels for part in parts]),
        targets=np.concatenate(targets) if targets else None,
        sizes=np.concatenate(sizes) if len(sizes) == len(parts) else None,
        left_out=tuple(dict.fromkeys(line for part in parts for line in part.left_out)),
    )
