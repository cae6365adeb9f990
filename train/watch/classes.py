"""Owns what is said of each class, on the page and in classes.csv: pictures in each split, precision, recall, F1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from train.learn.job import Job
from train.learn.scores import ClassCounts, count_classes
from train.learn.validation import Answers
from train.progressive.balance import classes_seen
from zoo.intervals import share_interval
from zoo.label_scores import LabelCounts
from zoo.page.elements import table
from zoo.page.markup import Child, Markup, join, tag
from zoo.visible import visible
from zoo.wording import percent, times

# Rows of the page; classes.csv has all.
SHOWN_CLASSES = 40
# The column of balanced sampling, and what it is.
SEEN = "seen an epoch"
SEEN_NOTE = " Balanced sampling sees each training picture so often in an epoch, on average."
CSV_HEADS = (
    *("class", "train_pictures", "val_pictures", "test_pictures", "split", "pictures", "answers", "right"),
    *(f"{name}{end}" for name in ("precision", "recall", "f1") for end in ("", "_low", "_high")),
)


class Estimate(NamedTuple):
    """A figure of merit with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class ClassLine(NamedTuple):
    """One class: its pictures in train, val and test (None without such a split), and how it is told from others.

    `pictures`, `answers` and `right` are of the split that was judged.
    """

    name: str
    train: int
    val: int
    test: int | None
    pictures: int
    answers: int
    right: int

    @property
    def precision(self) -> Estimate | None:
        """The share of the answers that are right; None without answers."""
        return estimate(self.right, self.answers)

    @property
    def recall(self) -> Estimate | None:
        """The share of the pictures that are right; None without pictures."""
        return estimate(self.right, self.pictures)

    @property
    def f1(self) -> Estimate | None:
        """2·right / (pictures + answers); None without pictures.

        With J = right / (pictures or answers of the class) it is 2J / (1 + J), which rises with J: its interval is
        that of the share J.
        """
        if not self.pictures:
            return None
        overlap = estimate(self.right, self.pictures + self.answers - self.right)
        return Estimate(*(2 * share / (1 + share) for share in overlap)) if overlap else None


def class_lines(job: Job, counts: ClassCounts | LabelCounts) -> list[ClassLine]:
    """Every class, those with the lowest F1 first; at the end those that have no picture to be judged by."""
    size = len(job.classes)
    train, val = job.train_set.class_counts(), job.val_set.class_counts()
    test = job.test_set.class_counts() if job.test_set else None
    lines = [
        ClassLine(
            name=job.classes[place],
            train=int(train[place]),
            val=int(val[place]),
            test=None if test is None else int(test[place]),
            pictures=int(counts.pictures[place]),
            answers=int(counts.answers[place]),
            right=int(counts.right[place]),
        )
        for place in range(size)
    ]
    return sorted(lines, key=lambda line: line.f1.value if line.f1 else 2.0)


def classes_section(job: Job, answers: Answers, split: str) -> Markup:
    """The classes as a table, the weakest first; `split` is what the answers are of: validation or test."""
    lines = class_lines(job, count_classes(answers, len(job.classes)))
    most = max(max(line.train for line in lines), 1)
    judged: list[Child] = ["class", "F1", "recall", "precision", "n"]
    seen = times_seen_by_name(job)
    heads = [*judged, "training", "", *([SEEN] if seen else []), "validation", *(["test"] if job.test_set else [])]
    rows: list[list[Child]] = []
    for line in lines[:SHOWN_CLASSES]:
        often = [seen.get(line.name, "–")] if seen else []
        pictures: list[Child] = [f"{line.train:,}", _meter(line.train / most), *often, f"{line.val:,}"]
        pictures += [f"{line.test:,}"] if line.test is not None else []
        figures = [with_interval(each) for each in (line.f1, line.recall, line.precision)]
        rows.append([line.name, *figures, f"{line.pictures:,}", *pictures])
    counts = [line.train for line in lines]
    spread = f"{min(counts):,} to {max(counts):,} training pictures each. " if min(counts) < max(counts) else ""
    more = f" The {SHOWN_CLASSES} weakest are shown; classes.csv has all." if len(lines) > SHOWN_CLASSES else ""
    note = (
        f"{len(lines):,} classes, the lowest F1 first. {spread}n is the number of {split} pictures that the "
        f"figures are of; 95 % intervals are Wilson's: where they are wide, n is small."
        f"{SEEN_NOTE if seen else ''}{more}"
    )
    return tag(
        "section",
        tag("h2", "Classes"),
        tag("p", note, class_="note"),
        table(heads, rows, words=(0, 6)),
        class_="classes",
    )


def times_seen_by_name(job: Job) -> dict[str, str]:
    """“3.2×” for each class that has training pictures; nothing unless the run balances its classes."""
    return {row.name: times(row.times) for row in classes_seen(job.train_set, job.recipe)}


def csv_rows(job: Job, answers: Answers, split: str) -> Iterator[list[str | int | float | None]]:
    """The same as lines of classes.csv, in the order of the classes' names in the data."""
    order = {name: place for place, name in enumerate(job.classes)}
    lines = class_lines(job, count_classes(answers, len(job.classes)))
    for line in sorted(lines, key=lambda line: order[line.name]):
        yield csv_row(line, split)


def csv_row(line: ClassLine, split: str) -> list[str | int | float | None]:
    """One class as a line of classes.csv."""
    figures = ((None,) * 3 if each is None else each for each in (line.precision, line.recall, line.f1))
    pictures = (line.train, line.val, line.test, split, line.pictures, line.answers, line.right)
    return [visible(line.name), *pictures, *(value for each in figures for value in each)]


def estimate(right: int, total: int) -> Estimate | None:
    """The share, `right` of `total`; None of nothing."""
    return Estimate(right / total, *share_interval(right, total)) if total else None


def with_interval(found: Estimate | None) -> Markup:
    """A share in words: “71 % 58–81”."""
    if found is None:
        return join("–")
    value, low, high = found
    return join(percent(value), " ", tag("span", f"{100 * low:.0f}–{100 * high:.0f}", class_="muted"))


def _meter(share: float) -> Markup:
    return tag("span", class_="meter", style=f"--share:{100 * share:.0f}%", aria_hidden="true")
