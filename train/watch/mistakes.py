"""Owns what a network gets wrong and right, as markup: classes it confuses, and pictures; it runs no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from train.learn.job import Job
from train.learn.scores import count_confusion
from train.learn.validation import Answers
from train.watch.thumbnails import Drawn
from zoo.page.elements import table
from zoo.page.markup import Child, Markup, join, tag
from zoo.page.matrix import MATRIX_CLASSES, render_matrix
from zoo.wording import percent

NUM_PAIRS, NUM_PICTURES = 20, 24
NUM_DRAWN_PAIRS, NUM_RIGHT = 12, 12


def most_confused(answers: Answers, count: int) -> list[tuple[int, int, int]]:
    """The `count` most frequent mistakes as (true class, predicted class, pictures), the most frequent first."""
    wrong = answers.label != answers.predicted
    pairs, counts = np.unique(np.stack([answers.label[wrong], answers.predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:count]  # equal ones stay in the order of their classes
    return [(int(pairs[0, i]), int(pairs[1, i]), int(counts[i])) for i in order]


def most_certain(answers: Answers, true: int, taken: int) -> int:
    """The place in `answers` of the picture of one class that was taken for another with the highest score."""
    places = np.flatnonzero((answers.label == true) & (answers.predicted == taken))
    return int(places[np.argmax(answers.score[places])])


def worst_pictures(answers: Answers, count: int) -> NDArray[np.int64]:
    """Places in `answers` of wrong ones, those whose true class got the lowest score first."""
    wrong = np.flatnonzero(answers.label != answers.predicted)
    order = np.lexsort((-answers.score[wrong], answers.label_score[wrong]))
    return wrong[order][:count]


def some_right(answers: Answers, count: int, seed: int) -> NDArray[np.int64]:
    """Places in `answers` of right ones, drawn by `seed`, the least certain first.

    The order in which pictures are tried is that of the whole set, so that the next page shows mostly the same ones.
    """
    right = answers.label == answers.predicted
    tried = np.random.default_rng((seed, 13)).permutation(len(right))
    chosen = tried[right[tried]][:count]
    least_certain: NDArray[np.int64] = chosen[np.argsort(answers.score[chosen], kind="stable")]
    return least_certain


def mistakes_sections(job: Job, answers: Answers, drawn: Drawn) -> list[Markup]:
    """Confusion, the most confused pairs, the worst-classified pictures, and some right ones.

    `drawn` has the thumbnails made before; it is left with those of this call.
    """
    pairs = most_confused(answers, NUM_PAIRS)
    examples = [most_certain(answers, true, taken) for true, taken, _ in pairs[:NUM_DRAWN_PAIRS]]
    worst = worst_pictures(answers, NUM_PICTURES).tolist()
    right = some_right(answers, NUM_RIGHT, job.settings.seed).tolist()
    drawn.update(job.val_set, answers.index[[*worst, *examples, *right]].tolist())
    return [
        confusion_section(answers, job.classes, pairs),
        *([_drawn_pairs(job, answers, pairs, examples, drawn)] if pairs else []),
        _worst(job, answers, worst, drawn),
        *([_right(job, answers, right, drawn)] if right else []),
    ]


def confusion_section(answers: Answers, classes: Sequence[str], pairs: Sequence[tuple[int, int, int]]) -> Markup:
    """The matrix where there are few classes, else the most confused pairs."""
    if len(classes) <= MATRIX_CLASSES:
        shown = render_matrix(count_confusion(answers, len(classes)), classes)
        return tag("section", tag("h2", "Confusion"), shown)
    counts = np.bincount(answers.label, minlength=len(classes))
    rows: list[list[Child]] = [
        [classes[i], classes[j], f"{count:,}", percent(count / counts[i])] for i, j, count in pairs
    ]
    heads = ("true class", "taken for", "pictures", "of the class")
    listed = table(heads, rows, caption=f"The most confused pairs of {len(classes):,} classes", words=(0, 1))
    return tag("section", tag("h2", "Confusion"), listed, class_="names")


def _drawn_pairs(
    job: Job, answers: Answers, pairs: Sequence[tuple[int, int, int]], examples: Sequence[int], drawn: Drawn
) -> Markup:
    counts = np.bincount(answers.label, minlength=len(job.classes))
    figures = []
    for (true, _, count), place in zip(pairs, examples, strict=False):
        often = f"{count:,} of {counts[true]:,}"
        caption = _taken_for(job, answers, place), tag("br"), tag("span", often, class_="muted")
        figures.append(drawn.figure(job.val_set, int(answers.index[place]), join(*caption)))
    note = (
        "How many pictures of the first class were taken for the second, and the one taken so with the highest score."
    )
    heading = tag("h2", "Most confused pairs")
    return tag("section", heading, tag("p", note, class_="note"), tag("div", *figures, class_="pictures"))


def _worst(job: Job, answers: Answers, places: Sequence[int], drawn: Drawn) -> Markup:
    total = int((answers.label != answers.predicted).sum())
    heading = tag("h2", "Worst-classified pictures")
    if not total:
        return tag("section", heading, tag("p", "Every validation picture is classified right."))
    shown = "All" if total == len(places) else f"{len(places)} of"
    note = f"{shown} {total:,} wrong ones, the lowest score of the true class first. Scores are the softmax."
    figures = (
        drawn.figure(job.val_set, int(answers.index[place]), _taken_for(job, answers, place, with_own_score=True))
        for place in places
    )
    return tag("section", heading, tag("p", note, class_="note"), tag("div", *figures, class_="pictures"))


def _right(job: Job, answers: Answers, places: Sequence[int], drawn: Drawn) -> Markup:
    total = int((answers.label == answers.predicted).sum())
    shown = "All" if total == len(places) else f"{len(places)} of"
    note = f"{shown} {total:,} right ones, drawn at random; the lowest score first."
    figures = []
    for place in places:
        score = tag("span", percent(float(answers.score[place])), class_="muted")
        caption = join(tag("strong", job.classes[answers.label[place]]), " ", score)
        figures.append(drawn.figure(job.val_set, int(answers.index[place]), caption))
    heading = tag("h2", "Pictures classified right")
    return tag("section", heading, tag("p", note, class_="note"), tag("div", *figures, class_="pictures"))


def _taken_for(job: Job, answers: Answers, place: int, *, with_own_score: bool = False) -> Markup:
    """“cat 3.0 %” over “→ dog 71 %”."""
    true, taken = job.classes[answers.label[place]], job.classes[answers.predicted[place]]
    own = tag("span", percent(float(answers.label_score[place])), class_="muted") if with_own_score else None
    return join(
        true,
        " " if own else None,
        own,
        tag("br"),
        tag("span", "→ ", class_="arrow"),
        tag("strong", taken),
        " ",
        tag("span", percent(float(answers.score[place])), class_="muted"),
    )
