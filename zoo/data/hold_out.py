"""Owns which pictures are held out of data that nobody divided: a fifth of every class, and whole groups."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError

VAL_SHARE = 0.2
PARENT = "parent"
# The name of this file's rule, which checkpoints record: what another rule held out, this one may have trained on.
RULE = "stratified"


def choose_held_out(
    names: Sequence[str], labels: NDArray[np.int64], classes: Sequence[str], *, seed: int, group_by: str | None = None
) -> NDArray[np.bool_]:
    """Which of N pictures are held out: a fifth of every class, to the nearest picture, and at least one of two.

    The pictures of a class stand in an order of their own, by a hash of seed, class and name, and its first fifth is
    held out. So what is added to one class moves nothing in another, and in its own at most one for each new picture.

    Args:
        names: each picture's path below its class's folder, with / between its parts.
        labels: (N,) indices into `classes`.
        group_by: pictures that belong together (one patient, one object) stay on one side. "parent": those of one
            folder below the class, which may be in several classes; or a regular expression, whose first group (or
            whole match) in the name says to what a picture belongs. Whole groups are then taken in the order of their
            hashes, as long as that brings the classes nearer to a fifth.

    Returns:
        (N,) bool.

    Raises:
        DataError: `group_by` is no regular expression, or fits no name.
    """
    if group_by is None:
        owned = (f"{seed}/{classes[label]}/{name}" for name, label in zip(names, labels.tolist(), strict=True))
        return first_fifth(np.fromiter(map(hash_of, owned), np.uint64, len(names)), labels)
    return _by_group(groups_of(names, labels, classes, group_by), labels, seed)


def only_on_one_side(train: NDArray[np.int64], val: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    """The classes that have no picture on one of two sides; `train` and `val` count each class's pictures, (K,)."""
    return [name for name, here, there in zip(classes, train, val, strict=True) if not (here and there)]


def rarest_label(targets: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each picture with several labels the one that fewest pictures have; K for a picture without. (N, K) → (N,).

    Held out a fifth each by these, rare classes are parted as well as can be, and frequent ones, which have thousands
    of pictures in every part, nearly so.
    """
    rarest_first = np.argsort(targets.sum(0), kind="stable")
    found = targets[:, rarest_first]
    rarest: NDArray[np.int64] = rarest_first[found.argmax(1)]
    return np.where(found.any(1), rarest, targets.shape[1])


def _target(count: int) -> int:
    """How many of a class to hold out: a fifth to the nearest picture, but none of one and not all of two."""
    return min(max(int(count * VAL_SHARE + 0.5), 1), count - 1) if count else 0


def first_fifth(hashes: NDArray[np.uint64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of N pictures to hold out: of every class the fifth with the smallest hashes, made by `hash_of`."""
    order = np.lexsort((hashes, labels))
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    held_out = np.zeros(len(labels), np.bool_)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        held_out[order[start : start + _target(count)]] = True
    return held_out


def _by_group(groups: Sequence[str], labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    counts = {group: Counter(labels[indices].tolist()) for group, indices in members.items()}
    missing = {label: _target(count) for label, count in Counter(labels.tolist()).items()}
    left = Counter(label for count in counts.values() for label in count)  # groups of each class still in training
    in_order = sorted(members, key=lambda group: hash_of(f"{seed}/{group}"))
    taken: list[str] = []

    def take(group: str) -> None:
        taken.append(group)
        for label, count in counts[group].items():
            missing[label] -= count
            left[label] -= 1

    for group in in_order:
        gain = sum(abs(missing[label]) - abs(missing[label] - count) for label, count in counts[group].items())
        if gain > 0 and all(left[label] > 1 for label in counts[group]):
            take(group)
    # A class whose groups are all too large for a fifth gives the smallest that leaves every class in training.
    for label in sorted(left):
        if not any(label in counts[group] for group in taken):
            able = [
                group for group in in_order if label in counts[group] and all(left[own] > 1 for own in counts[group])
            ]
            if able:
                take(min(able, key=lambda group: len(members[group])))
    held_out = np.zeros(len(groups), np.bool_)
    held_out[[index for group in taken for index in members[group]]] = True
    return held_out


def groups_of(names: Sequence[str], labels: NDArray[np.int64], classes: Sequence[str], group_by: str) -> list[str]:
    """What each picture belongs to; one that names no group is one of its own."""
    alone = [f"{classes[label]}/{name}/" for name, label in zip(names, labels.tolist(), strict=True)]
    if group_by == PARENT:
        parents = (str(PurePath(name).parent) for name in names)
        found: list[str | None] = [None if parent == "." else parent for parent in parents]
    else:
        try:
            pattern = re.compile(group_by)
        except re.error as error:
            raise DataError(
                f"--group-by {group_by!r} is no regular expression: {error}.",
                "For example --group-by '^(patient\\d+)'.",
            ) from error
        matches = (pattern.search(name) for name in names)
        found = [match and (match[1] if pattern.groups else match[0]) for match in matches]
    if not any(found):
        example = names[0] if names else "nothing"
        raise DataError(
            f"--group-by {group_by!r} finds no group in names such as {example!r}.", "Compare it with them."
        )
    return [group or own for group, own in zip(found, alone, strict=True)]


def hash_of(name: str) -> int:
    """64 bits of a name: the same for both ways of writing é, as a copy to another system may change it."""
    return int.from_bytes(
        hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")).digest()[:8]
    )
