"""Owns a run's charts over epochs and stages as markup; the pictures on disk are `train/watch/plots.py`'s."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

from train.learn.run import Epoch
from train.progressive.recipe import Recipe, TrainingStage
from train.progressive.schedule import learning_rate
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.curves import Band, Curve, curve_chart
from zoo.page.markup import Markup, tag
from zoo.wording import digits

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

    Left out is what no stage uses: zero, or the field's default, throughout.
    """
    settings = {}
    for row in fields(TrainingStage):
        values = [float(getattr(stage, row.name)) for stage in recipe.stages]
        if set(values) not in ({0.0}, {row.default}):
            settings[SETTING_NAMES.get(row.name, row.name.replace("_", " "))] = values
    return settings


def stage_bands(recipe: Recipe) -> list[Band]:
    """The stages as stretches of the epoch axis; epoch 1 lies around 1."""
    bands, start = [], 0.5
    for stage in recipe.stages:
        bands.append(Band(start=start, end=start + stage.epochs, label=f"{stage.image_size} px"))
        start += stage.epochs
    return bands


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch with the highest validation accuracy, the earliest of several."""
    return max(history, key=lambda line: line.val_top1)


def progress_charts(history: Sequence[Epoch], recipe: Recipe) -> Iterator[Markup]:
    """Accuracy and loss, training beside validation."""
    bands = stage_bands(recipe)
    best = history.index(best_epoch(history))
    last = history[-1]
    yield curve_chart(
        [
            Curve(
                label="training (augmented)",
                colour="grey",
                points=[(line.epoch, 100 * line.train_top1) for line in history],
                shown=f"{100 * last.train_top1:.1f} %",
            ),
            Curve(
                label="validation",
                colour="blue",
                points=[(line.epoch, 100 * line.val_top1) for line in history],
                shown=f"{100 * last.val_top1:.1f} %",
                dot=best,
            ),
        ],
        bands,
        title="Top-1 accuracy, %",
        description="The dot is the best epoch; shades are stages.",
        unit=" %",
        x_name="epoch",
    )
    yield curve_chart(
        [
            Curve(
                label="training",
                colour="grey",
                points=[(line.epoch, line.train_loss) for line in history],
                shown=digits(last.train_loss),
            ),
            Curve(
                label="validation",
                colour="blue",
                points=[(line.epoch, line.val_loss) for line in history],
                shown=digits(last.val_loss),
            ),
        ],
        bands,
        title="Loss",
        description="Training's is of augmented, mixed and smoothed targets: it need not fall below validation's.",
        x_name="epoch",
    )


def schedule_charts(recipe: Recipe) -> Markup:
    """Learning rate, image size and every regularisation that changes, each on its own axis, over the whole run."""
    epochs = range(1, recipe.epochs + 1)
    bands = [Band(start=band.start, end=band.end) for band in stage_bands(recipe)]
    lengths = [stage.epochs for stage in recipe.stages]
    curves = [
        Curve(
            label="learning rate", colour="orange", points=[(epoch, learning_rate(recipe, epoch)) for epoch in epochs]
        )
    ]
    for name, values in stage_settings(recipe).items():
        if name == "epochs" or (len(set(values)) == 1 and name != SETTING_NAMES["image_size"]):
            continue
        each = [value for value, length in zip(values, lengths, strict=True) for _ in range(length)]
        colour = "blue" if name == SETTING_NAMES["image_size"] else "series-1"
        curves.append(Curve(label=name, colour=colour, points=list(zip(epochs, each, strict=True)), step=True))
    charts = (
        curve_chart([curve], bands, title=_title(curve), description=_span(curve), x_name="epoch", height_px=130)
        for curve in curves
    )
    return tag("div", *charts, class_="multiples")


def _title(curve: Curve) -> str:
    """The label with a capital letter; the others stay as they are (CutMix)."""
    return curve.label[0].upper() + curve.label[1:]


def _span(curve: Curve) -> str:
    values = [y for _, y in curve.points]
    return f"{values[0]:.3g} → {values[-1]:.3g}" if len(set(values)) > 1 else f"{values[0]:.3g} throughout"


def pictures_of(history: Iterable[Epoch]) -> float:
    """Pictures that were trained on in these epochs."""
    return sum(line.pictures_per_second * line.seconds for line in history)


def stage_throughput(history: Sequence[Epoch]) -> dict[int, tuple[int, float, float]]:
    """Of each stage so far (from 1): image size, pictures per second over all its epochs, seconds."""
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
