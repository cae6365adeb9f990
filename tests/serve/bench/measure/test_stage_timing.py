from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from serve.bench.measure import stage_timing
from serve.bench.measure.runs import bench_stages
from serve.bench.measure.stage_timing import build_form, fold_batch_norms, measure_stages, record_graph
from serve.bench.measure.stages import OPERATORS, StagePlace, places
from serve.bench.measure.timing import Schedule
from serve.bench.options import StagesOptions
from zoo.errors import MissingCapabilityError, VerdictError, ZooError
from zoo.machine import processor_name
from zoo.model.row_files import write_new_row
from zoo.model.spec import Operator, Variant
from zoo.model.variants import VARIANTS, find_variant

TINY = find_variant("tiny")
CPU = torch.device("cpu")
QUICK = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=1, min_iterations=3, rounds=3)
PLACES = list(places(TINY, 40))


def an_input(place: StagePlace, batch_size: int = 2) -> torch.Tensor:
    return torch.randn(batch_size, place.in_channels, place.in_size, place.in_size)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"stage {place.index}")
def test_folding_changes_nothing_but_the_modules(place: StagePlace, operator: Operator) -> None:
    module = build_form(TINY, place, operator, CPU)
    norms = [unit for unit in module.modules() if isinstance(unit, nn.BatchNorm2d)]
    # The norms must not be the identity, or folding would be proved by nothing.
    assert max(float((norm.running_mean).abs().max()) for norm in norms if norm.running_mean is not None) > 0.01
    x = an_input(place)
    with torch.no_grad():
        before = module(x)
        assert fold_batch_norms(module) == len(norms)
        after = module(x)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert not [unit for unit in module.modules() if isinstance(unit, nn.BatchNorm2d)]
    assert after.shape[1:] == (place.stage.out_channels, place.out_size, place.out_size)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_form_has_the_layers_of_its_operator(operator: Operator) -> None:
    module = build_form(TINY, PLACES[2], operator, CPU)
    names = {name.split(".")[2] for name, _ in module.named_modules() if name.count(".") == 2}
    mbconv, fused = {"expand", "depthwise", "se", "project"}, {"fused", "project"}
    assert names - {"stochastic_depth"} == (mbconv if operator == "mbconv" else fused)
    assert not module.training


def test_activations_keep_the_scale_of_a_trained_network() -> None:
    deep = replace(TINY, stages=(*TINY.stages[:2], replace(TINY.stages[2], num_layers=15)))
    last = list(places(deep, 16))[-1]  # maps of 2 × 2
    for operator in OPERATORS:
        with torch.no_grad():
            out = build_form(deep, last, operator, CPU)(an_input(last))
        assert 0.5 < float(out.std()) < 50


def test_every_stage_is_timed_in_both_forms() -> None:
    heard = []
    rows = measure_stages(
        TINY, image_size=32, batch_size=2, device=CPU, precision="fp32", schedule=QUICK, on_row=heard.append
    )
    assert rows == heard
    assert [row.index for row in rows] == [1, 2, 3]
    assert [row.paper_operator for row in rows] == [stage.operator for stage in TINY.stages]
    for row in rows:
        for form in row.forms:
            assert form.latency.n >= 3
            assert len(form.round_p50_ms) == 3
            assert 0 < form.best_ms <= form.ms <= form.worst_ms


def test_bfloat16_runs_on_a_processor() -> None:
    rows = measure_stages(TINY, image_size=16, batch_size=1, device=CPU, precision="bf16", schedule=QUICK)
    assert len(rows) == 3


def test_global_settings_are_put_back() -> None:
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.conv.fp32_precision, torch.is_grad_enabled()
    measure_stages(TINY, image_size=16, batch_size=1, device=CPU, precision="fp32", schedule=QUICK)
    assert (cudnn.benchmark, cudnn.conv.fp32_precision, torch.is_grad_enabled()) == before


def test_a_run_says_how_many_threads_it_had_and_gives_them_back() -> None:
    before = torch.get_num_threads()
    options = StagesOptions(model="tiny", image_size=16, device="cpu", threads=before + 1)
    result = bench_stages(options, schedule=QUICK)
    assert result.settings["threads"] == before + 1
    assert torch.get_num_threads() == before
    assert result.device == processor_name()
    assert [row["index"] for row in result.data["rows"]] == [1, 2, 3]


def test_fp32_means_fp32_and_tf32_means_tf32() -> None:
    cudnn: Any = torch.backends.cudnn
    for precision, expected in (("fp32", "ieee"), ("fp16", "ieee"), ("tf32", "tf32")):
        with stage_timing._convolutions(precision):  # type: ignore[arg-type]
            assert (cudnn.benchmark, cudnn.conv.fp32_precision) == (True, expected)


def test_tf32_needs_a_gpu() -> None:
    with pytest.raises(MissingCapabilityError, match="tf32"):
        measure_stages(TINY, image_size=16, batch_size=1, device=CPU, precision="tf32", schedule=QUICK)


def test_a_form_that_overflows_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> nn.Module:
        module = build_form(*arguments)
        with torch.no_grad():
            next(module.parameters()).fill_(float("inf"))
        return module

    timed: list[object] = []
    monkeypatch.setattr(stage_timing, "build_form", broken)
    monkeypatch.setattr(stage_timing, "time_in_turn", lambda *arguments: timed.append(arguments))
    with pytest.raises(VerdictError, match="non-finite") as error:
        measure_stages(TINY, image_size=16, batch_size=1, device=CPU, precision="fp32", schedule=QUICK)
    assert "not timed" in error.value.hint
    assert not timed


def test_out_of_memory_says_what_to_reduce(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stage_timing, "build_form", full)
    with pytest.raises(ZooError, match="does not fit in memory") as error:
        measure_stages(TINY, image_size=16, batch_size=512, device=CPU, precision="fp32", schedule=QUICK)
    assert "--batch-size" in error.value.hint


class FakeCuda:
    """As much of `torch.cuda` as recording needs; notes the order of things, and replays on the processor."""

    def __init__(self) -> None:
        self.log: list[str] = []

    class _Stream:
        def __init__(self, cuda: FakeCuda, name: str) -> None:
            self.cuda, self.name = cuda, name

        def wait_stream(self, other: FakeCuda._Stream) -> None:
            self.cuda.log.append(f"{self.name} waits for {other.name}")

    def Stream(self) -> _Stream:
        return self._Stream(self, "side")

    def current_stream(self) -> _Stream:
        return self._Stream(self, "main")

    @contextlib.contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        self.log.append(f"on {stream.name}")
        yield
        self.log.append("on main")

    class _Graph:
        def __init__(self, cuda: FakeCuda) -> None:
            self.cuda = cuda

        def replay(self) -> None:
            self.cuda.log.append("replay")

    def CUDAGraph(self) -> _Graph:
        return self._Graph(self)

    @contextlib.contextmanager
    def graph(self, graph: _Graph) -> Iterator[None]:
        self.log.append("record")
        yield
        self.log.append("recorded")


def test_a_graph_is_recorded_after_passes_on_a_side_stream_and_keeps_what_it_reads() -> None:
    cuda = FakeCuda()

    class Doubling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            cuda.log.append("pass")
            return x * 2

    x = torch.ones(3)
    replay = record_graph(Doubling(), x, cuda=cuda)
    assert cuda.log == [
        "side waits for main", "on side", "pass", "pass", "pass", "on main", "main waits for side",
        "record", "pass", "recorded",
    ]  # fmt: skip
    torch.testing.assert_close(replay(), torch.full((3,), 2.0))
    assert cuda.log[-1] == "replay"
    # The graph holds addresses only: whatever it reads must live as long as the call does.
    module, kept = replay.__defaults__[0]  # type: ignore[attr-defined]
    assert isinstance(module, Doubling)
    assert kept is x


@pytest.mark.gpu
def test_stages_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU; its parts are tested with a fake above and in test_bench_timing")
    for precision in ("fp32", "tf32", "fp16", "bf16"):
        rows = measure_stages(
            TINY,
            image_size=40,
            batch_size=4,
            device=torch.device("cuda"),
            precision=precision,  # type: ignore[arg-type]
            schedule=QUICK,
        )
        assert all(form.latency.n >= 3 and form.best_ms > 0 for row in rows for form in row.forms)


# A few calls show that a form runs.
HASTY = Schedule(warmup_ms=0, min_warmup_iterations=1, duration_ms=0.01, min_iterations=1, rounds=3)


@pytest.mark.parametrize(
    "variant", [variant for variant in VARIANTS if not variant.is_resnet], ids=lambda variant: variant.id
)
def test_every_row_with_stages_can_be_timed(
    variant: Variant, shrink: Callable[[Variant], Variant], tmp_path: Path
) -> None:
    """Narrow and with fewer layers, by way of a row file, which is how such a network is named."""
    row = write_new_row(tmp_path / "small.toml", shrink(variant), variant.id)
    options = StagesOptions(model=str(tmp_path / "small.toml"), image_size=32, device="cpu", threads=1)
    rows = bench_stages(options, schedule=HASTY).data["rows"]
    assert [(found["in_channels"], found["out_channels"]) for found in rows] == [
        (place.in_channels, place.stage.out_channels) for place in places(row, 32)
    ]
    for found, stage in zip(rows, row.stages, strict=True):
        assert found["paper_operator"] == stage.operator
        assert {found[form]["operator"] for form in OPERATORS} == set(OPERATORS)
        assert all(found[form]["latency"]["n"] >= 3 for form in OPERATORS)
