"""Owns a run's charts over epochs and stages, as its page and `curves.svg` show them; it writes no file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields

from train.learn.run import Epoch
from train.progressive.recipe import Recipe, TrainingStage
from train.progressive.schedule import learning_rate
from zoo.page.charts import Bar, Drawing, Group, bar_chart
from zoo.page.curves import Band, Curve, curve_chart
from zoo.page.markup import Markup
from zoo.page.picture import THIRD_PX, WHOLE_PX, render_charts
from zoo.wording import digits, digits_or_dash

SETTING_NAMES = {
    "image_size": "image size, px",
    "batch_size": "batch",
    "randaugment_magnitude": "RandAugment",
    "mixup_alpha": "mixup α",
    "cutmix_alpha": "CutMix α",
    "stochastic_depth_prob": "stochastic depth",
    "random_erasing_prob": "random erasing",
    "accumulate": "parts of a batch",
    "freeze_backbone": "backbone frozen",
}


def stage_settings(recipe: Recipe) -> dict[str, list[float]]:
    """What a recipe's stages set, by the names people read: one value per stage, in the order of the row's fields.

    A setting that is zero, or the field's default, in every stage is left out.
    """
    settings = {}
    for row in fields(TrainingStage):
        values = [float(getattr(stage, row.name)) for stage in recipe.stages]
        if set(values) not in ({0.0}, {row.default}):
            settings[SETTING_NAMES.get(row.name, row.name.replace("_", " "))] = values
    return settings


def stage_bands(recipe: Recipe) -> list[Band]:
    """The stages as stretches of the epoch axis, on which epoch 1 reaches from 0.5 to 1.5."""
    bands, start = [], 0.5
    for stage in recipe.stages:
        bands.append(Band(start=start, end=start + stage.epochs, label=f"{stage.image_size} px"))
        start += stage.epochs
    return bands


def progress_charts(history: Sequence[Epoch], recipe: Recipe, best: int | None, width_px: int = 1000) -> list[Drawing]:
    """Accuracy, or mAP of several labels, and loss, training beside validation.

    Args:
        best: the epoch that is marked, as `RunStatus.best_epoch`; 0 and None mark none.
    """
    bands, dot = stage_bands(recipe), best - 1 if best else None

    def curve(
        label: str, colour: str, of: Callable[[Epoch], float | None], shown: str, dot: int | None = None
    ) -> Curve:
        points = [(line.epoch, math.nan if (value := of(line)) is None else value) for line in history]
        return Curve(label=label, colour=colour, points=points, shown=shown, dot=dot)

    last = history[-1]
    curves = [curve("validation", "blue", lambda line: 100 * line.merit, f"{100 * last.merit:.1f} %", dot=dot)]
    if last.train_top1 is not None:
        trained = f"{100 * last.train_top1:.1f} %"
        curves.insert(0, curve("training (augmented)", "grey", lambda line: 100 * (line.train_top1 or 0.0), trained))
    accuracy = curve_chart(
        curves,
        bands,
        title="Mean average precision, %" if last.val_map is not None else "Top-1 accuracy, %",
        description=f"{'Shades' if dot is None else 'The dot is the best epoch at the final size; shades'} are stages.",
        unit=" %",
        x_name="epoch",
        width_px=width_px,
    )
    loss = curve_chart(
        [
            curve("training", "grey", lambda line: line.train_loss, digits_or_dash(last.train_loss)),
            curve("validation", "blue", lambda line: line.val_loss, digits_or_dash(last.val_loss)),
        ],
        bands,
        title="Loss",
        description="Training's is of augmented, mixed and smoothed targets: it need not fall below validation's.",
        x_name="epoch",
        width_px=width_px,
    )
    return [accuracy, loss]


def schedule_charts(recipe: Recipe, width_px: int = 1000) -> list[Drawing]:
    """Learning rate, image size and every regularisation that changes, each on its own axis, over the whole run."""
    epochs = range(1, recipe.epochs + 1)
    bands = [Band(start=band.start, end=band.end) for band in stage_bands(recipe)]
    lengths = [stage.epochs for stage in recipe.stages]
    rates = [(epoch, learning_rate(recipe, epoch)) for epoch in epochs]
    curves = [Curve(label="learning rate", colour="orange", points=rates)]
    for name, values in stage_settings(recipe).items():
        if name == "epochs" or (len(set(values)) == 1 and name != SETTING_NAMES["image_size"]):
            continue
        each = [value for value, length in zip(values, lengths, strict=True) for _ in range(length)]
        colour = "blue" if name == SETTING_NAMES["image_size"] else "series-1"
        curves.append(Curve(label=name, colour=colour, points=list(zip(epochs, each, strict=True)), step=True))
    return [
        curve_chart(
            [curve],
            bands,
            title=curve.label[0].upper() + curve.label[1:],  # the other letters stay: CutMix
            description=_span(curve),
            x_name="epoch",
            width_px=width_px,
            height_px=130,
        )
        for curve in curves
    ]


def draw_curves(history: Sequence[Epoch], recipe: Recipe, best: int | None, title: str) -> str:
    """`curves.svg`: accuracy and loss, and under them what changes from stage to stage; `best` as `progress_charts`."""
    reached = f"{100 * history[-1].merit:.2f} % {history[-1].merit_name} at {history[-1].val_size} px"
    subtitle = f"{recipe.name} recipe, {len(history)} epochs, {reached}"
    charts = [*progress_charts(history, recipe, best, WHOLE_PX), *schedule_charts(recipe, THIRD_PX)]
    return render_charts(charts, title=title, subtitle=subtitle)


def _span(curve: Curve) -> str:
    values = [y for _, y in curve.points]
    return f"{values[0]:.3g} → {values[-1]:.3g}" if len(set(values)) > 1 else f"{values[0]:.3g} throughout"


def pictures_of(history: Iterable[Epoch]) -> float:
    """How many pictures were trained on in these epochs."""
    return sum(line.pictures_per_second * line.seconds for line in history)


def stage_throughput(history: Sequence[Epoch]) -> dict[int, tuple[int, float, float]]:
    """By stage (from 1) so far: image size, pictures per second over all its epochs, seconds."""
    rows = {}
    for stage in dict.fromkeys(line.stage for line in history):
        lines = [line for line in history if line.stage == stage]
        seconds = sum(line.seconds for line in lines)
        rows[stage] = (lines[-1].image_size, pictures_of(lines) / seconds, seconds)
    return rows


def throughput_chart(history: Sequence[Epoch]) -> Markup:
    """Pictures per second in each stage."""
    bars = [
        Bar(
            label=f"{stage}: {image_size} px",
            value=rate,
            text=f"{digits(rate)}/s",
            colour="series-1",
            spoken=f"stage {stage}, {image_size} px: {digits(rate)} pictures a second",
        )
        for stage, (image_size, rate, _) in stage_throughput(history).items()
    ]
    return bar_chart(
        [Group(heading="Stage by stage", bars=bars)],
        title="Throughput",
        description="Training pictures per second with everything that takes time in an epoch: decoding, "
        "augmentation, steps; validation apart.",
        axis="/s",
    )
