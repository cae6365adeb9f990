"""What training for int8 recovers: one network in float32, calibrated, mended as the report says, and trained for int8.

    python benchmarks/qat.py lite0.imagenet1k --data CIFAR10/train --test CIFAR10/val --runs RUNS
    python benchmarks/qat.py b0 --data CIFAR10/train --test CIFAR10/val --runs RUNS --epochs 30

CIFAR10 has all 50,000 training and 10,000 test pictures, one folder per class. A part of the training pictures is held
out to choose epochs, to calibrate and to judge the report's advice by; the test pictures are looked at once, at the
end. Runs that are finished in RUNS are taken as they are, and interrupted ones go on: the same command resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from rich.console import Console

from export.evaluate import match_classes
from export.graph import export_onnx
from export.options import ExportOptions
from export.parity import validation_pictures
from export.precision.qdq import ONNX_RUNTIME, TENSORRT
from export.precision.rows import find_precision
from export.precision.scores import Choice
from export.precision.sensitivity import infer, relative_rms_error
from export.precision_report import measure_report
from export.quantized import Quantization
from export.source import find_source
from export.watch import Watch
from serve.bench.kinds.quantization import EXPORTED, QuantizationData, QuantizedRow
from serve.bench.report.report import keep_result
from train.folder import CHECKPOINT
from train.options import TrainOptions
from train.processes.stopping import RunFinished
from train.session import train_model
from zoo.data.folder import read_folder
from zoo.data.pictures import load_prepared
from zoo.machine import environment, processor_name
from zoo.results import Result, Subject, measured_on
from zoo.weights.checkpoint import read_card

HERE = Path(__file__).parent
INT8 = find_precision("int8")
LAYOUTS = (ONNX_RUNTIME, TENSORRT)
# The drop in points that the report mends until it is met.
ALLOWED_DROP = 0.5
ADVICE, TRAINED = "after the report's advice", "trained for int8"


@dataclass(frozen=True)
class Judged:
    """The test pictures, prepared once for all forms, and float32's answers to them."""

    name: str
    prepared: NDArray[np.uint8]
    labels: NDArray[np.int64]
    reference: NDArray[np.float32]

    def row(self, network: str, graph: ModelProto, layout: str, how: str, choice: Choice | None) -> QuantizedRow:
        """What a form of the network answers."""
        logits = infer(graph, self.prepared)
        return QuantizedRow(
            network=network,
            pictures=self.name,
            n=len(self.labels),
            precision="int8",
            layout=layout,
            how=how,
            kept=choice.kept if choice else (),
            kept_macs_share=choice.kept_macs_share if choice else 0.0,
            agreement=float((logits.argmax(1) == self.reference.argmax(1)).mean()),
            relative_rms_error=relative_rms_error(self.reference, logits),
            top1=float((logits.argmax(1) == self.labels).mean()),
            float32_top1=float((self.reference.argmax(1) == self.labels).mean()),
            bytes=graph.ByteSize(),
            latency=None,
            float32_latency=None,
        )


def tested_as(run: Path) -> dict[str, object]:
    """How a finished run's pictures are tested, as its recipe says it."""
    recipe = read_card(run / CHECKPOINT).recipe
    assert recipe
    return {name: recipe[name] for name in ("test_size", "test_resize", "test_crop_margin")}


def main() -> None:
    """Train, export and judge one network, and write one result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="what `zoo train` begins from")
    parser.add_argument("--data", required=True, help="pictures to train on, one folder per class")
    parser.add_argument("--test", type=Path, required=True, help="pictures to judge by, one folder per class")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the two runs")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=4, help="of the float run")
    parser.add_argument("--qat-epochs", type=int, default=2)
    parser.add_argument("--qat-lr", type=float, default=1e-4)
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    name = options.model.partition(".")[0]
    trained, rounded = (options.runs / f"{name}-{kind}" for kind in ("float", "int8"))
    shared = {"data": options.data, "image_size": options.image_size, "auto_resume": True, "device": "cpu"}
    train(TrainOptions(model=options.model, epochs=options.epochs, out=trained, **shared))
    train(
        TrainOptions(
            model=str(trained),
            epochs=options.qat_epochs,
            learning_rate=options.qat_lr,
            qat=True,
            # Both are tested on the same pictures, whatever their recipes would take.
            overrides=tuple(f"{name}={value}" for name, value in tested_as(trained).items()),
            out=rounded,
            **shared,
        )
    )
    rows = tuple(measure(trained, rounded, options.test))
    for row in rows:
        assert row.top1 is not None and row.float32_top1 is not None
        print(f"{row.layout}, {row.how}: {row.top1:.2%}, float32 {row.float32_top1:.2%}, same {row.agreement:.1%}")
    settings = {
        "subjects": [Subject(name=f"{name} trained for int8", batch_sizes=(1,), threads=1).to_dict()],
        "calibration": "trained on",
        "image_size": options.image_size,
        "epochs": options.epochs,
        "qat_epochs": options.qat_epochs,
        "qat_learning_rate": options.qat_lr,
        "allowed_drop": ALLOWED_DROP,
    }
    result = Result(
        kind="quantization",
        name=f"qat {name}",
        environment=measured_on(processor_name()),
        settings=settings,
        data=QuantizationData(rows=rows).to_dict(),
    )
    keep_result(result, options.out)


def train(options: TrainOptions) -> None:
    """Train, go on with what was interrupted, or leave what is finished."""
    try:
        train_model(options, console=Console(stderr=True))
    except RunFinished as finished:
        print(finished, file=sys.stderr)


def measure(trained: Path, rounded: Path, test: Path) -> Iterator[QuantizedRow]:
    """Every form of the two runs, on the test pictures."""
    floating, learned = (opened(run) for run in (trained, rounded))
    contract = floating.source.contract
    pictures = read_folder(test)
    prepared, kept, _ = load_prepared(pictures, contract.preprocessing)
    labels = match_classes(pictures, contract.classes)[pictures.labels[kept]]
    reference = infer(floating.exported, prepared)
    judged = Judged(f"{test.parent.name}/{test.name}", prepared, labels, reference)
    name = f"{contract.model} of {len(contract.classes)} classes"
    held_out = validation_pictures(floating.source.checkpoint, None)
    report = measure_report(floating, held_out, max_drop=ALLOWED_DROP, environment=environment())
    advised = {fix.form: fix.keep for fix in report.fixes}
    for layout in LAYOUTS:
        graph, card = floating.make(INT8, layout)
        yield judged.row(name, graph, layout.id, EXPORTED, card.choice)
        if (form := "int8" if layout is ONNX_RUNTIME else "int8 for TensorRT") in advised:
            told = opened(trained, keep=advised[form])
            graph, card = told.make(INT8, layout)
            yield judged.row(name, graph, layout.id, ADVICE, card.choice)
        graph, card = learned.make(INT8, layout)
        yield judged.row(name, graph, layout.id, TRAINED, card.choice)


def opened(run: Path, keep: tuple[str, ...] = ()) -> Quantization:
    """A run's network as a graph, to be quantized."""
    options, watch = ExportOptions(model=str(run), precision="int8", trt="int8", keep=keep), Watch()
    source = find_source(options, watch)
    exported = export_onnx(source.network, source.contract, checkpoint={})
    return Quantization(options, source, exported, watch)


if __name__ == "__main__":
    main()
