"""Owns the page of a quantization report: what every form costs and gains, block by block; another file measures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from export.precision.scores import BlockScore
from export.precision_report import FormRow, QuantizationReport, check_drop, measure_report, points
from export.quantized import Quantization
from zoo.data.pictures import Pictures
from zoo.files import write_json, write_text
from zoo.page.charts import Bar, Group, bar_chart
from zoo.page.elements import environment_table, pill, render_document, table
from zoo.page.markup import Child, Markup, tag
from zoo.wording import digits, milliseconds, times

REFERENCE, QUANTIZED, KEPT = "grey", "blue", "orange"


def write_report(
    quantization: Quantization, pictures: Pictures, artifact: Path, environment: Mapping[str, Any]
) -> QuantizationReport:
    """Measure every form on labelled pictures, and write s.quantization.json and s.quantization.html beside s.onnx.

    Raises:
        VerdictError: a published form loses more than `--max-drop`. DataError: as `measure_report`.
    """
    options = quantization.options
    report = measure_report(quantization, pictures, max_drop=options.max_drop, environment=environment)
    if options.max_drop is not None:
        check_drop(report)
    write_json(artifact.with_suffix(".quantization.json"), report.to_dict())
    write_text(artifact.with_suffix(".quantization.html"), render_report(report))
    return report


def render_report(report: QuantizationReport) -> str:
    """The page as text."""
    mark = pill("ship", "good") if report.ships else pill("do not ship", "warning")
    charts = [_sensitivity(row) for row in report.forms if row.choice and row.choice.blocks]
    return render_document(
        kicker="zoo export --report",
        title=f"{report.model}: which precision?",
        subtitle=f"{report.n:,} pictures of {report.pictures}; calibrated on {report.calibration}.",
        main=[
            tag("section", tag("p", mark, " ", report.verdict)),
            tag("section", tag("h2", "Every form"), _forms(report), _accuracy(report)),
            tag("section", tag("h2", "Block by block"), *(charts or [tag("p", "The blocks were named by --keep.")])),
            tag("section", tag("h2", "Class by class"), *map(_classes, report.forms[1:])),
            tag("section", tag("h2", "Environment"), environment_table(report.environment)),
        ],
        footer="Accuracy is of ONNX Runtime on a processor; fp8, and int8 for TensorRT, run there by reference.",
    )


def _forms(report: QuantizationReport) -> Markup:
    heads = (
        "form",
        "published as",
        "size",
        "accuracy",
        "drop, points",
        "95 %",
        "p",
        "same answers",
        "one picture",
        "time",
    )
    return table(heads, [_form(row, report.forms[0]) for row in report.forms], words=(0, 1))


def _form(row: FormRow, reference: FormRow) -> list[Child]:
    latency, own = row.latency, reference.latency
    kept = f", {len(row.choice.kept)} kept in float" if row.choice and row.choice.kept else ""
    compared = row.name != reference.name
    return [
        f"{row.name}{kept}",
        " ".join(f".{kind}" for kind in row.published) or "–",
        decimal(row.bytes),
        f"{row.top1:.2%}",
        f"{row.drop:.2f}" if compared else "–",
        f"{row.drop_low:.2f} … {row.drop_high:.2f}" if compared else "–",
        digits(row.p, 2) if compared else "–",
        f"{row.agreement:.1%}",
        milliseconds(latency.p50_ms) if latency else "–",
        times(latency.p50_ms / own.p50_ms) if latency and own else "–",
    ]


def _accuracy(report: QuantizationReport) -> Markup:
    bars = [
        Bar(
            label=row.name,
            value=100 * row.top1,
            text=f"{100 * row.top1:.2f}",
            colour=QUANTIZED if row.choice else REFERENCE,
            spoken=f"{row.name}: {row.top1:.2%} of the pictures are right",
            low=100 * row.low,
            high=100 * row.high,
        )
        for row in report.forms
    ]
    return bar_chart(
        [Group(heading="Right answers", bars=bars)],
        title="Accuracy",
        description="With the 95 % interval of each; those of the table are of differences on the same pictures.",
        axis="%",
    )


def _sensitivity(row: FormRow) -> Markup:
    choice = row.choice
    assert choice
    kept = set(choice.kept)

    def bar(found: BlockScore) -> Bar:
        own = [path for path in kept if path == found.block or path.startswith(f"{found.block}.")]
        error = 100 * found.alone.relative_rms_error
        said = f"{found.block}: error {error:.2f} %, {found.macs_share:.1%} of the multiply-adds"
        colour = KEPT if own else QUANTIZED
        return Bar(label=found.block, value=error, text=f"{error:.2f}", colour=colour, spoken=said)

    described = (
        f"Error of the logits with this block alone in 8 bits, as a share of their spread, on {choice.n} pictures. All "
        f"blocks: {choice.all.relative_rms_error:.1%}, and {choice.all.agreement:.1%} of the answers stay; as chosen: "
        f"{choice.chosen.relative_rms_error:.1%}, {choice.chosen.agreement:.1%}, with {choice.kept_macs_share:.1%} of "
        "the multiply-adds in float."
    )
    groups = [Group(heading=row.name, detail=", ".join(choice.kept), bars=[bar(found) for found in choice.blocks])]
    legend = [(QUANTIZED, "8 bits"), (KEPT, "stays in float, or a part of it")]
    return bar_chart(groups, title="Sensitivity", description=described, axis="%", legend=legend)


def _classes(row: FormRow) -> Markup:
    rows: list[list[Child]] = [
        [found.name, f"{found.n:,}", f"{found.reference:.1%}", points(found.drop)] for found in row.classes
    ]
    return table(
        ("class", "pictures", "right in fp32", "lost"), rows, caption=f"{row.name}: the classes that lose most"
    )
