from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from serve.bench.measure.fusion import NETWORKS, fusion_rows, training_step
from serve.bench.measure.stage_runs import bench_fusion
from serve.bench.measure.table3 import COLUMNS, TABLE_3, FusionData, agreement, measured_order
from serve.bench.stage_options import FusionOptions
from tests.serve.bench.measure.made_rounds import rounds_of
from zoo.errors import ZooError
from zoo.measure.timing import Schedule
from zoo.model.variants import find_variant

TINY = find_variant("tiny")
QUICK = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=3, min_iterations=3, rounds=3)
# Networks of the table's names that take no time.
SMALL = tuple(replace(TINY, id=row.variant) for row in TABLE_3)


def test_the_networks_are_the_tables() -> None:
    assert [network.id for network in NETWORKS] == [row.variant for row in TABLE_3]


def test_every_network_is_held_against_the_one_without_fusing() -> None:
    rounds = rounds_of({row.id: [ms] * 5 for row, ms in zip(SMALL, (4.0, 2.0, 3.0, 8.0), strict=True)})
    rows = fusion_rows(SMALL, rounds, done="inference", batch_size=2, image_size=32)
    assert [row.pictures_per_second for row in rows] == pytest.approx([500, 1000, 2000 / 3, 250])
    assert rows[0].ratio is None
    assert [row.ratio.verdict for row in rows if row.ratio] == ["faster", "faster", "slower"]
    assert measured_order(rounds, rows) == [["1–3"], ["1–5"], ["none"], ["1–7"]]
    assert [agreement(rounds, rows, column) for column in COLUMNS] == [(4, 6), (6, 6)]
    alike = rounds_of({row.id: [ms] * 5 for row, ms in zip(SMALL, (4.0, 2.0, 2.0, 8.0), strict=True)})
    rows = fusion_rows(SMALL, alike, done="inference", batch_size=2, image_size=32)
    assert measured_order(alike, rows) == [["1–3", "1–5"], ["none"], ["1–7"]]


def test_both_passes_are_measured_in_turn() -> None:
    options = FusionOptions(image_size=32, engines=("torch",), train_batch_size=2, device="cpu", threads=1)
    (result,) = bench_fusion(options, schedule=QUICK, networks=SMALL)
    data = FusionData.from_dict(result.data)
    assert [(told.done, told.batch_size) for told in data.passes] == [("inference", 1), ("training", 2)]
    assert [len(data.of(done)) for done in ("inference", "training")] == [4, 4]
    assert result.settings["threads"] == 1
    assert result.subjects[0].batch_sizes == (1, 2)


def test_a_training_step_changes_the_weights() -> None:
    step = training_step(TINY, 2, 32, "cpu")
    (model,) = (cell.cell_contents for cell in step.__closure__ if isinstance(cell.cell_contents, torch.nn.Module))  # type: ignore[attr-defined]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step()
    after = list(model.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_nothing_to_time_is_an_error() -> None:
    with pytest.raises(ZooError, match="nothing to time"):
        next(iter(bench_fusion(FusionOptions(inference=False, training=False))))
