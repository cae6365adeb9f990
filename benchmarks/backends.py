"""One network in every back end of a processor: the same pictures and threads, timed in turn, and what each answers.

    python benchmarks/backends.py                             lite0 and B0 at 224 px, one picture, one thread
    python benchmarks/backends.py --calib FOOD/train          the same and, where a file can be opened, int8
    python benchmarks/backends.py --only lite0 --backends openvino openvino-bf16

Times are from a uint8 picture to answers in the caller's array, the median of calls that take turns one by one; the
ratio is taken of each such round, beside ONNX Runtime in the same round. Answers are compared with PyTorch's on crops
of photographs, and held to the gate's tolerance. FOOD is a folder of `sets.py`. B0 has random weights, so how often its
first class stays says nothing of trained ones. What is not installed is left out and named in the result; compiling
with PyTorch takes minutes.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import skimage.data
from numpy.typing import NDArray
from peers import median_with_interval
from PIL import Image

from export.backends import BACKENDS, find_backend
from export.options import ExportOptions
from export.parity import infer_all, judge
from export.pipeline import FP32, export_model
from export.precision.rows import find_precision
from export.runners.compiled import AHEAD_OF_TIME, JUST_IN_TIME
from export.runners.open import open_runner
from export.runners.pytorch import TorchRunner
from export.runners.runner import Runner
from export.source import Source, find_source
from export.watch import Watch
from serve.bench.kinds.backends import BackendRow, BackendsData
from serve.bench.kinds.peers import Ratio
from serve.bench.report.report import keep_result
from zoo.data.preprocess import prepare
from zoo.errors import MissingCapabilityError
from zoo.machine import processor_name
from zoo.measure.timing import Call, Schedule, pooled, time_call, time_in_turn
from zoo.model.spec import Preprocessing
from zoo.results import Result, Subject, measured_on, summarize
from zoo.wording import with_threads

HERE = Path(__file__).parent
BASELINE = "onnxruntime"
COMPILERS = {"torch": None, "torch-compile": JUST_IN_TIME, "torch-aot": AHEAD_OF_TIME}
ON_A_PROCESSOR = tuple(row.id for row in BACKENDS if row.device != "cuda")
# In colour, and in scikit-image's own package: nothing is fetched.
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")


@dataclass(frozen=True)
class Case:
    """One network at one size."""

    network: str
    image_size: int
    batch_size: int
    random_weights: bool


CASES = (Case("lite0", 224, 1, random_weights=False), Case("b0", 224, 1, random_weights=True))


def main() -> None:
    """Measure every case in every back end, and write one result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="calls of each back end")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--crops", type=int, default=36, help="of each photograph")
    parser.add_argument("--only", nargs="*", help="networks to measure")
    parser.add_argument("--image-size", type=int, help="px, for a quick look")
    parser.add_argument("--calib", help="pictures to calibrate int8 on; without them there is no int8")
    parser.add_argument("--backends", nargs="*", choices=ON_A_PROCESSOR, default=list(ON_A_PROCESSOR))
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    backends = list(dict.fromkeys((BASELINE, *options.backends)))
    # One call a visit, and nothing before it: neighbours in time are compared.
    schedule = Schedule(
        rounds=options.rounds, min_iterations=options.rounds, duration_ms=0.0, visit_warmup_iterations=0
    )
    cases = [case for case in CASES if not options.only or case.network in options.only]
    rows: list[BackendRow] = []
    absent: list[str] = []
    for case in cases:
        case = Case(**asdict(case) | ({"image_size": options.image_size} if options.image_size else {}))
        rows += measure(case, backends, options.threads, schedule, options.crops, options.calib, absent)
    subject = Subject(
        name=" ".join(case.network for case in cases),
        batch_sizes=tuple(sorted({case.batch_size for case in cases})),
        precision="int8" if options.calib else None,
        threads=options.threads,
    )
    result = Result(
        kind="backends",
        name=with_threads(options.threads),
        environment=measured_on(processor_name()),
        settings={"subjects": [subject.to_dict()], "schedule": schedule.to_dict(), "threads": options.threads},
        data=BackendsData(
            rows=tuple(rows),
            baseline=BASELINE,
            source="crops of photographs",
            absent=tuple(dict.fromkeys(absent)),
        ).to_dict(),
    )
    keep_result(result, options.out)


def measure(
    case: Case,
    backends: list[str],
    threads: int,
    schedule: Schedule,
    crops: int,
    calib: str | None,
    absent: list[str],
) -> list[BackendRow]:
    """One network in every back end that is here, and in int8 with `calib`; the others are added to `absent`."""
    exported = ExportOptions(
        model=case.network, image_size=case.image_size, random_weights=case.random_weights, parity=False
    )
    source = find_source(exported, Watch())
    pictures = np.stack(list(photographs(source.contract.preprocessing, crops)))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        graphs = dict[str, Path]()
        for precision in ("fp32", *(["int8"] if calib else [])):
            asked = {"out": Path(folder, precision), "precision": precision} | (
                {"calib": calib} if precision == "int8" else {}
            )
            graphs[precision] = export_model(ExportOptions(**vars(exported) | asked)).onnx
        opened: dict[tuple[str, str], Runner] = {}
        for precision, graph in graphs.items():
            for id in backends:
                if precision != "fp32" and (id in COMPILERS or find_backend(id).computes):
                    continue  # it takes no file, or the same layers in int8 as its neighbour
                try:
                    opened[id, precision] = stack.enter_context(open_one(id, source, graph, threads))
                except MissingCapabilityError as error:
                    absent.append(f"{id}: {error.problem.rstrip('.')}")
        reference = infer_all(open_one("torch", source, graphs["fp32"], threads), pictures)
        calls = [call_of(runner, pictures[: case.batch_size]) for runner in opened.values()]
        visits = time_in_turn(calls, schedule, time_call)
        base = visits[list(opened).index((BASELINE, "fp32"))]
        rows = []
        for ((id, precision), runner), own in zip(opened.items(), visits, strict=True):
            ratios = [median(one.ms) / median(other.ms) for one, other in zip(own, base, strict=True)]
            low, middle, high = median_with_interval(ratios)
            row = find_backend(id)
            allowed = find_precision(precision) if precision != "fp32" else row.computes or FP32
            parity = judge(reference, infer_all(runner, pictures), allowed.tolerance)
            rows.append(
                BackendRow(
                    **asdict(case),
                    backend=id,
                    version=runner.backend,
                    precision=row.precision_of(precision),
                    latency=summarize(pooled(own)),
                    over_baseline=Ratio(p50=middle, low=low, high=high, n=len(ratios)),
                    relative_max_error=parity.relative_max_error,
                    relative_mean_error=parity.relative_mean_error,
                    top1_agreement=parity.top1_agreement,
                    pictures=parity.n,
                    failures=parity.failures,
                )
            )
            print(
                f"{case.network} {id:14} {precision} {parity.summary()}; {'; '.join(parity.failures) or 'passes'}",
                flush=True,
            )
        return rows


def open_one(id: str, source: Source, graph: Path, threads: int) -> Runner:
    """A network in one back end: in PyTorch's own the network itself, in the others what was exported."""
    if id not in COMPILERS:
        return open_runner(str(graph), device="cpu", threads=threads, backend=id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compilers' own internals
        network = copy.deepcopy(source.network)
        return TorchRunner(network, source.contract, device="cpu", threads=threads, compiler=COMPILERS[id])


def call_of(runner: Runner, batch: NDArray[np.uint8]) -> Call:
    """A call that writes where the caller says."""
    out = np.empty((len(batch), len(runner.contract.classes)), np.float32)
    return partial(runner.infer, batch, out)


def photographs(preprocessing: Preprocessing, crops: int) -> Iterator[NDArray[np.uint8]]:
    """Square crops of a third of a photograph's shorter side and more, where a fixed seed puts them."""
    random = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        whole = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        for _ in range(crops):
            side = int(random.uniform(1 / 3, 1) * min(whole.size))
            left, top = (int(random.integers(0, length - side + 1)) for length in whole.size)
            yield prepare(whole.crop((left, top, left + side, top + side)), preprocessing)


if __name__ == "__main__":
    main()
