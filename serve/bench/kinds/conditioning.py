"""Owns results of fp32 beside fp64 in networks with random weights; `benchmarks/conditioning.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from serve.bench.kind import Kind, Measured
from zoo.page.elements import pill
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.rows import Count, NotNegative, Positive, Row, Share, Some, Text
from zoo.wording import digits


@dataclass(frozen=True, kw_only=True)
class ConditioningRow(Row):
    """One network with random weights, in fp32 against its own fp64, on `n` pictures.

    `branch_scale` is what its residual branches are scaled by: 1 is undamped. The RMS error is a share of the logits'
    own root mean square, the other two are shares of the largest logit, as the parity gate takes them. `spread` is the
    deviation of a class's logit from picture to picture, the mean over classes; `classes` are the different first
    classes, without which an agreement would mean nothing; `passed` says that the gate's fp32 tolerance would hold.
    """

    network: Text
    image_size: Count
    branch_scale: Positive
    relative_rms_error: NotNegative
    relative_max_error: NotNegative
    relative_mean_error: NotNegative
    largest_logit: Positive
    spread: Positive
    classes: Count
    top1_agreement: Share
    passed: bool
    n: Count

    @property
    def is_damped(self) -> bool:
        """Whether it is as `zoo export --random-weights` makes it."""
        return self.branch_scale < 1


@dataclass(frozen=True, kw_only=True)
class ConditioningData(Row):
    """Networks at their sizes, damped or not."""

    rows: Annotated[tuple[ConditioningRow, ...], Some()]


def section(run: Measured[ConditioningData]) -> Markup:
    """The table."""
    title = f"Random weights, fp32 against fp64, {run.result.name}"
    return tag("section", tag("h3", title), *to_page(figures(run)))


def figures(run: Measured[ConditioningData]) -> list[Figures]:
    """A line a network, size and scale."""
    rows = []
    for row in run.data.rows:
        errors = (row.relative_rms_error, row.relative_max_error, row.relative_mean_error)
        verdict = pill("passed", "good") if row.passed else pill("failed", "warning")
        rows.append(
            [
                row.network,
                f"{row.image_size} px",
                f"× {row.branch_scale:g}",
                *(f"{error:.1e}" for error in errors),
                digits(row.largest_logit),
                f"{row.classes} of {row.n}",
                verdict,
            ]
        )
    heads = ("network", "size", "branches", "RMS error", "largest", "mean", "largest logit", "first classes", "gate")
    caption = "fp32 against fp64: the RMS error as a share of the logits', largest and mean of the largest logit"
    return [Figures(heads=heads, rows=rows, caption=caption, words=(0, 8))]


def headlines(runs: Sequence[Measured[ConditioningData]]) -> Iterator[str]:
    """The worst error of what is exported, and of what is not damped."""
    for run in runs:
        damped = [row for row in run.data.rows if row.is_damped]
        if not damped:
            continue
        worst = max(damped, key=lambda row: row.relative_rms_error)
        passed = sum(row.passed for row in damped)
        count = len({row.network for row in damped})
        yield (
            f"fp32 computes {count} networks with random weights ({run.result.name}) within the gate's tolerance in "
            f"{passed} of {len(damped)} measurements; the largest RMS error against fp64 is "
            f"{worst.relative_rms_error:.1e} ({worst.network} at {worst.image_size} px)."
        )


KIND = Kind(
    name="conditioning",
    place=80,
    read=ConditioningData.from_dict,
    section=section,
    headlines=headlines,
    tables=figures,
)
