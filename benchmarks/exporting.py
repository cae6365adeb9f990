"""What an export takes, step by step: the clock's and the processor's time, and the most memory held.

    python benchmarks/exporting.py                         s at 384 px: fp32, fp16 with a plan, int8
    python benchmarks/exporting.py --only fp16 --model tiny --image-size 40 --runs 1

Every run is a process of its own, imports included, and exports a checkpoint with random weights that was made before.
64 pictures go through the gate, and int8 is calibrated on 128: crops of scikit-image's photographs. The memory of a
step is the system's own peak, set back before each step; elsewhere than on Linux it is the peak since the start. The
plan is TensorRT for RTX's, which builds without a GPU; where it is not installed, the command stops at the graph.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from quantization import crops

from export.engine.builders import RTX
from export.engine.tensorrt_api import installed_module
from export.options import ExportOptions
from export.pipeline import export_model
from export.source import at_size, make_random_network
from export.watch import Watch
from serve.bench.kinds.exporting import ExportingData, ExportingRow, ExportRun, Step
from serve.bench.report.report import keep_result
from zoo.machine import processor_name, usable_cores
from zoo.model.variants import find_variant
from zoo.results import Result, Subject, measured_on
from zoo.weights.checkpoint import Checkpoint, save_checkpoint

HERE = Path(__file__).parent
COMPARED, CALIBRATED = 64, 128
PLAN: dict[str, Any] = {"trt": "fp16", "builder": RTX.id, "targets": ("8.9",), "cache": False}
# By what each is called here: the options of the command beside the model, and how they are typed.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "fp32": ({}, ""),
    "fp16": (PLAN if installed_module(RTX) else {"precision": "fp16"}, "--trt fp16"),
    "int8": ({"precision": "int8"}, "--precision int8"),
}
CHECKPOINT = "checkpoint.safetensors"
STATUS, PEAKS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    """Measure every case asked for, and write one result; or, as its own child, one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="s")
    parser.add_argument("--image-size", type=int, help="px, instead of the network's own")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # case, folder, when it was started
    options = parser.parse_args()
    if options.one:
        print(json.dumps(export_once(options.one[0], Path(options.one[1]), float(options.one[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        size = make_checkpoint(options.model, options.image_size, Path(folder))
        rows = [measure(case, options.model, size, options.runs, Path(folder)) for case in options.only]
    subject = Subject(name=f"{options.model} {size}px", threads=usable_cores())
    result = Result(
        kind="exporting",
        name=f"{options.model} at {size} px, {usable_cores()} thread{'s' if usable_cores() > 1 else ''}",
        environment=measured_on(processor_name()),
        settings={"subjects": [subject.to_dict()], "runs": options.runs, "threads": usable_cores()},
        data=ExportingData(rows=tuple(rows)).to_dict(),
    )
    keep_result(result, options.out)


def make_checkpoint(model: str, image_size: int | None, folder: Path) -> int:
    """Write a checkpoint with random weights and the pictures that exports look at; return its image size."""
    variant = find_variant(model)
    preprocessing = at_size(variant.preprocessing, variant, image_size)
    network = make_random_network(variant, preprocessing)
    card = Checkpoint(
        variant=variant,
        classes=tuple(f"class {index}" for index in range(1000)),
        preprocessing=preprocessing,
        padding="symmetric",
        provenance={},
    )
    save_checkpoint(folder / CHECKPOINT, network.state_dict(), card)
    chosen = crops()
    for index in range(COMPARED + CALIBRATED):
        split = "val" if index % 3 == 0 else "train"
        place = folder / "pictures" / split / f"class {index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(chosen.sources[index])).save(place / f"{index:03}.png")
    return preprocessing.image_size


def measure(case: str, model: str, image_size: int, count: int, folder: Path) -> ExportingRow:
    """One command, as often as asked for."""
    runs, found = [], dict[str, Any]()
    for _ in range(count):
        command = [sys.executable, __file__, "--one", case, str(folder), str(time.monotonic())]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        runs.append(ExportRun(steps=tuple(map(Step.from_dict, found["steps"]))))
        print(
            f"{case}: {runs[-1].wall_s:.1f} s, {runs[-1].cpu_s:.1f} s, {runs[-1].peak_bytes / 1e9:.2f} GB", flush=True
        )
    options, typed = CASES[case]
    return ExportingRow(
        network=model,
        image_size=image_size,
        options=typed,
        threads=usable_cores(),
        compared=COMPARED,
        calibrated=CALIBRATED if options.get("precision") == "int8" else None,
        built_by=found["built_by"],
        onnx_bytes=found["onnx_bytes"],
        runs=tuple(runs),
    )


def export_once(case: str, folder: Path, started: float) -> dict[str, Any]:
    """Export in this process, which was started at `started` of the system's monotonic clock."""
    options, _ = CASES[case]
    pictures = str(folder / "pictures")
    calibrated = {"calib": pictures} if options.get("precision") == "int8" else {}
    watch = Stopwatch(started, folder)
    with tempfile.TemporaryDirectory() as out:
        given = {"model": str(folder / CHECKPOINT), "out": Path(out), "data": pictures}
        found = export_model(ExportOptions(**given | options | calibrated), watch=watch)
        built = found.passport.builder
        watch.finish()
        return {
            "steps": [step.to_dict() for step in watch.steps],
            "built_by": f"{built.name} {built.version}" if built else "",
            "onnx_bytes": found.onnx.stat().st_size,
        }


class Stopwatch(Watch):
    """Keeps what every step took; what was before the first is the process's start."""

    def __init__(self, started: float, folder: Path) -> None:
        self.folder = folder
        self.steps: list[Step] = []
        self._what, self._wall, self._cpu = "Start Python and import", started, 0.0

    def step(self, text: str) -> None:
        """Keep the step before."""
        wall, cpu = time.monotonic(), time.process_time()
        taken = Step(what=self._what, wall_s=wall - self._wall, cpu_s=cpu - self._cpu, peak_bytes=peak_bytes())
        self.steps.append(taken)
        self._what, self._wall, self._cpu = text.replace(f"{self.folder}/", ""), wall, cpu
        if PEAKS.exists():
            PEAKS.write_text("5")  # the peak is what is held now (proc_pid_clear_refs(5))

    def finish(self) -> None:
        """Keep the last step."""
        self.step("")


def peak_bytes() -> int:
    """The most memory held, resident, since the peak was set back."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
