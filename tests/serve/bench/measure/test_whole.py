from __future__ import annotations

from pathlib import Path

import pytest

from serve.bench.engine_rows import find_engine
from serve.bench.measure import whole
from serve.bench.measure.engines import Bench
from serve.bench.measure.profilers import LayerSample
from serve.bench.measure.whole import (
    OTHER,
    OWN,
    check_network,
    exchange_row,
    in_place_of,
    measure_exchanges,
    measure_in_place,
    prepare_network,
    stage_samples_ms,
)
from tests.serve.bench.measure.made_rounds import rounds_of
from zoo.measure.timing import Schedule
from zoo.model.variants import find_variant

TINY = find_variant("tiny")
QUICK = Schedule(warmup_ms=0, min_warmup_iterations=2, duration_ms=3, min_iterations=3, rounds=3)


def a_call(factor: float) -> list[LayerSample]:
    return [
        LayerSample("preprocessing/Cast", "Cast", 0.1 * factor),
        LayerSample("stages.1.block.0.fused.conv/Conv", "Conv", 1.0 * factor),
        LayerSample("stages.1.block.0.fused.act/Sigmoid", "Sigmoid", 0.5 * factor),
        LayerSample("stages.2.block.1/Add", "Add", 0.2 * factor),
        LayerSample("ReorderOutput_token_1", "ReorderOutput", 0.3 * factor),
        LayerSample("ReorderOutput_token_2", "ReorderOutput", 0.1 * factor),
        LayerSample("classifier/Gemm", "Gemm", 0.4 * factor),
    ]


def test_layers_are_summed_by_their_places_and_calls_by_their_median() -> None:
    alone = rounds_of({OWN: [5.0, 5.0, 5.0]})
    found = in_place_of([a_call(1), a_call(2), a_call(9)], profiler="onnxruntime", rounds=alone, profiled_ms=6.0)
    assert (found.calls, found.whole_ms) == (3, 5.0)
    assert found.stage_ms(1) == pytest.approx(3.0)  # (1.0 + 0.5) · 2
    assert found.operators_ms(1) == pytest.approx({"fused": 3.0})
    assert found.operators_ms(2) == pytest.approx({"residual": 0.4})
    assert (found.beside_ms("before"), found.beside_ms("after")) == (pytest.approx(0.2), pytest.approx(0.8))
    assert found.unattributed_ms == pytest.approx({"ReorderOutput": 0.8})
    assert found.sum_ms == pytest.approx(5.2)
    assert stage_samples_ms([a_call(1), a_call(2)], 1) == pytest.approx([1.5, 3.0])


def test_an_exchange_is_judged_by_the_stage_and_not_by_the_network() -> None:
    """Of a network of 100 ms whose stage takes 2, 2 % of the stage are 0.04 ms."""
    rounds = rounds_of({OWN: [100.0, 100.01, 99.99] * 4, OTHER: [100.1, 100.11, 100.09] * 4})
    row = exchange_row(1, "fused_mbconv", rounds, stage_ms=2.0)
    assert row.ratio.within == pytest.approx(0.02 * 0.02)
    assert row.ratio.verdict == "faster"  # Fused-MBConv, which is the network's own
    assert row.saved_ms == pytest.approx(0.1)
    swapped = exchange_row(1, "mbconv", rounds, stage_ms=2.0)
    assert (swapped.ratio.verdict, swapped.saved_ms) == ("slower", pytest.approx(-0.1))


def test_layers_of_a_stage_in_both_networks_are_compared_call_by_call() -> None:
    rounds = rounds_of({OWN: [10.0] * 4, OTHER: [11.0] * 4})
    row = exchange_row(2, "fused_mbconv", rounds, stage_ms=2.0, profiled=([2.0, 2.1, 2.0], [3.0, 3.15, 3.0]))
    assert row.in_place and row.in_place.value == pytest.approx(2 / 3, rel=1e-3)
    assert (row.own_in_place_ms, row.other_in_place_ms) == (2.0, 3.0)
    assert exchange_row(2, "mbconv", rounds, stage_ms=2.0, profiled=([0.0] * 3, [1.0] * 3)).in_place is None


def test_a_real_network_is_taken_apart_and_every_stage_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "PROFILED_CALLS", 3)
    bench = Bench(engine=find_engine("torch"), precision="fp32", batch_size=1, folder=tmp_path, device="cpu", threads=1)
    own = prepare_network(TINY, bench, image_size=32, name="own")
    pictures = check_network(own, bench, "tiny")
    assert pictures.shape == (1, 32, 32, 3)
    found = measure_in_place(own, bench, QUICK, pictures, calls=3)
    assert found.calls == 3
    for index in (1, 2, 3):
        assert found.stage_ms(index) > 0
    assert found.whole_ms > 0 and found.profiled_ms > 0
    assert found.nowhere_ms < found.sum_ms / 2
    rows = list(
        measure_exchanges(
            TINY, own, bench, QUICK, pictures, stage_ms=[1.0, 1.0, 1.0], in_place=True, say=lambda _: None
        )
    )
    assert [row.index for row in rows] == [1, 2, 3]
    assert [row.own_operator for row in rows] == [stage.operator for stage in TINY.stages]
    assert all(row.in_place and row.own_in_place_ms and row.other_in_place_ms for row in rows)


def test_the_graph_that_ships_is_taken_apart_by_its_own_profiler(tmp_path: Path) -> None:
    bench = Bench(
        engine=find_engine("ort-cpu"), precision="fp32", batch_size=1, folder=tmp_path, device="cpu", threads=1
    )
    own = prepare_network(TINY, bench, image_size=32, name="own")
    found = measure_in_place(own, bench, QUICK, check_network(own, bench, "tiny"), calls=3)
    layers = {(layer.stage, layer.block, layer.operator) for layer in found.layers if layer.stage}
    assert {(1, 0, "fused"), (2, 0, "fused"), (2, 1, "project"), (3, 0, "se"), (3, 1, "depthwise")} <= layers
    assert all(kind.startswith("Reorder") for kind in found.unattributed_ms)
