"""Owns what a network gets wrong, as markup: the classes it confuses, and the pictures; it runs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.learn.scores import count_confusion
from train.learn.validation import Answers
from zoo.data.pictures import Pictures
from zoo.errors import BrokenPictureError, DataError
from zoo.page.elements import embedded_image, table
from zoo.page.markup import Child, Markup, join, tag
from zoo.page.matrix import MATRIX_CLASSES, render_matrix
from zoo.wording import percent

NUM_PAIRS, NUM_WEAKEST, NUM_PICTURES = 20, 10, 24
THUMBNAIL_PX = 112
UNREADABLE = tag("span", "no longer readable", class_="muted")


def most_confused(answers: Answers, count: int) -> list[tuple[int, int, int]]:
    """The `count` most frequent mistakes as (true class, predicted class, pictures), the most frequent first."""
    wrong = answers.label != answers.predicted
    pairs, counts = np.unique(np.stack([answers.label[wrong], answers.predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:count]  # equal ones stay in the order of their classes
    return [(int(pairs[0, i]), int(pairs[1, i]), int(counts[i])) for i in order]


def confusion_section(answers: Answers, classes: Sequence[str]) -> Markup:
    """The matrix where there are few classes, else the most confused pairs and the weakest classes."""
    if len(classes) <= MATRIX_CLASSES:
        return tag("section", tag("h2", "Confusion"), render_matrix(count_confusion(answers, len(classes)), classes))
    lists = _pairs(answers, classes), _weakest(answers, classes)
    return tag("section", tag("h2", "Confusion"), *lists, class_="names")


def _pairs(answers: Answers, classes: Sequence[str]) -> Markup:
    counts = np.bincount(answers.label, minlength=len(classes))
    rows: list[list[Child]] = [
        [classes[i], classes[j], f"{count:,}", percent(count / counts[i])]
        for i, j, count in most_confused(answers, NUM_PAIRS)
    ]
    heads = ("true class", "taken for", "pictures", "of the class")
    return table(heads, rows, caption=f"The most confused pairs of {len(classes):,} classes", words=(0, 1))


def _weakest(answers: Answers, classes: Sequence[str]) -> Markup:
    counts = np.bincount(answers.label, minlength=len(classes))
    right = np.bincount(answers.label[answers.label == answers.predicted], minlength=len(classes))
    known = np.flatnonzero(counts)
    shares = right[known] / counts[known]
    order = np.argsort(shares, kind="stable")[:NUM_WEAKEST]
    rows: list[list[Child]] = [[classes[known[i]], percent(float(shares[i])), f"{counts[known[i]]:,}"] for i in order]
    return table(("class", "right", "pictures"), rows, caption="The classes least often right")


def worst_pictures(answers: Answers, count: int) -> NDArray[np.int64]:
    """Places in `answers` of wrong ones, those whose true class got the lowest score first."""
    wrong = np.flatnonzero(answers.label != answers.predicted)
    order = np.lexsort((-answers.score[wrong], answers.label_score[wrong]))
    return wrong[order][:count]


def pictures_section(
    answers: Answers, pictures: Pictures, classes: Sequence[str], thumbnails: dict[int, Markup]
) -> Markup:
    """The worst-classified pictures with both classes and their scores.

    `thumbnails` has those made before by index; it is left with those of this call.
    """
    chosen = worst_pictures(answers, NUM_PICTURES)
    for index in thumbnails.keys() - set(answers.index[chosen].tolist()):
        del thumbnails[index]
    total = int((answers.label != answers.predicted).sum())
    heading = tag("h2", "Worst-classified pictures")
    if not total:
        return tag("section", heading, tag("p", "Every validation picture is classified right."))
    shown = "All" if total == len(chosen) else f"{len(chosen)} of"
    note = f"{shown} {total:,} wrong ones, the lowest score of the true class first. Scores are the softmax."
    _draw_missing(pictures, answers.index[chosen].tolist(), thumbnails)
    figures = (_figure(answers, int(place), pictures, classes, thumbnails) for place in chosen)
    return tag("section", heading, tag("p", note, class_="note"), tag("div", *figures, class_="wrong"))


def _draw_missing(pictures: Pictures, wanted: list[int], thumbnails: dict[int, Markup]) -> None:
    """Add the thumbnails that are not there; where the pictures' server is gone, the page goes without the rest."""
    try:
        for index in wanted:
            if index not in thumbnails:
                thumbnails[index] = draw_thumbnail(pictures, index)
    except DataError:
        return


def _figure(
    answers: Answers, place: int, pictures: Pictures, classes: Sequence[str], thumbnails: dict[int, Markup]
) -> Markup:
    index = int(answers.index[place])
    true, taken = classes[answers.label[place]], classes[answers.predicted[place]]
    caption = tag(
        "figcaption",
        join(true, " ", tag("span", percent(float(answers.label_score[place])), class_="muted")),
        tag("br"),
        tag("span", "→ ", class_="arrow"),
        tag("strong", taken),
        " ",
        tag("span", percent(float(answers.score[place])), class_="muted"),
    )
    return tag(
        "figure", tag("div", thumbnails.get(index, UNREADABLE), class_="frame"), caption, title=pictures.describe(index)
    )


def draw_thumbnail(pictures: Pictures, index: int) -> Markup:
    """A picture as an img element that carries its own bytes, at most `THUMBNAIL_PX` on a side."""
    source = pictures.sources[index]
    name = source.name if isinstance(source, Path) else f"picture {index}"
    try:
        image = pictures.open(index, min_size=THUMBNAIL_PX)
    except BrokenPictureError:  # it was readable when it was validated: gone or changed since
        return UNREADABLE
    small = max(image.size) < THUMBNAIL_PX // 2
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR)
    return embedded_image(image, "PNG" if small else "JPEG", alt=name, class_="small" if small else None)
