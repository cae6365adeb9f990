"""Owns which pictures an epoch draws, in which order and batches; how they are read, the loader knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from train.progressive.balance import balanced_order, members_of
from train.progressive.recipe import Recipe, TrainingStage
from train.progressive.schedule import steps_per_epoch
from zoo.data.pictures import Pictures

Batches = list[list[int]]


def epoch_draws(
    pictures: Pictures,
    recipe: Recipe,
    stage: TrainingStage,
    *,
    seed: int,
    epoch: int,
    processes: int = 1,
    portion: tuple[int, int] | None = None,
) -> Batches:
    """`epoch_batches` as the recipe's sampler draws them, as draws: `picture_of` says which picture each is of."""
    members = members_of(pictures) if recipe.sampler == "balanced" else None
    chosen = epoch_batches(
        len(pictures), stage, seed=seed, epoch=epoch, processes=processes, portion=portion, members=members
    )
    return tell_apart(chosen, len(pictures))


def epoch_batches(
    num_pictures: int,
    stage: TrainingStage,
    *,
    seed: int,
    epoch: int,
    processes: int = 1,
    portion: tuple[int, int] | None = None,
    members: Sequence[NDArray[np.int64]] | None = None,
) -> Batches:
    """Order of one epoch: a permutation by (seed, epoch), cut into batches of the stage's size, or one picture fewer.

    With a `portion`, (start, end), the epoch is that part of the permutations by (seed, 0), (seed, 1), … in a row. With
    the `members` of the classes it is the same places of `balanced_order` instead.

    Equal batches, because a small last one would weigh its few pictures as much as the others, and one of a single
    picture has no variance for batch norm. A data set smaller than a batch is one batch. If several `processes` train
    together, each has a batch of its own, these are all of them together, and all of them are full.
    """
    start, end = portion or (epoch * num_pictures, (epoch + 1) * num_pictures)
    if members is None:
        order = shuffled_order(num_pictures, seed=seed, start=start, end=end)
    else:
        order = balanced_order(members, seed=seed, start=start, end=end)
    steps, size = steps_per_epoch(len(order), stage.batch_size, processes), stage.batch_size * processes
    batches = np.array_split(order, steps) if processes == 1 else [order[s * size :][:size] for s in range(steps)]
    return [batch.tolist() for batch in batches]


def shuffled_order(num_pictures: int, *, seed: int, start: int, end: int) -> NDArray[np.int64]:
    """Places `start` … `end` of passes over the pictures in a row, each in an order of its own."""
    passes = range(start // num_pictures, -(-end // num_pictures))
    order = np.concatenate([np.random.default_rng((seed, number)).permutation(num_pictures) for number in passes])
    return order[start - passes.start * num_pictures :][: end - start]


def tell_apart(batches: Batches, num_pictures: int) -> Batches:
    """Draws: the r-th time that an epoch draws picture i again is i + r · `num_pictures`.

    It is the draw that decides crop and augmentation, so that a picture is not seen twice in the same way.
    """
    flat = np.array([index for batch in batches for index in batch], np.int64)
    sorting = np.argsort(flat, kind="stable")
    ordered = flat[sorting]
    # Equal ones are neighbours now: how far each is behind the first of its kind.
    again = np.empty_like(flat)
    again[sorting] = np.arange(len(flat)) - np.searchsorted(ordered, ordered)
    ends = np.cumsum([len(batch) for batch in batches])[:-1]
    return [batch.tolist() for batch in np.split(flat + again * num_pictures, ends)]


def picture_of(draw: int, num_pictures: int) -> int:
    """Which picture a draw is of."""
    return draw % num_pictures
