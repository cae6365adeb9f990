"""Our training loader beside torchvision's reference pipeline and timm's: the same JPEGs, cores and workers, in turn.

    python benchmarks/loader.py                    128 and 300 px, two workers
    python benchmarks/loader.py --packed           the JPEGs as `zoo data pack` writes them, with restart markers

The pictures are crops of scikit-image's photographs, drawn by a fixed seed and written as JPEGs of quality 90. A pass
goes once over all of them, several times in every worker; timed is from the first batch to the last, so that starting
the workers counts for nobody. On a machine that has other work, wall time says little: processor time of the workers
is beside it, and small batches in one process, each visited several times with the same draws and its fastest visit
taken. Every pipeline ends in uint8 batches: timm's is timed before its PrefetchLoader
normalises. RandAugment is at torchvision's default strength, timm's at rand-m9 with its odds of a half. `zoo for a GPU`
is our loader as it works where a GPU flips and RandAugments: it decodes, crops and draws.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import skimage.data
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode

from serve.bench.kinds.loader import LoaderData, LoaderRow, Spread
from serve.bench.report.report import keep_result
from train.input.decoders import load
from train.input.loader import Augmented
from train.input.order import epoch_batches
from train.options import AugmentOn
from train.progressive.recipe import find_recipe
from zoo.data.open import open_val
from zoo.data.pack import encode_jpeg
from zoo.data.pictures import Pictures
from zoo.machine import package_version, processor_name
from zoo.model.variants import find_variant
from zoo.results import Result, Subject, measured_on

HERE = Path(__file__).parent
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
WIDTH, HEIGHT, QUALITY = 500, 375, 90
CROP_SCALE = (0.08, 1.0)  # torchvision's and timm's default
# Magnitude 9 of torchvision's 31 bins is 30 % of its range; ours counts to 10.
MAGNITUDE = 3.0
ALONE_BATCH = 16
TARGETS = {128: 2.5, 300: 1.5}
# Statistics of pictures drawn at random: the standard error of a channel's mean over 2,048 of them is about 1 level.
TOLERANCE_LEVELS = 3.0

Batches = Iterable[Tensor]


@dataclass(frozen=True)
class Setting:
    """What all pipelines share."""

    root: Path
    size: int
    batch_size: int
    workers: int
    repeats: int
    augment: bool = True


@dataclass(frozen=True)
class Pipeline:
    """Batches as they come from workers, and the data set whose items they are made of."""

    dataset: Dataset
    batches: Iterator[Tensor]


def main() -> None:
    """Measure every pipeline at every size, in turn, and write one result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 300])
    parser.add_argument("--packed", action="store_true", help="JPEGs with restart markers, as `zoo data pack` writes")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5, help="times every picture is read in a pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        mean_bytes = write_jpegs(root, options.pictures, packed=options.packed)
        rows, statistics = [], []
        for size in options.sizes:
            setting = Setting(root, size, options.batch_size, options.workers, options.repeats)
            rows += time_in_turn(setting, options.rounds)
            statistics += compare_statistics(setting)
    environment = measured_on(processor_name())
    environment["packages"] |= {name: package_version(name) for name in ("timm", "pillow", "simplejpeg")}
    name = f"{options.workers}-workers" + ("-packed" if options.packed else "")
    sizes = "-".join(map(str, options.sizes))
    subject = Subject(name=f"{name}-{sizes}px", batch_sizes=(options.batch_size,))
    result = Result(
        kind="loader",
        name=name,
        environment=environment | {"cores_allowed": len(os.sched_getaffinity(0))},
        settings={
            "subjects": [subject.to_dict()],
            "mode": f"{options.rounds} rounds in turn; a pass is {options.pictures} JPEGs of {WIDTH}×{HEIGHT}, "
            f"{mean_bytes / 1000:.0f} kB on average, {options.repeats} times each, "
            "timed from the first batch to the last",
            "workers": options.workers,
            "packed": options.packed,
            "batch_size": options.batch_size,
            "randaugment": "ours 3 of 10, torchvision 9 of 30 (the same), timm rand-m9 (every operation at odds 1/2)",
            "targets": {str(size): ratio for size, ratio in TARGETS.items()},
            "tolerance_levels": TOLERANCE_LEVELS,
        },
        data=LoaderData(rows=tuple(rows), statistics=tuple(statistics)).to_dict(),
    )
    keep_result(result, options.out)


def write_jpegs(root: Path, count: int, *, packed: bool = False) -> float:
    """Write `count` pictures in two classes; returns their mean size in bytes."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    sizes = []
    for number in range(count):
        photo = photographs[number % len(photographs)]
        share = min(photo.width / WIDTH, photo.height / HEIGHT) * rng.uniform(0.6, 1.0)
        wide, high = WIDTH * share, HEIGHT * share
        left, top = rng.uniform(0, photo.width - wide), rng.uniform(0, photo.height - high)
        crop = photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=(left, top, left + wide, top + high))
        path = root / "ab"[number % 2] / f"{number:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        if packed:
            path.write_bytes(encode_jpeg(crop, QUALITY))
        else:
            crop.save(path, quality=QUALITY)
        sizes.append(path.stat().st_size)
    return float(np.mean(sizes))


def ours(setting: Setting, augment_on: AugmentOn = "workers") -> Pipeline:
    """The loader `zoo train` uses."""
    pictures = open_val(str(setting.root))
    sources = list(pictures.sources) * setting.repeats
    pictures = Pictures(pictures.name, pictures.classes, sources, np.tile(pictures.labels, setting.repeats))
    recipe = replace(find_recipe("folder", find_variant("s")), crop_scale=CROP_SCALE)
    stage = replace(
        recipe.stages[0],
        image_size=setting.size,
        batch_size=setting.batch_size,
        randaugment_magnitude=MAGNITUDE if setting.augment else 0.0,
    )
    batches = epoch_batches(len(pictures), stage, seed=0, epoch=0)
    dataset = Augmented(pictures, recipe, stage, 0, 0, augment_on)
    loaded = load(dataset, batches, workers=setting.workers, pin=False)
    return Pipeline(dataset, (batch.pictures for batch in loaded))


def of_torchvision(setting: Setting, interpolation: InterpolationMode = InterpolationMode.NEAREST) -> Pipeline:
    """ImageFolder, RandomResizedCrop, RandomHorizontalFlip, RandAugment, PILToTensor: references/classification."""
    steps = [
        transforms.RandomResizedCrop(setting.size, scale=CROP_SCALE),
        transforms.RandomHorizontalFlip(),
        *([transforms.RandAugment(interpolation=interpolation, fill=[128, 128, 128])] if setting.augment else []),
        transforms.PILToTensor(),
    ]
    dataset = ImageFolder(str(setting.root), transforms.Compose(steps))
    dataset.samples = dataset.samples * setting.repeats
    loader = DataLoader(
        dataset,
        setting.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=setting.workers,
        prefetch_factor=4,
    )
    return Pipeline(dataset, (pictures for pictures, _ in loader))


def of_timm(setting: Setting) -> Pipeline:
    """create_loader with rand-m9; the DataLoader inside its PrefetchLoader, whose batches are uint8."""
    dataset = create_dataset("", str(setting.root))
    dataset.reader.samples = list(dataset.reader.samples) * setting.repeats
    loader = create_loader(
        dataset,
        (3, setting.size, setting.size),
        setting.batch_size,
        is_training=True,
        scale=list(CROP_SCALE),
        color_jitter=None,
        auto_augment="rand-m9" if setting.augment else None,
        num_workers=setting.workers,
        persistent_workers=False,
        device=torch.device("cpu"),
        pin_memory=False,
    )
    return Pipeline(dataset, (pictures for pictures, _ in loader.loader))


PIPELINES: dict[str, Callable[[Setting], Pipeline]] = {
    "zoo": ours,
    "zoo for a GPU": partial(ours, augment_on="device"),
    "torchvision": of_torchvision,
    "torchvision, RandAugment bilinear": partial(of_torchvision, interpolation=InterpolationMode.BILINEAR),
    "timm": of_timm,
}


def time_in_turn(setting: Setting, rounds: int) -> list[LoaderRow]:
    """Pictures a second of every pipeline, round by round, and how often ours is as fast."""
    passes: dict[str, list[Pass]] = {name: [] for name in PIPELINES}
    for turn in range(rounds):
        names = list(PIPELINES)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            passes[name].append(time_pass(PIPELINES[name], setting))
    alone = alone_ms(setting)
    rows = []
    for name, theirs in passes.items():
        # Ratios are of one round each: what else the machine did then slowed both.
        pairs = list(zip(passes["zoo"], theirs, strict=True))
        pairs_for_gpu = list(zip(passes["zoo for a GPU"], theirs, strict=True))
        cpu = spread(other.cpu_ms_per_picture / one.cpu_ms_per_picture for one, other in pairs)
        row = LoaderRow(
            pipeline=name,
            image_size=setting.size,
            n=len(theirs),
            pictures_a_pass=setting.repeats * sum(1 for _ in setting.root.rglob("*.jpg")),
            one_process_ms_per_picture=alone[name],
            one_process_theirs_over_ours=alone[name] / alone["zoo"],
            pictures_per_second=spread(one.pictures_per_second for one in theirs),
            cpu_ms_per_picture=spread(one.cpu_ms_per_picture for one in theirs),
            ours_over_theirs=spread(one.pictures_per_second / other.pictures_per_second for one, other in pairs),
            for_gpu_over_theirs=spread(
                one.pictures_per_second / other.pictures_per_second for one, other in pairs_for_gpu
            ),
            cpu_theirs_over_ours=cpu,
        )
        rows.append(row)
        print(
            f"{setting.size:4} px  {name:34} {row.pictures_per_second.p50:7.1f} pictures/s, ours "
            f"{row.ours_over_theirs.p50:.2f}× ({row.for_gpu_over_theirs.p50:.2f}× for a GPU);  CPU "
            f"{row.cpu_ms_per_picture.p50:.2f} ms a picture, ours {cpu.p50:.2f}× less;  n {len(theirs)};  "
            f"alone {alone[name]:.2f} ms, ours {alone[name] / alone['zoo']:.2f}× less",
            flush=True,
        )
    return rows


@dataclass(frozen=True)
class Pass:
    """One pass of one pipeline: wall time after the first batch; processor time of the workers, their start too."""

    pictures_per_second: float
    cpu_ms_per_picture: float


def alone_ms(setting: Setting, batches: int = 8, visits: int = 9) -> dict[str, float]:
    """Milliseconds a picture in this process, one thread: the mean over small batches of each one's fastest visit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    datasets = {name: pipeline(setting).dataset for name, pipeline in PIPELINES.items()}
    fastest = {name: [math.inf] * batches for name in datasets}
    for _, (name, dataset), batch in product(range(visits), datasets.items(), range(batches)):
        random.seed(batch)
        np.random.seed(batch)  # noqa: NPY002 - timm draws from it
        torch.manual_seed(batch)
        indices = list(range(ALONE_BATCH * batch, ALONE_BATCH * (batch + 1)))
        started = time.perf_counter()
        fetch(dataset, indices)
        fastest[name][batch] = min(fastest[name][batch], time.perf_counter() - started)
    torch.set_num_threads(threads)
    return {name: 1000 * sum(times) / (batches * ALONE_BATCH) for name, times in fastest.items()}


def fetch(dataset: Dataset, indices: list[int]) -> list:
    """A batch's items, as PyTorch's workers ask for them."""
    whole = getattr(dataset, "__getitems__", None)
    return whole(indices) if whole else [dataset[index] for index in indices]


def time_pass(pipeline: Callable[[Setting], Pipeline], setting: Setting) -> Pass:
    """Go through all batches once."""
    before = workers_cpu_s()
    batches = pipeline(setting).batches
    first = len(next(batches))
    started, seen = time.perf_counter(), 0
    for pictures in batches:
        seen += len(pictures)
    seconds = time.perf_counter() - started
    del batches  # the workers end, and are counted
    gc.collect()
    return Pass(seen / seconds, 1000 * (workers_cpu_s() - before) / (seen + first))


def workers_cpu_s() -> float:
    """Processor time of all worker processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spread(samples: Iterable[float]) -> Spread:
    """Median and extremes."""
    ascending = sorted(samples)
    return Spread(p50=median(ascending), min=ascending[0], max=ascending[-1])


def compare_statistics(setting: Setting) -> list[dict]:
    """Mean and deviation of each channel, 0…255: crops and flips alone, then with RandAugment at the same strength."""
    rows = []
    for augment in (False, True):
        measured = {
            name: channel_statistics(PIPELINES[name](replace(setting, augment=augment)).batches)
            for name in ("zoo", "torchvision")
        }
        difference = max(
            abs(mine - theirs)
            for key in ("mean", "std")
            for mine, theirs in zip(measured["zoo"][key], measured["torchvision"][key], strict=True)
        )
        rows.append(
            {
                "image_size": setting.size,
                "randaugment": augment,
                **{name: values for name, values in measured.items()},
                "largest_difference_levels": difference,
                "within_tolerance": difference <= TOLERANCE_LEVELS,
            }
        )
        print(
            f"{setting.size:4} px  statistics {'with' if augment else 'without'} RandAugment: "
            f"largest difference {difference:.2f} of 255 (tolerance {TOLERANCE_LEVELS:g})",
            flush=True,
        )
    return rows


def channel_statistics(batches: Batches) -> dict[str, list[float]]:
    """Mean over all pixels, and mean over the pictures of their own deviation, by channel."""
    means, deviations = [], []
    for batch in batches:
        pictures = batch if batch.shape[1] == 3 else batch.permute(0, 3, 1, 2)
        means.append(pictures.float().mean((2, 3)))
        deviations.append(pictures.float().std((2, 3)))
    return {
        "mean": torch.cat(means).mean(0).tolist(),
        "std": torch.cat(deviations).mean(0).tolist(),
        "n": [sum(len(mean) for mean in means)],
    }


if __name__ == "__main__":
    main()
