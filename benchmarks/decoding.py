"""The single operations between a JPEG and a batch, beside other libraries': what docs/adr/0001-decoding.md rests on.

    python benchmarks/decoding.py                  beside those of the libraries that are installed

Others than Pillow, simplejpeg and torchvision are optional: opencv-python-headless, kornia-rs, imagecodecs, av,
pyvips[binary], nvidia-nvimgcodec-cu12, nvidia-dali-cuda120; the result names those that are not there. The pictures are
those of benchmarks/loader.py. Everything runs in one process that may use one core. The candidates of a table take
turns, pass by pass over all pictures; of each picture the fastest visit counts, and given is the mean over pictures.
Whole pipelines draw other crops in every visit: of them the median of all batches is given, after a visit that does not
count. Before a table is timed its results are compared: what a library leaves out, it need not spend time on.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import tempfile
import time
import warnings
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from candidates import CAPTIONS, CROP_RATIO, SIZES, Candidate, CandidateGroup, Key, Modules, groups
from loader import CROP_SCALE, HEIGHT, MAGNITUDE, QUALITY, WIDTH, Setting, ours, write_jpegs

from serve.bench.kinds.decoding import DecodingData, DecodingRow
from serve.bench.report.report import keep_result
from train.augment.strength import MAX_LEVEL
from train.input.loader import collate
from zoo.machine import package_version, processor_name
from zoo.results import Result, Subject, measured_on

HERE = Path(__file__).parent
BATCH = 64
OPTIONAL = ("cv2", "kornia_rs", "imagecodecs", "av", "pyvips", "nvidia.nvimgcodec", "nvidia.dali", "torchvision.io")
# Decoders round differently, FFmpeg by 3 levels at 1/8; pictures further apart are not the same one.
LARGEST_DIFFERENCE_LEVELS = 5.0
PIPELINES = "From files to a uint8 batch: decode a crop, resize, flip; other crops in every visit"


def main() -> None:
    """Measure every table and write one result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--visits", type=int, default=15, help="times every candidate sees every picture")
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # whatever threads a library starts, they share one core
    torch.set_num_threads(1)
    modules, absent = load_optional()
    # Recorded rather than shown: torchvision says at every call that its decoders are deprecated.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("once")
        root = Path(folder)
        mean_bytes = write_jpegs(root, options.pictures)
        files = [path.read_bytes() for path in sorted(root.rglob("*.jpg"))]
        rows = [row for group in groups(files, modules) for row in measure(group, options.visits)]
        rows += measure_pipelines(root, options.visits, modules)
    environment = measured_on(processor_name())
    environment["packages"] |= {name: package_version(name) for name in ("pillow", "simplejpeg", "torchvision")}
    environment["packages"] |= {
        name: module.__version__ for name, module in modules.items() if hasattr(module, "__version__")
    }
    subject = Subject(name=f"{WIDTH}x{HEIGHT}", threads=torch.get_num_threads())
    data = DecodingData(
        rows=tuple(rows),
        captions=CAPTIONS | {"pipeline": PIPELINES},
        absent=absent,
        warnings=tuple(sorted({f"{one.category.__name__}: {one.message}" for one in said})),
    )
    result = Result(
        kind="decoding",
        name=subject.name,
        environment=environment | {"cores_allowed": len(os.sched_getaffinity(0))},
        settings={
            "subjects": [subject.to_dict()],
            "mode": f"{options.visits} visits in turn, one process on one core; {options.pictures} JPEGs of "
            f"{WIDTH}×{HEIGHT}, quality {QUALITY}, {mean_bytes / 1000:.0f} kB on average; mean over pictures of each "
            "one's fastest visit, of whole pipelines the median over batches",
            "threads": subject.threads,
            "randaugment": f"{MAGNITUDE:g} of {MAX_LEVEL:g}, torchvision at the same share of its range",
        },
        data=data.to_dict(),
    )
    keep_result(result, options.out)


def load_optional() -> tuple[dict[str, Any], dict[str, str]]:
    """The modules that are installed, told to use one thread, and why the others are not there."""
    os.environ["VIPS_CONCURRENCY"] = "1"  # read by libvips as it starts
    modules, absent = {}, {}
    for name in OPTIONAL:
        try:
            modules[name] = importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            absent[name] = str(error)
    if "cv2" in modules:
        modules["cv2"].setNumThreads(1)
    if "pyvips" in modules:
        modules["pyvips"].cache_set_max(0)  # it would remember pictures
    return modules, absent


def measure(group: CandidateGroup, visits: int) -> list[DecodingRow]:
    """Rows of a table: compared first, then timed in turn."""
    differences = {key: compare(group, key) for key in group.candidates}
    fastest = {key: [math.inf] * len(group.pictures) for key in group.candidates}
    for turn in range(visits):
        keys = list(group.candidates)
        first = turn % len(keys)
        for key, (index, picture) in product(keys[first:] + keys[:first], enumerate(group.pictures)):
            call = group.candidates[key]
            started = time.perf_counter()
            call(picture)
            fastest[key][index] = min(fastest[key][index], time.perf_counter() - started)
    rows = []
    for (what, at), seconds in fastest.items():
        row = DecodingRow(
            group=group.name,
            what=what,
            at=at,
            ms=1000 * fmean(seconds),
            n=len(seconds),
            visits=visits,
            difference_levels=differences[what, at],
            file_bytes=group.file_bytes.get(what),
        )
        rows.append(printed(row))
    return rows


def printed(row: DecodingRow) -> DecodingRow:
    """Print a row, and return it."""
    levels = ", ".join(f"{value:.2f} levels {view}" for view, value in row.difference_levels.items())
    print(
        f"{row.group:11} {row.what:40} {row.at:6} {row.ms:7.3f} ms  n {row.n}, {row.visits} visits  {levels}",
        flush=True,
    )
    return row


def compare(group: CandidateGroup, key: Key) -> dict[str, float]:
    """Mean difference from the reference at the same scale, levels of 255, by view; nothing without a reference."""
    reference, call = group.candidates.get((group.reference, key[1])), group.candidates[key]
    if reference is None:
        return {}
    differences = {
        name: fmean(difference(view(call(picture)), view(reference(picture))) for picture in group.pictures)
        for name, view in group.views.items()
    }
    if max(differences.values()) > LARGEST_DIFFERENCE_LEVELS:
        raise ValueError(f"{' at '.join(key)} gives other pictures than {group.reference}: {differences}")
    return differences


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference; libvips rounds scaled sizes down, the others up, so one row and column may lack."""
    if any(abs(a - b) > 1 for a, b in zip(one.shape, other.shape, strict=True)):
        raise ValueError(f"pictures of {one.shape} and {other.shape} are not the same one")
    height, width = (min(pair) for pair in zip(one.shape[:2], other.shape[:2], strict=True))
    return float(np.abs(one[:height, :width].astype(np.int16) - other[:height, :width]).mean())


def measure_pipelines(root: Path, visits: int, modules: Modules) -> list[DecodingRow]:
    """Our loader without workers beside DALI with one thread, batch by batch in turn."""
    rows = []
    for size in SIZES:
        dataset = ours(Setting(root, size, BATCH, workers=0, repeats=1, augment=False)).dataset
        files = [str(source) for source in dataset.pictures.sources]
        batch, batches = min(BATCH, len(files)), max(1, len(files) // BATCH)
        indices = np.arange(batch * batches).reshape(batches, batch).tolist()
        pipelines: dict[str, Candidate] = {
            "zoo, flips left to a GPU": partial(load_batch, replace(dataset, augment_on="device")),
            "zoo": partial(load_batch, dataset),
        }
        if "nvidia.dali" in modules:
            dali = dali_pipeline(modules["nvidia.dali"], files[: batch * batches], batch, size)
            pipelines["DALI, CPU"] = lambda _, run=dali.run: run()
        clocks = (time.perf_counter, time.process_time)
        taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in pipelines}
        for visit, (name, load), chosen in product(range(visits + 1), pipelines.items(), indices):
            started = [clock() for clock in clocks]
            load((visit, chosen))
            if visit:
                taken[name].append(tuple(clock() - before for clock, before in zip(clocks, started, strict=True)))
        for name, batches_taken in taken.items():
            # Beside the time that passed, that of the processor: other work on the machine lengthens the first only.
            ms, processor_ms = (1000 * median(each) / batch for each in zip(*batches_taken, strict=True))
            row = DecodingRow(
                group="pipeline",
                what=name,
                at=f"{size} px",
                ms=ms,
                processor_ms=processor_ms,
                n=batch * batches,
                visits=visits,
                difference_levels={},
            )
            rows.append(printed(row))
    return rows


def load_batch(dataset: Any, wanted: tuple[int, list[int]]) -> Any:
    """One batch of an epoch, in this process."""
    epoch, indices = wanted
    return collate(replace(dataset, epoch=epoch).__getitems__(indices))


def dali_pipeline(dali: Any, files: list[str], batch: int, size: int) -> Any:
    """What of DALI does the same on a processor; a batch is made when it is asked for, none ahead."""
    fn = importlib.import_module("nvidia.dali.fn")
    pipeline = dali.Pipeline(batch, 1, None, seed=0, prefetch_queue_depth=1, exec_async=False, exec_pipelined=False)
    with pipeline:
        data, _ = fn.readers.file(files=files, random_shuffle=False)
        ratio, area = list(CROP_RATIO), list(CROP_SCALE)
        crops = fn.decoders.image_random_crop(data, device="cpu", random_area=area, random_aspect_ratio=ratio)
        resized = fn.resize(crops, size=[size, size], antialias=True)
        pipeline.set_outputs(fn.flip(resized, horizontal=fn.random.coin_flip()))
    pipeline.build()
    (pictures,) = pipeline.run()
    if pictures.shape() != [(size, size, 3)] * batch:
        raise ValueError(f"DALI gives pictures of {set(pictures.shape())}")
    return pipeline


if __name__ == "__main__":
    main()
