from __future__ import annotations

from pathlib import Path

import pytest

from serve.bench.engine_rows import find_engine
from serve.bench.measure import crossover
from serve.bench.measure.crossover import grid_around, measure_map
from serve.bench.measure.engines import Bench
from serve.bench.measure.places import places
from zoo.measure.timing import Schedule
from zoo.model.variants import find_variant

S, TINY = find_variant("s"), find_variant("tiny")
QUICK = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=1, min_iterations=3, rounds=3)


def test_the_grid_is_around_the_stage() -> None:
    place = list(places(S, 384))[3]  # 128 channels at 24 px
    grid = grid_around(place, 1)
    assert grid[0] == (64, 12, 1)
    assert grid[-1] == (256, 48, 8)
    assert (128, 24, 1) in grid
    assert len(grid) == 18


def test_cells_at_the_end_of_the_grid_are_measured_once() -> None:
    place = next(iter(places(TINY, 16)))  # 8 channels at 8 px: half as many are none
    grid = grid_around(place, 2)
    assert sorted({channels for channels, _, _ in grid}) == [8, 16]
    assert len(set(grid)) == len(grid) == 2 * 3 * 2


def test_every_cell_is_timed_in_both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossover, "CHANNEL_FACTORS", (1.0,))
    monkeypatch.setattr(crossover, "SIZE_FACTORS", (1.0, 2.0))
    monkeypatch.setattr(crossover, "BATCH_FACTORS", (1, 2))
    bench = Bench(engine=find_engine("torch"), precision="fp32", batch_size=1, folder=tmp_path, device="cpu", threads=1)
    heard: list[str] = []
    cells = list(measure_map(TINY, list(places(TINY, 32))[1], bench, QUICK, say=heard.append))
    assert [(cell.channels, cell.size, cell.batch_size) for cell in cells] == [
        (8, 8, 1), (8, 8, 2), (8, 16, 1), (8, 16, 2),
    ]  # fmt: skip
    assert all(cell.mbconv_ms > 0 and cell.fused_mbconv_ms > 0 and cell.stage == 2 for cell in cells)
    assert len(heard) == 4
