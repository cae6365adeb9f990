"""Owns balanced sampling: which picture comes when, so that every class comes equally often; it reads no picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.options import COUNTS_CLASSES_ALIKE
from train.progressive.adapt import UNEQUAL
from train.progressive.recipe import Recipe
from zoo.data.pictures import Pictures
from zoo.rows import Count, NotNegative, Row, Text
from zoo.visible import visible
from zoo.wording import digits

# Numbers drawn at once: few for a class of which an epoch has few pictures, enough for a class of two.
BLOCK = 1024
# How to do as if classes were equal.
AS_EQUAL = "--sampler shuffle --metric top1"
# Set these streams apart from each other and from those of the loop, which are (seed, epoch, 7, step).
CLASSES, PICTURES = (13, 1), (13, 2)


@dataclass(frozen=True, kw_only=True)
class ClassSeen(Row):
    """How many training pictures a class has, and how often an epoch sees one of them, on average."""

    name: Text
    pictures: Count
    times: NotNegative


def members_of(pictures: Pictures) -> tuple[NDArray[np.int64], ...]:
    """The indices of each class's pictures, of classes that have any.

    A picture with several labels is among those of each; the pictures without any are a class of their own.
    """
    if pictures.targets is None:
        order = np.argsort(pictures.labels, kind="stable")
        parts = np.split(order, np.cumsum(pictures.class_counts())[:-1])
    else:
        parts = [np.flatnonzero(has) for has in (*pictures.targets.T, ~pictures.targets.any(1))]
    return tuple(part for part in parts if len(part))


def balanced_order(members: Sequence[NDArray[np.int64]], *, seed: int, start: int, end: int) -> NDArray[np.int64]:
    """Places `start` … `end` of a sequence without end, as indices of pictures.

    Of K classes, each K places in a row have every class once, in an order drawn anew (class-aware sampling: Shen et
    al. 2016, arXiv 1512.05830). A class's pictures come in permutations in a row: none comes again before all
    of its class have come. So any part of the sequence is balanced to one picture a class, whatever came before it.
    """
    count = len(members)
    chosen = shuffled_rows(count, start, end, (seed, *CLASSES))
    turn = np.arange(start, end) // count  # every class has come so often before
    order = np.empty(end - start, np.int64)
    of_class = np.split(np.argsort(chosen, kind="stable"), np.cumsum(np.bincount(chosen, minlength=count))[:-1])
    for number, (own, places) in enumerate(zip(members, of_class, strict=True)):
        if len(places):
            first, last = int(turn[places[0]]), int(turn[places[-1]])
            order[places] = own[shuffled_rows(len(own), first, last + 1, (seed, *PICTURES, number))]
    return order


def shuffled_rows(width: int, start: int, end: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Places `start` … `end` of permutations of 0 … `width` − 1 in a row; the key and the place decide them."""
    rows = max(1, BLOCK // width)
    size = rows * width
    blocks = range(start // size, -(-end // size))
    drawn = [np.random.default_rng((*key, block)).random((rows, width)).argsort(axis=1).ravel() for block in blocks]
    return np.concatenate(drawn)[start - blocks.start * size :][: end - start]


def times_seen(pictures: Pictures, an_epoch: int) -> NDArray[np.float64]:
    """How often balanced sampling draws each picture in an epoch of `an_epoch` places, on average, (N,).

    Of K classes one with n pictures has 1/K of the places, so each of them gets 1 / (K · n); of several labels the sum.
    """
    members = members_of(pictures)
    times = np.zeros(len(pictures))
    for own in members:
        times[own] += an_epoch / (len(members) * len(own))
    return times


def imbalance_of(train: Pictures, val: Pictures | None = None) -> float:
    """How many times the pictures of the rarest class the most frequent one has, of classes that have any.

    1 where pictures may have several labels: then each has a loss and a figure of its own.

    Args:
        val: of a fold, so that all folds come to the same: together they are always the same pictures.
    """
    counts = train.class_counts() if val is None else train.class_counts() + val.class_counts()
    there = counts[counts > 0]
    return 1.0 if train.multi_label or not len(there) else float(there.max() / there.min())


def counts_seen(pictures: Pictures, recipe: Recipe) -> NDArray[np.float64]:
    """How many pictures of each class as many draws as there are pictures have, (K,): by shuffling, what there are."""
    if recipe.sampler == "shuffle":
        return pictures.class_counts().astype(np.float64)
    times = times_seen(pictures, len(pictures))
    if pictures.targets is None:
        return np.bincount(pictures.labels, times, len(pictures.classes)).astype(np.float64)
    found: NDArray[np.float64] = times @ pictures.targets
    return found


def classes_seen(pictures: Pictures, recipe: Recipe) -> tuple[ClassSeen, ...]:
    """Every class that has pictures, in the order of the data; nothing unless the recipe balances."""
    if recipe.sampler == "shuffle":
        return ()
    own, an_epoch = pictures.class_counts(), recipe.epoch_pictures or len(pictures)
    seen = counts_seen(pictures, recipe) / np.maximum(own, 1) * an_epoch / len(pictures)
    rows = zip(pictures.classes, own.tolist(), seen.tolist(), strict=True)
    return tuple(ClassSeen(name=name, pictures=count, times=times) for name, count, times in rows if count)


def unequal_remark(pictures: Pictures, recipe: Recipe) -> str:
    """What to say where classes are so unequal that the share of right answers flatters, and what the recipe does.

    "" where they are not.
    """
    if imbalance_of(pictures) < UNEQUAL:
        return ""
    counts = pictures.class_counts()
    often = int(counts.argmax())
    rare = int(np.where(counts > 0, counts, counts[often]).argmin())
    most, fewest = (f"{visible(pictures.classes[place])} ({counts[place]:,})" for place in (often, rare))
    balanced = recipe.sampler == "balanced" or recipe.class_weights is not None
    fair = recipe.metric in COUNTS_CLASSES_ALIKE
    ways = [] if balanced else ["--sampler balanced shows every class equally often"]
    ways += [] if fair else ["--metric balanced_accuracy chooses the best epoch by all classes alike"]
    if ways:
        does = f"{'; '.join(ways)}."
    else:
        how = "every class comes equally often" if recipe.sampler == "balanced" else "rare ones weigh more"
        does = f"{how}, and the best epoch is that of the best {recipe.metric.replace('_', ' ')} (else: {AS_EQUAL})."
    return f"Classes are unequal, from {most} to {fewest} pictures, so top-1 flatters: {does}"


def balance_remarks(seen: Sequence[ClassSeen], recipe: Recipe, *, multi_label: bool) -> tuple[str, ...]:
    """What balanced sampling comes to, and that class weights beside it correct for the same, a line each.

    Args:
        seen: as `classes_seen` has them; none: nothing is balanced.
    """
    if not seen:
        return ()
    few, many = (choose(seen, key=lambda row: row.pictures) for choose in (min, max))
    rare, common = (f"{visible(row.name)} ({row.pictures:,}) {digits(row.times, 2)} times" for row in (few, many))
    why = "; one with several labels comes for each of them" if multi_label else ""
    told = f"Balanced sampling: an epoch sees a picture of {rare}, one of {common}{why}."
    weights = recipe.class_weights
    if weights is None or (isinstance(weights, tuple) and len(set(weights)) == 1):
        return (told,)
    return told, (
        "Balanced sampling and class weights correct for the same thing: together rare classes count more than they "
        "should. Leave one of them out."
    )
