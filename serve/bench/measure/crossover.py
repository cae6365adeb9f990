"""Owns the map around a stage: one block of it at other channels, map sizes and batches, and who is faster where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

from serve.bench.measure.engines import Bench, Prepared
from serve.bench.measure.isolated import prepare_forms, time_forms
from serve.bench.measure.places import OPERATORS, StagePlace, form_of
from serve.bench.measure.stage_rows import Cell, verdict_of
from serve.bench.measure.stages import stage_row
from serve.bench.stage_options import SeChoice
from zoo.measure.timing import Schedule
from zoo.model.spec import Variant

# The grid: shares of the stage's own channels and map, and how many times its batch.
CHANNEL_FACTORS = (0.5, 1.0, 2.0)
SIZE_FACTORS = (0.5, 1.0, 2.0)
BATCH_FACTORS = (1, 8)
# Channels are multiples of this, as the paper's widths are; maps are no smaller than a picture can be.
CHANNEL_STEP, LEAST_CHANNELS, LEAST_SIZE = 8, 8, 4


def grid_around(place: StagePlace, batch_size: int) -> list[tuple[int, int, int]]:
    """(channels, size, batch) of every cell, each once, in rising order: 3 × 3 × 2 where nothing is at its end."""
    channels = sorted({max(_to_step(place.stage.out_channels * factor), LEAST_CHANNELS) for factor in CHANNEL_FACTORS})
    sizes = sorted({max(round(place.out_size * factor), LEAST_SIZE) for factor in SIZE_FACTORS})
    return list(product(channels, sizes, sorted({batch_size * factor for factor in BATCH_FACTORS})))


def _to_step(channels: float) -> int:
    return round(channels / CHANNEL_STEP) * CHANNEL_STEP


def measure_map(
    variant: Variant,
    place: StagePlace,
    bench: Bench,
    schedule: Schedule,
    *,
    se: SeChoice = "paper",
    kernel_size: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Cell]:
    """Time one residual block of the stage in both forms at every place of the grid.

    Raises:
        VerdictError, ZooError: as `serve.bench.measure.isolated.time_forms`.
    """
    prepared: dict[str, Prepared] = {}
    for channels, size, batch_size in grid_around(place, bench.batch_size):
        stage = replace(place.stage, stride=1, out_channels=channels, num_layers=1)
        here = StagePlace(index=place.index, stage=stage, in_channels=channels, in_size=size, out_size=size)
        forms = {name: form_of(variant, stage, name, se=se, kernel_size=kernel_size) for name in OPERATORS}
        at = replace(bench, batch_size=batch_size)
        if batch_size == bench.batch_size or bench.engine.builder:  # a graph takes any batch, a plan its own
            prepared = prepare_forms(variant, here, forms, at)
        timed = time_forms(here, prepared, at, schedule)
        row = stage_row(variant, here, timed.rounds, batch_size=batch_size, precision=bench.precision)
        say(f"{channels} channels, {size} px, batch {batch_size}: {verdict_of(row.ratio)}")
        yield Cell(
            stage=place.index,
            channels=channels,
            size=size,
            batch_size=batch_size,
            mbconv_ms=row.mbconv.ms,
            fused_mbconv_ms=row.fused_mbconv.ms,
            ratio=row.ratio,
            rounds=timed.rounds,
        )
