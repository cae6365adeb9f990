"""Owns how a learning-rate range test is shown on the page of its run; what its curve says is decided elsewhere."""

from __future__ import annotations

import math

from train.progressive.rate_range import RangeTest, smooth
from zoo.page.curves import Curve, Mark, log_curve_chart
from zoo.page.markup import Markup, tag

# Losses above this many times the highest of the first fifth are above the drawing: they would flatten the rest.
SHOWN_TIMES = 2.0


def rate_section(found: RangeTest | None) -> Markup | None:
    """The curve with the chosen rate and the recipe's own; None where there was no range test."""
    if found is None:
        return None
    said = tag("p", found.sentence, class_="note")
    return tag("section", tag("h2", "Learning rate"), said, _chart(found))


def _chart(found: RangeTest) -> Markup:
    losses = [math.nan if loss is None else loss for loss in found.losses]
    finite = [loss for loss in losses if math.isfinite(loss)]
    first = finite[: max(1, len(losses) // 5)] or [1.0]
    highest = SHOWN_TIMES * max(map(abs, first))

    def points(values: list[float]) -> list[tuple[float, float]]:
        return [
            (rate, value if value <= highest else math.nan) for rate, value in zip(found.rates, values, strict=False)
        ]

    curves = [Curve(label="batch", colour="grey", points=points(losses))]
    if len(finite) > 2:
        curves.append(Curve(label="smoothed", colour="blue", points=points(smooth(finite))))
    marks = [Mark(x=found.rate, label=f"used, {found.rate:.3g}", colour="orange")]
    if found.rate != found.own:
        marks.append(Mark(x=found.own, label=f"the recipe's own, {found.own:.3g}", colour="series-2", dashed=True))
    return log_curve_chart(
        curves,
        marks,
        title="Range test: loss over the learning rate",
        description=f"{len(losses)} steps, each at a higher rate than the last; the run was then put back to its "
        "beginning.",
        x_name="learning rate",
    ).as_figure()
