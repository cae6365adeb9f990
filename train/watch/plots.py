"""Owns the two pictures of a run: curves with the stages drawn in, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train.learn.run import Epoch
from train.progressive.recipe import Recipe
from train.watch.charts import stage_settings
from zoo.files import replacing

INK, GREY, BLUE = "#1f2933", "#9aa5b1", "#2563eb"
SETTING_COLORS = (BLUE, "#ea580c", "#16a34a", "#9333ea", "#0891b2", "#b45309")


def plot_curves(history: Sequence[Epoch], recipe: Recipe, title: str, path: Path) -> None:
    """Draw accuracy, loss, and the rising size and regularisation over the epochs, stages shaded; PNG."""
    epochs = [line.epoch for line in history]
    figure = Figure(figsize=(10, 9), dpi=110, layout="constrained")
    accuracy, loss, schedule = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
    figure.suptitle(title, color=INK, fontweight="bold")

    accuracy.plot(epochs, [100 * line.train_top1 for line in history], color=GREY, label="training (augmented)")
    accuracy.plot(
        epochs, [100 * line.val_top1 for line in history], color=BLUE, lw=2, marker="o", ms=3, label="validation"
    )
    accuracy.set_ylabel("top-1 accuracy, %")
    last = history[-1]
    accuracy.annotate(
        f"{100 * last.val_top1:.1f} %",
        (last.epoch, 100 * last.val_top1),
        (0, -14),
        textcoords="offset points",
        ha="right",
        color=BLUE,
        fontweight="bold",
    )
    loss.plot(epochs, [line.train_loss for line in history], color=GREY, label="training")
    loss.plot(epochs, [line.val_loss for line in history], color=BLUE, lw=2, label="validation")
    loss.set_ylabel("loss")
    for axes in (accuracy, loss):
        axes.legend(frameon=False, loc="best")

    _plot_schedule(schedule, recipe)
    for axes in (accuracy, loss, schedule):
        _shade_stages(axes, recipe)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb", lw=0.8)
        axes.set_axisbelow(True)
    accuracy.set_xlim(0.5, max(recipe.epochs, 2) + 0.5)
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _plot_schedule(axes: Axes, recipe: Recipe) -> None:
    """Every setting that changes as a share of its highest value, so that they share one axis."""
    edges = np.cumsum([0, *(stage.epochs for stage in recipe.stages)]) + 0.5
    changing = {name: values for name, values in stage_settings(recipe).items() if len(set(values)) > 1}
    changing.pop("epochs", None)
    for (name, values), color in zip(changing.items(), cycle(SETTING_COLORS), strict=False):
        shares = [value / max(values) for value in values]
        text = f"{name} {values[0]:.3g} → {values[-1]:.3g}"
        axes.step(edges, [*shares, shares[-1]], where="post", color=color, lw=1.8, label=text)
    axes.set_ylim(0, 1.12)
    axes.set_ylabel("share of highest value")
    axes.set_xlabel("epoch")
    if changing:
        axes.legend(frameon=False, ncols=2, loc="lower right", fontsize="small")


def _shade_stages(axes: Axes, recipe: Recipe) -> None:
    start = 0.5
    for index, stage in enumerate(recipe.stages):
        if index % 2 == 0:
            axes.axvspan(start, start + stage.epochs, color="#f1f5f9", zorder=0)
        axes.annotate(
            f"stage {index + 1}: {stage.image_size} px" if len(recipe.stages) <= 5 else f"{stage.image_size}",
            (start + stage.epochs / 2, 1.0),
            (0, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize="x-small",
            color=INK,
        )
        start += stage.epochs


def plot_confusion(confusion: NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix, rows normalised; counts are written in up to 20 classes; PNG."""
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    few = len(classes) <= 20
    side = min(max(5.0, 0.55 * len(classes) + 2), 16)
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if few:
        axes.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 3 else 0)
        axes.set_yticks(range(len(classes)), classes)
        for row, column in zip(*np.nonzero(confusion), strict=True):
            color = "white" if shares[row, column] > 0.5 else INK
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=color, fontsize="small")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    right = int(confusion.trace())
    axes.set_title(f"{right} of {confusion.sum()} right ({100 * right / max(confusion.sum(), 1):.1f} %)", color=INK)
    with replacing(path) as temporary:
        figure.savefig(temporary)
