"""Owns how many instances of an engine there are and how many threads each has: a rule, or a measurement that is kept.

On two cores two instances of one thread answer 214 pictures/s where one instance of two threads answers 190 (batches of
4 and 8 of B0 at 224 px): threads wait for one another at every layer, instances never. A single client gets its answer
later for that, so it is a choice, and `--tune` asks the machine.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.interface import input_of
from export.runners.runner import Runner
from zoo.errors import RowError
from zoo.files import sha256_of, write_json
from zoo.machine import processor_name
from zoo.rows import Count, Row
from zoo.weights.cache import cache_folder

# Each instance has a copy of the weights: more of them than so many only cost memory.
MOST_INSTANCES = 8
# On a GPU each instance has a stream of its own: while one computes, the other's pictures and answers are copied.
GPU_INSTANCES = 2
# How long each layout works when it is measured, and by how much more instances must be faster to be worth it.
MEASURE_S, WORTH = 1.0, 1.03
MEASURED_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Layout(Row):
    """Copies of an engine, and processor threads of each; None is the back end's choice."""

    instances: Count
    threads: Count | None = None


def usual_layout(*, on_processor: bool, cores: int, instances: int | None, threads: int | None) -> Layout:
    """What was asked for; what was not is chosen so that a processor's cores are all used, and none twice.

    8 cores → 8 × 1; 32 cores → 8 × 4; 8 cores and 2 instances → 2 × 4; 8 cores and 4 threads → 2 × 4. A GPU → 2.
    """
    if not on_processor:
        return Layout(instances=instances or GPU_INSTANCES, threads=threads)
    instances = instances or max(1, min(MOST_INSTANCES, cores // (threads or 1)))
    return Layout(instances=instances, threads=threads or max(1, cores // instances))


def possible_layouts(cores: int) -> list[Layout]:
    """Every layout that uses all cores with a power of two of instances: 4 → 1 × 4, 2 × 2, 4 × 1."""
    counts = [1 << power for power in range(MOST_INSTANCES.bit_length()) if 1 << power <= min(cores, MOST_INSTANCES)]
    if cores <= MOST_INSTANCES and cores not in counts:
        counts.append(cores)
    return [Layout(instances=count, threads=max(1, cores // count)) for count in counts]


def tuned_layout(
    artifact: Path, backend: str, cores: int, open_one: Callable[[int | None], Runner], say: Callable[[str], None]
) -> Layout:
    """The fastest layout of an artifact on this machine: the one that was found before, or a measurement.

    Args:
        artifact: its file; what was found is kept for its content.
        backend: what runs it.
        cores: how many there are to use.
        open_one: opens the artifact with so many threads.
        say: is told each rate in one line.
    """
    path = cache_folder() / "layouts" / f"{sha256_of(artifact)}-{backend}-{cores}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["processor"] == processor_name():
            return Layout.from_dict(kept["layout"])
    except (OSError, ValueError, KeyError, TypeError, RowError):
        pass  # there is none, or it is damaged: it is measured again
    best = fastest(possible_layouts(cores), lambda layout: _measure(layout, open_one), say)
    write_json(path, {"processor": processor_name(), "layout": best.to_dict()})
    return best


def fastest(layouts: list[Layout], measure: Callable[[Layout], float], say: Callable[[str], None]) -> Layout:
    """The layout with the most pictures per second; of several about as fast the one with the fewest instances."""
    best, best_per_s = layouts[0], 0.0
    for layout in layouts:
        per_s = measure(layout)
        say(f"{layout.instances} × {layout.threads} threads: {per_s:.0f} pictures/s")
        if per_s > best_per_s * WORTH:
            best, best_per_s = layout, per_s
    return best


def _measure(layout: Layout, open_one: Callable[[int | None], Runner]) -> float:
    """Pictures per second of all instances together."""
    with ExitStack() as opened:
        runners = [opened.enter_context(open_one(layout.threads)) for _ in range(layout.instances)]
        taken = input_of(runners[0].contract)
        pictures = np.zeros((MEASURED_BATCH, *taken.shape), taken.dtype)
        for runner in runners:
            runner.infer(pictures)  # the first call allocates
        counts = [0] * len(runners)
        began_s = time.monotonic()

        def work(index: int) -> None:
            while time.monotonic() < began_s + MEASURE_S:
                runners[index].infer(pictures)
                counts[index] += MEASURED_BATCH

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(runners))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.monotonic() - began_s)
