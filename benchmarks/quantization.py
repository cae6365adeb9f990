"""What 8 bits cost and gain: forms of one network beside its float32, on pictures it was not calibrated on.

    python benchmarks/quantization.py lite0 --calib FOOD/train
    python benchmarks/quantization.py runs/lite0 runs/b0 --test CIFAR10/test
    python benchmarks/quantization.py lite0 --calib FOOD/train --peers --modelopt-python MODELOPT/bin/python

FOOD and CIFAR10 are folders of `sets.py`. A network without `--test` is asked about crops of scikit-image's
photographs, which have no classes of ImageNet: then its answers are compared with those of float32 alone.
With `--peers` it is others' forms of the same graph and pictures: ONNX Runtime's static quantizer, and NVIDIA's
ModelOpt in a Python of its own (`quantization_peers/modelopt_form.py` says what is in it). Runs some minutes on one
core for Lite0.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import skimage.data
from numpy.typing import NDArray
from onnx import ModelProto

from export.evaluate import match_classes
from export.graph import export_onnx
from export.options import ExportOptions
from export.precision.qdq import ONNX_RUNTIME, TENSORRT, Layout
from export.precision.quantize import Calibrated
from export.precision.rounding import Rounded
from export.precision.rows import find_precision
from export.precision.sensitivity import infer, relative_rms_error
from export.precision.wiring import Wiring
from export.quantized import Quantization
from export.runners.onnx_runtime import OnnxRunner
from export.source import find_source
from export.watch import Watch
from serve.bench.kinds.quantization import EXPORTED, QuantizationData, QuantizedRow
from serve.bench.report.report import keep_result
from zoo.data.folder import read_folder
from zoo.data.pictures import Pictures, load_prepared
from zoo.machine import processor_name
from zoo.results import Result, Subject, Summary, measured_on, summarize

HERE = Path(__file__).parent
PEERS = HERE / "quantization_peers"
# What others make: the form's name in their script, its precision, the back end it is made for.
MODELOPT_FORMS = (
    ("fp16", "fp16", ONNX_RUNTIME),
    ("int8-max", "int8", TENSORRT),
    ("int8-entropy", "int8", TENSORRT),
)
STATIC_FORMS = (("int8-minmax", "int8", ONNX_RUNTIME),)
PHOTOGRAPHS = (
    "astronaut brick camera cell chelsea clock coffee coins colorwheel grass gravel hubble_deep_field "
    "immunohistochemistry moon page retina rocket text"
)
CROPS = 14  # of each photograph
WARM_UP, RUNS = 8, 100


def main() -> None:
    """Measure every network asked for, and write one result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="ids or run folders")
    parser.add_argument("--calib", help="pictures to calibrate on, instead of those trained on")
    parser.add_argument("--test", type=Path, help="labelled pictures to judge by, one folder per class")
    parser.add_argument("--peers", action="store_true", help="others' forms instead of ours; a result of its own")
    parser.add_argument("--modelopt-python", help="a Python with ModelOpt, to measure its forms too")
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    rows: list[QuantizedRow] = []
    for model in options.models:
        for row in measure(model, options):
            rows.append(row)
            print(f"{row.network} {row.precision} {row.layout}, {row.how}: {row.agreement:.1%} {row.kept}")
    names = list(dict.fromkeys(row.network for row in rows))
    settings = {
        "subjects": [
            Subject(name=f"{name} peers" if options.peers else name, batch_sizes=(1,), threads=1).to_dict()
            for name in names
        ],
        "calibration": f"{Path(options.calib).parent.name}/{Path(options.calib).name}"
        if options.calib
        else "trained on",
        "runs": RUNS,
    }
    result = Result(
        kind="quantization",
        name="-".join([*names, *(["peers"] if options.peers else [])]).replace(" ", "-"),
        environment=measured_on(processor_name()),
        settings=settings,
        data=QuantizationData(rows=tuple(rows)).to_dict(),
    )
    keep_result(result, options.out)


def measure(model: str, asked: argparse.Namespace) -> Iterator[QuantizedRow]:
    """Every form of one network: ours, or others'."""
    options, watch = ExportOptions(model=model, precision="int8", calib=asked.calib), Watch()
    test: Path | None = asked.test
    source = find_source(options, watch)
    exported = export_onnx(source.network, source.contract, checkpoint={})
    pictures = read_folder(test) if test else crops()
    prepared, kept, _ = load_prepared(pictures, source.contract.preprocessing)
    labels = match_classes(pictures, source.contract.classes)[pictures.labels[kept]] if test else None
    name = f"{source.contract.model} of {len(source.contract.classes)} classes"
    reference = infer(exported, prepared)

    def row(graph: ModelProto, precision: str, layout: str, how: str, card: Quantization | None = None) -> QuantizedRow:
        logits = infer(graph, prepared)
        choice = card.make(find_precision(precision), LAYOUTS[layout])[1].choice if card else None
        timed = layout == ONNX_RUNTIME.id
        latencies = in_turns(exported, graph, prepared[:1]) if timed else (None, None)
        return QuantizedRow(
            network=name,
            pictures=pictures.name if not test else f"{test.parent.name}/{test.name}",
            n=len(prepared),
            precision=precision,
            layout=layout,
            how=how,
            kept=choice.kept if choice else (),
            kept_macs_share=choice.kept_macs_share if choice else 0.0,
            agreement=float((logits.argmax(1) == reference.argmax(1)).mean()),
            relative_rms_error=relative_rms_error(reference, logits),
            top1=None if labels is None else float((logits.argmax(1) == labels).mean()),
            float32_top1=None if labels is None else float((reference.argmax(1) == labels).mean()),
            bytes=graph.ByteSize(),
            latency=latencies[1],
            float32_latency=latencies[0],
        )

    yield row(find_precision("fp16").apply(exported), "fp16", ONNX_RUNTIME.id, EXPORTED)
    quantization = Quantization(options, source, exported, watch)
    if asked.peers:
        for maker, script, python, (form, precision, layout) in peers(asked.modelopt_python):
            yield row(made_by(script, python, form, quantization), precision, layout.id, f"{maker}, {form}")
        return
    for layout in LAYOUTS.values():
        calibrated = quantization.calibrated
        yield row(nearest(calibrated).quantized(layout=layout), "int8", layout.id, "nearest step, min–max")
        yield row(calibrated.quantized(layout=layout), "int8", layout.id, "every block")
        yield row(quantization.make(INT8, layout)[0], "int8", layout.id, EXPORTED, quantization)
    yield row(quantization.make(FP8, TENSORRT)[0], "fp8", TENSORRT.id, EXPORTED, quantization)


def peers(modelopt_python: str | None) -> Iterator[tuple[str, str, str, tuple[str, str, Layout]]]:
    """Others' forms: who makes it, the script, its Python, and what it makes."""
    for form in STATIC_FORMS:
        yield "ONNX Runtime's quantizer", "onnxruntime_form.py", sys.executable, form
    for form in MODELOPT_FORMS if modelopt_python else ():
        yield "ModelOpt", "modelopt_form.py", str(modelopt_python), form


def made_by(script: str, python: str, form: str, quantization: Quantization) -> ModelProto:
    """The form that a script of `quantization_peers/` makes of the same graph, from the same calibration pictures."""
    with TemporaryDirectory() as folder:
        graph, pictures, out = (Path(folder) / name for name in ("graph.onnx", "pictures.npy", "form.onnx"))
        onnx.save(quantization.exported, graph)
        np.save(pictures, quantization.pictures[1])
        subprocess.run([python, PEERS / script, graph, pictures, form, out], check=True, cwd=folder)
        made = onnx.load(out)
    # They drop the contract, without which no runner opens it.
    onnx.helper.set_model_props(made, {prop.key: prop.value for prop in quantization.exported.metadata_props})
    return made


LAYOUTS: dict[str, Layout] = {layout.id: layout for layout in (ONNX_RUNTIME, TENSORRT)}
INT8, FP8 = find_precision("int8"), find_precision("fp8")


def nearest(calibrated: Calibrated) -> Calibrated:
    """What a quantizer does that does not look at what layers read: weights to the nearest step, all values covered."""
    wiring = Wiring(calibrated.model)
    rounded = {}
    for node in wiring.layers:
        weight = wiring.weight(node.input[1]).astype(np.float64)
        flat = weight.reshape(len(weight), -1)
        scale = np.maximum(np.abs(flat).max(axis=1) / 127, 1e-6).astype(np.float16).astype(np.float64)
        steps = np.clip(np.rint(flat / scale[:, None]), -127, 127).reshape(weight.shape)
        rounded[node.name] = Rounded(steps, scale, np.zeros(len(weight)))
    return Calibrated(calibrated.model, calibrated.statistics, "min-max", _rounded={False: rounded})


def crops() -> Pictures:
    """Squares of 45 % to 100 % of the short side, anywhere in the photographs of scikit-image."""
    found: list[NDArray[np.uint8]] = []
    for number, name in enumerate(PHOTOGRAPHS.split()):
        rng = np.random.default_rng(number)
        photo = np.asarray(getattr(skimage.data, name)())
        photo = photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=-1)
        photo = photo if photo.dtype == np.uint8 else (photo * 255).astype(np.uint8)
        for _ in range(CROPS):
            side = int(min(photo.shape[:2]) * rng.uniform(0.45, 1))
            top, left = (int(rng.integers(0, size - side + 1)) for size in photo.shape[:2])
            found.append(np.ascontiguousarray(photo[top : top + side, left : left + side, :3]))
    return Pictures("crops of photographs", ("unknown",), found, np.zeros(len(found), np.int64))


def in_turns(first: ModelProto, second: ModelProto, picture: NDArray[np.uint8]) -> tuple[Summary, Summary]:
    """One picture through two graphs in turns."""
    runners = [OnnxRunner(graph.SerializeToString(), device="cpu", threads=1) for graph in (first, second)]
    run: list[Callable[[], object]] = [lambda runner=runner: runner.infer(picture) for runner in runners]  # type: ignore[misc]
    samples: list[list[float]] = [[], []]
    for number in range(WARM_UP + RUNS):
        for place, infer_once in enumerate(run):
            started = time.perf_counter()
            infer_once()
            if number >= WARM_UP:
                samples[place].append(1e3 * (time.perf_counter() - started))
    return summarize(samples[0]), summarize(samples[1])


if __name__ == "__main__":
    main()
