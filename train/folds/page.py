"""Owns the page of a cross-validation: its folds side by side, and what was confused; it computes no figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from train.folder import PREDICTIONS, REPORT, SUMMARY
from train.folds.summary import METRIC_NAMES, OutOfFold, Summary
from train.options import Metric
from train.spreadsheets import LABEL_SEPARATOR
from train.watch.classes import SHOWN_CLASSES, ClassLine, with_interval
from train.watch.mistakes import NUM_PAIRS, confusion_section, most_confused
from zoo import __version__
from zoo.machine import environment
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.elements import environment_table, render_document, table
from zoo.page.markup import Child, Markup, tag
from zoo.visible import visible
from zoo.wording import digits_or_dash, duration

_STYLE = Path(__file__).parents[1] / "watch" / "report.css"

_COLUMNS: tuple[Metric, ...] = ("top1", "balanced_accuracy", "macro_f1", "map", "loss")


def render_summary(summary: Summary, answered: OutOfFold, classes: Sequence[str]) -> str:
    """The page as text: one HTML file, with links to the folds' own pages beside it."""
    known = environment()
    first, *others = headlines(summary)
    confusion = None
    if answered.answers is not None:
        pairs = most_confused(answered.answers, NUM_PAIRS)
        confusion = confusion_section(answered.answers, classes, pairs)
    return render_document(
        kicker="zoo cross-validation",
        title=f"{summary.model} on {summary.data}",
        subtitle=f"{summary.recipe} recipe, {summary.n} folds, {known['time'][:16].replace('T', ' ')} UTC",
        main=[
            tag("p", first, class_="headline"),
            tag("ul", *(tag("li", sentence) for sentence in others), class_="headlines"),
            _chart(summary),
            _folds_table(summary),
            _classes_section(answered, classes),
            confusion,
            tag("section", tag("h2", "Where it comes from"), environment_table(known)),
        ],
        footer=f"Made by `zoo train --folds` {__version__}. {SUMMARY} beside this page has its figures, {PREDICTIONS} "
        "every picture's answer by the run that had not seen it.",
        style=_STYLE,
    )


def headlines(summary: Summary) -> list[str]:
    """What a cross-validation says of itself, the result first."""
    said = [f"{summary.mean_text}: mean ± standard deviation of {summary.n} folds."]
    if summary.pooled is not None:
        said.append(
            f"{summary.pooled_text}. A fold's figure leaves out classes of which the fold holds no picture: with such "
            "classes, this is the figure to believe."
        )
    if summary.top1 is not None and summary.low is not None and summary.high is not None:
        said.append(
            f"{100 * summary.top1:.2f} % of all {summary.pictures:,} pictures are right, each by the run that had not "
            f"seen it; 95 % interval {100 * summary.low:.2f} … {100 * summary.high:.2f} %."
        )
    said.append(
        "The folds' runs share most of their training pictures, so the deviation says how much a figure moves with the "
        "pictures held out; it is no standard error of the mean (Bengio and Grandvalet 2004)."
    )
    if summary.keep == "best":
        said.append("Each run's epoch was chosen by the pictures of its own fold, which flatters the figures a little.")
    seconds = sum(result.training_seconds for result in summary.folds)
    said.append(f"Training took {duration(seconds)} in all, validation apart.")
    return [sentence.replace(" %", "\N{NO-BREAK SPACE}%") for sentence in said]


def _chart(summary: Summary) -> Markup | None:
    """The chosen metric of every fold."""
    figures = [(result.fold, result.figure(summary.metric)) for result in summary.folds]
    is_loss = summary.metric == "loss"
    bars = []
    for fold, figure in figures:
        if figure is None or figure < 0:
            return None
        text = digits_or_dash(figure) if is_loss else f"{100 * figure:.2f} %"
        value = figure if is_loss else 100 * figure
        spoken = f"fold {fold}: {text}"
        bars.append(Bar(label=f"fold {fold}", value=value, text=text, colour="blue", spoken=spoken))
    name = METRIC_NAMES[summary.metric]
    return bar_chart(
        [Group(heading="Fold by fold", bars=bars)],
        title=name if name == METRIC_NAMES["map"] else name[0].upper() + name[1:],
        description=f"On the pictures that each run held out. Mean ± standard deviation: {summary.mean_text}.",
        axis="" if is_loss else "%",
    )


def _folds_table(summary: Summary) -> Markup:
    shown = [name for name in _COLUMNS if any(result.figure(name) is not None for result in summary.folds)]
    heads = ["fold", *(METRIC_NAMES[name] for name in shown), "held out", "trained on", "best epoch", "rate", "time"]
    rows: list[list[Child]] = []
    for result in summary.folds:
        link = tag("a", f"fold {result.fold}", href=f"{result.run}/{REPORT}")
        figures = [_figure(name, result.figure(name)) for name in shown]
        best = "–" if result.best_epoch is None else f"{result.best_epoch} of {result.epochs}"
        rate, time = f"{result.learning_rate:.3g}", duration(result.training_seconds)
        rows.append([link, *figures, f"{result.val:,}", f"{result.train:,}", best, rate, time])
    note = "A fold's name leads to the page of its run."
    return tag("section", tag("h2", "Folds"), tag("p", note, class_="note"), table(heads, rows))


def _classes_section(answered: OutOfFold, classes: Sequence[str]) -> Markup:
    """How every class is told from the others by the runs that had not seen its pictures, the weakest first."""
    pictures, answers, right = Counter[str](), Counter[str](), Counter[str]()
    for row in answered.rows:
        own, found = (
            {str(cell)} if answered.answers else set(filter(None, str(cell).split(LABEL_SEPARATOR)))
            for cell in row[2:4]
        )
        pictures.update(own)
        answers.update(found)
        right.update(own & found)
    lines = [
        ClassLine(
            name=name, train=0, val=0, test=None, pictures=pictures[name], answers=answers[name], right=right[name]
        )
        for name in map(visible, classes)
    ]
    weakest = sorted(lines, key=lambda line: line.f1.value if line.f1 else 2.0)[:SHOWN_CLASSES]
    rows: list[list[Child]] = [
        [line.name, *map(with_interval, (line.f1, line.recall, line.precision)), f"{line.pictures:,}"]
        for line in weakest
    ]
    more = f"; the {SHOWN_CLASSES} weakest are shown" if len(lines) > SHOWN_CLASSES else ""
    note = f"{len(lines):,} classes, the lowest F1 first{more}. 95 % intervals are Wilson's."
    shown = table(["class", "F1", "recall", "precision", "n"], rows)
    return tag("section", tag("h2", "Classes"), tag("p", note, class_="note"), shown, class_="classes")


def _figure(metric: Metric, value: float | None) -> str:
    if value is None or metric == "loss":
        return digits_or_dash(value)
    return f"{100 * value:.2f} %"
