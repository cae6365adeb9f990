"""Owns what `zoo export` and `zoo predict` show on a terminal: tables and remarks; it finds nothing out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.filesize import decimal
from rich.text import Text

from export.size_cost import recorded_accuracy
from zoo.console import FittingTable
from zoo.visible import visible

if TYPE_CHECKING:
    from export.evaluate import Evaluation, LabelEvaluation
    from export.passport import Parity
    from export.pipeline import ExportResult
    from export.predict import Classification


BAR_WIDTH = 40


def export_table(result: ExportResult) -> FittingTable:
    """The published files, a line each: what they are and how far they are from PyTorch."""
    table = FittingTable("file")
    for column in ("size", "sha256", "type", "max error", "mean error", _same(result)):
        table.add_column(column, justify="right", no_wrap=True)
    files, parity = result.passport.files, result.passport.parity
    # A plan that could not be run here shows the numbers of the graph it was built from; a remark says so.
    for path, card, found in (
        (result.onnx, files.onnx, parity.onnx),
        (result.plan, files.plan, parity.plan or parity.graph),
    ):
        if path and card:
            size, sha256 = decimal(card.bytes), card.sha256[:12]
            table.add_row(Text(str(path)), size, sha256, card.precision, *_parity_cells(found))
    table.add_row(Text(str(result.passport_file)))
    return table


def _same(result: ExportResult) -> str:
    return "same class" if result.passport.contract.thresholds is None else "same labels"


def _parity_cells(found: Parity | None) -> tuple[str, str, str]:
    if not found:
        return "–", "–", "–"
    same = round(found.top1_agreement * found.n)
    ties = f" + {found.ties} ties" if found.ties else ""
    return f"{found.max_abs_error:.1e}", f"{found.mean_abs_error:.1e}", f"{same}{ties} of {found.n}"


def export_remarks(result: ExportResult) -> list[str]:
    """What the table cannot say: who built the plan, and what was not compared."""
    passport, parity, remarks = result.passport, result.passport.parity, []
    if built := passport.builder:
        targets = ", ".join(built.targets)
        remarks.append(f"Built by {built.name} {built.version} for compute capability {targets}.")
        if built.from_cache:
            remarks.append("It is the plan of an earlier export that was the same; --no-cache builds anew.")
        if built.warnings:
            remarks.append(f"{built.warnings[0]} All that was said is in {result.onnx.with_suffix('.log').name}.")
    if passport.files.plan and not parity.plan:
        numbers = " The numbers are those of the graph it was built from." if parity.graph else ""
        remarks.append(f"The plan was {parity.notes['plan']}.{numbers}")
    elif not parity.onnx:
        remarks.append(f"The comparison was {parity.notes['onnx']}.")
    remarks += [f"In {one.backend}: {one.parity.summary()}." for one in parity.backends]
    if result.cost.image_size != result.cost.own_size:
        cost, accuracy = result.cost, recorded_accuracy(passport.checkpoint.provenance)
        measured = "" if passport.random_weights else f" {cost.accuracy_summary(str(result.onnx), accuracy)}"
        remarks.append(f"{cost.summary()}{measured}")
    return remarks + _more_remarks(result)


def _more_remarks(result: ExportResult) -> list[str]:
    """What else was written, and what the files are not for."""
    passport, remarks = result.passport, []
    if result.report:
        remarks.append(f"Report: {result.report}. {result.verdict}")
    if result.triton:
        repository = result.triton.parent.parent
        remarks.append(f"Triton: {result.triton}; tritonserver --model-repository={repository}")
    if result.kserve:
        remarks.append(f"KServe: {result.kserve}; its storageUri is yours to fill in.")
    if passport.files.onnx.precision == "bf16":
        remarks.append(f"{result.onnx.name} is for GPUs and OpenVINO: ONNX Runtime has no bf16 on a processor.")
    if passport.random_weights:
        remarks.append("Random weights: for latency only.")
    return remarks


def evaluation_words(found: Evaluation | LabelEvaluation) -> str:
    """The figures of an evaluation in a line."""
    from export.evaluate import LabelEvaluation

    if isinstance(found, LabelEvaluation):
        return (
            f"mAP {found.map:.2%}  micro F1 {found.micro_f1:.2%}  macro F1 {found.macro_f1:.2%}  "
            f"loss {found.loss:.4f}  {found.classes} classes"
        )
    top5 = "" if found.top5 is None else f"  top-5 {found.top5:.2%}"
    return f"top-1 {found.top1:.2%}{top5}  loss {found.loss:.4f}"


def classification_table(found: Classification) -> FittingTable | Text:
    """One picture's classes as bars; of several labels those below their thresholds in grey."""
    if not found.predictions:
        return Text("no label", style="dim")
    table = FittingTable(show_header=False)
    table.add_column(min_width=24)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    for place, row in enumerate(found.predictions):
        first = "green" if place == 0 else "blue"
        colour = first if row.threshold is None else "green" if row.score >= row.threshold else "grey50"
        bar = Bar(1.0, 0.0, row.score, width=BAR_WIDTH, color=colour)
        table.add_row(Text(visible(row.class_name)), bar, f"{row.score:.1%}", str(row.index))
    return table
