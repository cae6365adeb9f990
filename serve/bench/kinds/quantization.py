"""Owns results of 8-bit forms of networks beside float32; `benchmarks/quantization.py` measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from serve.bench.kind import Kind, Measured
from zoo.page.figures import Figures, to_page
from zoo.page.markup import Markup, tag
from zoo.results import Summary
from zoo.rows import Count, NotNegative, Row, Share, Some, Text
from zoo.wording import joined, times


@dataclass(frozen=True, kw_only=True)
class QuantizedRow(Row):
    """One form of one network, against its float32, on `n` pictures that it was not calibrated on.

    `layout` is the back end's whose form it is; `how` says what was done about the error. `top1` and `float32_top1` are
    None where the pictures have no classes of the network's. The latencies are of one picture, each form's beside
    float32's in turns; None where ONNX Runtime on a processor is not the back end it is made for.
    """

    network: Text
    pictures: Text
    n: Count
    precision: Text
    layout: Text
    how: Text
    kept: tuple[str, ...]
    kept_macs_share: Share
    agreement: Share
    relative_rms_error: NotNegative
    top1: Share | None
    float32_top1: Share | None
    bytes: Count
    latency: Summary | None
    float32_latency: Summary | None

    @property
    def time_share(self) -> float | None:
        """Its median time as a share of float32's."""
        if self.latency is None or self.float32_latency is None:
            return None
        return self.latency.p50_ms / self.float32_latency.p50_ms


@dataclass(frozen=True, kw_only=True)
class QuantizationData(Row):
    """Networks in their forms."""

    rows: Annotated[tuple[QuantizedRow, ...], Some()]


def section(run: Measured[QuantizationData]) -> Markup:
    """The table."""
    return tag("section", tag("h3", f"8 bits, {run.result.name}"), *to_page(figures(run)))


def figures(run: Measured[QuantizationData]) -> list[Figures]:
    """A table a network, a line a form."""
    tables = []
    heads = ("precision", "form", "how", "kept", "of the MACs", "same answers", "RMS error", "accuracy", "MB", "time")
    for network in dict.fromkeys(row.network for row in run.data.rows):
        own = [row for row in run.data.rows if row.network == network]
        accuracy = "" if own[0].float32_top1 is None else f"; float32 has {own[0].float32_top1:.2%} right"
        rows = [
            [
                row.precision,
                row.layout,
                row.how,
                joined(row.kept) or "–",
                f"{row.kept_macs_share:.1%}",
                f"{row.agreement:.1%}",
                f"{row.relative_rms_error:.3f}",
                "–" if row.top1 is None else f"{row.top1:.2%}",
                f"{row.bytes / 1e6:.1f}",
                "–" if row.time_share is None else times(row.time_share),
            ]
            for row in own
        ]
        caption = f"{network} on {own[0].n:,} pictures ({own[0].pictures}){accuracy}; time as a share of float32's"
        tables.append(Figures(heads=heads, rows=rows, caption=caption, words=(0, 1, 2, 3)))
    return tables


def headlines(runs: Sequence[Measured[QuantizationData]]) -> Iterator[str]:
    """What int8 keeps of every network, in the form of ONNX Runtime, as it is exported; else the best other form."""
    for run in runs:
        eight = [row for row in run.data.rows if row.precision == "int8"]
        exported = [row for row in eight if row.how == EXPORTED and row.layout == "onnxruntime" and row.time_share]
        for row in exported:
            right = "" if row.top1 is None or row.float32_top1 is None else _right(row.float32_top1, row.top1)
            yield (
                f"{row.network} in int8 keeps {row.agreement:.1%} of its answers on {row.n:,} pictures{right}, in "
                f"{row.time_share:.0%} of float32's time in ONNX Runtime, one picture at a time."
            )
        if eight and not exported:
            best = max(eight, key=lambda row: row.agreement)
            yield (
                f"{best.network} in int8 keeps {best.agreement:.1%} of its answers on {best.n:,} pictures in the best "
                f"of {len(eight)} forms ({best.how})."
            )


EXPORTED = "as exported"


def _right(before: float, after: float) -> str:
    return f" ({before:.2%} right before, {after:.2%} after)"


KIND = Kind(
    name="quantization",
    place=85,
    read=QuantizationData.from_dict,
    section=section,
    headlines=headlines,
    tables=figures,
)
