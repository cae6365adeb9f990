"""Owns the measurement behind a quantization report: the same labelled pictures through every form of one network.

It says of each form what it costs in accuracy, how large and how fast it is here, and what would mend it; it draws no
page, and what is published is the pipeline's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.contract import Contract
from export.evaluate import match_classes
from export.interface import as_logits
from export.parity import labelled_pictures
from export.precision.qdq import ONNX_RUNTIME, TENSORRT, Layout
from export.precision.rows import find_precision
from export.precision.scores import Choice
from export.precision.sensitivity import by_error
from export.quantized import Quantization
from export.runners.onnx_runtime import OnnxRunner
from export.source import Source
from export.weights_apart import graph_bytes
from zoo.data.pictures import Pictures, load_prepared
from zoo.errors import DataError, VerdictError
from zoo.intervals import difference_interval, mcnemar, share_interval
from zoo.label_scores import sigmoid
from zoo.results import Summary, summarize
from zoo.rows import Count, CountOrNone, NotNegative, Row, Share, Text, Within
from zoo.wording import joined

BATCH_SIZE = 8
# Points of accuracy, lost or gained.
Points = Annotated[float, Within(-100, 100)]
# What a drop may be where nobody says: published int8 of this family loses 0.3 to 1.6 points (google/automl).
MAX_DROP = 1.0
# Classes that are named, those that lose most first.
NUM_CLASSES = 10
# Runs of one picture, of each form in turn, so that a machine that slows down slows all of them.
WARM_UP, RUNS = 5, 40
# Blocks that are tried, one after the other, where a form loses too much.
NUM_FIXES = 4


@dataclass(frozen=True, kw_only=True)
class ClassDrop(Row):
    """A class: its pictures, the share that float32 has right, and how many points less the form has."""

    name: Text
    n: Count
    reference: Share
    drop: Points


@dataclass(frozen=True, kw_only=True)
class FormRow(Row):
    """One form of the network, against float32 on the same pictures.

    `top1` is the share of right answers (of several labels, of pictures with all of them right), `low` … `high` its
    95 % interval. `drop` is in points, with the 95 % interval of the paired difference; `p` is McNemar's. `latency` is
    of one picture in ONNX Runtime on a processor, None where that says nothing of the back end it is made for.
    """

    name: Text
    precision: Text
    layout: Text | None
    published: tuple[str, ...]
    bytes: Count
    top1: Share
    low: Share
    high: Share
    drop: Points
    drop_low: Points
    drop_high: Points
    only_float32: CountOrNone
    only_this: CountOrNone
    p: Share
    agreement: Share
    latency: Summary | None
    classes: tuple[ClassDrop, ...]
    choice: Choice | None


@dataclass(frozen=True, kw_only=True)
class Fix(Row):
    """What mends a form that loses too much: the modules to leave in float, and the drop in points that is left."""

    form: Text
    keep: tuple[str, ...]
    drop: Points
    enough: bool


@dataclass(frozen=True, kw_only=True)
class QuantizationReport(Row):
    """All forms, float32 first, on `n` pictures; the verdict is on those that are `published`."""

    written_too = ("ships", "verdict")

    format: Literal["zoo-quantization-1"] = "zoo-quantization-1"
    model: Text
    pictures: Text
    n: Count
    calibration: Text
    max_drop: NotNegative
    forms: tuple[FormRow, ...]
    fixes: tuple[Fix, ...]
    environment: Mapping[str, Any]

    @property
    def failing(self) -> tuple[FormRow, ...]:
        """The published forms that lose more than they may."""
        return tuple(row for row in self.forms if row.published and row.drop > self.max_drop)

    @property
    def ships(self) -> bool:
        """No published form loses more than it may."""
        return not self.failing

    @property
    def verdict(self) -> str:
        """The verdict in a sentence or two."""
        if self.ships:
            shown = [row for row in self.forms if row.published and row.name != "fp32"] or list(self.forms[1:])
            said = joined(f"{row.name} {_changed(row.drop)}" for row in shown)
            sentence = f"Ship it: {said} on {self.n:,} pictures, and {points(self.max_drop)} may be lost."
            worst = max(row.drop_high for row in shown)
            if worst <= self.max_drop:
                return sentence
            return f"{sentence} So few cannot rule out a loss of {points(worst)} (95 %); more pictures could."
        said = joined(f"{row.name} loses {points(row.drop)}" for row in self.failing)
        advice = " ".join(map(_advice, self.fixes))
        return (
            f"Do not ship it: {said} on {self.n:,} pictures, and {points(self.max_drop)} may be lost. {advice}".strip()
        )


def points(value: float) -> str:
    """0.5 → “0.50 points”."""
    return f"{value:.2f} points"


def _changed(drop: float) -> str:
    return f"gains {points(-drop)}" if drop < 0 else f"loses {points(drop)}"


def _advice(fix: Fix) -> str:
    keeps = " ".join(f"--keep {path}" for path in fix.keep)
    if fix.enough:
        return f"{fix.form} with {keeps} loses {points(fix.drop)}."
    return f"{fix.form} still loses {points(fix.drop)} with {keeps}: train it longer, or ship fp16."


def check_drop(report: QuantizationReport) -> None:
    """Refuse to publish what loses too much.

    Raises:
        VerdictError: a published form does; says by how much, and what mends it.
    """
    if not report.ships:
        raise VerdictError(report.verdict, "Nothing was written. --max-drop is in points of accuracy.")


def judging_pictures(source: Source, data: str | None) -> Pictures:
    """Open the pictures to judge by: `data`, or those the network was validated on, whose classes it has to have.

    Raises:
        DataError: there are none, they cannot be used, or they have other classes.
    """
    pictures = labelled_pictures(source.checkpoint, data)
    if pictures is None:
        recorded = source.checkpoint.provenance.get("data") if source.checkpoint else None
        why = f"{recorded}, beside which {source.label} was trained, is not here" if recorded else ""
        raise DataError(
            f"--report measures accuracy, and {why or f'{source.label} does not say what it was validated on'}.",
            "Pass --data FOLDER: pictures it was not trained on, one folder per class.",
        )
    match_classes(pictures, source.contract.classes)
    return pictures


def measure_report(
    quantization: Quantization, pictures: Pictures, *, max_drop: float | None, environment: Mapping[str, Any]
) -> QuantizationReport:
    """Measure float32, fp16, int8 and fp8 of one export on labelled pictures.

    Raises:
        DataError: the pictures have no classes of the artifact's, or none can be decoded.
    """
    source, watch, options = quantization.source, quantization.watch, quantization.options
    contract = source.contract
    labelled = _Labelled.of(pictures, contract)
    chosen: dict[str, Choice] = {}

    def quantized(precision: str, layout: Layout) -> ModelProto:
        model, card = quantization.make(find_precision(precision), layout)
        chosen[f"{precision} {layout.id}"] = card.choice
        return model

    wanted: dict[str, tuple[str, Layout | None]] = {"fp32": ("fp32", None), "fp16": ("fp16", None)}
    wanted["int8"] = ("int8", ONNX_RUNTIME)
    if options.trt == "int8":
        wanted["int8 for TensorRT"] = ("int8", TENSORRT)
    wanted["fp8"] = ("fp8", TENSORRT)
    graphs = {
        name: quantized(precision, layout) if layout else find_precision(precision).apply(quantization.exported)
        for name, (precision, layout) in wanted.items()
    }
    rights, answers = {}, {}
    for name, graph in graphs.items():
        watch.step(f"Measure {name} on {len(labelled.labels)} pictures of {labelled.name}")
        logits = labelled.answer(graph, lambda done, total: watch.progress(f"{done}/{total}", done, total))
        rights[name], answers[name] = labelled.right(logits), labelled.answered(logits)
    watch.step("Time one picture in ONNX Runtime")
    timed = {name: graphs[name] for name, (_, layout) in wanted.items() if layout in (None, ONNX_RUNTIME)}
    latencies = _latencies(timed, labelled.prepared[:1])
    rows = tuple(
        _form(
            name,
            wanted[name],
            graphs[name],
            rights["fp32"],
            rights[name],
            agreement=float((answers[name] == answers["fp32"]).all(axis=-1).mean()),
            latency=latencies.get(name),
            classes=labelled.drops(rights["fp32"], rights[name]),
            choice=chosen.get(f"{wanted[name][0]} {layout.id}" if (layout := wanted[name][1]) else ""),
            published=_published(name, wanted[name], options.precision, options.trt),
        )
        for name in graphs
    )
    allowed = MAX_DROP if max_drop is None else max_drop
    return QuantizationReport(
        model=contract.model,
        pictures=labelled.name,
        n=len(labelled.labels),
        calibration=f"{quantization.calibrated_on[1]} pictures of {quantization.calibrated_on[0]}",
        max_drop=allowed,
        forms=rows,
        fixes=tuple(
            _find_fix(quantization, row, wanted[row.name], labelled, rights["fp32"], allowed)
            for row in rows
            if row.published and row.drop > allowed and row.choice
        ),
        environment=environment,
    )


def _published(name: str, form: tuple[str, Layout | None], precision: str, trt: str | None) -> tuple[str, ...]:
    """Which artifacts have this form."""
    id, layout = form
    as_plan = id == trt and (layout in (None, TENSORRT))
    as_onnx = id == precision and (layout != TENSORRT or id == "fp8")
    return tuple(kind for kind, is_it in (("onnx", as_onnx), ("plan", as_plan)) if is_it)


@dataclass(frozen=True)
class _Labelled:
    """Pictures prepared once for all forms, with their classes as the artifact counts them."""

    name: str
    contract: Contract
    prepared: NDArray[np.uint8]
    labels: NDArray[np.int64]
    targets: NDArray[np.bool_] | None

    @classmethod
    def of(cls, pictures: Pictures, contract: Contract) -> _Labelled:
        index_of = match_classes(pictures, contract.classes)
        prepared, kept, broken = load_prepared(pictures, contract.preprocessing)
        if not kept:
            raise DataError(f"None of the {len(pictures)} pictures of {pictures.name} can be decoded.", broken[0])
        usable = pictures.at(np.array(kept))
        targets = None
        if contract.thresholds is not None:
            targets = np.zeros((len(usable), len(contract.classes)), np.bool_)
            targets[:, index_of] = usable.all_targets()
        labels = index_of[usable.labels] if targets is None else targets.argmax(axis=1)
        return cls(pictures.name.rsplit("/", 1)[-1], contract, prepared, labels, targets)

    def answer(self, graph: ModelProto, on_progress: Callable[[int, int], None]) -> NDArray[np.float32]:
        """Logits (N, K) of a graph, or what they are but for a constant, in ONNX Runtime on the processor."""
        found = []
        with OnnxRunner(graph, device="cpu") as runner:
            for start in range(0, len(self.prepared), BATCH_SIZE):
                found.append(runner.infer(self.prepared[start : start + BATCH_SIZE]))
                on_progress(min(start + BATCH_SIZE, len(self.prepared)), len(self.prepared))
        return as_logits(np.concatenate(found), self.contract)

    def answered(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """What is answered of each picture: its class (N, 1), or its labels (N, K) as 0 and 1."""
        if self.targets is None:
            first: NDArray[np.int64] = logits.argmax(axis=1)[:, None]
            return first
        return (sigmoid(logits) >= np.array(self.contract.thresholds)).astype(np.int64)

    def right(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of N pictures get the right class, or all the right labels."""
        expected = self.labels[:, None] if self.targets is None else self.targets
        right: NDArray[np.bool_] = (self.answered(logits) == expected).all(axis=1)
        return right

    def drops(self, reference: NDArray[np.bool_], right: NDArray[np.bool_]) -> tuple[ClassDrop, ...]:
        """The classes that lose most, in points."""
        found = []
        for label in np.unique(self.labels):
            own = self.labels == label
            drop = 100 * float(reference[own].mean() - right[own].mean())
            name = self.contract.classes[label]
            found.append(ClassDrop(name=name, n=int(own.sum()), reference=float(reference[own].mean()), drop=drop))
        return tuple(sorted(found, key=lambda row: -row.drop)[:NUM_CLASSES])


def _form(
    name: str,
    form: tuple[str, Layout | None],
    graph: ModelProto,
    reference: NDArray[np.bool_],
    right: NDArray[np.bool_],
    **known: Any,
) -> FormRow:
    total, count = len(right), int(right.sum())
    only_float32, only_this = int((reference & ~right).sum()), int((right & ~reference).sum())
    low, high = share_interval(count, total)
    lost_low, lost_high = difference_interval(only_this, only_float32, total)
    return FormRow(
        name=name,
        precision=form[0],
        layout=form[1].id if form[1] else None,
        bytes=graph_bytes(graph),
        top1=count / total,
        low=low,
        high=high,
        drop=100 * (only_float32 - only_this) / total,
        drop_low=100 * lost_low if name != "fp32" else 0.0,
        drop_high=100 * lost_high if name != "fp32" else 0.0,
        only_float32=only_float32,
        only_this=only_this,
        p=mcnemar(only_float32, only_this),
        **known,
    )


def _latencies(graphs: Mapping[str, ModelProto], picture: NDArray[np.uint8]) -> dict[str, Summary]:
    """One picture through every graph in turn."""
    runners = {name: OnnxRunner(graph, device="cpu") for name, graph in graphs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runners}
    for run in range(WARM_UP + RUNS):
        for name, runner in runners.items():
            started = time.perf_counter()
            runner.infer(picture)
            if run >= WARM_UP:
                samples[name].append(1e3 * (time.perf_counter() - started))
    return {name: summarize(taken) for name, taken in samples.items()}


def _find_fix(
    quantization: Quantization,
    row: FormRow,
    form: tuple[str, Layout | None],
    labelled: _Labelled,
    reference: NDArray[np.bool_],
    max_drop: float,
) -> Fix:
    """Leave one more block in float, the most sensitive first, until the form loses little enough."""
    assert row.choice and form[1]
    keep, drop = list(row.choice.kept), row.drop
    left = [block for block in by_error(row.choice.blocks) if block not in keep]
    for block in left[:NUM_FIXES]:
        keep.append(block)
        quantization.watch.step(f"Try {row.name} with {joined(keep)} in float")
        graph = quantization.with_kept(find_precision(form[0]), form[1], keep)
        right = labelled.right(labelled.answer(graph, lambda done, total: None))
        drop = 100 * float(reference.mean() - right.mean())
        if drop <= max_drop:
            break
    return Fix(form=row.name, keep=tuple(keep), drop=drop, enough=drop <= max_drop)
