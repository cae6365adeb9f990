"""Owns the page's part on how far scores can be believed: reliability curve, error, temperature; it fits nothing."""

from __future__ import annotations

from collections.abc import Sequence

from train.learn.calibration import Bin, answers_at, calibration_error, fit_temperature, reliability
from train.learn.validation import Sample, Validation
from train.watch.classes import estimate, with_interval
from zoo.page.curves import Band, Curve, curve_chart
from zoo.page.elements import table
from zoo.page.markup import Child, Markup, join, tag
from zoo.wording import percent

NO_TEMPERATURE = (
    "No temperature is kept: at none is the loss lowest, because every answer is right by any score, or none is better "
    "than guessing."
)


def calibration_section(validation: Validation, test: Validation | None) -> Markup | None:
    """Scores beside the share that is right, as they are and at the temperature fitted to the validation pictures.

    Shown of the test pictures, where there are any: nothing was fitted to them. None where no logits were kept.
    """
    judged, split = (test, "test") if test and test.sample else (validation, "validation")
    if judged.sample is None or not len(judged.sample.label):
        return None
    temperature = fit_temperature(validation.sample)
    before = reliability(*answers_at(judged.sample, 1.0))
    after = reliability(*answers_at(judged.sample, temperature)) if temperature else None
    chart = curve_chart(
        [
            Curve(label="ideal", colour="grey", points=[(0.0, 0.0), (100.0, 100.0)]),
            Curve(label="scores as they are", colour="orange", points=_points(before), shown=f"ECE {_error(before)}"),
            *(
                [
                    Curve(
                        label=f"at temperature {temperature:.2f}",
                        colour="blue",
                        points=_points(after),
                        shown=f"ECE {_error(after)}",
                    )
                ]
                if after
                else []
            ),
        ],
        [Band(start=0, end=100)],
        title="Reliability",
        description=f"% of answers that are right, over their score; {len(judged.sample.label):,} {split} pictures.",
        unit=" %",
        x_name="score, %",
    )
    return tag(
        "section",
        tag("h2", "Can the scores be believed?"),
        tag("p", _verdict(before, after, temperature, judged.sample, split), class_="note"),
        chart.as_figure(),
        _bins_table(before),
    )


def _verdict(
    before: Sequence[Bin], after: Sequence[Bin] | None, temperature: float | None, sample: Sample, split: str
) -> Markup:
    gap = sum(part.count * (part.score - part.right) for part in before) / len(sample.label)
    which = "higher" if gap > 0 else "lower"
    said = (
        f"Of {len(sample.label):,} {split} pictures the scores are on average {100 * abs(gap):.1f} points {which} than "
        f"the share that is right; the expected calibration error is {_error(before)}."
    )
    if temperature is None or after is None:
        return join(f"{said} {NO_TEMPERATURE}")
    fitted = "" if split == "test" else " That is of the pictures it was fitted to, which flatters it."
    return join(
        f"{said} With logits divided by {temperature:.3f}, the temperature fitted to the validation pictures, it is "
        f"{_error(after)}.{fitted} No answer changes. The checkpoint keeps the temperature, and ",
        tag("code", "zoo predict --calibrated"),
        " uses it.",
    )


def _bins_table(bins: Sequence[Bin]) -> Markup:
    rows: list[list[Child]] = [
        [percent(part.score), with_interval(estimate(round(part.right * part.count), part.count)), f"{part.count:,}"]
        for part in bins
    ]
    return table(("mean score", "right", "pictures"), rows, caption="The scores as they are; 95 % intervals")


def _points(bins: Sequence[Bin]) -> list[tuple[float, float]]:
    return [(100 * part.score, 100 * part.right) for part in bins]


def _error(bins: Sequence[Bin]) -> str:
    return f"{100 * calibration_error(list(bins)):.1f} %"
